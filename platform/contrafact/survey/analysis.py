"""The analysis that a study file asks for: its hypotheses, and the estimators that its design and scales call for."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import pandas as pd

from contrafact.stats.dose import Test, analyse, weights, written_out
from contrafact.stats.mixed import Family
from contrafact.stats.statement import Statement
from contrafact.study.schema import Hypothesis, Question, Study
from contrafact.survey.batch import SCALES

LIKERT: tuple[Family, ...] = ("ordinal", "gaussian")


def estimators(study: Study, question: Question) -> tuple[Family, ...]:
    """The family of a question's claims, and behind it those of its robustness lines.

    A slider can be averaged: the linear mixed model, with paired slopes of each image beside it. Seven steps cannot be
    without a further assumption: the cumulative logit mixed model, with the linear one beside it.
    """
    if question.scale == "vas":
        return ("gaussian",)
    return LIKERT if study.estimator(question.name) == "ordinal" else LIKERT[::-1]


def statements(study: Study, table: pd.DataFrame, *, exploratory: bool = True) -> tuple[Statement, ...]:
    """Every claim of the study tested on a table of ratings (see ``stats.dose``), and what is set beside them."""
    assert study.survey is not None
    tests = [
        Test(h.id, h.direction, h.question, h.arm, h.test, h.alternative, h.margin, h.alpha, h.family) for h in study.hypotheses
    ]
    asked = study.survey.questions
    return analyse(
        table, tests, study.seed, {question.name: SCALES[question.scale] for question in asked},
        estimators={question.name: estimators(study, question) for question in asked},
        corrections={name: (one.method, one.k) for name, one in study.analysis.families.items()},
        exploratory=exploratory,
    )  # fmt: skip


def call(study: Study, hypothesis: Hypothesis, table: pd.DataFrame) -> str:
    """The command that reproduces a claim's estimate from the table of :func:`model_tables`, '' where there is none."""
    rows = table[(table["direction"] == hypothesis.direction) & (table["question"] == hypothesis.question)]
    family = _family(study, hypothesis.question)
    formula = written_out(rows, family)[1] if len(rows) else ""
    if not set(hypothesis.arm.split("-")) <= set(formula.split(" ")):
        return ""
    words = ["contrafact", "fit", _file(hypothesis.direction, hypothesis.question), "--formula", formula]
    words += ["--family", family, "--contrast", weights(hypothesis.arm)]
    return shlex.join(words)


def model_tables(study: Study, table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """For each direction and question the rows that its model was fitted to, with a file's name; people are numbered."""
    for (direction, question), rows in table.groupby(["direction", "question"], sort=True):
        made, _ = written_out(rows, _family(study, str(question)))
        numbers, _ = pd.factorize(made["participant"])  # in the order of lists, whatever the ids
        yield _file(str(direction), str(question)), made.assign(participant=[f"p{n + 1:04d}" for n in numbers])


def _family(study: Study, question: str) -> Family:
    return "ordinal" if study.estimator(question) == "ordinal" else "gaussian"


def _file(direction: str, question: str) -> str:
    return f"ratings-{direction}-{question}.csv"
