"""Edits in the latents of an autoencoder, seen as a change of the photograph's own pixels.

An autoencoder returns no picture exactly. So an edited picture here is the photograph plus the difference of two
decoded latents, edited and unedited: dose 0 is the photograph itself, and what the autoencoder loses is lost by no
stimulus. Its own error is measured apart (:meth:`Latents.error`).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path as Folder

import torch
from diffusers import AutoencoderKL
from safetensors import SafetensorError
from torch import Tensor

from contrafact.diffusion.invert import Path
from contrafact.diffusion.network import ModelFolderError

CHUNK = 64  # pictures coded at once where no gradient is asked for


class Latents:
    """A diffusers AutoencoderKL (Rombach et al. 2022, "Latent diffusion", section 3.1), float32 and deterministic."""

    def __init__(self, autoencoder: AutoencoderKL) -> None:
        self.autoencoder = autoencoder.eval().requires_grad_(False)
        self.scale = float(autoencoder.config.scaling_factor)
        self.shift = float(autoencoder.config.shift_factor or 0.0)

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """Latents (n, c, h/f, w/f) of pixels (n, 3, h, w) in [-1, 1]: means of the posteriors, in the model's scale."""
        parts = [self.autoencoder.encode(part).latent_dist.mode() for part in pixels.split(CHUNK)]
        return (torch.cat(parts) - self.shift) * self.scale

    def decode(self, x: Tensor) -> Tensor:
        """Pixels (n, 3, h, w), not bounded; differentiable."""
        z = x / self.scale + self.shift
        if torch.is_grad_enabled() and x.requires_grad:
            return self.autoencoder.decode(z, return_dict=False)[0]
        with torch.no_grad():
            return torch.cat([self.autoencoder.decode(part, return_dict=False)[0] for part in z.split(CHUNK)])

    def error(self, pixels: Tensor) -> Tensor:
        """The autoencoder's own error (n,): mean absolute difference of a picture that was only coded, range [0, 1]."""
        return (self.decode(self.encode(pixels)).clamp(-1, 1) - pixels).abs().mean((1, 2, 3)) / 2

    def seen(self, path: Path, pixels: Tensor) -> Path:
        """``path`` of latents as a path of the ``pixels`` (n, 3, h, w) that they were encoded from."""
        drawn = self.decode(path.x[0]) - self.decode(self.encode(pixels))  # 0 unless the source was drawn anew
        if path.region is not None:
            drawn = drawn * path.region
        return replace(path, pixels=(pixels + drawn).clamp(-1, 1), decode=self.decode)

    def save(self, folder: Folder) -> None:
        self.autoencoder.save_pretrained(folder, safe_serialization=True)


def open_latents(folder: Folder) -> Latents:
    """The autoencoder of a local diffusers folder, or of its ``vae/``; anything but safetensors is refused."""
    place = folder / "vae" if (folder / "vae").is_dir() else folder
    if not (place / "config.json").is_file() or not list(place.glob("*.safetensors")):
        raise ModelFolderError(
            f"{folder}: no autoencoder with config.json and safetensors weights.",
            hint="Name a diffusers AutoencoderKL folder, saved with safe_serialization=True.",
        )
    try:
        return Latents(
            AutoencoderKL.from_pretrained(
                place, use_safetensors=True, local_files_only=True, torch_dtype=torch.float32
            )
        )
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        raise ModelFolderError(f"{folder}: not an AutoencoderKL ({error}).") from error
