"""From ratings of doses to statements: does what was edited move people more than editing itself does?

One row is one rating: ``participant``, ``image``, ``direction``, ``question``, ``arm`` (treated, null, sham,
placebo), ``draw`` (number of the sham direction or placebo permutation), ``dose`` (SD of the outcome score) and
``value`` (rating points). A boolean column ``excluded`` leaves rows out by a registered rule. Dose 0 is the null
arm and belongs to every arm.

Every arm has an odd component, its slope on the dose, and an even one, its slope on the absolute dose: the mark
that plus and minus share. People and images are crossed random effects, both with their own slope on the treated
dose (Judd, Westfall & Kenny 2012); a sham direction is fresh for each image and a placebo guide is one draw of
many, so each has a random slope as well and no single lucky draw decides. Where participants are nested in arms,
each arm has a level of its own and people differ in their slope on every arm.

Choices of one picture of two have a row for each picture: ``trial``, ``place`` (from 0) and ``chosen``. They are a logit
model of the same terms, each the first picture's less the second's, so that a picture is worth what its arm and dose
make it worth (Bradley & Terry 1952, with covariates); the intercept is the order effect, being shown first.

Of several pictures, of which the best and the worst are named, ``times`` is 2 and ``value`` the score of each picture: 1
the best, -1 the worst, else 0. Scores are a linear mixed model of the same terms in contrasts within trials (Helmert's, so
that the errors of a trial, which add up to nothing, are independent). The logit model beside it knows the best and the worst
alone: under the model of Marley & Louviere (2005, J. Math. Psych. 49) the odds of i best and j worst against j best and
i worst are ``exp(2 (u_i - u_j))`` whatever else was shown, so that a trial is one choice with twice the difference. It is
not the default, since which two stand out depends on people's own slopes, and those are then no longer a sample of all.

Ratings that can be averaged are gaussian; a Likert scale of few steps is a cumulative logit model, since its means can
mislead (Liddell & Kruschke 2018), with the linear model beside it as a robustness line.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from scipy import linalg, stats

from contrafact import seeds
from contrafact.stats.equivalence import tost_contrast
from contrafact.stats.mixed import MIN_LEVELS, Contrast, Family, MixedFit, Random, contrast, fit
from contrafact.stats.multiplicity import adjusted, max_t
from contrafact.stats.statement import Statement

ARMS = ("treated", "sham", "placebo")
CONTRASTS = (*ARMS, "treated-sham", "treated-placebo")
UNITS: dict[Family, str] = {
    "gaussian": "rating points",
    "ordinal": "log-odds of a higher answer",
    "binary": "log-odds of choice",
}
UNIT = f"{UNITS['gaussian']} per SD of dose"
LINES: dict[Family, str] = {"gaussian": "linear", "ordinal": "ordinal", "binary": "logit"}
"""How the statement ids of a robustness line begin."""
DEMAND = "people who guess what is asked for would show a slope that grows along the list, or shrinks"
CROWDED = 0.2
"""More than this share of ratings at an end of the scale is told as a ceiling or floor."""

_SLOPES = {
    "treated": (Random("participant", "treated"), Random("image", "treated")),
    "sham": (Random("image", "sham"),),
    "placebo": (Random("draw", "placebo"),),
}


@dataclass(frozen=True)
class Test:
    """One claim about the dose slope of an arm, or of one arm minus another.

    ``margin`` (the unit of the estimate) is the bound of an equivalence test, None for a difference.
    """

    id: str
    direction: str
    question: str
    arm: str = "treated-sham"
    test: Literal["difference", "equivalence"] = "difference"
    alternative: Literal["two-sided", "greater", "less"] = "two-sided"
    margin: float | None = None
    alpha: float = 0.05
    family: str = "main"
    label: Literal["registered", "exploratory"] = "registered"


def analyse(
    table: pd.DataFrame,
    tests: Sequence[Test],
    seed: int,
    bounds: Mapping[str, tuple[float, float]] | None = None,
    *,
    estimators: Mapping[str, Sequence[Family]] | None = None,
    between: bool = False,
    corrections: Mapping[str, tuple[str, int]] | None = None,
    exploratory: bool = True,
) -> tuple[Statement, ...]:
    """Test the registered claims, and set beside them what is exploratory.

    Registered statements come first, in their order, with Holm's correction within each family (over all
    directions and questions of the study), or what ``corrections`` gives for a family: ``holm``, ``bh`` or ``k-fwer``
    with its k (:func:`~contrafact.stats.multiplicity.adjusted`), or ``joint``, which flips the signs of images' own
    effects on all claims at once (:func:`~contrafact.stats.multiplicity.max_t`). For every direction and question in the table follow the slopes and
    contrasts that nobody registered, the even components, a check that the treated slope is one straight line, and
    robustness lines: a by-image paired contrast, and the same claims by other estimators. Without ``exploratory`` none
    of this is computed. ``bounds`` gives the ends of the scale of a question; ``estimators`` the families
    of a question, the first for its claims, the others for robustness lines (gaussian alone where none is given);
    ``between`` says that each participant saw one arm. ``seed`` is that of the study, told with each statement
    (nothing here is random but the flips of a joint test). What cannot be estimated is a statement with NaN and the reason.
    """
    families = {str(question): tuple((estimators or {}).get(str(question), ("gaussian",))) for question in table["question"].unique()}
    cells = {(str(d), str(q)): rows for (d, q), rows in table.groupby(["direction", "question"], sort=True)}
    models = {
        (direction, question): _model(rows, (bounds or {}).get(question), families[question][0], between)
        for (direction, question), rows in cells.items()
    }
    empty = _Model(pd.DataFrame(columns=[*table.columns]), None, {}, ("no rating answers this question",))
    tested = [(test, models.get((test.direction, test.question), empty)) for test in tests]
    registered = _corrected(
        [_tested(test, model, seed) for test, model in tested], tests, corrections or {}, [model for _, model in tested]
    )
    if not exploratory:
        return tuple(registered)
    known = {(test.direction, test.question, test.arm) for test in tests}
    beside = [
        statement
        for (direction, question), model in models.items()
        for statement in _explored(model, direction, question, seed, known)
    ]
    lines = [
        replace(statement, id=f"{LINES[family]}-{statement.arm}-{direction}-{question}")
        for (direction, question), rows in cells.items()
        for family in families[question][1:]
        for statement in _again(_model(rows, None, family, between), direction, question, seed, known)
    ]
    return (*registered, *beside, *lines)


@dataclass(frozen=True)
class _Model:
    """The fit of one direction and question; ``reasons`` says why an arm is not in it."""

    rows: pd.DataFrame
    fitted: MixedFit | None
    reasons: dict[str, str]
    caveats: tuple[str, ...]
    even: bool = False
    family: Family = "gaussian"
    tied: bool = False
    unit: str = UNITS["gaussian"]
    knot: float = math.nan


@dataclass(frozen=True)
class Prepared:
    """The rows of one direction and question as the model sees them, and its terms; none where ``reasons`` forbid it.

    ``unit`` is that of an estimate, without the dose; ``knot`` that of the check of linearity (SD of dose). ``tied``: treated
    and sham have one column between them. ``contest``: rows are differences of pictures of one trial.
    """

    rows: pd.DataFrame
    arms: tuple[str, ...]
    fixed: str
    random: tuple[Random, ...]
    reasons: dict[str, str]
    caveats: tuple[str, ...]
    even: bool
    tied: bool = False
    knot: float = math.nan
    unit: str = UNITS["gaussian"]
    contest: bool = False


def prepare(table: pd.DataFrame, bounds: tuple[float, float] | None, family: Family, between: bool) -> Prepared:
    """The model of the claims on one direction and question, before it is fitted; arguments as for :func:`analyse`."""
    caveats = [*_exclusions(table)]
    rows = table[~table["excluded"].astype(bool)] if "excluded" in table else table
    if missing := int(rows["value"].isna().sum()):
        caveats.append(f"{missing} trials without an answer are left out")
        rows = rows[rows["value"].notna()]
    dose = rows["dose"].to_numpy(float)
    rows = rows.assign(**{arm: np.where(rows["arm"] == arm, dose, 0.0) for arm in ARMS})
    rows = rows.assign(**{f"even_{arm}": rows[arm].abs() for arm in ARMS})
    sizes = np.unique(rows.loc[rows["treated"] != 0, "treated"].abs())
    knot = float(sizes[(len(sizes) - 1) // 2]) if len(sizes) > 1 else math.nan
    rows = rows.assign(bend=np.sign(rows["treated"]) * np.maximum(rows["even_treated"] - knot, 0.0))
    contest = "chosen" in rows and bool(rows["chosen"].notna().any())
    caveats += _visible(rows, bounds, pairs=contest)
    scored = contest and family == "gaussian"
    unit = UNITS[family]
    if contest:
        several = "times" in rows and bool((rows["times"] == 2).any())
        rows = _scores(rows) if scored else _choices(rows)
        unit = ("best-worst score" if several else "share chosen") if scored else unit

    reasons: dict[str, str] = {}
    for name in ("participant", "image"):
        if rows[name].nunique() < MIN_LEVELS:
            reason = f"{rows[name].nunique()} of {name}: with fewer than {MIN_LEVELS}, nothing holds for new ones; add some"
            return Prepared(rows, (), "", (), dict.fromkeys(ARMS, reason), tuple(caveats), False)
    for arm in ARMS:
        moved = rows[rows[arm] != 0]
        group = "draw" if arm == "placebo" else "image"
        if moved.empty:
            reasons[arm] = f"no ratings in the arm '{arm}'"
        elif moved[group].nunique() < MIN_LEVELS:
            reasons[arm] = (
                f"{moved[group].nunique()} of {group} in the arm '{arm}', too few to tell one from all; "
                f"plan at least {MIN_LEVELS}"
            )
    arms = [arm for arm in ARMS if arm not in reasons]
    if tied := contest and {"treated", "sham"} <= set(arms) and bool((rows["treated"] == -rows["sham"]).all()):
        # Then both arms have one column between them, and its slope is what a treated picture is worth beyond a sham one.
        arms.remove("sham")
        caveats.append("treated and sham pictures are compared with each other alone, so only their difference is known")
    # With doses on one side only, dose and absolute dose are the same column.
    even = bool(arms) and all(rows[arm].nunique() > 2 and rows[arm].min() < 0 < rows[arm].max() for arm in arms)
    left = rows[rows["arm"].isin([*arms, "null"])]
    terms = [*arms, *(f"even_{arm}" for arm in arms if even and rows[f"even_{arm}"].any())]
    random = [term for arm in arms for term in _SLOPES[arm]]
    random = [Random("participant", "first"), *random] if scored else [Random("participant"), Random("image"), *random]
    if scored:
        terms = ["0", "first", *terms]
    if between:
        levels, own = _levels_of_arms(left, arms)
        left, terms = left.assign(**levels), [*terms, *list(levels)[1:]]
        random += [Random("participant", arm) for arm in arms if arm != "treated"]
        if own:
            caveats.append(own)
    fixed = f"value ~ {' + '.join(terms)}" if arms else ""
    return Prepared(left, tuple(arms), fixed, tuple(random), reasons, tuple(caveats), even, tied, knot, unit, contest)


def _model(table: pd.DataFrame, bounds: tuple[float, float] | None, family: Family, between: bool) -> _Model:
    ready = prepare(table, bounds, family, between)
    caveats = list(ready.caveats)
    try:
        if not ready.arms:
            raise ValueError("no arm can be estimated")
        fitted = fit(ready.rows, ready.fixed, ready.random, family=family)
    except ValueError as error:
        reasons = {arm: ready.reasons.get(arm, str(error)) for arm in ARMS}
        return _Model(ready.rows, None, reasons, ready.caveats, family=family, unit=ready.unit)
    if fitted.singular:
        caveats.append(f"variance estimated as zero, term kept: {', '.join(fitted.singular)}")
    if not fitted.converged:
        caveats.append("the fit did not converge, so no verdict is given")
    reasons = dict(ready.reasons)
    if ready.tied:
        reasons |= dict.fromkeys(("treated", "sham"), "the two arms were never compared with anything else")
    return _Model(ready.rows, fitted, reasons, tuple(caveats), ready.even, family, ready.tied, ready.unit, ready.knot)


def _choices(rows: pd.DataFrame) -> pd.DataFrame:
    """One row for each trial of two pictures: the first's columns less the second's, ``value`` 1 where it was chosen."""
    columns = [*ARMS, *(f"even_{arm}" for arm in ARMS), "bend"]
    if "times" in rows:
        rows = rows[(rows["times"] != 2) | (rows["value"] != 0)]
    rows = rows[rows.groupby("trial")["trial"].transform("size") == 2]
    ordered = rows.sort_values(["trial", "place"], kind="stable")
    first, second = (ordered.iloc[k::2].set_index("trial") for k in (0, 1))
    made = first.assign(**{name: first[name] - second[name] for name in columns}, value=first["chosen"].astype(float))
    if "times" in rows:
        made = made.assign(**{name: made[name] * made["times"] for name in columns})
    return made.assign(arm=_counted(made), draw=np.maximum(first["draw"], second["draw"])).reset_index()


def _scores(rows: pd.DataFrame) -> pd.DataFrame:
    """For each trial of J pictures its J - 1 Helmert contrasts of ``value``, the arms' columns and ``first``, being shown first."""
    columns = ["value", "first", *ARMS, *(f"even_{arm}" for arm in ARMS), "bend"]
    ordered = rows.assign(first=(rows["place"] == 0).astype(float)).sort_values(["trial", "place"], kind="stable")
    found = []
    for size, own in ordered.groupby(ordered.groupby("trial")["trial"].transform("size")):
        if size > 1:
            made = own.groupby("trial", sort=True).head(size - 1)
            wide = own[columns].to_numpy(float).reshape(-1, size, len(columns))
            contrasts = np.einsum("cj,tjk->tck", linalg.helmert(size), wide).reshape(-1, len(columns))
            contrasts[np.abs(contrasts) < 1e-12] = 0.0
            draw = np.repeat(own["draw"].to_numpy().reshape(-1, size).max(axis=1), size - 1)
            found.append(made.assign(**dict(zip(columns, contrasts.T, strict=True)), draw=draw))
    made = pd.concat(found) if found else ordered.head(0)
    return made.assign(arm=_counted(made)).reset_index(drop=True)


