"""Linear mixed models with independent crossed random effects: the seam between a registered claim and its engine.

The model is that of Laird & Ware (1982), ``y = X b + sum_k Z_k u_k + e`` with ``u_k ~ N(0, s_k^2 I)`` and
``e ~ N(0, s^2 I)``: independent variance components, crossed or nested as the tables have it, fitted by
:mod:`contrafact.stats.linear`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import formulaic
import numpy as np
import pandas as pd
from formulaic.errors import FormulaicError
from scipy import stats

from contrafact.errors import UserError
from contrafact.stats.crossproducts import Factor
from contrafact.stats.linear import LinearFit, LinearModel

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
    engine: LinearFit
    random: tuple[Random, ...]


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


def fit(table: pd.DataFrame, fixed: str, random: Sequence[Random], *, reml: bool = True) -> MixedFit:
    """Fit ``fixed`` (a formula, response included) with the crossed terms ``random``.

    Rows with a missing value in any column used are an error, not dropped in silence.

    Raises:
        ValueError: too few levels for a term, missing values, fixed effects that cannot be told apart, or a
            response without variance; the sentence says what would mend it.
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
    try:
        found = LinearModel(y, x, [_factor(table, terms) for terms in groups.values()]).fit(reml=reml)
    except UserError as error:
        raise ValueError(str(error)) from error
    places = {term.name: (k, i) for k, terms in enumerate(groups.values()) for i, term in enumerate(terms)}
    columns = list(design.columns)
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
        method=f"linear mixed model, {'REML' if reml else 'ML'}, crossed variance components",
        engine=found,
        random=tuple(random),
    )


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
    """
    c = np.array([float(weights.get(name, 0.0)) for name in fitted.params.index])
    unknown = set(weights) - set(fitted.params.index)
    if unknown or not c.any():
        raise ValueError(f"a contrast needs fixed effects among {', '.join(fitted.params.index)}")
    estimate, variance = float(c @ fitted.params), float(c @ fitted.cov.to_numpy() @ c)
    df = fitted.engine.satterthwaite(c)
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


def _levels(table: pd.DataFrame, term: Random) -> int:
    rows = table if term.slope is None else table[table[term.slope] != 0]
    return int(rows[term.group].nunique())


def _factor(table: pd.DataFrame, terms: Sequence[Random]) -> Factor:
    """One grouping factor with its independent columns."""
    codes, labels = pd.factorize(table[terms[0].group], sort=True)
    z = np.column_stack([np.ones(len(table)) if t.slope is None else table[t.slope].to_numpy(float) for t in terms])
    names = tuple(term.slope or "Intercept" for term in terms)
    return Factor(terms[0].group, np.asarray(labels), codes, z, names, np.eye(len(terms), dtype=bool))
