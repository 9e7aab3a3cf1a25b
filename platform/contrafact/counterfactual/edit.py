"""The engine: doses of one direction on a batch of inverted images, corrected until they are what was asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from contrafact.counterfactual.direction import Direction
from contrafact.counterfactual.mask import Style, automatic_mask
from contrafact.diffusion.denoiser import Denoiser
from contrafact.diffusion.invert import Path, replay

Measure = Callable[[Tensor, Tensor], Tensor]  # edited (m, c, h, w), sources (m, c, h, w) -> (m,)


@dataclass(frozen=True)
class Edited:
    """``images`` (n, d, c, h, w) in [-1, 1], ``strength`` and ``reached`` (n, d): what was applied and measured."""

    images: Tensor
    strength: Tensor
    reached: Tensor


UNREACHED = 0.25
"""Share of a dose by which the guide's reading may miss it at the end; beyond it the dose is not what it says."""


def unsupported(edited: Edited, target: Tensor) -> Tensor:
    """(n, d) True where the strengths that are allowed did not bring the reading to ``target`` (n, d)."""
    return (target != 0) & ~((edited.reached - target).abs() <= UNREACHED * target.abs())


def edit(
    denoiser: Denoiser,
    path: Path,
    direction: Direction,
    start: Tensor,
    target: Tensor,
    measure: Measure,
    *,
    corrections: int,
    mask_quantile: float = 0.0,
    style: Style | None = None,
    tolerance: float = 0.0,
    bounds: tuple[float, float] = (0.4, 2.5),
) -> Edited:
    """Edit every image of ``path`` at ``d`` doses.

    ``start`` (n, d) strengths of the first pass; ``target`` (n, d) what ``measure`` should give. Each correction
    multiplies a row's strength by target over reached (a secant through the exact dose 0), within ``bounds`` of the
    start; rows with target 0 stay at strength 0. It stops early where all rows are within ``tolerance`` (relative).
    The automatic mask and ``style`` (what kind of change may stay) belong inside the loop, since they lower the
    reading. Outside ``path.region`` rows are their sources to the bit. Pixels stay in [-1, 1].
    """
    n, d = target.shape
    index = torch.arange(n).repeat_interleave(d)
    sources = path.sources
    strength, wanted = start.flatten().clone(), target.flatten()
    low, high = (start.flatten().abs() * bound for bound in bounds)
    for correction in range(corrections + 1):
        push = direction.push(path, index, strength)
        with torch.no_grad():
            change = path.changes(replay(denoiser, path, index, push.condition, push.change), index)
        if style is not None:
            change = style(change.view(n, d, *change.shape[1:]), sources, path.region).flatten(0, 1)
        if mask_quantile > 0:
            change = (
                change.view(n, d, *change.shape[1:])
                * automatic_mask(change.view(n, d, *change.shape[1:]), mask_quantile)
            ).flatten(0, 1)
        images = (sources[index] + change).clamp(-1, 1)
        with torch.no_grad():
            reached = measure(images, sources[index])
        off = wanted - reached
        if correction == corrections or bool((off.abs() <= tolerance * wanted.abs()).all()):
            break
        ratio = torch.where(reached * wanted > 0, wanted / reached, torch.ones_like(wanted)).clamp(0.5, 2.0)
        moved = (strength.abs() * ratio).clamp(low, high) * strength.sign()
        strength = torch.where((wanted == 0) | (off.abs() <= tolerance * wanted.abs()), strength, moved)
    return Edited(images.view(n, d, *images.shape[1:]), strength.view(n, d), reached.view(n, d))


def pixel_norm(images: Tensor, sources: Tensor) -> Tensor:
    """Root mean square change of a row (m,), range of images 2."""
    return (images - sources).pow(2).flatten(1).mean(1).sqrt()


def reading_change(readers: Sequence[Callable[[Tensor], Tensor]]) -> Measure:
    """Mean change of ``readers`` from source to edited image."""

    def measure(images: Tensor, sources: Tensor) -> Tensor:
        return torch.stack([reader(images) - reader(sources) for reader in readers]).mean(0)

    return measure
