"""Pictures that stand in two splits under two names, found in the features of a network that learned nothing."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from contrafact.images import duplicates, worlds
from contrafact.predictors.networks import build
from contrafact.predictors.predictor import as_input
from contrafact.readings.results import reading
from contrafact.study.schema import Study, World

SPLITS = np.array(["train", "judge", "validation", "stimuli"])


def faces(n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    own = worlds.sample(World(kind="true", images=n), 3)
    return worlds.render(own.factors, 32, "faces"), SPLITS[np.arange(n) % 4]


def saved_anew(picture: np.ndarray, how: str) -> np.ndarray:
    image = Image.fromarray(picture)
    if how == "resized":
        return np.asarray(image.resize((48, 48), Image.Resampling.BICUBIC).resize((32, 32), Image.Resampling.BICUBIC))
    if how == "jpeg":
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=95)
        return np.asarray(Image.open(buffer))
    return picture


@torch.no_grad()
def found(images: np.ndarray, split: np.ndarray) -> list[tuple[int, int]]:
    soft = duplicates.softened(images)
    features = build("judge", 1, seed=1).features(as_input(soft)).numpy()  # type: ignore[operator]
    return duplicates.across(features, soft, split)


@pytest.mark.parametrize("how", ["copied", "jpeg", "resized"])
def test_the_same_picture_under_two_names_is_found_and_no_other(how: str) -> None:
    images, split = faces()
    assert found(images, split) == []
    for one, other in ((3, 80), (17, 18)):  # from stimuli to train, and from judge to validation
        images[other] = saved_anew(images[one], how)
    images[8] = images[4]  # twice in one split is the unit's own affair
    assert found(images, split) == [(3, 80), (17, 18)]


def test_where_every_picture_is_there_twice_each_pair_is_told() -> None:
    images, split = faces(200)
    twice, splits = np.concatenate([images, images]), np.concatenate([split, np.roll(split, 1)])
    assert found(twice, splits) == [(k, k + 200) for k in range(200)]


def test_nothing_to_compare_is_no_pair() -> None:
    images, split = faces(200)
    assert found(images, np.full(200, "train")) == []
    assert found(images[:1], split[:1]) == []


def test_the_report_names_the_pictures() -> None:
    study = Study.model_validate({"study": "twice", "title": "Two names", "world": {}})
    pair = {"image": "a.png", "split": "train", "other": "b.png", "other_split": "stimuli"}
    said = reading(study, {"predict": {"near_duplicates": [pair] * 12}}).pitfalls
    assert "12 pairs: a.png (train) and b.png (stimuli)" in said[0] and "and 2 more" in said[0]
    assert reading(study, {"predict": {"near_duplicates": []}}).pitfalls == ()
