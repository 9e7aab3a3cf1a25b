"""Prolific against a local server that keeps its rules and has its faults; webhooks; money that is paid once."""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from contrafact import bundle, study
from contrafact.cli import _run
from contrafact.errors import UserError
from contrafact.panels import fielded, ledger, prolific, webhooks
from contrafact.panels.links import PROVIDERS, arrival, done_link, entry_link
from contrafact.panels.prolific import OutcomeUnknown, Prolific
from contrafact.store import open_store
from contrafact.store.records import ImageRecord, StimulusRecord
from contrafact.store.visits import Screened, Visits
from contrafact.survey import batch, fielding
from contrafact.survey.batch import keyed

TOKEN, SECRET = "token-of-a-researcher", b"webhook-secret"
PANEL = """  panel:
    address: https://survey.example.org/s/small
    description: You will look at pictures and move a line for each.
    devices: [desktop]
    filters: [{filter_id: age, selected_range: {lower: 18, upper: 80}}]
"""


class Fake:
    """What Prolific keeps, and its faults: ``faults[(method, end of path)]`` is a list that is used up."""

    def __init__(self):
        self.studies, self.people, self.bulks, self.faults, self.calls = {}, {}, {}, {}, []
        self.money: list[tuple[str, float]] = []
        each = [
            ("/api/v1/studies/", self.list_studies, "GET"), ("/api/v1/studies/", self.make_study, "POST"),
            ("/api/v1/studies/{id}/submissions/", self.submissions, "GET"),
            ("/api/v1/studies/{id}/screen-out-submissions/", self.screen_out, "POST"),
            ("/api/v1/submissions/bulk-approve/", self.approve, "POST"),
            ("/api/v1/submissions/bonus-payments/", self.set_up, "POST"),
            ("/api/v1/bulk-bonus-payments/{id}/pay/", self.pay, "POST"),
        ]  # fmt: skip
        self.app = Starlette(routes=[Route(path, self.guard(take), methods=[method]) for path, take, method in each])

    def guard(self, take):
        async def answer(request):
            self.calls.append((request.method, request.url.path))
            if request.headers.get("authorization") != f"Token {TOKEN}":
                return JSONResponse({"error": {"status": 401, "detail": "Invalid token."}}, 401)
            fault = next((f.pop(0) for (m, end), f in self.faults.items() if f and m == request.method and request.url.path.endswith(end)), None)
            if fault == "429":
                return JSONResponse({"error": {"detail": "slow down"}}, 429, headers={"Retry-After": "7"})
            if fault == "500":
                return Response("oops", 500)
            if fault == "400":
                return JSONResponse({"error": {"status": 400, "detail": {"reward": ["too low"]}}}, 400)
            done = take(request, json.loads(await request.body() or b"null"))
            if fault == "done, then 500":
                return Response("oops", 500)
            if fault == "done, then silence":
                await asyncio.sleep(1.2)
            return done

        return answer

    def page(self, request, rows):
        start, count = int(request.query_params.get("offset", 0)), int(request.query_params.get("limit", 20))
        return JSONResponse({"results": rows[start : start + count], "meta": {"count": len(rows)}, "_links": {}})

    def list_studies(self, request, body):
        return self.page(request, list(self.studies.values()))

    def make_study(self, request, body):
        assert body["reward"] > 0 and {c["code_type"] for c in body["completion_codes"]} >= {"COMPLETED"}
        made = {**body, "id": f"{len(self.studies):024x}", "status": "UNPUBLISHED"}
        self.studies[made["id"]] = made
        return JSONResponse(made, 201)

    def submissions(self, request, body):
        return self.page(request, list(self.people.values()))

    def approve(self, request, body):
        for one in body["submission_ids"]:
            self.people[one]["status"] = "APPROVED"
        return JSONResponse({"message": "The request to bulk approve has been made successfully."})

    def screen_out(self, request, body):
        for one in body["submission_ids"]:
            self.people[one]["status"] = "SCREENED OUT"
        return JSONResponse({})

    def set_up(self, request, body):
        rows = [line.split(",") for line in body["csv_bonuses"].split("\n")]
        made = f"bulk{len(self.bulks)}"
        self.bulks[made] = [(person, float(amount)) for person, amount in rows]
        return JSONResponse({"id": made, "study": body["study_id"], "total_amount": 1}, 201)

    def pay(self, request, body):  # not idempotent, as the real one
        for person, amount in self.bulks[request.path_params["id"]]:
            self.money.append((person, amount))
            one = next(p for p in self.people.values() if p["participant_id"] == person)
            one["bonus_payments"].append(round(amount * 100))
        return Response(status_code=202)

    def comes(self, number, status="AWAITING REVIEW", code=""):
        one = f"{number:024x}"
        self.people[one] = {"id": one, "participant_id": f"5e1b{number:020x}", "status": status, "study_code": code, "bonus_payments": [], "ip": "192.0.2.1"}  # fmt: skip
        return one


