"""What three public sets of ratings say: how reliable they are, and what their raters and faces explain.

    python benchmarks/faces.py DATA

DATA holds ``london/``, ``3dsk/`` and ``question_ratings/`` (see docs/faces.md for where they come from). Prints one JSON
object; docs/faces.md quotes it.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from contrafact.stats import fit
from contrafact.stats.reliability import Components, raters_needed, variance_components

FEW_IMAGES = (12, 40, 100)


def reliability(found: Components) -> dict[str, Any]:
    """Variances; reliability of one rating; ratings an image for a reliable mean; precision of a mean over images."""
    whole = found.unit + found.participant + found.residual
    single, shared = found.absolute(1), found.relative(1)
    return {
        "ratings": found.n, "images": found.n_units, "participants": found.n_participants,
        "shares": {
            "image": found.unit / whole, "participant": found.participant / whole, "rest": found.residual / whole,
        },
        "one_rating": single,
        "ratings_for_90": {"own_raters": raters_needed(single, 0.9), "same_raters": raters_needed(shared, 0.9)},
        # The mean over images of endless raters still has the images' luck in it.
        "se_of_mean_over_images": {n: math.sqrt(found.unit / n) for n in FEW_IMAGES},
        "images_for_se_of_a_tenth_sd": found.unit / (0.1**2 * whole),
    }  # fmt: skip


def london(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    ratings = pd.read_csv(folder / "ratings.csv.gz", dtype={"face_id": str})
    images = pd.read_csv(folder / "images.csv", dtype={"person_id": str})
    rated = images.groupby("smiling")["attractiveness_mean"].count()
    yield "photographs with a rating, by smiling", {str(key): int(n) for key, n in rated.items()}
    table = ratings.rename(columns={"rater_id": "participant", "face_id": "image", "rating": "value"})
    yield "london, attractiveness", reliability(variance_components(table))
    faces = images[images["smiling"] == 0].drop_duplicates("person_id").set_index("person_id")
    table = table.assign(age=table["image"].map(faces["age"]) / 10, face=table["image"].map(faces["gender"]))
    table = table[table["rater_sex"].isin(["female", "male"])].rename(columns={"rater_sex": "rater"})
    # Who rates varies within images, and what is rated within participants: both slopes are random, or the
    # interaction would be as sure as 250,000 independent ratings make it.
    for name, formula in (
        ("london, model", "value ~ age + face * rater + (1 + age + face | participant) + (1 + rater | image)"),
        ("london, slopes left out", "value ~ age + face * rater + (1 | participant) + (1 | image)"),
    ):
        began = time.process_time()
        model = fit(table, formula)
        yield name, {
            "formula": model.formula, "n": model.n, "groups": model.groups, "converged": model.converged,
            "singular": model.singular, "cpu_s": round(time.process_time() - began, 1),
            "coefficients": [
                {"term": c.term, "estimate": c.estimate, "se": c.se, "df": c.df, "p": c.p, "low": c.low, "high": c.high}
                for c in model.coefficients
            ],
        }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    data = parser.parse_args().data
    result = dict(london(data / "london"))
    traits = pd.read_csv(data / "3dsk" / "ratings.csv.gz")
    traits = traits.rename(columns={"rater_id": "participant", "face_id": "image", "rating": "value"})
    for trait, own in traits.groupby("trait"):
        result[f"3dsk, {trait}"] = reliability(variance_components(own))
    asked = pd.read_csv(data / "question_ratings" / "ratings.csv.gz")
    checks, asked = asked[asked["comprehensionCheck"] == 1], asked[asked["comprehensionCheck"] == 0]
    missed = (checks["response"] - checks["comprehensionCheckRequestedResponse"]).abs() > 5
    failed = set(checks.loc[missed, "subjectID"])
    result["question_ratings, who missed a check"] = {"participants": len(failed), "of": int(asked["subjectID"].nunique())}
    kept = asked[~asked["subjectID"].isin(failed)]
    kept = kept.rename(columns={"subjectID": "participant", "questionID": "image", "response": "value"})
    for scale, own in kept.groupby("scaleText"):
        result[f"question_ratings, {scale}"] = reliability(variance_components(own))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
