"""Training of predictors: seeded by step, so that the same data and seed give the same weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from contrafact import seeds
from contrafact.predictors.predictor import Predictor, Target, as_input
from contrafact.predictors.quality import temperature


@dataclass(frozen=True)
class FitConfig:
    """``denoised_share`` is the share of a batch replaced by ``denoised`` versions of the same images."""

    epochs: int = 6
    batch: int = 64
    learning_rate: float = 2e-3
    denoised_share: float = 0.0
    augment: bool = False


def targets_of(names: Sequence[str], kinds: Sequence[str], values: np.ndarray) -> list[Target]:
    """Targets with the standardisation of continuous ones taken from ``values`` (n, k), NaN ignored."""
    location, scale = np.nanmean(values, 0), np.nanstd(values, 0)
    return [
        Target(name, kind, *((0.0, 1.0) if kind == "binary" else (float(m), float(s) or 1.0)))
        for name, kind, m, s in zip(names, kinds, location, scale, strict=True)
    ]


def fit(
    predictor: Predictor,
    images: np.ndarray,
    values: np.ndarray,
    config: FitConfig,
    seed: int,
    *,
    denoised: np.ndarray | None = None,
    seen: Callable[[Tensor, np.random.Generator], Tensor] = lambda x, rng: x,
    report: Callable[[dict[str, float]], None] | None = None,
) -> Predictor:
    """Fit every member of ``predictor`` on its own stream of batches.

    ``images`` (n, h, w, 3) 8-bit, ``values`` (n, k) with NaN where unknown, ``denoised`` the same images noised
    and denoised again, in the same order; ``seen`` is what the network sees of a batch of images. Binary targets: cross-entropy; continuous: squared error of the
    standardised value. AdamW with a cosine schedule.
    """
    location = torch.tensor([target.location for target in predictor.targets])
    scale = torch.tensor([target.scale for target in predictor.targets])
    binary = torch.tensor([target.kind == "binary" for target in predictor.targets])
    wanted = (torch.as_tensor(values, dtype=torch.float32) - location) / scale
    batch = min(config.batch, len(images))
    steps = max(1, config.epochs * (len(images) // batch))
    for number, head in enumerate(predictor.heads):
        head.train()
        optimiser = torch.optim.AdamW(head.parameters(), lr=config.learning_rate, weight_decay=1e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.learning_rate, total_steps=steps + 1)
        order = np.empty(0, dtype=np.int64)
        rng = seeds.generator(seed, "fit", number)
        for step in range(steps):
            if len(order) < batch:
                order = np.concatenate([order, rng.permutation(len(images))])
            chosen, order = order[:batch], order[batch:]
            x = as_input(images[chosen])
            if denoised is not None and config.denoised_share > 0:
                swap = torch.from_numpy(rng.random(batch) < config.denoised_share)
                x[swap] = as_input(denoised[chosen])[swap]
            if config.augment:
                x = augmented(x, rng)
            loss = _loss(head(seen(x, rng)), wanted[chosen], binary)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            if report and step % 50 == 0:
                report({"member": float(number), "step": float(step), "loss": float(loss.detach())})
        head.eval()
    return predictor.eval()


def calibrate(predictor: Predictor, images: np.ndarray, values: np.ndarray) -> None:
    """Freeze temperature, centre and spread of ``predictor`` on validation images (n, h, w, 3), ``values`` (n, k)."""
    raw = predictor.read(images, raw=True)
    for k, target in enumerate(predictor.targets):
        known = ~np.isnan(values[:, k])
        if target.kind == "binary" and known.any():
            predictor.temperature[k] = temperature(raw[known, k], values[known, k])
    raw = predictor.read(images, raw=True)
    predictor.centre.copy_(torch.from_numpy(raw.mean(0)))
    predictor.spread.copy_(torch.from_numpy(raw.std(0)).clamp(min=1e-6))


def _loss(output: Tensor, wanted: Tensor, binary: Tensor) -> Tensor:
    known = ~wanted.isnan()
    filled = wanted.nan_to_num()
    cross_entropy = torch.nn.functional.binary_cross_entropy_with_logits(output, filled, reduction="none")
    loss = torch.where(binary, cross_entropy, (output - filled) ** 2)
    return (loss * known).sum() / known.sum().clamp(min=1)


def augmented(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Copies of ``x``, mirrored, shifted by up to 6% of the side, of other saturation and tint.

    With few photographs a network reads colour (lips redden in a smile) before it reads shape; a guide that does
    steers towards paint.
    """
    n, _, height, width = x.shape
    mirror = torch.from_numpy(rng.random(n) < 0.5)
    x = torch.where(mirror[:, None, None, None], x.flip(-1), x)
    reach = 2 * 0.06
    shift = torch.from_numpy(rng.uniform(-reach, reach, (n, 2)).astype(np.float32))
    zoom = torch.from_numpy(rng.uniform(0.95, 1.05, n).astype(np.float32))
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = zoom
    theta[:, :, 2] = shift
    grid = torch.nn.functional.affine_grid(theta, [n, 3, height, width], align_corners=False)
    x = torch.nn.functional.grid_sample(x, grid, padding_mode="border", align_corners=False)
    grey = (x * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    saturation = torch.from_numpy(rng.uniform(0, 1.2, (n, 1, 1, 1)).astype(np.float32))
    gain = torch.from_numpy(rng.uniform(0.8, 1.2, (n, 3, 1, 1)).astype(np.float32))
    return ((grey + saturation * (x - grey) + 1) * gain - 1).clamp(-1, 1)
