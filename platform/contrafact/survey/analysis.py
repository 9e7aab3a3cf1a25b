"""The analysis that a study file asks for: its hypotheses, and the estimators that its design and scales call for."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import replace

import pandas as pd

from contrafact.stats.dose import Test, analyse, weights, written_out
from contrafact.stats.mixed import Family
from contrafact.stats.statement import Statement
from contrafact.study.schema import NUMBERS, PLACES, Hypothesis, Question, Study
from contrafact.survey.design import UNCHANGED

UNREAD = "no estimator reads choices between two edited pictures, guesses or best-worst sets; their table is kept"
LIKERT: tuple[Family, ...] = ("ordinal", "gaussian")


def estimators(study: Study, question: Question) -> tuple[Family, ...]:
    """The family of a question's claims, and behind it those of its robustness lines.

    A slider can be averaged: the linear mixed model, with paired slopes of each image beside it. Seven steps cannot be
    without a further assumption: the cumulative logit mixed model, with the linear one beside it. Choices between a
    picture and its own dose 0: the logit mixed model.
    """
    if question.scale == "vas":
        return ("gaussian",)
    if question.scale in PLACES:
        return ("binary",)
    return LIKERT if study.estimator(question.name) == "ordinal" else LIKERT[::-1]


def evidence(ratings: pd.DataFrame, choices: pd.DataFrame) -> pd.DataFrame:
    """One row an answer, as ``stats.dose`` reads them: ``ratings`` as they are (``Store.ratings_table``), and of each
    choice (``Store.choices_table``) between an edited picture and its own unchanged one the edited one's row, with
    ``value`` 1 where it was chosen, else 0, and ``first`` 1 where it stood on the left. Other choices are left out."""
    if choices.empty:
        return ratings
    edited = choices[~choices["arm"].isin(UNCHANGED) & (choices["scale"] == "choice")]
    edited = edited[edited.groupby("rating_id")["arm"].transform("size") == 1]
    rows = edited.assign(value=edited["chosen"].astype(float), first=(edited["place"] == 0).astype(float))
    return pd.concat([ratings, rows]) if len(ratings) else rows


def statements(study: Study, table: pd.DataFrame, *, exploratory: bool = True) -> tuple[Statement, ...]:
    """Every claim of the study tested on a table of ratings (see ``stats.dose``), and what is set beside them."""
    assert study.survey is not None
    tests = [
        Test(h.id, h.direction, h.question, h.arm, h.test, h.alternative, h.margin, h.alpha, h.family) for h in study.hypotheses
    ]
    asked = [question for question in study.survey.asked if question.scale in NUMBERS or question.scale in PLACES]
    unread = {q.name for q in study.survey.questions if q.scale in ("choice", "best_worst")} - set(table["question"])
    found = analyse(
        table, tests, study.seed, {question.name: NUMBERS.get(question.scale, (0.0, 1.0)) for question in asked},
        estimators={question.name: estimators(study, question) for question in asked},
        between=_between(study),
        corrections={name: (one.method, one.k) for name, one in study.analysis.families.items()},
        exploratory=exploratory,
    )  # fmt: skip
    return tuple(replace(one, caveats=(UNREAD,)) if one.question in unread else one for one in found)


def call(study: Study, hypothesis: Hypothesis, table: pd.DataFrame) -> str:
    """The command that reproduces a claim's estimate from the table of :func:`model_tables`, '' where there is none."""
    rows = table[(table["direction"] == hypothesis.direction) & (table["question"] == hypothesis.question)]
    family = _family(study, hypothesis.question)
    formula = written_out(rows, family, between=_between(study))[1] if len(rows) else ""
    if not set(hypothesis.arm.split("-")) <= set(formula.split(" ")):
        return ""
    words = ["contrafact", "fit", _file(hypothesis.direction, hypothesis.question), "--formula", formula]
    words += ["--family", family, "--contrast", weights(hypothesis.arm)]
    return shlex.join(words)


def model_tables(study: Study, table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """For each direction and question the rows that its model was fitted to, with a file's name; people are numbered."""
    for (direction, question), rows in table.groupby(["direction", "question"], sort=True):
        made, _ = written_out(rows, _family(study, str(question)), between=_between(study))
        numbers, _ = pd.factorize(made["participant"])  # in the order of lists, whatever the ids
        yield _file(str(direction), str(question)), made.assign(participant=[f"p{n + 1:04d}" for n in numbers])


def _between(study: Study) -> bool:
    return study.survey is not None and study.survey.design == "between_arm"


def _family(study: Study, question: str) -> Family:
    assert study.survey is not None
    return estimators(study, next(one for one in study.survey.asked if one.name == question))[0]


def _file(direction: str, question: str) -> str:
    return f"ratings-{direction}-{question}.csv"
