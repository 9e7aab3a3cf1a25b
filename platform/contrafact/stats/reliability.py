"""How far can these ratings be trusted? Agreement, consistency, and the ceiling that they put on any R².

Tables of scores are ``(n targets, k raters)``; long tables have the columns ``participant``, a unit (``image`` unless
named) and ``value``, in rating points.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from statsmodels.stats.inter_rater import aggregate_raters, cohens_kappa, fleiss_kappa

Floats = NDArray[np.float64]
Scale = Literal["nominal", "ordinal", "interval", "ratio"]


@dataclass(frozen=True)
class Reliability:
    """One coefficient with its interval; ``low`` and ``high`` are NaN where ``interval`` is empty."""

    name: str
    estimate: float
    low: float
    high: float
    interval: str = ""


# Intraclass correlations


@dataclass(frozen=True)
class Intraclass:
    """One form of Shrout & Fleiss (1979); ``name`` is McGraw & Wong's (1996). ``f`` tests against 0 on df1, df2."""

    form: str
    name: str
    estimate: float
    low: float
    high: float
    f: float
    df1: int
    df2: int
    p: float


def icc(scores: ArrayLike, level: float = 0.95) -> tuple[Intraclass, ...]:
    """All six forms, (1,1) to (3,k), of a complete table ``(n targets, k raters)``, n and k at least 2.

    Intervals are the exact ones for (1,·) and (3,·) and Satterthwaite's for (2,·) (McGraw & Wong 1996, table 7).
    Where nothing varies every number is NaN.

    Raises:
        ValueError: a table that is not complete, or smaller than 2 by 2.
    """
    x = np.asarray(scores, float)
    if x.ndim != 2 or min(x.shape) < 2:
        raise ValueError("an intraclass correlation needs at least 2 targets, each rated by at least 2 raters")
    if not np.isfinite(x).all():
        raise ValueError(
            f"{int((~np.isfinite(x)).sum())} scores are missing; an intraclass correlation needs a complete table: "
            "use variance components, which do not"
        )
    n, k = x.shape
    targets, raters = x.mean(axis=1), x.mean(axis=0)
    ms_b = k * targets.var(ddof=1)
    ms_j = n * raters.var(ddof=1)
    ms_w = ((x - targets[:, None]) ** 2).sum() / (n * (k - 1))
    ms_e = ((x - targets[:, None] - raters + x.mean()) ** 2).sum() / ((n - 1) * (k - 1))
    if np.ptp(x) == 0 or ms_w == 0:
        nan = math.nan
        return tuple(
            Intraclass(form, name, nan, nan, nan, nan, n - 1, 0, nan) for form, name in _FORMS
        )  # fmt: skip
    tail = (1 + level) / 2

    def ratio(a: float, b: float) -> float:
        return float(a / b) if b else math.inf

    # One-way: F over MS within; two-way: F over the residual.
    f1, df1 = ratio(ms_b, ms_w), n * (k - 1)
    f3, df3 = ratio(ms_b, ms_e), (n - 1) * (k - 1)

    def exact(f: float, df: int) -> tuple[float, float, float]:
        low, high = f / stats.f.ppf(tail, n - 1, df), f * stats.f.ppf(tail, df, n - 1)
        return _single(f, k), _single(low, k), _single(high, k)

    one, three = exact(f1, df1), exact(f3, df3)
    between = ms_b + (k - 1) * ms_e + k * (ms_j - ms_e) / n
    rho = float((ms_b - ms_e) / between)
    two = (rho, *_two_way_random(ms_b, ms_j, ms_e, rho, n, k, tail))
    found = []
    for (form, name), single, f, df in zip(_FORMS, (one, two, three) * 2, (f1, f3, f3) * 2, (df1, df3, df3) * 2, strict=True):
        estimate, low, high = single if form.endswith("1)") else (spearman_brown(value, k) for value in single)
        found.append(Intraclass(form, name, estimate, low, high, f, n - 1, df, float(stats.f.sf(f, n - 1, df))))
    return tuple(found)


_FORMS = (
    ("ICC(1,1)", "ICC(1)"), ("ICC(2,1)", "ICC(A,1)"), ("ICC(3,1)", "ICC(C,1)"),
    ("ICC(1,k)", "ICC(k)"), ("ICC(2,k)", "ICC(A,k)"), ("ICC(3,k)", "ICC(C,k)"),
)  # fmt: skip


def _single(f: float, k: int) -> float:
    return float((f - 1) / (f + k - 1)) if math.isfinite(f) else 1.0