def _counted(made: pd.DataFrame) -> pd.Series:
    """Who is counted where: the arm of what was edited."""
    arm = pd.Series("null", index=made.index)
    for name in ARMS[::-1]:
        arm = arm.mask((made[name] != 0) | (made[f"even_{name}"] != 0), name)
    return arm


def written_out(table: pd.DataFrame, family: Family = "gaussian", *, between: bool = False) -> tuple[pd.DataFrame, str]:
    """The rows of one direction and question with every column of the model that tests its claims, and that model as a
    formula in lme4's notation (empty where nothing can be estimated): what :func:`contrafact.stats.fit` takes."""
    ready = prepare(table, None, family, between)
    used = dict.fromkeys(["participant", "image", "draw", "arm", "dose", *_columns(ready)])
    return ready.rows[[*used, "value"]], _formula(ready)


def _formula(ready: Prepared) -> str:
    brackets = [f"({'1' if term.slope is None else f'0 + {term.slope}'} | {term.group})" for term in ready.random]
    return " + ".join([ready.fixed, *brackets]) if ready.fixed else ""


def _columns(ready: Prepared) -> list[str]:
    return [name for name in ready.fixed.removeprefix("value ~ ").split(" + ") if name not in ("0", "")]


def reproduced(
    table: pd.DataFrame, arm: str, family: Family, *, between: bool = False, even: bool = False
) -> tuple[str, str]:
    """The formula of :func:`written_out` and the contrast of ``arm`` in it, as ``contrafact fit --contrast`` takes it, of the
    even component where asked; both empty where it cannot be estimated."""
    ready = prepare(table, None, family, between)
    parts = {"treated": 1.0} if ready.tied and arm == "treated-sham" else _parts(arm)
    if not set(parts) <= set(ready.arms) or (ready.tied and arm != "treated-sham"):
        return "", ""
    if even:
        parts = {f"even_{name}": weight for name, weight in parts.items()}
        if not set(parts) <= set(_columns(ready)):
            return "", ""
    return _formula(ready), ",".join(f"{name}={weight:g}" for name, weight in parts.items())


