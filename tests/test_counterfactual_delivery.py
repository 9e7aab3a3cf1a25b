"""Delivery at the photograph's size, against the filter's definition and against what it promises."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contrafact.counterfactual.delivery import deliver, guided_filter


def photograph(side: int, seed: int = 0) -> np.ndarray:
    """A bright disc on a dark ground, with grain."""
    y, x = np.mgrid[:side, :side] / side - 0.5
    disc = np.where(x**2 + y**2 < 0.09, 170.0, 60.0)[..., None]
    grain = np.random.default_rng(seed).normal(0, 3, (side, side, 3))
    return np.clip(disc + grain, 0, 255).astype(np.uint8)


def small_again(picture: np.ndarray, size: int) -> np.ndarray:
    """Means of blocks."""
    block = picture.shape[0] // size
    return picture.astype(float).reshape(size, block, size, block, 3).mean((1, 3))


def test_the_filter_is_the_one_of_its_definition():
    rng = np.random.default_rng(1)
    guide, field = rng.random((12, 12), np.float32), rng.random((12, 12, 2), np.float32)
    r, eps = 2, 0.01
    wide = np.pad(guide, r, mode="symmetric"), np.pad(field, ((r, r), (r, r), (0, 0)), mode="symmetric")
    slope, offset = np.empty((12, 12, 2)), np.empty((12, 12, 2))
    for i in range(12):
        for j in range(12):
            g = wide[0][i : i + 5, j : j + 5].ravel().astype(float)
            f = wide[1][i : i + 5, j : j + 5].reshape(-1, 2).astype(float)
            slope[i, j] = ((g[:, None] * f).mean(0) - g.mean() * f.mean(0)) / (g.var() + eps)
            offset[i, j] = f.mean(0) - slope[i, j] * g.mean()
    i, j = 6, 5  # away from the border every window that covers a pixel lies inside
    window = np.s_[i - r : i + r + 1, j - r : j + r + 1]
    expected = slope[window].mean((0, 1)) * guide[i, j] + offset[window].mean((0, 1))
    np.testing.assert_allclose(guided_filter(guide, field, r, eps)[i, j], expected, atol=1e-5)


def test_no_change_is_the_original_to_the_bit():
    original = photograph(64)
    noise = np.random.default_rng(2).normal(0, 1e-3, (16, 16, 3)).astype(np.float32)
    assert np.array_equal(deliver(original, noise * 0), original)
    assert np.array_equal(deliver(original, noise), original)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), factor=st.sampled_from([2, 4, 8]))
def test_seen_at_the_models_size_again_it_is_the_edit(seed, factor):
    size = 16
    original = photograph(size * factor, seed)
    change = np.zeros((size, size, 3), np.float32)
    change[5:11, 4:9] = np.random.default_rng(seed).uniform(-30, 30, 3)
    seen = small_again(deliver(original, change), size) - small_again(original, size)
    assert np.sqrt(((seen - change) ** 2).mean()) < 0.2 * np.sqrt((change**2).mean())


def test_grain_is_kept_and_a_far_place_is_untouched():
    original = photograph(128)
    change = np.zeros((16, 16, 3), np.float32)
    change[3:6, 3:6] = 20
    picture = deliver(original, change)
    assert np.array_equal(picture[90:], original[90:])
    inside = np.s_[32:40, 32:40]  # the middle of the change, away from its steep edge
    np.testing.assert_allclose(picture[inside].astype(float) - original[inside], 20, atol=4)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), factor=st.sampled_from([1, 2, 3.5, 8]))
def test_no_pixel_changes_further_than_the_model_drew_around_it(seed, factor):
    size, rng = 16, np.random.default_rng(seed)
    side = int(size * factor)
    original = np.clip(photograph(side, seed), 60, 190)
    change = (rng.uniform(-40, 40, (size, size, 3)) * (rng.random((size, size, 1)) < 0.2)).astype(np.float32)
    moved = deliver(original, change).astype(float) - original
    at = ((np.arange(side) + 0.5) / factor - 0.5).round().astype(int).clip(0, size - 1)
    wide = np.pad(change, ((2, 2), (2, 2), (0, 0)), mode="edge")
    blocks = np.stack([wide[i : i + size, j : j + size] for i in range(5) for j in range(5)])
    assert np.all(moved <= np.ceil(blocks.max(0))[at][:, at]) and np.all(moved >= np.floor(blocks.min(0))[at][:, at])
    assert np.all(moved[(blocks == 0).all((0, 3))[at][:, at]] == 0)


def test_a_tint_along_an_edge_follows_the_photograph():
    """The disc alone turns red; interpolation alone would bleed over its edge."""
    import cv2

    original = photograph(128)
    disc = (original[..., 0] > 115).astype(np.float32)
    change = cv2.resize(disc, (16, 16), interpolation=cv2.INTER_AREA)[..., None] * np.array([40, 0, 0], np.float32)
    plain = np.clip(original + cv2.resize(change, (128, 128), interpolation=cv2.INTER_CUBIC), 0, 255)
    wanted = disc[..., None] * np.array([40, 0, 0])
    off = [np.abs(picture.astype(float) - original - wanted).mean() for picture in (deliver(original, change), plain)]
    assert off[0] < 0.95 * off[1]


def test_a_change_larger_than_its_photograph_is_refused():
    with pytest.raises(ValueError, match="no larger"):
        deliver(photograph(16), np.zeros((32, 32, 3), np.float32))
