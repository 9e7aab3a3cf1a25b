"""The whole way with simulated people who come to the pages: from one command to the report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

SERVICE = """
  service:
    consent: You will look at drawn faces and say how they look to you.
    instructions: Look at each face and answer from the gut.
    comprehension: [{text: What do you judge?, options: [faces, houses], answer: faces}]
    debrief: The faces were drawn by a computer.
    contact: study@example.org
"""
PEOPLE = "  participants: 8\n"
WHO = "  respondents: {slope: 20}\n"


def statements(chain: Any) -> list[dict[str, Any]]:
    with chain.store() as store:
        study = store.study("tiny")
        facts = [run.facts for run in store.stage_runs(study.id) if run.stage == "analyse" and run.status == "done"]
        return list(facts[-1]["statements"])


def test_200_people_at_the_pages_end_as_they_would_by_a_file(
    gated: Any, changed: Callable[..., Path], tmp_path: Path
) -> None:
    """Half of them with double clicks, two tabs, reloads or lost replies: the statements are those of a clean file."""
    by_page, by_file = gated.copy(tmp_path / "page"), gated.copy(tmp_path / "file")
    many = (PEOPLE, "  participants: 200\n")
    by_file.run(changed(many))
    told = by_page.run(changed(many, (WHO, "  respondents: {slope: 20, mishaps: 0.5}\n" + SERVICE.lstrip("\n"))))
    assert told.said["stopped"] is None and by_page.report().is_file()
    here, there = statements(by_page), statements(by_file)
    assert [(s["id"], s["estimate"], s["low"], s["n_ratings"]) for s in here] == [
        (s["id"], s["estimate"], s["low"], s["n_ratings"]) for s in there
    ]
    assert here[0]["n_participants"] > 150


def test_the_report_warns_where_people_leave_because_of_what_they_see(
    gated: Any, changed: Callable[..., Path], tmp_path: Path
) -> None:
    chain = gated.copy(tmp_path / "leaving")
    who = "  respondents: {slope: 20, dropout: 0.003, dropout_mark: 2}\n" + SERVICE.lstrip("\n")
    chain.run(changed((PEOPLE, "  participants: 200\n"), (WHO, who)))
    said = chain.report().read_text(encoding="utf-8")
    assert "People left more often at pictures of the arm" in said
    assert "left at a picture of the arm" in said and "incomplete" in said