def _levels_of_arms(rows: pd.DataFrame, arms: Sequence[str]) -> tuple[dict[str, np.ndarray], str]:
    """A column for each arm, 1 where the row's participant is in it, and a sentence on people who saw several."""
    seen = rows[rows["arm"].isin(arms)].groupby("participant")["arm"]
    mixed = int((seen.nunique() > 1).sum())
    arm = rows["participant"].map(seen.first())
    columns = {f"in_{name}": (arm == name).to_numpy(float) for name in arms}
    return columns, f"{mixed} participants saw several arms, in a design between arms" if mixed else ""


def _parts(arm: str) -> dict[str, float]:
    first, *second = arm.split("-")
    return {first: 1.0, **dict.fromkeys(second, -1.0)}


def _blank(
    id: str, model: _Model, arm: str, direction: str, question: str, seed: int, *, even: bool = False
) -> Statement:
    """A statement about ``arm`` of which nothing is known yet but who was counted, and in which unit."""
    rows = model.rows[model.rows["arm"].isin([*_parts(arm), "null"])]
    unit = f"{model.unit} per SD of {'absolute ' if even else ''}dose"
    nan = math.nan
    return Statement(
        id=id, label="exploratory", arm=arm, estimate=nan, low=nan, high=nan, p=nan, p_adjusted=nan, equivalent=None,
        margin=nan, n_ratings=rows["trial"].nunique() if "first" in rows else len(rows), n_participants=rows["participant"].nunique(),
        n_images=rows["image"].nunique(), unit=unit, method="not estimable", seed=seed,
        caveats=model.caveats, direction=direction, question=question, component="even" if even else "odd",
    )  # fmt: skip


