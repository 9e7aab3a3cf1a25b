"""Square crops: faces found by detectors that agree, or boxes from the manifest.

A crop depends on its own picture alone, so it stays when pictures are added; only the flags compare pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import cv2
import cv2.data
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from contrafact.images.decode import Box, Pixels

#: OpenCV 4's frontal cascades (Viola & Jones 2001; Lienhart & Maydt 2002). One alone is loose now and then.
CASCADES = ("default", "alt", "alt2")
VOTES = 2  # cascades that must agree on a face
OVERLAP = 0.5  # intersection over union from which two boxes are one face
DETECT_SIDE = 256  # pixels of the short side on which faces are sought
SMALLEST = 0.15  # of the short side: smaller boxes are not the face of a portrait

ODD_Z = 4.0  # robust SD from the median
ODD_LEAST = 0.1  # share of the short side (centre) or of the size below which no deviation is odd


@cache
def _detectors() -> tuple[cv2.CascadeClassifier, ...]:
    folder = Path(cv2.data.haarcascades)
    return tuple(cv2.CascadeClassifier(str(folder / f"haarcascade_frontalface_{name}.xml")) for name in CASCADES)


def find_face(picture: Image.Image) -> Box | None:
    """The box of the face in an RGB picture, in its pixels; None where no two detectors agree on one.

    Each cascade looks at the histogram-equalised grey picture. Boxes that overlap are one face; the face with the
    most votes wins, then the largest; its box is the median of the votes.
    """
    scale = min(1.0, DETECT_SIDE / min(picture.size))
    small = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS)
    grey = cv2.equalizeHist(np.asarray(small.convert("L")))
    least = round(SMALLEST * min(small.size))
    found = [
        (voter, np.array(box, float))
        for voter, detector in enumerate(_detectors())
        for box in detector.detectMultiScale(grey, 1.1, 4, minSize=(least, least))
    ]
    faces = [[vote for vote in found if _overlap(vote[1], box) >= OVERLAP] for _, box in found]
    agreed = [face for face in faces if len({voter for voter, _ in face}) >= VOTES]
    if not agreed:
        return None
    boxes = [(len({voter for voter, _ in face}), *np.median([box for _, box in face], axis=0)) for face in agreed]
    _, left, top, width, height = max(boxes, key=lambda one: (one[0], one[3] * one[4], one[1], one[2]))
    return left / scale, top / scale, width / scale, height / scale


def _overlap(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    shared = np.minimum(a[:2] + a[2:], b[:2] + b[2:]) - np.maximum(a[:2], b[:2])
    common = float(np.prod(np.clip(shared, 0, None)))
    return common / float(np.prod(a[2:]) + np.prod(b[2:]) - common)


def square(box: Box, picture_size: tuple[int, int], margin: float = 0.0) -> Box:
    """The square around ``box``, widened by ``margin`` of its longer side on each side, inside the picture.

    A square that would leave the picture is moved in; one larger than the picture shrinks to its short side.
    """
    left, top, width, height = box
    side = min(max(width, height) * (1 + 2 * margin), *picture_size)
    corner = (
        float(np.clip(centre - side / 2, 0, whole - side))
        for centre, whole in zip((left + width / 2, top + height / 2), picture_size, strict=True)
    )
    return (*corner, side, side)  # type: ignore[return-value]


def odd_boxes(boxes: Sequence[Box], picture_sizes: Sequence[tuple[int, int]]) -> dict[int, str]:
    """Index to reason for boxes whose size or centre lies far from the others'.

    Robust z values (median and MAD) of the centre and of the log of the size, both relative to the picture's short
    side. Fewer than 8 boxes are too few to call one odd.
    """
    if len(boxes) < 8:
        return {}
    short = np.array([min(size) for size in picture_sizes], float)
    left, top, width, height = np.array(boxes, float).T
    whole = np.array(picture_sizes, float).T
    measures = {
        "is off the others' place from left to right": (left + width / 2 - whole[0] / 2) / short,
        "is off the others' place from top to bottom": (top + height / 2 - whole[1] / 2) / short,
        "is of another size than the others": np.log(np.maximum(width, height) / short),
    }
    reasons: dict[int, list[str]] = {}
    for what, values in measures.items():
        away = np.abs(values - np.median(values))
        spread = 1.4826 * np.median(away)
        for k in np.flatnonzero((away > ODD_Z * spread) & (away > ODD_LEAST)):
            reasons.setdefault(int(k), []).append(what)
    return {k: "the box " + " and ".join(parts) for k, parts in sorted(reasons.items())}


def contact_sheet(
    crops: Sequence[Pixels], captions: Sequence[str], outlined: frozenset[int] = frozenset(), columns: int = 12
) -> Image.Image:
    """Crops of one size on white with their captions; ``outlined`` ones stand in a red frame."""
    side = max(96, crops[0].shape[0]) if crops else 96
    line, gap = 14, 6
    rows = max(1, -(-len(crops) // columns))
    sheet = Image.new("RGB", (columns * (side + gap) + gap, rows * (side + line + gap) + gap), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for k, (crop, caption) in enumerate(zip(crops, captions, strict=True)):
        x, y = gap + k % columns * (side + gap), gap + k // columns * (side + line + gap)
        sheet.paste(Image.fromarray(crop).resize((side, side), Image.Resampling.BICUBIC), (x, y))
        if k in outlined:
            draw.rectangle((x - 2, y - 2, x + side + 1, y + side + 1), outline=(200, 0, 0), width=3)
        while draw.textlength(caption, font=font) > side:
            caption = caption[1:]  # the end of a path tells more than its beginning
        draw.text((x, y + side), caption, fill="black", font=font)
    return sheet
