"""How a factor vector becomes a picture: soft shapes on a square from -1 to 1, y downwards.

Every factor is linear in what it draws, a length, a share or a colour, and does not saturate within the truncation
(but for the longest hair, which ends behind the shirt), so that an SD means the same from end to end; each covers enough pixels to be learned from small images and to be seen by a person.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from contrafact.study.worlds import TRUNCATION, WORLD_FACTORS

Floats = NDArray[np.floating]  # float32 throughout


class _Scene:
    """Pictures (n, size, size, 3) in [0, 1] that shapes are painted on, and the factors (n, k) in SD behind them."""

    def __init__(self, factors: NDArray[np.float64], names: tuple[str, ...], size: int) -> None:
        self.z = {name: factors[:, k, None, None].astype(np.float32) for k, name in enumerate(names)}
        grid = (np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1
        self.size, self.x, self.y = size, grid[None, None, :], grid[None, :, None]
        self.soft = np.float32(1.6 / size)
        self.picture: Floats = np.zeros((len(factors), size, size, 3), np.float32)

    def paint(self, colour: Floats, coverage: Floats) -> None:
        self.picture = self.picture + coverage[..., None] * (colour - self.picture)

    def ellipse(self, cx: float, cy: Floats | float, rx: Floats | float, ry: Floats | float) -> Floats:
        """Coverage of an ellipse, soft over about 1.6 pixels (first-order distance to its edge)."""
        dx, dy = (self.x - cx) / rx, (self.y - cy) / ry
        slope = np.sqrt((dx / rx) ** 2 + (dy / ry) ** 2) + np.float32(1e-6)
        return np.clip(0.5 - (dx**2 + dy**2 - 1) / (2 * slope) / self.soft, 0, 1)

    def half(self, edge: Floats, sign: float) -> Floats:
        """Coverage of the half plane where ``sign * edge`` is positive."""
        return np.clip(0.5 + sign * edge / self.soft, 0, 1)

    def share(self, name: str) -> Floats:
        """The factor from 0 to 1 over its range."""
        return 0.5 + self.z[name] / (2 * TRUNCATION)


def _mix(low: tuple[float, ...], high: tuple[float, ...], share: Floats) -> Floats:
    return np.stack([lo + (hi - lo) * share for lo, hi in zip(low, high, strict=True)], -1)


def _eight_bit(picture: Floats) -> NDArray[np.uint8]:
    return np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)


def faces(factors: NDArray[np.float64], size: int) -> NDArray[np.uint8]:
    """Heads from the front."""
    scene = _Scene(factors, WORLD_FACTORS["faces"], size)
    z, x, y, paint, ellipse, half, share = (
        scene.z, scene.x, scene.y, scene.paint, scene.ellipse, scene.half, scene.share,
    )  # fmt: skip

    width = 0.50 + 0.045 * z["face_width"]
    skin = _mix((0.52, 0.34, 0.24), (0.98, 0.84, 0.74), share("skin"))
    hair = _mix((0.07, 0.05, 0.06), (0.86, 0.70, 0.38), share("hair_shade"))
    wall = _mix((0.36, 0.52, 0.70), (0.80, 0.60, 0.44), share("background"))
    shirt = np.array([0.24, 0.28, 0.34], np.float32)

    scene.picture = wall * (1 - 0.12 * (y + 1) / 2)[..., None] * np.ones((1, 1, size, 1), np.float32)
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
    return _eight_bit(scene.picture)


def products(factors: NDArray[np.float64], size: int) -> NDArray[np.uint8]:
    """A bottle with a label on a table."""
    scene = _Scene(factors, WORLD_FACTORS["products"], size)
    z, x, y, paint, half = scene.z, scene.x, scene.y, scene.paint, scene.half

    wall = _mix((0.52, 0.60, 0.66), (0.90, 0.80, 0.72), scene.share("backdrop"))
    table = np.array([0.46, 0.36, 0.29], np.float32)
    scene.picture = wall * (1 - 0.10 * (y + 1) / 2)[..., None] * np.ones((1, 1, size, 1), np.float32)
    paint(table, half(y - 0.58 + 0 * x, 1) * np.ones_like(z["warmth"]))
    paint(table * 0.6, scene.ellipse(0.10, 0.76, 0.52, 0.085) * np.ones_like(z["warmth"]))

    base, height = 0.76, 1.00 + 0.07 * z["height"]
    top = base - height  # of the body; shoulder, neck and cap stand above it
    width, neck = 0.38 + 0.035 * z["width"], 0.135 + 0.018 * z["neck"]
    down = np.clip((y - top) / height, 0, 1)
    body = width * (1 + 0.11 * z["roundness"] * (4 * down * (1 - down) - 0.5))
    rise = np.clip((top - y) / 0.20, 0, 1)
    start = width * (1 - 0.055 * z["roundness"])
    outline = np.where(y >= top, body, start + (neck - start) * rise**2 * (3 - 2 * rise))
    inside = half(outline - np.abs(x), 1)
    lip = top - 0.32  # where the neck ends
    glass = _mix((0.16, 0.42, 0.52), (0.70, 0.32, 0.12), scene.share("warmth"))
    glass = glass + (0.28 * scene.share("shade") - 0.10)[..., None]
    across = x / np.maximum(outline, 0.05)
    paint(glass * (1.04 - 0.34 * across**2)[..., None], inside * half(y - lip, 1) * half(y - base, -1))

    cap = 0.075 + 0.019 * z["cap"]  # half its height
    lid = half(neck * 1.25 - np.abs(x), 1) * half(cap - np.abs(y - (lip - cap)), 1)
    paint(np.array([0.20, 0.18, 0.20], np.float32), lid)

    centre, tall = top + 0.54 * height, 0.19 + 0.052 * z["label"]  # half the label's height
    label = half(outline * 0.90 - np.abs(x), 1) * half(tall - np.abs(y - centre), 1)
    paint(np.array([0.97, 0.95, 0.88], np.float32) * (1.0 - 0.16 * across**2)[..., None], label)
    band = half(outline * 0.90 - np.abs(x), 1) * half(0.25 * tall - np.abs(y - centre), 1)
    paint(np.array([0.66, 0.14, 0.20], np.float32), band)

    shine = np.exp(-(((across + 0.52) / 0.13) ** 2)) * inside * half(y - lip, 1) * half(y - base + 0.06, -1)
    paint(np.ones(3, np.float32), shine * (0.36 + 0.13 * z["gloss"]))
    return _eight_bit(scene.picture)


#: world -> what renders its factors (n, k) in SD as (n, size, size, 3) 8-bit RGB
SCENES: Mapping[str, Callable[[NDArray[np.float64], int], NDArray[np.uint8]]] = MappingProxyType(
    {"faces": faces, "products": products}
)
