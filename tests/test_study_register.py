"""A registration says what was frozen, and every later change is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from contrafact import study
from contrafact.errors import UserError

FACTS = {"models": {"judge": "b" * 64, "denoiser": "a" * 64}, "stimuli": "c" * 64}
TEXT = """\
study: frozen
title: A frozen study
world: {}
images: {covariates: {skin: {}}}
directions:
  up: {hold: [skin]}
survey:
  participants: 30
  questions:
    - {name: trust, text: How trustworthy?}
  respondents: {}
hypotheses:
  - {id: H1, claim: It raises trust., direction: up, question: trust, primary: true, alternative: greater}
  - {id: H2, claim: It raises trust at all., direction: up, question: trust, arm: treated}
  - {id: C1, claim: A sham does nothing., direction: up, question: trust, arm: sham, test: equivalence, margin: 2.5,
     family: controls}
"""


def loaded(folder: Path, *edits: tuple[str, str]) -> study.LoadedStudy:
    text = TEXT
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    path = folder / "frozen.yaml"
    path.write_text(text)
    return study.load(path)


@pytest.fixture
def payload(tmp_path: Path) -> dict[str, Any]:
    # As it comes back from the store.
    written: dict[str, Any] = json.loads(json.dumps(study.registration_payload(loaded(tmp_path), FACTS)))
    return written


def test_the_payload_holds_what_was_frozen(payload: dict[str, Any]) -> None:
    assert payload["yaml"] == TEXT
    assert payload["models"] == FACTS["models"]
    assert payload["stimuli"] == FACTS["stimuli"]
    assert len(payload["sha256"]) == len(payload["code"]["sha256"]) == 64
    assert [one["correction"] for one in payload["plan"]] == ["Holm over H1, H2", "Holm over H1, H2", "none"]
    assert "slope of treated minus that of sham" in payload["plan"][0]["method"]
    assert "above 0" in payload["plan"][0]["method"]
    assert "±2.5 rating points" in payload["plan"][2]["method"]
    assert "Holm" not in payload["plan"][2]["method"]


def test_the_same_study_has_not_changed(payload: dict[str, Any], tmp_path: Path) -> None:
    retold = loaded(tmp_path, ("title:", "# a comment\nseed: 1\ntitle:"))
    assert study.changed_since(payload, retold) == []
    study.refuse_changes(payload, retold)


def test_each_changed_key_is_named(payload: dict[str, Any], tmp_path: Path) -> None:
    changed = loaded(
        tmp_path,
        ("margin: 2.5", "margin: 5"),
        ("participants: 30", "participants: 40"),
        ("  up: {hold: [skin]}", "  up: {hold: []}\n  down: {}"),
    )
    sentences = study.changed_since(payload, changed)
    assert "`hypotheses[2].margin` was 2.5 and is now 5.0" in sentences
    assert "`survey.participants` was 30 and is now 40" in sentences
    assert "`directions.up.hold[0]` was 'skin' and is gone" in sentences
    assert "`directions.down.target` is new: 'outcome'" in sentences


def test_a_key_that_is_newer_than_the_registration_counts_as_its_default(payload: dict[str, Any], tmp_path: Path) -> None:
    del payload["content"]["survey"]["repeats"]
    assert study.changed_since(payload, loaded(tmp_path)) == []
    asked = loaded(tmp_path, ("participants: 30", "participants: 30\n  repeats: 2"))
    assert study.changed_since(payload, asked) == ["`survey.repeats` was 0 and is now 2"]
    payload["content"]["survey"]["no_longer_known"] = 1
    assert "`survey.no_longer_known` was 1 and is gone" in study.changed_since(payload, loaded(tmp_path))


def test_a_changed_study_is_refused_with_the_mend(payload: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"hypotheses\[2\].margin.*contrafact register .*frozen.yaml --amend"):
        study.refuse_changes(payload, loaded(tmp_path, ("margin: 2.5", "margin: 5")))


def test_without_hypotheses_there_is_nothing_to_register(tmp_path: Path) -> None:
    text = TEXT[: TEXT.index("hypotheses:")]
    (tmp_path / "bare.yaml").write_text(text)
    with pytest.raises(UserError, match="no hypotheses"):
        study.registration_payload(study.load(tmp_path / "bare.yaml"), FACTS)
