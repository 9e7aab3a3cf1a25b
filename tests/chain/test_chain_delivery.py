"""Photographs edited at the model's size and shown at their own, through the real program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from contrafact import settings, study
from contrafact.images import decode, worlds
from contrafact.store.files import Files

pytestmark = [pytest.mark.timeout(1200), pytest.mark.slow]
TINY = Path(__file__).with_name("tiny.yaml")


LOWER = np.zeros((48, 48), np.uint8)
LOWER[24:] = 255


def photographs(folder: Path) -> None:
    """The tiny world's faces as files of 48 px, with a manifest and one mask for all: the lower half may change."""
    folder.mkdir()
    Image.fromarray(LOWER).save(folder / "lower.png")
    world = study.load(TINY).study.world
    assert world is not None
    drawn = worlds.sample(world, 1)
    names = [f"{k:03d}.png" for k in range(len(drawn.factors))]
    for name, picture in zip(names, worlds.render(drawn.factors, 48), strict=True):
        Image.fromarray(picture).save(folder / name)
    skin = drawn.factors[:, list(drawn.names).index("skin")]
    rows = {"image": names, "unit_id": names, "outcome": np.asarray(drawn.outcome, int), "skin": skin, "part": "lower.png"}
    pd.DataFrame(rows).to_csv(folder / "images.csv", index=False)


@pytest.mark.parametrize("masked", [False, True])
def test_people_see_the_photographs_own_crop(fresh: Any, tmp_path: Path, masked: bool) -> None:
    photographs(tmp_path / "photos")
    text = TINY.read_text(encoding="utf-8")
    for old, new in (
        ("world: {kind: confounded, images: 500, cause: groom, nuisance: skin, effect: 4}\n", ""),
        ("  size: 16\n", "  manifest: photos/images.csv\n  delivery: 48\n  size: 16\n"),
        ("  respondents: {slope: 20}\n", ""),
        *([("mask_quantile: 0.5", "mask: manifest"), ("  size: 16\n", "  mask: part\n  size: 16\n")] if masked else []),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    path = tmp_path / "tiny.yaml"
    path.write_text(text, encoding="utf-8")
    assert fresh.run(path, "--until", "gate").said["stopped"] is None

    files = Files(settings.read(fresh.workspace).files_url)
    with fresh.store() as store:
        study_id = store.study("tiny").id
        images = {image.id: image for image in store.images(study_id, split="stimuli")}
        stimuli, cards = store.stimuli(study_id), {card.stimulus_id: card for card in store.cards(study_id)}
    assert {one.arm for one in stimuli} == {"null", "treated", "sham", "placebo"}
    for one in stimuli:
        picture = decode.from_png(files.get(one.pixels_sha256))
        assert picture.shape == (48, 48, 3)
        assert decode.from_png(files.get(one.edited_sha256)).shape == (16, 16, 3)
        if one.arm == "null":
            assert one.pixels_sha256 == images[one.image_id].delivered_sha256
            original = Image.open(tmp_path / "photos" / images[one.image_id].key)
            assert np.array_equal(picture, np.asarray(original))
        else:
            assert one.pixels_sha256 != images[one.image_id].delivered_sha256
            if masked:
                original = decode.from_png(files.get(images[one.image_id].delivered_sha256))
                assert np.array_equal(picture[LOWER == 0], original[LOWER == 0])
    treated = [cards[one.id] for one in stimuli if one.arm == "treated"]
    at_size, delivered = (np.array([getattr(card, name) for card in treated]) for name in ("judge_dose", "delivered_dose"))
    assert np.abs(at_size).max() > 0.02
    np.testing.assert_allclose(delivered, at_size, atol=0.5 * np.abs(at_size).max())
