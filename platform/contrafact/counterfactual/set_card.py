"""The card of a whole set of stimuli: distances between clouds of pictures, and what an editor's mark gives away.

Features are those of the judge's network, (n, f), which never guided. Distances between few pictures and many are
never 0, so each stands beside its floor: the same distance between two halves of the real pictures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from contrafact.counterfactual.card import discriminant

Array = np.ndarray

FEWEST = 20
"""Pictures below which no cloud is described."""


@dataclass(frozen=True)
class Likeness:
    """How edited pictures lie among real ones; NaN for fewer than 20 of either.

    ``frechet`` and ``kid`` are distances (0 is alike), ``..._floor`` those between two random halves of the real
    pictures, of the size of the smaller cloud. ``precision``: share of edited pictures within the real ones' reach;
    ``recall``: share of real pictures within the edited ones' reach.
    """

    frechet: float
    frechet_floor: float
    kid: float
    kid_floor: float
    precision: float
    recall: float


def likeness(edited: Array, real: Array, rng: np.random.Generator, draws: int = 20) -> Likeness:
    """``edited`` (m, f) against ``real`` (n, f); both are cut to one size, because these distances depend on it."""
    size = min(len(edited), len(real) // 2)
    if size < FEWEST:
        return Likeness(*[float("nan")] * 6)
    centre, spread = real.mean(0), real.std(0) + 1e-9
    edited, real = (edited - centre) / spread, (real - centre) / spread
    found = []
    for _ in range(draws):
        order = rng.permutation(len(real))
        one, other = real[order[:size]], real[order[size : 2 * size]]
        some = edited[rng.choice(len(edited), size, replace=False)]
        found.append((frechet(some, one), frechet(one, other), kid(some, one), kid(one, other)))
    values = np.mean(found, axis=0)
    some, one = edited[rng.choice(len(edited), size, replace=False)], real[rng.permutation(len(real))[:size]]
    precision, recall = precision_recall(some, one)
    of_frechet, floor, of_kid, kid_floor = map(float, values)
    return Likeness(of_frechet, floor, of_kid, kid_floor, precision, recall)


def frechet(a: Array, b: Array) -> float:
    """Fréchet distance of two Gaussians fitted to (n, f) and (m, f) (Heusel et al. 2017, eq. 6).

    The trace of the root of the product of covariances is the sum of the singular values of the product of the two
    centred clouds, which needs no covariance of full rank: there may be fewer pictures than features.
    """
    left, right = (x - x.mean(0) for x in (a, b))
    left, right = left / np.sqrt(len(a) - 1), right / np.sqrt(len(b) - 1)
    shared = np.linalg.svd(left @ right.T, compute_uv=False).sum()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + (left**2).sum() + (right**2).sum() - 2 * shared)


def kid(a: Array, b: Array) -> float:
    """Kernel distance, unbiased (Bińkowski et al. 2018, section 3 and eq. 4, kernel (x·y/f + 1)³); may be below 0."""

    def kernel(x: Array, y: Array) -> Array:
        return (x @ y.T / x.shape[1] + 1) ** 3

    within = [(kernel(x, x).sum() - np.trace(kernel(x, x))) / (len(x) * (len(x) - 1)) for x in (a, b)]
    return float(sum(within) - 2 * kernel(a, b).mean())


def precision_recall(edited: Array, real: Array, neighbours: int = 3) -> tuple[float, float]:
    """Shares of each cloud within the union of balls around the other's pictures (Kynkäänniemi et al. 2019, eqs. 1
    and 2), radius to the ``neighbours``-th nearest of its own."""

    def distances(x: Array, y: Array) -> Array:
        return np.sqrt(np.clip((x**2).sum(1)[:, None] + (y**2).sum(1)[None] - 2 * x @ y.T, 0, None))

    def covered(x: Array, y: Array) -> float:
        own = distances(y, y)
        np.fill_diagonal(own, np.inf)
        radius = np.partition(own, neighbours - 1, axis=1)[:, neighbours - 1]
        return float((distances(x, y) <= radius[None]).any(1).mean())

    return covered(edited, real), covered(real, edited)


def edit_auc(raw: Array, sham: Array, treated: Array, folds: int = 5) -> float:
    """Does the direction leave more of an editor's mark than editing does? AUC of treated against sham, .5 is no.

    A linear detector learns raw (n, f) against sham (n, d, f) on some images and reads treated (n, d, f) against sham
    of the others; ``f`` are traces of editing (``card.mark``). NaN for fewer than two images a fold.
    """
    n, f = len(sham), sham.shape[-1]
    if n < 2 * folds:
        return float("nan")
    scores: list[tuple[Array, Array]] = []
    for fold in range(folds):
        held = np.arange(n) % folds == fold
        w = discriminant(sham[~held].reshape(-1, f), raw[~held])
        scores.append((treated[held] @ w, sham[held] @ w))
    wins = [stats.mannwhitneyu(a.ravel(), b.ravel()).statistic / (a.size * b.size) for a, b in scores]
    return float(np.mean(wins))


def locality(edited: Array, source: Array, share: float = 0.9) -> Array:
    """Smallest share of pixels (n,) that holds ``share`` of the absolute change of 8-bit images (n, h, w, 3).

    NaN where nothing changed. Small is local; a change of every pixel alike gives ``share`` itself.
    """
    change = np.abs(edited.astype(float) - source).mean(3).reshape(len(edited), -1)
    ordered = np.cumsum(-np.sort(-change, axis=1), axis=1)
    total = ordered[:, -1:]
    needed = (ordered < share * total).sum(1) + 1
    return np.where(total[:, 0] > 0, needed / change.shape[1], np.nan)


def minimality(l1: Array, moved: Array) -> float:
    """Mean absolute pixel change (range 0 to 1) for each SD that the judge moves: sum of changes over sum of movements.

    The counterfactual that changes least is the one to prefer (Monteiro et al. 2023, section 3, speak of composition,
    reversibility and effectiveness; minimality after Melistas et al. 2024, section 3). NaN where the judge stays.
    """
    total = float(np.abs(moved).sum())
    return float(np.abs(l1).sum() / total) if total > 0 else float("nan")


def corrected(slope: float, reliability: float) -> float:
    """A leakage in SD as a perfect probe would read it: the reading over the root of the probe's R² (Spearman 1904).

    NaN where the probe knows nothing. Of a classifier, R² is not defined and its leakage stays as it is read.
    """
    return float(slope / np.sqrt(reliability)) if reliability > 0 else float("nan")
