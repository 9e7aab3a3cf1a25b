"""Mixed models with independent crossed random effects: the seam between a registered claim and its engine.

The linear model is that of Laird & Ware (1982), ``y = X b + sum_k Z_k u_k + e`` with ``u_k ~ N(0, s_k^2 I)`` and
``e ~ N(0, s^2 I)``: independent variance components, crossed or nested as the tables have it, fitted by
:mod:`contrafact.stats.linear`. Choices and ordered answers have the same predictor behind a logit, fitted by
:mod:`contrafact.stats.laplace`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import formulaic
import numpy as np
import pandas as pd
from formulaic.errors import FormulaicError
from scipy import stats

from contrafact.errors import UserError
from contrafact.stats.crossproducts import Factor
from contrafact.stats.families import Binary, Likelihood, Ordinal, separating
from contrafact.stats.laplace import LaplaceFit, LaplaceModel
from contrafact.stats.linear import LinearFit, LinearModel

Family = Literal["gaussian", "ordinal", "binary"]
MIN_LEVELS = 5
"""Below five levels a variance component is hardly more than a guess."""


@dataclass(frozen=True)
class Random:
    """A random term: an intercept for each level of column ``group``, or a slope on column ``slope``.

    Levels whose rows all have slope 0 say nothing about it and are not counted.
    """

    group: str
    slope: str | None = None

    @property
    def name(self) -> str:
        return f"{self.slope or 'Intercept'} | {self.group}"


@dataclass(frozen=True)
class MixedFit:
    """A fitted model.

    ``params`` and ``cov`` are those of the fixed effects; ``sds`` the standard deviation of each random term in
    the unit of y per unit of its slope; ``sigma`` the residual SD; ``singular`` names the terms whose variance
    vanished (they stay in the model, at zero); ``levels`` counts the levels of each term; ``engine`` is what
    Satterthwaite's degrees of freedom are made of.
    """

    params: pd.Series
    cov: pd.DataFrame
    sds: dict[str, float]
    sigma: float
    converged: bool
    singular: tuple[str, ...]
    n: int
    levels: dict[str, int]
    criterion: float
    method: str
    engine: LinearFit | LaplaceFit
    random: tuple[Random, ...]
    family: Family = "gaussian"
    formula: str = ""


@dataclass(frozen=True)
class Contrast:
    """A linear combination of fixed effects; ``p`` is two-sided unless an alternative was asked for."""

    estimate: float
    se: float
    df: float
    t: float
    p: float
    low: float
    high: float
    note: str = ""


def fit(
    table: pd.DataFrame, fixed: str, random: Sequence[Random], *, reml: bool = True, family: Family = "gaussian"
) -> MixedFit:
    """Fit ``fixed`` (a formula, response included) with the crossed terms ``random``.

    ``ordinal`` takes the response's values in their order and puts cutpoints, named ``1|2``, before the fixed
    effects; ``binary`` takes 0 and 1. Both have the logit link and Laplace's likelihood. Rows with a missing value
    in any column used are an error, not dropped in silence.

    Raises:
        ValueError: too few levels for a term, missing values, fixed effects that cannot be told apart, a response
            without variance, or separation; the sentence says what would mend it.
    """
    used = [name for term in random for name in (term.group, term.slope) if name]
    missing = [name for name in dict.fromkeys(used) if table[name].isna().any()]
    if missing:
        raise ValueError(f"column '{missing[0]}' has missing values; leave those rows out and count them")
    try:
        response, design = formulaic.model_matrix(fixed, table, context={}, na_action="raise")
    except (FormulaicError, ValueError) as error:
        raise ValueError(f"the model '{fixed}' does not fit the table: {error}") from error
    y, x = response.to_numpy(float)[:, 0], design.to_numpy(float)
    if np.linalg.matrix_rank(x) < x.shape[1]:
        raise ValueError(f"the terms {', '.join(design.columns)} cannot be told apart in {len(y)} rows")
    if np.ptp(y) == 0:
        raise ValueError("all values are the same: there is nothing to explain")
    levels = {term.name: _levels(table, term) for term in random}
    for term in random:
        if levels[term.name] < MIN_LEVELS:
            raise ValueError(
                f"'{term.name}' has {levels[term.name]} levels, too few for a variance; "
                f"plan at least {MIN_LEVELS} of '{term.group}'"
            )
    groups = {group: [term for term in random if term.group == group] for group in dict.fromkeys(t.group for t in random)}
    factors, columns = [_factor(table, terms) for terms in groups.values()], list(design.columns)
    found: LinearFit | LaplaceFit
    try:
        if family == "gaussian":
            found = LinearModel(y, x, factors).fit(reml=reml)
        else:
            found, columns = _laplace(y, x, factors, columns, family)
    except UserError as error:
        raise ValueError(str(error)) from error
    places = {term.name: (k, i) for k, terms in enumerate(groups.values()) for i, term in enumerate(terms)}
    how = {"gaussian": f"linear mixed model, {'REML' if reml else 'ML'}"}.get(family, f"{_CALLED.get(family)}, Laplace")
    return MixedFit(
        params=pd.Series(found.beta, index=columns),
        cov=pd.DataFrame(found.cov, index=columns, columns=columns),
        sds={term.name: found.sigma * float(found.lambdas[k][i, i]) for term in random for k, i in [places[term.name]]},
        sigma=found.sigma,
        converged=found.converged,
        singular=tuple(term.name for term in random for k, i in [places[term.name]] if i in found.vanished[k]),
        n=len(y),
        levels=levels,
        criterion=found.criterion,
        method=f"{how}, crossed variance components",
        engine=found,
        random=tuple(random),
        family=family,
        formula=fixed,
    )


_CALLED = {"ordinal": "cumulative logit mixed model", "binary": "logit mixed model"}


def _laplace(
    y: np.ndarray, x: np.ndarray, factors: list[Factor], columns: list[str], family: Family
) -> tuple[LaplaceFit, list[str]]:
    """The fit, and the names of its coefficients, cutpoints first."""
    mass = np.ones(len(y))
    likelihood: Likelihood
    if family == "ordinal":
        labels, codes = np.unique(y, return_inverse=True)
        likelihood = Ordinal(codes, mass, "logit", len(labels) - 1)
        kept = [k for k, name in enumerate(columns) if name != "Intercept"]
        cuts = [f"{one:g}|{two:g}" for one, two in pairwise(labels)]
    else:
        if not np.isin(y, (0.0, 1.0)).all():
            raise ValueError("a choice is 0 or 1")
        likelihood, kept, cuts = Binary(y, mass, "logit"), list(range(len(columns))), []
    model = LaplaceModel(likelihood, x[:, kept], factors, np.zeros(len(y)))
    start = model.start()
    if model.runaway(start) and (marks := separating(likelihood, x[:, kept])).any():
        named = next(columns[k] for k, mark in zip(kept, marks, strict=True) if mark)
        raise ValueError(f"'{named}' predicts a part of the answers without error (separation), so its slope has no end; ask more")
    return model.fit(start), [*cuts, *(columns[k] for k in kept)]


def contrast(
    fitted: MixedFit,
    weights: Mapping[str, float],
    *,
    level: float = 0.95,
    alternative: Literal["two-sided", "greater", "less"] = "two-sided",
) -> Contrast:
    """Estimate, interval and test of ``sum(weight * fixed effect)``.

    Degrees of freedom are Satterthwaite's, never above n minus the fixed effects. Where a random term of one of
    the columns has vanished, the smallest number of levels of such a term, less one, is an upper bound too, and
    ``note`` says so.

    Laplace's likelihood takes no account of what the fixed effects cost, and Wald's z none of how few levels a
    variance rests on. So each random term, with its share V_k of the contrast's variance V and its L_k levels, is
    counted as a mean square on L_k - 1 degrees of freedom: ``V + sum V_k / (L_k - 1)`` is the variance, as REML would
    have it in a balanced table, and its degrees of freedom are Satterthwaite's (1946) of such a sum.
    """
    c = np.array([float(weights.get(name, 0.0)) for name in fitted.params.index])
    unknown = set(weights) - set(fitted.params.index)
    if unknown or not c.any():
        raise ValueError(f"a contrast needs fixed effects among {', '.join(fitted.params.index)}")
    estimate, variance = float(c @ fitted.params), float(c @ fitted.cov.to_numpy() @ c)
    df = fitted.engine.satterthwaite(c)
    if isinstance(fitted.engine, LaplaceFit):
        variance, df = _few_levels(fitted, fitted.engine.parts(c), variance)
    df = min(math.inf if math.isnan(df) else df, fitted.n - len(c))
    touched = {name for name, weight in weights.items() if weight}
    lost = [t for t in fitted.random if t.name in fitted.singular and (t.slope or "Intercept") in touched]
    note = ""
    bound = min((fitted.levels[t.name] - 1 for t in lost), default=math.inf)
    if bound < df:
        df, note = float(bound), f"df bounded by levels - 1, since the variance of '{lost[0].name}' vanished"
    se = math.sqrt(variance)
    t = estimate / se
    tail = {"two-sided": 2 * stats.t.sf(abs(t), df), "greater": stats.t.sf(t, df), "less": stats.t.cdf(t, df)}
    half = se * float(stats.t.ppf((1 + level) / 2, df))
    return Contrast(estimate, se, df, t, float(tail[alternative]), estimate - half, estimate + half, note)


def _few_levels(fitted: MixedFit, parts: Sequence[np.ndarray], variance: float) -> tuple[float, float]:
    """Variance and degrees of freedom of a contrast from the shares of its random terms."""
    groups = list(dict.fromkeys(term.group for term in fitted.random))
    grown, uncertain = variance, 0.0
    for group, shares in zip(groups, parts, strict=True):
        terms = [term for term in fitted.random if term.group == group]
        for term, share in zip(terms, np.maximum(shares, 0.0), strict=True):
            freedom = fitted.levels[term.name] - 1
            grown += share / freedom
            uncertain += (share * (1 + 1 / freedom)) ** 2 / freedom
    return grown, grown**2 / uncertain if uncertain > 0 else math.inf


def _levels(table: pd.DataFrame, term: Random) -> int:
    rows = table if term.slope is None else table[table[term.slope] != 0]
    return int(rows[term.group].nunique())


def _factor(table: pd.DataFrame, terms: Sequence[Random]) -> Factor:
    """One grouping factor with its independent columns."""
    codes, labels = pd.factorize(table[terms[0].group], sort=True)
    z = np.column_stack([np.ones(len(table)) if t.slope is None else table[t.slope].to_numpy(float) for t in terms])
    names = tuple(term.slope or "Intercept" for term in terms)
    return Factor(terms[0].group, np.asarray(labels), codes, z, names, np.eye(len(terms), dtype=bool))