def _estimated(
    model: _Model, blank: Statement, level: float, alternative: Literal["two-sided", "greater", "less"]
) -> tuple[Statement, Contrast | None]:
    even = blank.component == "even"
    parts = _parts(blank.arm)
    if model.tied and blank.arm == "treated-sham" and not even and model.fitted is not None:
        parts, model = {"treated": 1.0}, replace(model, reasons={})
    reasons = [model.reasons[arm] for arm in parts if arm in model.reasons]
    if model.fitted is None and not reasons:
        reasons = ["not estimable"] if not model.caveats else []
    if even and model.fitted is not None and not reasons and not {f"even_{arm}" for arm in parts} <= set(model.fitted.params.index):
        reasons = ["doses lie on one side of 0 or are shown beside their mirror image, so odd and even cannot be told apart"]
    if reasons or model.fitted is None:
        return replace(blank, caveats=(*blank.caveats, *dict.fromkeys(reasons))), None
    weights = {f"even_{arm}" if even else arm: weight for arm, weight in parts.items()}
    found = contrast(model.fitted, weights, level=level, alternative=alternative)
    caveats = (*blank.caveats, found.note) if found.note else blank.caveats
    freedom = "Satterthwaite df" if model.family == "gaussian" else "df from the levels that each variance rests on"
    method = f"{model.fitted.method}; t({found.df:.1f}) = {found.t:.2f}, {freedom}"
    filled = replace(
        blank, estimate=found.estimate, low=found.low, high=found.high, p=found.p, se=found.se, df=found.df,
        level=level, method=method, caveats=caveats,
    )  # fmt: skip
    return filled, found


