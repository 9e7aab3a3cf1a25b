"""Decoding is bounded, upright, on white, and says what is wrong with which file."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from contrafact import images
from contrafact.errors import UserError
from contrafact.images import decode


def gradient(height: int = 40, width: int = 60) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 4, y * 6, (x + y) * 2], -1).astype(np.uint8)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    upright = Image.fromarray(gradient())
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show rotated by 90 degrees clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(np.asarray(decode.decode(tmp_path / "turned.png")), gradient())


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_lies_on_white(tmp_path: Path, mode: str) -> None:
    pixels = np.zeros((20, 20, 4), np.uint8)
    pixels[:10, :, 3] = 255
    picture = Image.fromarray(pixels)
    (picture.quantize() if mode == "P" else picture.convert(mode)).save(tmp_path / "a.png")
    found = np.asarray(decode.decode(tmp_path / "a.png"))
    assert found.shape == (20, 20, 3) and (found[:10] == 0).all() and (found[10:] == 255).all()


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr"])
def test_any_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    grey = Image.fromarray(np.full((20, 20, 3), 255, np.uint8)).convert(mode)
    path = tmp_path / ("a.jpg" if mode in ("CMYK", "YCbCr") else "a.png")
    grey.save(path)
    assert (np.asarray(decode.decode(path)) >= 254).all()


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 400).reshape(20, 20).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    found = np.asarray(decode.decode(tmp_path / "deep.png"))[..., 0]
    assert np.array_equal(found, np.rint(values / 257).astype(np.uint8))


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [8_000, 60_000])
def test_a_decompression_bomb_is_refused_before_it_is_opened(tmp_path: Path, side: int) -> None:
    (tmp_path / "bomb.png").write_bytes(png_header(side, side))
    with pytest.raises(UserError, match=r"bomb\.png has .*pixels.*At most 50,000,000"):
        decode.decode(tmp_path / "bomb.png")


def test_what_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(gradient()).save(tmp_path / "whole.jpg")
    content = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    Image.fromarray(gradient(8, 60)).save(tmp_path / "thin.png")
    frames = [Image.fromarray(gradient()), Image.fromarray(255 - gradient())]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    Image.fromarray(np.zeros((20, 20), np.float32)).save(tmp_path / "float.tiff")
    for name, words in {
        "cut.jpg": "damaged or cut off",
        "text.png": "not a picture",
        "empty.png": "not a picture",
        "gone.png": "cannot be opened",
        "thin.png": "60 x 8 pixels",
        "film.gif": "2 frames",
        "float.tiff": "32 bits",
    }.items():
        with pytest.raises(UserError, match=words) as told:
            decode.decode(tmp_path / name)
        assert name in told.value.message and told.value.hint
    monkeypatch.setattr(decode, "MAX_BYTES", 10)
    with pytest.raises(UserError, match="bytes"):
        decode.decode(tmp_path / "whole.jpg")


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"II*\x00", b"GIF89a", b"BM"]))
def test_hostile_bytes_raise_user_errors_alone(tmp_path_factory: pytest.TempPathFactory, tail: bytes, head: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "hostile"
    path.write_bytes(head + tail)
    with pytest.raises(UserError):
        decode.decode(path)


def test_float_and_back_is_the_identity() -> None:
    every = np.arange(256 * 3, dtype=np.uint32).reshape(1, 16, 16, 3).astype(np.uint8)
    x = images.to_float(every)
    assert x.dtype == np.float32 and x.shape == (1, 3, 16, 16) and x.min() == -1 and x.max() == 1
    assert np.array_equal(images.to_uint8(x), every)
    assert images.to_uint8(np.full((1, 3, 1, 1), 7, np.float32)).max() == 255


def test_png_is_lossless_and_repeats() -> None:
    pixels = gradient()
    content = images.png_bytes(pixels)
    assert np.array_equal(images.from_png(content), pixels)
    assert images.png_bytes(np.asfortranarray(pixels)) == content


def test_a_square_is_the_centre_or_the_box_and_does_not_alias() -> None:
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:, 16:48] = 200
    wide = Image.fromarray(pixels)
    assert (np.abs(decode.to_square(wide, 16)[:, 3:-3].astype(int) - 200) <= 1).all(), "the middle half"
    assert (decode.to_square(wide, 8, (0, 8, 12, 12))[:, :-2] == 0).all(), "the left edge"
    stripes = np.zeros((128, 128, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(decode.to_square(Image.fromarray(stripes), 16).astype(int) - 127).max() <= 8
