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
from contrafact.diffusion.schedule import Schedule

Reader = Callable[[Tensor], Tensor]  # images (m, c, h, w) -> readings (m,), differentiable


@dataclass(frozen=True)
class Push:
    """``condition`` (m, k) or None; ``change`` of the clean estimate at a step, or None."""

    condition: Tensor | None
    change: Callable[[Step], Tensor] | None


class Direction(Protocol):
    """Given the inverted images and a strength for each row: where to push."""

    def push(self, path: Path, index: Tensor, strength: Tensor) -> Push: ...


LARGEST = 100.0
"""Largest strength of a row, in units; beyond it a dose is a slip of the pen."""


def begun(path: Path, index: Tensor, strength: Tensor) -> Tensor | None:
    """The condition that the rows have before any push; ValueError for strengths that are no doses."""
    if not bool(torch.isfinite(strength).all()) or float(strength.abs().max()) > LARGEST:
        raise ValueError(f"strengths must be finite numbers of at most {LARGEST:g} units")
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
        own = begun(path, index, strength)
        if own is None:
            raise ValueError("a condition shift needs a conditional denoiser")
        condition = own.clone()
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
        own = begun(path, index, strength)
        readers = [path.reading(reader) for reader in (self.guide, *self.hold)]

        def change(step: Step) -> Tensor:
            now, rows = gradients(readers, step.clean)
            with torch.no_grad():
                reference = torch.stack([reader(step.reference) for reader in readers], 1)
                wanted = torch.zeros_like(now)
                wanted[:, 0] = strength
                missing = self.gain * (wanted - (now - reference))
                return _least_change(rows, missing, self.trust_radius).view_as(step.clean)

        return Push(own, change)


@dataclass(frozen=True)
class Sum:
    """Weighted sum of directions, followed together: conditions and changes of the clean estimate add up.

    ``parts`` are (weight, direction); a row of strength s gives each part weight times s.
    """

    parts: Sequence[tuple[float, Direction]]

    def push(self, path: Path, index: Tensor, strength: Tensor) -> Push:
        own = begun(path, index, strength)
        pushes = [direction.push(path, index, weight * strength) for weight, direction in self.parts]
        condition = own
        if own is not None:
            moves = [push.condition - own for push in pushes if push.condition is not None]
            condition = own + torch.stack(moves).sum(0)
        changes = [push.change for push in pushes if push.change is not None]

        def change(step: Step) -> Tensor:
            return torch.stack([one(step) for one in changes]).sum(0)

        return Push(condition, change if changes else None)


def smoothed(reader: Reader, noise: Tensor) -> Reader:
    """The mean reading over ``noise`` (k, c, h, w) added to an image, whose gradient is the mean gradient.

    SmoothGrad (Smilkov et al. 2017, equation 2). The noise is the same for every image, so an edit depends on no other.
    """
    k = len(noise)

    def read(x: Tensor) -> Tensor:
        around = (x[:, None] + noise[None]).flatten(0, 1)
        return reader(around).view(len(x), k).mean(1)

    return read


def orthogonal(row: Tensor, others: Tensor) -> Tensor:
    """``row`` (m, p) less its projection on the span of ``others`` (m, r, p); as it is where r is 0."""
    if others.shape[1] == 0:
        return row
    gram = others @ others.transpose(1, 2)
    ridge = 1e-6 * gram.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] + 1e-20
    share = torch.linalg.solve(gram + ridge * torch.eye(gram.shape[-1], dtype=gram.dtype), others @ row[..., None])
    return row - (others.transpose(1, 2) @ share)[..., 0]


def moved_estimate(
    schedule: Schedule, path: Path, step: Step, clean: Tensor, noise: Tensor
) -> Tensor:
    """The change that has the step down take both ``clean`` and ``noise``, changes of its two estimates.

    A replay adds what a push gives to the clean estimate alone, so that nothing of it is cancelled. A method that
    moves the noise estimate with it is followed as it was published by giving what is left of both.
    """
    below = path.timesteps[step.number - 1]
    taken = schedule.ddim_step(clean, noise, step.t, below, path.eta, torch.zeros_like(clean) if path.eta else None)
    return taken / float(schedule.alpha_bar(below).sqrt())


def _least_change(rows: Tensor, missing: Tensor, radius: float) -> Tensor:
    """Smallest change (m, p) that moves each linear reading by ``missing`` (m, r), at most ``radius`` in RMS."""
    gram = rows @ rows.transpose(1, 2)
    ridge = 1e-3 * gram.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] + 1e-12
    solved = torch.linalg.solve(gram + ridge * torch.eye(gram.shape[-1]), missing[..., None])
    step = (rows.transpose(1, 2) @ solved)[..., 0]
    rms = step.pow(2).mean(1, keepdim=True).sqrt()
    return step * (radius / rms.clamp(min=radius))
