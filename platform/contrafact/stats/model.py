"""Mixed models of any table of ratings: a formula in lme4's notation in, estimates that a referee accepts out.

    from contrafact.stats import fit
    found = fit(table, "value ~ dose + (1 + dose | participant) + (1 | image)")
    print(found.summary())

Gaussian models are fitted by REML or maximum likelihood with Satterthwaite's degrees of freedom
(:mod:`contrafact.stats.linear`), binary, ordinal and count models by Laplace's method with Wald tests
(:mod:`contrafact.stats.laplace`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import optimize, stats

from contrafact import seeds
from contrafact.errors import UserError, nearest
from contrafact.stats.crossproducts import Factor
from contrafact.stats.families import Binary, Likelihood, Ordinal, Poisson, separating
from contrafact.stats.formula import INTERCEPT, Design, design, parse
from contrafact.stats.laplace import LaplaceFit, LaplaceModel
from contrafact.stats.linear import LinearFit, LinearModel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MIN_INTERCEPT, MIN_SLOPE = 3, 5
"""Fewer levels give no variance at all, or a slope's that is a guess."""

FAMILIES: dict[str, tuple[str, ...]] = {
    "gaussian": ("identity",),
    "binary": ("logit", "probit"),
    "ordinal": ("logit", "probit"),
    "poisson": ("log",),
}
"""Families and their links, the default first."""
_CALLED = {"binary": "binomial", "ordinal": "cumulative", "poisson": "Poisson"}
MAX_CATEGORIES = 30
RUNAWAY_SD = 10.0
"""A random intercept of this SD on a logit puts half of all levels beyond odds of 800 to 1."""


@dataclass(frozen=True)
class Coefficient:
    """An estimate with its test against 0; ``df`` is infinite where the test is Wald's."""

    term: str
    estimate: float
    se: float
    df: float
    statistic: float
    p: float
    low: float
    high: float

    def facts(self) -> dict[str, Any]:
        """For JSON: what is undefined or infinite is None."""
        return _defined(asdict(self))


@dataclass(frozen=True)
class RandomTerm:
    """The SD of one random column; ``corr`` are its correlations with the earlier columns of its bracket."""

    group: str
    term: str
    sd: float
    corr: tuple[float, ...]


@dataclass(frozen=True)
class LikelihoodRatio:
    """Two models of the same rows, the smaller inside the larger."""

    statistic: float
    df: int
    p: float
    note: str = ""


@dataclass(frozen=True)
class Explained:
    """Shares of variance after Nakagawa & Schielzeth (2013) and Nakagawa, Johnson & Schielzeth (2017).

    ``parts`` are the variances: ``fixed``, one for each group, ``residual``.
    """

    marginal: float
    conditional: float
    parts: dict[str, float]


