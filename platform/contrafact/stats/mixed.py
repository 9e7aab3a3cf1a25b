"""Linear mixed models with crossed random effects: the seam between a question and its engine.

The model is that of Laird & Ware (1982), ``y = X b + sum_k Z_k u_k + e`` with ``u_k ~ N(0, s_k^2 I)`` and
``e ~ N(0, s^2 I)``: independent variance components, crossed or nested as the tables have it. The engine is
statsmodels' MixedLM with all rows in one group and one variance component for each random term.

Its size is that of a demo: the rows are read once, but every step works on a dense matrix as wide as all
random levels together. A few hundred levels take well under a second, two thousand take minutes. An engine for
more replaces this one behind :func:`fit`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import patsy
from scipy import stats
from scipy.optimize import minimize
from statsmodels.regression.mixed_linear_model import MixedLM, VCSpec

MIN_LEVELS = 5
"""Below five levels a variance component is hardly more than a guess."""

VANISHED = 1e-6
"""A component that carries less than this share of the residual variance counts as zero."""

STARTS = 4
"""A search that stops on the edge of the parameter space short of the optimum is started again from there."""


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
    vanished (they stay in the model, at zero); ``levels`` counts the levels of each term. ``information`` is the
    expected information of the variances that did not vanish, residual first, and ``sensitivity`` the derivative
    of ``cov`` by each of them: what Satterthwaite's degrees of freedom are made of.
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
    information: np.ndarray
    sensitivity: tuple[np.ndarray, ...]
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
    """Fit ``fixed`` (a patsy formula, response included) with the crossed terms ``random``.

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
        response, design = patsy.dmatrices(fixed, table, NA_action="raise", return_type="dataframe")
    except patsy.PatsyError as error:
        raise ValueError(f"the model '{fixed}' does not fit the table: {error}") from error
    y, x = response.to_numpy(float)[:, 0], design.to_numpy(float)
    if np.linalg.matrix_rank(x) < x.shape[1]:
        raise ValueError(f"the terms {', '.join(design.columns)} cannot be told apart in {len(y)} rows")
    if np.ptp(y) == 0:
        raise ValueError("all values are the same: there is nothing to explain")
    blocks = [_indicator(table, term) for term in random]
    levels = {term.name: block.shape[1] for term, block in zip(random, blocks, strict=True)}
    for term in random:
        if levels[term.name] < MIN_LEVELS:
            raise ValueError(
                f"'{term.name}' has {levels[term.name]} levels, too few for a variance; "
                f"plan at least {MIN_LEVELS} of '{term.group}'"
            )

    # The criterion depends on the rows through their cross-products alone, so a triangular factor of [Z X y]
    # stands for them: an orthogonal turn of the rows leaves the model as it is and all other rows at zero.
    factor = np.linalg.qr(np.hstack([*blocks, x, y[:, None]]), mode="r")
    *turned, xr, yr = np.split(factor, np.cumsum([*levels.values(), x.shape[1]]), axis=1)
    names = [term.name for term in random]
    spec = VCSpec(names, [[list(map(str, range(z.shape[1])))] for z in turned], [[z] for z in turned])
    model = MixedLM(yr[:, 0], xr, np.zeros(len(yr)), exog_vc=spec, use_sqrt=False)
    model.n_totobs = len(y)
    model.reml, model.cov_pen, model._freepat, model._cov_sing = reml, None, None, 0

    # MixedLM.fit walks over roots of variances without bounds, and its score has the wrong sign below zero;
    # its criterion and score are therefore minimised over the variances themselves, in units of the residual's.
    scales = np.array([(z**2).sum() / len(y) for z in blocks])
    start = np.full(len(scales), 0.1)
    for _ in range(STARTS):
        found = minimize(
            lambda share: -model.loglike(share / scales),
            start,
            jac=lambda share: -model.score(share / scales) / scales,
            method="L-BFGS-B",
            bounds=[(VANISHED / 10, None)] * len(scales),
            options={"ftol": 1e-12, "gtol": 1e-5, "maxiter": 200},
        )
        alive = found.x > VANISHED
        uphill = np.where(alive, np.abs(found.jac), -found.jac).max()
        if uphill < 0.1:
            break
        start = np.maximum(found.x, 1e-3)
    ratios = np.where(alive, found.x, 0.0) / scales
    beta, _ = model.get_fe_params(np.zeros((0, 0)), found.x / scales)
    residual = float(model.get_scale(beta, np.zeros((0, 0)), found.x / scales))
    variances = ratios * residual

    kept = [z for z, here in zip(turned, alive, strict=True) if here]
    geometry = _geometry(yr[:, 0], xr, kept, residual, variances[alive], len(y), reml)
    columns = list(design.columns)
    return MixedFit(
        params=pd.Series(geometry.beta, index=columns),
        cov=pd.DataFrame(geometry.cov, index=columns, columns=columns),
        sds=dict(zip(names, np.sqrt(variances).tolist(), strict=True)),
        sigma=math.sqrt(residual),
        converged=bool(geometry.decrement < 1e-3 and uphill < 0.1),
        singular=tuple(name for name, here in zip(names, alive, strict=True) if not here),
        n=len(y),
        levels=levels,
        criterion=2 * float(found.fun),
        method=f"linear mixed model, {'REML' if reml else 'ML'}, crossed variance components (statsmodels MixedLM)",
        information=geometry.information,
        sensitivity=geometry.sensitivity,
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

    Degrees of freedom are Satterthwaite's, ``2 v^2 / (g' W g)`` with v the variance of the contrast, g its
    derivative by the variances and W the inverse of their expected information (Giesbrecht & Burns 1985;
    Kenward & Roger 1997 use the same W). They are never above n minus the fixed effects. Where a random term of
    one of the columns has vanished, the smallest number of levels of such a term, less one, is an upper bound
    too, and ``note`` says so.
    """
    c = np.array([float(weights.get(name, 0.0)) for name in fitted.params.index])
    unknown = set(weights) - set(fitted.params.index)
    if unknown or not c.any():
        raise ValueError(f"a contrast needs fixed effects among {', '.join(fitted.params.index)}")
    estimate, variance = float(c @ fitted.params), float(c @ fitted.cov.to_numpy() @ c)
    gradient = np.array([c @ part @ c for part in fitted.sensitivity])
    spread = float(gradient @ np.linalg.pinv(fitted.information) @ gradient)
    df = min(2 * variance**2 / spread if spread > 0 else math.inf, fitted.n - len(c))
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


def _indicator(table: pd.DataFrame, term: Random) -> np.ndarray:
    """Design (n, levels) of one random term, without levels that no row informs."""
    codes, uniques = pd.factorize(table[term.group], sort=True)
    block = np.zeros((len(table), len(uniques)))
    block[np.arange(len(table)), codes] = 1.0 if term.slope is None else table[term.slope].to_numpy(float)
    return block[:, (block != 0).any(axis=0)]


@dataclass(frozen=True)
class _Geometry:
    beta: np.ndarray
    cov: np.ndarray
    information: np.ndarray
    sensitivity: tuple[np.ndarray, ...]
    decrement: float


def _geometry(
    y: np.ndarray,
    x: np.ndarray,
    blocks: Sequence[np.ndarray],
    residual: float,
    variances: np.ndarray,
    n: int,
    reml: bool,
) -> _Geometry:
    """GLS, and the first and second order of the criterion, at given variances (Searle et al. 1992, ch. 6).

    ``y``, ``x`` and ``blocks`` are rows of the triangular factor; the n - len(y) rows at zero enter through the
    residual variance alone.
    """
    identity = np.eye(len(y))
    v = residual * identity + sum(
        (s * z @ z.T for s, z in zip(variances, blocks, strict=True)), np.zeros_like(identity)
    )
    v_inverse = np.linalg.inv(v)
    vx = v_inverse @ x
    cov = np.linalg.inv(x.T @ vx)
    beta = cov @ (vx.T @ y)
    p = v_inverse - vx @ cov @ vx.T
    terms = [identity, *blocks]
    rest = n - len(y)
    information = np.array([[0.5 * ((a.T @ p @ b) ** 2).sum() for b in terms] for a in terms])
    information[0, 0] += 0.5 * rest / residual**2
    traces = np.array([np.einsum("ij,jk,ik->", z.T, p if reml else v_inverse, z.T, optimize=True) for z in terms])
    traces[0] += rest / residual
    quadratic = np.array([((z.T @ (p @ y)) ** 2).sum() for z in terms])
    score = 0.5 * (quadratic - traces)
    pulls = [z.T @ vx @ cov for z in terms]
    return _Geometry(
        beta=beta,
        cov=cov,
        information=information,
        sensitivity=tuple(pull.T @ pull for pull in pulls),
        decrement=float(score @ np.linalg.pinv(information) @ score),
    )
