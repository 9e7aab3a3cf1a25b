"""Families of small convolutional networks: one for the guide's side, another for the judge's, one for noisy images.

Different architectures on purpose: a change of pixels that only one family sees is no counterfactual.
The first two map images ``(n, 3, size, size)`` in [-1, 1] to ``(n, k)``, the third images with a fourth channel that
holds the noise level; all take any ``size`` that is a multiple of 8.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GuideNet(nn.Module):
    """3 x 3 residual blocks, SiLU, group norm; smooth everywhere, so that its gradient can steer."""

    def __init__(self, outputs: int, width: int = 32, channels: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * channels, width, 3, padding=1))
        self.blocks = nn.ModuleList(
            [_Residual(width, width), _Residual(width, 2 * width), _Residual(2 * width, 2 * width)]
        )
        self.down = nn.AvgPool2d(2)
        self.head = nn.Linear(2 * width * 4, outputs)

    def features(self, x: Tensor) -> Tensor:
        """What the head reads, (n, 8 width)."""
        x = self.stem(x)
        for block in self.blocks:
            x = self.down(block(x))
        # A 2 x 2 summary keeps where things are (a beard is not a fringe) and fits every image size.
        return nn.functional.adaptive_avg_pool2d(nn.functional.silu(x), 2).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


class NoiseAwareNet(GuideNet):
    """The guide's network on a noisy image and its noise level: ``p(y | x_t, t)`` of classifier guidance."""

    def __init__(self, outputs: int) -> None:
        super().__init__(outputs, channels=4)


class _Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, inputs)
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + self.conv(nn.functional.silu(self.norm(x)))


class JudgeNet(nn.Module):
    """5 x 5 strided convolutions, GELU, no norm, a hidden layer: another inductive bias than the guide's."""

    def __init__(self, outputs: int, width: int = 24) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, width, 5, stride=2, padding=2),
            nn.GELU(),
            nn.Conv2d(width, 2 * width, 5, stride=2, padding=2),
            nn.GELU(),
            nn.Conv2d(2 * width, 3 * width, 3, stride=2, padding=1),
            nn.GELU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
        )
        self.head = nn.Sequential(nn.Linear(3 * width * 16, 96), nn.GELU(), nn.Linear(96, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


FAMILIES: dict[str, type[nn.Module]] = {"guide": GuideNet, "judge": JudgeNet, "noise_aware": NoiseAwareNet}


def build(family: str, outputs: int, seed: int) -> nn.Module:
    """A network of ``family`` with initial weights that depend on ``seed`` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FAMILIES[family](outputs)