@dataclass(frozen=True)
class MixedModel:
    """A fitted mixed model.

    Attributes:
        coefficients: fixed effects in the order of the formula.
        random: SDs and correlations of each group; the last of a gaussian model is the ``Residual``.
        loglik: log-likelihood, or REML's; ``criterion`` is minus twice that.
        singular: a variance is zero or a correlation one at the optimum; ``vanished`` names which.
        notes: sentences that belong beside the numbers.
        n, dropped: rows used, and rows left out because a value was missing.
        groups: levels of each grouping factor.
        level: confidence level of every interval.
    """

    formula: str
    family: str
    link: str
    method: str
    coefficients: tuple[Coefficient, ...]
    random: tuple[RandomTerm, ...]
    loglik: float
    criterion: float
    converged: bool
    singular: bool
    vanished: tuple[str, ...]
    notes: tuple[str, ...]
    n: int
    dropped: int
    groups: dict[str, int]
    level: float
    design: Design = field(repr=False)
    engine: LinearFit | LaplaceFit = field(repr=False)
    reml: bool = field(repr=False)

    @property
    def terms(self) -> tuple[str, ...]:
        return tuple(coefficient.term for coefficient in self.coefficients)

    def facts(self) -> dict[str, Any]:
        """Everything but the data, for JSON: what is undefined or infinite is None."""
        return {
            "formula": self.formula,
            "family": self.family,
            "link": self.link,
            "method": self.method,
            "coefficients": [each.facts() for each in self.coefficients],
            "random": [
                _defined({**asdict(each), "corr": _single(each.corr)}) for each in self.random
            ],
            **_defined({"loglik": self.loglik, "criterion": self.criterion}),
            "converged": self.converged,
            "singular": self.singular,
            "vanished": list(self.vanished),
            "notes": list(self.notes),
            "n": self.n,
            "dropped": self.dropped,
            "groups": self.groups,
            "level": self.level,
        }

    def summary(self) -> str:
        """Everything a reader needs, as text."""
        head = ("", "estimate", "SE", "df", "t" if self.family == "gaussian" else "z", "p", "low", "high")
        rows = [
            (c.term, *(_short(v) for v in (c.estimate, c.se, c.df, c.statistic)), _p(c.p), _short(c.low), _short(c.high))
            for c in self.coefficients
        ]
        random = [(r.group, r.term, _short(r.sd), " ".join(f"{c:.2f}" for c in r.corr)) for r in self.random]
        groups = ", ".join(f"{levels} of {name}" for name, levels in self.groups.items())
        state = "converged" if self.converged else "NOT CONVERGED"
        lines = [
            self.formula,
            f"{self.method}; {state}",
            f"{self.n} rows ({self.dropped} left out for missing values), {groups}",
            f"log-likelihood {self.loglik:.3f}, criterion {self.criterion:.3f}",
            "",
            _aligned([head, *rows]),
            "",
            _aligned([("group", "term", "SD", "corr"), *random]),
            *(f"Note: {note}." for note in self.notes),
        ]
        return "\n".join(lines)

    def contrast(self, weights: Mapping[str, float], label: str = "") -> Coefficient:
        """Estimate and test of ``sum(weight * coefficient)``.

        Raises:
            UserError: a name is no coefficient, or no weight differs from 0.
        """
        for name in weights:
            if name not in self.terms:
                near = nearest(name, self.terms)
                raise UserError(f"The model has no coefficient '{name}'.", hint=f"Did you mean '{near}'?" if near else "")
        c = np.array([float(weights.get(name, 0.0)) for name in self.terms])
        if not c.any():
            raise UserError("A contrast needs a weight that is not 0.")
        spoken = label or " ".join(f"{weight:+g} {name}" for name, weight in weights.items() if weight)
        return _tested(spoken, c, self.engine, self.n, self.level)

    def means(self, *names: str) -> tuple[Coefficient, ...]:
        """Estimated marginal means of the categories ``names`` (all of their combinations), on the scale of the link.

        Other categories count each level alike and numbers are at their mean, as in R's emmeans.
        """
        cells, x = self.design.grid(names)
        return tuple(
            _tested(" ".join(cell) or "mean", self._padded(row), self.engine, self.n, self.level)
            for cell, row in zip(cells, x, strict=True)
        )

    def differences(self, *names: str) -> tuple[Coefficient, ...]:
        """Every pair of the marginal means of ``names``, the first minus the second, without correction."""
        cells, x = self.design.grid(names)
        pairs = [(i, j) for i in range(len(cells)) for j in range(i + 1, len(cells))]
        return tuple(
            _tested(
                f"{' '.join(cells[i])} - {' '.join(cells[j])}", self._padded(x[i] - x[j]), self.engine, self.n, self.level
            )
            for i, j in pairs
        )

    def _padded(self, row: np.ndarray) -> np.ndarray:
        """Weights of all coefficients from a row of X; cutpoints take their mean off, as emmeans' latent scale."""
        keep = [k for k, term in enumerate(self.design.terms) if term in self.terms]
        cuts = len(self.terms) - len(keep)
        intercept = float(row[self.design.terms.index(INTERCEPT)]) if INTERCEPT in self.design.terms else 1.0
        return np.concatenate([np.full(cuts, -intercept / max(cuts, 1)), row[keep]])

    def random_effects(self) -> pd.DataFrame:
        """Predicted effects with intervals: ``group``, ``level``, ``term``, ``effect``, ``sd``, ``low``, ``high``.

        ``sd`` is that of the effect given the data, fixed effects and variances held (lme4's conditional SD).
        """
        tables = []
        half = float(stats.norm.ppf((1 + self.level) / 2))
        engine = self.engine
        for factor, effects, cov in zip(self.design.factors, engine.effects, engine.effect_cov, strict=True):
            sd = np.sqrt(np.maximum(np.diagonal(cov, axis1=1, axis2=2), 0.0))
            tables.append(
                pd.DataFrame(
                    {
                        "group": factor.name,
                        "level": np.repeat(factor.labels, len(factor.terms)),
                        "term": np.tile(np.array(factor.terms, dtype=object), factor.levels),
                        "effect": effects.ravel(),
                        "sd": sd.ravel(),
                        "low": (effects - half * sd).ravel(),
                        "high": (effects + half * sd).ravel(),
                    }
                )
            )
        return pd.concat(tables, ignore_index=True)

    def r2(self) -> Explained:
        """Variance that the fixed effects explain (marginal) and that fixed and random effects explain (conditional).

        Random slopes enter by their mean square over the rows (Johnson 2014). The residual variance is that of the
        link (pi^2 / 3 for logit, 1 for probit), for counts the lognormal ``log(1 + 1 / mean)`` at the mean that the
        intercept and the variances give.
        """
        keep = [k for k, term in enumerate(self.design.terms) if term in self.terms]
        beta, x = self.engine.beta[len(self.terms) - len(keep) :], self.design.x[:, keep]
        parts = {"fixed": float(np.var(x @ beta, ddof=1))}
        for factor, block in zip(self.design.factors, self.engine.lambdas, strict=True):
            spread = self.engine.sigma**2 * ((factor.z @ block) ** 2).sum(axis=1)
            parts[factor.name] = float(spread.mean())
        parts["residual"] = {"logit": math.pi**2 / 3, "log": 0.0}.get(self.link, self.engine.sigma**2)
        if self.family == "poisson":
            typical = float(np.mean(x @ beta + self.design.offset))
            spread_of_all = sum(value for name, value in parts.items() if name not in ("fixed", "residual"))
            parts["residual"] = math.log1p(1 / math.exp(typical + spread_of_all / 2))
        whole = sum(parts.values())
        return Explained(parts["fixed"] / whole, 1 - parts["residual"] / whole, parts)

    def profile(self, term: str) -> tuple[float, float]:
        """Likelihood interval of a fixed effect, or of an SD, ``sd dose | image`` or (gaussian) ``sd Residual``:
        where the deviance, all else fitted anew, rises by chi-squared's quantile (Venzon & Moolgavkar 1988; R's
        confint). Gaussian models are profiled by maximum likelihood.

        Raises:
            UserError: ``term`` is no fixed effect with a column of its own, such as a cutpoint, and no such SD.
        """
        if term not in self.profiled:
            raise UserError(f"'{term}' has no likelihood interval; these have: {', '.join(self.profiled)}.")
        if row := next((row for row in self.random if _named(row) == term), None):
            places = {
                (factor.name, name): (k, i)
                for k, factor in enumerate(self.design.factors)
                for i, name in enumerate(factor.terms)
            }  # none of them is the residual's
            rise = float(stats.chi2.ppf(self.level, 1))
            if isinstance(self.engine, LaplaceFit):
                return self.engine.state.model.profile(self.engine.state, places[row.group, row.term], rise)
            return _linear(self.design).profile(places.get((row.group, row.term)), rise)
        place = self.terms.index(term)
        best, se = _by_likelihood(self), self.coefficients[place].se
        centre, bar = float(best.engine.beta[place]), float(stats.norm.ppf((1 + self.level) / 2))

        def beyond(value: float) -> float:
            held = replace(
                self.design,
                offset=self.design.offset + value * self.design.x[:, self.design.terms.index(term)],
                x=np.delete(self.design.x, self.design.terms.index(term), axis=1),
                terms=tuple(name for name in self.design.terms if name != term),
            )
            rise = _engine(held, self.family, self.link, reml=False)[0].criterion - best.criterion
            return math.sqrt(max(rise, 0.0)) - bar

        ends = []
        for side in (-1, 1):
            width = 1.2 * bar * se
            while beyond(centre + side * width) < 0:
                width *= 1.5
            ends.append(float(optimize.brentq(beyond, centre, centre + side * width, xtol=1e-4 * se)))
        return ends[0], ends[1]

    @property
    def profiled(self) -> tuple[str, ...]:
        """The terms that have a likelihood interval."""
        fixed = [name for name in self.design.terms if name in self.terms]
        return (*fixed, *map(_named, self.random))

    def bootstrap(self, draws: int = 1000, seed: int = 0) -> pd.DataFrame:
        """Parametric bootstrap: ratings drawn from the fitted model and fitted anew ``draws`` times.

        One row for each fixed effect and each SD: ``term``, ``estimate``, ``se`` (SD of the draws), ``low`` and
        ``high`` (percentiles), ``draws`` (those whose fit converged; the others are left out).
        """
        if draws < 2:
            raise UserError("A bootstrap needs at least 2 draws.")
        rng = seeds.generator(seed, "bootstrap", self.formula)
        found = []
        for _ in range(draws):
            engine = _redrawn(self, rng)
            if engine.converged:
                found.append([*engine.beta, *(r.sd for r in self._random_of(engine))])
        names = [*self.terms, *map(_named, self.random)]
        values = np.array(found).reshape(-1, len(names))
        tails = np.quantile(values, [(1 - self.level) / 2, (1 + self.level) / 2], axis=0) if len(values) else np.full((2, len(names)), np.nan)
        return pd.DataFrame(
            {
                "term": names,
                "estimate": [*(c.estimate for c in self.coefficients), *(r.sd for r in self.random)],
                "se": values.std(axis=0, ddof=1) if len(values) > 1 else math.nan,
                "low": tails[0],
                "high": tails[1],
                "draws": len(values),
            }
        )

    def _random_of(self, engine: LinearFit | LaplaceFit) -> tuple[RandomTerm, ...]:
        return _random(self.design.factors, engine, residual=self.family == "gaussian")

    def picture(self) -> Figure:
        """Coefficients with their intervals (without the intercept), and the random effects of each group, sorted."""
        from matplotlib.figure import Figure

        effects = self.random_effects()
        panels = [(name, term) for name, term in effects[["group", "term"]].drop_duplicates().itertuples(index=False)]
        figure = Figure(figsize=(4 + 2.6 * len(panels), 4), layout="constrained")
        axes = figure.subplots(1, 1 + len(panels), squeeze=False)[0]
        shown = [c for c in self.coefficients if c.term != INTERCEPT] or list(self.coefficients)
        place = np.arange(len(shown))[::-1]
        errors = [[c.estimate - c.low for c in shown], [c.high - c.estimate for c in shown]]
        axes[0].errorbar([c.estimate for c in shown], place, xerr=errors, fmt="o", color="black")
        axes[0].set_yticks(place, [c.term for c in shown])
        axes[0].set_title(f"fixed effects, {self.level:.0%}")
        axes[0].axvline(0, color="grey", linewidth=0.8)
        for axis, (name, term) in zip(axes[1:], panels, strict=True):
            rows = effects[(effects["group"] == name) & (effects["term"] == term)].sort_values("effect")
            rank = np.arange(len(rows))
            axis.hlines(rank, rows["low"], rows["high"], color="silver", linewidth=0.8)
            axis.plot(rows["effect"], rank, ".", color="black", markersize=3)
            axis.axvline(0, color="grey", linewidth=0.8)
            axis.set_yticks([])
            axis.set_title(f"{term} | {name}")
        return figure


