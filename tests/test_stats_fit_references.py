"""Every model of tests/references against the numbers that R gave; the script that made them is beside them."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats

from contrafact.stats import fit

FOLDER = Path(__file__).parent / "references"
REFERENCES = json.loads((FOLDER / "mixed_models.json").read_text())
GAUSSIAN, OTHERS = 1e-4, 1e-3
"""Relative bars for estimates and standard errors; the other families compare Laplace with Laplace."""
LOGLIK = 1e-3
DF = 0.01


def models(*, simulated: bool) -> list[Any]:
    return [
        pytest.param(model, id=model["name"])
        for model in REFERENCES["models"]
        if (model["data"] == "simulated") is simulated
    ]


def check(model: dict[str, Any], table: pd.DataFrame) -> None:
    found = fit(
        table, model["formula"], family=model["family"], link=model.get("link"), weights=model.get("weights"),
        reml=model.get("reml", True), levels=model.get("levels"),
    )  # fmt: skip
    bar = GAUSSIAN if model["family"] == "gaussian" else OTHERS
    # At the edge of the parameter space lme4 takes its second differences on one side only.
    errors = 10 * bar if found.singular and model["family"] != "gaussian" else bar
    assert found.converged
    assert found.loglik == pytest.approx(model["loglik"], abs=LOGLIK)
    assert [c.term for c in found.coefficients] == [c["term"] for c in model["coefficients"]]
    for one, other in zip(found.coefficients, model["coefficients"], strict=True):
        # An estimate near zero is compared in units of its error.
        assert one.estimate == pytest.approx(other["estimate"], rel=bar, abs=bar * other["se"])
        assert one.se == pytest.approx(other["se"], rel=errors)
        if other["df"] is None:
            assert math.isinf(one.df)
        else:
            assert one.df == pytest.approx(other["df"], rel=DF)
    random = {(r.group, r.term): r for r in found.random}
    assert len(random) == len(model["random"])
    for r in model["random"]:
        mine = random[r["group"], r["term"]]
        assert mine.sd == pytest.approx(r["sd"], rel=10 * bar)
        assert mine.corr == (() if r["corr"] is None else pytest.approx((r["corr"],), abs=10 * bar))


@pytest.mark.parametrize("model", models(simulated=True))
def test_simulated_ratings_as_in_r(model: dict[str, Any]) -> None:
    check(model, pd.read_csv(FOLDER / "simulated.csv"))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    script = FOLDER / "mixed_models.R"
    if not shutil.which("Rscript"):
        pytest.skip("the published tables come out of R's packages, and there is no R here")
    done = subprocess.run(["Rscript", script, "data", folder], check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"R could not give the published tables: {done.stderr[-200:]}")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("model", models(simulated=False))
def test_published_tables_as_in_r(model: dict[str, Any], published: Path) -> None:
    table = pd.read_csv(published / f"{model['data']}.csv")
    if model["data"] == "grouseticks":
        table["HEIGHT"] /= 100
    if model["data"] == "InstEval":
        table["service"] = table["service"].astype(str)
    check(model, table)


def test_marginal_means_and_their_differences_as_in_emmeans() -> None:
    found = fit(
        pd.read_csv(FOLDER / "simulated.csv"), "y ~ x * cond + (1 + x | participant) + (1 + x | image)"
    )
    for one, other in zip(found.means("cond"), REFERENCES["means"], strict=True):
        assert one.term == other["level"]
        assert (one.estimate, one.se) == pytest.approx((other["estimate"], other["se"]), rel=GAUSSIAN)
        assert one.df == pytest.approx(other["df"], rel=DF)
    for one, other in zip(found.differences("cond"), REFERENCES["pairs"], strict=True):
        assert one.term == other["contrast"]
        assert (one.estimate, one.se) == pytest.approx((other["estimate"], other["se"]), rel=GAUSSIAN)
        assert one.df == pytest.approx(other["df"], rel=DF)


def test_random_effects_and_their_conditional_sds_as_in_lme4() -> None:
    found = fit(
        pd.read_csv(FOLDER / "simulated.csv"), "y ~ x * cond + (1 + x | participant) + (1 + x | image)"
    )
    effects = found.random_effects().set_index(["group", "level", "term"])
    for row in REFERENCES["effects"]:
        for term, name in (("(Intercept)", "intercept"), ("x", "slope")):
            mine = effects.loc[("image", row["level"], term)]
            assert mine["effect"] == pytest.approx(row[name], abs=1e-3 * row[f"{name}_sd"])
            assert mine["sd"] == pytest.approx(row[f"{name}_sd"], rel=1e-3)
            assert mine["low"] < mine["effect"] < mine["high"]


def test_likelihood_intervals_as_in_lme4() -> None:
    found = fit(pd.read_csv(FOLDER / "simulated.csv"), "y ~ x + (1 | participant) + (1 | image)")
    expected = {row["parameter"]: (row["low"], row["high"]) for row in REFERENCES["profile"]}
    names = {
        "(Intercept)": "(Intercept)", "x": "x", "sd (Intercept) | participant": ".sig01", "sd (Intercept) | image": ".sig02",
        "sd Residual": ".sigma",
    }  # fmt: skip
    assert found.profiled == tuple(names)
    for mine, theirs in names.items():
        assert found.profile(mine) == pytest.approx(expected[theirs], rel=1e-3)


def test_likelihood_intervals_of_a_laplace_fit_agree_with_those_of_glmer() -> None:
    table = pd.read_csv(FOLDER / "simulated.csv")
    found = fit(table, "yes ~ x + (1 | participant)", family="binary")
    names = {".sig01": "sd (Intercept) | participant"}
    for row in REFERENCES["profile_binary"]:
        # confint walks in steps and interpolates between them.
        assert found.profile(names.get(row["parameter"], row["parameter"])) == pytest.approx((row["low"], row["high"]), abs=1e-3)


def test_the_interval_of_an_sd_in_a_correlated_bracket_ends_where_the_deviance_says() -> None:
    table = pd.read_csv(FOLDER / "simulated.csv")
    found = fit(table, "likert ~ x + (1 + x | participant)", family="ordinal")
    low, high = found.profile("sd x | participant")
    sd = next(row.sd for row in found.random if row.term == "x")
    assert 0 <= low < sd < high
    # A slope of the upper end, whatever else: Nelder and Mead, who know no gradient, find the same rise.
    state, rise = found.engine.state, stats.chi2.ppf(0.95, 1)
    model, length = state.model, high * state.model.scales[0][1]

    def held(free: np.ndarray) -> float:
        row = length * np.array([np.sin(free[-1]), np.cos(free[-1])])
        return model.at(np.concatenate([free[:-1], row])).value

    start = np.concatenate([state.psi[:-2], [np.arctan2(*state.psi[-2:])]])
    best = optimize.minimize(held, start, method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-4, "maxfev": 1500})
    assert best.fun - state.value == pytest.approx(rise, abs=0.02)
