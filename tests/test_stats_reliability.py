"""Reliability against published examples, and against what simulated ratings were made of."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from contrafact import seeds
from contrafact.stats import reliability as r

# Shrout & Fleiss (1979), table 2: 6 targets, 4 judges; their table 4 gives the six coefficients.
SHROUT = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]])

# Krippendorff (2011), section C: 4 observers, 12 units, with gaps.
N = math.nan
KRIPPENDORFF = np.array([
    [1, 2, 3, 3, 2, 1, 4, 1, 2, N, N, N],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, N, 3],
    [N, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, N],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, N],
]).T  # fmt: skip


def long(scores: np.ndarray) -> pd.DataFrame:
    image, participant = np.indices(scores.shape)
    return pd.DataFrame({"image": image.ravel(), "participant": participant.ravel(), "value": scores.ravel()})


def crossed(rng: np.random.Generator, units: int, people: int, sd: tuple[float, float, float]) -> np.ndarray:
    return (
        rng.normal(0, sd[0], (units, 1)) + rng.normal(0, sd[1], (1, people)) + rng.normal(0, sd[2], (units, people))
    )


def test_all_six_forms_are_those_of_shrout_and_fleiss() -> None:
    found = {one.form: one for one in r.icc(SHROUT)}
    published = {"ICC(1,1)": 0.17, "ICC(2,1)": 0.29, "ICC(3,1)": 0.71, "ICC(1,k)": 0.44, "ICC(2,k)": 0.62, "ICC(3,k)": 0.91}
    assert {form: round(one.estimate, 2) for form, one in found.items()} == published
    # Their section on ICC(2,1) works the interval out by hand; the others as printed by R's psych for this table.
    bounds = {
        "ICC(1,1)": (-0.13, 0.72), "ICC(2,1)": (0.02, 0.76), "ICC(3,1)": (0.34, 0.95),
        "ICC(1,k)": (-0.88, 0.91), "ICC(2,k)": (0.07, 0.93), "ICC(3,k)": (0.68, 0.99),
    }  # fmt: skip
    assert {form: (round(one.low, 2), round(one.high, 2)) for form, one in found.items()} == bounds
    assert (found["ICC(1,1)"].df2, found["ICC(3,1)"].df2) == (18, 15)
    assert found["ICC(3,1)"].f == pytest.approx(11.03, abs=0.01) and found["ICC(1,1)"].f == pytest.approx(1.79, abs=0.01)


def test_intervals_of_the_two_way_random_form_hold_what_they_promise() -> None:
    rng = seeds.generator(1, "icc")
    truth = 1.0 / (1 + 0.5 + 1.5)
    found = [r.icc(crossed(rng, 30, 12, (1.0, math.sqrt(0.5), math.sqrt(1.5))))[1] for _ in range(400)]
    held = np.mean([one.low <= truth <= one.high for one in found])
    assert 0.91 <= held <= 0.985


def test_tables_that_cannot_be_judged_are_told() -> None:
    assert all(math.isnan(one.estimate) and math.isnan(one.low) for one in r.icc(np.full((4, 3), 2.0)))
    with pytest.raises(ValueError, match="1 scores are missing"):
        r.icc(np.where(SHROUT == 10, np.nan, SHROUT))
    with pytest.raises(ValueError, match="at least 2 raters"):
        r.icc(SHROUT[:, :1])
    assert math.isnan(r.variance_components(long(SHROUT[:, :1])).unit)


def test_components_of_a_complete_table_give_back_the_intraclass_forms() -> None:
    forms = {one.form: one.estimate for one in r.icc(SHROUT)}
    found = r.variance_components(long(SHROUT))
    assert (found.n_units, found.n_participants, found.per_unit) == (6, 4, 4)
    assert found.relative(4) == pytest.approx(forms["ICC(3,k)"])
    assert found.absolute(1) == pytest.approx(forms["ICC(2,1)"])
    assert found.absolute(4) == pytest.approx(forms["ICC(2,k)"])


@pytest.mark.parametrize("shape", [(25, 40), (40, 25)])
def test_components_are_unbiased_with_most_cells_missing(shape: tuple[int, int]) -> None:
    rng = seeds.generator(2, "components", *shape)
    found = []
    for _ in range(300):
        table = long(crossed(rng, *shape, (2.0, 3.0, 4.0)))
        found.append(r.variance_components(table[rng.random(len(table)) < 0.3]))
    for name, truth in (("unit", 4.0), ("participant", 9.0), ("residual", 16.0)):
        values = np.array([getattr(one, name) for one in found])
        assert abs(values.mean() - truth) < 3.5 * values.std() / math.sqrt(len(values)), name


def test_components_do_not_depend_on_the_order_of_rows_or_on_missing_values() -> None:
    table = long(crossed(seeds.generator(3), 12, 9, (1, 1, 1)))
    holes = pd.concat([table, table.assign(value=np.nan)]).sample(frac=1, random_state=1)
    first, second = r.variance_components(table), r.variance_components(holes)
    assert (first.unit, first.participant, first.residual) == pytest.approx((second.unit, second.participant, second.residual))


def test_alpha_is_krippendorffs() -> None:
    published = {"nominal": 0.743, "ordinal": 0.815, "interval": 0.849, "ratio": 0.797}
    for scale, value in published.items():
        found = r.krippendorff(KRIPPENDORFF, scale, seeds.generator(1), resamples=200)  # type: ignore[arg-type]
        assert round(found.estimate, 3) == value
        assert found.low < value < found.high <= 1
    assert math.isnan(r.krippendorff(np.ones((5, 3)), "interval", seeds.generator(1)).estimate)


def test_alpha_of_agreement_at_random_is_nought_and_its_interval_holds_it() -> None:
    rng = seeds.generator(4)
    found = [
        r.krippendorff(rng.integers(1, 6, (40, 6)).astype(float), "ordinal", rng, resamples=200) for _ in range(60)
    ]
    assert abs(np.mean([one.estimate for one in found])) < 0.02
    assert np.mean([one.low <= 0 <= one.high for one in found]) > 0.83


def test_kappa_of_two_and_of_many() -> None:
    # Cohen (1960), table 1, as counts of 200: observed .70, by chance .41.
    table = np.array([[88, 14, 18], [10, 40, 10], [2, 6, 12]])
    pairs = np.array([(i, j) for i in range(3) for j in range(3) for _ in range(table[i, j])])
    found = r.kappa(pairs)
    assert found.estimate == pytest.approx((0.70 - 0.41) / 0.59, abs=1e-9)
    assert found.low < found.estimate < found.high
    # Fleiss (1971) as worked through in many texts: 10 subjects, 14 raters, 5 categories, kappa .210.
    counts = [[0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
              [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7]]  # fmt: skip
    assert round(r.kappa(np.array([np.repeat(range(5), row) for row in counts])).estimate, 3) == 0.210
    assert math.isnan(r.kappa(np.zeros((4, 2))).estimate)
    with pytest.raises(ValueError, match="complete"):
        r.kappa(KRIPPENDORFF)


def test_halves_and_repeats_find_the_reliability_that_is_there() -> None:
    rng = seeds.generator(5)
    scores = crossed(rng, 80, 40, (1.0, 2.0, 3.0))
    consistent = r.icc(scores)[-1].estimate
    assert r.split_half(long(scores), rng).estimate == pytest.approx(consistent, abs=0.01)
    again = pd.concat([long(scores + rng.normal(0, 2, scores.shape)) for _ in range(2)], ignore_index=True)
    found = r.retest(again, rng, unit="image", resamples=300)
    assert found.estimate == pytest.approx(14 / 18, abs=0.05) and found.low < found.estimate < found.high
    assert math.isnan(r.retest(long(scores), rng, unit="image").estimate)
    assert math.isnan(r.split_half(long(scores[:, :3]), rng).estimate)


def test_how_many_ratings_a_mean_needs() -> None:
    needed = r.raters_needed(0.25, 0.9)
    assert needed == pytest.approx(27) and r.spearman_brown(0.25, needed) == pytest.approx(0.9)
    assert r.raters_needed(0.0, 0.9) == math.inf
    assert (r.r2_ceiling(0.8), r.r2_ceiling(-0.1)) == (0.8, 0.0) and math.isnan(r.r2_ceiling(N))
