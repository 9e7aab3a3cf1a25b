"""New images from noise.

Noise belongs to an item and is handed in, never drawn here: image k is the same in any batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from contrafact import seeds
from contrafact.diffusion.denoiser import Denoiser, guided
from contrafact.diffusion.schedule import Schedule

Draws = Callable[[int], Tensor]
"""Noise of step k: (n, c, h, w)."""


def item_draws(shape: tuple[int, int, int], seed: int, items: Sequence[object]) -> Draws:
    """Standard normal noise named by seed, item and step: draws(0) can be x_T, draws(k) serves step k."""

    def draws(step: int) -> Tensor:
        return torch.stack([torch.from_numpy(seeds.normal(shape, seed, "sample", item, step)) for item in items])

    return draws


def sample(
    denoiser: Denoiser,
    noise: Tensor,
    condition: Tensor | None = None,
    *,
    w: float = 0.0,
    steps: int = 50,
    eta: float = 0.0,
    draws: Draws | None = None,
    clip: float | None = None,
) -> Tensor:
    """DDIM sampling (Song et al. 2021) from ``noise`` = x_T, float32 (n, c, h, w); returns x_0 of the same shape.

    ``eta`` = 0 is deterministic; ``eta`` = 1 with ``steps`` = T is DDPM's ancestral sampling; above 0 ``draws`` gives
    z for step 1 … ``steps``. ``clip`` bounds the clean estimate, which noise prediction needs near ᾱ = 0.
    """
    if eta and draws is None:
        raise ValueError("eta above 0 needs draws")
    schedule = Schedule(denoiser.alphas_cumprod)
    times = [*schedule.timesteps(steps).tolist(), -1]
    x = noise
    for k, (t, previous) in enumerate(pairwise(times), start=1):
        at = torch.full((len(x),), t, dtype=torch.long)
        estimate = guided(denoiser, x, at, condition, w)
        clean, eps = estimate.clean, estimate.noise
        if clip is not None:
            clean = clean.clamp(-clip, clip)
            eps = schedule.noise_from(clean, x, t, "sample")
        z = draws(k).to(x) if eta and draws else None
        x = schedule.ddim_step(clean, eps, t, previous, eta, z)
    return x
