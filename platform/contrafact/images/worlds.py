"""Rendered worlds: pictures whose every factor is known, so that the truth behind a study is known too.

A factor vector is drawn from a truncated normal distribution and rendered by soft shapes (``scenes.py``).
Rendering is deterministic and knows no randomness: rendering again with one factor changed *is* the true
counterfactual.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contrafact import seeds
from contrafact.images.scenes import SCENES
from contrafact.study.schema import World
from contrafact.study.worlds import TRUNCATION, WORLD_FACTORS

FACTORS = WORLD_FACTORS["faces"]


@dataclass(frozen=True)
class WorldSample:
    """``factors`` (n, k) in SD, ``outcome`` (n,) 0 or 1 or any number, ``names`` the columns of ``factors``."""

    factors: NDArray[np.float64]
    outcome: NDArray[np.float64]
    names: tuple[str, ...]


def sample(world: World, seed: int, outcome: str = "binary") -> WorldSample:
    """Factors and outcomes of a world; image k is the same whatever the number of images.

    A ``binary`` outcome is a coin with logit ``effect`` x cause, a ``continuous`` one is ``effect`` x cause with
    standard normal noise; in a ``null_outcome`` world the effect is 0. In a ``confounded`` world the nuisance
    correlates with the cause and has no effect of its own. The kinds ``null_rating`` and ``artefact`` differ in the
    respondents, not in the images.
    """
    names = WORLD_FACTORS[world.name]
    cause, nuisance = names.index(world.cause), names.index(world.nuisance)
    block = 1000
    factors, outcomes = [], []
    for start in range(0, world.images, block):
        rng = seeds.generator(seed, "world", world.name, start)
        drawn = _truncated_normal(rng, (block, len(names)))
        if world.kind == "confounded":
            drawn[:, nuisance] = _correlated(rng, drawn[:, cause], world.correlation)
        level = np.zeros(block) if world.kind == "null_outcome" else world.effect * drawn[:, cause]
        factors.append(drawn)
        if outcome == "binary":
            outcomes.append((rng.random(block) < 1 / (1 + np.exp(-level))).astype(float))
        else:
            outcomes.append(level + rng.standard_normal(block))
    n = world.images
    return WorldSample(np.concatenate(factors)[:n], np.concatenate(outcomes)[:n], names)


def _truncated_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    values = rng.standard_normal(shape)
    while (outside := np.abs(values) > TRUNCATION).any():
        values[outside] = rng.standard_normal(int(outside.sum()))
    return values


def _correlated(
    rng: np.random.Generator, given: NDArray[np.float64], correlation: float
) -> NDArray[np.float64]:
    rest = np.sqrt(1 - correlation**2)
    values = correlation * given + rest * rng.standard_normal(len(given))
    while (outside := np.abs(values) > TRUNCATION).any():
        values[outside] = correlation * given[outside] + rest * rng.standard_normal(int(outside.sum()))
    return values


SHIFTS = np.linspace(-4, 4, 33)
"""Shifts of a cause in SD that pictures are rendered anew with."""


def render(factors: NDArray[np.float64], size: int, world: str = "faces") -> NDArray[np.uint8]:
    """Pictures of ``factors`` (n, k) in SD as ``(n, size, size, 3)`` 8-bit RGB."""
    factors = np.atleast_2d(factors)
    pictures = [SCENES[world](factors[k : k + 500], size) for k in range(0, len(factors), 500)]
    return np.concatenate(pictures) if pictures else np.zeros((0, size, size, 3), np.uint8)


def rises(
    factors: NDArray[np.float64],
    cause: str,
    read: Callable[[NDArray[np.uint8]], NDArray[np.float64]],
    size: int,
    world: str = "faces",
) -> bool:
    """Whether the reading ``read`` rises with ``cause`` in pictures with ``factors`` (n, k), on the median."""
    return bool(np.median(np.polyfit(SHIFTS, _responses(factors, cause, read, size, world).T, 1)[0]) >= 0)


def _responses(
    factors: NDArray[np.float64],
    cause: str,
    read: Callable[[NDArray[np.uint8]], NDArray[np.float64]],
    size: int,
    world: str,
) -> NDArray[np.float64]:
    """What each shift of the cause moves the reading by, (n, shifts)."""
    moved = np.repeat(factors[:, None], len(SHIFTS), 1)
    moved[:, :, WORLD_FACTORS[world].index(cause)] += SHIFTS
    response = read(render(moved.reshape(-1, factors.shape[1]), size, world)).reshape(len(factors), -1)
    return response - response[:, [len(SHIFTS) // 2]]


def counterfactuals(
    factors: NDArray[np.float64],
    cause: str,
    moves: NDArray[np.float64],
    read: Callable[[NDArray[np.uint8]], NDArray[np.float64]],
    size: int,
    world: str = "faces",
    rising: bool | None = None,
) -> NDArray[np.uint8]:
    """The true counterfactuals (n, d, h, w, 3) of pictures with ``factors`` (n, k).

    ``cause`` alone changes, image by image, by as much as moves the judge's reading ``read`` by ``moves`` (n, d):
    the yardstick of a stimulus is the picture that this same instrument finds as far away. ``rising`` as ``rises``
    says; found on these pictures where it is not given.
    """
    (n, k), d = factors.shape, moves.shape[1]
    response = _responses(factors, cause, read, size, world)
    if rising is None:
        rising = bool(np.median(np.polyfit(SHIFTS, response.T, 1)[0]) >= 0)
    moved = [
        [_smallest_shift(move, row if rising else -row) for move in (each if rising else -each)]
        for each, row in zip(moves, response, strict=True)
    ]
    truth = np.repeat(factors[:, None], d, 1)
    truth[:, :, WORLD_FACTORS[world].index(cause)] += moved
    return render(truth.reshape(-1, k), size, world).reshape(n, d, size, size, 3)


def _smallest_shift(move: float, response: NDArray[np.float64]) -> float:
    """The shift nearest to 0 that moves a rising ``response`` (to ``SHIFTS``) by ``move``, or comes nearest to that.

    Towards the ends of what a picture can show, a reading may stand still or turn back: a bottle has no label left to
    shrink. Interpolating over the whole response would then answer with the far end.
    """
    zero, sign = len(SHIFTS) // 2, 1 if move >= 0 else -1
    reached = np.maximum.accumulate(sign * response[zero::sign])
    size = min(sign * move, reached[-1])
    k = int(np.argmax(reached >= size))
    around = slice(max(k - 1, 0), k + 1)
    return sign * float(np.interp(size, reached[around], SHIFTS[zero:][around]))
