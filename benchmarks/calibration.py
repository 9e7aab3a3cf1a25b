"""Do intervals hold what they say? Simulated studies of each design, by the default estimator and by naive ones.

    python benchmarks/calibration.py --keep FILE [--studies 5000] [--design NAME] [--json FILE]

Small studies, where asymptotics fail first: 24 participants and 12 images, two edited pictures of every image for
everybody. Half of the studies have a planted slope (bias, coverage), half none (false positives at 5%). The default
estimators are those of ``stats.dose`` as a study calls them. Naive analyses of the same ratings: ``trials``, least
squares or a logit that takes every answer as independent; ``participants``, a t test over participants' own slopes,
blind to which images were drawn. Intervals are Clopper and Pearson's, at 95% over all designs together (Bonferroni).
Every 20 studies are one line of FILE: a run that was cut off goes on, and a longer one adds to it.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.api import GLM, families

from contrafact import seeds
from contrafact.stats.dose import Test, analyse

PEOPLE, IMAGES, CHUNK = 24, 12, 20
GRID = np.array([-1.5, -0.75, 0.75, 1.5])
CLAIM = Test("H", "up", "q", "treated-sham")
SLOPE = {"within": 2.0, "likert": 0.4, "between": 2.0, "pairs": 0.4}
"""Planted slopes: rating points, or log-odds, per SD of dose."""
FAMILY = {"within": "gaussian", "likert": "ordinal", "between": "gaussian", "pairs": "binary"}


def study(design: str, planted: bool, rng: np.random.Generator) -> pd.DataFrame:
    """Ratings of one study; sham does nothing on average."""
    slope = SLOPE[design] * planted
    rows = []
    for person in range(PEOPLE):
        arms = ("treated", "sham") if design != "between" else (("treated", "sham")[person % 2],) * 2
        for image in range(IMAGES):
            rows += [(person, image, arm, dose) for arm, dose in zip(arms, rng.choice(GRID, 2, replace=False), strict=True)]
            if design != "pairs" and rng.random() < 0.5:
                rows.append((person, image, "null", 0.0))
    table = pd.DataFrame(rows, columns=["participant", "image", "arm", "dose"]).assign(
        direction="up", question="q", draw=0, first=rng.integers(0, 2, len(rows))
    )
    p, i = table["participant"].to_numpy(), table["image"].to_numpy()
    dose = table["dose"].to_numpy()
    treated, sham = dose * (table["arm"] == "treated"), dose * (table["arm"] == "sham")
    unit = 1.0 if FAMILY[design] != "gaussian" else 5.0  # latent SD to rating points

    def effects(n: int, sd: float) -> np.ndarray:
        return unit * sd * rng.standard_normal(n)

    tilt = effects(PEOPLE, 0.4)
    eta = effects(PEOPLE, 1.0)[p] + effects(IMAGES, 0.8)[i]
    eta = eta + (slope + tilt[p] + effects(IMAGES, 0.4)[i]) * treated + effects(IMAGES, 0.3)[i] * sham
    if design == "between":
        eta = eta + tilt[p] * sham
    if design == "likert":
        value = np.digitize(eta + rng.logistic(size=len(table)), (-3, -2, -0.7, 0.7, 2, 3)) + 1
    elif design == "pairs":
        eta = eta + 0.3 * (table["first"] - 0.5)
        value = (eta + rng.logistic(size=len(table)) > 0).astype(int)
    else:
        value = 50 + eta + rng.normal(0, 10, len(table))
    return table.assign(value=value)


def default(design: str, table: pd.DataFrame) -> tuple[float, float, float]:
    found = analyse(table, (CLAIM,), 1, estimators={"q": (FAMILY[design],)}, between=design == "between")[0]  # type: ignore[dict-item]
    return found.estimate, found.low, found.high


def trials(design: str, table: pd.DataFrame) -> tuple[float, float, float]:
    """Every answer for itself."""
    arms = [table["dose"] * (table["arm"] == arm) for arm in ("treated", "sham")]
    columns = [*arms, *(one.abs() for one in arms)]
    constant = table["first"] - 0.5 if design == "pairs" else np.ones(len(table))
    family = families.Binomial() if design == "pairs" else families.Gaussian()
    found = GLM(table["value"].to_numpy(float), np.column_stack([*columns, constant]), family=family).fit()
    weights = np.array([1.0, -1.0, 0, 0, 0])
    estimate, se = float(weights @ found.params), math.sqrt(weights @ found.cov_params() @ weights)
    half = 1.96 * se
    return estimate, estimate - half, estimate + half


def participants(design: str, table: pd.DataFrame) -> tuple[float, float, float]:
    """A slope for each participant and arm, then a t test over participants."""
    slopes = {
        arm: own[own["dose"] != 0].groupby("participant")[["dose", "value"]].apply(
            lambda one: float(np.polyfit(one["dose"], one["value"], 1)[0])
        )
        for arm, own in table.groupby("arm")
        if arm != "null"
    }  # fmt: skip
    if design == "between":
        test = stats.ttest_ind(slopes["treated"], slopes["sham"])
        estimate = slopes["treated"].mean() - slopes["sham"].mean()
    else:
        test = stats.ttest_1samp(slopes["treated"] - slopes["sham"], 0.0)
        estimate = (slopes["treated"] - slopes["sham"]).mean()
    interval = test.confidence_interval(0.95)
    return float(estimate), float(interval.low), float(interval.high)


ESTIMATORS: dict[str, Callable[[str, pd.DataFrame], tuple[float, float, float]]] = {
    "default": default, "trials": trials, "participants": participants,
}  # fmt: skip


def comparable(design: str, estimator: str) -> bool:
    """Naive estimates in another unit than the planted slope have false positives, but no bias and no coverage."""
    return estimator == "default" or FAMILY[design] == "gaussian" or (design, estimator) == ("pairs", "trials")


def chunk(design: str, number: int) -> dict[str, Any]:
    """Counts and sums over ``CHUNK`` studies, every other one without an effect."""
    found: dict[str, Any] = {"design": design, "chunk": number}
    for name in ESTIMATORS:
        found[name] = {"planted": 0, "covered": 0, "sum": 0.0, "squares": 0.0, "null": 0, "false": 0, "lost": 0, "cpu_s": 0.0}
    for k in range(CHUNK):
        planted = k % 2 == 0
        table = study(design, planted, seeds.generator(1, "calibration", design, number, k))
        for name, estimator in ESTIMATORS.items():
            own, began = found[name], time.process_time()
            estimate, low, high = estimator(design, table)
            own["cpu_s"] += time.process_time() - began
            if math.isnan(low):
                own["lost"] += 1
            elif planted:
                error = estimate - SLOPE[design]
                own["planted"] += 1
                own["covered"] += int(low <= SLOPE[design] <= high)
                own["sum"] += error
                own["squares"] += error**2
            else:
                own["null"] += 1
                own["false"] += int(not low <= 0 <= high)
    return found


def summary(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    level, rows = 1 - 0.05 / len(SLOPE), []
    for design, planted in SLOPE.items():
        own = [line for line in lines if line["design"] == design]
        for name in ESTIMATORS:
            if not own:
                continue
            total = {key: sum(line[name][key] for line in own) for key in own[0][name]}
            row: dict[str, Any] = {"design": design, "estimator": name, "studies": total["planted"] + total["null"], "lost": total["lost"]}
            row["cpu_s"] = total["cpu_s"] / max(row["studies"] + total["lost"], 1)
            row["false_positives"] = share(total["false"], total["null"], level)
            if comparable(design, name):
                n, mean = total["planted"], total["sum"] / total["planted"]
                row["coverage"] = share(total["covered"], n, level)
                row["bias"] = {"mean": mean, "se": math.sqrt(max(total["squares"] / n - mean**2, 0) / n), "planted": planted}
            rows.append(row)
    return rows


def share(hits: int, n: int, level: float) -> dict[str, float]:
    interval = stats.binomtest(hits, n).proportion_ci(level)
    return {"share": hits / n, "low": float(interval.low), "high": float(interval.high), "n": n}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, required=True, metavar="FILE")
    parser.add_argument("--studies", type=int, default=5000, help="of each design, half of them without an effect")
    parser.add_argument("--design", choices=list(SLOPE), action="append", default=[])
    parser.add_argument("--json", type=Path, metavar="FILE")
    asked = parser.parse_args()
    lines = [json.loads(line) for line in asked.keep.read_text().splitlines()] if asked.keep.exists() else []
    done = {(line["design"], line["chunk"]) for line in lines}
    for number in range(math.ceil(asked.studies / CHUNK)):
        for design in asked.design or SLOPE:
            if (design, number) not in done:
                lines.append(chunk(design, number))
                with asked.keep.open("a") as stream:
                    stream.write(json.dumps(lines[-1]) + "\n")
    text = json.dumps(summary(lines), indent=1)
    if asked.json:
        asked.json.write_text(text + "\n")
    print(text, file=sys.stdout)


if __name__ == "__main__":
    main()
