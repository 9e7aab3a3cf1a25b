"""The estimator that a study file asks for is the one that analysis, registration and report name."""

from pathlib import Path

import pytest

from contrafact import study
from contrafact.errors import Mistakes
from contrafact.report.methods import methods
from contrafact.survey.analysis import estimators

TEXT = """\
study: scales
title: Three scales
world: {}
images: {covariates: {skin: {}}}
directions:
  up: {hold: [skin]}
survey:
  questions:
    - {name: trust, text: How trustworthy?}
    - {name: seven, text: How bright is it?, scale: likert7}
    - {name: averaged, text: How dark is it?, scale: likert7}
  respondents: {}
hypotheses:
  - {id: H1, claim: It raises trust., direction: up, question: trust, primary: true}
  - {id: H2, claim: It raises brightness., direction: up, question: seven, arm: sham, test: equivalence, margin: 0.2}
analysis: {estimators: {averaged: linear}}
"""


def loaded(folder: Path, text: str = TEXT) -> study.LoadedStudy:
    path = folder / "scales.yaml"
    path.write_text(text)
    return study.load(path)


def test_the_scale_chooses_and_the_study_may_choose_otherwise(tmp_path: Path) -> None:
    found = loaded(tmp_path)
    assert found.study.survey is not None
    assert [estimators(found.study, question) for question in found.study.survey.questions] == [
        ("gaussian",), ("ordinal", "gaussian"), ("gaussian", "ordinal"),
    ]  # fmt: skip
    plan = study.registration_payload(found, {"models": {}, "stimuli": ""})["plan"]
    assert "linear mixed model" in plan[0]["method"]
    assert "cumulative logit mixed model" in plan[1]["method"] and "±0.2 log-odds" in plan[1]["method"]
    text = dict(methods(found.study, {}, ()))["Analysis"]
    assert "“seven” was analysed by a cumulative logit mixed model" in text
    assert "“averaged” was analysed by a linear mixed model" in text


@pytest.mark.parametrize(
    ("estimators", "sentence"),
    [
        ("{trust: ordinal}", "a slider from 0 to 100"),
        ("{sevn: linear}", "seven"),
        ("{seven: probit}", "ordinal"),
        ("{seven: logit}", "'logit' for scale likert7"),
    ],
)
def test_an_estimator_that_cannot_be_is_told(tmp_path: Path, estimators: str, sentence: str) -> None:
    with pytest.raises(Mistakes) as caught:
        loaded(tmp_path, TEXT.replace("{averaged: linear}", estimators))
    (mistake,) = map(str, caught.value.mistakes)
    assert "analysis.estimators" in mistake and sentence in mistake and ":16" in mistake


def test_whom_and_by_which_way_is_asked_in_the_study_file(tmp_path: Path) -> None:
    asked = TEXT.replace("analysis: {", "analysis: {heterogeneity: [skin], manipulation_check: seven, ")
    text = dict(methods(loaded(tmp_path, asked).study, {}, ()))["Analysis"]
    assert "differs with skin of the images" in text and "“seven” is the manipulation check" in text
    for given, sentence in (("heterogeneity: [skins]", "skin"), ("manipulation_check: sevn", "seven")):
        with pytest.raises(Mistakes) as caught:
            loaded(tmp_path, TEXT.replace("analysis: {", f"analysis: {{{given}, "))
        assert sentence in str(caught.value.mistakes[0])


def test_a_family_is_corrected_as_the_study_says(tmp_path: Path) -> None:
    with_bh = TEXT.replace("analysis: {", "analysis: {families: {main: {method: bh}}, ")
    found = loaded(tmp_path, with_bh)
    assert study.registration_payload(found, {"models": {}, "stimuli": ""})["plan"][0]["correction"] == (
        "Benjamini and Hochberg over H1, H2"
    )
    assert "Benjamini and Hochberg within the family “main”" in dict(methods(found.study, {}, ()))["Analysis"]
    for how, sentence in (
        ("{mian: {method: bh}}", "main"),
        ("{main: {method: joint}}", "two-sided differences"),
        ("{main: {method: bh, k: 2}}", "k-fwer"),
    ):
        with pytest.raises(Mistakes) as caught:
            loaded(tmp_path, TEXT.replace("analysis: {", f"analysis: {{families: {how}, "))
        assert sentence in str(caught.value.mistakes[0])
