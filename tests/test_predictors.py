"""Predictors: measures against known values, calibration, reproducible training, safe weights."""

from pathlib import Path

import numpy as np
import pytest
import torch

from contrafact.predictors.networks import FAMILIES, build
from contrafact.predictors.predictor import Predictor, Target, as_input
from contrafact.predictors.quality import auc, expected_calibration_error, mapping, quality, r2, temperature
from contrafact.predictors.train import FitConfig, fit, targets_of


def bright(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images whose brightness decides a binary label and a continuous value."""
    rng = np.random.default_rng(seed)
    level = rng.normal(size=n)
    noise = rng.normal(scale=10, size=(n, 16, 16, 3))
    images = np.clip(128 + 30 * level[:, None, None, None] + noise, 0, 255).astype(np.uint8)
    label = (rng.random(n) < 1 / (1 + np.exp(-3 * level))).astype(float)
    return images, np.stack([label, 5 + 2 * level], 1)


def test_auc_is_the_share_of_ordered_pairs() -> None:
    score, label = np.array([0.1, 0.4, 0.35, 0.8, 0.4]), np.array([0, 0, 1, 1, 1.0])
    pairs = [(s > t) + 0.5 * (s == t) for s in score[label == 1] for t in score[label == 0]]
    assert auc(score, label) == pytest.approx(np.mean(pairs))
    assert np.isnan(auc(score, np.ones(5)))


def test_r2_keeps_the_sign_of_the_relation() -> None:
    x = np.arange(10.0)
    assert r2(x, 3 * x + 1) == pytest.approx(1)
    assert r2(x, -x) == pytest.approx(-1)
    assert np.isnan(r2(x, np.ones(10)))


def test_the_interval_of_noise_includes_chance_and_covers_by_units() -> None:
    rng = np.random.default_rng(1)
    label = rng.integers(0, 2, 400).astype(float)
    draws = [quality(rng.normal(size=400), label, "binary", np.arange(400), 200, seed) for seed in range(20)]
    assert sum(draw.low < 0.5 < draw.high for draw in draws) >= 16
    assert sum(draw.above_chance for draw in draws) <= 3
    # Ten copies of each row are no more information: the interval over units stays as wide.
    signal = label + rng.normal(size=400)
    once = quality(signal, label, "binary", np.arange(400), 300, 1)
    copies = quality(
        np.repeat(signal, 10), np.repeat(label, 10), "binary", np.repeat(np.arange(400), 10), 300, 1
    )
    assert copies.high - copies.low == pytest.approx(once.high - once.low, rel=0.15)


def test_temperature_recovers_an_overconfident_scale() -> None:
    rng = np.random.default_rng(2)
    z = rng.normal(size=20_000)
    label = (rng.random(20_000) < 1 / (1 + np.exp(-z))).astype(float)
    assert temperature(3 * z, label) == pytest.approx(3, rel=0.05)
    assert expected_calibration_error(z, label) < 0.02 < expected_calibration_error(3 * z, label)


def test_the_mapping_is_not_shrunk_by_the_guides_error() -> None:
    rng = np.random.default_rng(3)
    truth = rng.normal(size=5_000)
    guide, judge = truth + rng.normal(scale=0.5, size=5_000), truth + rng.normal(scale=0.5, size=5_000)
    moved = mapping(guide, judge).reach(np.zeros(1), np.array([-1.0, 0.0, 1.0]))
    assert moved == pytest.approx(np.array([[-1, 0, 1]]), abs=0.05)
    assert np.polyfit(guide, judge, 1)[0] == pytest.approx(0.8, abs=0.05)  # least squares would be


def test_the_mapping_knows_where_the_guide_saturates() -> None:
    judge = np.random.default_rng(4).normal(size=5_000)
    guide = np.tanh(judge)
    level, doses = np.tanh(np.array([-0.5, 0.0, 0.5])), np.array([-1.0, 0.0, 1.5])
    wanted = np.tanh(np.arctanh(level)[:, None] + doses) - level[:, None]
    assert mapping(guide, judge).reach(level, doses) == pytest.approx(wanted, abs=0.03)


def test_few_images_make_the_mapping_a_line() -> None:
    judge = np.random.default_rng(5).normal(size=40)
    assert len(mapping(2 * judge, judge).guide) == 2
    assert mapping(2 * judge, judge).reach(np.array([-3.0, 0, 3]), np.array([1.0])) == pytest.approx(2)


def test_a_judge_that_disagrees_gives_no_mapping() -> None:
    judge = np.random.default_rng(6).normal(size=40)
    with pytest.raises(ValueError, match="do not agree"):
        mapping(-judge, judge)


@pytest.mark.parametrize("family", ["guide", "judge"])
def test_a_predictor_learns_both_kinds_of_target_and_comes_back_from_disk(
    family: str, tmp_path: Path
) -> None:
    images, values = bright(600)
    values[::7, 1] = np.nan  # unknown values are left out of the loss
    targets = targets_of(["label", "value"], ["binary", "continuous"], values)
    predictor = fit(Predictor(family, targets, [1]), images, values, FitConfig(epochs=4), seed=1)
    fresh, truth = bright(300, seed=9)
    reading = predictor.read(fresh)
    assert auc(reading[:, 0], truth[:, 0]) > 0.85
    assert r2(reading[:, 1], truth[:, 1]) > 0.9
    predictor.save(tmp_path)
    np.testing.assert_array_equal(Predictor.load(tmp_path).read(fresh), reading)
    assert not list(tmp_path.glob("*.p[tk]*")), "weights are safetensors only"


def test_training_is_reproducible_and_leaves_global_randomness_alone() -> None:
    images, values = bright(128)
    state = torch.get_rng_state()
    made = [
        fit(
            Predictor("judge", [Target("label", "binary")], [4]),
            images,
            values[:, :1],
            FitConfig(epochs=1),
            seed=2,
        )
        for _ in range(2)
    ]
    np.testing.assert_array_equal(made[0].read(images), made[1].read(images))
    assert torch.equal(state, torch.get_rng_state())


def test_guide_and_judge_are_different_architectures() -> None:
    kinds = {
        family: {type(module).__name__ for module in build(family, 1, 0).modules()} for family in FAMILIES
    }
    assert "GroupNorm" in kinds["guide"] and "GroupNorm" not in kinds["judge"]
    assert "GELU" in kinds["judge"]


def test_input_is_the_range_that_networks_expect() -> None:
    x = as_input(np.array([[[[0, 128, 255]]]], dtype=np.uint8))
    assert x.shape == (1, 3, 1, 1)
    assert x.flatten().tolist() == pytest.approx([-1, 128 / 127.5 - 1, 1], abs=1e-6)