def _two_way_random(
    ms_b: float, ms_j: float, ms_e: float, rho: float, n: int, k: int, tail: float
) -> tuple[float, float]:
    """Bounds of ICC(2,1) (Shrout & Fleiss 1979, p. 424)."""
    if ms_e == 0:
        return math.nan, math.nan
    fj = ms_j / ms_e
    a, b = k * rho * fj, n * (1 + (k - 1) * rho) - k * rho
    v = (k - 1) * (n - 1) * (a + b) ** 2 / ((n - 1) * a**2 + b**2)
    upper, lower = stats.f.ppf(tail, n - 1, v), stats.f.ppf(tail, v, n - 1)
    rest = k * ms_j + (k * n - k - n) * ms_e
    low = n * (ms_b - upper * ms_e) / (upper * rest + n * ms_b)
    high = n * (lower * ms_b - ms_e) / (rest + n * lower * ms_b)
    return float(low), float(high)


def spearman_brown(reliability: float, factor: float) -> float:
    """Reliability of a measure ``factor`` times as long (Spearman 1910; Brown 1910)."""
    return factor * reliability / (1 + (factor - 1) * reliability)


def raters_needed(single: float, target: float) -> float:
    """How many ratings a mean needs for reliability ``target`` in (0, 1), given that of one; inf where it has none."""
    if not 0 < target < 1:
        raise ValueError(f"a target reliability lies between 0 and 1, not {target:g}")
    if math.isnan(single):
        return math.nan
    return target * (1 - single) / (single * (1 - target)) if single > 0 else math.inf


# Generalisability


@dataclass(frozen=True)
class Components:
    """Variances, in squared rating points, of units, of participants, and of the rest (their interaction and noise).

    An estimate below zero is told as 0. ``per_unit`` is the harmonic mean of ratings a unit.
    """

    unit: float
    participant: float
    residual: float
    n_units: int
    n_participants: int
    n: int
    per_unit: float

    def relative(self, raters: float) -> float:
        """Generalisability of the mean of ``raters`` ratings, where all units have the same raters, as ICC(3,k)."""
        return self._share(self.residual, raters)

    def absolute(self, raters: float) -> float:
        """Dependability of the mean of ``raters`` ratings, where each unit has raters of its own, as ICC(1,k) and (2,k)."""
        return self._share(self.participant + self.residual, raters)

    def _share(self, error: float, raters: float) -> float:
        whole = self.unit + error / raters
        return self.unit / whole if whole > 0 else math.nan


def variance_components(table: pd.DataFrame, unit: str = "image") -> Components:
    """Variance components of a crossed table, complete or not, by Henderson's third method (1953).

    Moments of the fixed-effects fits, unbiased without an assumption of normality (Searle, Casella & McCulloch 1992,
    ch. 5). In a complete table they are those of the two-way analysis of variance behind ICC(2,·) and (3,·). Ratings
    without a value are left out. All are NaN where a side has fewer than 2 levels or no rating is left for the error.
    """
    rows = table[table["value"].notna()]
    u, units = pd.factorize(rows[unit])
    p, people = pd.factorize(rows["participant"])
    y = rows["value"].to_numpy(float)
    n, a, b = len(y), len(units), len(people)
    per_unit = float(a / (1 / np.bincount(u)).sum()) if n else math.nan
    blank = Components(math.nan, math.nan, math.nan, a, b, n, per_unit)
    if min(a, b) < 2:
        return blank
    turned = a > b  # the smaller side is solved for, the larger one swept out
    small, large = (p, u) if turned else (u, p)
    y = y - y.mean()
    counts = np.zeros((min(a, b), max(a, b)))
    np.add.at(counts, (small, large), 1.0)
    n_small, n_large = counts.sum(axis=1), counts.sum(axis=0)
    sums_small, sums_large = np.bincount(small, y), np.bincount(large, y)
    swept = np.diag(n_small) - (counts / n_large) @ counts.T
    right = sums_small - counts @ (sums_large / n_large)
    rank = int(np.linalg.matrix_rank(swept, hermitian=True))
    by_large = float((sums_large**2 / n_large).sum())
    by_small = float((sums_small**2 / n_small).sum())
    both = by_large + float(right @ np.linalg.pinv(swept, hermitian=True) @ right)
    free = n - max(a, b) - rank
    if free < 1:
        return blank
    residual = (float(y @ y) - both) / free
    expected_small = n - float((counts**2 / n_large).sum())  # tr(Z' M Z), the other side swept out
    expected_large = n - float((counts**2 / n_small[:, None]).sum())
    of_small = (both - by_large - rank * residual) / expected_small
    of_large = (both - by_small - (max(a, b) + rank - min(a, b)) * residual) / expected_large
    of_unit, of_people = (of_large, of_small) if turned else (of_small, of_large)
    return Components(max(of_unit, 0.0), max(of_people, 0.0), max(residual, 0.0), a, b, n, per_unit)


