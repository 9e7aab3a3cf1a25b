"""Where a picture may change, and of what kind a change may be.

A *region* (n, 1, h, w) in [0, 1] belongs to the inverted path (``Path.region``): replays stay on the path where it is
0. A *style* keeps that part of a change which is colour or light alone. The automatic mask looks at the change
itself, so it can only be known inside the dose loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from contrafact.counterfactual.direction import Reader, gradients
from contrafact.diffusion.denoiser import Denoiser
from contrafact.diffusion.invert import Path

Style = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""change (n, d, c, h, w), sources (n, c, h, w), region or None -> what of the change may stay."""

Box = tuple[float, float, float, float]


def automatic_mask(change: Tensor, quantile: float) -> Tensor:
    """Soft mask (n, 1, 1, h, w) of where ``change`` (n, d, c, h, w) is large at any dose.

    The mean absolute change over doses and channels, blurred by 1 pixel, rises from 0 to 1 around its ``quantile``.
    """
    return _raised(change.abs().mean((1, 2))[:, None], quantile)[:, :, None].transpose(1, 2)


def saliency(reader: Reader, images: Tensor, quantile: float) -> Tensor:
    """Where ``reader`` looks at ``images`` (n, c, h, w): a region from the size of its gradient.

    The largest absolute gradient over channels (Simonyan, Vedaldi & Zisserman 2014, section 3.1), soft around its
    ``quantile`` as the automatic mask is.
    """
    _, rows = gradients([reader], images)
    return _raised(rows[:, 0].view_as(images).abs().amax(1, keepdim=True), quantile)


@torch.no_grad()
def conditional_difference(denoiser: Denoiser, path: Path, column: int, quantile: float, by: float = 1.0) -> Tensor:
    """Where the model would draw otherwise under another condition: a region for every image of ``path``.

    The absolute difference of the predictions under the condition in ``column`` raised and lowered by ``by`` SD,
    averaged over channels and over the steps of the path (Couairon et al. 2023, "DiffEdit", section 3.2, which
    draws fresh noise where we have the path). Costs two network evaluations a step. ValueError without a condition.
    """
    if path.condition is None:
        raise ValueError("a difference of conditional predictions needs a conditional denoiser")
    total = torch.zeros_like(path.x[0][:, :1])
    for number, t in enumerate(path.timesteps[1:], start=1):
        times = torch.full((path.x.shape[1],), t)
        up, down = path.condition.clone(), path.condition.clone()
        up[:, column] += by
        down[:, column] -= by
        high, low = (denoiser.predict(path.x[number], times, each).clean for each in (up, down))
        total += (high - low).abs().mean(1, keepdim=True)
    return _raised(total, quantile)


def box(edges: Box, size: int) -> NDArray[np.bool_]:
    """(size, size), True for the pixels whose centre is inside ``edges``: left, top, width, height as shares."""
    left, top, width, height = edges
    centre = (np.arange(size) + 0.5) / size
    across = (centre >= left) & (centre < left + width)
    down = (centre >= top) & (centre < top + height)
    return down[:, None] & across[None, :]


def style(kind: Literal["colour", "light"]) -> Style:
    """``colour``: what of a change one colour map of the whole region explains, by least squares.

    The new colour of a pixel is affine in its old colour, with the same 3 x 4 matrix everywhere (the global colour
    transfer of Reinhard et al. 2001 with all covariances): tints, contrast and saturation may change, no shape can.
    ``light``: the change blurred with an SD of an eighth of the side: shading may change, no edge can. Brush work
    and texture are nothing that pixels would give apart from shape, so there is no such style.
    """
    return _one_colour_map if kind == "colour" else _light


def _one_colour_map(change: Tensor, sources: Tensor, region: Tensor | None) -> Tensor:
    n, d, c, h, w = change.shape
    ones = torch.ones_like(sources[:, :1])
    weight = ones if region is None else region
    terms = torch.cat([ones, sources], 1).flatten(2).transpose(1, 2).double()  # (n, p, 1 + c)
    weighed = terms * weight.flatten(2).transpose(1, 2)
    gram = weighed.transpose(1, 2) @ terms
    ridge = 1e-6 * gram.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] * torch.eye(c + 1) + 1e-12 * torch.eye(c + 1)
    wanted = weighed.transpose(1, 2)[:, None] @ change.flatten(3).transpose(2, 3).double()  # (n, d, 1 + c, c)
    fitted = terms[:, None] @ torch.linalg.solve((gram + ridge)[:, None], wanted)
    return fitted.transpose(2, 3).reshape(n, d, c, h, w).to(change) * weight[:, None]


def _light(change: Tensor, sources: Tensor, region: Tensor | None) -> Tensor:
    n, d, c, h, w = change.shape
    soft = _blur(change.reshape(n * d * c, 1, h, w), max(h, w) / 8).view_as(change)
    return soft if region is None else soft * region[:, None]


def _raised(size: Tensor, quantile: float) -> Tensor:
    """``size`` (n, 1, h, w), blurred by 1 pixel, as a soft step around its ``quantile`` in each image."""
    size = _blur(size)
    threshold = size.flatten(1).quantile(quantile, dim=1)[:, None, None, None].clamp(min=1e-12)
    return ((size / threshold - 0.6) / 0.8).clamp(0, 1)


def _blur(picture: Tensor, sigma: float = 1.0) -> Tensor:
    wide = min(round(3 * sigma), min(picture.shape[-2:]) - 1)
    reach = torch.arange(-wide, wide + 1, dtype=picture.dtype)
    kernel = torch.exp(-(reach**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    padded = torch.nn.functional.pad(picture, (wide, wide, wide, wide), mode="reflect")
    across = torch.nn.functional.conv2d(padded, kernel.view(1, 1, 1, -1))
    return torch.nn.functional.conv2d(across, kernel.view(1, 1, -1, 1))
