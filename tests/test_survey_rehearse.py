"""A study rehearsed: its own lists, people, exclusions and analysis, before anything is spent."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from contrafact import cli, study
from contrafact.study.schema import Study
from contrafact.survey import rehearse

TEXT = """\
study: planned
title: A planned study
world: {}
directions:
  up: {}
doses: {grid: [0, 1]}
arms: {sham: false, placebo: 0, images: 10}
survey:
  participants: 16
  trials_per_participant: 20
  attention_trials: 0
  questions:
    - {name: trust, text: How trustworthy?}
  respondents: {slope: 5, lapse: 0, inattentive: 0, participant_slope_sd: 6, image_slope_sd: 5, noise_sd: 12}
  pay: {hourly: 12, minutes: 10, fee_share: 0.5}
hypotheses:
  - {id: H1, claim: It raises trust., direction: up, question: trust, arm: treated, primary: true}
"""


def planned(folder: Path, *edits: tuple[str, str]) -> tuple[Path, Study]:
    text = TEXT
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    path = folder / "planned.yaml"
    path.write_text(text)
    return path, study.load(path).study


@pytest.mark.slow
def test_simulation_agrees_with_the_closed_form(tmp_path: Path) -> None:
    _, plan = planned(tmp_path)
    closed = rehearse.closed_form(plan, rehearse.assumed(plan), plan.hypotheses[0], 16, 10)
    assert 0.3 < closed < 0.8
    ((point,),) = rehearse.rehearse(plan, [(16, 10)], [2000], processes=2)
    assert point.low - 0.01 <= closed <= point.high + 0.01


def test_power_rises_with_people_and_falls_with_the_effect(tmp_path: Path) -> None:
    _, plan = planned(tmp_path)
    big = [point for (point,) in rehearse.rehearse(plan, [(8, 6), (20, 14)], [12, 12], slope=9.0)]
    assert big[1].power > big[0].power and big[1].power >= 0.7
    assert all(p.low <= p.power <= p.high and p.replications == 12 for p in big)
    ((none,),) = rehearse.rehearse(plan, [(16, 10)], [12], slope=0.0)
    assert none.power <= 0.25
    assert (none.cost, none.ceiling) == (16 / 6 * 12 * 1.5, pytest.approx(0.05, abs=1e-6))


def test_the_same_study_gives_the_same_points(tmp_path: Path) -> None:
    _, plan = planned(tmp_path)
    once, again = (list(rehearse.rehearse(plan, [(8, 6)], [3], processes=n)) for n in (1, 2))
    assert once == again


def test_pictures_are_those_of_the_design(tmp_path: Path) -> None:
    _, plan = planned(tmp_path, ("arms: {sham: false, placebo: 0", "arms: {sham: true, placebo: 3"), ("[0, 1]", "[-1, 0, 1]"))
    table = rehearse.pictures(plan, 8)
    assert table.groupby("arm").size().to_dict() == {"null": 8, "placebo": 16, "sham": 16, "treated": 16}
    assert (table["reading"] == np.where(table["arm"] == "treated", table["dose"], 0)).all()
    assert table[table["arm"] == "sham"]["draw"].nunique() == 8 and set(table[table["arm"] == "placebo"]["draw"]) <= {0, 1, 2}
    # Not two conditions: the closed form keeps silent.
    assert np.isnan(rehearse.closed_form(plan, rehearse.assumed(plan), plan.hypotheses[0], 16, 10))


def test_the_verb_tells_power_cost_and_the_cheapest_design(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, _ = planned(tmp_path)
    words = ["power", str(path), "--participants", "8,24", "--images", "12", "--replications", "10", "--slope", "9", "--json"]
    with pytest.raises(SystemExit) as left:
        cli.main(words)
    assert left.value.code == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [(p["participants"], p["images"]) for p in found["curve"]] == [(16, 10), (8, 12), (24, 12)]
    assert found["planned"][0]["replications"] == 10 and found["primary"] == "H1"
    enough = [p["cost"] for p in found["curve"] if p["power"] >= 0.8]
    assert found["cheapest"]["cost"] == min(enough)
    assert 0 < found["closed_form"] <= 1 and found["assumed"]["slope"] == 9 and found["assumed"]["declared"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["power"], "Give either a study file or --design."),
        (["power", "--design", "CCD", "--difference", "1", "--participants", "9", "--images", "9"], "Unknown design 'CCD'"),
        (["power", "--design", "CCC", "--difference", "1", "--participants", "1e9", "--images", "9"], "whole numbers"),
        (["power", "--design", "CCC", "--participants", "9", "--images", "9"], "needs --difference"),
        (["power", "x.yaml", "--target", "1.2"], "between 0 and 1"),
    ],
)
def test_what_cannot_be_planned_is_told(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(words)
    assert left.value.code == 2 and sentence in capsys.readouterr().err


def test_the_closed_form_needs_no_study(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["power", "--design", "CCC", "--difference", "0.5", "--participants", "20", "--images", "20", "--json"])
    (point,) = json.loads(capsys.readouterr().out)["points"]
    assert point["power"] == pytest.approx(0.664, abs=0.01) and point["ceiling"] > point["power"]


@pytest.mark.parametrize(
    ("design", "scale", "arms"),
    [
        ("within_image", "likert7", "sham: true, placebo: 0"),
        ("between_arm", "vas", "sham: true, placebo: 0"),
        ("pairs", "choice", "sham: false, placebo: 0"),
        ("guess", "choice", "sham: false, placebo: 0"),
        ("best_worst", "best_worst", "sham: false, placebo: 0"),
    ],
)
def test_every_design_is_rehearsed(tmp_path: Path, design: str, scale: str, arms: str) -> None:
    """A large effect is found nearly always, none at its stated rate at most; people and lists are the study's own."""
    arm = "treated-sham" if "true" in arms else "treated"
    _, plan = planned(
        tmp_path,
        ("arms: {sham: false, placebo: 0", f"arms: {{{arms}"),
        ("[0, 1]", "[-1, -0.5, 0, 0.5, 1]"),
        ("survey:\n", f"survey:\n  design: {design}\n"),
        ("trust, text: How trustworthy?}", f"trust, text: How trustworthy?, scale: {scale}}}"),
        ("arm: treated,", f"arm: {arm},"),
    )
    ((found,),) = rehearse.rehearse(plan, [(12, 10)], [6], slope=25.0)
    ((none,),) = rehearse.rehearse(plan, [(12, 10)], [6], slope=0.0)
    assert found.power >= 5 / 6 and none.power <= 0.5
