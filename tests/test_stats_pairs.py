"""Paired comparisons, detection and psychometric functions: published examples and planted truth."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from contrafact import seeds
from contrafact.stats.detection import two_alternatives, yes_no
from contrafact.stats.pairs import bradley_terry
from contrafact.stats.psychometric import psychometric

# Agresti (2013), table 11.10: American League 1987, wins and losses at home of the row against the column.
TEAMS = ("Milwaukee", "Detroit", "Toronto", "New York", "Boston", "Cleveland", "Baltimore")
AT_HOME = """
-   4-3 4-2 4-3 6-1 4-2 6-0
3-3 -   4-2 4-3 6-0 6-1 4-3
2-5 4-3 -   2-4 4-3 4-2 6-0
3-3 5-1 2-5 -   4-3 4-2 6-1
5-1 2-5 3-3 4-2 -   5-2 6-0
2-5 3-3 3-4 4-3 4-2 -   2-4
2-5 1-5 1-6 2-4 1-6 3-4 -
"""


def baseball() -> pd.DataFrame:
    rows = []
    for home, line in zip(TEAMS, AT_HOME.split("\n")[1:], strict=False):
        for away, cell in zip(TEAMS, line.split(), strict=True):
            if cell != "-":
                won, lost = map(int, cell.split("-"))
                rows += [(home, away, 1.0, won), (home, away, 0.0, lost)]
    return pd.DataFrame(rows, columns=["first", "second", "outcome", "n"])


def test_bradley_and_terry_of_the_1987_season_are_agrestis() -> None:
    found = bradley_terry(baseball(), order=False).coefficients.set_index("term")["estimate"]
    printed = {"Milwaukee": 1.58, "Detroit": 1.44, "Toronto": 1.29, "New York": 1.25, "Boston": 1.11, "Cleveland": 0.68}
    assert {team: round(found[team], 2) for team in printed} == printed  # against Baltimore, the first in sorted order
    home = bradley_terry(baseball()).coefficients.set_index("term").loc["order"]
    assert (round(home["estimate"], 3), round(home["se"], 2)) == (0.302, 0.13)


def test_ties_order_and_covariates_are_recovered() -> None:
    rng = seeds.generator(1, "pairs")
    x, slope, order, tie = rng.normal(size=12), 0.8, 0.4, math.log(0.6)
    first, second = rng.integers(12, size=(2, 6000))
    first, second = first[first != second], second[first != second]
    a, b = slope * x[first], slope * x[second]
    utility = np.column_stack([a + order, b, tie + (a + b) / 2]) + rng.gumbel(size=(len(first), 3))
    outcome = np.array([1.0, 0.0, 0.5])[utility.argmax(axis=1)]
    table = pd.DataFrame({"first": first, "second": second, "outcome": outcome})
    by_covariate = bradley_terry(table, covariates=pd.DataFrame({"smile": x})).coefficients
    assert by_covariate["term"].tolist() == ["smile", "order", "tie"]
    z = (by_covariate["estimate"] - [slope, order, tie]) / by_covariate["se"]
    assert z.abs().max() < 3
    # Turned round, order is the other way and abilities are the same.
    turned = bradley_terry(table.rename(columns={"first": "second", "second": "first"}).assign(outcome=1 - table["outcome"]))
    straight = bradley_terry(table)
    assert turned.loglik < straight.loglik + 1e-6
    gap = np.diff(straight.coefficients["estimate"].to_numpy()[:11]) - np.diff(slope * x[1:])
    assert np.abs(gap).max() < 0.35


def test_items_that_cannot_be_compared_are_named() -> None:
    table = pd.DataFrame([("a", "b", 1.0), ("b", "c", 1.0), ("c", "b", 1.0)], columns=["first", "second", "outcome"])
    with pytest.raises(ValueError, match="'a' never lost"):
        bradley_terry(table)
    with pytest.raises(ValueError, match="1 .the first., 0 .the second. or 0.5"):
        bradley_terry(table.assign(outcome=2.0))


def test_sensitivity_with_the_log_linear_correction() -> None:
    found = yes_no(20, 25, 5, 25)
    z = stats.norm.ppf([20.5 / 26, 5.5 / 26])
    assert found.d_prime == pytest.approx(z[0] - z[1]) and found.criterion == pytest.approx(0.0, abs=1e-12)
    perfect = yes_no(25, 25, 0, 25)
    assert math.isfinite(perfect.d_prime) and perfect.d_prime == pytest.approx(2 * stats.norm.ppf(25.5 / 26))
    assert math.isnan(yes_no(0, 0, 3, 9).d_prime)
    with pytest.raises(ValueError, match="between 0"):
        yes_no(26, 25, 0, 25)


def test_intervals_of_sensitivity_hold_the_truth() -> None:
    rng = seeds.generator(2, "detection")
    d, c = 1.2, 0.3
    h, f = stats.norm.cdf([d / 2 - c, -d / 2 - c])
    found = [yes_no(int(rng.binomial(80, h)), 80, int(rng.binomial(80, f)), 80) for _ in range(800)]
    assert 0.93 <= np.mean([one.low <= d <= one.high for one in found]) <= 0.98
    # An unbiased choice between two: d' = sqrt(2) z(share right).
    choice = two_alternatives(7600, 10000, 7600, 10000)
    assert choice.d_prime == pytest.approx(math.sqrt(2) * stats.norm.ppf(0.76), abs=1e-3) and abs(choice.criterion) < 1e-9


def test_psychometric_function_finds_what_was_planted() -> None:
    rng = seeds.generator(3, "psychometric")
    dose, n = np.linspace(-2, 2, 9), np.full(9, 300)
    p = 0.02 + 0.96 * stats.norm.cdf((dose - 0.3) / 0.7)
    found = psychometric(dose, rng.binomial(n, p), n, rng, guess=0.02, resamples=20)
    assert found.threshold == pytest.approx(0.3, abs=0.1) and found.width == pytest.approx(0.7, abs=0.12)
    forced = psychometric(dose + 2, rng.binomial(n, 0.5 + 0.48 * stats.norm.cdf((dose - 0.1) / 0.6)), n, rng, guess=0.5, resamples=60)
    assert forced.low < 2.1 < forced.high and forced.noticeable == forced.threshold
    # Least squares on probits of exact shares is an independent way to the same place.
    exact = stats.norm.cdf((dose - 0.3) / 0.7)
    found = psychometric(dose, 1e6 * exact, np.full(9, 1e6), rng, resamples=0)
    slope, start = np.polyfit(dose, stats.norm.ppf(exact), 1)
    assert (found.threshold, found.width) == (pytest.approx(-start / slope, abs=0.01), pytest.approx(1 / slope, abs=0.01))
    assert found.noticeable == pytest.approx(0.7 * stats.norm.ppf(0.75), abs=0.01)
    assert math.isnan(psychometric(dose, np.zeros(9), n, rng).threshold)
    with pytest.raises(ValueError, match="at least 3 doses"):
        psychometric([0, 1], [1, 2], [5, 5], rng)