def fit(
    table: pd.DataFrame,
    formula: str,
    *,
    family: str = "gaussian",
    link: str | None = None,
    reml: bool = True,
    weights: str | None = None,
    levels: Mapping[str, Sequence[object]] | None = None,
    level: float = 0.95,
) -> MixedModel:
    """Fit a mixed model.

    Args:
        table: one row an observation; rows with a missing value in a column used are left out and counted.
        formula: lme4's notation, see :mod:`contrafact.stats.formula`.
        family: ``gaussian``, ``binary`` (two values, or shares with ``weights`` as numbers of trials), ``ordinal``
            (sorted values, or the order of a pandas categorical; cutpoints come first, named ``1|2``) or ``poisson``.
        link: ``logit`` (default) or ``probit`` for binary and ordinal ratings.
        reml: REML (default) or maximum likelihood, for the gaussian family.
        weights: a column: a gaussian row's residual variance is inverse to it, another family's log-likelihood is
            multiplied by it.
        levels: order of the levels of a category, its reference first.
        level: confidence level of intervals.

    Raises:
        UserError: anything in formula or table that cannot be fitted, with the change that would mend it.
    """
    chosen = _link(family, link)
    if not 0 < level < 1:
        raise UserError(f"A confidence level lies between 0 and 1, not at {level}.")
    made = design(table, parse(formula), weights=weights, levels=levels)
    notes = _enough(made, gaussian=family == "gaussian")
    engine, cuts = _engine(made, family, chosen, reml)
    return _assembled(made, engine, family, chosen, reml and family == "gaussian", level, notes, cuts)


