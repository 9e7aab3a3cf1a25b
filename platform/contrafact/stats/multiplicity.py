"""Many tests, one claim each: what may still be said of all of them together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Floats = NDArray[np.float64]


def adjusted(p: ArrayLike, method: str = "holm", k: int = 1) -> Floats:
    """Adjusted p of one family, in the order given: ``holm`` (1979), ``bh`` (Benjamini & Hochberg 1995) or ``k-fwer``.

    ``k-fwer`` bounds the chance of ``k`` or more false claims, by the step-down of Lehmann & Romano (2005, theorem 2.2);
    with k = 1 it is Holm's. A p that is not known (NaN) counts as a test that failed, and stays NaN.

    Raises:
        ValueError: an unknown method, p outside [0, 1], or k below 1.
    """
    values = np.asarray(p, float)
    unknown = np.isnan(values)
    filled = np.where(unknown, 1.0, values)
    if ((filled < 0) | (filled > 1)).any():
        raise ValueError("a p lies between 0 and 1")
    if method not in ("holm", "bh", "k-fwer") or k < 1 or (k > 1 and method != "k-fwer"):
        raise ValueError(f"'{method}' with k = {k}: known are holm, bh, and k-fwer with a k of 1 or more")
    if not len(filled):
        return filled
    if method == "bh":
        found = stats.false_discovery_control(filled)
    else:
        n, order = len(filled), np.argsort(filled, kind="stable")
        left = np.minimum(n, n + k - 1 - np.arange(n))
        found = np.empty(n)
        found[order] = np.minimum(np.maximum.accumulate(filled[order] * left / k), 1.0)
    return np.where(unknown, np.nan, found)


@dataclass(frozen=True)
class MaxT:
    """``t`` and step-down adjusted ``p`` of each column; ``flips`` is the number of sign patterns, ``exact`` if all."""

    t: Floats
    p: Floats
    flips: int
    exact: bool


def max_t(effects: ArrayLike, rng: np.random.Generator, *, flips: int = 4999) -> MaxT:
    """Joint test of the column means of ``effects`` (n images, m features) against 0, two-sided, strong control.

    Signs are flipped by image, all features at once, so that their correlation is kept; p are Westfall & Young's (1993,
    algorithm 2.8) step-down of the largest absolute t. Valid where an image's effects are symmetric about 0 if nothing
    is there. All patterns are used where there are no more than ``flips``.

    Raises:
        ValueError: fewer than 5 images, or values that are not finite.
    """
    x = np.asarray(effects, float)
    if x.ndim != 2 or len(x) < 5 or not np.isfinite(x).all():
        raise ValueError("a joint permutation test needs at least 5 images, with every feature known")
    n = len(x)
    exact = 2 ** (n - 1) <= flips  # a pattern and its mirror have the same absolute t
    if exact:
        signs = 1.0 - 2.0 * (np.arange(2 ** (n - 1))[:, None] >> np.arange(n) & 1)
    else:
        signs = np.vstack([np.ones(n), rng.choice([-1.0, 1.0], (flips, n))])
    means, squares = signs @ x / n, (x**2).mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = means / np.sqrt((squares - means**2) / (n - 1))
    t = np.where(squares > 0, t, 0.0)
    order = np.argsort(-np.abs(t[0]), kind="stable")
    # From the smallest to the largest: the maximum over what is not yet claimed.
    largest = np.maximum.accumulate(np.abs(t)[:, order[::-1]], axis=1)[:, ::-1]
    steps = np.maximum.accumulate((largest >= largest[0] - 1e-12).mean(axis=0))
    p = np.empty(x.shape[1])
    p[order] = steps
    return MaxT(t[0], p, len(signs), exact)
