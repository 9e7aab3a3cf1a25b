"""The card: what independent instruments say of a stimulus, and of a set of stimuli.

Nothing here may come from a model that guided. Readings are in SD over the validation images; arrays run over
images (n) and doses (d), and ``zero`` is the column of dose 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage, stats

Array = np.ndarray


@dataclass(frozen=True)
class Effect:
    """How an arm moves the judge; NaN where not estimable.

    ``flip_rate``: share of images whose decision (sign of the calibrated logit) changes at the extreme dose that
    points away from it. ``spearman``: mean over images of the rank correlation of dose and reading. ``slope``,
    ``mae``: judge SD per requested SD, and mean absolute miss. ``symmetry``: |mean(up + down - 2 null)| over
    mean |up or down - null|; 0 is a straight line.
    """

    flip_rate: float
    spearman: float
    slope: float
    mae: float
    monotone: float
    symmetry: float


def effect(judge: Array, logit: Array, doses: Array) -> Effect:
    """``judge`` (n, d) readings in SD, ``logit`` (n, d) with the decision boundary at 0."""
    zero = int(np.argmin(np.abs(doses)))
    moved = judge - judge[:, [zero]]
    rank = [stats.spearmanr(doses, row).statistic if np.ptp(row) > 0 else np.nan for row in judge]
    # A one-sided grid points away from one of the two decisions only; the others are not asked to flip.
    up, down = doses[-1] > 0, doses[0] < 0
    positive = logit[:, zero] > 0
    asked = np.where(positive, down, up)
    away = np.where(positive, logit[:, 0], logit[:, -1])
    flipped = (np.sign(away) != np.sign(logit[:, zero]))[asked]
    both = up and down and bool(moved.any())
    bend = (moved[:, 0] + moved[:, -1]).mean() / np.abs(moved[:, [0, -1]]).mean() if both else np.nan
    return Effect(
        flip_rate=float(flipped.mean()) if len(flipped) else float("nan"),
        spearman=float(np.nanmean(rank)) if not np.all(np.isnan(rank)) else float("nan"),
        slope=float((moved @ doses).mean() / (doses @ doses)),
        mae=float(np.abs(moved - doses).mean()),
        monotone=float(np.mean(np.all(np.diff(judge, axis=1) > 0, axis=1))),
        symmetry=float(abs(bend)),
    )


def slope_interval(judge: Array, doses: Array, level: float = 0.95) -> tuple[float, float, float]:
    """Mean over images of the judge's dose slope, with its t interval; NaN bounds for fewer than 3 images."""
    zero = int(np.argmin(np.abs(doses)))
    slopes = (judge - judge[:, [zero]]) @ doses / (doses @ doses)
    if len(slopes) < 3:
        return float(np.mean(slopes)), float("nan"), float("nan")
    low, high = stats.t.interval(level, len(slopes) - 1, slopes.mean(), stats.sem(slopes))
    return float(slopes.mean()), float(low), float(high)


def ssim(a: Array, b: Array) -> Array:
    """Structural similarity of 8-bit images (n, h, w, 3), mean over pixels and channels (Wang et al. 2004, eq. 13)."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2

    def smooth(z: Array) -> Array:
        return ndimage.gaussian_filter(z, sigma=(0, 1.5, 1.5, 0))

    mx, my = smooth(x), smooth(y)
    vx, vy, cov = smooth(x * x) - mx**2, smooth(y * y) - my**2, smooth(x * y) - mx * my
    value = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    return value.mean((1, 2, 3))


def l1(a: Array, b: Array) -> Array:
    """Mean absolute difference of 8-bit images (n, h, w, 3), range [0, 1]."""
    return np.abs(a.astype(np.float64) - b.astype(np.float64)).mean((1, 2, 3)) / 255


@dataclass(frozen=True)
class Nearness:
    """Real images (n, f) in whitened features, and how far each lies from its neighbours, itself left out."""

    reference: Array
    scale: Array
    centre: float
    spread: float
    neighbours: int

    @classmethod
    def among(cls, real: Array, neighbours: int = 5) -> Nearness:
        scale = real.std(0) + 1e-9
        own = _nearest(real / scale, real / scale, neighbours + 1)
        return cls(real / scale, scale, float(own.mean()), float(own.std()), neighbours)

    def of(self, features: Array) -> Array:
        """``realism`` of stimuli (m, f)."""
        return (_nearest(features / self.scale, self.reference, self.neighbours) - self.centre) / self.spread


def realism(features: Array, real: Array, neighbours: int = 5) -> Array:
    """How far stimuli (m, f) lie from real images (n, f), in SD of the real images' own distances.

    The distance to the 5th nearest real image in whitened features; real images leave themselves out
    (the manifold idea of Kynkäänniemi et al. 2019). 0 is as near as a real image on average.
    """
    return Nearness.among(real, neighbours).of(features)


def _nearest(queries: Array, reference: Array, k: int) -> Array:
    norms, k = (reference**2).sum(1)[None], min(k, len(reference))
    found = [np.empty(0)]
    for part in np.array_split(queries, max(1, len(queries) // 500)):
        squared = (part**2).sum(1)[:, None] + norms - 2 * part @ reference.T
        found.append(np.sqrt(np.clip(np.partition(squared, k - 1, axis=1)[:, k - 1], 0, None)))
    return np.concatenate(found)


def mark(images: Array) -> Array:
    """Fine-grain traces of editing in 8-bit images (n, h, w, 3): log energies (n, 12) of two high-pass bands.

    What a careful eye, or a detector, could use to tell an edited picture whatever was edited: smooth fields,
    halos, lost grain.
    """
    x = images.astype(np.float64) / 255
    bands = []
    for sigma in (0.7, 1.5):
        high = x - ndimage.gaussian_filter(x, sigma=(0, sigma, sigma, 0))
        bands += [np.log(np.abs(high).mean((1, 2)) + 1e-6), np.log(np.sqrt((high**2).mean((1, 2))) + 1e-6)]
    return np.concatenate(bands, axis=1)


def artefact_auc(treated: Array, null: Array, folds: int = 5) -> tuple[float, Array]:
    """How well a linear detector tells treated from null pictures of images it was not fitted on.

    ``treated`` (n, d, f) and ``null`` (n, f) features; Fisher's discriminant, cross-fitted over images. Returns the
    AUC (.5: no mark; NaN for fewer than two images a fold) and the detector's score of every treated stimulus
    (n, d) in SD of the null pictures' scores.
    """
    n, d, f = treated.shape
    if n < 2 * folds:
        return float("nan"), np.full((n, d), np.nan)
    score, base = np.full((n, d), np.nan), np.full(n, np.nan)
    for fold in range(folds):
        held = np.arange(n) % folds == fold
        w = discriminant(treated[~held].reshape(-1, f), null[~held])
        centre = null[~held] @ w
        spread = centre.std() + 1e-12
        score[held] = (treated[held] @ w - centre.mean()) / spread
        base[held] = (null[held] @ w - centre.mean()) / spread
    u = stats.rankdata(np.concatenate([score.ravel(), base]))[: n * d].sum() - n * d * (n * d + 1) / 2
    return float(u / (n * d * n)), score


def discriminant(a: Array, b: Array) -> Array:
    """Weights (f,) that rise from ``b`` (n, f) to ``a`` (m, f) (Fisher 1936), the covariance shrunk by 1%."""
    within = np.cov(a.T) + np.cov(b.T)
    f = a.shape[1]
    return np.linalg.solve(within + 1e-2 * np.trace(within) / f * np.eye(f), a.mean(0) - b.mean(0))