def _engine(made: Design, family: str, link: str, reml: bool) -> tuple[LinearFit | LaplaceFit, tuple[str, ...]]:
    """The fit itself, and the names of the cutpoints."""
    if family == "gaussian":
        return _linear(made).fit(reml=reml), ()
    likelihood, cuts = _likelihood(made, family, link)
    keep = [k for k, term in enumerate(made.terms) if not cuts or term != INTERCEPT]
    model = LaplaceModel(likelihood, made.x[:, keep], made.factors, made.offset)
    start = model.start()
    if model.runaway(start) and (marks := separating(likelihood, made.x[:, keep])).any():
        named = [made.terms[k] for k, mark in zip(keep, marks, strict=True) if mark]
        spoken = ", ".join(f"'{name}'" for name in named if name != INTERCEPT or len(named) == 1)
        raise UserError(
            f"{spoken} predicts a part of '{made.formula.response}' without error (separation), "
            "so its coefficient has no finite estimate.",
            hint="Merge the levels concerned, drop the term, or rate more until the answers overlap.",
        )
    return model.fit(start), cuts


def _redrawn(model: MixedModel, rng: np.random.Generator) -> LinearFit | LaplaceFit:
    """The model fitted to ratings that it drew itself."""
    made, engine = model.design, model.engine
    keep = [k for k, term in enumerate(made.terms) if term in model.terms]
    cuts = len(model.terms) - len(keep)
    eta = made.x[:, keep] @ engine.beta[cuts:] + made.offset
    for factor, block in zip(made.factors, engine.lambdas, strict=True):
        effects = engine.sigma * rng.normal(size=(factor.levels, len(block))) @ block.T
        eta = eta + (factor.z * effects[factor.codes]).sum(axis=1)
    if isinstance(engine, LinearFit):
        spread = 1.0 if made.weights is None else 1 / np.sqrt(made.weights)
        y = eta + engine.sigma * spread * rng.normal(size=len(eta))
        return LinearModel(y - made.offset, made.x, made.factors, made.weights).fit(reml=model.reml)
    likelihood = _likelihood(made, model.family, model.link)[0].draw(rng, eta, engine.beta[:cuts])
    return LaplaceModel(likelihood, made.x[:, keep], made.factors, made.offset).fit()


