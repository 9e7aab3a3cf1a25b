"""Ways of drawing counterfactuals, written from the papers, for benchmarks/counterfactual.py.

All are given the same images, guides, denoiser and targets, and none has seen the judge, the probes or the reader.
Where the originals ask a classifier for a class, these ask the guide for a reading (squared distance to the target),
so that all of them can be dosed. No perceptual network is at hand, so terms that need one are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from contrafact import seeds
from contrafact.counterfactual.direction import ConditionShift
from contrafact.counterfactual.edit import edit, reading_change
from contrafact.diffusion.denoiser import Denoiser, Prediction
from contrafact.diffusion.invert import invert
from contrafact.diffusion.sample import sample
from contrafact.diffusion.schedule import Schedule
from contrafact.predictors.predictor import Predictor, as_input
from contrafact.study.schema import Edit


class Counted:
    """A denoiser that counts the rows it is asked for."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser, self.rows = denoiser, 0

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.denoiser.shape

    @property
    def alphas_cumprod(self) -> Tensor:
        return self.denoiser.alphas_cumprod

    def predict(
        self, x: Tensor, t: Tensor, condition: Tensor | None = None, keep: Tensor | None = None
    ) -> Prediction:
        self.rows += len(x)
        return self.denoiser.predict(x, t, condition, keep)


@dataclass(frozen=True)
class Bench:
    """``guide`` reads pictures, ``steering`` clean estimates; ``train`` (n, h, w, 3) is what a method may learn from.

    ``edit`` is how the study follows its direction.
    """

    denoiser: Counted
    guide: Predictor
    steering: Predictor
    train: np.ndarray
    seed: int
    edit: Edit

    def reads(self, x: Tensor) -> Tensor:
        return self.guide.score(x)[:, 0]

    def noise(self, name: str, n: int) -> Tensor:
        return torch.from_numpy(seeds.normal((n, *self.denoiser.shape), self.seed, name))


Method = Callable[[Bench, Tensor, Tensor, Tensor], Tensor]
"""(bench, sources (n, c, h, w), conditions (n, k), targets (n, d) of the guide's change) -> edits (n, d, c, h, w)."""


def core(bench: Bench, source: Tensor, condition: Tensor, target: Tensor) -> Tensor:
    """The engine as the study says: direct inversion, shift of the outcome condition, secant steps on the guide."""
    own = bench.edit
    path = invert(bench.denoiser, source, condition, depth=own.depth, steps=own.steps)
    measure, shift = reading_change([bench.reads]), ConditionShift()
    return edit(
        bench.denoiser, path, shift, target, target, measure, corrections=own.secant_steps, mask_quantile=own.mask_quantile
    ).images


def gradient(bench: Bench, source: Tensor, condition: Tensor, target: Tensor, steps: int = 60) -> Tensor:
    """Pixels moved along the guide's gradient until it reads the target (Adam)."""
    rows, wanted = _rows(source, target.shape[1]), target.flatten()
    with torch.no_grad():
        wanted = wanted + bench.reads(rows)
    change = torch.zeros_like(rows, requires_grad=True)
    optimiser = torch.optim.Adam([change], lr=0.01)
    for _ in range(steps):
        optimiser.zero_grad()
        (bench.reads((rows + change).clamp(-1, 1)) - wanted).pow(2).sum().backward()
        # Dose 0 asks for nothing; Adam would still wander by rounding.
        assert change.grad is not None
        change.grad[target.flatten() == 0] = 0
        optimiser.step()
    return _shaped((rows + change).detach().clamp(-1, 1), target)


RESPACED, DEPTH = 200, 60
"""DiME's and FastDiME's 200 steps, of which the last 60 are walked."""


def dime(bench: Bench, source: Tensor, condition: Tensor, target: Tensor) -> Tensor:
    """DiME (Jeanneret, Simon & Jurie 2022, algorithm 1): each gradient is taken on a picture denoised to the end."""
    return _guided_walk(bench, source, target, fast=False)


def fastdime(bench: Bench, source: Tensor, condition: Tensor, target: Tensor) -> Tensor:
    """FastDiME (Weng et al. 2024): the gradient on the clean estimate, and a mask that the edit finds by itself."""
    return _guided_walk(bench, source, target, fast=True)