@pytest.fixture
def fake():
    return Fake()


@pytest.fixture
def address(fake):
    server = uvicorn.Server(uvicorn.Config(fake.app, port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(5)


@pytest.fixture
def slept():
    return []


@pytest.fixture
def panel(address, slept):
    client = Prolific(TOKEN, address, timeout=0.5, sleep=slept.append)
    yield client
    client.close()


@pytest.fixture
def loaded(tmp_path, request):
    text = (bundle.folder("studies") / "templates" / "faces_world.yaml").read_text().replace("NAME", "small")
    text = text.replace("participants: 60", "participants: 4").replace("trials_per_participant: 52", "trials_per_participant: 13")
    path = tmp_path / "small.yaml"
    if getattr(request, "param", "") == "guess":
        text = text.replace("scale: vas", "scale: choice").replace("survey:\n", "survey:\n  design: guess\n  pay: {bonus: 0.05}\n", 1)
    path.write_text(text.replace("survey:\n", "survey:\n" + PANEL, 1))
    return study.load(path)


@pytest.fixture
def store(loaded, workspace):
    """A study whose people are real: a batch of four lists, of which two are answered."""
    ARMS = [("null", 0.0)] + [(arm, d) for arm in ("treated", "sham", "placebo") for d in (-1.5, -0.75, 0.75, 1.5)]
    workspace.mkdir()
    with open_store(f"sqlite:///{workspace / 'store.db'}") as store:
        study_id = store.add_study(loaded.study.study, loaded.study.title, loaded.text, loaded.sha256)
        stage = store.start_stage(store.start_run(study_id, "m"), "generate", "ab" * 32, mlflow_run_id="n", code_version="1")
        store.put_images(study_id, stage, [ImageRecord(f"img{k}", f"unit{k}", "stimuli", f"{k:064x}", 32, 32) for k in range(13)])
        direction = store.put_direction(study_id, name="outcome_up", kind="condition", target="outcome", hold=["skin"], spec={})
        rows = [
            StimulusRecord(image.id, direction, arm, 0, dose, f"outcome_up/{image.key}", True, f"{100 * n + k:064x}")
            for n, image in enumerate(store.images(study_id))
            for k, (arm, dose) in enumerate(ARMS)
        ]
        store.put_stimuli(study_id, stage, rows)
        table = store.stimuli_table(study_id)
        people = loaded.study.model_copy(update={"survey": loaded.study.survey.model_copy(update={"respondents": None})})
        fielding.open_batch(store, study_id, people, table.assign(key=table["stimulus"]))
        yield store


def answered(store, loaded, tmp_path, people):
    """Whole lists of these people come in by a file."""
    asked = fielding.expected(store, 1, loaded.study)
    rows = asked.assign(value=asked["target"].fillna(40), position=asked["position"] + 1, participant=[people[n] if n < len(people) else "" for n in asked["list"]])
    rows = rows[rows["participant"] != ""].reindex(columns=batch.ANSWER_COLUMNS)
    rows.to_csv(tmp_path / "answers.csv", index=False)
    fielding.import_answers(store, 1, loaded.study, [tmp_path / "answers.csv"])


def test_a_draft_is_made_once_and_shown_exactly(store, loaded, panel, fake, address, monkeypatch, capsys):
    request = fielded.draft_request(store, 1, loaded.study)
    body = request.json
    assert body["external_study_url"] == (
        "https://survey.example.org/s/small?PROLIFIC_PID={{%PROLIFIC_PID%}}&STUDY_ID={{%STUDY_ID%}}&SESSION_ID={{%SESSION_ID%}}"
    )
    assert (body["reward"], body["total_available_places"], body["device_compatibility"]) == (120, 4, ["desktop"])
    codes = [code["code"] for code in body["completion_codes"]]
    assert len(set(codes)) == 4 and all(len(code) == 8 and code.isalnum() for code in codes)

    monkeypatch.setenv("CONTRAFACT_PROLIFIC_URL", address)
    file = str(loaded.path)
    assert _run(["panel", "draft", file, "--dry-run", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["requests"] == [request.facts(address)] and TOKEN not in json.dumps(said) and not fake.calls
    assert said["requests"][0]["json"] == json.loads(json.dumps(body))

    assert _run(["panel", "draft", file]) == 2
    assert "CONTRAFACT_PROLIFIC_TOKEN is not set" in capsys.readouterr().err
    monkeypatch.setenv("CONTRAFACT_PROLIFIC_TOKEN", TOKEN)
    for _ in range(2):
        assert _run(["panel", "draft", file, "--json"]) == 0
    assert len(fake.studies) == 1 and next(iter(fake.studies.values()))["description"] == loaded.study.survey.panel.description

    fake.studies.clear()
    fake.faults["POST", "/studies/"] = ["done, then silence"]
    assert panel.draft(request)["status"] == "UNPUBLISHED" and len(fake.studies) == 1, "found again, not made again"
    fake.studies.clear()
    fake.faults["POST", "/studies/"] = ["500"]
    with pytest.raises(OutcomeUnknown):
        panel.draft(request)
    fake.faults["POST", "/studies/"] = ["400"]
    with pytest.raises(UserError, match=r"POST /api/v1/studies/: refused \(400\): .*too low"):
        panel.draft(request)


def test_calls_are_repeated_where_that_is_safe_and_wait_as_told(panel, fake, slept):
    fake.faults["GET", "/studies/"] = ["429", "500", "500"]
    assert panel.find("nothing") is None
    assert slept == [7.0, 2.0, 4.0]
    fake.faults["GET", "/studies/"] = ["500"] * 9
    with pytest.raises(UserError, match=r"GET /api/v1/studies/: failed \(500\), 5 times"):
        panel.find("nothing")
    fake.faults["POST", "pay/"] = ["429"]
    fake.comes(1, "APPROVED")
    panel.set_up_bonuses("s", [(fake.people[f"{1:024x}"]["participant_id"], 125)])
    panel.pay_bonuses("bulk0")
    assert len(fake.money) == 1, "a refusal before anything happened may be repeated"
    with pytest.raises(UserError, match="cannot be reached") as caught:
        Prolific(TOKEN, "http://127.0.0.1:9", sleep=slept.append).find("x")
    assert TOKEN not in str(caught.value)
    with pytest.raises(UserError, match="Invalid token"):
        Prolific("wrong", panel.address).find("x")


def test_what_the_panel_says_is_set_beside_the_answers_and_whole_lists_are_approved(store, loaded, panel, fake, tmp_path):
    panel.draft(fielded.draft_request(store, 1, loaded.study))
    code = prolific.completion_codes(store.salt(1))["COMPLETED"]
    good, wrong, early = fake.comes(1, code=code), fake.comes(2, code="NOCODE"), fake.comes(3, code=code)
    for number in range(4, 130):
        fake.comes(number, "RETURNED")
    answered(store, loaded, tmp_path, [fake.people[good]["participant_id"], fake.people[wrong]["participant_id"], "somebody else"])
    at_prolific = fielded.published(store, panel, 1, loaded.study)

    found = fielded.reconcile(store, panel, 1, at_prolific)
    assert found == {"statuses": {"AWAITING_REVIEW": 3, "RETURNED": 126}, "changed": 129, "lists_without_submission": 1, "submissions_without_list": 1}
    assert fielded.reconcile(store, panel, 1, at_prolific)["changed"] == 0
    kept = json.dumps([vars(record) for record in store.submissions(1)], default=str)
    assert good not in kept and fake.people[good]["participant_id"] not in kept and "192.0.2.1" not in kept

    assert fielded.to_approve(store, panel, 1, at_prolific) == ([good], 2)
    fake.faults["POST", "bulk-approve/"] = ["done, then 500"]
    panel.approve(at_prolific, [good])
    assert [fake.people[one]["status"] for one in (good, wrong, early)] == ["APPROVED", "AWAITING REVIEW", "AWAITING REVIEW"]
    panel.screen_out(at_prolific, [early], 0.5)
    assert fielded.reconcile(store, panel, 1, at_prolific)["statuses"]["SCREENED_OUT"] == 1

    away = [fake.comes(number, code=prolific.completion_codes(store.salt(1))["SCREENED_OUT"]) for number in (200, 201)]
    pid, day = keyed(store.salt(1), "participant", fake.people[away[0]]["participant_id"]), timedelta(days=1)
    visits = Visits(store, 1, store.batches(1)[-1].name)
    visits.begin(pid, "raw", lease=day, keep=day, screened=Screened({"age": "young"}, False, {}))
    assert fielded.to_screen_out(store, panel, 1, at_prolific) == away[:1], "the code alone proves nothing"


def test_prolifics_own_file_is_set_beside_the_answers(store, loaded, tmp_path, capsys):
    people = [f"5e1b{n:020x}" for n in range(4)]
    answered(store, loaded, tmp_path, people[:2])
    rows = [f"{n:024x},{people[n]},{status},2026-03-02T09:14:07Z,600,34" for n, status in enumerate(("APPROVED", "REJECTED", "AWAITING REVIEW", "RETURNED"))]
    (tmp_path / "prolific.csv").write_text("\n".join(["Submission id,Participant id,Status,Started at,Time taken,Age", *rows]))
    assert _run(["survey", "import", str(loaded.path), str(tmp_path / "prolific.csv"), "--dry-run", "--json"]) == 0
    out = capsys.readouterr().out
    said = json.loads(out)
    assert {name: said[name] for name in ("format", "rows", "participants", "accepted", "unfinished", "unmatched", "invalid")} == {
        "format": "prolific", "rows": 4, "participants": 4, "accepted": 2, "unfinished": 1, "unmatched": 1, "invalid": 0,
    }  # fmt: skip
    assert not any(person in out for person in people), "no id of a person is told"


def test_a_bonus_is_paid_once_whatever_fails(store, loaded, panel, fake):
    """Every fault at every step, with the same command again and again after it."""
    panel.draft(fielded.draft_request(store, 1, loaded.study))
    at_prolific = fielded.published(store, panel, 1, loaded.study)
    faults = ["none", "429", "500", "400", "done, then 500", "done, then silence"]
    steps = ["/submissions/", "bonus-payments/", "pay/"]
    number = 0
    for step in steps:
        for fault in faults:
            number += 1
            one, other = fake.comes(2 * number, "APPROVED"), fake.comes(2 * number + 1, "PARTIALLY APPROVED")
            reason = f"reason-{number}"
            before = len(fake.money)
            ledger.plan(store, 1, reason, "GBP", {one: 125, other: 50})
            fake.faults["GET" if step == "/submissions/" else "POST", step] = [fault] if fault != "none" else []
            for attempt in range(3):
                try:
                    done = ledger.pay(store, panel, 1, at_prolific, reason)
                except UserError:
                    assert fault == "400" and attempt == 0
                ledger.plan(store, 1, reason, "GBP", {one: 125, other: 50})
            paid = fake.money[before:]
            lost = step == "pay/" and fault == "500"  # nothing was done, and nobody but Prolific can know that
            assert paid == ([] if lost else [(fake.people[one]["participant_id"], 1.25), (fake.people[other]["participant_id"], 0.5)]), (step, fault)
            assert done == ({"paid": 0, "unknown": 2, "open": 0} if lost else {"paid": 2, "unknown": 0, "open": 0}), (step, fault)
    with pytest.raises(UserError, match=r"in the ledger with 1\.25 GBP, not 1\.26"):
        ledger.plan(store, 1, reason, "GBP", {one: 126})
    with pytest.raises(UserError, match="not between"):
        ledger.plan(store, 1, "big", "GBP", {one: 1_000_000})
    waiting = fake.comes(900)
    ledger.plan(store, 1, "early", "GBP", {waiting: 10})
    with pytest.raises(UserError, match="AWAITING_REVIEW, not approved"):
        ledger.pay(store, panel, 1, at_prolific, "early")


def test_of_many_commands_at_once_one_alone_pays(store, loaded, panel, fake, address):
    panel.draft(fielded.draft_request(store, 1, loaded.study))
    at_prolific = fielded.published(store, panel, 1, loaded.study)
    one = fake.comes(1, "APPROVED")
    ledger.plan(store, 1, "thanks", "GBP", {one: 125})
    together = threading.Barrier(6)

    def command():
        own = Prolific(TOKEN, address)
        together.wait()
        ledger.pay(store, own, 1, at_prolific, "thanks")
        own.close()

    threads = [threading.Thread(target=command) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert fake.money == [(fake.people[one]["participant_id"], 1.25)]


def test_the_verb_pays_only_the_sum_that_was_shown(store, loaded, fake, address, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CONTRAFACT_PROLIFIC_URL", address)
    monkeypatch.setenv("CONTRAFACT_PROLIFIC_TOKEN", TOKEN)
    file, rows = str(loaded.path), tmp_path / "bonuses.csv"
    rows.write_text(f"submission,amount\n{fake.comes(1, 'APPROVED')},1.25\n{fake.comes(2, 'APPROVED')},0.5\n")
    assert _run(["panel", "draft", file]) == 0
    assert _run(["panel", "bonus", file, str(rows), "--reason", "guesses"]) == 0
    assert "1.75 GBP in all. Nothing was paid." in capsys.readouterr().out and not fake.money
    assert _run(["panel", "bonus", file, str(rows), "--reason", "guesses", "--total", "17.50"]) == 2
    assert not fake.money
    for _ in range(2):
        assert _run(["panel", "bonus", file, str(rows), "--reason", "guesses", "--total", "1.75"]) == 0
    assert sorted(amount for _, amount in fake.money) == [0.5, 1.25]
    assert [(entry.action, entry.detail["paid"]) for entry in store.audit(1)] == [("bonus", 2), ("bonus", 2)]
    for text, sentence in (("submission,amount\nab,1,25\n", "row 2, amount"), ("submission,amount\nab,-1\n", "row 2, amount"), ("submission,amount\nab,1\nab,1\n", "stands there twice"),
                           ("id,amount\n", "row 1: the columns"), ("submission,amount\n=1+1,1\n", "row 2, submission")):  # fmt: skip
        rows.write_text(text.replace("ab,1,25", "ab,1.255"))
        with pytest.raises(UserError, match=sentence):
            fielded.read_bonuses(rows)


@pytest.mark.parametrize("loaded", ["guess"], indirect=True)
def test_right_guesses_are_counted_from_the_answers_and_paid_once(store, loaded, fake, address, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CONTRAFACT_PROLIFIC_URL", address)
    monkeypatch.setenv("CONTRAFACT_PROLIFIC_TOKEN", TOKEN)
    file, approved, waiting = str(loaded.path), fake.comes(1, "APPROVED"), fake.comes(2)
    answered(store, loaded, tmp_path, [fake.people[one]["participant_id"] for one in (approved, waiting)])
    assert set(store.right_guesses(1, "trust").values()) == {13}
    assert _run(["panel", "draft", file]) == 0
    assert _run(["panel", "bonus", file]) == 0
    assert "1 bonuses, 0.65 GBP in all. Nothing was paid." in capsys.readouterr().out
    assert _run(["panel", "bonus", file, "--reason", "again"]) == 2 and not fake.money
    assert _run(["panel", "bonus", file, "--total", "0.65"]) == 0 and _run(["panel", "bonus", file, "--total", "0.65"]) == 2
    fake.people[waiting]["status"] = "APPROVED"
    assert _run(["panel", "bonus", file, "--total", "0.65"]) == 0
    assert [amount for _, amount in fake.money] == [0.65, 0.65] and len({person for person, _ in fake.money}) == 2


def signed(body, timestamp=None, event="e1", at="2026-03-02T09:20:00Z", secret=SECRET):
    raw, stamp = json.dumps(body).encode(), str(timestamp if timestamp is not None else time.time())
    signature = base64.b64encode(hmac.new(secret, stamp.encode() + raw, hashlib.sha256).digest()).decode()
    return raw, {"X-Prolific-Request-Signature": signature, "X-Prolific-Request-Timestamp": stamp, "X-Event-ID": event, "X-Timestamp": at}


def test_webhooks_are_checked_taken_once_and_put_in_order(store):
    client = TestClient(webhooks.application(store, 1, SECRET))

    def sends(status, **how):
        raw, headers = signed({"event_type": "submission.status.change", "resource_id": "s" * 24, "participant_id": "p" * 24, "status": status}, **how)
        return client.post("/webhooks/prolific", content=raw, headers=headers).status_code

    assert sends("ACTIVE") == 200 and store.submissions(1)[0].status == "ACTIVE"
    assert sends("APPROVED", event="e3", at="2026-03-02T09:40:00Z") == 200
    assert sends("AWAITING REVIEW", event="e2", at="2026-03-02T09:30:00Z") == 200, "late, and older than what is known"
    assert sends("REJECTED", event="e1", at="2026-03-02T09:59:00Z") == 200, "a repeat of an event's id"
    [kept] = store.submissions(1)
    assert (kept.status, kept.at) == ("APPROVED", datetime(2026, 3, 2, 9, 40, tzinfo=UTC))
    assert "s" * 24 not in str(kept) and "p" * 24 not in str(kept)

    assert sends("REJECTED", event="e4", secret=b"another") == 401
    assert sends("REJECTED", event="e5", timestamp=time.time() - 600) == 401
    assert sends("REJECTED", event="e6", timestamp="soon") == 401
    assert sends("REJECTED", event="") == 400
    raw, headers = signed({"event_type": "submission.status.change", "resource_id": "s", "participant_id": "p", "status": "REJECTED"}, event="e7")
    assert client.post("/webhooks/prolific", content=raw.replace(b"REJECTED", b"REJECTEd"), headers=headers).status_code == 401
    assert client.post("/webhooks/prolific", content=b"x" * 200_000, headers=headers).status_code == 413
    assert client.get("/webhooks/prolific").status_code == 405
    for body in ([], {"event_type": 1}, "text", {"event_type": "submission.status.change", "resource_id": 7, "participant_id": "p"}):
        raw, headers = signed(body, event="e8")
        assert client.post("/webhooks/prolific", content=raw, headers=headers).status_code in (200, 400)
    assert [record.status for record in store.submissions(1)] == ["APPROVED"]
    raw, headers = signed({"event_type": "study.status.change"}, timestamp=round(time.time() * 1000))
    assert client.post("/webhooks/prolific", content=raw, headers=headers).status_code == 200


def test_the_verb_listens_until_it_is_stopped(store, loaded, workspace):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-c", "from contrafact.cli import main; main()", "panel", "listen", str(loaded.path), "--port", str(port), "--json"]
    environment = {**os.environ, "CONTRAFACT_WORKSPACE": str(workspace), "CONTRAFACT_PROLIFIC_SECRET": SECRET.decode(), "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) as running:
        try:
            address = json.loads(running.stdout.readline())["address"]
            raw, headers = signed({"event_type": "submission.status.change", "resource_id": "s", "participant_id": "p", "status": "ACTIVE"})
            for _ in range(100):
                with contextlib.suppress(httpx.ConnectError):
                    assert httpx.post(address, content=raw, headers=headers).status_code == 200
                    break
                time.sleep(0.1)
        finally:
            running.send_signal(signal.SIGINT)
            running.wait(30)
    assert [record.status for record in store.submissions(1)] == ["ACTIVE"]


def test_any_panel_by_the_parameters_of_its_link(loaded, capsys):
    one = PROVIDERS["prolific"]
    query = {"PROLIFIC_PID": "5e1b" + "0" * 20, "SESSION_ID": "6f" * 12, "STUDY_ID": "a"}
    assert (arrival(one, query).participant, arrival(one, query).session, arrival(one, query).preview) == (query["PROLIFIC_PID"], "6f" * 12, False)
    for unfilled in ({}, {"PROLIFIC_PID": "{{%PROLIFIC_PID%}}"}, {"PROLIFIC_PID": ""}):
        assert arrival(one, unfilled).preview
    with pytest.raises(UserError, match="is no id of this panel") as caught:
        arrival(one, {"PROLIFIC_PID": "<script>"})
    assert "<script>" not in str(caught.value)
    assert done_link(one, "K7&x", query) == "https://app.prolific.com/submissions/complete?cc=K7%26x"
    assert done_link(PROVIDERS["connect"], "", {"projectId": "../x"}).endswith("/project/..%2Fx/complete")
    assert entry_link(PROVIDERS["sona"], "https://x.org/s?a=1") == "https://x.org/s?a=1&survey_code=%SURVEY_CODE%"
    assert arrival(PROVIDERS["sona"], {"survey_code": "%SURVEY_CODE%"}).preview
    assert done_link(PROVIDERS["link"], "code", {}) == ""
    assert _run(["panel", "link", str(loaded.path), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["link"].startswith("https://survey.example.org/s/small?PROLIFIC_PID=") and said["provider"] == "prolific"
