"""Slider: a low-rank adapter of the network whose scale is the factor (Gandikota et al. 2024, "Concept sliders").

Theirs is trained towards the difference of two prompts. Ours learns from images whose factor is measured: noise is
predicted with the adapter at the image's own value in SD, while the network is told every condition but that factor.
What the conditions tell (the held covariates among them) the adapter need not learn, so its scale is the factor with
those as they are. Low-rank weights as in Hu et al. 2022, "LoRA", on the 3 x 3 convolutions of the residual blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from contrafact import seeds
from contrafact.counterfactual.direction import Push, begun, moved_estimate
from contrafact.diffusion.denoiser import Denoiser, PixelDenoiser, guided, known
from contrafact.diffusion.invert import Path, Step
from contrafact.diffusion.schedule import Schedule

REACH = 3.0  # SD of the factor; values further out are taken for this in training


class Adapter(nn.Module):
    """Low-rank weights beside the convolutions of a denoiser's residual blocks; nothing until it is trained."""

    def __init__(self, denoiser: Denoiser, rank: int = 4, seed: int = 0) -> None:
        super().__init__()
        layers = _layers(denoiser)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.down = nn.ModuleList(
                nn.Conv2d(layer.in_channels, rank, 3, layer.stride, layer.padding, bias=False)  # type: ignore[arg-type]
                for layer in layers
            )
        self.up = nn.ModuleList(nn.Conv2d(rank, layer.out_channels, 1, bias=False) for layer in layers)
        for up in self.up:
            nn.init.zeros_(up.weight)  # type: ignore[arg-type]

    @contextmanager
    def at(self, denoiser: Denoiser, scale: Tensor) -> Iterator[None]:
        """The denoiser with this adapter, at ``scale`` (m,) for each of the m rows of every evaluation."""

        def beside(down: nn.Module, up: nn.Module) -> Callable[[nn.Module, tuple[Tensor], Tensor], Tensor]:
            return lambda layer, inputs, out: out + scale[:, None, None, None] * up(down(inputs[0]))

        layers = zip(_layers(denoiser), self.down, self.up, strict=True)
        handles = [layer.register_forward_hook(beside(down, up)) for layer, down, up in layers]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def save(self, file: FilePath) -> None:
        """Weights as safetensors, whole or not at all."""
        draft = file.with_suffix(".draft")
        save_file({name: value.contiguous() for name, value in self.state_dict().items()}, draft)
        draft.rename(file)

    @classmethod
    def load(cls, file: FilePath, denoiser: Denoiser) -> Adapter:
        """The adapter saved in ``file``, for the denoiser that it was trained beside."""
        weights = load_file(file)
        adapter = cls(denoiser, rank=len(weights["down.0.weight"]))
        adapter.load_state_dict(weights)
        return adapter.eval()


def _layers(denoiser: Denoiser) -> list[nn.Conv2d]:
    network: Any = getattr(denoiser, "network", denoiser)
    return [
        module
        for name, module in network.unet.named_modules()
        if "resnets" in name and isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)
    ]


@dataclass(frozen=True)
class Slider:
    """``adapter`` at the strength of each row; ``column`` is the condition that it stands for.

    Both estimates of a step move by the difference that the adapter makes where that condition is not told. Three
    evaluations of the network a step.
    """

    denoiser: Denoiser
    adapter: Adapter
    column: int

    def push(self, path: Path, index: Tensor, strength: Tensor) -> Push:
        own = begun(path, index, strength)
        if own is None:
            raise ValueError("a slider needs a conditional denoiser")
        schedule = Schedule(self.denoiser.alphas_cumprod)

        @torch.no_grad()
        def change(step: Step) -> Tensor:
            assert step.condition is not None
            t, condition = torch.full((len(step.x),), step.t, dtype=torch.long), step.condition.clone()
            condition[:, self.column] = torch.nan
            without = guided(self.denoiser, step.x, t, condition, path.w)
            with self.adapter.at(self.denoiser, strength):
                moved = guided(self.denoiser, step.x, t, condition, path.w)
            return moved_estimate(schedule, path, step, moved.clean - without.clean, moved.noise - without.noise)

        return Push(own, change)


def learned(
    denoiser: PixelDenoiser,
    images: np.ndarray,
    conditions: np.ndarray,
    values: np.ndarray,
    *,
    column: int,
    rank: int,
    images_seen: int,
    batch: int,
    learning_rate: float,
    seed: int,
    report: Callable[[int, float], None] = lambda step, loss: None,
) -> Adapter:
    """An adapter for the factor ``values`` (n,), NaN where unknown, of ``images`` (n, h, w, 3) 8-bit.

    ``conditions`` (n, k) are the standardised ones that the network was trained under; ``column`` is the one of them
    that tells the factor itself, and is kept from the network. AdamW with a cosine schedule; ``report`` gets the mean
    loss every 50 steps. ValueError where fewer than two different values are known.
    """
    rows = np.flatnonzero(~np.isnan(values))
    if len(np.unique(values[rows])) < 2:
        raise ValueError(f"a slider needs images whose values are known and differ, and has {len(rows)}")
    own = (values[rows] - values[rows].mean()) / values[rows].std()
    scale = torch.from_numpy(own.clip(-REACH, REACH)).float()
    told = torch.from_numpy(conditions[rows].astype(np.float32))
    told[:, column] = torch.nan
    network, schedule = denoiser.network.requires_grad_(False), denoiser.schedule
    adapter = Adapter(denoiser, rank, seed)
    optimiser = torch.optim.AdamW(adapter.parameters(), lr=learning_rate, weight_decay=1e-4)
    steps = max(1, images_seen // batch)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    losses: list[float] = []
    for step in range(steps):
        rng = seeds.generator(seed, "slider", step)
        chosen = rng.integers(0, len(rows), batch)
        pixels = np.ascontiguousarray(images[rows[chosen]])
        clean = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
        noise = torch.from_numpy(rng.standard_normal(clean.shape, dtype=np.float32))
        t = torch.from_numpy(rng.integers(0, len(schedule), batch))
        condition, keep = known(told[chosen])
        with adapter.at(denoiser, scale[chosen]):
            out = network(schedule.add_noise(clean, noise, t), t, condition, keep)
        loss = nn.functional.mse_loss(out, schedule.target(clean, noise, t, denoiser.kind))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(adapter.parameters(), 1.0)
        optimiser.step()
        falling.step()
        losses.append(float(loss.detach()))
        if (step + 1) % 50 == 0 or step + 1 == steps:
            report(step + 1, float(np.mean(losses[-50:])))
    return adapter.eval()
