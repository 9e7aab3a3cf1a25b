"""Writes the manifests of the clothing studies: `python studies/clothing.py FOLDER`, the folder that holds `clothing/`.

``sleeves.csv``: T-shirts and long sleeves, with ``long_sleeve`` 0 or 1. ``tone.csv``: T-shirts, long sleeves and shirts,
with ``tone``, the mean luma (Rec. 601, 0 to 255) of the middle two fifths of the square that the studies cut out, which
is cloth, and ``surround``, that of its outermost twelfth, which is floor, wall and light.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

HERE = Path(__file__).parent


def tones(picture: Image.Image, size: int = 120) -> tuple[float, float]:
    """Luma of the middle and of the frame of the picture's central square, 0 to 255."""
    luma = np.asarray(ImageOps.fit(picture.convert("L"), (size, size)), float)
    middle, frame = slice(3 * size // 10, 7 * size // 10), np.ones((size, size), bool)
    frame[size // 12 : -size // 12, size // 12 : -size // 12] = False
    return float(luma[middle, middle].mean()), float(luma[frame].mean())


def main(folder: Path) -> None:
    garments = pd.read_csv(folder / "clothing" / "images.csv")
    garments["unit_id"] = garments["image"]
    sleeves = garments[garments["category"].isin(["t-shirt", "longsleeve"])]
    sleeves = sleeves.assign(long_sleeve=(sleeves["category"] == "longsleeve").astype(int))
    sleeves[["unit_id", "image", "long_sleeve"]].to_csv(HERE / "sleeves.csv", index=False)
    tops = garments[garments["category"].isin(["t-shirt", "longsleeve", "shirt"])]
    measured = [tones(Image.open(folder / "clothing" / name)) for name in tops["image"]]
    tops = tops.assign(tone=[tone for tone, _ in measured], surround=[frame for _, frame in measured]).round(2)
    tops[["unit_id", "image", "tone", "surround"]].to_csv(HERE / "tone.csv", index=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    asked = parser.parse_args()
    if not (asked.folder / "clothing" / "images.csv").is_file():
        parser.error(f"{asked.folder}: no clothing/images.csv in it; name the folder that holds clothing/")
    main(asked.folder)
