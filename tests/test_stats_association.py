"""Observational companions, against brute force and planted truth."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf

from contrafact import seeds
from contrafact.stats.association import compare_auc, incremental_r2, two_way


def test_delong_is_the_covariance_of_its_placements_counted_one_by_one() -> None:
    rng = seeds.generator(1, "delong")
    y = rng.random(60) < 0.4
    scores = np.round(rng.normal(size=(2, 60)) + 0.8 * y, 1)  # with ties
    first, second, difference = compare_auc(y.astype(float), *scores)
    wins = (scores[:, y][:, :, None] > scores[:, ~y][:, None]) + 0.5 * (scores[:, y][:, :, None] == scores[:, ~y][:, None])
    auc = wins.mean(axis=(1, 2))
    assert (first.estimate, second.estimate) == (pytest.approx(auc[0]), pytest.approx(auc[1]))
    cov = np.cov(wins.mean(axis=2)) / y.sum() + np.cov(wins.mean(axis=1)) / (~y).sum()
    se = math.sqrt(cov[0, 0] + cov[1, 1] - 2 * cov[0, 1])
    assert difference.high - difference.low == pytest.approx(2 * 1.959964 * se, rel=1e-5)
    assert {one.label for one in (first, second, difference)} == {"association"}
    assert math.isnan(compare_auc([1, 0, 0], [1, 2, 3], [1, 2, 3])[0].estimate)


def test_delong_claims_no_difference_too_often_only_by_chance() -> None:
    rng = seeds.generator(2, "delong")
    found = []
    for _ in range(300):
        y = (rng.random(120) < 0.5).astype(float)
        shared = rng.normal(size=120) + y
        found.append(compare_auc(y, shared + rng.normal(size=120), shared + rng.normal(size=120))[2].p < 0.05)
    assert 0.02 <= np.mean(found) <= 0.09


def test_blocks_add_what_they_explain() -> None:
    rng = seeds.generator(3, "blocks")
    unit = np.repeat(np.arange(80), 3)
    known, face, noise = rng.normal(size=80)[unit], rng.normal(size=240), rng.normal(size=240)
    table = pd.DataFrame({"unit": unit, "known": known, "face": face, "noise": noise})
    table["y"] = known + 0.7 * face + rng.normal(size=240)
    blocks = {"known": ["known"], "image": ["face"], "noise": ["noise"]}
    found = {one.name: one for one in incremental_r2(table, "y", blocks, "unit", rng, resamples=300)}
    plain = smf.ols("y ~ known + face + noise", table).fit()
    assert found["all blocks"].estimate == pytest.approx(plain.rsquared_adj)
    assert sum(found[name].estimate for name in blocks) == pytest.approx(plain.rsquared_adj)
    assert found["image"].low > 0.05 and found["noise"].low < 0.01 < found["known"].low
    assert found["known"].high - found["known"].low > found["noise"].high - found["noise"].low
    nothing = incremental_r2(table.assign(y=1.0), "y", blocks, "unit", rng, resamples=5)
    assert all(math.isnan(one.estimate) for one in nothing)


def test_two_way_clusters_are_those_of_cameron_gelbach_and_miller() -> None:
    rng = seeds.generator(4, "clusters")
    person, image = (part.ravel() for part in np.indices((15, 20)))
    x = rng.normal(size=20)[image]
    table = pd.DataFrame({"person": person, "image": image, "x": x})
    table["y"] = 0.3 * x + rng.normal(size=15)[person] + rng.normal(size=20)[image] + rng.normal(size=300)
    table.loc[7, "y"] = np.nan
    slope = {one.name: one for one in two_way(table, "y ~ x", ("person", "image"))}["x"]
    kept = table.dropna()
    design = np.column_stack([np.ones(len(kept)), kept["x"]])
    bread = np.linalg.inv(design.T @ design)
    rest = kept["y"].to_numpy() - design @ (bread @ design.T @ kept["y"].to_numpy())
    variance = 0.0
    for sign, keys in ((1, ["person"]), (1, ["image"]), (-1, ["person", "image"])):
        sums = pd.DataFrame(design * rest[:, None]).groupby([kept[key].to_numpy() for key in keys]).sum().to_numpy()
        n, k, g = len(kept), 2, len(sums)
        variance += sign * (bread @ sums.T @ sums @ bread)[1, 1] * (g / (g - 1)) * ((n - 1) / (n - k))
    assert (slope.high - slope.low) / 2 / 2.144787 == pytest.approx(math.sqrt(variance), rel=0.02)
    assert slope.n == 299 and "t(14)" in slope.method
    naive = smf.ols("y ~ x", table).fit().bse["x"]
    assert slope.high - slope.low > 2 * 2 * naive
    with pytest.raises(ValueError, match="at least two"):
        two_way(kept[kept["person"] == 1], "y ~ x", ("person", "image"))
