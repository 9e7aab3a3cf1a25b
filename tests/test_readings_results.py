"""What may be said of a claim, and how numbers are written."""

import math
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from contrafact.readings.figures import components, dose_response, judge_by_dose, number
from contrafact.readings.results import claim, p_value, reading, statement_table
from contrafact.stats.statement import Statement
from contrafact.study.schema import Hypothesis, Study

WANTED = Hypothesis(id="H1", claim="Smiles please.", direction="smile", question="kind")
NAN = math.nan


def statement(**fields: Any) -> Statement:
    base = Statement(
        id="H1", label="registered", arm="treated-sham", estimate=-0.004, low=-1.25, high=1.5, p=0.0421, p_adjusted=0.0842,
        equivalent=None, margin=NAN, n_ratings=900, n_participants=30, n_images=20,
        unit="rating points per SD of dose", method="m", seed=1, verdict=False, direction="smile", question="kind",
    )  # fmt: skip
    return replace(base, **fields)


def test_numbers_are_written_for_people() -> None:
    assert number(-1.234) == "−1.23" and number(-0.004) == "0.00" and number(NAN) == "not estimable"
    assert number(None) == number(math.inf) == "not estimable"
    assert (p_value(0.0004), p_value(0.0421), p_value(1.0), p_value(0.20), p_value(NAN)) == (
        "p < .001", "p = .042", "p = 1.000", "p = .200", "not estimable",
    )  # fmt: skip


def test_each_verdict_has_its_sentence() -> None:
    against = claim(WANTED, [statement()])
    assert against.verdict == "not supported"
    assert against.sentence == (
        "The data do not support the claim “Smiles please”: the dose slope (treated minus sham) is 0.00 rating points "
        "per SD of dose, 95% interval −1.25 to 1.50, p = .084; 30 participants, 20 images."
    )
    unknown = claim(WANTED, [statement(verdict=None, estimate=NAN, low=NAN, caveats=("no ratings in the arm 'sham'",))])
    assert unknown.verdict == "not estimable" and unknown.sentence.endswith("no ratings in the arm 'sham'.")
    untested = claim(WANTED, [], ["The judge is at chance."])
    assert untested.verdict == "not tested" and untested.sentence.endswith("The judge is at chance.")
    # An exploratory statement can never answer a registered claim.
    assert claim(WANTED, [statement(label="exploratory", verdict=True)]).verdict == "not tested"
    apart = claim(WANTED, [statement(equivalent=False, margin=1.0, level=0.9)])
    assert "90% interval" in apart.sentence and "not shown to lie within the margin of ±1.00" in apart.sentence


def test_statement_table_tells_registered_from_exploratory() -> None:
    rows = statement_table(
        [statement(), statement(id="E", label="exploratory", verdict=None, p_adjusted=NAN), statement(low=NAN)], "all"
    ).rows
    assert rows[0][-1] == "not supported" and rows[1][-1] == "exploratory" and rows[1][7] == "none"
    assert rows[2][5] == "not estimable"


def test_statements_survive_the_way_through_json() -> None:
    once = statement(p_adjusted=NAN, caveats=("one", "two"))
    facts = once.facts()
    assert facts["p_adjusted"] is None and facts["margin"] is None and facts["equivalent"] is None
    again = Statement.of(facts)
    assert again.caveats == ("one", "two") and math.isnan(again.p_adjusted) and again.equivalent is None
    assert again.facts() == facts


def test_figures_say_what_is_seen() -> None:
    means = pd.DataFrame(
        [("null", 0.0, 50.0, 49.0, 51.0, 9), ("treated", -1.0, 40.0, 38.0, 42.0, 9), ("treated", 1.0, 60.0, NAN, NAN, 9)],
        columns=["arm", "dose", "mean", "low", "high", "n"],
    )
    drawn = dose_response(means, "How kind?", "smile")
    assert "treated goes from 40.0 at dose −1.00 to 60.0 at dose 1.00" in drawn.alt and drawn.svg.startswith("<?xml")
    assert dose_response(means, "How kind?", "smile").svg == drawn.svg, "the same numbers give the same bytes"
    lost = components([statement(), statement(arm="sham", estimate=NAN, low=NAN, high=NAN)])
    assert "odd component of sham not estimable" in lost.alt
    read = pd.DataFrame({"arm": ["treated"] * 2, "dose": [-1.0, 1.0], "judge": [-0.9, NAN]})
    assert "−1.00 gives −0.90, 1.00 gives not estimable" in judge_by_dose(read, "smile").alt


def test_missing_facts_are_named_not_guessed() -> None:
    study = Study(study="bare", title="A bare study")
    bare = reading(study, {})
    assert bare.claims == () and bare.truth is None and len(bare.absent) == 5
    partial = reading(study, {"gate": {"quality": {"judge_slope": None, "strange_new_measure": 3}}})
    assert {row[0]: row[1] for row in partial.quality[0].rows} == {
        "judge: SD moved per SD requested": "not estimable", "strange new measure": "3",
    }  # fmt: skip


@pytest.mark.parametrize("stage", ["predict", "gate"])
def test_advice_belongs_to_the_stage_that_stopped(stage: str) -> None:
    study = Study(study="bare", title="A bare study")
    found = reading(study, {stage: {"stopped": "It stopped."}})
    assert found.stopped == ("It stopped.",) and found.advice
    assert ("labelled images" in found.advice[0]) == (stage == "predict")
