"""The factors of each rendered world, as plain words: a study file is checked without rendering anything."""

from __future__ import annotations

TRUNCATION = 2.5  # SD: no factor lies further from its mean

#: world -> its factors, in the order of the columns of a sample
WORLD_FACTORS: dict[str, tuple[str, ...]] = {
    "faces": (
        "groom",  # low: full beard, high: clean-shaven
        "skin",  # low: deep tone, high: light tone
        "hair_length",
        "hair_shade",  # low: black, high: blond
        "face_width",
        "mouth_size",
        "eye_size",
        "background",  # low: cool, high: warm
        "brow",  # thickness of the eyebrows
    ),
    "products": (
        "label",  # height of the label
        "backdrop",  # low: cool and dark, high: warm and light
        "warmth",  # of the glass, low: blue, high: amber
        "shade",  # low: dark glass, high: light glass
        "height",  # of the body
        "width",
        "roundness",  # low: waisted, high: bellied
        "neck",  # low: slim, high: wide
        "cap",  # its height
        "gloss",  # strength of the highlight
    ),
}
