"""For whom, and by which way: exploratory companions of the claims, never a claim themselves.

Heterogeneity asks whether the treated slope differs with what images are; many covariates are asked at once, so their
estimates are shrunken towards each other. Mediation asks how much of the effect on one answer goes with the effect on
another. Nobody drew covariates or answers by lot, so both are association, and say so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy import stats

from contrafact import seeds
from contrafact.stats.dose import ARMS, Prepared, prepare
from contrafact.stats.mixed import Contrast, Family, Random, contrast, fit
from contrafact.stats.statement import Statement

DRAWS = 20_000
SAME_TRIAL = ["participant", "image", "arm", "draw", "dose"]
OBSERVED = "covariates were not drawn by lot: this is association"
NOT_A_PATH = "the other answer was not drawn by lot, so a common cause of both would look the same: association, not a path"


def heterogeneity(
    table: pd.DataFrame, covariates: pd.DataFrame, family: Family, seed: int, *, between: bool = False
) -> Iterator[Statement]:
    """How much the treated slope changes per SD of each covariate of the images, one statement a covariate.

    ``table`` is one direction and question (see :mod:`contrafact.stats.dose`), ``covariates`` has a row for each image
    and a column for each covariate. All stand in one model together. ``estimate`` and interval are shrunken
    (:func:`shrunken`); ``p`` is of the unshrunken coefficient, which ``method`` gives. Images whose covariate is not known
    are left out, and counted.
    """
    ready = prepare(table, None, family, between)
    known = covariates.reindex(ready.rows["image"].unique()).dropna()
    names = [str(name) for name in covariates.columns]
    spread = known.std(ddof=0)
    varying = [name for name in names if float(spread[name]) > 0]
    lost = ready.rows["image"].nunique() - len(known)
    caveats = (OBSERVED, *([f"{lost} images without a covariate are left out"] if lost else ()))
    reason, found, method = "", {}, ""
    try:
        if "treated" not in ready.arms:
            raise ValueError(ready.reasons.get("treated", "the treated arm cannot be estimated alone"))
        z = ((known[varying] - known[varying].mean()) / spread[varying]).add_prefix("z_")
        rows = ready.rows.merge(z, left_on="image", right_index=True)
        rows = rows.assign(**{f"by_{name}": rows[f"z_{name}"] * rows["treated"] for name in varying})
        # Within a trial all pictures are of one image, so its level has no place among choices.
        terms = [f"by_{name}" for name in varying] + ([] if ready.contest else [f"z_{name}" for name in varying])
        fitted = fit(rows, " + ".join([ready.fixed, *terms]), ready.random, family=family)
        found = {name: contrast(fitted, {f"by_{name}": 1.0}) for name in varying}
        method = fitted.method
    except ValueError as error:
        reason = str(error)
    means, sds = shrunken(np.array([one.estimate for one in found.values()]), np.array([one.se for one in found.values()]))
    places = {name: k for k, name in enumerate(found)}
    for name in names:
        blank = _blank(ready, f"by-{name}-treated", table, seed, f"{ready.unit} per SD of dose and SD of {name}", caveats)
        if name not in found:
            yield replace(blank, caveats=(*caveats, reason or f"all images have the same '{name}'"))
            continue
        one, mean, sd = found[name], float(means[places[name]]), float(sds[places[name]])
        half = float(stats.norm.ppf(0.975)) * sd
        yield replace(
            blank, estimate=mean, low=mean - half, high=mean + half, p=one.p, se=sd, df=one.df,
            method=f"{method}; unshrunken {one.estimate:.3g} ({one.low:.3g} to {one.high:.3g}), shrunken among {len(found)} covariates",
        )  # fmt: skip


def shrunken(estimates: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Posterior means and SDs of effects that are draws of one normal distribution around 0.

    ``estimates`` (k,) with standard errors ``errors`` (k,). The distribution's SD has a half-normal prior, with the root
    mean square of the errors as its scale, so that one or two effects are shrunken too, and is integrated out on a grid
    (Gelman 2006, Bayesian Analysis 1(3); Efron & Morris 1975 for the mean given the SD).
    """
    if not len(estimates):
        return estimates, errors
    scale = float(np.sqrt((errors**2).mean()))
    taus = np.linspace(0, 5, 201)[:, None] * scale
    total = taus**2 + errors**2
    logs = stats.norm.logpdf(estimates, 0, np.sqrt(total)).sum(axis=1) + stats.norm.logpdf(taus[:, 0], 0, scale)
    weights = np.exp(logs - logs.max())
    weights = (weights / weights.sum())[:, None]
    kept = taus**2 / total
    means = (weights * kept * estimates).sum(axis=0)
    squares = (weights * (kept * errors**2 + (kept * estimates) ** 2)).sum(axis=0)
    return means, np.sqrt(squares - means**2)