def _assembled(
    made: Design,
    engine: LinearFit | LaplaceFit,
    family: str,
    link: str,
    reml: bool,
    level: float,
    notes: list[str],
    cuts: tuple[str, ...] = (),
) -> MixedModel:
    n = len(made.x)
    vanished = _vanished(made.factors, engine)
    if vanished:
        notes = [*notes, f"the fit is singular, all terms kept: {'; '.join(vanished)}"]
    if not engine.converged:
        notes = [*notes, f"the search ended with a gradient of {engine.gradient:.2g}: do not use these numbers"]
    found = _random(made.factors, engine, residual=family == "gaussian")
    if family != "gaussian":
        notes = [*notes, *(
            f"an SD of {one.sd:.3g} of {one.term} by {one.group} on the scale of the {link} has hardly an end: most of them answer "
            "always alike, so do not read the coefficients" for one in found if one.sd > RUNAWAY_SD
        )]  # fmt: skip
    names = (*cuts, *(term for term in made.terms if not cuts or term != INTERCEPT))
    linear = f"linear mixed model, {'REML' if reml else 'maximum likelihood'}, Satterthwaite df"
    return MixedModel(
        formula=made.formula.text,
        family=family,
        link=link,
        method=linear if family == "gaussian" else f"{_CALLED[family]} mixed model, {link} link, Laplace, Wald tests",
        coefficients=tuple(
            _tested(name, row, engine, n, level) for name, row in zip(names, np.eye(len(names)), strict=True)
        ),
        random=found,
        loglik=-engine.criterion / 2,
        criterion=engine.criterion,
        converged=engine.converged,
        singular=bool(vanished),
        vanished=vanished,
        notes=tuple(notes),
        n=n,
        dropped=made.dropped,
        groups={factor.name: factor.levels for factor in made.factors},
        level=level,
        design=made,
        engine=engine,
        reml=reml,
    )