def _guided_walk(
    bench: Bench, source: Tensor, target: Tensor, *, fast: bool, scale: float = 1500.0, distance: float = 0.002
) -> Tensor:
    """Walk down an unconditional chain; every mean is moved by ``scale`` times its variance times the loss's gradient.

    The loss is half the squared miss of the guide's reading plus ``distance`` times L1 to the source, taken on the
    clean picture; 1/sqrt(alphas_cumprod) carries its gradient to the noisy one (DiME, equation 6).
    """
    schedule = Schedule(bench.denoiser.alphas_cumprod)
    ladder = [*schedule.timesteps(RESPACED).tolist(), -1][RESPACED - DEPTH :]
    d = target.shape[1]
    rows = _rows(source, d)
    with torch.no_grad():
        wanted = bench.reads(rows) + target.flatten()
    chance = torch.Generator().manual_seed(seeds.integer(bench.seed, "walk") % 2**31)
    guide = bench.steering if fast else bench.guide

    def draw() -> Tensor:
        return _rows(torch.randn(source.shape, generator=chance), d)

    started = draw()
    z = schedule.add_noise(rows, started, ladder[0])
    for number, (t, below) in enumerate(pairwise(ladder)):
        found = bench.denoiser.predict(z, torch.full((len(z),), t))
        picture = found.clean
        if not fast:
            picture = z
            for inner, under in pairwise(ladder[number:]):
                estimate = bench.denoiser.predict(picture, torch.full((len(z),), inner))
                picture = _ancestral(schedule, estimate, picture, inner, under, draw())
        mask = torch.ones_like(rows[:, :1])
        if fast and number > DEPTH // 2:
            change = (picture - rows).abs().sum(1, keepdim=True)
            change = change / change.amax((2, 3), keepdim=True).clamp(min=1e-6)
            mask = nn.functional.max_pool2d((change > 0.15).float(), 5, 1, 2)
            picture = mask * picture + (1 - mask) * rows
        leaf = picture.clamp(-1, 1).detach().requires_grad_(True)
        loss = (guide.score(leaf)[:, 0] - wanted).pow(2).sum() / 2 + distance * (leaf - rows).abs().sum()
        (slope,) = torch.autograd.grad(loss, leaf)
        variance = float(schedule.posterior_variance(t, below))
        z = _ancestral(schedule, found, z, t, below, draw())
        # The last step has no variance of its own; like the original code it takes the one before.
        z = z - scale * (variance or float(schedule.posterior_variance(*ladder[-3:-1]))) * slope / float(
            schedule.alpha_bar(t).sqrt()
        )
        if fast:
            kept = schedule.add_noise(rows, started, below) if below >= 0 else rows
            z = mask * z + (1 - mask) * kept
    return _shaped(z.clamp(-1, 1), target)


def _ancestral(schedule: Schedule, found: Prediction, z: Tensor, t: int, below: int, draw: Tensor) -> Tensor:
    """One DDPM step."""
    spread = float(schedule.posterior_variance(t, below)) ** 0.5
    return schedule.posterior_mean(found.clean.clamp(-1, 1), z, t, below) + spread * draw


def sdedit(bench: Bench, source: Tensor, condition: Tensor, target: Tensor) -> Tensor:
    """Partial noising (Meng et al. 2022), then plain conditional sampling under the shifted condition; no guidance."""
    schedule = Schedule(bench.denoiser.alphas_cumprod)
    times = [*schedule.timesteps(25, 0.5).tolist(), -1]
    d = target.shape[1]
    shifted = _shifted(condition, target)
    x = schedule.add_noise(_rows(source, d), _rows(bench.noise("sdedit", len(source)), d), times[0])
    chance = torch.Generator().manual_seed(seeds.integer(bench.seed, "sdedit") % 2**31)
    for t, below in pairwise(times):
        found = bench.denoiser.predict(x, torch.full((len(x),), t), shifted)
        draw = _rows(torch.randn(source.shape, generator=chance), d)
        x = schedule.ddim_step(found.clean, found.noise, t, below, 1.0, draw)
    return _shaped(x.clamp(-1, 1), target)


def ddim(bench: Bench, source: Tensor, condition: Tensor, target: Tensor) -> Tensor:
    """DDIM inversion under the own condition (Song, Meng & Ermon 2021), decoding under the shifted one."""
    schedule = Schedule(bench.denoiser.alphas_cumprod)
    path = invert(bench.denoiser, source, condition, depth=0.85, steps=10)
    shifted = _shifted(condition, target)
    x = _rows(path.x[-1], target.shape[1])
    for t, below in pairwise(reversed(path.timesteps)):
        found = bench.denoiser.predict(x, torch.full((len(x),), t), shifted)
        x = schedule.ddim_step(found.clean, found.noise, t, below)
    return _shaped(x.clamp(-1, 1), target)