def mediation(
    table: pd.DataFrame, through: pd.DataFrame, family: Family, seed: int, *, between: bool = False
) -> Statement:
    """How much of the slope on one answer goes with the slope on another, given in the same trials.

    ``table`` and ``through`` are one direction and two questions; ``through`` is taken as a number. The product of the
    contrast on ``through`` (treated minus sham, or treated where there is no sham) and of the answer's slope on it at equal
    dose; its interval is Monte Carlo's (MacKinnon, Lockwood & Williams 2004).
    """
    keys = [name for name in (*SAME_TRIAL, "trial") if name in table and name in through]
    joined = table.merge(through[[*keys, "value"]].rename(columns={"value": "between"}), on=keys)
    other = str(through["question"].iloc[0])
    ready = prepare(joined[joined["between"].notna()], None, family, between)
    blank = _blank(ready, f"mediated-{other}-treated", table, seed, f"{ready.unit} per SD of dose", (NOT_A_PATH,))
    try:
        if "treated" not in ready.arms:
            raise ValueError(ready.reasons.get("treated", "the treated arm cannot be estimated"))
        parts = {"treated": 1.0, **({"sham": -1.0} if "sham" in ready.arms else {})}
        centred = ready.rows.assign(between=ready.rows["between"].astype(float) - ready.rows["between"].astype(float).mean())
        first = _contrast(replace(ready, rows=centred.assign(value=centred["between"])), parts, "gaussian")
        slope = Random("participant", "between")
        second = _contrast(
            replace(ready, rows=centred, fixed=f"{ready.fixed} + between", random=(*ready.random, slope)), {"between": 1.0}, family
        )
    except ValueError as error:
        return replace(blank, caveats=(*blank.caveats, str(error)))
    rng = seeds.generator(seed, "mediation", other, str(table["question"].iloc[0]), str(table["direction"].iloc[0]))
    draws = rng.normal(first.estimate, first.se, DRAWS) * rng.normal(second.estimate, second.se, DRAWS)
    low, high = np.quantile(draws, [0.025, 0.975])
    return replace(
        blank, arm="treated-sham" if "sham" in parts else "treated", estimate=first.estimate * second.estimate,
        low=float(low), high=float(high), se=float(draws.std()),
        method=f"slope on “{other}” {first.estimate:.3g} times the slope of the answer on it {second.estimate:.3g}; Monte Carlo interval",
    )  # fmt: skip


def _contrast(ready: Prepared, parts: dict[str, float], family: Family) -> Contrast:
    return contrast(fit(ready.rows, ready.fixed, ready.random, family=family), parts)


def _blank(ready: Prepared, id: str, table: pd.DataFrame, seed: int, unit: str, caveats: tuple[str, ...]) -> Statement:
    nan, rows = float("nan"), ready.rows[ready.rows["arm"].isin((*ARMS, "null"))]
    direction, question = (str(table[name].iloc[0]) for name in ("direction", "question"))
    return Statement(
        id=f"{id}-{direction}-{question}", label="exploratory", arm="treated", estimate=nan, low=nan, high=nan, p=nan,
        p_adjusted=nan, equivalent=None, margin=nan, n_ratings=len(rows), n_participants=rows["participant"].nunique(),
        n_images=rows["image"].nunique(), unit=unit, method="not estimable", seed=seed, caveats=caveats,
        direction=direction, question=question,
    )  # fmt: skip
