"""The control arms of a direction: what editing does to a picture where nothing is aimed at.

*Sham*: a fresh random direction for every image, along which the guide's and the held covariates' readings stay.
*Placebo*: the direction of a guide trained on permuted labels, another permutation for every image as long as there
are any. Both pass through the same inversion, replay, given region and style as the treated arm and are matched to it,
image by image and dose by dose, on the RMS change of the final pixels. The treated arm's automatic mask keeps where an
edit is strongest, since that is what it aims at; a control aims at nothing, and cut like that its change would end at
an edge that no picture has (a detector trained on raw and sham pictures then finds sham pictures, and none else).

A control that looks broken where the treated picture looks whole is no control. So neither pushes pixels: both ask
the denoiser how its clean estimate follows when the noisy image moves a little along the direction. By Tweedie's
formula that is the direction times the posterior covariance, up to a factor (Manor & Michaeli 2024, "On the posterior
distribution in denoising"): pictures change the way the model's pictures vary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from contrafact.counterfactual.direction import Guidance, Push, Reader, gradients
from contrafact.counterfactual.edit import Edited, edit, pixel_norm
from contrafact.counterfactual.mask import Style
from contrafact.diffusion.denoiser import Denoiser
from contrafact.diffusion.invert import Path, Step
from contrafact.diffusion.schedule import Schedule

DRIFT = 0.3
"""Share of the steps, from the deepest on, in which a control moves; the others let the denoiser finish the picture."""

NUDGE = 0.5
"""Length of the nudge that shows where the clean estimate follows, in SD of the noise in the image."""


@dataclass(frozen=True)
class Drift:
    """A move of the clean estimate of RMS ``strength`` in all, along a field at each of the deepest steps.

    ``fields`` (s, n, c, h, w) of RMS 1, deepest step first; at every step the readings of ``keep`` are moved back to
    where the unedited path has them.
    """

    fields: Tensor
    keep: Sequence[Reader] = ()

    def push(self, path: Path, index: Tensor, strength: Tensor) -> Push:
        moving, deepest = len(self.fields), len(path.timesteps) - 1
        share = (strength / moving)[:, None, None, None]
        held = Guidance(self.keep[0], self.keep[1:]).push(path, index, torch.zeros_like(strength)) if self.keep else None

        def change(step: Step) -> Tensor:
            back = held.change(step) if held and held.change else torch.zeros_like(step.clean)
            number = deepest - step.number
            return back + share * self.fields[number, index] if number < moving else back

        return Push(None if path.condition is None else path.condition[index], change)


@torch.no_grad()
def followed(denoiser: Denoiser, path: Path, noise: Callable[[Tensor], Tensor]) -> Tensor:
    """Where the clean estimates of ``path`` follow a move of the noisy images: fields (s, n, c, h, w) of RMS 1.

    ``noise`` gives the direction of the move (n, c, h, w), of any length, from the clean estimates.
    """
    schedule = Schedule(denoiser.alphas_cumprod)
    deepest = len(path.timesteps) - 1
    fields = []
    for number in range(deepest, deepest - max(1, round(DRIFT * deepest)), -1):
        t, x = path.timesteps[number], path.x[number]
        nudge = NUDGE * float((1 - schedule.alpha_bar(t)).sqrt()) * _unit(noise(path.clean[number - 1]))
        times = torch.full((len(x),), t)
        up, down = (denoiser.predict(x + sign * nudge, times, path.condition).clean for sign in (1, -1))
        fields.append(_unit(up - down))
    return torch.stack(fields)


def _unit(picture: Tensor) -> Tensor:
    """Rows (m, c, h, w) of RMS 1."""
    return picture / picture.pow(2).mean((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-12)


def sham(denoiser: Denoiser, path: Path, noise: Tensor, keep: Sequence[Reader]) -> Drift:
    """``noise`` (n, c, h, w) standard normal, one picture an image of the path."""
    return Drift(followed(denoiser, path, lambda clean: noise), keep)


def placebo(denoiser: Denoiser, path: Path, guide: Reader, draw: Tensor, keep: Sequence[Reader]) -> Drift:
    """``guide`` reads all permutations, (n, p); image ``i`` of the path follows number ``draw[i]``."""

    def noise(clean: Tensor) -> Tensor:
        _, rows = gradients([path.reading(lambda x: guide(x).gather(1, draw[:, None])[:, 0])], clean)
        return rows[:, 0].view_as(clean)

    return Drift(followed(denoiser, path, noise), keep)


def matched(
    denoiser: Denoiser,
    path: Path,
    direction: Drift,
    treated: Edited,
    doses: Tensor,
    *,
    style: Style | None = None,
) -> Edited:
    """The control's edits at every dose, on the treated arm's pixel norm, with the sign of the dose."""
    n, d = treated.strength.shape
    sources = path.sources.repeat_interleave(d, 0)
    norm = pixel_norm(treated.images.flatten(0, 1), sources).view(n, d) * (doses != 0)
    start = norm * doses.sign()
    return edit(
        denoiser,
        path,
        direction,
        start,
        norm,
        pixel_norm,
        corrections=6,
        style=style,
        tolerance=0.05,
        bounds=(0.02, 50.0),
    )