def _tested(label: str, c: np.ndarray, engine: LinearFit | LaplaceFit, n: int, level: float) -> Coefficient:
    estimate = float(c @ engine.beta)
    variance = float(c @ engine.cov @ c)
    se = math.sqrt(variance) if variance > 0 else math.nan
    df = engine.satterthwaite(c)
    if isinstance(engine, LinearFit) and not 1 <= df <= n:
        df = float(n - len(c))
    statistic = estimate / se
    half = se * float(stats.t.ppf((1 + level) / 2, df))
    p = 2 * float(stats.t.sf(abs(statistic), df))
    return Coefficient(label, estimate, se, df, statistic, p, estimate - half, estimate + half)


def _random(factors: Sequence[Factor], engine: LinearFit | LaplaceFit, *, residual: bool) -> tuple[RandomTerm, ...]:
    found = []
    for factor, block in zip(factors, engine.lambdas, strict=True):
        covariance = block @ block.T * engine.sigma**2
        sds = np.sqrt(np.diag(covariance))
        for i, term in enumerate(factor.terms):
            earlier = np.flatnonzero(factor.free[i, :i])
            corr = tuple(
                float(covariance[i, j] / (sds[i] * sds[j])) if sds[i] * sds[j] > 0 else math.nan for j in earlier
            )
            found.append(RandomTerm(factor.name, term, float(sds[i]), corr))
    return (*found, RandomTerm("Residual", "", engine.sigma, ())) if residual else tuple(found)


def _named(row: RandomTerm) -> str:
    return f"sd {row.term} | {row.group}" if row.term else "sd Residual"


def _vanished(factors: Sequence[Factor], engine: LinearFit | LaplaceFit) -> tuple[str, ...]:
    found = []
    for factor, block, flat in zip(factors, engine.lambdas, engine.vanished, strict=True):
        for i in flat:
            if np.abs(block[i]).max() == 0:
                found.append(f"the variance of {factor.terms[i]} by {factor.name} is zero")
            else:
                found.append(f"{factor.terms[i]} by {factor.name} is fixed by the earlier terms of its bracket")
    return tuple(found)


