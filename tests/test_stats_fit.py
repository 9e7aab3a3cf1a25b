"""`fit` as its users meet it: what cannot matter does not, what cannot be is said in a sentence."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from hypothesis import given, settings
from hypothesis import strategies as st

from contrafact import cli, seeds
from contrafact.errors import UserError
from contrafact.stats import fit, likelihood_ratio
from contrafact.stats.formula import parse

SIMULATED = Path(__file__).parent / "references/simulated.csv"
SLOPES = "y ~ x * cond + (1 + x | participant) + (1 | image)"


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return pd.read_csv(SIMULATED)


def small(seed: int, sd: float = 1.0) -> pd.DataFrame:
    rng = seeds.generator(seed, "small")
    p, i = np.divmod(np.arange(96), 8)
    x = rng.normal(size=96)
    y = 3 + x + sd * (rng.normal(0, 1, 12)[p] + rng.normal(0, 1, 8)[i]) + rng.normal(0, 1, 96)
    return pd.DataFrame({"y": y, "x": x, "p": [f"p{k}" for k in p], "i": [f"i{k}" for k in i]})


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**31), a=st.floats(0.01, 100), b=st.floats(-1000, 1000), c=st.floats(0.01, 100))
def test_row_order_level_names_and_units_do_not_matter(seed: int, a: float, b: float, c: float) -> None:
    first = small(seed)
    formula = "y ~ x + (1 + x | p) + (1 | i)"
    one = fit(first, formula)
    names = {name: f"z{k}" for k, name in enumerate(sorted(first["p"].unique(), reverse=True))}
    other = fit(
        first.sample(frac=1, random_state=seed % 1000).assign(
            y=lambda t: a * t["y"] + b, x=lambda t: t["x"] / c, p=lambda t: t["p"].map(names)
        ),
        formula,
    )
    assert other.converged and one.converged
    assert other.criterion == pytest.approx(one.criterion + 2 * (95 - 1) * math.log(a) - 2 * math.log(c), abs=1e-5)
    slope, scaled = one.coefficients[1], other.coefficients[1]
    assert (scaled.estimate, scaled.se) == pytest.approx((a * c * slope.estimate, a * c * slope.se), rel=1e-3)
    assert other.coefficients[0].estimate == pytest.approx(a * one.coefficients[0].estimate + b, rel=1e-4, abs=1e-4 * a)
    for mine, theirs in zip(one.random, other.random, strict=True):
        unit = a * c if mine.term == "x" else a
        assert theirs.sd == pytest.approx(unit * mine.sd, rel=1e-2, abs=1e-3 * unit)


def test_zero_variance_is_least_squares() -> None:
    rng = seeds.generator(3, "flat")
    first = small(1).assign(y=rng.normal(size=96))
    first["y"] -= first.groupby("p")["y"].transform("mean")
    first["y"] -= first.groupby("i")["y"].transform("mean")
    found = fit(first, "y ~ x + (1 | p) + (1 | i)")
    assert found.singular and len(found.vanished) == 2 and "(Intercept) by p is zero" in found.vanished[0]
    plain = smf.ols("y ~ x", first).fit()
    assert [c.estimate for c in found.coefficients] == pytest.approx(plain.params.tolist(), rel=1e-6)
    assert [c.se for c in found.coefficients] == pytest.approx(plain.bse.tolist(), rel=1e-6)
    assert [c.df for c in found.coefficients] == pytest.approx([94, 94], rel=1e-3)


def test_a_perfect_correlation_is_told(table: pd.DataFrame) -> None:
    rng = seeds.generator(8, "tied")
    person = rng.normal(size=36)[pd.factorize(table["participant"])[0]]
    tied = table.assign(y=person * (2 + table["x"]) + 0.5 * rng.normal(size=len(table)))
    found = fit(tied, "y ~ x + (1 + x | participant)")
    corr = found.random[1].corr[0]
    assert corr > 0.98
    assert found.singular is (corr == pytest.approx(1, abs=1e-6))


def test_summary_facts_and_picture_say_the_same(table: pd.DataFrame) -> None:
    holes = table.assign(x=table["x"].where(table.index > 4))
    found = fit(holes, SLOPES, levels={"cond": ["plain", "frown", "smile"]})
    facts = json.loads(json.dumps(found.facts(), allow_nan=False))
    assert facts["dropped"] == 5 and facts["n"] == 715 and facts["groups"] == {"participant": 36, "image": 24}
    assert [c["term"] for c in facts["coefficients"]][2:4] == ["condfrown", "condsmile"]
    assert facts["random"][1]["corr"] == found.random[1].corr[0] and facts["random"][0]["corr"] is None
    said = found.summary()
    assert "5 left out" in said and f"{found.coefficients[1].estimate:.4g}" in said and "converged" in said
    figure = found.picture()
    assert [axis.get_title() for axis in figure.axes] == [
        "fixed effects, 95%", "(Intercept) | participant", "x | participant", "(Intercept) | image",
    ]  # fmt: skip


def test_contrasts_are_sums_of_coefficients(table: pd.DataFrame) -> None:
    found = fit(table, SLOPES)
    both = found.contrast({"x": 1, "x:condsmile": 1})
    other = fit(table, SLOPES, levels={"cond": ["smile", "plain", "frown"]}).coefficients[1]
    assert (both.estimate, both.se, both.df) == pytest.approx((other.estimate, other.se, other.df), rel=1e-3)
    with pytest.raises(UserError, match="Did you mean 'x:condsmile'"):
        found.contrast({"x:condsmle": 1})


def test_likelihood_ratio_refits_by_likelihood(table: pd.DataFrame) -> None:
    with_it, without = fit(table, SLOPES), fit(table, "y ~ x + cond + (1 + x | participant) + (1 | image)")
    found = likelihood_ratio(without, with_it)
    by_hand = [fit(table, m.formula, reml=False).criterion for m in (without, with_it)]
    assert found.df == 2 and found.statistic == pytest.approx(by_hand[0] - by_hand[1], abs=1e-6) and not found.note
    assert "edge" in likelihood_ratio(fit(table, "y ~ x * cond + (1 | participant)"), with_it).note
    with pytest.raises(UserError, match="more parameters"):
        likelihood_ratio(with_it, without)
    with pytest.raises(UserError, match="no special case"):
        likelihood_ratio(fit(table, "y ~ I(x^2) + (1 | participant)"), with_it)


def test_a_curve_is_a_curve_whatever_its_columns_are_called(table: pd.DataFrame) -> None:
    """poly and bs span what powers and hinges do."""
    curve, powers = fit(table, "y ~ poly(x, 2) + (1 | participant)"), fit(table, "y ~ x + I(x^2) + (1 | participant)")
    eta = [one.design.x @ np.array([c.estimate for c in one.coefficients]) for one in (curve, powers)]
    np.testing.assert_allclose(*eta, atol=1e-5)
    assert fit(table, "y ~ bs(x, df=4) + (1 | participant)").terms[1] == "bs(x, df=4)1"
    assert parse("log(`a b`) ~ C(k, levels=['u', \"v\"]) * bs(dose, df=4) + I(x == 1e5) + (1 + poly(z, 2) | p/q)").columns == (
        "a b", "dose", "k", "x", "z", "p", "q",
    )  # fmt: skip


def test_people_who_always_answer_alike_and_columns_of_one_name_are_told(table: pd.DataFrame, tmp_path: Path) -> None:
    alike = table.assign(y=(pd.factorize(table["participant"])[0] % 2).astype(int))
    told = fit(alike, "y ~ x + (1 | participant)", family="binary").notes
    assert any("answer always alike" in note for note in told)
    with pytest.raises(UserError, match="two columns 'x'"):
        fit(pd.concat([table, table[["x"]]], axis=1), "y ~ x + (1 | participant)")
    path = tmp_path / "twice.csv"
    path.write_text("y,x,x,participant\n1,2,3,a\n")
    with pytest.raises(SystemExit, match="2"):
        cli.main(["fit", str(path), "--formula", "y ~ x + (1 | participant)"])


def test_shares_of_variance_are_the_planted_ones() -> None:
    rng = seeds.generator(5, "shares")
    p, i = rng.integers(0, 200, 20_000), rng.integers(0, 150, 20_000)
    x = rng.normal(size=20_000)
    y = 2 * x + rng.normal(0, 1, 200)[p] + rng.normal(0, 2, 150)[i] + rng.normal(0, 1, 20_000)
    found = fit(pd.DataFrame({"y": y, "x": x, "p": p, "i": i}), "y ~ x + (1 | p) + (1 | i)").r2()
    assert found.marginal == pytest.approx(0.4, abs=0.05) and found.conditional == pytest.approx(0.9, abs=0.02)
    assert found.parts["i"] == pytest.approx(4, rel=0.3) and found.parts["residual"] == pytest.approx(1, rel=0.05)


def test_a_formula_is_taken_apart() -> None:
    found = parse("log(y) ~ x * cond + I(x^2) + offset(o) + (1 + x || lab/participant) + (1 | image:cond)")
    assert found.response == "log(y)" and found.offsets == ("o",) and found.fixed == "x * cond + I(x**2)"
    assert [(bar.left, bar.group) for bar in found.bars] == [
        ("1", "lab"), ("0 + x", "lab"), ("1", "participant:lab"), ("0 + x", "participant:lab"), ("1", "image:cond"),
    ]  # fmt: skip
    assert set(found.columns) == {"y", "x", "cond", "o", "lab", "participant", "image"}


@pytest.mark.parametrize(
    ("formula", "told"),
    [
        ("y x", "needs one '~'"),
        ("y ~ x", "no random effect"),
        ("y ~ x + (1 | participant", "do not close"),
        ("y ~ x + + (1 | participant)", "missing beside"),
        ("y ~ x + (1 | partcipant)", "Did you mean 'participant'"),
        ("y ~ open('x') + (1 | participant)", "calls 'open'"),
        ("y ~ x.__class__ + (1 | participant)", "more than terms"),
        ("y ~ (lambda: x)() + (1 | participant)", "more than terms"),
        ("y ~ log(x) + (1 | participant)", "not a finite number"),
        ("y ~ x + I(2 * x) + (1 | participant)", "sum of the other"),
        ("y ~ one + (1 | participant)", "one value only"),
        ("y ~ x + (1 + one | participant)", "one value only"),
        ("y ~ infinite + (1 | participant)", "infinite"),
        ("y ~ huge + (1 | participant)", "beyond what can be squared"),
        ("y ~ tiny + (1 | participant)", "beyond what can be squared"),
        ("y ~ empty + (1 | participant)", "No row"),
        ("one ~ x + (1 | participant)", "nothing to explain"),
        ("cond ~ x + (1 | participant)", "must be a number"),
        ("y ~ x + (1 | one)", "one level only"),
        ("y ~ x + (1 + x | cond)", "too few for a random slope.*Plan at least 5"),
        ("y ~ x + (1 | row)", "cannot be told from the residual"),
        ("y ~ x + (1 | image) + (1 + x | image)", "stands twice"),
        ("y ~ x + (1 | log(image))", "columns joined"),
        ("I(2 * x) ~ x + (1 | image)", "explain every value exactly"),
    ],
)
def test_what_cannot_be_fitted_is_a_sentence(table: pd.DataFrame, formula: str, told: str) -> None:
    bad = table.assign(
        one=1.0, row=np.arange(len(table)), empty=np.nan, infinite=table["x"].where(table.index > 0, np.inf), huge=table["x"] * 1e200,
        tiny=table["x"] * 1e-200,
    )  # fmt: skip
    with np.errstate(all="ignore"), pytest.raises(UserError, match=told):
        fit(bad, formula)


def test_the_verb_reads_csv_and_parquet(
    table: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table.to_parquet(tmp_path / "ratings.parquet")
    answers = []
    for file in (SIMULATED, tmp_path / "ratings.parquet"):
        with pytest.raises(SystemExit) as left:
            cli.main(["fit", str(file), "--formula", SLOPES, "--levels", "cond=plain,smile,frown", "--json"])
        assert left.value.code == 0
        answers.append(json.loads(capsys.readouterr().out.splitlines()[-1]))
    assert answers[0] == answers[1]
    assert set(answers[0]["coefficients"][0]) == {"term", "estimate", "se", "df", "statistic", "p", "low", "high"}
    arms = table.assign(cond=table["cond"].replace("plain", "null"))
    arms.to_csv(tmp_path / "arms.csv", index=False)
    with pytest.raises(SystemExit):
        cli.main(["fit", str(tmp_path / "arms.csv"), "--formula", SLOPES, "--json"])
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["dropped"] == 0 and told["coefficients"][2]["term"] == "condnull"
    (tmp_path / "broken.parquet").write_bytes(b"no table")
    with pytest.raises(SystemExit) as left:
        cli.main(["fit", str(tmp_path / "broken.parquet"), "--formula", SLOPES])
    assert left.value.code == 2 and "cannot be read" in capsys.readouterr().err


def test_the_bootstrap_agrees_with_the_standard_errors() -> None:
    first = small(4)
    found = fit(first, "y ~ x + (1 | p) + (1 | i)")
    drawn = found.bootstrap(60, seed=1)
    assert drawn.equals(found.bootstrap(60, seed=1)) and drawn["draws"].min() > 55
    assert drawn["term"].tolist()[-3:] == ["sd (Intercept) | p", "sd (Intercept) | i", "sd Residual"]
    ratio = drawn["se"].to_numpy()[:2] / [c.se for c in found.coefficients]
    assert ((ratio > 0.7) & (ratio < 1.4)).all()  # 60 draws know an SD to a tenth
    assert ((drawn["low"] < drawn["estimate"]) & (drawn["estimate"] < drawn["high"])).all()


def test_models_without_fixed_effects_or_with_the_mean_alone() -> None:
    first = small(5)
    alone = fit(first, "y ~ 0 + (1 | p)")
    assert alone.terms == () and alone.converged and alone.summary()
    low, high = fit(first, "y ~ 1 + (1 | p)").profile("(Intercept)")
    assert low < first["y"].mean() < high


def test_the_interval_of_a_variance_that_may_be_zero_begins_there() -> None:
    rng = np.random.default_rng(6)
    table = pd.DataFrame({"g": np.repeat(np.arange(8), 6), "y": rng.normal(size=48)})
    low, high = fit(table, "y ~ 1 + (1 | g)").profile("sd (Intercept) | g")
    assert low == 0 and 0 < high < 1.5
    with pytest.raises(UserError, match=r"'sd g' has no likelihood interval; these have: \(Intercept\)"):
        fit(table, "y ~ 1 + (1 | g)").profile("sd g")


def test_the_verb_adds_what_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fit", str(SIMULATED), "--formula", "y ~ x + cond + (1 | participant)"]
    more = ["--contrast", "condplain=1,condsmile=-1", "--means", "cond", "--against", "y ~ x + (1 | participant)"]
    with pytest.raises(SystemExit) as left:
        cli.main([*words, *more, "--profile", "--bootstrap", "5", "--json"])
    assert left.value.code == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    (contrast,) = told["contrasts"]
    named = {row["term"]: row for row in told["coefficients"]}
    assert contrast["estimate"] == pytest.approx(named["condplain"]["estimate"] - named["condsmile"]["estimate"])
    assert [row["term"] for row in told["means"]] == ["frown", "plain", "smile"] and len(told["differences"]) == 3
    assert told["likelihood_ratio"]["df"] == 2 and 0 < told["likelihood_ratio"]["p"] < 1
    ends = {row["term"]: (row["low"], row["high"]) for row in told["profile"]}
    assert set(ends) == {*named, "sd (Intercept) | participant", "sd Residual"}
    assert ends["x"][0] < named["x"]["estimate"] < ends["x"][1]
    assert {row["draws"] for row in told["bootstrap"]} == {5}
    with pytest.raises(SystemExit) as left:
        cli.main([*words, *more])
    assert left.value.code == 0 and "Likelihood ratio" in capsys.readouterr().out
    with pytest.raises(SystemExit) as left:
        cli.main([*words, "--contrast", "x"])
    assert left.value.code == 2 and "dose=1,dose:armsham=-1" in capsys.readouterr().err
