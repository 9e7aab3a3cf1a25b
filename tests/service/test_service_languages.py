"""Several languages: the pages' own words, the study's texts, and the same answers whatever people read."""

from __future__ import annotations

import re
from typing import Any, get_args

from starlette.testclient import TestClient

from contrafact.service.app import PAGES, WORDS, build
from contrafact.study.schema import Comprehension, Language, Screening


def test_every_language_has_every_word_with_the_same_values_in_it() -> None:
    page = (PAGES / "survey.js").read_text(encoding="utf-8")
    asked = {word for call in re.findall(r"(?<![\w.])t\(([^{})]*)", page) for word in re.findall(r'"(\w+)"', call)}
    assert set(WORDS) == set(get_args(Language))
    for words in WORDS.values():
        assert {key: set(re.findall(r"\{\w+\}", text)) for key, text in words.items()} == {
            key: set(re.findall(r"\{\w+\}", text)) for key, text in WORDS["en"].items()
        }
    server = (PAGES.parent / "app.py").read_text(encoding="utf-8")
    by_server = {*re.findall(r'told\(\d+, "(\w+)"', server), "wrong_link", "attention"}
    assert asked | by_server | {"language_name"} == set(WORDS["en"]), "every word is there and used"


def test_people_are_asked_in_their_language_and_the_answers_are_the_same(fielded: Any, german: Any) -> None:
    asked, survey = fielded.loaded.study, fielded.loaded.study.survey
    age = Screening(name="age", text="How old are you?", options=("young", "old"), admit=("old",), quotas={"old": 3})
    faces = Comprehension(text="What do you judge?", options=("houses", "faces"), answer="faces")
    service = survey.service.model_copy(update={"screening": (age,), "comprehension": (faces,)})
    survey = survey.model_copy(update={"languages": {"de": german}, "service": service})
    app = build(fielded.store, fielded.files, fielded.study_id, asked.model_copy(update={"survey": survey}), fielded.batch)
    with TestClient(app) as client:

        def about(wanted: str, accepted: str) -> str:
            return str(client.get(f"/api/about?lang={wanted}", headers={"Accept-Language": accepted}).json()["language"])

        assert about("", "fr;q=0.9, de-AT;q=0.8, en;q=0.1") == "de" == about("de", "en") and about("it", "xx, *;q=x") == "en"
        shown = client.get("/api/about?lang=de").json()
        assert shown["title"] == german.title and shown["consent"] == german.consent and shown["languages"] == ["en", "de"]

        link = {"link": {"participant": "ute"}, "language": "de"}
        [question] = client.post("/api/consent", json=link).json()["screening"]
        assert question == {"text": "Wie alt sind Sie?", "options": ["jung", "alt"]}
        state = client.post("/api/consent", json={**link, "screening": ["alt"]}).json()
        headers = {"Authorization": f"Bearer {state['token']}"}
        assert state["language"] == "de" and state["questions"][1]["high"] == "warm" and state["instructions"] == german.instructions
        attention = next(trial for trial in state["trials"] if not trial["pictures"])["questions"][0]["text"]
        assert "Aufmerksamkeit" in attention and re.search(r"\d", attention)
        early = {"key": "k" * 20, "position": 0, "values": {"groomed": 5, "warm": 2}, "response_ms": 5}
        refused = client.post("/api/answer", json=early, headers=headers).json()
        assert WORDS["de"][refused.get("say", "too_early")].startswith("Zuerst")
        body = {"attempt": 1, "answers": ["Gesichter"]}
        assert client.post("/api/comprehension", json=body, headers=headers).json()["status"] == "trials"
        again = client.post("/api/arrive", json={"link": {"participant": "ute"}}).json()
        assert again["language"] == "de", "it is kept with the person"
        assert client.post("/api/consent", json={"link": {"participant": "ben"}, "screening": ["young"]}).json()["status"] == "unfit"
        wrong = client.post("/api/arrive", json={"link": {"participant": "<x>"}})
        assert wrong.status_code == 422 and wrong.json()["say"] == "wrong_link"
