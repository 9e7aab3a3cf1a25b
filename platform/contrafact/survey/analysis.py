"""The analysis that a study file asks for: its hypotheses, and the estimators that its design and scales call for."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from contrafact.stats.dose import Test, analyse, reproduced, written_out
from contrafact.stats.mixed import Family
from contrafact.stats.moderation import heterogeneity, mediation
from contrafact.stats.statement import Statement
from contrafact.study.schema import ESTIMATORS, NUMBERS, Question, Study

EVIDENCE = (
    "direction", "question", "participant", "trial", "position", "place", "image", "arm", "draw", "dose", "value", "times",
    "chosen", "excluded",
)  # fmt: skip
"""The columns that claims are tested on."""
PLAN, ANSWERS, COVARIATES = "plan.json", "answers.csv", "covariates.csv"
"""Files from which the analysis is done again."""
FAMILIES: dict[str, Family] = {"linear": "gaussian", "ordinal": "ordinal", "logit": "binary"}


def estimators(study: Study, question: Question) -> tuple[Family, ...]:
    """The family of a question's claims, and behind it those of its robustness lines.

    A slider can be averaged: the linear mixed model, with paired slopes of each image beside it. Seven steps cannot be
    without a further assumption: the cumulative logit mixed model, with the linear one beside it. Choices of two are a
    logit mixed model of what each picture is worth, with the linear one and a sign test of participants beside it. Best and
    worst are scores, and those a linear mixed model, with the logit one beside it.
    """
    first = study.estimator(question.name)
    return tuple(FAMILIES[one] for one in (first, *(other for other in ESTIMATORS[question.scale] if other != first)))


def evidence(ratings: pd.DataFrame, choices: pd.DataFrame) -> pd.DataFrame:
    """The rows that ``stats.dose`` reads: ``ratings`` as they are (``Store.ratings_table``), and every picture of each
    choice (``Store.choices_table``), ``value`` 1 for the chosen one, else 0. A best and a worst are one trial, under the
    name of their question, with ``times`` 2 and ``value`` -1 for the worst; trials without both are left out."""
    pairs = choices[choices["scale"] == "choice"]
    ends = choices[choices["scale"].isin(("best", "worst"))].assign(
        question=lambda table: table["question"].str.replace("_(best|worst)$", "", regex=True)
    )
    score: pd.Series = ends["chosen"].astype(float) * np.where(ends["scale"] == "best", 1.0, -1.0)
    ends = ends.assign(value=score.groupby([ends["trial"], ends["question"], ends["place"]]).transform("sum"))
    named = ends["chosen"].astype(float).groupby([ends["trial"], ends["question"]]).transform("sum") == 2
    apart = ends["value"].abs().groupby([ends["trial"], ends["question"]]).transform("sum") == 4  # two rows a picture
    ends = ends[named & apart & (ends["scale"] == "best")]
    parts = [ratings, pairs.assign(value=pairs["chosen"].astype(float), times=1.0), ends.assign(times=2.0)]
    kept = [one for one in parts if len(one)]
    return pd.concat(kept, ignore_index=True) if kept else ratings


def statements(
    study: Study, table: pd.DataFrame, covariates: pd.DataFrame | None = None, *, exploratory: bool = True
) -> tuple[Statement, ...]:
    """Every claim of the study tested on a table of ratings (see ``stats.dose``), and what is set beside them; last, where
    rules exclude some answers, the claims on everybody's.

    ``covariates`` has a row for each image and a column for each covariate that ``analysis.heterogeneity`` names.
    """
    assert study.survey is not None
    tests = [
        Test(h.id, h.direction, h.question, h.arm, h.test, h.alternative, h.margin, h.alpha, h.family) for h in study.hypotheses
    ]
    asked = [question for question in study.survey.questions if question.scale != "text"]
    found = analyse(
        table, tests, study.seed, {question.name: NUMBERS[question.scale] for question in asked if question.scale in NUMBERS},
        estimators={question.name: estimators(study, question) for question in asked},
        between=_between(study),
        corrections={name: (one.method, one.k) for name, one in study.analysis.families.items()},
        exploratory=exploratory,
    )  # fmt: skip
    if not exploratory:
        return found
    everybody: tuple[Statement, ...] = ()
    if "excluded" in table and table["excluded"].any():
        everybody = statements(study, table.assign(excluded=False), exploratory=False)
    return (*found, *_companions(study, table, covariates), *map(_without_exclusions, everybody))


def _without_exclusions(statement: Statement) -> Statement:
    return replace(
        statement, id=f"all-{statement.id}", label="exploratory", p_adjusted=math.nan, verdict=None, equivalent=None,
        caveats=("nobody is excluded here, for comparison", *statement.caveats),
    )  # fmt: skip


def _companions(study: Study, table: pd.DataFrame, covariates: pd.DataFrame | None) -> Iterator[Statement]:
    """For whom and by which way, where the study asks."""
    wanted, check, between = list(study.analysis.heterogeneity), study.analysis.manipulation_check, _between(study)
    for (direction, question), rows in table.groupby(["direction", "question"], sort=True):
        family = _family(study, str(question))
        if wanted and covariates is not None:
            yield from heterogeneity(rows, covariates[wanted], family, study.seed, between=between)
        through = table[(table["direction"] == direction) & (table["question"] == check)]
        if len(through) and question != check:
            yield mediation(rows, through, family, study.seed, between=between)


def calls(study: Study, table: pd.DataFrame, found: Sequence[Statement]) -> dict[str, str]:
    """For each statement the command that reproduces it from the files of :func:`tables`: the model itself for each slope
    and each even component, registered or not, that can be estimated; the whole analysis for what comes from another one."""
    registered, commands = {h.id for h in study.hypotheses}, {}
    again = ["contrafact", "statements", PLAN, ANSWERS, *(["--covariates", COVARIATES] if study.analysis.heterogeneity else [])]
    for statement in found:
        own = statement.id in registered or statement.id.startswith(("slope-", "even-"))
        rows = table[(table["direction"] == statement.direction) & (table["question"] == statement.question)]
        words = [*again, "--id", statement.id]
        if own and len(rows):
            family, even = _family(study, statement.question), statement.component == "even"
            formula, contrast = reproduced(rows, statement.arm, family, between=_between(study), even=even)
            if formula:
                file = _file(statement.direction, statement.question)
                words = ["contrafact", "fit", file, "--formula", formula, "--family", family, "--contrast", contrast]
        commands[statement.id] = shlex.join(words)
    return commands


def tables(study: Study, table: pd.DataFrame, covariates: pd.DataFrame | None = None) -> Iterator[tuple[str, pd.DataFrame]]:
    """What :func:`calls` read, with the files' names; people are numbered.

    All answers that claims are tested on; for each direction and question the rows that its model was fitted to; the
    covariates that the study asks about.
    """
    yield ANSWERS, _numbered(table[[name for name in EVIDENCE if name in table]])
    for (direction, question), rows in table.groupby(["direction", "question"], sort=True):
        made, _ = written_out(rows, _family(study, str(question)), between=_between(study))
        yield _file(str(direction), str(question)), _numbered(made)
    if covariates is not None and study.analysis.heterogeneity:
        yield COVARIATES, covariates.rename_axis("image").reset_index()


def _numbered(rows: pd.DataFrame) -> pd.DataFrame:
    numbers, _ = pd.factorize(rows["participant"])  # in the order of lists, whatever the ids
    made = rows.assign(participant=[f"p{n + 1:04d}" for n in numbers])
    return made.assign(chosen=made["chosen"].astype(float)) if "chosen" in made else made


def _between(study: Study) -> bool:
    return study.survey is not None and study.survey.design == "between_arm"


def _family(study: Study, question: str) -> Family:
    assert study.survey is not None
    return estimators(study, next(one for one in study.survey.questions if one.name == question))[0]


def _file(direction: str, question: str) -> str:
    return f"ratings-{direction}-{question}.csv"
