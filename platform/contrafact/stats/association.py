"""What goes with what, where nothing was changed by design: association, and never an effect.

Tables have one row an image (or a rating), with the unit that makes rows depend on each other in a column of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import statsmodels.formula.api as smf
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Association:
    """One figure of an observational analysis; ``p`` is NaN where none belongs to it."""

    name: str
    estimate: float
    low: float
    high: float
    p: float
    n: int
    method: str
    label: Literal["association"] = "association"


def incremental_r2(
    table: pd.DataFrame, outcome: str, blocks: Mapping[str, Sequence[str]], unit: str, rng: np.random.Generator,
    *, resamples: int = 1000, level: float = 0.95,
) -> tuple[Association, ...]:  # fmt: skip
    """What each block of columns adds to R² when entered in the order given, then all of them together.

    Least squares; the percentile interval draws whole units. R² is adjusted for the number of columns (Wherry 1931), so
    that columns of noise add nothing on average. Rows with a missing value anywhere are left out. All are NaN where fewer
    than two units are left or the outcome does not vary.
    """
    columns = [name for names in blocks.values() for name in names]
    rows = table[[outcome, unit, *columns]].dropna()
    codes, units = pd.factorize(rows[unit])
    sizes = np.cumsum([1, *(len(names) for names in blocks.values())])
    x = np.column_stack([np.ones(len(rows)), rows[columns].to_numpy(float)])
    y = rows[outcome].to_numpy(float)
    names = [*blocks, "all blocks"]
    method = f"adjusted R² by least squares, blocks in order, bootstrap over {len(units)} units"
    if len(units) < 2 or not len(y) or np.ptp(y) == 0:
        return tuple(Association(name, math.nan, math.nan, math.nan, math.nan, len(y), method) for name in names)
    # A unit enters every fit through its cross-products alone, so a resample is a weighted sum of them.
    whole = np.column_stack([x, y])
    products = np.zeros((len(units), whole.shape[1], whole.shape[1]))
    np.add.at(products, codes, whole[:, :, None] * whole[:, None, :])
    estimate = _gains(products.sum(axis=0), sizes)
    weights = rng.multinomial(len(units), np.full(len(units), 1 / len(units)), size=resamples)
    draws = np.array([_gains(np.tensordot(w, products, 1), sizes) for w in weights])
    low, high = np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return tuple(
        Association(name, float(e), float(a), float(b), math.nan, len(y), method)
        for name, e, a, b in zip(names, estimate, low, high, strict=True)
    )


def _gains(products: Floats, sizes: NDArray[np.int64]) -> Floats:
    n, total = products[0, 0], products[-1, -1] - products[0, -1] ** 2 / products[0, 0]
    found = [0.0]
    for size in sizes[1:]:
        xx, xy = products[:size, :size], products[:size, -1]
        left = products[-1, -1] - xy @ np.linalg.pinv(xx, hermitian=True) @ xy
        free = n - size
        found.append(1 - (left / free) / (total / (n - 1)) if free > 0 and total > 0 else math.nan)
    return np.array([*np.diff(found), found[-1]])


def compare_auc(outcome: ArrayLike, first: ArrayLike, second: ArrayLike, level: float = 0.95) -> tuple[Association, ...]:
    """AUC of two scores of the same rows, and their difference (DeLong, DeLong & Clarke-Pearson 1988).

    ``outcome`` is 0 or 1. Rows are taken as independent. NaN where one class has fewer than two rows.

    Raises:
        ValueError: an outcome that is not 0 or 1.
    """
    y, scores = np.asarray(outcome, float), np.vstack([np.asarray(first, float), np.asarray(second, float)])
    kept = np.isfinite(y) & np.isfinite(scores).all(axis=0)
    y, scores = y[kept], scores[:, kept]
    if not np.isin(y, (0.0, 1.0)).all():
        raise ValueError("an AUC needs an outcome of 0 and 1")
    m, n = int(y.sum()), int((1 - y).sum())
    method = "DeLong, DeLong & Clarke-Pearson (1988)"
    names = ("AUC of the first", "AUC of the second", "first minus second")
    if min(m, n) < 2:
        return tuple(Association(name, math.nan, math.nan, math.nan, math.nan, m + n, method) for name in names)
    ones, noughts = [], []
    for score in scores:
        # Mid-ranks within all and within the own class give each row's share of the other class below it.
        ranks, own = stats.rankdata(score), y == 1
        ones.append((ranks[own] - stats.rankdata(score[own])) / n)
        noughts.append(1 - (ranks[~own] - stats.rankdata(score[~own])) / m)
    auc = np.array([part.mean() for part in ones])
    cov = np.cov(np.array(ones)) / m + np.cov(np.array(noughts)) / n
    z = float(stats.norm.ppf((1 + level) / 2))
    found = []
    for name, weights in zip(names, ((1.0, 0.0), (0.0, 1.0), (1.0, -1.0)), strict=True):
        w = np.array(weights)
        estimate, se = float(w @ auc), math.sqrt(max(float(w @ cov @ w), 0.0))
        null = 0.0 if weights[1] == -1 else 0.5
        p = float(2 * stats.norm.sf(abs(estimate - null) / se)) if se else math.nan
        found.append(Association(name, estimate, estimate - z * se, estimate + z * se, p, m + n, method))
    return tuple(found)


def two_way(table: pd.DataFrame, formula: str, groups: tuple[str, str], level: float = 0.95) -> tuple[Association, ...]:
    """Least squares with standard errors clustered two ways (Cameron, Gelbach & Miller 2011), t on the smaller number of
    clusters less one. A variance that comes out negative gives NaN for its interval and p.

    Raises:
        ValueError: fewer than two clusters on a side.
    """
    fitted = smf.ols(formula, table)
    rows = table.loc[fitted.data.row_labels, list(groups)]
    codes = np.column_stack([pd.factorize(rows[name])[0] for name in groups])
    fewest = int(min(codes.max(axis=0) + 1))
    if fewest < 2:
        raise ValueError(f"clustering by {groups[0]} and {groups[1]} needs at least two of each")
    found = fitted.fit(cov_type="cluster", cov_kwds={"groups": codes}, use_t=True)
    variance = np.diag(found.cov_params())
    se = np.sqrt(np.where(variance > 0, variance, np.nan))
    half = float(stats.t.ppf((1 + level) / 2, fewest - 1)) * se
    p = 2 * stats.t.sf(np.abs(found.params.to_numpy() / se), fewest - 1)
    method = f"least squares, standard errors clustered by {groups[0]} and {groups[1]}, t({fewest - 1})"
    return tuple(
        Association(str(name), float(b), float(b - h), float(b + h), float(q), int(found.nobs), method)
        for name, b, h, q in zip(found.params.index, found.params, half, p, strict=True)
    )
