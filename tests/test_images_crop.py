"""Crops: squares inside the picture, odd boxes told, faces found where two detectors agree."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from contrafact.images import crop, decode

side = st.integers(16, 400)
part = st.floats(0, 1)


@given(side, side, part, part, part, part, st.floats(0, 1))
def test_a_square_stays_in_its_picture(w: int, h: int, a: float, b: float, c: float, d: float, margin: float) -> None:
    box = (a * (w - 1), b * (h - 1), max(1.0, c * w * (1 - a)), max(1.0, d * h * (1 - b)))
    left, top, width, height = crop.square(box, (w, h), margin)
    assert width == height <= min(w, h) and left >= 0 and top >= 0
    assert left + width <= w + 1e-9 and top + height <= h + 1e-9
    if max(box[2:]) * (1 + 2 * margin) < min(w, h):
        assert width >= max(box[2:]) and left <= box[0] + 1e-9 and top <= box[1] + 1e-9


def test_odd_boxes_are_told_with_the_reason() -> None:
    boxes: list[decode.Box] = [(100 + k % 3, 100 - k % 3, 80 + k % 2, 80 + k % 2) for k in range(20)]
    sizes = [(300, 300)] * 20
    assert crop.odd_boxes(boxes, sizes) == {}
    boxes[4], boxes[9] = (200, 100, 80, 80), (120, 120, 40, 40)
    odd = crop.odd_boxes(boxes, sizes)
    assert list(odd) == [4, 9] and "left to right" in odd[4] and "size" in odd[9]
    assert crop.odd_boxes(boxes[:5], sizes[:5]) == {}, "five boxes know no norm"


def test_pictures_of_different_sizes_are_compared_by_share() -> None:
    boxes: list[decode.Box] = [(k * 100.0, k * 100.0, k * 100.0, k * 100.0) for k in range(1, 11)]
    assert crop.odd_boxes(boxes, [(k * 300, k * 300) for k in range(1, 11)]) == {}


def test_a_picture_without_a_face_is_a_miss() -> None:
    noise = np.random.default_rng(1).integers(0, 255, (256, 256, 3), dtype=np.uint8)
    assert crop.find_face(Image.fromarray(noise)) is None
    assert crop.find_face(Image.new("RGB", (300, 200), "grey")) is None


def test_the_contact_sheet_outlines_what_was_missed() -> None:
    crops = [np.full((32, 32, 3), 90, np.uint8)] * 14
    sheet = crop.contact_sheet(crops, [f"a/very/long/path/to/{k}.png" for k in range(14)], frozenset({13}), columns=4)
    pixels = np.asarray(sheet)
    red = (pixels == (200, 0, 0)).all(-1)
    rows, columns = np.nonzero(red)
    assert rows.min() > pixels.shape[0] * 3 / 4 - 10 and 90 < columns.min() < columns.max() < 215, "the 14th cell"


def faces() -> Path:
    data = Path(os.environ.get("CONTRAFACT_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (data / "london" / "images.csv").exists():
        pytest.skip("the London faces are not here")
    return data / "london"


def test_real_faces_are_found_in_the_same_place_at_any_scale() -> None:
    folder = faces()
    boxes = []
    for name in pd.read_csv(folder / "images.csv")["image"][::34]:
        picture = decode.decode(folder / name)
        box = crop.find_face(picture)
        assert box is not None, name
        larger = crop.find_face(picture.resize((picture.width * 2, picture.height * 2)))
        assert larger is not None and np.allclose(np.array(larger) / 2, box, atol=0.03 * picture.width)
        boxes.append(np.array(box) / picture.width)
    left, _, width, _ = np.array(boxes).T
    assert (np.abs(left + width / 2 - 0.5) < 0.05).all() and (np.abs(width - 0.37) < 0.1).all()


def test_a_face_is_found_beside_the_middle() -> None:
    folder = faces()
    picture = decode.decode(folder / pd.read_csv(folder / "images.csv")["image"][0])
    box = crop.find_face(picture)
    canvas = Image.new("RGB", (2 * picture.width, picture.height), "grey")
    canvas.paste(picture, (picture.width, 0))
    moved = crop.find_face(canvas)
    assert box is not None and moved is not None
    assert moved[0] - picture.width == pytest.approx(box[0], abs=8)