def _tested(test: Test, model: _Model, seed: int) -> Statement:
    blank = replace(_blank(test.id, model, test.arm, test.direction, test.question, seed), label=test.label)
    if test.test == "difference":
        return _estimated(model, blank, 1 - test.alpha, test.alternative)[0]
    margin = test.margin if test.margin is not None else math.nan
    filled, found = _estimated(model, replace(blank, margin=margin), 1 - 2 * test.alpha, "two-sided")
    if found is None:
        return filled
    lower, upper = tost_contrast(found, margin)
    method = f"{filled.method}; two one-sided tests, p above -margin {lower:.3g}, p below margin {upper:.3g}"
    return replace(filled, p=max(lower, upper), method=method)


def _corrected(
    statements: Sequence[Statement],
    tests: Sequence[Test],
    corrections: Mapping[str, tuple[str, int]],
    models: Sequence[_Model],
) -> list[Statement]:
    """The p of each family corrected; what is not estimable counts as a test that failed."""
    found = list(statements)
    for family in dict.fromkeys(test.family for test in tests):
        places = [place for place, test in enumerate(tests) if test.family == family]
        method, k = corrections.get(family, ("holm", 1))
        if method == "joint":
            known = [place for place in places if not math.isnan(statements[place].p)]
            effects = [_image_effects(models[place].rows, _parts(tests[place].arm)) for place in known]
            values, words = _jointly(effects, statements[0].seed, family)
            by_place = dict(zip(known, values, strict=True))
            p = [by_place.get(place, math.nan) for place in places]
        else:
            p = list(adjusted([statements[place].p for place in places], method, k))
            words = {"holm": "Holm", "bh": "Benjamini-Hochberg", "k-fwer": f"k-FWER (k = {k})"}[method]
        for place, value in zip(places, p, strict=True):
            statement, test = statements[place], tests[place]
            if math.isnan(statement.p):
                continue
            unsure = math.isnan(value) or any("did not converge" in caveat for caveat in statement.caveats)
            passed = None if unsure else bool(value <= test.alpha)
            found[place] = replace(
                statement,
                p_adjusted=float(value),
                verdict=passed,
                equivalent=passed if test.test == "equivalence" else None,
                method=f"{statement.method}; {words} over {len(places)} in family '{family}'",
            )
    return found


