"""Latent: a linear direction in the bottleneck of the U-Net (the h-space of Kwon, Jeong & Uh 2023).

Their direction is trained towards a text; here it is the slope of the bottleneck on the target, found by regression on
images whose target is known, as linear boundaries in that space are (Zhu et al. 2023, "Boundary guided learning-free
semantic control"). The shift acts on the clean estimate alone, not on the noise: were it in both, the step would
cancel most of it (their asymmetric reverse process). One more network evaluation a step.
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
    noised with ``noise`` (of the same shape) and their bottlenecks regressed on all of ``values`` together; what the
    target's slope then still shares with those of the held is taken out, so that nothing linear reads a change of
    theirs. ValueError with fewer than q + 3 images whose values are known, or values that do not vary.
    """
    known = torch.nonzero(~values.isnan().any(1))[:, 0]
    rows = values[known].double()
    if len(rows) < rows.shape[1] + 2 or bool((rows.std(0) == 0).any()):
        raise ValueError(f"a latent direction needs images whose values are known and vary, and has {len(rows)}")
    design = torch.cat([torch.ones(len(rows), 1), (rows - rows.mean(0)) / rows.std(0)], 1)
    schedule, found = Schedule(denoiser.alphas_cumprod), []
    for t in timesteps:
        bottlenecks: list[Tensor] = []
        with _bottleneck(denoiser, lambda h, kept=bottlenecks: kept.append(h.flatten(1))):  # type: ignore[misc]
            for part in known.split(100):
                x = schedule.add_noise(images[part], noise[part], t)
                own = None if condition is None else condition[part]
                denoiser.predict(x, torch.full((len(part),), t, dtype=torch.long), own)
        slopes = torch.linalg.lstsq(design, torch.cat(bottlenecks).double(), driver="gelsd").solution[1:]
        found.append(orthogonal(slopes[:1], slopes[None, 1:])[0].float())
    return torch.stack(found)


@contextmanager
def _bottleneck(denoiser: Denoiser, use: Callable[[Tensor], Any]) -> Iterator[None]:
    """``use`` sees the bottleneck of every evaluation; a tensor that it returns takes its place."""
    network: Any = getattr(denoiser, "network", denoiser)
    middle: nn.Module = network.unet.mid_block
    handle = middle.register_forward_hook(lambda module, inputs, h: use(h))
    try:
        yield
    finally:
        handle.remove()
