"""Contrast: from one set of images to another, along a linear discriminant of the guide's features.

The difference of two class means in pixels is one ghost picture for every image, whatever its pose, and carries all
that differs between the classes. The discriminant (Fisher 1936, "The use of multiple measurements in taxonomic
problems") divides by what varies within the classes, and its gradient is drawn where *this* image has the feature.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from contrafact.counterfactual.direction import Reader

SHRINKAGE = 0.1
"""Share of the pooled covariance replaced by a multiple of the identity (features are many, images few)."""


@torch.no_grad()
def discriminant(features: Callable[[Tensor], Tensor], images: Tensor, side: Tensor, reference: Tensor) -> Reader:
    """A reading in SD over ``reference`` (r, c, h, w) that rises from the first set to the second.

    ``features`` maps images to (n, f); ``side`` (n,) is -1 for the first set, 1 for the second, 0 for neither.
    ValueError where a set has fewer than two images.
    """
    first, second = (_all(features, images[side == sign]) for sign in (-1, 1))
    if min(len(first), len(second)) < 2:
        raise ValueError(f"a contrast needs two images on each side, and has {len(first)} and {len(second)}")
    within = torch.cat([first - first.mean(0), second - second.mean(0)])
    covariance = within.T @ within / (len(within) - 2 or 1)
    level = covariance.diagonal().mean().clamp(min=1e-12)
    shrunk = (1 - SHRINKAGE) * covariance + SHRINKAGE * level * torch.eye(len(covariance), dtype=level.dtype)
    weights = torch.linalg.solve(shrunk, second.mean(0) - first.mean(0))
    known = _all(features, reference) @ weights
    centre, spread = float(known.mean()), float(known.std().clamp(min=1e-12))
    towards = weights.float()
    return lambda x: (features(x) @ towards - centre) / spread


def sides(values: Tensor, between: tuple[float, float] | None) -> Tensor:
    """-1, 0 or 1 for each of ``values`` (n,), NaN is 0: at or below the first of ``between``, at or above the second.

    Without ``between``: the lower and the upper third; of two values, one and the other.
    """
    found = values[~values.isnan()]
    if between is None:
        distinct = found.unique()
        if len(distinct) < 2:
            return torch.zeros_like(values)
        cuts = distinct if len(distinct) == 2 else found.quantile(torch.tensor([1 / 3, 2 / 3], dtype=found.dtype))
        between = (float(cuts[0]), float(cuts[1]))
    low, high = between
    return (values >= high).to(values.dtype) - (values <= low).to(values.dtype)


def _all(features: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    parts = [features(images[k : k + 500]) for k in range(0, len(images), 500)]
    return torch.cat(parts).double() if parts else torch.zeros(0, 1, dtype=torch.float64)
