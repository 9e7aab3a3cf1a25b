"""Do intervals hold what they say? Simulated studies of each design, by the default estimator and by naive ones.

    python benchmarks/calibration.py --keep FILE [--studies 5000] [--design NAME] [--json FILE]

Small studies, where asymptotics fail first: 24 participants and 12 images, for everybody a treated and a sham picture
of every image, or of every image a choice in each arm, or one best and worst of four. Half of the studies have a
planted slope (bias, coverage), half none (false positives at 5%). The default estimators are those of ``stats.dose`` as
a study calls them. Naive analyses of the same answers: ``trials``, least squares or a logit that takes every answer as
independent; ``participants``, a t test over participants' own slopes, blind to which images were drawn. Intervals are
Clopper and Pearson's, at 95% over all designs together (Bonferroni). Every 20 studies are one line of FILE: a run that
was cut off goes on, and a longer one adds to it.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from functools import cache
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
SLOPE = {"within": 2.0, "likert": 0.4, "between": 2.0, "pairs": 0.4, "guess": 0.4, "best_worst": 0.4}
"""Planted slopes: rating points, or log-odds, per SD of dose."""
CHOICES = ("pairs", "guess", "best_worst")
FAMILY = {
    "within": "gaussian", "likert": "ordinal", "between": "gaussian", "pairs": "binary", "guess": "binary", "best_worst": "gaussian",
}  # fmt: skip


def study(design: str, planted: bool, rng: np.random.Generator) -> pd.DataFrame:
    """Answers of one study; sham does nothing on average."""
    slope = SLOPE[design] * planted
    unit = 5.0 if design in ("within", "between") else 1.0  # latent SD to rating points

    def effects(n: int, sd: float) -> np.ndarray:
        return unit * sd * rng.standard_normal(n)

    tilt, of_image, of_sham = effects(PEOPLE, 0.4), effects(IMAGES, 0.4), effects(IMAGES, 0.3)

    def worth(table: pd.DataFrame) -> np.ndarray:
        p, i, dose = (table[name].to_numpy() for name in ("participant", "image", "dose"))
        treated, sham = dose * (table["arm"] == "treated").to_numpy(), dose * (table["arm"] == "sham").to_numpy()
        return (slope + tilt[p] + of_image[i]) * treated + (of_sham[i] + (tilt[p] if design == "between" else 0)) * sham

    rows: list[tuple[Any, ...]] = []
    if design in CHOICES:
        for person in range(PEOPLE):
            for image in range(IMAGES):
                rows += [(person, image, *picture) for picture in _shown(design, rng)]
        table = _labelled(rows, ["participant", "image", "arm", "dose", "trial", "place"])
        return _chosen(table, worth(table), rng, 4 if design == "best_worst" else 2)
    for person in range(PEOPLE):
        arms = ("treated", "sham") if design != "between" else (("treated", "sham")[person % 2],) * 2
        for image in range(IMAGES):
            rows += [(person, image, arm, dose) for arm, dose in zip(arms, rng.choice(GRID, 2, replace=False), strict=True)]
            if rng.random() < 0.5:
                rows.append((person, image, "null", 0.0))
    table = _labelled(rows, ["participant", "image", "arm", "dose"])
    eta = worth(table) + effects(PEOPLE, 1.0)[table["participant"]] + effects(IMAGES, 0.8)[table["image"]]
    if design == "likert":
        return table.assign(value=np.digitize(eta + rng.logistic(size=len(table)), (-3, -2, -0.7, 0.7, 2, 3)) + 1)
    return table.assign(value=50 + eta + rng.normal(0, 10, len(table)))


def _labelled(rows: list[tuple[Any, ...]], columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=columns).assign(direction="up", question="q", draw=0)


VARIANTS = [("null", 0.0), *((arm, float(dose)) for arm in ("treated", "sham") for dose in GRID)]


def _shown(design: str, rng: np.random.Generator) -> list[tuple[str, float, int, int]]:
    """The pictures of one person and image: arm, dose, number of the trial there, place."""
    if design == "best_worst":
        return [(*VARIANTS[k], 0, place) for place, k in enumerate(rng.choice(len(VARIANTS), 4, replace=False))]
    found = []
    for trial, arm in enumerate(("treated", "sham")):
        doses = rng.choice([0.0, *GRID], 2, replace=False) if design == "guess" else rng.permutation([0.0, rng.choice(GRID)])
        found += [(arm if dose else "null", float(dose), trial, place) for place, dose in enumerate(doses)]
    return found


def _chosen(table: pd.DataFrame, worth: np.ndarray, rng: np.random.Generator, size: int) -> pd.DataFrame:
    """Who was chosen, of ``size`` in a trial; being first is worth .3. Of four the best and the worst, as Marley and Louviere have it."""
    table = table.assign(trial=table["participant"] * 100 + table["image"] * 2 + table["trial"], value=1.0)
    u = (worth + 0.3 * (table["place"] == 0).to_numpy()).reshape(-1, size)
    if size == 2:
        first = u[:, 0] - u[:, 1] + rng.logistic(size=len(u)) > 0
        return table.assign(chosen=np.column_stack([first, ~first]).ravel())
    # The largest of u_i - u_j + Gumbel noise over ordered pairs has the model's probabilities.
    noisy = u[:, :, None] - u[:, None, :] + rng.gumbel(size=(len(u), 4, 4))
    noisy[:, range(4), range(4)] = -np.inf
    best, worst = np.divmod(noisy.reshape(len(u), -1).argmax(axis=1), 4)
    place = table["place"].to_numpy().reshape(-1, 4)
    first, last = (place == best[:, None]).ravel(), (place == worst[:, None]).ravel()
    return table.assign(chosen=first, value=1.0 * first - last, times=2.0)


def default(design: str, table: pd.DataFrame) -> tuple[float, float, float]:
    estimators = {"q": (FAMILY[design],)}
    found = analyse(table, (CLAIM,), 1, estimators=estimators, between=design == "between", exploratory=False)[0]  # type: ignore[arg-type]
    return found.estimate, found.low, found.high


def _coded(design: str, table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Participants, doses of treated and sham, the absolute doses, and the answers; of choices the differences."""
    doses = np.column_stack([table["dose"] * (table["arm"] == arm) for arm in ("treated", "sham")])
    people, sizes = table["participant"].to_numpy(), np.abs(doses)
    if design == "best_worst":  # scores know nothing of what differs between trials
        doses, sizes = (one - np.repeat(one.reshape(-1, 4, 2).mean(axis=1), 4, axis=0) for one in (doses, sizes))
    if FAMILY[design] != "binary":
        return people, doses, sizes, table["value"].to_numpy(float)
    chosen = table["chosen"].to_numpy()[::2].astype(float)
    return people[::2], doses[::2] - doses[1::2], sizes[::2] - sizes[1::2], chosen


