"""The factors of each rendered world, as plain words: a study file is checked without rendering anything."""

from __future__ import annotations

FACES_FACTORS = (
    "groom",
    "skin",
    "hair_length",
    "hair_shade",
    "face_width",
    "mouth_size",
    "eye_size",
    "background",
    "brow",
)

#: world -> its factors, in the order of the columns of a sample
WORLD_FACTORS = {"faces": FACES_FACTORS}
