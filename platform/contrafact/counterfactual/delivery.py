"""Delivery: an edit made at the model's size, carried to the photograph's own crop. People cannot be shown 64 px."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]

SMOOTHNESS = 0.02**2  # of the guided filter: variance of the guide, range [0, 1], below which an edge is no edge
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


def guided_filter(guide: Field, field: Field, radius: int, smoothness: float) -> Field:
    """``field`` (h, w, c) smoothed within the edges of ``guide`` (h, w), range [0, 1].

    In each window of ``2 radius + 1`` pixels the result is linear in the guide; windows are averaged (He, Sun & Tang
    2013, IEEE TPAMI 35(6), eqs. 5, 6 and 8). The filter is linear in ``field``: nothing in gives nothing out.
    """

    def mean(x: Field) -> Field:
        out: Field = cv2.boxFilter(x, -1, (2 * radius + 1, 2 * radius + 1), borderType=cv2.BORDER_REFLECT)
        return out.reshape(x.shape)

    centre, average = mean(guide), mean(field)
    variance = mean(guide * guide) - centre * centre
    covariance = mean(guide[..., None] * field) - centre[..., None] * average
    slope = np.asarray(covariance / (variance[..., None] + smoothness), np.float32)
    offset = average - slope * centre[..., None]
    return mean(slope) * guide[..., None] + mean(offset)


def deliver(
    original: NDArray[np.uint8], change: Field, rounds: int = 2, within: NDArray[np.bool_] | None = None
) -> NDArray[np.uint8]:
    """``original`` (side, side, 3) with ``change`` (size, size, 3) of the same crop, in 8-bit steps, carried to it.

    The change is interpolated linearly, its edges are drawn to the original's by the guided filter (radius: half a
    pixel of the model), and what the filter took away is given back in ``rounds`` of back-projection (Irani & Peleg
    1991): seen at the model's size again, the picture shows the edit that was made there. Giving back rings, so every
    pixel stays between the smallest and the largest change of the 3 x 3 pixels of the model around it: no place
    changes further than the model drew, and none at all where it drew nothing. Rounding comes last, so a change that
    is only numerical noise leaves the original to the bit, and so is all that lies outside ``within`` (side, side).
    ``side`` is at least ``size``; ValueError otherwise.
    """
    side, size = original.shape[0], change.shape[0]
    if side < size or original.shape != (side, side, 3) or change.shape != (size, size, 3):
        raise ValueError(f"a square change no larger than its square original, not {change.shape} on {original.shape}")
    change = np.ascontiguousarray(change, np.float32)
    guide: Field = np.asarray(original @ (LUMA / 255), np.float32)
    radius = max(1, round(side / size / 2))

    def wide(field: Field) -> Field:
        return np.asarray(cv2.resize(field, (side, side), interpolation=cv2.INTER_LINEAR), np.float32)

    around = np.ones((3, 3), np.uint8)
    low, high = wide(cv2.erode(change, around)), wide(cv2.dilate(change, around))
    total = np.zeros_like(low)
    for _ in range(rounds + 1):
        missing = change - cv2.resize(total, (size, size), interpolation=cv2.INTER_AREA)
        total = np.clip(total + guided_filter(guide, wide(missing), radius, SMOOTHNESS), low, high)
    if within is not None:
        total = np.where(within[..., None], total, 0)
    return np.rint(np.clip(original + total, 0, 255)).astype(np.uint8)