def _jointly(effects: Sequence[pd.Series], seed: int, family: str) -> tuple[list[float], str]:
    """Step-down p of all claims of a family from flipping images' signs, and how it was done."""
    wide = pd.concat(effects, axis=1, join="inner").dropna() if effects else pd.DataFrame()
    if len(wide) < MIN_LEVELS:
        return [math.nan] * len(effects), f"no joint test, since {len(wide)} images have every effect"
    found = max_t(wide.to_numpy(), seeds.generator(seed, "joint", family))
    patterns = "all" if found.exact else "random"
    return [float(p) for p in found.p], f"joint test of {len(wide)} images, {found.flips} {patterns} sign patterns,"


def _explored(
    model: _Model, direction: str, question: str, seed: int, known: set[tuple[str, str, str]]
) -> Iterator[Statement]:
    absent = {arm for arm in ARMS if not model.rows[arm].any()}
    about = (direction, question, seed)
    for arm in CONTRASTS:
        if absent & set(_parts(arm)):
            continue
        if (direction, question, arm) not in known:
            blank = _blank(f"slope-{arm}-{direction}-{question}", model, arm, *about)
            yield _estimated(model, blank, 0.95, "two-sided")[0]
        blank = _blank(f"even-{arm}-{direction}-{question}", model, arm, *about, even=True)
        yield _estimated(model, blank, 0.95, "two-sided")[0]
    yield _straight(model, _blank(f"linearity-treated-{direction}-{question}", model, "treated", *about))
    if "first" in model.rows:
        yield _learned(model, _blank(f"learning-treated-{direction}-{question}", model, "treated", *about))
    elif model.family != "binary":
        blank = _blank(f"demand-treated-{direction}-{question}", model, "treated", *about)
        yield _learned(model, replace(blank, caveats=(*blank.caveats, DEMAND)))
    if model.family == "binary":
        yield _accurate(model, _blank(f"accuracy-treated-{direction}-{question}", model, "treated", *about))
        yield _learned(model, _blank(f"learning-treated-{direction}-{question}", model, "treated", *about))
        yield _signs(model.rows, _blank(f"signs-treated-{direction}-{question}", model, "treated", *about))
    elif not absent & {"treated", "sham"}:
        blank = _blank(f"paired-treated-sham-{direction}-{question}", model, "treated-sham", *about)
        scored = model.unit if model.family == "gaussian" else UNITS["gaussian"]
        yield _paired(model.rows, replace(blank, unit=f"{scored} per SD of dose"))


def _straight(model: _Model, blank: Statement) -> Statement:
    """Spline check of linearity: how much the slope on the treated dose changes beyond the middle of its sizes.

    A linear spline, odd in the dose, with its knot at the middle of the doses' absolute values; the model is otherwise
    that of the claims. 0 is a straight line.
    """
    if model.fitted is None or math.isnan(model.knot):
        return replace(blank, caveats=(*blank.caveats, "a spline needs two sizes of dose at least"))
    return _with(model, model.fitted, blank, model.rows["bend"], f"slope beyond dose {model.knot:g} minus slope within")


def _accurate(model: _Model, blank: Statement) -> Statement:
    """How often the higher of two treated doses is the one chosen: log-odds against one half, over people and images."""
    blank = replace(blank, unit="log-odds of choosing the higher dose")
    rows = model.rows[model.rows["treated"] != 0]
    right = (np.sign(rows["treated"]) * (rows["value"] - 0.5) > 0).astype(float)
    try:
        again = fit(rows.assign(value=right), "value ~ 1", (Random("participant"), Random("image")), family="binary")
    except ValueError as error:
        return replace(blank, caveats=(*blank.caveats, str(error)))
    found = contrast(again, {"Intercept": 1.0})
    return replace(
        blank, estimate=found.estimate, low=found.low, high=found.high, p=found.p, se=found.se, df=found.df, level=0.95,
        n_ratings=len(rows), n_participants=rows["participant"].nunique(), n_images=rows["image"].nunique(),
        method=f"{again.method}; {right.mean():.1%} right, t({found.df:.1f}) = {found.t:.2f}",
    )  # fmt: skip


