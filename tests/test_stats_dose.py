"""Statements about doses: simulated truth, hand-computed corrections, and what is said when nothing can be."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from contrafact import seeds
from contrafact.stats.dose import Test as Claim
from contrafact.stats.dose import _holm, analyse, by_dose
from contrafact.stats.equivalence import tost_mean
from contrafact.stats.statement import Statement

GRID = (-1.5, -0.75, 0.75, 1.5)
CLAIMS = (
    Claim("H1", "smile", "kind", "treated-sham", alternative="greater"),
    Claim("H2", "smile", "kind", "sham", "equivalence", margin=4.0),
    Claim("H3", "smile", "kind", "placebo", "equivalence", margin=4.0),
)


def ratings(
    rng: np.random.Generator, slope: float = 6.0, even: float = 0.0, people: int = 20, images: int = 20,
    trials: int = 26, draws: int = 8, noise: float = 8.0,
) -> pd.DataFrame:  # fmt: skip
    """Ratings whose truth is known; sham and placebo move nobody but for their mark ``even``."""
    variants = [("null", 0.0), *((arm, dose) for arm in ("treated", "sham", "placebo") for dose in GRID)]
    rows = pd.DataFrame(
        [(p, (p * 7 + k) % images, *variants[rng.integers(13)]) for p in range(people) for k in range(trials)],
        columns=["participant", "image", "arm", "dose"],
    )
    p, i = rows["participant"].to_numpy(), rows["image"].to_numpy()
    treated = rows["dose"].to_numpy() * (rows["arm"] == "treated")
    rows["draw"] = np.where(rows["arm"] == "placebo", rng.integers(1, draws + 1, len(rows)), 0)
    rows["value"] = (
        50 + rng.normal(0, 6, people)[p] + rng.normal(0, 5, images)[i] + even * rows["dose"].abs()
        + (slope + rng.normal(0, 2, people)[p] + rng.normal(0, 1.5, images)[i]) * treated
        + rng.normal(0, noise, len(rows))
    )  # fmt: skip
    return rows.assign(direction="smile", question="kind")


def by_id(statements: tuple[Statement, ...]) -> dict[str, Statement]:
    return {statement.id: statement for statement in statements}


def test_planted_slope_is_found_and_sham_and_placebo_pass_equivalence() -> None:
    found = by_id(analyse(ratings(seeds.generator(1, "planted")), CLAIMS, seed=11))
    claim = found["H1"]
    assert claim.label == "registered" and claim.verdict is True and claim.equivalent is None
    assert claim.low < 6.0 < claim.high and claim.low > 0 and claim.p < claim.p_adjusted <= claim.p * 3
    assert found["H2"].equivalent is True and found["H3"].equivalent is True
    assert found["H2"].level == pytest.approx(0.9) and found["H2"].margin == 4.0
    assert (claim.n_participants, claim.n_images, claim.seed) == (20, 20, 11)
    assert claim.n_ratings < 520 and "Satterthwaite" in claim.method and claim.unit == "rating points per SD of dose"
    # What nobody registered is there, and says so.
    assert found["slope-treated-smile-kind"].label == "exploratory"
    assert math.isnan(found["slope-treated-smile-kind"].p_adjusted)
    paired = found["paired-treated-sham-smile-kind"]
    assert paired.low < 6.0 < paired.high and paired.df == 19


def test_a_mark_of_editing_is_even_and_cannot_pass_as_a_slope() -> None:
    found = by_id(analyse(ratings(seeds.generator(2, "mark"), slope=0.0, even=6.0), CLAIMS, seed=1))
    for arm in ("treated", "sham", "placebo"):
        even = found[f"even-{arm}-smile-kind"]
        assert even.component == "even" and even.low < 6.0 < even.high and even.low > 0
    assert found["H1"].verdict is False
    # The contrast takes the shared mark away.
    assert found["even-treated-sham-smile-kind"].low < 0 < found["even-treated-sham-smile-kind"].high


def test_equivalence_agrees_with_both_one_sided_tests_by_hand() -> None:
    table = ratings(seeds.generator(3, "tost"))
    tests = (Claim("E", "smile", "kind", "sham", "equivalence", margin=1.0),)
    found = analyse(table, tests, seed=1)[0]
    lower = stats.t.sf((found.estimate + 1) / found.se, found.df)
    upper = stats.t.cdf((found.estimate - 1) / found.se, found.df)
    assert found.p == pytest.approx(max(lower, upper))
    # The 90% interval inside the margin says the same as p below 0.05.
    assert found.equivalent == (found.low > -1 and found.high < 1)
    half = stats.t.ppf(0.95, found.df) * found.se
    assert (found.low, found.high) == pytest.approx((found.estimate - half, found.estimate + half))


def test_tost_of_a_mean_by_hand() -> None:
    values = np.array([0.1, -0.2, 0.05, 0.0, 0.15, -0.1, np.nan])
    found = tost_mean(values, 0.3)
    kept = values[:6]
    se = kept.std(ddof=1) / math.sqrt(6)
    assert found.n == 6 and found.estimate == pytest.approx(kept.mean())
    assert found.p_lower == pytest.approx(stats.t.sf((kept.mean() + 0.3) / se, 5))
    assert found.p_upper == pytest.approx(stats.t.cdf((kept.mean() - 0.3) / se, 5))
    assert found.p == max(found.p_lower, found.p_upper) and found.equivalent is True
    assert tost_mean(values, 0.01).equivalent is False
    nothing = tost_mean([0.2], 0.3)
    assert math.isnan(nothing.p) and nothing.equivalent is None
    with pytest.raises(ValueError, match="positive"):
        tost_mean(values, 0.0)


def test_holm_by_hand_within_each_family() -> None:
    frame = analyse(ratings(seeds.generator(4, "holm")), (), seed=1)[0]
    p = [0.01, 0.04, 0.03, 0.2, math.nan]
    tests = [Claim(f"H{k}", "smile", "kind", family="b" if k == 3 else "a") for k in range(5)]
    statements = [replace(frame, id=test.id, p=value) for test, value in zip(tests, p, strict=True)]
    found = _holm(statements, tests)
    # Family a has four members, the one that cannot be estimated among them: .01*4, .03*3, then no smaller.
    assert [s.p_adjusted for s in found[:4]] == pytest.approx([0.04, 0.09, 0.09, 0.2])
    assert math.isnan(found[4].p_adjusted) and found[4].verdict is None
    assert [s.verdict for s in found[:4]] == [True, False, False, False]


def test_what_cannot_be_estimated_is_nan_with_the_reason() -> None:
    table = ratings(seeds.generator(5, "few"))
    no_sham = by_id(analyse(table[table["arm"] != "sham"], CLAIMS, seed=1))
    assert math.isnan(no_sham["H1"].estimate) and no_sham["H1"].verdict is None
    assert "no ratings in the arm 'sham'" in no_sham["H1"].caveats
    assert no_sham["H1"].facts()["estimate"] is None
    assert no_sham["H3"].equivalent is True  # placebo does not suffer

    few = by_id(analyse(table[table["draw"] < 4], CLAIMS, seed=1))
    assert any("3 of draw" in caveat for caveat in few["H3"].caveats) and few["H1"].verdict is True

    alone = by_id(analyse(table[table["participant"] < 3], CLAIMS, seed=1))
    assert math.isnan(alone["H1"].p) and any("3 of participant" in caveat for caveat in alone["H1"].caveats)

    absent = analyse(table, (Claim("X", "frown", "kind"),), seed=1)[0]
    assert math.isnan(absent.estimate) and absent.n_ratings == 0 and absent.caveats

    one_side = by_id(analyse(table[table["dose"] >= 0], CLAIMS, seed=1))
    assert one_side["H1"].verdict is True and math.isnan(one_side["even-treated-smile-kind"].estimate)


def test_caveats_tell_what_the_table_shows() -> None:
    table = ratings(seeds.generator(6, "caveats"))
    table["value"] = table["value"].clip(0, 52)
    table["excluded"] = (table["arm"] == "treated") & (np.arange(len(table)) % 3 == 0)
    table.loc[table["arm"] == "sham", "dose"] *= 2
    found = analyse(table, CLAIMS, seed=1, bounds={"kind": (0, 52)})[0]
    said = " | ".join(found.caveats)
    for piece in ("ceiling", "differ by arm", "excluded by registered rules", "doses of 'sham'"):
        assert piece in said
    assert found.n_ratings < (table["arm"] != "placebo").sum()  # the excluded are not counted


@pytest.mark.parametrize("draws", [pytest.param(12, id="reduced"), pytest.param(300, id="full", marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
def test_coverage_and_false_positives(draws: int) -> None:
    covered = claimed = converged = 0
    for k in range(draws):
        true, null = seeds.generator(7, "coverage", k), seeds.generator(8, "false", k)
        test = (Claim("H", "smile", "kind"),)
        first = analyse(ratings(true, people=14, images=12, trials=20, draws=6), test, seed=k)[0]
        second = analyse(ratings(null, slope=0.0, people=14, images=12, trials=20, draws=6), test, seed=k)[0]
        covered += first.low < 6.0 < first.high
        claimed += second.p < 0.05
        converged += first.verdict is not None
    assert converged == draws
    # Bounds that a sound procedure leaves once in a few thousand runs.
    assert covered >= stats.binom.ppf(2e-4, draws, 0.95)
    assert claimed <= stats.binom.ppf(1 - 2e-4, draws, 0.05)


def test_means_by_dose_stand_around_the_truth() -> None:
    table = ratings(seeds.generator(9, "means"), people=30, images=25, trials=40)
    found = by_dose(table).set_index(["arm", "dose"])
    assert len(found) == 13 and found["n"].sum() == len(table)
    rise = found.loc[("treated", 1.5), "mean"] - found.loc[("treated", -1.5), "mean"]
    assert rise == pytest.approx(18, abs=4)
    assert ((found["low"] < found["mean"]) & (found["mean"] < found["high"])).all()
    # Within-design: the level of a person is no part of the interval.
    assert (found["high"] - found["low"]).max() < 12
    alone = by_dose(table[table["participant"] == 0])
    assert alone["low"].isna().all()
