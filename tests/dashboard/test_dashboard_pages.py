"""Every page under Streamlit's own test: with nothing, with one study, with many; a verdict lands in SQL."""

from __future__ import annotations

import ast
import json
import sqlite3
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from contrafact import actions, bundle
from contrafact.readings import overview, stimuli
from contrafact.settings import Settings
from contrafact.store import open_store

PAGES = ("views/overview.py", "views/review.py", "views/results.py")
HOSTILE = " ".join(json.loads((Path(__file__).parents[1] / "hostile.json").read_text()))
NASTY = f"<script>alert(1)</script> **bold** $x$ [link](javascript:alert(2)) {HOSTILE}"[:199]


def page(name: str) -> AppTest:
    app = AppTest.from_file(str(bundle.folder("dashboards") / "app.py"), default_timeout=60).run()
    if name != PAGES[0]:
        app.switch_page(name).run()
    assert not app.exception, app.exception
    return app


def sent(app: AppTest) -> None:
    """The one form of the page is handed in."""
    next(button for button in app.button if button.proto.is_form_submitter).click().run()


def words(app: AppTest) -> str:
    """Everything the page says."""
    kinds = ("title", "markdown", "text", "code", "caption", "error", "warning", "info")
    return "\n".join([str(one.value) for kind in kinds for one in getattr(app, kind)] + [one.value for one in app.get("html")])


@pytest.mark.parametrize("name", PAGES)
def test_an_empty_workspace_says_how_to_begin(name: str, place: Settings) -> None:
    assert "contrafact demo" in words(page(name))
    assert not place.workspace.exists(), "looking makes nothing"


def test_overview_names_state_and_next_command(fill, place: Settings) -> None:
    fill("paused")
    fill("finished", until="report")
    states = {one.slug: one for one in overview.studies(place)}
    assert states["finished"].next.startswith("contrafact report finished.yaml") and states["finished"].done == 8
    assert states["paused"].next.startswith("contrafact run paused.yaml") and states["paused"].waiting == 3
    assert (states["paused"].done, states["paused"].registered, states["finished"].registered) == (5, False, True)
    said = words(page(PAGES[0]))
    assert "3 matched sets wait for review" in said and states["finished"].next in said


def test_a_stage_done_anew_leaves_the_later_ones_to_do(fill, place: Settings) -> None:
    study_id = fill(until="report")
    with open_store(place.database_url) as store:
        run = store.start_run(study_id)
        stage = store.start_stage(run, "generate", "f" * 64)
        store.finish_stage(stage, "failed", {"error": "UserError: The disk is full."})
        store.finish_run(run, "failed")
    state = overview.studies(place)[0]
    assert {one.name: one.status for one in state.stages} == {
        "ingest": "done", "predict": "done", "finetune": "done", "generate": "failed",
        "gate": "to do", "field": "to do", "analyse": "to do", "report": "to do",
    }  # fmt: skip
    assert state.note == "The disk is full." and state.next.startswith("contrafact run smiles.yaml")


def test_many_studies_are_all_there(fill) -> None:
    for number in range(12):
        fill(f"study_{number}", images=("ann",))
    said = words(page(PAGES[0]))
    assert all(f">study_{number}<" in said for number in range(12))
    assert len(page(PAGES[1]).sidebar.selectbox[0].options) == 12


def test_review_shows_every_arm_and_dose_with_its_card(fill, place: Settings) -> None:
    fill()
    app = page(PAGES[1])
    found = stimuli.matched_set(place, "smiles", "smile/ann")
    assert found.columns == ("raw", "dose −1.5", "dose −0.75", "dose 0", "dose +0.75", "dose +1.5")
    assert [name for name, _ in found.rows] == ["treated", "sham", "placebo, permutation 11"]
    assert len(app.image) == 3 * 6
    treated, sham = (dict(pictures[-1].card) for _, pictures in found.rows[:2])
    assert treated["judge"] == "1.50 SD" and treated["skin leak"] == "0.03 SD" and sham["skin leak"] == "not estimable"
    said = words(app)
    assert "1.50 SD" in said and "not estimable" in said and "blurred" in said


