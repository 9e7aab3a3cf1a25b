"""How far two pictures lie apart for a network that was trained to see (Zhang et al. 2018, "LPIPS").

Their distance with every channel's weight 1 (equation 1; their table 5 calls the network without learned weights
"Net"), on torchvision's VGG-16. The study names the weights; nothing is downloaded.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers

from contrafact.errors import UserError

TAPS = (4, 9, 16, 23, 30)
"""Ends of the five blocks of convolutions, each after its last rectification."""

SMALLEST = 64  # pixels a side: the patches of Zhang et al.; smaller pictures are enlarged

MEAN, SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the pictures that the weights were trained on


class Perceptual:
    """``layers`` are the convolutions of VGG-16, the classifier left out."""

    def __init__(self, layers: nn.Sequential) -> None:
        self.layers = layers.eval().requires_grad_(False)

    @torch.no_grad()
    def distance(self, a: Tensor, b: Tensor, batch: int = 50) -> np.ndarray:
        """(n,) distances of pictures (n, 3, h, w) in [-1, 1]: 0 for equal ones, without an upper bound of note."""
        parts = zip(a.split(batch), b.split(batch), strict=True)
        return np.concatenate([self._between(one, other).double().numpy() for one, other in parts])

    def _between(self, a: Tensor, b: Tensor) -> Tensor:
        x, total = self._prepared(torch.cat([a, b])), torch.zeros(len(a))
        for start, end in pairwise((0, *TAPS)):
            x = self.layers[start:end](x)
            unit = x / (x.norm(dim=1, keepdim=True) + 1e-10)
            one, other = unit.chunk(2)
            total = total + (one - other).pow(2).sum(1).mean((1, 2))
        return total

    def _prepared(self, x: Tensor) -> Tensor:
        if x.shape[-1] < SMALLEST:
            x = nn.functional.interpolate(x, SMALLEST, mode="bilinear", align_corners=False)
        mean, sd = (torch.tensor(each)[:, None, None] for each in (MEAN, SD))
        return ((x + 1) / 2 - mean) / sd


def open_perceptual(file: Path) -> Perceptual:
    """The network with the weights of a safetensors file that names them as torchvision and timm do (``features.0.weight``
    and on). UserError where it holds others."""
    layers = make_layers(cfgs["D"])
    try:
        weights = {name.removeprefix("features."): value for name, value in load_file(file).items() if name.startswith("features.")}
        layers.load_state_dict(weights)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"{file}: not the weights of a VGG-16 ({str(error).splitlines()[0]}).",
            hint="Save torchvision's vgg16 with safetensors, or take timm's vgg16.tv_in1k.",
        ) from error
    return Perceptual(layers)
