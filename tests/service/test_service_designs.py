"""Stimuli made elsewhere, shown several at once: from the study file through the pages to the table of choices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from contrafact import settings, study
from contrafact.errors import Paused
from contrafact.run.engine import run_study
from contrafact.service.app import build
from contrafact.store import open_store
from contrafact.store.files import Files

SERVICE = """
  service:
    consent: You will look at a few drawn faces and say how they look to you.
    instructions: Look and answer from the gut.
    debrief: The faces were drawn by a computer.
    contact: study@example.org
"""
QUESTIONS = {
    "pairs": "[{name: neat, text: Which is neater?, scale: choice}, {name: why, text: What differs?, scale: text}]",
    "guess": "[{name: neat, text: Which is neater?, scale: choice}, {name: why, text: What differs?, scale: text}]",
    "best_worst": "[{name: neat, text: Which of these?, low: least neat, high: neatest, scale: best_worst}]",
}


def fielded(folder: Path, workspace: Path, design: str, people: int, trials: int, more: str = "") -> Any:
    path = folder / f"{design}.yaml"
    path.write_text(
        f"study: {design}\ntitle: Portraits side by side\nstimuli: {{manifest: stimuli.csv}}\n"
        f"survey:\n  design: {design}\n  participants: {people}\n  trials_per_participant: {trials}\n  attention_trials: 0\n"
        f"  questions: {QUESTIONS[design]}\n{more}{SERVICE}hypotheses:\n"
        "  - {id: H1, claim: The direction moves choices., direction: outcome, question: neat, arm: treated, primary: true}\n"
    )
    loaded, where = study.load(path), settings.read(workspace)
    with pytest.raises(Paused, match="participants have finished"):
        run_study(loaded, where)
    return loaded, where


def visit(client: TestClient, who: str, design: str, prefer: Any) -> list[Any]:
    """Somebody who answers every trial; ``prefer`` gives the place, from 1, of the picture they take."""
    state = client.post("/api/consent", json={"link": {"participant": who}}).json()
    headers = {"Authorization": f"Bearer {state['token']}"}
    replies = []
    for trial in state["trials"]:
        place = prefer(trial["pictures"])
        values: dict[str, Any] = {"neat": place, "why": "=the beard, I think"}
        if design == "best_worst":
            values = {"neat_best": place, "neat_worst": place % len(trial["pictures"]) + 1}
        body = {"key": f"{who}-answer-number-{trial['position']}", "position": trial["position"], "values": values, "response_ms": 800}
        replies.append(client.post("/api/answer", json=body, headers=headers))
    return replies


@pytest.mark.parametrize("design", ["guess", "best_worst"])
def test_several_pictures_are_shown_answered_and_traced(ran: Path, tmp_path: Path, workspace: Path, design: str) -> None:
    for file in ran.glob("*.*"):
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    loaded, where = fielded(tmp_path, workspace, design, 3, 4)
    with open_store(where.database_url) as store:
        study_id = store.study(design).id  # type: ignore[union-attr]
        name = store.batches(study_id)[-1].name
        with TestClient(build(store, Files(where.files_url), study_id, loaded.study, name)) as client:
            replies = visit(client, "ann", design, lambda pictures: len(pictures))
            assert [reply.status_code for reply in replies] == [200] * 4 and replies[-1].json()["done"]
            headers = {"Authorization": f"Bearer {client.post('/api/arrive', json={'link': {'participant': 'ben'}}).json().get('token')}"}
            state = client.post("/api/consent", json={"link": {"participant": "ben"}}).json()
            headers = {"Authorization": f"Bearer {state['token']}"}
            body = {"key": "k" * 20, "position": state["trials"][0]["position"], "response_ms": 5}
            wrong = [{"neat_best": 2, "neat_worst": 2}, {"neat_best": 5, "neat_worst": 1}]
            if design == "guess":
                wrong = [{"neat": 3, "why": "x"}, {"neat": 1, "why": 3}, {"neat": 1.5, "why": "x"}, {"neat": 1, "why": "x" * 2001}]  # type: ignore[dict-item]
            for values in wrong:
                assert client.post("/api/answer", json={**body, "values": values}, headers=headers).status_code == 422
        choices = store.choices_table(study_id)
        assert choices.groupby("rating_id")["chosen"].sum().eq(1).all()
        first = choices[choices["question"].isin(["neat", "neat_best"])]
        assert (first[first["chosen"]]["place"] == first["place"].max()).all() and first["participant"].nunique() == 1
        if design == "guess":
            right = [reply.json()["right"] for reply in replies]
            told = first[first["chosen"]].sort_values("position")
            assert right == list(told["place"] + 1 == told["target"]) == list(told["dose"] == 1)
            assert set(store.texts_table(study_id)["text"]) == {"=the beard, I think"}
        else:
            assert all(reply.json()["right"] is None for reply in replies)
            assert set(choices["question"]) == {"neat_best", "neat_worst"} and len(choices) == 4 * 2 * 4


@pytest.mark.slow
def test_pairs_against_the_unchanged_picture_end_in_a_claim(ran: Path, tmp_path: Path, workspace: Path) -> None:
    for file in ran.glob("*.*"):
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    loaded, where = fielded(tmp_path, workspace, "pairs", 12, 10, '  compare: [[treated, "null"], [sham, "null"]]\n')
    with open_store(where.database_url) as store:
        study_id = store.study("pairs").id  # type: ignore[union-attr]
        name = store.batches(study_id)[-1].name
        pixels = store.stimuli_table(study_id).set_index("pixels_sha256")["dose"]
        files = Files(where.files_url)
        by_content = {files.get(sha): dose for sha, dose in pixels.items()}
        with TestClient(build(store, files, study_id, loaded.study, name)) as client:
            for number in range(12):
                rng = np.random.default_rng(number)
                assert visit(client, f"person-{number}", "pairs", lambda shown, rng=rng: _taste(client, shown, by_content, rng))[-1].json()["done"]
    run_study(loaded, where)
    with open_store(where.database_url) as store:
        claim = next(one for one in store.statements(study_id) if one.id == "H1")
        assert claim.estimate > 0 and claim.n_ratings > 0 and "logit" in claim.method.lower()


def _taste(client: TestClient, shown: list[str], doses: dict[bytes, float], rng: Any) -> int:
    worth = [doses[client.get(address).content] + 0.8 * rng.standard_normal() for address in shown]
    return worth.index(max(worth)) + 1