def r2_ceiling(reliability: float) -> float:
    """The largest R² that any predictor of a measured outcome can reach: the outcome's reliability.

    Only the part that is no error can be predicted (Spearman 1904: the correlation is at most the square root). NaN
    where the reliability is not known; a negative one leaves nothing to explain.
    """
    return reliability if math.isnan(reliability) else min(max(reliability, 0.0), 1.0)


# Agreement of any number of raters, with gaps


def krippendorff(
    scores: ArrayLike, scale: Scale, rng: np.random.Generator, *, resamples: int = 1000, level: float = 0.95
) -> Reliability:
    """Krippendorff's alpha of ``(n units, k raters)``, NaN where a rater saw no such unit (Krippendorff 2011).

    The interval is the percentile one over ``resamples`` draws of units. Units with fewer than two values say nothing
    and are left out. NaN where all values agree because there is only one value, or where no unit is left.

    Raises:
        ValueError: a ratio scale with values below zero.
    """
    x = np.asarray(scores, float)
    x = x[np.isfinite(x).sum(axis=1) >= 2]
    here = np.isfinite(x)
    if scale == "ratio" and (x[here] < 0).any():
        raise ValueError("a ratio scale has no values below zero; use interval")
    values, codes = np.unique(x[here], return_inverse=True)
    counts = np.zeros((len(x), len(values)))
    np.add.at(counts, (np.nonzero(here)[0], codes), 1.0)
    estimate = _alpha(counts, values, scale)
    draws = np.array([
        _alpha(counts[rng.integers(len(x), size=len(x))], values, scale) for _ in range(resamples if len(x) > 1 else 0)
    ])  # fmt: skip
    draws = draws[np.isfinite(draws)]
    name = f"Krippendorff's alpha, {scale}"
    if math.isnan(estimate) or not len(draws):
        return Reliability(name, estimate, math.nan, math.nan)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Reliability(name, estimate, float(low), float(high), f"{level:.0%}, bootstrap over {len(x)} units")


def _alpha(counts: Floats, values: Floats, scale: Scale) -> float:
    totals = counts.sum(axis=0)
    n = totals.sum()
    if (totals > 0).sum() < 2:
        return math.nan
    disagreement = _disagreement(totals, values, scale)
    observed = (disagreement(counts) / (counts.sum(axis=1) - 1)).sum() / n
    expected = disagreement(totals[None])[0] / (n * (n - 1))
    return float(1 - observed / expected)


def _disagreement(totals: Floats, values: Floats, scale: Scale) -> Callable[[Floats], Floats]:
    """Rows of counts to the sum, over ordered pairs within a row, of the scale's squared difference."""
    if scale == "nominal":
        return lambda c: c.sum(axis=1) ** 2 - (c**2).sum(axis=1)
    if scale == "ratio":
        with np.errstate(invalid="ignore"):
            delta = np.nan_to_num(((values[:, None] - values) / (values[:, None] + values)) ** 2)
        return lambda c: np.einsum("uv,vw,uw->u", c, delta, c, optimize=True)
    # Ordinal differences are those of the mid-ranks; a sum over pairs of squares needs two moments alone.
    at = values if scale == "interval" else np.cumsum(totals) - totals / 2
    at = at - (totals @ at) / totals.sum()
    return lambda c: 2 * (c.sum(axis=1) * (c @ at**2) - (c @ at) ** 2)


def kappa(scores: ArrayLike, weights: Literal["linear", "quadratic"] | None = None) -> Reliability:
    """Agreement beyond chance of a complete table of categories ``(n units, k raters)``.

    Cohen's kappa (1960) for two raters, weighted by the distance of sorted categories on request, with a 95% interval;
    Fleiss' (1971) for more, without one. NaN where only one category was used.

    Raises:
        ValueError: missing scores, fewer than two raters, or weights for more than two.
    """
    frame = pd.DataFrame(np.asarray(scores))
    if frame.shape[1] < 2 or frame.empty or frame.isna().any(axis=None):
        raise ValueError("kappa needs a complete table of at least two raters; Krippendorff's alpha takes gaps")
    name = "Cohen's kappa" if frame.shape[1] == 2 else "Fleiss' kappa"
    if frame.stack().nunique() < 2:
        return Reliability(name, math.nan, math.nan, math.nan)
    if frame.shape[1] > 2:
        if weights is not None:
            raise ValueError("weighted kappa is for two raters; use Krippendorff's alpha, ordinal")
        counts, _ = aggregate_raters(frame.to_numpy())
        return Reliability(name, float(fleiss_kappa(counts, method="fleiss")), math.nan, math.nan)
    categories = np.unique(frame.to_numpy())
    counts = np.zeros((len(categories), len(categories)))
    first, second = (np.searchsorted(categories, frame[rater].to_numpy()) for rater in frame)
    np.add.at(counts, (first, second), 1.0)
    found = cohens_kappa(counts, wt=weights)
    return Reliability(name, float(found.kappa), float(found.kappa_low), float(found.kappa_upp), "95%, normal")


