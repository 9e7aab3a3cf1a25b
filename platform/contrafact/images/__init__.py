"""Manifest, decoding, crops, splits and rendered worlds: from files or a recipe to arrays of pixels."""

from contrafact.images.decode import from_png, png_bytes, to_float, to_uint8

__all__ = ["from_png", "png_bytes", "to_float", "to_uint8"]
