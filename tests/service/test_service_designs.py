"""Stimuli made elsewhere, shown several at once: from the study file through the pages to the table of choices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from contrafact.run.engine import run_study
from contrafact.service.app import build
from contrafact.store import models as m
from contrafact.store import open_store
from contrafact.survey.behaviour import flags


def entered(client: TestClient, who: str) -> tuple[dict[str, Any], dict[str, str]]:
    """What the page is told after consent, and the headers of somebody who has understood the instructions."""
    state = client.post("/api/consent", json={"link": {"participant": who}}).json()
    headers = {"Authorization": f"Bearer {state['token']}"}
    client.post("/api/comprehension", json={"attempt": 1, "answers": ["faces"]}, headers=headers)
    return state, headers


def visit(client: TestClient, who: str, design: str, prefer: Any) -> list[Any]:
    """Somebody who answers every trial; ``prefer`` gives the place, from 1, of the picture they take."""
    state, headers = entered(client, who)
    replies = []
    for trial in state["trials"]:
        place = prefer(trial["pictures"])
        values: dict[str, Any] = {"neat": place, "why": "=the beard, I think"}
        if design == "best_worst":
            values = {"neat_best": place, "neat_worst": place % len(trial["pictures"]) + 1}
        body = {"key": f"{who}-answer-number-{trial['position']}", "position": trial["position"], "values": values, "response_ms": 800}
        if state["breaks"] and trial["position"] == state["breaks"]:
            body["break_ms"] = 5000
        body |= {"pasted": {"why": 12}, "away": 1} if trial is state["trials"][0] else {}
        replies.append(client.post("/api/answer", json=body, headers=headers))
    return replies


@pytest.mark.parametrize("design", ["guess", "best_worst"])
def test_several_pictures_are_shown_answered_and_traced(side_by_side: Any, design: str) -> None:
    made = side_by_side(design, 3, 4, "  pay: {bonus: 0.05}\n" if design == "guess" else "", pages="    practice: {trials: 1}\n    breaks: 2\n")
    store, study_id = made.store, made.study_id
    with store:
        with TestClient(build(store, made.files, study_id, made.loaded.study, made.batch)) as client:
            replies = visit(client, "ann", design, lambda pictures: len(pictures))
            assert [reply.status_code for reply in replies] == [200] * 4 and replies[-1].json()["done"]
            earned = entered(client, "ann")[0].get("bonus")
            state, headers = entered(client, "ben")
            [practice] = state["practice"]
            assert len(practice["pictures"]) == len(state["trials"][0]["pictures"]) and client.get(practice["pictures"][0]).status_code == 200
            if design == "guess":  # five sets, of which a list shows four
                assert practice["right"] in (1, 2) and not {*practice["pictures"]} & {one for trial in state["trials"] for one in trial["pictures"]}
            with store._read() as session:
                paused = session.execute(select(m.Trial.position, m.Rating.break_ms).join(m.Rating).order_by(m.Trial.position)).all()
            assert {position: each for position, each in paused if np.isfinite(each)} == {2: 5000.0}
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
        beside = [choices, store.texts_table(study_id)] if design == "guess" else [choices]
        seen = flags(pd.concat([table[table["place"] == 0] for table in beside]), {})
        assert seen["away"].tolist() == [1] and (design != "guess" or seen["pasted"].tolist() == [1])
        if design == "guess":
            right = [reply.json()["right"] for reply in replies]
            told = first[first["chosen"]].sort_values("position")
            assert earned == {"right": sum(right), "guesses": 4, "amount": f"{0.05 * sum(right):.2f}", "currency": "GBP"}
            assert sum(store.right_guesses(study_id, "neat").values()) == sum(right) and 0 < sum(right) < 4
            assert right == list(told["place"] + 1 == told["target"]) == list(told["dose"] == 1)
            assert set(store.texts_table(study_id)["text"]) == {"=the beard, I think"}
        else:
            assert all(reply.json()["right"] is None for reply in replies)
            assert set(choices["question"]) == {"neat_best", "neat_worst"} and len(choices) == 4 * 2 * 4


@pytest.mark.slow
def test_pairs_against_the_unchanged_picture_end_in_a_claim(side_by_side: Any) -> None:
    made = side_by_side("pairs", 12, 10, '  compare: [[treated, "null"], [sham, "null"]]\n')
    with made.store as store:
        study_id, files = made.study_id, made.files
        pixels = store.stimuli_table(study_id).set_index("pixels_sha256")["dose"]
        by_content = {files.get(sha): dose for sha, dose in pixels.items()}
        with TestClient(build(store, files, study_id, made.loaded.study, made.batch)) as client:
            for number in range(12):
                rng = np.random.default_rng(number)
                assert visit(client, f"person-{number}", "pairs", lambda shown, rng=rng: _taste(client, shown, by_content, rng))[-1].json()["done"]
    run_study(made.loaded, made.settings)
    with open_store(made.settings.database_url) as store:
        claim = next(one for one in store.statements(study_id) if one.id == "H1")
        assert claim.estimate > 0 and claim.n_ratings > 0 and "logit" in claim.method.lower()


def _taste(client: TestClient, shown: list[str], doses: dict[bytes, float], rng: Any) -> int:
    worth = [doses[client.get(address).content] + 0.8 * rng.standard_normal() for address in shown]
    return worth.index(max(worth)) + 1
