"""The mixed-model seam against exact references: ANOVA solutions, least squares, MixedLM on the whole rows."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels
import statsmodels.api as sm
from scipy import stats
from statsmodels.regression.mixed_linear_model import MixedLM, VCSpec

from contrafact import seeds
from contrafact.stats.mixed import Random, contrast, fit


def crossed(rng: np.random.Generator, rows: int = 12, columns: int = 9, repeats: int = 2) -> pd.DataFrame:
    """A balanced two-way table with random rows and columns."""
    a, b, _ = np.meshgrid(range(rows), range(columns), range(repeats), indexing="ij")
    a, b = a.ravel(), b.ravel()
    value = 10 + rng.normal(0, 3, rows)[a] + rng.normal(0, 2, columns)[b] + rng.normal(0, 1, len(a))
    return pd.DataFrame({"a": a, "b": b, "value": value})


def test_balanced_crossed_design_has_the_anova_solution() -> None:
    # In a balanced two-way design REML is the ANOVA estimator wherever that is positive (Searle et al. 1992).
    table = crossed(seeds.generator(3, "balanced"))
    found = fit(table, "value ~ 1", [Random("a"), Random("b")])
    i, j, k, grand = 12, 9, 2, table["value"].mean()
    ms_a = j * k * ((table.groupby("a")["value"].mean() - grand) ** 2).sum() / (i - 1)
    ms_b = i * k * ((table.groupby("b")["value"].mean() - grand) ** 2).sum() / (j - 1)
    rest = ((table["value"] - grand) ** 2).sum() - (i - 1) * ms_a - (j - 1) * ms_b
    ms_e = rest / (i * j * k - i - j + 1)
    assert found.converged and found.singular == ()
    assert found.sigma**2 == pytest.approx(ms_e, rel=1e-4)
    assert found.sds["Intercept | a"] ** 2 == pytest.approx((ms_a - ms_e) / (j * k), rel=1e-4)
    assert found.sds["Intercept | b"] ** 2 == pytest.approx((ms_b - ms_e) / (i * k), rel=1e-4)

    # The mean's variance is a sum of mean squares, so Satterthwaite (1946) gives its df by hand.
    parts = {i - 1: ms_a / (i * j * k), j - 1: ms_b / (i * j * k), i * j * k - i - j + 1: -ms_e / (i * j * k)}
    variance = sum(parts.values())
    mean = contrast(found, {"Intercept": 1})
    assert mean.estimate == pytest.approx(grand)
    assert mean.se**2 == pytest.approx(variance, rel=1e-4)
    assert mean.df == pytest.approx(variance**2 / sum(part**2 / df for df, part in parts.items()), rel=1e-3)


def test_balanced_slopes_are_the_one_sample_t_test() -> None:
    # Equal doses for everybody: the mixed model's test of the mean slope is the t test on individual slopes.
    rng = seeds.generator(4, "slopes")
    people, doses = 15, np.array([-1.5, -0.75, 0.0, 0.75, 1.5])
    slope = 2 + rng.normal(0, 1.5, people)
    value = rng.normal(0, 3, people)[:, None] + slope[:, None] * doses + rng.normal(0, 1, (people, 5))
    table = pd.DataFrame(
        {"person": np.repeat(np.arange(people), 5), "dose": np.tile(doses, people), "value": value.ravel()}
    )
    found = contrast(fit(table, "value ~ dose", [Random("person"), Random("person", "dose")]), {"dose": 1})
    own = value @ doses / (doses @ doses)
    reference = stats.ttest_1samp(own, 0)
    assert found.estimate == pytest.approx(own.mean())
    assert found.t == pytest.approx(reference.statistic, rel=1e-3)
    assert found.df == pytest.approx(people - 1, rel=1e-3)
    assert (found.low, found.high) == pytest.approx(tuple(reference.confidence_interval()), rel=1e-3)


def test_folding_the_rows_changes_nothing() -> None:
    # The same model on all rows by MixedLM itself, from a start close to the optimum.
    rng = seeds.generator(5, "fold")
    n = 400
    table = pd.DataFrame({"p": rng.integers(0, 20, n), "i": rng.integers(0, 15, n), "x": rng.normal(size=n)})
    table["value"] = (
        1 + 2 * table["x"] + rng.normal(0, 2, 20)[table["p"]] + rng.normal(0, 1.5, 15)[table["i"]]
        + rng.normal(0, 1, 20)[table["p"]] * table["x"] + rng.normal(0, 2, n)
    )  # fmt: skip
    found = fit(table, "value ~ x", [Random("p"), Random("p", "x"), Random("i")])
    blocks = [
        pd.get_dummies(table["p"], dtype=float).to_numpy(),
        pd.get_dummies(table["p"], dtype=float).to_numpy() * table[["x"]].to_numpy(),
        pd.get_dummies(table["i"], dtype=float).to_numpy(),
    ]
    names = [[list(map(str, range(z.shape[1])))] for z in blocks]
    spec = VCSpec(list("abc"), names, [[z] for z in blocks])
    model = MixedLM(table["value"], sm.add_constant(table[["x"]]), np.zeros(n), exog_vc=spec)
    start = np.array(list(found.sds.values())) / found.sigma
    whole = model.fit(start_params=start, method="lbfgs")
    assert found.criterion == pytest.approx(-2 * whole.llf, abs=1e-5)
    assert found.params.to_numpy() == pytest.approx(whole.fe_params.to_numpy(), rel=1e-4)
    x, sds = sm.add_constant(table[["x"]]).to_numpy(), found.sds.values()
    v = found.sigma**2 * np.eye(n) + sum(sd**2 * z @ z.T for sd, z in zip(sds, blocks, strict=True))
    assert found.cov.to_numpy() == pytest.approx(np.linalg.inv(x.T @ np.linalg.solve(v, x)), rel=1e-6)


def test_vanished_variance_is_told_and_bounds_the_df() -> None:
    rng = seeds.generator(6, "none")
    table = crossed(rng)
    table["value"] = rng.normal(0, 1, len(table)) - table.groupby("a")["b"].transform("mean")
    table["value"] -= table.groupby("a")["value"].transform("mean")  # rows cannot differ at all
    found = fit(table, "value ~ 1", [Random("a"), Random("b")])
    assert "Intercept | a" in found.singular and found.sds["Intercept | a"] == 0
    mean = contrast(found, {"Intercept": 1})
    assert mean.df <= 11 and "vanished" in mean.note


def test_refusals_name_the_mend() -> None:
    table = crossed(seeds.generator(7, "refuse"))
    few = table[table["a"] < 4]
    with pytest.raises(ValueError, match="4 levels.*at least 5 of 'a'"):
        fit(few, "value ~ 1", [Random("a"), Random("b")])
    with pytest.raises(ValueError, match="cannot be told apart"):
        fit(table.assign(x=1.0), "value ~ x", [Random("a")])
    with pytest.raises(ValueError, match="the same"):
        fit(table.assign(value=1.0), "value ~ 1", [Random("a")])
    with pytest.raises(ValueError, match="missing"):
        fit(table.assign(a=table["a"].where(table["a"] > 0)), "value ~ 1", [Random("a")])
    with pytest.raises(ValueError, match="does not fit the table"):
        fit(table.assign(value=table["value"].where(table["a"] > 0)), "value ~ 1", [Random("a")])


def test_growth_of_pigs_as_published() -> None:
    # The dietox data in statsmodels' own tests; figures of lme4 printed in statsmodels' notebook on mixed models.
    file = Path(statsmodels.__file__).parent / "regression/tests/results/dietox.csv"
    if not file.exists():
        pytest.skip("this statsmodels came without its test data")
    found = fit(pd.read_csv(file), "Weight ~ Time", [Random("Pig")])
    assert found.params.to_numpy() == pytest.approx([15.72352, 6.94251], abs=1e-4)
    assert found.sds["Intercept | Pig"] ** 2 == pytest.approx(40.394, abs=0.01)
    assert found.sigma**2 == pytest.approx(11.3669, abs=1e-3)
