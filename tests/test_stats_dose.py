"""Statements about doses: simulated truth, hand-computed corrections, and what is said when nothing can be."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from contrafact import seeds
from contrafact.stats.dose import Test as Claim
from contrafact.stats.dose import _corrected, analyse, by_dose, written_out
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
    found = _corrected(statements, tests, {}, ())
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


def seven(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(value=np.round(1 + table["value"].clip(0, 100) * 6 / 100))


def test_seven_steps_are_tested_by_the_cumulative_logit_with_the_linear_model_beside_it() -> None:
    table = seven(ratings(seeds.generator(5, "seven"), people=16, images=12, trials=30))
    rows = table[table["arm"].isin(("treated", "sham", "null"))]
    found = by_id(analyse(rows, CLAIMS[:1], seed=1, estimators={"kind": ("ordinal", "gaussian")}))
    claim, line = found["H1"], found["linear-treated-sham-smile-kind"]
    assert claim.unit == "log-odds of a higher answer per SD of dose" and "cumulative logit" in claim.method
    assert claim.verdict is True and 5 < claim.df < len(rows)
    assert line.label == "exploratory" and line.unit == "rating points per SD of dose" and math.isnan(line.p_adjusted)
    # 6 points of 0 to 100 are .36 of a step; noise of 8 points gives a logit slope near 6 / 8 * pi / sqrt(3).
    assert line.low < 0.36 < line.high and claim.low < 6 / 8 * math.pi / math.sqrt(3) < claim.high
    assert found["paired-treated-sham-smile-kind"].unit == line.unit
    # Wald's z and Laplace's variance are the narrower: few levels cost something.
    assert claim.high - claim.low > 2 * 1.96 * claim.se * 0.999


def test_participants_nested_in_arms_have_slopes_of_their_own_in_each() -> None:
    rng = seeds.generator(6, "between")
    rows = []
    for person in range(36):
        arm, tilt, level = ("treated", "sham")[person % 2], rng.normal(0, 3), rng.normal(0, 6)
        for image in range(12):
            dose = rng.choice((-1.5, -0.75, 0.0, 0.75, 1.5))
            value = 50 + level + ((5.0 if arm == "treated" else 0.0) + tilt) * dose + rng.normal(0, 8)
            rows.append((person, image, arm if dose else "null", dose, value))
    table = pd.DataFrame(rows, columns=["participant", "image", "arm", "dose", "value"])
    table = table.assign(direction="smile", question="kind", draw=0)
    nested = analyse(table, CLAIMS[:1], seed=1, between=True)[0]
    crossed = analyse(table, CLAIMS[:1], seed=1)[0]
    assert nested.low < 5 < nested.high and nested.verdict is True
    # People differ in their sham slope too; a model that forgets it is too sure.
    assert nested.se > crossed.se and not any("several arms" in caveat for caveat in nested.caveats)
    twice = pd.concat([table, table[table["participant"] == 0].assign(arm="sham", dose=0.75)])
    assert any("1 participants saw several arms" in c for c in analyse(twice, CLAIMS[:1], seed=1, between=True)[0].caveats)


def pictures_of_trials(rng: np.random.Generator, shown: int, people: int = 20, trials: int = 40) -> pd.DataFrame:
    """One row for each picture of a trial: treated ones are worth their dose, and so is being shown first worth .8."""
    rows = []
    for person in range(people):
        for k in range(trials):
            variants = [("null", 0.0), *((arm, d) for arm in ("treated", "sham") for d in GRID)]
            own = [variants[j] for j in rng.choice(len(variants), shown, replace=False)]
            worth = [(d if arm == "treated" else 0) + 0.8 * (place == 0) for place, (arm, d) in enumerate(own)]
            # Best and worst by the probabilities of Marley and Louviere's model; of two, the best is what is chosen.
            pairs = [(i, j) for i in range(shown) for j in range(shown) if i != j]
            half = 2 if shown == 2 else 1
            odds = np.exp([(worth[i] - worth[j]) / half for i, j in pairs])
            best, worst = pairs[rng.choice(len(pairs), p=odds / odds.sum())]
            rows += [
                (person, k % 20, arm, d, place, f"{person}-{k}", place == best, place == worst, k)
                for place, (arm, d) in enumerate(own)
            ]
    columns = ["participant", "image", "arm", "dose", "place", "trial", "chosen", "worst", "position"]
    return pd.DataFrame(rows, columns=columns).assign(draw=0, direction="smile", question="kind", value=1.0)


def test_choices_follow_what_each_picture_is_worth_whatever_stands_first() -> None:
    table = pictures_of_trials(seeds.generator(7, "choices"), 2)
    how = {"kind": ("binary",)}
    found = by_id(analyse(table, CLAIMS[:1], seed=1, estimators=how))
    claim = found["H1"]
    assert claim.verdict is True and claim.low < 1.0 < claim.high and claim.unit == "log-odds of choice per SD of dose"
    assert found["even-treated-smile-kind"].low < 0 < found["even-treated-smile-kind"].high
    assert found["learning-treated-smile-kind"].low < 0 < found["learning-treated-smile-kind"].high
    signs = found["signs-treated-smile-kind"]
    assert signs.estimate > 0.8 and signs.p < 0.01 and signs.n_participants <= 20
    # Which of the two stands first changes nothing but the sign of the order effect.
    turned = analyse(table.assign(place=1 - table["place"]), CLAIMS[:1], seed=1, estimators=how, exploratory=False)[0]
    assert (turned.estimate, turned.se) == pytest.approx((claim.estimate, claim.se), rel=1e-4)


def test_of_arms_that_only_met_each_other_the_difference_alone_is_known() -> None:
    rng = seeds.generator(9, "tied")
    rows = []
    for trial in range(400):
        dose, first = rng.choice(GRID), rng.integers(2)
        won = (1.0 + 0.3 * rng.normal()) * dose + rng.logistic() > 0
        rows += [(trial % 20, trial % 16, arm, dose, place, trial, won == (arm == "treated"))
                 for arm, place in (("treated", first), ("sham", 1 - first))]  # fmt: skip
    table = pd.DataFrame(rows, columns=["participant", "image", "arm", "dose", "place", "trial", "chosen"])
    table = table.assign(draw=0, direction="smile", question="kind", value=1.0)
    claims = (CLAIMS[0], Claim("H2", "smile", "kind", "treated"))
    difference, alone = analyse(table, claims, seed=1, estimators={"kind": ("binary",)}, exploratory=False)
    assert difference.verdict is True and difference.low < 1.0 < difference.high
    assert math.isnan(alone.estimate) and alone.caveats[-1] == "the two arms were never compared with anything else"


def test_best_and_worst_are_scores_within_trials_with_the_logit_of_both_beside() -> None:
    table = pictures_of_trials(seeds.generator(8, "best worst"), 4)
    table = table.assign(value=1.0 * table["chosen"] - table["worst"], times=2.0)
    found = by_id(analyse(table, CLAIMS[:1], seed=1, estimators={"kind": ("gaussian", "binary")}))
    claim, line = found["H1"], found["logit-treated-sham-smile-kind"]
    assert claim.verdict is True and claim.unit == "best-worst score per SD of dose" and claim.n_ratings <= 800
    assert line.low < 1.0 < line.high and line.unit == "log-odds of choice per SD of dose"
    assert "learning-treated-smile-kind" in found
    # The contrasts are orthonormal: least squares on them is least squares on the pictures within trials.
    rows, formula = written_out(table, "gaussian")
    assert formula.startswith("value ~ 0 + first + treated + sham")
    within = table.assign(treated=table["dose"] * (table["arm"] == "treated"), sham=table["dose"] * (table["arm"] == "sham"))
    within = within[["treated", "sham", "value"]] - within.groupby("trial")[["treated", "sham", "value"]].transform("mean")
    columns = ["treated", "sham"]
    left, right = rows[columns].T @ rows[[*columns, "value"]], within[columns].T @ within[[*columns, "value"]]
    np.testing.assert_allclose(left, right, atol=1e-9)


def test_families_are_corrected_as_the_study_says() -> None:
    table = ratings(seeds.generator(8, "families"), people=16)
    rows = table[table["arm"].isin(("treated", "sham", "null"))]
    claims = tuple(Claim(f"H{k}", "smile", "kind", arm) for k, arm in enumerate(("treated", "treated-sham", "sham")))

    def tested(**how: tuple[str, int]) -> tuple[Statement, ...]:
        return analyse(rows, claims, seed=1, corrections=how, exploratory=False)

    holm, bh, two = tested(), tested(main=("bh", 1)), tested(main=("k-fwer", 2))
    assert all(a.p == b.p for a, b in zip(holm, bh, strict=True))
    assert bh[0].p_adjusted <= holm[0].p_adjusted and "Benjamini-Hochberg over 3" in bh[0].method
    assert two[2].p_adjusted < holm[2].p_adjusted * 1.5 + 1e-12 and "k-FWER (k = 2)" in two[0].method
    joint = tested(main=("joint", 1))
    # Signs of 20 images are flipped for all claims at once; two effects are there and one is not.
    assert "joint test of 20 images, 5000 random sign patterns" in joint[0].method
    assert joint[0].verdict is True and joint[1].verdict is True and joint[2].verdict is False
    assert joint[0].p_adjusted == pytest.approx(1 / 5000) and joint[2].p_adjusted > 0.05


def test_a_slope_that_bends_is_found_and_a_straight_one_is_left_alone() -> None:
    rng = seeds.generator(9, "bend")
    rows = ratings(rng, people=16, noise=4.0)
    rows = rows[rows["arm"].isin(("treated", "null"))]
    straight = by_id(analyse(rows, (), seed=1))["linearity-treated-smile-kind"]
    assert straight.low < 0 < straight.high and "beyond dose 0.75" in straight.method
    beyond = np.sign(rows["dose"]) * np.maximum(rows["dose"].abs() - 0.75, 0)
    bent = by_id(analyse(rows.assign(value=rows["value"] - 6 * beyond), (), seed=1))["linearity-treated-smile-kind"]
    assert bent.label == "exploratory" and bent.high < 0
    assert bent.estimate == pytest.approx(straight.estimate - 6, abs=0.5)
    two = by_id(analyse(rows[rows["dose"].abs() != 1.5], (), seed=1))["linearity-treated-smile-kind"]
    assert math.isnan(two.estimate) and "two sizes of dose" in two.caveats[-1]