def fresh(bench: Bench, source: Tensor, condition: Tensor, target: Tensor) -> Tensor:
    """New images drawn under the shifted condition, the same noise for every dose of an image."""
    d = target.shape[1]
    noise = _rows(bench.noise("fresh", len(source)), d)
    return _shaped(sample(bench.denoiser, noise, _shifted(condition, target), steps=25).clamp(-1, 1), target)


class Autoencoder(nn.Module):
    """A small convolutional VAE (Kingma & Welling 2014) with ``width`` latents."""

    def __init__(self, size: int, width: int = 64) -> None:
        super().__init__()
        inner = size // 8
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 32, 4, 2, 1), nn.SiLU(), nn.Conv2d(32, 64, 4, 2, 1), nn.SiLU(),
            nn.Conv2d(64, 96, 4, 2, 1), nn.SiLU(), nn.Flatten(), nn.Linear(96 * inner**2, 2 * width),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Linear(width, 96 * inner**2), nn.SiLU(), nn.Unflatten(1, (96, inner, inner)),
            nn.ConvTranspose2d(96, 64, 4, 2, 1), nn.SiLU(), nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.SiLU(),
            nn.ConvTranspose2d(32, 3, 4, 2, 1),
        )  # fmt: skip

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.encoder(x).chunk(2, 1)
        return mean, log_variance.clamp(-12, 4)


def trained_autoencoder(images: np.ndarray, seed: int, images_seen: int = 120_000, batch: int = 64) -> Autoencoder:
    torch.manual_seed(seeds.integer(seed, "autoencoder") % 2**31)
    model = Autoencoder(images.shape[1])
    steps = images_seen // batch
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    rng = seeds.generator(seed, "autoencoder")
    for _ in range(steps):
        x = as_input(images[rng.integers(0, len(images), batch)])
        mean, log_variance = model.encode(x)
        z = mean + (log_variance / 2).exp() * torch.randn_like(mean)
        divergence = (mean**2 + log_variance.exp() - 1 - log_variance).sum(1).mean() / 2
        # The weight of a decoder with an SD of .1 on the range [-1, 1].
        loss = (model.decoder(z) - x).pow(2).sum((1, 2, 3)).mean() / (2 * 0.1**2) + divergence
        optimiser.zero_grad(set_to_none=True)
        (loss / x[0].numel()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return model.eval()


class VaeMorph:
    """Morphs in the latents of a VAE along the guide's gradient through its decoder (Ludwig & Mullainathan 2024).

    Theirs was a GAN whose latents were sought for every photograph; the family is the same, the picture shown is
    the decoded one.
    """

    def __init__(self, images: np.ndarray, seed: int) -> None:
        self.images, self.seed = images, seed

    @cached_property
    def autoencoder(self) -> Autoencoder:
        return trained_autoencoder(self.images, self.seed)

    def __call__(self, bench: Bench, source: Tensor, condition: Tensor, target: Tensor) -> Tensor:
        decoder = self.autoencoder.decoder
        with torch.no_grad():
            z = _rows(self.autoencoder.encode(source)[0], target.shape[1])
            wanted = bench.reads(decoder(z)) + target.flatten()
        for _ in range(60):
            z = z.detach().requires_grad_(True)
            miss = bench.reads(decoder(z)) - wanted
            (slope,) = torch.autograd.grad(miss.sum(), z)
            # Newton's step along the gradient, at most half a unit of the latents.
            step = miss[:, None].detach() * slope / slope.pow(2).sum(1, keepdim=True).clamp(min=1e-6)
            z = z - 0.5 * step * (0.5 / step.norm(dim=1, keepdim=True).clamp(min=0.5))
        with torch.no_grad():
            return _shaped(decoder(z).clamp(-1, 1), target)


METHODS: dict[str, Method] = {
    "core": core,
    "gradient": gradient,
    "dime": dime,
    "fastdime": fastdime,
    "sdedit": sdedit,
    "ddim": ddim,
    "fresh": fresh,
}


def _rows(x: Tensor, d: int) -> Tensor:
    return x.repeat_interleave(d, 0)


def _shaped(rows: Tensor, target: Tensor) -> Tensor:
    return rows.view(*target.shape, *rows.shape[1:])


def _shifted(condition: Tensor, target: Tensor) -> Tensor:
    moved = _rows(condition, target.shape[1]).clone()
    moved[:, 0] += target.flatten()
    return moved
