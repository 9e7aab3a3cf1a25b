"""Binary, ordinal and count models: Laplace by hand, the limits where they are other models, and refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf
from scipy import stats
from scipy.optimize import minimize
from statsmodels.miscmodels.ordinal_model import OrderedModel

from contrafact import seeds
from contrafact.errors import UserError
from contrafact.stats import fit, likelihood_ratio
from contrafact.stats.formula import design, parse
from contrafact.stats.laplace import LaplaceModel
from contrafact.stats.model import _likelihood

RANDOM = "(1 + x | participant) + (1 + x | image) + (1 | lab)"
CASES = [
    ("binary", "logit", f"yes ~ x + cond + {RANDOM}"),
    ("binary", "probit", f"yes ~ x + cond + {RANDOM}"),
    ("poisson", "log", f"count ~ x + cond + offset(log(exposure)) + {RANDOM}"),
    ("ordinal", "logit", f"likert ~ 0 + x + {RANDOM}"),
    ("ordinal", "probit", f"likert ~ 0 + x + {RANDOM}"),
]


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return pd.read_csv(Path(__file__).parent / "references/simulated.csv")


@pytest.mark.parametrize(("family", "link", "formula"), CASES)
def test_the_gradient_follows_the_mode(table: pd.DataFrame, family: str, link: str, formula: str) -> None:
    made = design(table, parse(formula))
    model = LaplaceModel(_likelihood(made, family, link)[0], made.x, made.factors, made.offset)
    psi = model.start()
    psi += seeds.generator(31, family, link).normal(0, 0.1, len(psi))
    steps = 1e-4 * np.eye(len(psi))
    numeric = [(model.at(psi + step).value - model.at(psi - step).value) / 2e-4 for step in steps]
    assert model.at(psi).gradient == pytest.approx(numeric, abs=1e-4, rel=1e-5)


@pytest.mark.parametrize("link", ["logit", "probit"])
def test_one_scalar_effect_is_laplace_by_hand(table: pd.DataFrame, link: str) -> None:
    # With one intercept for each level the integral splits into one-dimensional ones, written out here.
    found = fit(table, "yes ~ x + (1 | image)", family="binary", link=link)
    cdf = {"logit": stats.logistic.cdf, "probit": stats.norm.cdf}[link]
    sign, image = 2 * table["yes"].to_numpy() - 1, pd.factorize(table["image"], sort=True)[0]
    b, sd = [c.estimate for c in found.coefficients], found.random[0].sd
    fixed = b[0] + b[1] * table["x"].to_numpy()
    whole = 0.0
    for level in range(24):
        rows = image == level

        def height(u: np.ndarray, rows: np.ndarray = rows) -> float:
            return float(-np.log(cdf(sign[rows] * (fixed[rows] + sd * u[0]))).sum() + u[0] ** 2 / 2)

        mode = minimize(height, [0.0], tol=1e-10)
        eta = fixed[rows] + sd * mode.x[0]
        density = {"logit": stats.logistic.pdf, "probit": stats.norm.pdf}[link](eta)
        weight = density**2 / (cdf(eta) * cdf(-eta))  # the expected information, as lme4 has it
        whole += -mode.fun - 0.5 * np.log1p(sd**2 * weight.sum())
    assert found.loglik == pytest.approx(whole, abs=1e-5)


def test_zero_variance_is_the_plain_model(table: pd.DataFrame) -> None:
    table = table.assign(count=seeds.generator(32, "counts").poisson(2, len(table)))
    for family, formula, plain in (
        ("binary", "yes ~ x", smf.logit("yes ~ x", table).fit(disp=0)),
        ("poisson", "count ~ x", smf.poisson("count ~ x", table).fit(disp=0)),
    ):
        response = formula.split()[0]
        # Dealt out in order of the residuals, groups differ by less than chance would: their variance is zero.
        rest = (table[response] - plain.predict(table)).sort_values(kind="stable")
        even = table.loc[rest.index].assign(g=np.arange(len(table)) % 12)
        found = fit(even, f"{formula} + (1 | g)", family=family)
        assert found.singular and "zero" in found.vanished[0] and found.random[0].sd == 0
        assert [c.estimate for c in found.coefficients] == pytest.approx(plain.params.tolist(), rel=1e-4, abs=1e-5)
        assert [c.se for c in found.coefficients] == pytest.approx(plain.bse.tolist(), rel=1e-3)
        assert found.loglik == pytest.approx(plain.llf, abs=1e-4)
    even = table.sort_values(["likert", "x"]).assign(g=np.arange(len(table)) % 12)
    found = fit(even, "likert ~ x + (1 | g)", family="ordinal", link="probit")
    plain = OrderedModel(table["likert"].astype("category").cat.as_ordered(), table[["x"]], distr="probit")
    plain = plain.fit(method="bfgs", disp=0)
    assert [c.term for c in found.coefficients] == ["1|2", "2|3", "3|4", "4|5", "x"]
    assert found.coefficients[-1].estimate == pytest.approx(plain.params["x"], rel=1e-3)
    assert found.coefficients[-1].se == pytest.approx(plain.bse["x"], rel=1e-3)
    assert found.loglik == pytest.approx(plain.llf, abs=1e-3)


def test_two_categories_are_a_binary_model_with_its_sign_turned(table: pd.DataFrame) -> None:
    formula = "yes ~ x + cond + (1 | participant) + (1 | image)"
    one, two = fit(table, formula, family="binary"), fit(table, formula, family="ordinal")
    assert two.terms[0] == "0|1" and two.coefficients[0].estimate == pytest.approx(-one.coefficients[0].estimate, rel=1e-4)
    assert [c.se for c in two.coefficients] == pytest.approx([c.se for c in one.coefficients], rel=1e-3)
    assert two.loglik == pytest.approx(one.loglik, abs=1e-6)
    assert two.means("cond")[1].estimate == pytest.approx(one.means("cond")[1].estimate, rel=1e-3)


def test_trials_counted_or_spread_are_the_same(table: pd.DataFrame) -> None:
    counted = table.groupby(["participant", "cond"], as_index=False).agg(share=("yes", "mean"), size=("yes", "size"))
    one = fit(counted, "share ~ cond + (1 | participant)", family="binary", weights="size")
    two = fit(table, "yes ~ cond + (1 | participant)", family="binary")
    assert [c.estimate for c in one.coefficients] == pytest.approx([c.estimate for c in two.coefficients], rel=1e-4)
    assert one.random[0].sd == pytest.approx(two.random[0].sd, rel=1e-4)
    larger = fit(counted, "share ~ cond + (1 | participant)", family="binary", weights="size")
    smaller = fit(counted, "share ~ 1 + (1 | participant)", family="binary", weights="size")
    wald = likelihood_ratio(smaller, larger)
    assert wald.df == 2 and 0 < wald.p < 1


def test_shares_of_variance_use_the_links_own(table: pd.DataFrame) -> None:
    found = fit(table, "yes ~ x + cond + (1 | participant) + (1 | image)", family="binary")
    parts = found.r2().parts
    assert parts["residual"] == pytest.approx(np.pi**2 / 3)
    assert parts["image"] == pytest.approx(found.random[1].sd ** 2)
    glm = sm.GLM(table["yes"], sm.add_constant(table[["x"]]), family=sm.families.Binomial()).fit()
    assert 0 < found.r2().marginal < found.r2().conditional < 1 and glm.params["x"] < found.coefficients[1].estimate


@pytest.mark.parametrize(
    ("family", "formula", "told"),
    [
        ("binary", "yes ~ apart + (1 | image)", "'apart' predicts a part of 'yes' without error"),
        ("binary", "yes ~ x + island + (1 | image)", "'islandTrue' predicts"),
        ("ordinal", "likert ~ steps + (1 | image)", "'steps' predicts"),
        ("poisson", "count ~ nothing + (1 | image)", "'nothing' predicts"),
        ("binary", "likert ~ x + (1 | image)", "has 5 values, and the binary family two"),
        ("ordinal", "y ~ x + (1 | image)", "takes up to 30"),
        ("poisson", "y ~ x + (1 | image)", "must hold counts"),
        ("binary", "one ~ x + (1 | image)", "nothing to explain"),
        ("gamma", "y ~ x + (1 | image)", "The family 'gamma' is not known"),
    ],
)
def test_what_has_no_estimate_is_a_sentence(table: pd.DataFrame, family: str, formula: str, told: str) -> None:
    bad = table.assign(
        one=1,
        apart=table["yes"] * 2.0 + table["x"] * 0.1,
        island=(table["cond"] == "smile") & (table["yes"] == 1),
        steps=table["likert"] + 0.1 * np.tanh(table["x"]),
        nothing=np.where(table["count"] == 0, -1.0, 0.0) * (table["cond"] == "smile"),
    )
    with pytest.raises(UserError, match=told):
        fit(bad, formula, family=family)
