"""Rendered worlds: faces whose every factor is known, so that the truth behind a study is known too.

A factor vector is drawn from a truncated normal distribution and rendered by soft shapes on a unit square.
Rendering is deterministic and knows no randomness: rendering again with one factor changed *is* the true
counterfactual.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contrafact import seeds
from contrafact.study.schema import World

FACTORS = (
    "groom",  # low: full beard, high: clean-shaven
    "skin",  # low: deep tone, high: light tone
    "hair_length",
    "hair_shade",  # low: black, high: blond
    "face_width",
    "mouth_size",
    "eye_size",
    "background",  # low: cool, high: warm
    "brow",  # thickness of the eyebrows
)
TRUNCATION = 2.5  # SD: no factor lies further from its mean

Floats = NDArray[np.floating]  # float32 throughout the renderer


@dataclass(frozen=True)
class WorldSample:
    """``factors`` (n, 9) in SD, ``outcome`` (n,) 0 or 1, ``names`` the columns of ``factors``."""

    factors: NDArray[np.float64]
    outcome: NDArray[np.float64]
    names: tuple[str, ...]


def sample(world: World, seed: int) -> WorldSample:
    """Factors and outcomes of a world; image k is the same whatever the number of images.

    The outcome is a coin with logit ``effect`` x cause, in a ``null_outcome`` world a fair coin. In a
    ``confounded`` world the nuisance correlates with the cause and has no effect of its own. The kinds
    ``null_rating`` and ``artefact`` differ in the respondents, not in the images.
    """
    cause, nuisance = FACTORS.index(world.cause), FACTORS.index(world.nuisance)
    block = 1000
    factors, outcome = [], []
    for start in range(0, world.images, block):
        rng = seeds.generator(seed, "world", world.name, start)
        drawn = _truncated_normal(rng, (block, len(FACTORS)))
        if world.kind == "confounded":
            drawn[:, nuisance] = _correlated(rng, drawn[:, cause], world.correlation)
        logit = np.zeros(block) if world.kind == "null_outcome" else world.effect * drawn[:, cause]
        factors.append(drawn)
        outcome.append((rng.random(block) < 1 / (1 + np.exp(-logit))).astype(float))
    n = world.images
    return WorldSample(np.concatenate(factors)[:n], np.concatenate(outcome)[:n], FACTORS)


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


def render(factors: NDArray[np.float64], size: int) -> NDArray[np.uint8]:
    """Faces of ``factors`` (n, 9) in SD as ``(n, size, size, 3)`` 8-bit RGB."""
    factors = np.atleast_2d(factors)
    pictures = [_render(factors[k : k + 500], size) for k in range(0, len(factors), 500)]
    return np.concatenate(pictures) if pictures else np.zeros((0, size, size, 3), np.uint8)


def _render(factors: NDArray[np.float64], size: int) -> NDArray[np.uint8]:
    z = {name: factors[:, k, None, None].astype(np.float32) for k, name in enumerate(FACTORS)}
    grid = (np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1
    x, y = grid[None, None, :], grid[None, :, None]
    soft = np.float32(1.6 / size)

    def ellipse(cx: float, cy: Floats | float, rx: Floats | float, ry: Floats | float) -> Floats:
        """Coverage of an ellipse, soft over about 1.6 pixels (first-order distance to its edge)."""
        dx, dy = (x - cx) / rx, (y - cy) / ry
        slope = np.sqrt((dx / rx) ** 2 + (dy / ry) ** 2) + np.float32(1e-6)
        return np.clip(0.5 - (dx**2 + dy**2 - 1) / (2 * slope) / soft, 0, 1)

    def half(edge: Floats, sign: float) -> Floats:
        """Coverage of the half plane where ``sign * edge`` is positive."""
        return np.clip(0.5 + sign * edge / soft, 0, 1)

    def mix(low: tuple[float, ...], high: tuple[float, ...], share: Floats) -> Floats:
        return np.stack([lo + (hi - lo) * share for lo, hi in zip(low, high, strict=True)], -1)

    def share(name: str) -> Floats:
        return 0.5 + z[name] / (2 * TRUNCATION)

    width = 0.50 + 0.045 * z["face_width"]
    skin = mix((0.52, 0.34, 0.24), (0.98, 0.84, 0.74), share("skin"))
    hair = mix((0.07, 0.05, 0.06), (0.86, 0.70, 0.38), share("hair_shade"))
    wall = mix((0.36, 0.52, 0.70), (0.80, 0.60, 0.44), share("background"))
    shirt = np.array([0.24, 0.28, 0.34], np.float32)

    picture = wall * (1 - 0.12 * (y + 1) / 2)[..., None] * np.ones((1, 1, size, 1), np.float32)

    def paint(colour: Floats, coverage: Floats) -> None:
        nonlocal picture
        picture = picture + coverage[..., None] * (colour - picture)

    paint(shirt, ellipse(0, 1.18, 0.86, 0.42))
    length = 0.30 + 0.19 * z["hair_length"]  # where the hair ends below the middle of the picture
    back = ellipse(0, -0.12, width + 0.14, 0.76) * half(y - length, -1)
    paint(hair, np.maximum(back, ellipse(0, -0.36, width + 0.14, 0.52)))
    paint(skin * 0.86, ellipse(0, 0.72, 0.22, 0.30))  # neck
    face = ellipse(0, 0.06, width, 0.66)
    paint(skin * (1.02 - 0.10 * ((x / 0.6) ** 2))[..., None], face)

    beard = face * half(y - (0.20 + 0.35 * (1 - np.abs(x) / width) ** 2 * (np.abs(x) < width)), 1)
    moustache = ellipse(0, 0.335, 0.25, 0.085)
    opacity = 0.46 - 0.175 * z["groom"]  # .90 at -2.5 SD, .02 at +2.5 SD: linear, never saturated
    paint(np.array([0.13, 0.09, 0.08], np.float32), np.maximum(beard, moustache) * opacity)

    mouth = 0.19 + 0.040 * z["mouth_size"]
    paint(np.array([0.70, 0.26, 0.28], np.float32), ellipse(0, 0.45, mouth, 0.060))
    paint(skin * 0.80, ellipse(0, 0.17, 0.070, 0.040) * 0.8)  # nose
    eye = 0.075 + 0.013 * z["eye_size"]
    brow = 0.034 + 0.008 * z["brow"]
    for side in (-0.21, 0.21):
        paint(np.array([0.97, 0.97, 0.95], np.float32), ellipse(side, -0.08, eye * 1.55, eye))
        paint(np.array([0.12, 0.14, 0.20], np.float32), ellipse(side, -0.08, eye * 0.72, eye * 0.85))
        paint(np.array([0.10, 0.07, 0.06], np.float32), ellipse(side, -0.25, 0.145, brow))
    fringe = ellipse(0, -0.46, width + 0.06, 0.30) * half(y + 0.37 - 0.10 * (x / 0.5) ** 2, -1)
    paint(hair, fringe)
    return np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)


def counterfactuals(
    factors: NDArray[np.float64],
    cause: str,
    moves: NDArray[np.float64],
    read: Callable[[NDArray[np.uint8]], NDArray[np.float64]],
    size: int,
) -> NDArray[np.uint8]:
    """The true counterfactuals (n, d, h, w, 3) of faces with ``factors`` (n, k).

    ``cause`` alone changes, image by image, by as much as moves the judge's reading ``read`` by ``moves`` (n, d):
    the yardstick of a stimulus is the picture that this same instrument finds as far away.
    """
    (n, k), d, column = factors.shape, moves.shape[1], FACTORS.index(cause)
    shifts = np.linspace(-4, 4, 33)
    moved = np.repeat(factors[:, None], len(shifts), 1)
    moved[:, :, column] += shifts
    response = read(render(moved.reshape(-1, k), size)).reshape(n, -1)
    response -= response[:, [len(shifts) // 2]]
    if np.median(np.polyfit(shifts, response.T, 1)[0]) < 0:  # a cause that lowers the outcome
        shifts, response = shifts[::-1], response[:, ::-1]
    truth = np.repeat(factors[:, None], d, 1)
    truth[:, :, column] += [
        np.interp(move, np.maximum.accumulate(row), shifts) for move, row in zip(moves, response, strict=True)
    ]
    return render(truth.reshape(-1, k), size).reshape(n, d, size, size, 3)
