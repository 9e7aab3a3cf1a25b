"""Directions: what is to change. One small contract, every kind behind it.

A direction is asked for a :class:`Push`: the condition that each edited row is replayed under, and the change of
its clean estimate at each step. ``strength`` (m,) is in the direction's own unit; for the outcome directions one
unit is meant to be one SD of the outcome score, and the engine corrects it on the guide's reading.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from contrafact.diffusion.invert import Path, Step

Reader = Callable[[Tensor], Tensor]  # images (m, c, h, w) -> readings (m,), differentiable


@dataclass(frozen=True)
class Push:
    """``condition`` (m, k) or None; ``change`` of the clean estimate at a step, or None."""

    condition: Tensor | None
    change: Callable[[Step], Tensor] | None


class Direction(Protocol):
    """Given the inverted images and a strength for each row: where to push."""

    def push(self, path: Path, index: Tensor, strength: Tensor) -> Push: ...


def _own_condition(path: Path, index: Tensor) -> Tensor | None:
    return None if path.condition is None else path.condition[index]


def gradients(readers: Sequence[Reader], images: Tensor) -> tuple[Tensor, Tensor]:
    """Readings (m, r) and their gradients (m, r, c*h*w) at ``images``; classifiers only, never the denoiser."""
    values, rows = [], []
    with torch.enable_grad():
        leaf = images.detach().requires_grad_(True)
        for reader in readers:
            value = reader(leaf)
            (row,) = torch.autograd.grad(value.sum(), leaf)
            values.append(value.detach())
            rows.append(row.flatten(1))
    return torch.stack(values, 1), torch.stack(rows, 1)


@dataclass(frozen=True)
class ConditionShift:
    """Shift the condition in ``column`` by ``strength``, every other condition as it is (classifier-free)."""

    column: int = 0

    def push(self, path: Path, index: Tensor, strength: Tensor) -> Push:
        if path.condition is None:
            raise ValueError("a condition shift needs a conditional denoiser")
        condition = path.condition[index].clone()
        condition[:, self.column] += strength
        return Push(condition, None)


@dataclass(frozen=True)
class Guidance:
    """Dose-targeted, covariate-held guidance on the clean estimate.

    At every step a small linear system moves the guide's reading to the requested dose and the held readings back
    to where the unedited path has them: d = G'(GG' + ridge)^-1 c, c the distance still to go, clipped to
    ``trust_radius`` (RMS, images in [-1, 1]).
    """

    guide: Reader
    hold: Sequence[Reader] = ()
    trust_radius: float = 0.1
    gain: float = 1.0

    def push(self, path: Path, index: Tensor, strength: Tensor) -> Push:
        readers = [self.guide, *self.hold]

        def change(step: Step) -> Tensor:
            now, rows = gradients(readers, step.clean)
            with torch.no_grad():
                reference = torch.stack([reader(step.reference) for reader in readers], 1)
                wanted = torch.zeros_like(now)
                wanted[:, 0] = strength
                missing = self.gain * (wanted - (now - reference))
                return _least_change(rows, missing, self.trust_radius).view_as(step.clean)

        return Push(_own_condition(path, index), change)


def _least_change(rows: Tensor, missing: Tensor, radius: float) -> Tensor:
    """Smallest change (m, p) that moves each linear reading by ``missing`` (m, r), at most ``radius`` in RMS."""
    gram = rows @ rows.transpose(1, 2)
    ridge = 1e-3 * gram.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] + 1e-12
    solved = torch.linalg.solve(gram + ridge * torch.eye(gram.shape[-1]), missing[..., None])
    step = (rows.transpose(1, 2) @ solved)[..., 0]
    rms = step.pow(2).mean(1, keepdim=True).sqrt()
    return step * (radius / rms.clamp(min=radius))