def _enough(made: Design, *, gaussian: bool) -> list[str]:
    """Refuse what no table of this shape can tell; what it can barely tell is a note."""
    notes = []
    n = len(made.x)
    for factor in made.factors:
        slopes = [term for term in factor.terms if term != INTERCEPT]
        if factor.levels == 1:
            raise UserError(
                f"'{factor.name}' has one level only, so it cannot vary.", hint=f"Drop it, or sample more of '{factor.name}'."
            )
        if slopes and factor.levels < MIN_SLOPE:
            raise UserError(
                f"'{factor.name}' has {factor.levels} levels, too few for a random slope of '{slopes[0]}'.",
                hint=f"Plan at least {MIN_SLOPE} of '{factor.name}', or make '{slopes[0]} : {factor.name}' a fixed effect.",
            )
        if factor.levels < MIN_INTERCEPT:
            raise UserError(
                f"'{factor.name}' has {factor.levels} levels, too few for a variance.",
                hint=f"Plan at least {MIN_SLOPE} of '{factor.name}', or make '{factor.name}' a fixed effect.",
            )
        if factor.levels < MIN_SLOPE:
            notes.append(f"the variance of '{factor.name}' rests on {factor.levels} levels; plan at least {MIN_SLOPE}")
        if gaussian and factor.columns >= n:
            raise UserError(
                f"'{factor.name}' has {factor.columns} random effects for {n} rows, so they cannot be told from the residual.",
                hint=f"Rate each '{factor.name}' more than once" + (", or drop a slope." if slopes else "."),
            )
    if n <= made.x.shape[1]:
        raise UserError(f"{n} rows cannot tell {made.x.shape[1]} fixed effects.")
    return notes


def _linear(made: Design) -> LinearModel:
    y = _numbers(made) - made.offset
    if np.ptp(y) == 0:
        raise UserError(f"All values of '{made.formula.response}' are the same: there is nothing to explain.")
    return LinearModel(y, made.x, made.factors, made.weights)


def _likelihood(made: Design, family: str, link: str) -> tuple[Likelihood, tuple[str, ...]]:
    """The ratings as their family sees them, and the names of the cutpoints."""
    name = made.formula.response
    mass = np.ones(len(made.x)) if made.weights is None else made.weights
    if family == "poisson":
        y = _numbers(made)
        if (y < 0).any() or (y != np.rint(y)).any():
            raise UserError(f"'{name}' must hold counts 0, 1, 2, ... for the poisson family.")
        if not y.any():
            raise UserError(f"All counts of '{name}' are zero: there is nothing to explain.")
        return Poisson(y, mass), ()
    if family == "binary" and pd.api.types.is_numeric_dtype(made.y) and made.weights is not None:
        y = made.y.to_numpy(float)
        if (y < 0).any() or (y > 1).any() or np.abs(y * mass - np.rint(y * mass)).max() > 1e-6:
            raise UserError(f"'{name}' must be the share of successes among the trials that the weights count.")
        if np.ptp(y) == 0 and y[0] in (0, 1):
            raise UserError(f"All values of '{name}' are the same: there is nothing to explain.")
        return Binary(y, mass, link), ()
    column = made.y.astype("category").cat.remove_unused_categories()
    labels, codes = list(column.cat.categories), column.cat.codes.to_numpy()
    if len(labels) < 2:
        raise UserError(f"All values of '{name}' are the same: there is nothing to explain.")
    if family == "binary":
        if len(labels) > 2:
            raise UserError(
                f"'{name}' has {len(labels)} values, and the binary family two.",
                hint="Shares of successes need --weights, the number of trials." if len(labels) > 9 else "",
            )
        return Binary(codes.astype(float), mass, link), ()
    if len(labels) > MAX_CATEGORIES:
        raise UserError(
            f"'{name}' has {len(labels)} values; the ordinal family takes up to {MAX_CATEGORIES}.",
            hint="Use the gaussian family for a scale as fine as that.",
        )
    spoken = [f"{label:g}" if isinstance(label, float) else str(label) for label in labels]
    cuts = tuple(f"{one}|{two}" for one, two in pairwise(spoken))
    return Ordinal(codes.astype(int), mass, link, len(cuts)), cuts


def _numbers(made: Design) -> np.ndarray:
    if not pd.api.types.is_numeric_dtype(made.y):
        raise UserError(f"'{made.formula.response}' must be a number for this family.")
    return made.y.to_numpy(float)


