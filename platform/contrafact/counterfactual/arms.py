"""The control arms of a direction: what editing does to a picture where nothing is aimed at.

*Sham*: a fresh random smooth picture for every image, orthogonal to the guide's and the held covariates' gradients
at every step. *Placebo*: the gradient of a guide trained on permuted labels, another permutation for every image as
long as there are any. Both pass through the same inversion, replay and mask as the treated arm and are matched to
it, image by image and dose by dose, on the RMS change of the final pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from contrafact.counterfactual.direction import Field, Reader, gradients
from contrafact.counterfactual.edit import Edited, edit, pixel_norm, smooth_field
from contrafact.diffusion.denoiser import Denoiser
from contrafact.diffusion.invert import Path, Step


def sham(noise: Tensor, against: Sequence[Reader]) -> Field:
    """``noise`` (n, c, h, w) standard normal, one picture an image of the path."""
    pictures = smooth_field(noise)
    return Field(lambda step: pictures[step.index], against)


def placebo(guide: Reader, draw: Tensor, hold: Sequence[Reader]) -> Field:
    """``guide`` reads all permutations, (m, p); image ``i`` of the path follows number ``draw[i]``."""

    def field(step: Step) -> Tensor:
        column = draw[step.index]
        _, rows = gradients([lambda x: guide(x).gather(1, column[:, None])[:, 0]], step.clean)
        return rows[:, 0].view_as(step.clean)

    return Field(field, hold)


def matched(
    denoiser: Denoiser, path: Path, direction: Field, treated: Edited, doses: Tensor, *, mask_quantile: float
) -> Edited:
    """The control's edits at every dose, on the treated arm's pixel norm, with the sign of the dose."""
    n, d = treated.strength.shape
    sources = path.x[0].repeat_interleave(d, 0)
    norm = pixel_norm(treated.images.flatten(0, 1), sources).view(n, d) * (doses != 0)
    # A quarter of the image takes most of the change under a mask; the first correction mends the rest.
    start = 4 * norm * doses.sign()
    return edit(
        denoiser,
        path,
        direction,
        start,
        norm,
        pixel_norm,
        corrections=6,
        mask_quantile=mask_quantile,
        tolerance=0.05,
        bounds=(0.02, 50.0),
    )
