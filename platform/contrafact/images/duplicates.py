"""Near-duplicates across splits: a picture that is in two of them was seen before it is asked about.

Splits go by unit, which keeps a unit's pictures together; the same photograph under two units' names escapes that.
"""

from __future__ import annotations

import numpy as np

Array = np.ndarray

NEAR = 0.2
"""Share of the usual distance to the nearest picture of another split below which two are one picture saved twice."""

AXES, SAMPLE, CHUNK = 16, 4_000, 500


def softened(images: Array) -> Array:
    """8-bit pictures (n, h, w, 3) without what saving anew changes: means of 8 x 8 blocks, at the same size.

    Sides are multiples of 8 pixels.
    """
    n, h, w, c = images.shape
    blocks = images.reshape(n, 8, h // 8, 8, w // 8, c).mean((2, 4)).round().astype(np.uint8)
    return blocks.repeat(h // 8, 1).repeat(w // 8, 2)


def across(features: Array, images: Array, split: Array) -> list[tuple[int, int]]:
    """Pairs of pictures that stand in different ``split`` (n,) and are nearly the same.

    ``features`` (n, f) are those of a network, ``images`` (n, h, w, 3) the softened pictures themselves: both count
    alike, because a network may be blind to what it has no use for.

    After Barz & Denzler 2020 ("Do we train on test data?"), who look at nearest neighbours in a network's features.
    Theirs are judged by eye; here a pair is named where its distance along the first principal axes is less than a
    fifth of the median distance to the nearest picture of another split. Each row is compared with its nearest one;
    pairs come once, in order.
    """
    n = len(features)
    if n < 2 or len(set(split)) < 2:
        return []
    x = np.concatenate([_of_one_size(features), _of_one_size(images[:, :: images.shape[1] // 8, :: images.shape[2] // 8])], 1)
    some = x[:: -(-n // SAMPLE)]
    _, axes = np.linalg.eigh(some.T @ some)
    x = x @ axes[:, -AXES:]
    size = (x**2).sum(1)
    nearest, distance = np.zeros(n, int), np.full(n, np.inf)
    for k in range(0, n, CHUNK):
        rows = slice(k, k + CHUNK)
        squared = size[rows, None] + size[None] - 2 * x[rows] @ x.T
        squared[split[rows, None] == split[None]] = np.inf
        nearest[rows] = squared.argmin(1)
        distance[rows] = np.linalg.norm(x[rows] - x[nearest[rows]], axis=1)  # exact where the difference is small
    # Where most pictures are there twice the usual distance is 0, and rounding is all that is left between them.
    limit = max(NEAR * float(np.median(distance)), 1e-4 * float(np.sqrt(size.mean())))
    return sorted({(min(i, int(nearest[i])), max(i, int(nearest[i]))) for i in np.flatnonzero(distance <= limit).tolist()})


def _of_one_size(values: Array) -> Array:
    """Rows (n, -1) about their mean, of total variance 1; as they are where nothing varies."""
    x = np.asarray(values, np.float32).reshape(len(values), -1)
    x = x - x.mean(0)
    return x / max(float(np.sqrt((x**2).sum(1).mean())), 1e-12)
