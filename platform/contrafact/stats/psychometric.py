"""How much must change before people see it? A psychometric function of the dose, with lapses."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.optimize import minimize
from scipy.special import expit, logit

Floats = NDArray[np.float64]
LAPSE_MOST = 0.1
"""Wichmann & Hill (2001): lapses are kept to what an attentive person may have."""


@dataclass(frozen=True)
class Psychometric:
    """``threshold`` and ``width`` (SD of the cumulative normal) in doses; ``noticeable`` is the just noticeable dose:
    from 50 to 75% of what people can do, with its 95% interval. ``deviance`` against the observed shares."""

    threshold: float
    width: float
    lapse: float
    guess: float
    noticeable: float
    low: float
    high: float
    deviance: float
    n: int


def psychometric(
    dose: ArrayLike, yes: ArrayLike, n: ArrayLike, rng: np.random.Generator, *, guess: float = 0.0, resamples: int = 200
) -> Psychometric:
    """``guess + (1 - guess - lapse) Phi((dose - threshold) / width)`` by maximum likelihood.

    ``yes`` of ``n`` answers at each ``dose``; ``guess`` is 0 where people say which is more, 0.5 where they must find the
    changed one. The just noticeable dose is ``width * z(.75)`` for guess 0 and ``threshold`` for a forced choice, where
    performance is half way from guessing. The interval is the percentile one over ``resamples`` parametric draws (Wichmann
    & Hill 2001); answers are taken as independent.

    Raises:
        ValueError: fewer than 3 doses, or counts that cannot be.
    """
    x, k, m = (np.asarray(values, float) for values in (dose, yes, n))
    if len(np.unique(x[m > 0])) < 3 or (k < 0).any() or (k > m).any():
        raise ValueError("a psychometric function needs at least 3 doses, and from 0 to n answers of n at each")
    nan = math.nan
    if (k.sum() in (0.0, m.sum())) or np.ptp(k[m > 0] / m[m > 0]) == 0:
        return Psychometric(nan, nan, nan, guess, nan, nan, nan, nan, int(m.sum()))
    best, fun = _fit(x, k, m, guess, None)
    p = _curve(best, x, guess)
    draws = np.array([_noticeable(_fit(x, rng.binomial(m.astype(int), p).astype(float), m, guess, best)[0], guess) for _ in range(resamples)])
    low, high = np.quantile(draws, [0.025, 0.975]) if resamples else (nan, nan)
    shares = np.clip(k / np.maximum(m, 1), 1e-12, 1 - 1e-12)
    full = float((k * np.log(shares) + (m - k) * np.log1p(-shares)).sum())
    threshold, width, lapse = _plain(best)
    return Psychometric(
        threshold, width, lapse, guess, _noticeable(best, guess), float(low), float(high), 2 * (fun + full), int(m.sum())
    )


def _plain(values: Floats) -> tuple[float, float, float]:
    return float(values[0]), float(np.exp(values[1])), float(LAPSE_MOST * expit(values[2]))


def _curve(values: Floats, x: Floats, guess: float) -> Floats:
    threshold, width, lapse = _plain(values)
    return np.asarray(guess + (1 - guess - lapse) * stats.norm.cdf((x - threshold) / width))


def _noticeable(values: Floats, guess: float) -> float:
    threshold, width, _ = _plain(values)
    return threshold if guess else width * float(stats.norm.ppf(0.75))


def _fit(x: Floats, k: Floats, m: Floats, guess: float, start: Floats | None) -> tuple[Floats, float]:
    def loss(values: Floats) -> float:
        p = np.clip(_curve(values, x, guess), 1e-9, 1 - 1e-9)
        return -float((k * np.log(p) + (m - k) * np.log1p(-p)).sum())

    spread = float(np.ptp(x))
    bounds = [(x.min() - 2 * spread, x.max() + 2 * spread), (math.log(spread / 100), math.log(10 * spread)), (-7.0, 7.0)]
    starts = [start] if start is not None else [np.array([t, math.log(spread / 3), logit(0.2)]) for t in np.quantile(x, (0.25, 0.5, 0.75))]
    found = [minimize(loss, one, method="L-BFGS-B", bounds=bounds) for one in starts]
    best = min(found, key=lambda one: one.fun)
    return best.x, float(best.fun)
