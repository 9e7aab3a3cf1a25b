"""From a study's seed to one random stream for each item.

A stream belongs to an item (an image, an arm, a participant), never to a process: item 17 is the same in any
order, in any batch and on any number of machines.
"""

from __future__ import annotations

import hashlib

import numpy as np


def integer(seed: int, *labels: object) -> int:
    """A 63-bit integer that depends on the seed and the labels alone."""
    text = "\x1f".join([str(seed), *map(str, labels)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *labels: object) -> np.random.Generator:
    """NumPy's generator of the stream named by the seed and the labels."""
    return np.random.default_rng(integer(seed, *labels))


def normal(shape: tuple[int, ...], seed: int, *labels: object) -> np.ndarray:
    """Standard normal draws, float32, of the stream named by the seed and the labels."""
    return generator(seed, *labels).standard_normal(shape, dtype=np.float32)
