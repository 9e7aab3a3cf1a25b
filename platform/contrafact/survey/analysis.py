"""The analysis that a study file asks for: its hypotheses, and the estimators that its design and scales call for."""

from __future__ import annotations

import pandas as pd

from contrafact.stats.dose import Test, analyse
from contrafact.stats.mixed import Family
from contrafact.stats.statement import Statement
from contrafact.study.schema import Question, Study
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


def statements(study: Study, table: pd.DataFrame) -> tuple[Statement, ...]:
    """Every claim of the study tested on a table of ratings (see ``stats.dose``), and what is set beside them."""
    assert study.survey is not None
    tests = [
        Test(h.id, h.direction, h.question, h.arm, h.test, h.alternative, h.margin, h.alpha, h.family) for h in study.hypotheses
    ]
    asked = study.survey.questions
    return analyse(
        table, tests, study.seed, {question.name: SCALES[question.scale] for question in asked},
        estimators={question.name: estimators(study, question) for question in asked},
    )  # fmt: skip
