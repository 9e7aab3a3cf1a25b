"""The rendered faces: deterministic, true to their factors, and good for a known counterfactual."""

import numpy as np
import pytest

from contrafact.images import worlds
from contrafact.study.schema import World


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