def _link(family: str, link: str | None) -> str:
    if family not in FAMILIES:
        raise UserError(f"The family '{family}' is not known; there are: {', '.join(FAMILIES)}.")
    if link is None:
        return FAMILIES[family][0]
    if link not in FAMILIES[family]:
        raise UserError(f"The family '{family}' has the links {', '.join(FAMILIES[family])}, not '{link}'.")
    return link


def likelihood_ratio(small: MixedModel, large: MixedModel) -> LikelihoodRatio:
    """Test ``large`` against ``small`` on the same rows; gaussian models are refitted by maximum likelihood.

    Raises:
        UserError: the models do not share rows, response and family, ``large`` has no more parameters, or ``small`` is
            no special case of it.
    """
    one, two = (_by_likelihood(model) for model in (small, large))
    if one.family != two.family or one.link != two.link or one.n != two.n or one.design.formula.response != two.design.formula.response:
        raise UserError("A likelihood-ratio test needs two models of the same response, family and rows.")
    if not np.array_equal(np.asarray(one.design.y), np.asarray(two.design.y)):
        raise UserError("A likelihood-ratio test needs two models of the same response, family and rows.")
    df = _parameters(two) - _parameters(one)
    if df > 0 and not _nested(one, two):
        raise UserError(
            f"'{one.design.formula.text}' is no special case of '{two.design.formula.text}', so a likelihood-ratio test says nothing.",
            hint="Leave terms of the larger model out, and add none.",
        )
    if df <= 0:
        raise UserError("The second model of a likelihood-ratio test must have more parameters than the first.")
    statistic = max(0.0, one.criterion - two.criterion)
    note = ""
    if _variances(one) != _variances(two):
        note = "a variance under test lies on the edge of its range, so p is too large (Self & Liang 1987)"
    return LikelihoodRatio(statistic, df, float(stats.chi2.sf(statistic, df)), note)


def _nested(small: MixedModel, large: MixedModel) -> bool:
    """Whether every fixed and random column of ``small`` is a sum of those of ``large``, factor by factor."""
    groups = {factor.name: factor for factor in large.design.factors}
    pairs = [(small.design.x, large.design.x)]
    for factor in small.design.factors:
        if factor.name not in groups:
            return False
        pairs.append((factor.z, groups[factor.name].z))
    for inner, outer in pairs:
        if inner.shape[1]:
            basis, _ = np.linalg.qr(outer) if outer.shape[1] else (np.zeros((len(inner), 0)), None)
            rest = inner - basis @ (basis.T @ inner)
            if not (np.sqrt((rest**2).sum(axis=0)) <= 1e-8 * np.sqrt((inner**2).sum(axis=0))).all():
                return False
    return True


def _by_likelihood(model: MixedModel) -> MixedModel:
    if not model.reml:
        return model
    made = model.design
    engine = _linear(made).fit(reml=False)
    return _assembled(made, engine, model.family, model.link, False, model.level, [])


def _variances(model: MixedModel) -> int:
    return sum(int(factor.free.sum()) for factor in model.design.factors)


def _parameters(model: MixedModel) -> int:
    return len(model.terms) + _variances(model)


def _single(corr: tuple[float, ...]) -> object:
    """As VarCorr prints it: nothing, a number, or the row of a triangle."""
    known = [None if math.isnan(value) else value for value in corr]
    return known if len(known) > 1 else known[0] if known else None


def _defined(facts: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in facts.items()}


def _short(value: float) -> str:
    if math.isnan(value):
        return "not estimable"
    return "" if math.isinf(value) else f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"


def _p(value: float) -> str:
    return "not estimable" if math.isnan(value) else "< .001" if value < 0.001 else f"{value:.3f}"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = ["  ".join(c.ljust(w) if k == 0 else c.rjust(w) for k, (c, w) in enumerate(zip(row, widths, strict=True))) for row in rows]
    return "\n".join(line.rstrip() for line in lines)