def _learned(model: _Model, blank: Statement) -> Statement:
    """Whether answers follow the dose more as the list goes on: the change of the treated slope over ten trials."""
    rows, fitted = model.rows, model.fitted
    if fitted is None or "position" not in rows or rows["position"].nunique() < 2:
        return replace(blank, caveats=(*blank.caveats, "the place of trials in their list is not known"))
    later = rows["treated"] * (rows["position"] - rows["position"].mean()) / 10
    return _with(model, fitted, replace(blank, unit=f"{blank.unit} per ten trials"), later, "change of the slope over ten trials")


def _with(model: _Model, fitted: MixedFit, blank: Statement, column: pd.Series, what: str) -> Statement:
    """The coefficient of one further column in the model of the claims."""
    try:
        again = fit(model.rows.assign(further=column), f"{fitted.formula} + further", fitted.random, family=model.family)
    except ValueError as error:
        return replace(blank, caveats=(*blank.caveats, str(error)))
    found = contrast(again, {"further": 1.0})
    return replace(
        blank, estimate=found.estimate, low=found.low, high=found.high, p=found.p, se=found.se, df=found.df, level=0.95,
        method=f"{again.method}; {what}, t({found.df:.1f}) = {found.t:.2f}",
    )  # fmt: skip


def _again(
    model: _Model, direction: str, question: str, seed: int, known: set[tuple[str, str, str]]
) -> Iterator[Statement]:
    """The claims on this direction and question, or the primary contrast where there is none, by another estimator."""
    claimed = [arm for arm in CONTRASTS if (direction, question, arm) in known] or ["treated-sham"]
    for arm in claimed:
        yield _estimated(model, _blank("", model, arm, direction, question, seed), 0.95, "two-sided")[0]


def _paired(rows: pd.DataFrame, blank: Statement) -> Statement:
    """One slope for each image and arm by least squares within participants, then a t test over images.

    It leans on no variance model, and takes images as the only sample: a robustness line, not the main one.
    """
    difference = _image_effects(rows, _parts(blank.arm))
    if len(difference) < MIN_LEVELS:
        return replace(blank, caveats=(*blank.caveats, f"{len(difference)} images have both arms; plan {MIN_LEVELS}"))
    rows = rows[rows["arm"].isin((*_parts(blank.arm), "null")) & rows["image"].isin(difference.index)]
    n = len(difference)
    test = stats.ttest_1samp(difference, 0.0)
    low, high = test.confidence_interval(0.95)
    return replace(
        blank, estimate=float(difference.mean()), low=float(low), high=float(high), p=float(test.pvalue),
        se=float(stats.sem(difference)), df=float(n - 1), n_ratings=len(rows), n_images=n,
        n_participants=rows["participant"].nunique(),
        method=f"paired slopes of each image, least squares within participants; t({n - 1}) = {test.statistic:.2f}",
    )  # fmt: skip


def _image_effects(rows: pd.DataFrame, parts: Mapping[str, float]) -> pd.Series:
    """The contrast of each image that has all its arms: dose slopes by least squares within participants, weighted."""
    rows = rows[rows["arm"].isin((*parts, "null"))]
    if rows.empty:
        return pd.Series(dtype=float)
    both = rows.groupby("image")[list(parts)].nunique().min(axis=1) >= 2
    rows = rows[rows["image"].isin(both[both].index)]
    image = pd.get_dummies(rows["image"], dtype=float)
    participant = pd.get_dummies(rows["participant"], dtype=float, drop_first=True).to_numpy()
    slopes = [image.to_numpy() * rows[[arm]].to_numpy() for arm in parts]
    y = rows["value"].to_numpy(float)
    found, *_ = np.linalg.lstsq(np.hstack([*slopes, image.to_numpy(), participant]), y, rcond=None)
    n = image.shape[1]
    effect = sum(weight * found[k * n : (k + 1) * n] for k, weight in enumerate(parts.values()))
    return pd.Series(effect, index=image.columns)


