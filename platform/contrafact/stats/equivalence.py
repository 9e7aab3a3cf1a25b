"""Equivalence: two one-sided tests (Schuirmann 1987), never a wide interval around zero."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats
from statsmodels.stats.weightstats import DescrStatsW

from contrafact.stats.mixed import Contrast


@dataclass(frozen=True)
class Tost:
    """Both one-sided tests of ``-margin < estimate < margin``.

    ``p_lower`` tests that the estimate is above -margin, ``p_upper`` that it is below margin, ``p`` is the larger;
    ``low`` to ``high`` is the 1 - 2 alpha interval. With fewer than two values, or none that differ, all are NaN
    and ``equivalent`` is None.
    """

    estimate: float
    low: float
    high: float
    p_lower: float
    p_upper: float
    p: float
    equivalent: bool | None
    margin: float
    n: int


def tost_mean(values: ArrayLike, margin: float, alpha: float = 0.05) -> Tost:
    """Is the mean of independent ``values`` (say, one leakage an image) within ``margin`` of zero?

    Missing values are left out and not counted in ``n``.

    Raises:
        ValueError: the margin is not positive.
    """
    if not margin > 0:
        raise ValueError(f"the margin of an equivalence test is positive, not {margin:g}")
    kept = np.asarray(values, float).ravel()
    kept = kept[np.isfinite(kept)]
    if len(kept) < 2 or np.ptp(kept) == 0:
        nan = math.nan
        return Tost(float(kept.mean()) if len(kept) else nan, nan, nan, nan, nan, nan, None, margin, len(kept))
    sample = DescrStatsW(kept)
    p, (_, p_lower, _), (_, p_upper, _) = sample.ttost_mean(-margin, margin)
    low, high = sample.tconfint_mean(alpha=2 * alpha)
    return Tost(
        float(sample.mean), float(low), float(high), float(p_lower), float(p_upper), float(p),
        bool(p <= alpha), margin, len(kept),
    )  # fmt: skip


def tost_contrast(found: Contrast, margin: float) -> tuple[float, float]:
    """The two one-sided p of a model's contrast against -margin and +margin."""
    lower = stats.t.sf((found.estimate + margin) / found.se, found.df)
    upper = stats.t.cdf((found.estimate - margin) / found.se, found.df)
    return float(lower), float(upper)
