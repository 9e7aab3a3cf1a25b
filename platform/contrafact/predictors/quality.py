"""How good a predictor is, on images it never saw: AUC or R2 with intervals, calibration, the dose unit.

Intervals are percentile bootstraps over units (Efron & Tibshirani 1993), because images of one unit are not
independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from contrafact import seeds


@dataclass(frozen=True)
class Quality:
    """``metric`` is ``auc`` (chance .5) or ``r2`` (chance 0); NaN where it is not estimable."""

    metric: str
    value: float
    low: float
    high: float
    n: int

    @property
    def chance(self) -> float:
        return 0.5 if self.metric == "auc" else 0.0

    @property
    def above_chance(self) -> bool:
        """Whether the interval lies above chance; an undefined interval does not."""
        return bool(self.low > self.chance)


def auc(score: np.ndarray, label: np.ndarray) -> float:
    """Area under the ROC curve (Mann & Whitney's U), ties counted half; NaN with one class."""
    positive = int((label > 0.5).sum())
    negative = len(label) - positive
    if not positive or not negative:
        return float("nan")
    ranks = stats.rankdata(score)
    return float((ranks[label > 0.5].sum() - positive * (positive + 1) / 2) / (positive * negative))


def r2(score: np.ndarray, value: np.ndarray) -> float:
    """Squared correlation of reading and value, negative where they run against each other."""
    if len(value) < 3 or np.std(value) == 0 or np.std(score) == 0:
        return float("nan")
    r = float(np.corrcoef(score, value)[0, 1])
    return r * abs(r)


def quality(
    score: np.ndarray, value: np.ndarray, kind: str, units: np.ndarray, resamples: int, seed: int
) -> Quality:
    """Quality of ``score`` (n,) against ``value`` (n,) with a 95% bootstrap interval over ``units``."""
    known = ~np.isnan(value)
    score, value, units = score[known], value[known], units[known]
    metric, measure = ("auc", auc) if kind == "binary" else ("r2", r2)
    _, inverse = np.unique(units, return_inverse=True)
    members = (
        np.split(np.argsort(inverse, kind="stable"), np.cumsum(np.bincount(inverse))[:-1])
        if len(units)
        else []
    )
    rng = seeds.generator(seed, "bootstrap", metric)
    draws = []
    for _ in range(resamples if members else 0):
        chosen = np.concatenate([members[k] for k in rng.integers(0, len(members), len(members))])
        draws.append(measure(score[chosen], value[chosen]))
    finite = np.array([draw for draw in draws if not np.isnan(draw)])
    low, high = np.quantile(finite, [0.025, 0.975]) if len(finite) else (np.nan, np.nan)
    return Quality(metric, measure(score, value), float(low), float(high), len(value))


def temperature(logit: np.ndarray, label: np.ndarray) -> float:
    """Temperature that minimises the cross-entropy of ``logit / T`` (Guo et al. 2017, section 4.2)."""

    def loss(log_t: float) -> float:
        z = logit / np.exp(log_t)
        return float(np.mean(np.logaddexp(0, z) - label * z))

    return float(np.exp(optimize.minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def expected_calibration_error(logit: np.ndarray, label: np.ndarray, bins: int = 10) -> float:
    """ECE with bins of equal counts (Guo et al. 2017, equation 3)."""
    p = 1 / (1 + np.exp(-logit))
    parts = np.array_split(np.argsort(p), bins)
    return float(
        sum(len(part) * abs(p[part].mean() - label[part].mean()) for part in parts if len(part)) / len(p)
    )


@dataclass(frozen=True)
class Mapping:
    """The frozen curve from the guide's reading to the judge's, both in their own SD.

    Equipercentile: readings of the same real images that stand equally high belong together (Kolen & Brennan 2014,
    *Test Equating, Scaling, and Linking*, chapter 2). Unlike least squares it is not shrunk by the guide's error,
    and unlike a line it knows where one of the two saturates before the other. ``guide`` and ``judge`` are the
    curve's knots, both rising; outside them it goes on with ``slope``, the ratio of the SDs.
    """

    guide: tuple[float, ...]
    judge: tuple[float, ...]
    slope: float
    correlation: float

    def reach(self, level: np.ndarray, doses: np.ndarray) -> np.ndarray:
        """What the guide should move by, (n, d), for images at ``level`` (n,) to move the judge by ``doses`` (d,)."""
        to = self._along(level, self.guide, self.judge, self.slope)[:, None] + doses
        found = self._along(to, self.judge, self.guide, 1 / self.slope) - level[:, None]
        return np.where(doses == 0, 0.0, found)

    @staticmethod
    def _along(x: np.ndarray, knots: Sequence[float], values: Sequence[float], slope: float) -> np.ndarray:
        outside = np.minimum(x - knots[0], 0) + np.maximum(x - knots[-1], 0)
        return np.interp(x, knots, values) + slope * outside


IMAGES_A_KNOT = 60
"""Fewer make the curve follow chance."""


def mapping(guide: np.ndarray, judge: np.ndarray) -> Mapping:
    """The curve from the readings (n,) of the same real images by both; ValueError where they disagree.

    Of few images only mean and SD are taken: linear linking, the standardised major axis.
    """
    correlation = float(np.corrcoef(guide, judge)[0, 1])
    if not correlation > 0:
        raise ValueError("the guide and the judge do not agree on which images stand high")
    knots = min(40, len(guide) // IMAGES_A_KNOT)

    def curve(x: np.ndarray) -> tuple[float, ...]:
        if knots < 3:
            return float(x.mean() - x.std()), float(x.mean() + x.std())
        return tuple(float(part.mean()) for part in np.array_split(np.sort(x), knots))

    return Mapping(curve(guide), curve(judge), float(np.std(judge) / np.std(guide)), correlation)