def _signs(rows: pd.DataFrame, blank: Statement) -> Statement:
    """Exact sign test: the share of participants who choose with the dose more often than against it.

    It leans on no model, and takes participants as the only sample: a robustness line, not the main one.
    """
    own = rows[rows["treated"] != 0]
    means = (np.sign(own["treated"]) * (own["value"] - 0.5)).groupby(own["participant"]).mean()
    means = means[means != 0]
    if means.empty:
        return replace(blank, unit="share of participants", caveats=(*blank.caveats, "nobody leans to either side"))
    test = stats.binomtest(int((means > 0).sum()), len(means))
    interval = test.proportion_ci(0.95)
    return replace(
        blank, estimate=float(test.statistic), low=float(interval.low), high=float(interval.high), p=float(test.pvalue),
        n_ratings=len(own), n_images=own["image"].nunique(), n_participants=len(means),
        unit="share of participants", method="exact sign test on participants' means against one half",
    )  # fmt: skip


def _exclusions(table: pd.DataFrame) -> Iterator[str]:
    """Do exclusions fall on one arm more than on another?"""
    if "excluded" not in table or not table["excluded"].any():
        return
    counts = pd.crosstab(table["arm"], table["excluded"].astype(bool))
    yield f"{int(table['excluded'].sum())} of {len(table)} ratings are excluded by registered rules"
    if counts.shape == (1, 2) or counts.shape[1] < 2:
        return
    p = stats.chi2_contingency(counts).pvalue
    if p < 0.01:
        yield f"exclusions differ by arm (chi-squared, p = {p:.3g}): the arms may no longer compare like with like"


def _visible(rows: pd.DataFrame, bounds: tuple[float, float] | None, *, pairs: bool) -> Iterator[str]:
    """What the table itself tells against reading a slope as planned."""
    if bounds is not None and len(rows):
        for end, name in zip(bounds, ("floor", "ceiling"), strict=True):
            share = float((rows["value"] == end).mean())
            if share > CROWDED:
                yield f"{share:.0%} of ratings are at the {name} of the scale"
    grids = {arm: set(rows.loc[rows["arm"] == arm, "dose"]) for arm in ARMS}
    for arm in ("sham", "placebo"):
        if grids[arm] and grids["treated"] and grids[arm] != grids["treated"]:
            yield f"the doses of '{arm}' are not those of 'treated'"
    if grids["treated"] and not pairs and not (rows["arm"] == "null").any():
        yield "no dose 0 was rated: the arms have no common zero"
    images = {arm: set(rows.loc[rows["arm"] == arm, "image"]) for arm in ("treated", "sham")}
    if images["sham"] and (unmatched := len(images["treated"] ^ images["sham"])):
        yield f"{unmatched} images were rated in only one of treated and sham"
    if len(rows) and rows.groupby("participant").size().max() > 0.25 * len(rows):
        yield "one participant gave more than a quarter of all ratings"


def by_dose(table: pd.DataFrame) -> pd.DataFrame:
    """Mean rating of each arm at each dose, for a figure: ``arm``, ``dose``, ``mean``, ``low``, ``high``, ``n``.

    ``table`` is one direction and question. Levels of people and of images are taken out first (within-design
    intervals, Cousineau 2005); the 95% interval is clustered both ways, by people and by images (Cameron, Gelbach &
    Miller 2011), with the smaller number of clusters less one as df. Fewer than two clusters: NaN bounds.
    """
    rows = table[~table["excluded"].astype(bool)] if "excluded" in table else table
    rows = rows[rows["value"].notna() & rows["arm"].isin((*ARMS, "null"))]
    value, grand = rows["value"].astype(float), float(rows["value"].mean())
    level = value.copy()
    for unit in ("image", "participant", "image", "participant"):
        level -= level.groupby(rows[unit]).transform("mean")
    found = []
    for (arm, dose), cell in rows.assign(level=level + grand).groupby(["arm", "dose"], sort=True):
        mean, n = float(cell["level"].mean()), len(cell)
        rest = cell["level"] - mean
        sums = [
            float((rest.groupby([cell[unit] for unit in units]).sum() ** 2).sum()) / n**2
            for units in (["participant"], ["image"], ["participant", "image"])
        ]
        clusters = min(cell["participant"].nunique(), cell["image"].nunique())
        half = math.nan
        if clusters > 1:
            variance = max(sums[0] + sums[1] - sums[2], *sums[:2])
            half = math.sqrt(variance) * float(stats.t.ppf(0.975, clusters - 1))
        found.append((arm, dose, mean, mean - half, mean + half, n))
    return pd.DataFrame(found, columns=["arm", "dose", "mean", "low", "high", "n"])
