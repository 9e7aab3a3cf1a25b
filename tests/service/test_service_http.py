"""The service over HTTP: one write an answer, whatever clients do; leases; deletion; nothing that tells who somebody is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pandas as pd
import pytest
from sqlalchemy import update
from starlette.testclient import TestClient

from contrafact.cli import _run
from contrafact.errors import UserError
from contrafact.panels.links import PROVIDERS, signed_links
from contrafact.service.app import HEADERS, build
from contrafact.service.field import Field
from contrafact.store import models as m
from contrafact.store.visits import Screened, Visits
from contrafact.study.schema import Panel, Practice, Screening
from contrafact.survey.behaviour import flags

pytestmark = pytest.mark.parametrize(
    "fielded", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True
)
RAW = "panel-person-0001"


@pytest.fixture
def client(fielded: Any) -> Iterator[TestClient]:
    with TestClient(build(fielded.store, fielded.files, fielded.study_id, fielded.loaded.study, fielded.batch)) as made:
        yield made


class Person:
    """Somebody who knows how to use the service."""

    def __init__(self, client: TestClient, raw: str = RAW) -> None:
        self.client, self.link = client, {"link": {"participant": raw}}
        self.state = client.post("/api/arrive", json=self.link).json()
        if self.state["status"] == "consent":
            self.state = client.post("/api/consent", json=self.link).json()
        self.headers = {"Authorization": f"Bearer {self.state.get('token')}"}

    def understand(self, attempt: int = 1, answer: str = "faces") -> dict[str, Any]:
        body = {"attempt": attempt, "answers": [answer]}
        return dict(self.client.post("/api/comprehension", json=body, headers=self.headers).json())

    def answer(self, place: int, value: float = 70.0, key: str = "") -> Any:
        trial = self.state["trials"][place]
        values = {"attention": value} if trial["picture"] is None else {"groomed": value, "warm": 3}
        body = {"key": key or self.key(place), "position": trial["position"],
                "values": values, "moves": {}, "away": 2 * (place == 3), "response_ms": 900.0, "answered_at": "2026-03-02T09:14:07Z"}  # fmt: skip
        return self.client.post("/api/answer", json=body, headers=self.headers)

    def key(self, place: int) -> str:
        return f"key-of-trial-{place}-of-{self.state['token'].split('.')[0]}"

    def now(self) -> dict[str, Any]:
        return dict(self.client.get("/api/state", headers=self.headers).json())

    def everything(self) -> Any:
        self.understand()
        return [self.answer(place) for place in range(len(self.state["trials"]))][-1]


def people_seen(fielded: Any) -> pd.DataFrame:
    return flags(fielded.store.ratings_table(fielded.study_id), {"groomed": "How well-groomed?"})


def stored(fielded: Any) -> int:
    return len(fielded.store.answers(fielded.study_id, fielded.batch))


def test_a_whole_visit_is_in_the_tables_that_the_analysis_reads(fielded: Any, client: TestClient) -> None:
    person = Person(client)
    assert person.state["status"] == "instructions" and len(person.state["trials"]) == 6
    assert person.understand()["status"] == "trials"
    for place in range(6):
        assert "code" not in person.now(), "no code before everything is stored"
        reply = person.answer(place)
        assert reply.status_code == 200 and reply.json()["done"] == (place == 5)
    assert len(person.now()["code"]) == 8
    ratings = fielded.store.ratings_table(fielded.study_id)
    assert len(ratings) == 10 and set(ratings["value"]) == {70.0, 3.0} and set(ratings["response_ms"]) == {900.0}
    seen = people_seen(fielded)
    assert seen.loc[0, ["answers", "hasty"]].tolist() == [10, 0] and seen.loc[0, "away"] in (0, 1) and seen["pasted"].isna().all()
    assert fielded.store.batches(fielded.study_id)[-1].done == 1
    assert len(fielded.store.finished_participants(fielded.study_id)) == 1


def test_a_repeat_is_answered_with_the_stored_row_and_another_value_with_409(fielded: Any, client: TestClient) -> None:
    person = Person(client)
    person.understand()
    first, again = person.answer(0), person.answer(0)
    assert first.json()["repeated"] is False and again.status_code == 200 and again.json()["repeated"] is True
    before = stored(fielded)
    for changed in (person.answer(0, value=10.0), person.answer(0, key="quite-another-key-0001")):
        assert changed.status_code == 409 and 70.0 in changed.json()["stored"].values()
    assert person.answer(1, key=person.key(0)).status_code == 409, "a key belongs to one trial"
    assert stored(fielded) == before


def test_who_comes_back_goes_on_where_they_were(client: TestClient) -> None:
    person = Person(client)
    person.understand()
    person.answer(0)
    again = Person(client)
    assert again.state["status"] == "trials" and len(again.state["answered"]) == 1
    assert again.state["trials"] == person.state["trials"]


def test_lists_are_leased_reclaimed_and_never_held_by_two(fielded: Any, client: TestClient) -> None:
    people = [Person(client, f"p{k}") for k in range(3)]
    assert Person(client, "late").state == {"status": "full"}
    people[1].understand()
    people[1].answer(0)
    visits = Visits(fielded.store, fielded.study_id, fielded.batch)
    assert visits.filled() == {0: 1, 1: 1, 2: 1}
    with fielded.store._write() as session:  # an hour passes for the second
        visit = int(people[1].state["token"].split(".")[0])
        past = m.now() - timedelta(hours=1)
        session.execute(update(m.Visit).where(m.Visit.id == visit).values(lease_until=past))
    assert visits.filled() == {0: 1, 1: 0, 2: 1}
    late = Person(client, "late")
    assert late.state["trials"] == people[1].state["trials"] and late.state["answered"] == []
    assert visits.filled() == {0: 1, 1: 1, 2: 1} and Person(client, "later").state == {"status": "full"}
    assert people[1].answer(1).status_code == 200, "who comes back late keeps what they did"
    assert late.everything().json()["done"]


def test_two_failed_tries_free_the_list(fielded: Any, client: TestClient) -> None:
    person = Person(client)
    assert person.understand(1, "houses") == {"status": "instructions", "tries_left": 1}
    assert person.understand(1, "houses")["tries_left"] == 1, "a repeat is not a try"
    early = person.answer(0)
    assert early.status_code == 403 and early.json()["error"] == "The questions on the instructions come first."
    assert person.understand(2, "houses") == {"status": "screened_out", "tries_left": 0}
    assert Person(client).state["status"] == "screened_out", "and nobody begins anew"
    assert "ended for you" in person.answer(0).json()["error"]
    assert sum(Visits(fielded.store, fielded.study_id, fielded.batch).filled().values()) == 0


def test_practice_on_a_folder_of_pictures_is_shown_and_never_kept(fielded: Any, tmp_path: Path) -> None:
    asked, folder = fielded.loaded.study, tmp_path / "practice"
    folder.mkdir()
    for name in ("b.png", "a.jpg", "notes.txt"):
        (folder / name).write_bytes((tmp_path / "0-null-0.png").read_bytes())
    pages = asked.survey.service.model_copy(update={"practice": Practice(trials=2, folder="practice"), "breaks": 3})
    asked = asked.model_copy(update={"survey": asked.survey.model_copy(update={"service": pages})})
    with TestClient(build(fielded.store, fielded.files, fielded.study_id, asked, fielded.batch, folder)) as client:
        person = Person(client)
        shown = [one["pictures"] for one in person.state["practice"]]
        assert len(shown) == 2 and all(len(each) == 1 for each in shown) and person.state["breaks"] == 3
        for address in shown[0] + shown[1]:
            assert client.get(address).content.startswith(b"\x89PNG") and "a.jpg" not in address
        assert stored(fielded) == 0 and person.understand()["status"] == "trials"
        person.answer(0)
        assert Person(client).state["practice"] == [], "who has begun is past it"


def test_screening_sends_away_and_quotas_are_never_overfilled(fielded: Any) -> None:
    ages = Screening(name="age", text="How old are you?", options=("young", "middle", "old"), admit=("middle", "old"), quotas={"middle": 1})
    asked = fielded.loaded.study
    pages = asked.survey.service.model_copy(update={"screening": (ages,)})
    asked = asked.model_copy(update={"survey": asked.survey.model_copy(update={"service": pages})})
    with TestClient(build(fielded.store, fielded.files, fielded.study_id, asked, fielded.batch)) as client:

        def come(raw: str, age: str | None) -> dict[str, Any]:
            body = {"link": {"participant": raw}} | ({"screening": [age]} if age else {})
            return dict(client.post("/api/consent", json=body).json())

        questions = [{"text": "How old are you?", "options": ["young", "middle", "old"]}]
        assert come("ann", None) == {"status": "screening", "screening": questions} and stored(fielded) == 0
        assert "error" in come("ann", "ancient")
        away = come("ann", "young")
        assert away["status"] == "unfit" and len(away["code"]) == 8 and away["trials"] == []
        assert come("ann", "old")["status"] == "unfit", "nobody answers anew"
        first = come("ben", "middle")
        assert first["status"] == "instructions" and come("cid", "middle")["status"] == "full"
        assert come("dee", "old")["status"] == "instructions"
        early = {"key": "k" * 20, "position": 0, "values": {"attention": 5}, "response_ms": 5}
        told = client.post("/api/answer", json=early, headers={"Authorization": f"Bearer {away['token']}"})
        assert told.status_code == 410 and "ended for you" in told.json()["error"]
        with fielded.store._write() as session:  # an hour passes for the one who held the place
            visit = int(first["token"].split(".")[0])
            session.execute(update(m.Visit).where(m.Visit.id == visit).values(lease_until=m.now() - timedelta(hours=1)))
        assert come("eva", "middle")["status"] == "instructions", "a place that is left is given again"
        assert come("cid", "middle")["status"] == "full"
        assert {why: len(people) for why, people in fielded.store.turned_away(fielded.study_id).items()} == {"unfit": 1, "full": 1}
        visits, hour = Visits(fielded.store, fielded.study_id, fielded.batch), timedelta(hours=1)
        old = Screened({"age": "old"}, True, {"age": 2})
        with ThreadPoolExecutor(6) as crowd:  # six at once for the one place that is left of them
            came = crowd.map(lambda k: visits.begin(f"{k:064x}", "raw", lease=hour, keep=hour, screened=old), range(6))
            assert sorted(one.status if one else "no list" for one in came) == ["full"] * 5 + ["instructions"]
        assert client.post("/api/consent", json={"link": {}, "screening": ["young"]}).json() == {"status": "unfit"}, "a preview keeps nothing"


def test_a_preview_keeps_nothing(fielded: Any, client: TestClient) -> None:
    for link in ({}, {"participant": "{{%PROLIFIC_PID%}}"}):
        state = client.post("/api/consent", json={"link": link}).json()
        assert state["preview"] and state["token"] == "preview"
        trial = state["trials"][0]
        values = {"attention": 5} if trial["picture"] is None else {"groomed": 5, "warm": 2}
        body = {"key": "k" * 20, "position": trial["position"], "values": values, "response_ms": 5}
        reply = client.post("/api/answer", json=body, headers={"Authorization": "Bearer preview"})
        assert reply.json()["preview"]
    assert stored(fielded) == 0 and sum(Visits(fielded.store, fielded.study_id, fielded.batch).filled().values()) == 0


def test_deletion_leaves_a_link_and_a_chain_that_verifies(fielded: Any, client: TestClient) -> None:
    person, other = Person(client), Person(client, "other")
    person.everything()
    other.everything()
    assert client.post("/api/forget", json={}, headers=person.headers).json() == {"status": "forgotten"}
    assert stored(fielded) == 11 and person.answer(0).status_code == 410
    assert fielded.store.chain(fielded.study_id)[-1].kind == "deletion"
    fielded.store.verify_chain(fielded.study_id)
    assert Person(client, "next").state["trials"] == person.state["trials"], "the list is free again"


def test_the_raw_id_stands_in_one_table_and_goes_after_its_day(fielded: Any, client: TestClient) -> None:
    Person(client).everything()
    with fielded.store._read() as session:
        tables = {t.name: str(session.execute(t.select()).all()) for t in m.Base.metadata.sorted_tables}
    assert [name for name, text in tables.items() if RAW in text] == ["panel_id"]
    with fielded.store._write() as session:
        session.execute(update(m.PanelId).values(delete_after=m.now() - timedelta(days=1)))
    Person(client, "next")
    with fielded.store._read() as session:
        assert RAW not in str(session.execute(m.PanelId.__table__.select()).all())


def test_a_withdrawn_set_pauses_and_is_not_waited_for(fielded: Any, client: TestClient) -> None:
    person = Person(client)
    gone = next(one for one in Visits(fielded.store, fielded.study_id, fielded.batch).trials() if one.set_key)
    fielded.store.append_registration(fielded.study_id, "withdrawal", {"set": gone.set_key, "pixels": [], "why": "x"})
    person.understand()
    fresh = build(fielded.store, fielded.files, fielded.study_id, fielded.loaded.study, fielded.batch)
    with TestClient(fresh) as restarted:
        again = Person(restarted)
        assert len(again.state["trials"]) == 5
        assert [again.answer(place) for place in range(5)][-1].json()["done"]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"values": {"groomed": 101, "warm": 3}}, 422),
        ({"values": {"groomed": 50, "warm": 2.5}}, 422),
        ({"values": {"groomed": 50}}, 422),
        ({"values": {"groomed": 50, "warm": 3, "age": 1}}, 422),
        ({"position": 99}, 404),
        ({"key": "short"}, 422),
        ({"response_ms": -1}, 422),
        ({"extra": 1}, 422),
        ({"key": "k" * 20_000}, 413),
    ],
)
def test_what_is_no_answer_is_refused(change: dict[str, Any], status: int, client: TestClient) -> None:
    person = Person(client)
    person.understand()
    trial = next(one for one in person.state["trials"] if one["picture"])
    body = {"key": "k" * 20, "position": trial["position"], "values": {"groomed": 50, "warm": 3}, "response_ms": 5, **change}
    reply = client.post("/api/answer", json=body, headers=person.headers)
    assert reply.status_code == status and "error" in reply.json()


def test_tokens_rates_pictures_and_headers(client: TestClient) -> None:
    person = Person(client)
    for word in ("", "1.00", "x", person.state["token"][:-1] + "_", "9" * 40):
        assert client.get("/api/state", headers={"Authorization": f"Bearer {word}"}).status_code == 401
    address = next(one["picture"] for one in person.state["trials"] if one["picture"])
    shown = client.get(address)
    assert shown.headers["content-type"] == "image/png" and "treated" not in address
    assert client.get("/picture/0000.png").status_code == 404
    page = client.get("/")
    assert page.status_code == 200 and all(page.headers[name] == value for name, value in HEADERS.items())
    assert "<script>" not in page.text and "style=" not in page.text
    codes = [client.get("/api/state", headers=person.headers).status_code for _ in range(60)]
    assert codes[0] == 200 and codes[-1] == 429


def test_the_field_ends_when_enough_have_finished_and_nobody_is_still_at_it(fielded: Any, client: TestClient) -> None:
    class Server:
        should_exit = False

    field = Field(fielded.store, fielded.study_id, fielded.batch, 2)
    people = [Person(client, f"p{k}") for k in range(3)]
    assert people[0].everything().json()["done"] and not field.over()
    assert people[1].everything().json()["done"] and not field.over(), "the third holds a list"
    assert people[2].everything().json()["done"] and field.over()
    server = Server()
    field.watch(server, every=0.01, grace=0.02)
    assert server.should_exit and field.ended and field.done() == 3


def test_a_request_that_breaks_off_is_no_mistake_of_the_server(client: TestClient, fielded: Any) -> None:
    person = Person(client)
    person.understand()
    said: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        said.append(message)

    headers = [(b"content-type", b"application/json"), (b"authorization", person.headers["Authorization"].encode())]
    scope = {"type": "http", "method": "POST", "path": "/api/answer", "query_string": b"", "headers": headers}
    asyncio.run(client.app(scope, receive, send))  # type: ignore[arg-type]
    assert said[0]["status"] == 400
    assert person.answer(0).status_code == 200 and person.now()["answered"] == [person.state["trials"][0]["position"]]


def test_only_links_that_were_given_out_are_let_in(fielded: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    survey = fielded.loaded.study.survey
    panel = Panel(provider="link", address="https://survey.example.org/s", description="A few drawn faces.", signed=True)
    study = fielded.loaded.study.model_copy(update={"survey": survey.model_copy(update={"panel": panel})})
    links = signed_links(PROVIDERS["link"], panel.address, fielded.store.salt(fielded.study_id), ["ann", "ben"])
    query = {one: dict(parse_qsl(urlsplit(link).query)) for one, link in links.items()}
    with TestClient(build(fielded.store, fielded.files, fielded.study_id, study, fielded.batch)) as client:
        assert client.get("/api/about").json()["parameters"] == ["participant", "sig"]
        for link in ({"participant": "ann"}, {"participant": "ann", "sig": query["ben"]["sig"]}, {"participant": "eve", "sig": "é"}):
            for path in ("/api/arrive", "/api/consent"):
                refused = client.post(path, json={"link": link})
                assert refused.status_code == 422 and "given out" in refused.json()["error"]
        assert client.post("/api/consent", json={"link": query["ann"]}).json()["status"] == "instructions"
        assert client.post("/api/arrive", json={"link": {}}).json() == {"status": "consent"}, "a preview"
    with pytest.raises(UserError, match="Line 2: 'a b' is no id"):
        signed_links(PROVIDERS["link"], panel.address, b"x", ["ann", "a b"])
    fielded.path.write_text(fielded.path.read_text().replace("  service:\n", f"  panel: {panel.model_dump_json(exclude_unset=True)}\n  service:\n"))
    (tmp_path / "ids.txt").write_text("ann\nben\n")
    words = ["panel", "link", str(fielded.path), "--people", str(tmp_path / "ids.txt"), "--to", str(tmp_path / "links.csv")]
    assert _run(["register", str(fielded.path), "--amend", "People of our own are asked."]) == 0, capsys.readouterr().err
    assert _run(words) == 0, capsys.readouterr().err
    assert pd.read_csv(tmp_path / "links.csv").set_index("participant")["link"].to_dict() == links
