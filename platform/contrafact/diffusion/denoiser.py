"""The one contract between models and everything that edits or samples.

``x`` is whatever the model denoises (pixels in [-1, 1] or latents), float32 (n, c, h, w). Nothing here assumes three
channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from diffusers import UNet2DModel
from torch import Tensor

from contrafact.diffusion import network
from contrafact.diffusion.network import ConditionalUNet
from contrafact.diffusion.schedule import Kind, Schedule


@dataclass(frozen=True, eq=False)
class Prediction:
    """x̂_0 and ε̂, both float32 (n, c, h, w), with x_t = √ᾱ_t·x̂_0 + √(1−ᾱ_t)·ε̂."""

    clean: Tensor
    noise: Tensor


class Denoiser(Protocol):
    """What an edit may know of a model."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(c, h, w) of one item."""

    @property
    def alphas_cumprod(self) -> Tensor:
        """ᾱ_t, float64 (T,); ``Schedule(denoiser.alphas_cumprod)`` gives the closed forms."""

    def predict(
        self, x: Tensor, t: Tensor, condition: Tensor | None = None, keep: Tensor | None = None
    ) -> Prediction:
        """Without gradient, in float32.

        ``t`` long (n,). ``condition`` (n, k) standardised, NaN = not known; None = unconditional. ``keep`` (n,) or
        (n, k) of 0 and 1 drops what is known.
        """


class PixelDenoiser:
    """A ConditionalUNet behind the contract, on the device where its weights are."""

    def __init__(self, model: ConditionalUNet, schedule: Schedule, kind: Kind) -> None:
        self.network = model.eval()
        self.schedule = schedule
        self.kind: Kind = kind

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.network.spec.inputs, self.network.spec.size, self.network.spec.size)

    @property
    def alphas_cumprod(self) -> Tensor:
        return self.schedule.alphas_cumprod

    @torch.no_grad()
    def predict(
        self, x: Tensor, t: Tensor, condition: Tensor | None = None, keep: Tensor | None = None
    ) -> Prediction:
        if condition is not None:
            condition, keep = known(condition.to(x), keep)
        elif keep is not None:
            raise ValueError("keep without a condition")
        return _both(self.schedule, self.network(x, t.to(x.device), condition, keep), x, t, self.kind)


class AnyUNet2D:
    """Any unconditional diffusers UNet2DModel (pixels or latents) behind the contract."""

    def __init__(self, unet: UNet2DModel, schedule: Schedule, kind: Kind) -> None:
        if unet.class_embedding is not None:
            raise ValueError("this UNet2DModel wants class labels; only unconditional ones fit here")
        self.unet = unet.eval()
        self.schedule = schedule
        self.kind: Kind = kind

    @property
    def shape(self) -> tuple[int, int, int]:
        side = self.unet.config.sample_size
        h, w = (side, side) if isinstance(side, int) else side
        return (self.unet.config.in_channels, h, w)

    @property
    def alphas_cumprod(self) -> Tensor:
        return self.schedule.alphas_cumprod

    @torch.no_grad()
    def predict(
        self, x: Tensor, t: Tensor, condition: Tensor | None = None, keep: Tensor | None = None
    ) -> Prediction:
        if condition is not None or keep is not None:
            raise ValueError("an unconditional model takes no condition: use a guidance direction")
        # A learned variance (Nichol and Dhariwal 2021) comes as further channels, which no step here reads.
        out = self.unet(x, t.to(x.device), return_dict=False)[0][:, : x.shape[1]]
        return _both(self.schedule, out, x, t, self.kind)


def open_denoiser(folder: Path, device: str | torch.device = "cpu") -> PixelDenoiser | AnyUNet2D:
    """The model of a folder: one written by training, or an unconditional diffusers UNet2DModel with its scheduler."""
    schedule, kind = network.open_scheduler(folder)
    if (folder / "contrafact.json").is_file():
        return PixelDenoiser(network.load(folder).to(device), schedule, kind)
    return AnyUNet2D(network.open_unet(network.unet_folder(folder)).to(device), schedule, kind)


def known(condition: Tensor, keep: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(condition without NaN, keep as (n, k)): what is NaN is not kept."""
    found = (~condition.isnan()).to(condition.dtype)
    if keep is not None:
        found = found * keep.to(found).reshape(len(keep), -1)
    return condition.nan_to_num(), found


def guided(
    denoiser: Denoiser, x: Tensor, t: Tensor, condition: Tensor | None, w: float = 0.0, keep: Tensor | None = None
) -> Prediction:
    """Classifier-free guidance ε̃ = (1+w)·ε̂(x, c) − w·ε̂(x) (Ho and Salimans 2022, eq. 6).

    w = 0 is the plain conditional model at the price of one evaluation, w = −1 the unconditional one. Libraries and
    the latent diffusion tables say s = 1 + w. x̂_0 is affine in ε̂ at fixed x_t, so the same combination holds for it.
    """
    with_condition = denoiser.predict(x, t, condition, keep)
    if w == 0 or condition is None:
        return with_condition
    without = denoiser.predict(x, t)
    return Prediction(
        clean=(1 + w) * with_condition.clean - w * without.clean,
        noise=(1 + w) * with_condition.noise - w * without.noise,
    )


def scale_from_w(w: float) -> float:
    """s = 1 + w: the guidance scale of diffusers and of the latent diffusion paper (unguided is 1)."""
    return 1.0 + w


def w_from_scale(scale: float) -> float:
    """w = s − 1: the extra guidance used throughout this package (unguided is 0)."""
    return scale - 1.0


def _both(schedule: Schedule, out: Tensor, x: Tensor, t: Tensor, kind: Kind) -> Prediction:
    return Prediction(clean=schedule.clean_from(out, x, t, kind), noise=schedule.noise_from(out, x, t, kind))