def test_a_verdict_given_on_the_page_is_in_sql_and_opens_the_next_set(fill, place: Settings) -> None:
    study_id = fill()
    app = page(PAGES[1])
    assert not any(button.key == "keep" for button in app.button), "no verdict without a name"
    app.text_input[0].input("Ann")
    sent(app)
    app.button("keep").click().run()
    assert app.session_state["set"] == "smile/bob"
    app.button("reject 2").click().run()
    app.text_input[0].input("her earring went")
    sent(app)
    assert not app.exception and not app.error
    with open_store(place.database_url) as store:
        said = {(one.verdict, one.reason, one.reviewer) for one in store.reviews(study_id)}
        assert len(store.review_history(study_id)) == 39, "one row for each of 13 pictures of three sets"
        assert [one.action for one in store.audit(study_id)] == ["review: keep", "review: reject", "review: reject"]
    assert said == {
        ("keep", "", "Ann"), ("reject", "more than one thing changed", "Ann"), ("reject", "her earring went", "Ann"),
    }  # fmt: skip
    assert [one.standing for one in stimuli.sets(place, "smiles").states] == ["kept", "rejected", "rejected"]


def test_what_was_decided_before_is_shown(fill, place: Settings) -> None:
    fill(images=("ann",))
    pixels = stimuli.matched_set(place, "smiles", "smile/ann").pixels
    actions.review(place, "smiles", "smile/ann", pixels, "reject", NASTY, "Ann <b>")
    actions.review(place, "smiles", "smile/ann", pixels, "keep", "", "Ann <b>")
    said = words(page(PAGES[1]))
    assert "&lt;script&gt;" in said and "<script>" not in said and "Ann &lt;b&gt;" in said
    assert said.index("taken back") < said.index("counts")


def test_a_registered_study_takes_withdrawals_alone(fill, place: Settings) -> None:
    study_id = fill(until="report")
    app = page(PAGES[1])
    app.text_input[0].input("Ann")
    sent(app)
    assert not any(button.key == "keep" for button in app.button)
    app.text_input[0].input("the person asked")
    sent(app)
    with open_store(place.database_url) as store:
        link = store.chain(study_id)[-1]
        store.verify_chain(study_id)
    assert (link.kind, link.payload["set"], link.payload["why"]) == ("withdrawal", "smile/ann", "the person asked")
    assert "Ann" not in str(link.payload)


def test_results_tell_the_claim_the_numbers_and_the_report(fill) -> None:
    fill(until="report")
    app = page(PAGES[2])
    said = words(app)
    assert "The data support the claim “Smiles look kind Smiles”" in said and "rating points per SD of dose" in said
    assert "simulated" in said and "7.10 to 8.90 (95%)" in said and "smiles.html" in said
    pictures = [one.proto.imgs[0] for one in app.image]
    assert pictures and "treated goes from" in pictures[0].alt


def test_results_of_an_unfinished_study_say_what_is_missing(fill) -> None:
    fill()
    assert "the study has not reached its analysis" in words(page(PAGES[2]))


def test_pages_see_readings_and_actions_alone() -> None:
    seen = set()
    for file in bundle.folder("dashboards").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                whole = node.module == "contrafact"
                seen |= {f"contrafact.{one.name}" for one in node.names} if whole else {node.module}
            elif isinstance(node, ast.Import):
                seen |= {one.name for one in node.names}
    ours = {name.split(".")[1] for name in seen if name.startswith("contrafact.")}
    assert ours <= {"readings", "actions", "bundle", "settings", "errors"}, ours
    assert not {"torch", "sqlalchemy", "mlflow"} & {name.split(".")[0] for name in seen}


@pytest.mark.parametrize("name", PAGES)
def test_text_of_a_study_is_never_markup(name: str, fill) -> None:
    fill(title=NASTY, until="report")
    said = words(page(name))
    assert "<script>" not in said and ("&lt;script&gt;" in said or name == PAGES[1])


def test_a_newer_database_is_one_sentence(fill, place: Settings) -> None:
    fill()
    with sqlite3.connect(place.workspace / "store.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '9999_later'")
    assert "newer than this version of contrafact" in words(page(PAGES[0]))
