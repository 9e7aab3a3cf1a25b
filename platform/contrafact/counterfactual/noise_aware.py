"""Classifier guidance as it was published: the gradient of a classifier that was trained on noisy images.

Kept for comparison. The dose is a scale on log p(y | x_t, t), and both estimates of the step move: the clean one by
(1 - ᾱ_t)/√ᾱ_t and the noise by -√(1 - ᾱ_t) times the gradient (Dhariwal & Nichol 2021, algorithm 2), so that most of
a late push is cancelled again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from contrafact.counterfactual.direction import Push, begun, gradients, moved_estimate, orthogonal
from contrafact.diffusion.invert import Path, Step
from contrafact.diffusion.schedule import Schedule


def noisy(x: Tensor, t: Tensor | int, schedule: Schedule) -> Tensor:
    """What a noise-aware classifier sees: ``x`` (m, c, h, w) at time ``t`` and, as one more channel, √(1 - ᾱ_t)."""
    level = (1 - schedule.alpha_bar(t)).sqrt().to(x).expand(len(x))
    return torch.cat([x, level[:, None, None, None].expand(-1, 1, *x.shape[2:])], 1)


@dataclass(frozen=True)
class NoiseAware:
    """``classifier`` reads :func:`noisy` images (m, c + 1, h, w) into logits or values (m, k).

    ``target`` is the column that is aimed at: up towards y = 1 with positive strength, down towards y = 0 with
    negative; where it is not ``binary``, along the value itself. The gradient is made orthogonal to those of the
    columns in ``hold``.
    """

    classifier: Callable[[Tensor], Tensor]
    schedule: Schedule
    target: int
    hold: tuple[int, ...] = ()
    binary: bool = True

    def push(self, path: Path, index: Tensor, strength: Tensor) -> Push:
        own = begun(path, index, strength)
        side = strength.sign()

        def towards(x: Tensor, t: int) -> Tensor:
            value = self.classifier(noisy(x, t, self.schedule))[:, self.target]
            return side * torch.nn.functional.logsigmoid(side * value) if self.binary else value

        def change(step: Step) -> Tensor:
            def column(k: int) -> Callable[[Tensor], Tensor]:
                return lambda x: self.classifier(noisy(x, step.t, self.schedule))[:, k]

            _, rows = gradients([lambda x: towards(x, step.t), *map(column, self.hold)], step.x)
            row = strength[:, None] * orthogonal(rows[:, 0], rows[:, 1:])
            kept = self.schedule.alpha_bar(step.t)
            clean, noise = float((1 - kept) / kept.sqrt()) * row, -float((1 - kept).sqrt()) * row
            return moved_estimate(
                self.schedule, path, step, clean.view_as(step.clean), noise.view_as(step.clean)
            )

        return Push(own, change)
