"""From a file that anybody may have made to 8-bit RGB pixels, within bounds.

Colour profiles are not applied: pixels are taken as sRGB.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from contrafact.errors import UserError

MAX_BYTES = 50_000_000
MAX_PIXELS = 50_000_000
MAX_FRAMES = 1
MIN_SIDE = 16  # pixels, the smallest size a study can have
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")

Box = tuple[float, float, float, float]  # left, top, width, height in pixels
Pixels = NDArray[np.uint8]


def decode(path: Path) -> Image.Image:
    """The picture in ``path`` as RGB, upright (EXIF orientation applied), transparency laid on white.

    Pictures of 16 bits a channel are scaled to 8. Raises UserError, which names the file, for what is missing,
    no picture, cut off, animated, or outside the bounds of this module.
    """
    path = Path(path)
    try:
        found = path.stat().st_size
        if found > MAX_BYTES:
            raise _refused(path, f"has {found:,} bytes", f"At most {MAX_BYTES:,} are read: save it smaller.")
        content = path.read_bytes()
    except OSError as error:
        raise _refused(path, f"cannot be opened ({error.strerror})", "Mend the path or the permission.") from None
    try:
        with warnings.catch_warnings():
            # A bomb below Pillow's error meets our own, lower bound; odd metadata is not the user's concern.
            warnings.simplefilter("ignore")
            picture = Image.open(io.BytesIO(content), formats=FORMATS)
            _within_bounds(path, picture)
            picture.load()
            return _rgb(path, ImageOps.exif_transpose(picture))
    except UserError:
        raise
    except Image.DecompressionBombError:
        raise _too_many_pixels(path, "more pixels than can be opened safely") from None
    except Image.UnidentifiedImageError:
        raise _refused(path, "is not a picture of a kind that is read", f"Save it as one of {', '.join(FORMATS)}.") from None
    except Exception as error:  # noqa: BLE001 - decoders answer hostile bytes with exceptions of every kind
        raise _refused(path, f"is damaged or cut off ({error})", "Copy or save it again.") from None


def _refused(path: Path, what: str, mend: str) -> UserError:
    return UserError(f"The image {path} {what}.", hint=mend)


def _too_many_pixels(path: Path, what: str) -> UserError:
    return _refused(path, f"has {what}", f"At most {MAX_PIXELS:,} are decoded: save it smaller.")


def _within_bounds(path: Path, picture: Image.Image) -> None:
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise _too_many_pixels(path, f"{width} x {height} pixels")
    if min(width, height) < MIN_SIDE:
        raise _refused(path, f"has {width} x {height} pixels", f"Each side needs {MIN_SIDE} or more.")
    frames = getattr(picture, "n_frames", 1)
    # MPO is a JPEG whose further frames are previews that some cameras append; the first is the photo.
    if frames > MAX_FRAMES and picture.format != "MPO":
        raise _refused(path, f"has {frames} frames", "Save one frame as a still picture.")


def _rgb(path: Path, picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16"):
        grey = np.rint(np.asarray(picture).astype(np.float32) / 257).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if picture.mode in ("I", "F"):
        raise _refused(path, "has channels of 32 bits, whose white is unknown", "Save it with 8 or 16 bits.")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")


def to_square(picture: Image.Image, size: int, box: Box | None = None) -> Pixels:
    """``(size, size, 3)`` uint8 of the square ``box``, or of the largest central square; Lanczos filtered."""
    if box is None:
        side = min(picture.size)
        box = ((picture.width - side) / 2, (picture.height - side) / 2, side, side)
    left, top, width, height = box
    edges = (left, top, left + width, top + height)
    return np.asarray(picture.resize((size, size), Image.Resampling.LANCZOS, box=edges))


def shrunk(mask: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """A square mask at ``size``: True where it covers half of a pixel or more."""
    grey = Image.fromarray(np.where(mask, 255, 0).astype(np.uint8))
    return np.asarray(grey.resize((size, size), Image.Resampling.BOX)) >= 128


def to_float(images: Pixels) -> NDArray[np.float32]:
    """``(n, h, w, 3)`` uint8 to ``(n, 3, h, w)`` float32 in [-1, 1]."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(127.5) - np.float32(1)


def to_uint8(images: NDArray[np.float32]) -> Pixels:
    """``(n, 3, h, w)`` in [-1, 1] to ``(n, h, w, 3)`` uint8; what lies outside is clipped."""
    scaled = np.rint(np.clip((np.asarray(images, np.float32) + 1) * np.float32(127.5), 0, 255))
    return np.ascontiguousarray(scaled.astype(np.uint8).transpose(0, 2, 3, 1))


def png_bytes(image: Pixels) -> bytes:
    """``(h, w, 3)`` uint8 as a PNG without metadata: the same pixels give the same bytes."""
    buffer = io.BytesIO()
    Image.fromarray(image, "RGB").save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def from_png(content: bytes) -> Pixels:
    """``(h, w, 3)`` uint8 of a PNG that ``png_bytes`` wrote."""
    with Image.open(io.BytesIO(content), formats=("PNG",)) as picture:
        return np.array(picture.convert("RGB"))
