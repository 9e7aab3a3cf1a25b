"""Directions whose own strength is counted in something else than SD of their target."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from contrafact.counterfactual.direction import LARGEST, Direction, Push, begun
from contrafact.counterfactual.edit import Measure, edit
from contrafact.diffusion.denoiser import Denoiser
from contrafact.diffusion.invert import Path

LADDER = tuple(4.0**power for power in range(-3, 4))  # strengths tried, 1/64 to 64


@dataclass(frozen=True)
class Scaled:
    """``direction`` in units of ``unit`` of its own strengths, which stop at the largest that is allowed."""

    direction: Direction
    unit: float

    def push(self, path: Path, index: Tensor, strength: Tensor) -> Push:
        begun(path, index, strength)
        return self.direction.push(path, index, (self.unit * strength).clamp(-LARGEST, LARGEST))


def scaled(denoiser: Denoiser, path: Path, direction: Direction, measure: Measure) -> Scaled:
    """``direction`` in units that move ``measure`` by 1, as a mean over the images of ``path``.

    The unit is the lowest strength where half the difference between plus and minus reaches 1, interpolated between
    powers of 4; where none does, the strength that moves the reading most, whichever way: what a direction does
    instead of what it should is to be seen. The edits behind it are made once, without mask; the engine corrects each
    image's strength from there.
    """
    n, k = path.x.shape[1], len(LADDER)
    strengths = torch.tensor([*LADDER, *(-each for each in LADDER)]).repeat(n, 1)
    reached = edit(denoiser, path, direction, strengths, strengths, measure, corrections=0).reached.nan_to_num()
    moved = ((reached[:, :k] - reached[:, k:]) / 2).mean(0).tolist()
    last = (0.0, 0.0)
    for strength, found in zip(LADDER, moved, strict=True):
        if found >= 1:
            share = (1 - last[1]) / (found - last[1])
            return Scaled(direction, last[0] + share * (strength - last[0]))
        last = (strength, found)
    return Scaled(direction, LADDER[max(range(k), key=lambda i: abs(moved[i]))])
