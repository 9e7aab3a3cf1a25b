"""Latent: a linear direction in what an image is encoded into, orthogonalised against what is held.

Two spaces. The *bottleneck* of the U-Net (the h-space of Kwon, Jeong & Uh 2023): their direction is trained towards a
text; here it is the slope of the bottleneck on the target, found by regression on images whose target is known. The
shift acts on the clean estimate alone, not on the noise: were it in both, the step would cancel most of it (their
asymmetric reverse process). One more network evaluation a step.

The *encoder*: the code that the deterministic inversion encodes an image into (Song, Meng & Ermon 2021, section 4.3),
of its pixels or of its autoencoder's latents. Every code is moved once, deep in the noise, and the rest of the path draws
a picture of it, as with the boundaries of Zhu et al. 2023 ("Boundary guided learning-free semantic control"), which
are linear in this space as well. No evaluation more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from contrafact.counterfactual.direction import Push, begun, orthogonal
from contrafact.diffusion.denoiser import Denoiser, guided
from contrafact.diffusion.invert import Path, Step
from contrafact.diffusion.schedule import Schedule


@dataclass(frozen=True)
class Latent:
    """``shifts`` (K, p) move the flattened bottleneck by one SD of the target at each step, the deepest step last."""

    denoiser: Denoiser
    shifts: Tensor

    def push(self, path: Path, index: Tensor, strength: Tensor) -> Push:
        own = begun(path, index, strength)
        if len(self.shifts) != len(path.timesteps) - 1:
            raise ValueError(f"{len(self.shifts)} shifts for a path of {len(path.timesteps) - 1} steps")

        def change(step: Step) -> Tensor:
            moved = strength[:, None] * self.shifts[step.number - 1]
            with _bottleneck(self.denoiser, lambda h: h + moved.view_as(h)):
                t = torch.full((len(step.x),), step.t, dtype=torch.long)
                return guided(self.denoiser, step.x, t, step.condition, path.w).clean - step.clean

        return Push(own, change)


@dataclass(frozen=True)
class Encoded:
    """``shift`` (c, h, w) moves the code at the level below the deepest by one SD of the target."""

    schedule: Schedule
    shift: Tensor

    def push(self, path: Path, index: Tensor, strength: Tensor) -> Push:
        own = begun(path, index, strength)
        deepest = len(path.timesteps) - 1
        # A replay adds what it is given with this coefficient; the shift is one of the code itself.
        share = strength[:, None, None, None] / float(self.schedule.alpha_bar(path.timesteps[deepest - 1]).sqrt())

        def change(step: Step) -> Tensor:
            return share * self.shift if step.number == deepest else torch.zeros_like(step.clean)

        return Push(own, change)


@torch.no_grad()
def shifts(
    denoiser: Denoiser,
    images: Tensor,
    condition: Tensor | None,
    values: Tensor,
    timesteps: Sequence[int],
    noise: Tensor,
) -> Tensor:
    """Shift of the bottleneck (K, p) for one SD of the target, the held covariates as they are.

    ``values`` (n, 1 + q) are target and held covariates. At each of ``timesteps`` (K) the images (n, c, h, w) are
    noised with ``noise`` (of the same shape) and their bottlenecks regressed on ``values`` (``slope``), those of
    images whose values are all known.
    """
    known = complete(values)
    schedule, found = Schedule(denoiser.alphas_cumprod), []
    for t in timesteps:
        bottlenecks: list[Tensor] = []
        with _bottleneck(denoiser, lambda h, kept=bottlenecks: kept.append(h.flatten(1))):  # type: ignore[misc]
            for part in known.split(100):
                x = schedule.add_noise(images[part], noise[part], t)
                own = None if condition is None else condition[part]
                denoiser.predict(x, torch.full((len(part),), t, dtype=torch.long), own)
        found.append(slope(torch.cat(bottlenecks), values[known]))
    return torch.stack(found)


def complete(values: Tensor) -> Tensor:
    """Numbers of the images whose ``values`` (n, 1 + q) are all known.

    ValueError with fewer than q + 3 of them, or where a value does not vary among them.
    """
    known = torch.nonzero(~values.isnan().any(1))[:, 0]
    if len(known) < values.shape[1] + 2 or bool((values[known].double().std(0) == 0).any()):
        raise ValueError(f"a latent direction needs images whose values are known and vary, and has {len(known)}")
    return known


def slope(codes: Tensor, values: Tensor) -> Tensor:
    """What one SD of the first of ``values`` (n, 1 + q) moves ``codes`` (n, p) by, (p,).

    Regressed on all values together; what the target's slope then still shares with those of the held is taken out, so
    that nothing linear reads a change of theirs.
    """
    rows = values.double()
    design = torch.cat([torch.ones(len(rows), 1), (rows - rows.mean(0)) / rows.std(0)], 1)
    slopes = torch.linalg.lstsq(design, codes.double(), driver="gelsd").solution[1:]
    return orthogonal(slopes[:1], slopes[None, 1:])[0].float()


@contextmanager
def _bottleneck(denoiser: Denoiser, use: Callable[[Tensor], Any]) -> Iterator[None]:
    """``use`` sees the bottleneck of every evaluation; a tensor that it returns takes its place."""
    network: Any = getattr(denoiser, "network", denoiser)
    middle: nn.Module | None = network.unet.mid_block
    if middle is None:
        raise ValueError("this network has no bottleneck; `space: encoder` asks for none")
    handle = middle.register_forward_hook(lambda module, inputs, h: use(h))
    try:
        yield
    finally:
        handle.remove()
