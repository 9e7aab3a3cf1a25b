"""The card of a set against closed forms and planted truths."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import linalg

from contrafact.counterfactual import set_card


def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def test_frechet_is_that_of_the_covariances_and_of_known_gaussians() -> None:
    a, b = rng().normal(size=(60, 5)) @ np.diag([1, 2, 1, 0.5, 1]), 0.5 + rng().normal(size=(80, 5))
    root = linalg.sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root)
    assert set_card.frechet(a, b) == pytest.approx(expected, rel=1e-6)
    wide = rng().normal(size=(30, 200))
    assert set_card.frechet(wide, wide) == pytest.approx(0, abs=1e-8), "fewer pictures than features"
    assert set_card.frechet(wide, wide + 0.1) == pytest.approx(200 * 0.01)


def test_the_kernel_distance_is_unbiased() -> None:
    draws = rng()
    same = [set_card.kid(draws.normal(size=(20, 4)), draws.normal(size=(20, 4))) for _ in range(400)]
    assert abs(np.mean(same)) < 4 * np.std(same) / 20
    assert set_card.kid(draws.normal(size=(50, 4)), 1 + draws.normal(size=(50, 4))) > 1


def test_precision_and_recall_tell_the_two_ways_to_fail() -> None:
    draws = rng()
    real = np.concatenate([draws.normal(size=(100, 2)), 20 + draws.normal(size=(100, 2))])
    half = draws.normal(size=(200, 2)) * 0.5
    precision, recall = set_card.precision_recall(half, real)
    assert precision > 0.9 and recall < 0.55, "one of two kinds of picture: real, but not all of it"
    precision, _ = set_card.precision_recall(half + 200, real)
    assert precision == 0


def test_likeness_stands_beside_its_floor() -> None:
    draws = rng()
    real = draws.normal(size=(200, 6))
    alike = set_card.likeness(draws.normal(size=(60, 6)), real, rng())
    assert alike.frechet < 1.5 * alike.frechet_floor and abs(alike.kid) < 0.2
    off = set_card.likeness(1 + draws.normal(size=(60, 6)), real, rng())
    assert off.frechet > 5 * off.frechet_floor and off.kid > 5 * abs(off.kid_floor)
    assert np.isnan(set_card.likeness(real[:5], real, rng()).frechet)


def test_the_edit_detector_looks_for_more_than_editing_leaves() -> None:
    draws = rng()
    raw = draws.normal(size=(60, 4))
    trace = np.array([1.5, 0, 0, 0])
    sham = draws.normal(size=(60, 2, 4)) + trace
    assert set_card.edit_auc(raw, sham, draws.normal(size=(60, 2, 4)) + trace) == pytest.approx(0.5, abs=0.1)
    assert set_card.edit_auc(raw, sham, draws.normal(size=(60, 2, 4)) + 2.5 * trace) > 0.9
    assert set_card.edit_auc(raw, sham, draws.normal(size=(60, 2, 4))) < 0.25, "less than editing leaves"
    assert np.isnan(set_card.edit_auc(raw[:5], sham[:5], sham[:5]))


def test_locality_and_minimality() -> None:
    source = np.full((2, 10, 10, 3), 100, np.uint8)
    edited = source.copy()
    edited[0, 2:4, 2:7] = 150
    assert set_card.locality(edited, source)[0] == pytest.approx(0.09)
    assert np.isnan(set_card.locality(edited, source)[1])
    assert set_card.locality(source + 9, source) == pytest.approx([0.9, 0.9])
    assert set_card.minimality(np.array([0.01, 0.02]), np.array([-1.0, 0.5])) == pytest.approx(0.02)
    assert np.isnan(set_card.minimality(np.array([0.01]), np.array([0.0])))


def test_leakage_is_corrected_for_what_the_probe_does_not_know() -> None:
    assert set_card.corrected(0.1, 0.25) == pytest.approx(0.2)
    assert np.isnan(set_card.corrected(0.1, -0.2))
