"""A predictor: an ensemble of networks whose readings come in SD over the validation images.

``score`` is what everything else reads: the mean of the members' outputs (logits divided by the calibration
temperature, or standardised values), minus its mean, over its SD, both taken on the validation images and frozen.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from contrafact.predictors.networks import build


@dataclass(frozen=True)
class Target:
    """One output: ``location`` and ``scale`` standardise a continuous value in training."""

    name: str
    kind: str  # binary or continuous
    location: float = 0.0
    scale: float = 1.0


class Predictor(nn.Module):
    """Ensemble of ``heads`` networks of one family with ``k`` targets."""

    temperature: Tensor
    centre: Tensor
    spread: Tensor

    def __init__(self, family: str, targets: Sequence[Target], seeds: Sequence[int]) -> None:
        super().__init__()
        self.family, self.targets, self.seeds = family, tuple(targets), tuple(seeds)
        self.heads = nn.ModuleList(build(family, len(self.targets), seed) for seed in self.seeds)
        k = len(self.targets)
        self.register_buffer("temperature", torch.ones(k))
        self.register_buffer("centre", torch.zeros(k))
        self.register_buffer("spread", torch.ones(k))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(target.name for target in self.targets)

    def raw(self, x: Tensor) -> Tensor:
        """Calibrated logits or standardised values, ``(n, k)``."""
        return torch.stack([head(x) for head in self.heads]).mean(0) / self.temperature

    def score(self, x: Tensor) -> Tensor:
        """Readings in SD over the validation images, ``(n, k)``."""
        return (self.raw(x) - self.centre) / self.spread

    forward = score

    def features(self, x: Tensor) -> Tensor:
        """What the members' heads read, side by side, ``(n, f)``; differentiable."""
        networks: Any = self.heads
        return torch.cat([network.features(x) for network in networks], 1)

    @torch.no_grad()
    def read(self, images: np.ndarray | Tensor, batch: int = 500, *, raw: bool = False) -> np.ndarray:
        """``score`` (or ``raw``) of many images, ``(n, k)`` float64.

        ``images`` are 8-bit ``(n, h, w, 3)`` arrays or float ``(n, 3, h, w)`` tensors in [-1, 1].
        """
        self.eval()
        read = self.raw if raw else self.score
        parts = [read(as_input(images[k : k + batch])) for k in range(0, len(images), batch)]
        empty = torch.zeros((0, len(self.targets)))
        return torch.cat([*parts, empty]).double().numpy()

    def save(self, folder: Path) -> None:
        """Weights as safetensors and a JSON description beside them; whole or not at all.

        Written under another name and moved, so that a kill leaves no half-written folder to be taken up.
        """
        draft = folder.with_name(folder.name + ".draft")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        weights = {name: value.contiguous() for name, value in self.state_dict().items()}
        save_file(weights, draft / "model.safetensors")
        description = {
            "family": self.family,
            "seeds": self.seeds,
            "targets": [asdict(target) for target in self.targets],
        }
        (draft / "predictor.json").write_text(json.dumps(description, indent=1, sort_keys=True))
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)

    @classmethod
    def load(cls, folder: Path) -> Predictor:
        """The predictor saved in ``folder``."""
        description = json.loads((folder / "predictor.json").read_text())
        targets = [Target(**target) for target in description["targets"]]
        predictor = cls(description["family"], targets, description["seeds"])
        predictor.load_state_dict(load_file(folder / "model.safetensors"))
        return predictor.eval()


def as_input(images: np.ndarray | Tensor) -> Tensor:
    """8-bit ``(n, h, w, 3)`` or float ``(n, 3, h, w)`` images as float32 tensors in [-1, 1]."""
    if isinstance(images, np.ndarray) and images.dtype == np.uint8:
        return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return torch.as_tensor(images, dtype=torch.float32)
