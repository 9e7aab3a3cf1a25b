"""The rendered worlds: deterministic, true to their factors, and good for a known counterfactual."""

import numpy as np
import pytest

from contrafact.images import worlds
from contrafact.study.schema import World
from contrafact.study.worlds import WORLD_FACTORS


def test_the_planted_correlation_and_the_truncation_hold() -> None:
    drawn = worlds.sample(World(kind="confounded", images=20_000), seed=3)
    assert np.abs(drawn.factors).max() <= worlds.TRUNCATION
    r = np.corrcoef(drawn.factors.T)
    assert r[0, 1] == pytest.approx(0.5, abs=0.03)
    others = r[np.triu_indices(9, 1)][1:]
    assert np.abs(others).max() < 0.03


def test_an_image_is_the_same_in_a_larger_world() -> None:
    small = worlds.sample(World(images=300), seed=5)
    large = worlds.sample(World(images=2_500), seed=5)
    np.testing.assert_array_equal(small.factors, large.factors[:300])
    np.testing.assert_array_equal(small.outcome, large.outcome[:300])


def test_outcome_follows_the_cause_only_where_it_should() -> None:
    for kind, low, high in (("true", 0.5, 0.7), ("confounded", 0.5, 0.7), ("null_outcome", -0.03, 0.03)):
        drawn = worlds.sample(World(kind=kind, images=10_000), seed=1)
        assert low < np.corrcoef(drawn.factors[:, 0], drawn.outcome)[0, 1] < high


def test_a_continuous_outcome_is_the_cause_and_noise_of_one_sd() -> None:
    world = World(name="products", kind="confounded", images=10_000, cause="label", nuisance="backdrop", effect=2)
    drawn = worlds.sample(world, seed=1, outcome="continuous")
    slope, level = np.polyfit(drawn.factors[:, 0], drawn.outcome, 1)
    assert (slope, level) == (pytest.approx(2, abs=0.05), pytest.approx(0, abs=0.05))
    assert np.std(drawn.outcome - slope * drawn.factors[:, 0]) == pytest.approx(1, abs=0.03)
    assert np.corrcoef(drawn.factors[:, :2].T)[0, 1] == pytest.approx(0.5, abs=0.03)
    coin = worlds.sample(world, seed=1)
    np.testing.assert_array_equal(coin.factors, drawn.factors)


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("world", WORLD_FACTORS)
def test_every_factor_can_be_seen_and_never_saturates(world: str, size: int) -> None:
    """Each step of a factor changes pixels, the last ones hardly less than the middle ones."""
    for k, name in enumerate(WORLD_FACTORS[world]):
        moved = np.zeros((5, len(WORLD_FACTORS[world])))
        moved[:, k] = [-2.4, -1.2, 0, 1.2, 2.4]
        pixels = worlds.render(moved, size, world).astype(float)
        assert ((np.abs(pixels[4] - pixels[0]).sum(-1) > 24).mean()) > 0.004, f"{name} cannot be seen"
        steps = np.abs(np.diff(pixels, axis=0)).mean((1, 2, 3))
        # The longest hair of a face ends behind the shirt.
        assert name == "hair_length" or steps.min() > 0.2 * steps.max(), f"{name} saturates: {steps}"


def test_parts_of_a_product_stay_where_they_are() -> None:
    """The label is on the body, the backdrop behind it, the cap on top."""
    names, size = WORLD_FACTORS["products"], 64
    plain = worlds.render(np.zeros((1, len(names))), size, "products").astype(int)

    def touched(name: str) -> np.ndarray:
        moved = np.zeros((1, len(names)))
        moved[0, names.index(name)] = 2.0
        return np.abs(worlds.render(moved, size, "products").astype(int) - plain).sum(-1)[0] > 12

    assert not touched("label")[: size // 3].any() and touched("cap")[: size // 3].any()
    assert (touched("backdrop") & touched("warmth")).mean() < 0.05, "soft edges at most"
    assert not touched("warmth")[:, : size // 5].any() and touched("backdrop")[:, : size // 5].any()


@pytest.mark.parametrize("size", [32, 64])
def test_changing_one_factor_changes_its_own_pixels(size: int) -> None:
    base = np.zeros((1, 9))
    plain = worlds.render(base, size).astype(int)
    touched = {}
    for k, name in enumerate(worlds.FACTORS):
        moved = base.copy()
        moved[0, k] = 2.0
        touched[name] = np.abs(worlds.render(moved, size).astype(int) - plain).sum(-1)[0] > 12
        assert touched[name].any(), f"{name} cannot be seen"
    lower, upper = slice(size // 2, None), slice(0, size // 2)
    assert touched["groom"][lower].any() and not touched["groom"][upper].any()
    assert touched["brow"][upper].any() and not touched["brow"][lower].any()
    face = touched["skin"]
    assert (touched["background"] & face).mean() < 0.05, "background and face share soft edges at most"


def test_the_cause_is_drawn_in_even_steps() -> None:
    """Equal steps of the cause change pixels by equal amounts, so that a dose in SD has one meaning."""
    faces = np.zeros((5, 9))
    faces[:, 0] = [-2, -1, 0, 1, 2]
    pixels = worlds.render(faces, 32).astype(float)
    steps = np.abs(np.diff(pixels, axis=0)).mean((1, 2, 3))
    assert steps.max() / steps.min() < 1.1


def test_rendering_is_deterministic_and_independent_of_the_batch() -> None:
    factors = worlds.sample(World(images=600), seed=2).factors[:600]
    whole = worlds.render(factors, 32)
    np.testing.assert_array_equal(whole[510], worlds.render(factors[510:511], 32)[0])


@pytest.mark.parametrize("sign", [1, -1])
def test_a_truth_is_the_nearest_picture_that_moves_the_judge_as_much(sign: int) -> None:
    """A judge that turns back beyond -1.5 SD of label is not answered with a bottle that has no label left."""
    names = WORLD_FACTORS["products"]
    own, label = np.zeros((1, len(names))), np.eye(len(names))[names.index("label")]
    bottles = worlds.render(own + label * worlds.SHIFTS[:, None], 32, "products")
    seen = {picture.tobytes(): shift for picture, shift in zip(bottles, worlds.SHIFTS, strict=True)}

    def judge(pictures: np.ndarray) -> np.ndarray:
        shifts = np.array([seen[picture.tobytes()] for picture in pictures])
        return sign * np.where(shifts < -1.5, -1.5 - 0.3 * (shifts + 1.5), shifts)

    moves = sign * np.array([[-2.0, -1.5, -1.0, 0.0, 1.0, 9.0]])
    truth = worlds.counterfactuals(own, "label", moves, judge, 32, "products")
    nearest = np.array([-1.5, -1.5, -1, 0, 1, 4])[:, None]
    assert np.array_equal(truth[0], worlds.render(own + label * nearest, 32, "products"))
