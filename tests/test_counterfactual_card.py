"""Cards and gate: measures against hand-made arrays whose answers are known."""

import numpy as np
import pytest
from scipy import ndimage

from contrafact.counterfactual import card
from contrafact.counterfactual.gate import Limits, SetMeasures, reasons

DOSES = np.array([-1.5, -0.75, 0, 0.75, 1.5])
LIMITS = Limits(null_error=1e-4, leakage_sd=1.0, norm_ratio=(0.9, 1.1), realism=4.0)


def test_a_perfect_arm_scores_perfectly() -> None:
    judge = np.array([0.3, -0.4])[:, None] + DOSES
    found = card.effect(judge, judge, DOSES)
    assert (found.flip_rate, found.spearman, found.monotone) == (1, pytest.approx(1), 1)
    assert (
        found.slope == pytest.approx(1)
        and found.mae == pytest.approx(0)
        and found.symmetry == pytest.approx(0)
    )


def test_rank_alone_is_not_enough_to_look_good() -> None:
    judge = np.array([0.3, -0.4])[:, None] + 0.01 * DOSES
    found = card.effect(judge, judge, DOSES)
    assert found.spearman == pytest.approx(1)
    assert found.slope == pytest.approx(0.01) and found.flip_rate == 0


def test_a_shared_mark_shows_as_asymmetry() -> None:
    judge = DOSES + np.abs(DOSES) + np.zeros((3, 1))
    assert card.effect(judge, judge, DOSES).symmetry == pytest.approx(2)
    assert (
        card.effect(judge * 0, judge * 0, DOSES).spearman != card.effect(judge * 0, judge * 0, DOSES).spearman
    )  # NaN


def test_a_one_sided_grid_asks_only_those_it_points_away_from() -> None:
    doses = np.array([0.0, 0.5, 1.0])
    judge = np.array([[-0.6], [0.6]]) + doses
    found = card.effect(judge, judge, doses)
    assert found.flip_rate == 1  # the first flips; the second is not asked
    assert np.isnan(found.symmetry)


def test_the_slope_interval_is_a_t_interval_over_images() -> None:
    slopes = np.array([0.8, 1.0, 1.2, 1.1])
    mean, low, high = card.slope_interval(slopes[:, None] * DOSES, DOSES)
    half = 3.182446 * slopes.std(ddof=1) / 2  # t(.975, 3)
    assert (mean, low, high) == (
        pytest.approx(1.025),
        pytest.approx(1.025 - half),
        pytest.approx(1.025 + half),
    )
    assert np.isnan(card.slope_interval(slopes[:2, None] * DOSES, DOSES)[1])


def test_ssim_is_one_for_the_same_and_falls_with_noise() -> None:
    rng = np.random.default_rng(0)
    a = ndimage.gaussian_filter(rng.integers(0, 255, (4, 24, 24, 3)).astype(float), (0, 2, 2, 0)).astype(
        np.uint8
    )
    noisy = np.clip(
        a + rng.normal(scale=[[[[5]]], [[[10]]], [[[20]]], [[[40]]]], size=a.shape), 0, 255
    ).astype(np.uint8)
    np.testing.assert_allclose(card.ssim(a, a), 1)
    values = card.ssim(a, noisy)
    assert np.all(np.diff(values) < 0) and values[0] < 1
    np.testing.assert_allclose(card.l1(a[:1], np.clip(a[:1].astype(int) + 0, 0, 255).astype(np.uint8)), 0)


def test_realism_counts_in_the_real_images_own_distances() -> None:
    rng = np.random.default_rng(1)
    real = rng.normal(size=(400, 6))
    assert abs(card.realism(rng.normal(size=(200, 6)), real).mean()) < 0.5
    assert card.realism(np.full((1, 6), 6.0), real)[0] > 6


def test_the_detector_finds_a_planted_mark_and_nothing_where_there_is_none() -> None:
    rng = np.random.default_rng(2)
    base = rng.integers(60, 200, (40, 16, 16, 3)).astype(np.uint8)
    null = card.mark(base)
    smooth = ndimage.gaussian_filter(base.astype(float), (0, 0.6, 0.6, 0)).astype(np.uint8)
    auc, score = card.artefact_auc(np.stack([card.mark(smooth)] * 2, 1), null)
    assert auc > 0.95 and score.shape == (40, 2)
    again = card.mark(rng.integers(60, 200, (40, 16, 16, 3)).astype(np.uint8))
    assert 0.3 < card.artefact_auc(again[:, None], null)[0] < 0.7
    assert np.isnan(card.artefact_auc(again[:4, None], null[:4])[0])


def measures(**changed: object) -> SetMeasures:
    good = {
        "null_error": 0.0, "leakage": {"skin": np.array([0.1, -0.2])},
        "norm_ratio": np.array([1.0, 1.05]), "realism": np.array([0.1, 2.0]),
    }  # fmt: skip
    return SetMeasures(**{**good, **changed})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"null_error": 2e-4}, "null_error"),
        ({"leakage": {"skin": np.array([0.1, -1.2])}}, "leakage_skin"),
        ({"norm_ratio": np.array([1.0, 1.2])}, "norm_ratio"),
        ({"realism": np.array([0.1, 4.5])}, "realism"),
    ],
)
def test_each_rule_of_the_gate_stops_a_set_by_itself(changed: dict[str, object], reason: str) -> None:
    assert reasons(measures(), LIMITS) == ()
    assert reasons(measures(**changed), LIMITS) == (reason,)


def test_what_is_not_estimable_stops_nothing() -> None:
    assert reasons(measures(leakage={"skin": np.array([np.nan])}, norm_ratio=np.empty(0)), LIMITS) == ()