# Consistency over halves and over time


def split_half(table: pd.DataFrame, rng: np.random.Generator, *, unit: str = "image", halves: int = 200) -> Reliability:
    """Correlation of the unit means of two random halves of participants, stepped up by Spearman & Brown.

    The mean over ``halves`` random splits; ``low`` and ``high`` hold the middle 95% of splits, which is the luck of
    the split and no interval for new people. Levels of participants are taken out first, since with lists of their
    own the halves would otherwise differ by who is lenient. NaN with fewer than 4 participants or 3 common units.
    """
    rows = table[table["value"].notna()]
    u, units = pd.factorize(rows[unit])
    p, people = pd.factorize(rows["participant"])
    y = rows["value"].to_numpy(float)
    y = y - (np.bincount(p, y) / np.bincount(p))[p] if len(y) else y
    found: list[float] = []
    for _ in range(halves if len(people) >= 4 else 0):
        first = (rng.permutation(len(people)) < len(people) // 2)[p]
        means = []
        for half in (first, ~first):
            n = np.bincount(u[half], minlength=len(units))
            with np.errstate(invalid="ignore"):
                means.append(np.bincount(u[half], y[half], minlength=len(units)) / n)
        common = np.isfinite(means[0]) & np.isfinite(means[1])
        if common.sum() < 3 or min(np.ptp(one[common]) for one in means) == 0:
            continue
        r = float(np.corrcoef(means[0][common], means[1][common])[0, 1])
        found.append(spearman_brown(r, 2) if r > -1 else math.nan)
    name = "split-half, Spearman-Brown"
    if not found:
        return Reliability(name, math.nan, math.nan, math.nan)
    low, high = np.quantile(found, [0.025, 0.975])
    return Reliability(name, float(np.mean(found)), float(low), float(high), f"middle 95% of {len(found)} random splits")


def retest(
    table: pd.DataFrame, rng: np.random.Generator, *, unit: str = "stimulus", resamples: int = 1000
) -> Reliability:
    """Correlation of the first and the second answer of the same participant to the same unit, in order of rows.

    The interval is the 95% percentile one over ``resamples`` draws of participants. NaN where fewer than three pairs
    are there or nothing varies.
    """
    rows = table[table["value"].notna()]
    rows = rows.assign(turn=rows.groupby(["participant", unit]).cumcount())
    pairs = rows[rows["turn"] < 2].pivot(index=["participant", unit], columns="turn", values="value")
    pairs = pairs.reindex(columns=[0, 1]).dropna()
    name = "test-retest"
    if len(pairs) < 3 or (pairs.nunique() < 2).any():
        return Reliability(name, math.nan, math.nan, math.nan)
    x, y = pairs.to_numpy(float).T
    people, who = np.unique(pairs.index.get_level_values("participant"), return_inverse=True)
    moments = np.column_stack([np.ones_like(x), x, y, x * x, y * y, x * y])
    sums = np.zeros((len(people), 6))
    np.add.at(sums, who, moments)
    weights = rng.multinomial(len(people), np.full(len(people), 1 / len(people)), size=resamples)
    draws = _correlation(weights @ sums)
    draws = draws[np.isfinite(draws)]
    low, high = np.quantile(draws, [0.025, 0.975]) if len(people) > 1 and len(draws) else (math.nan, math.nan)
    estimate = float(_correlation(sums.sum(axis=0)[None])[0])
    said = f"95%, bootstrap over {len(people)} participants; {len(pairs)} pairs"
    return Reliability(name, estimate, float(low), float(high), said if math.isfinite(low) else "")


def _correlation(sums: Floats) -> Floats:
    """Pearson's r from rows of (n, x, y, xx, yy, xy) sums."""
    n, x, y, xx, yy, xy = sums.T
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((xy - x * y / n) / np.sqrt((xx - x * x / n) * (yy - y * y / n)))