def trials(design: str, table: pd.DataFrame) -> tuple[float, float, float]:
    """Every answer for itself."""
    _, doses, sizes, y = _coded(design, table)
    family = families.Binomial() if FAMILY[design] == "binary" else families.Gaussian()
    found = GLM(y, np.column_stack([doses, sizes, np.ones(len(y))]), family=family).fit()
    weights = np.array([1.0, -1.0, 0, 0, 0])
    estimate, se = float(weights @ found.params), math.sqrt(weights @ found.cov_params() @ weights)
    half = 1.96 * se
    return estimate, estimate - half, estimate + half


def participants(design: str, table: pd.DataFrame) -> tuple[float, float, float]:
    """Least-squares slopes of each participant, then a t test over participants."""
    people, doses, _, y = _coded(design, table)
    own = []
    for person in range(PEOPLE):
        mine = people == person
        x = np.column_stack([doses[mine], np.ones(mine.sum())])
        own.append(np.linalg.lstsq(x, y[mine], rcond=None)[0][:2])
    slopes = np.array(own)
    if design == "between":
        test = stats.ttest_ind(slopes[::2, 0], slopes[1::2, 1])
        estimate = slopes[::2, 0].mean() - slopes[1::2, 1].mean()
    else:
        test = stats.ttest_1samp(slopes[:, 0] - slopes[:, 1], 0.0)
        estimate = (slopes[:, 0] - slopes[:, 1]).mean()
    interval = test.confidence_interval(0.95)
    return float(estimate), float(interval.low), float(interval.high)


ESTIMATORS: dict[str, Callable[[str, pd.DataFrame], tuple[float, float, float]]] = {
    "default": default, "trials": trials, "participants": participants,
}  # fmt: skip


@cache
def truth(design: str) -> float:
    """The slope that an estimate is compared with: the planted one, or of best-worst scores, whose unit is not that of
    what pictures are worth, the mean of least squares over 3,000 further studies."""
    if design != "best_worst":
        return SLOPE[design]
    return float(np.mean([trials(design, study(design, True, seeds.generator(2, "truth", design, k)))[0] for k in range(3000)]))


def comparable(design: str, estimator: str) -> bool:
    """Naive estimates in another unit than the planted slope have false positives, but no bias and no coverage."""
    return estimator == "default" or FAMILY[design] == "gaussian" or (FAMILY[design] == "binary" and estimator == "trials")


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
                error = estimate - truth(design)
                own["planted"] += 1
                own["covered"] += int(low <= truth(design) <= high)
                own["sum"] += error
                own["squares"] += error**2
            else:
                own["null"] += 1
                own["false"] += int(not low <= 0 <= high)
    return found


def summary(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    level, rows = 1 - 0.05 / len(SLOPE), []
    for design in SLOPE:
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
                row["bias"] = {"mean": mean, "se": math.sqrt(max(total["squares"] / n - mean**2, 0) / n), "planted": truth(design)}
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
