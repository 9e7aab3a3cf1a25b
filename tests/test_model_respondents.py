"""Model respondents against a small local server that speaks the protocol and really looks at the pixels."""

import base64
import hashlib
import io
import json
import re
import threading
import time

import numpy as np
import pandas as pd
import pytest
import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from contrafact import bundle, study
from contrafact.cli import _run
from contrafact.errors import UserError
from contrafact.store import open_store
from contrafact.store.files import Files
from contrafact.store.records import ImageRecord, StimulusRecord
from contrafact.study.schema import ModelRespondent, Question
from contrafact.survey import batch, fielding, models
from contrafact.survey.validity import FEWEST, validity

KEY = "sk-secret-of-a-researcher"
DOSES = (-1.5, -0.75, 0.75, 1.5)


class Model:
    """Says how bright the picture is, on the scale as the prompt gives it. ``manner`` changes how it behaves."""

    def __init__(self):
        self.manner, self.faults, self.requests = "honest", [], []
        routes = [Route("/v1/chat/completions", self.chat, methods=["POST"]), Route("/v1/embeddings", self.embed, methods=["POST"])]
        self.app = Starlette(routes=routes)

    async def chat(self, request):
        body = await request.json()
        self.requests.append((body, request.headers.get("authorization")))
        if self.faults:
            fault = self.faults.pop(0)
            return Response("no", fault, headers={"Retry-After": "3"})
        text, link = body["messages"][1]["content"][0]["text"], body["messages"][1]["content"][1]["image_url"]["url"]
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(link.split(",")[1]))), dtype=float)
        bright = pixels.mean() / 255
        if self.manner == "mute":
            said = "I cannot judge people."
        elif "one sentence" in text:
            said = f"It is {('definitely dull', 'dull', 'rather dull', 'neither dull nor bright', 'rather bright', 'bright', 'definitely bright')[round(6 * bright)]}"
        else:
            ends = re.search(r"from (\d+) \((.*?)\) to (\d+) \((.*?)\)", text)
            share = bright if ends[2] == "dull" or self.manner == "first end" else 1 - bright
            value = int(ends[1]) + share * (int(ends[3]) - int(ends[1]))
            said = f"{round(value)}" if ends[3] == "7" else f"{value:.1f}"
        usage = {"prompt_tokens": 100, "completion_tokens": 3}
        return JSONResponse({"choices": [{"message": {"role": "assistant", "content": said}}], "usage": usage})

    async def embed(self, request):
        """Words in a space of their hashes: alike texts are close."""
        rows = []
        for text in (await request.json())["input"]:
            vector = np.zeros(64)
            for word in re.findall(r"\w+", text.lower()):
                vector[int(hashlib.sha256(word.encode()).hexdigest(), 16) % 64] += 1
            rows.append(vector.tolist())
        return JSONResponse({"data": [{"index": n, "embedding": row} for n, row in enumerate(rows)]})


@pytest.fixture
def model():
    return Model()


@pytest.fixture
def address(model):
    server = uvicorn.Server(uvicorn.Config(model.app, port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    server.should_exit = True
    thread.join(5)


QUESTIONS = """  questions:
    - {name: light, text: How bright is it?, low: dull, high: bright}
    - {name: seven, text: How bright is it?, low: dull, high: bright, scale: likert7}
"""


@pytest.fixture
def loaded(tmp_path, address):
    text = (bundle.folder("studies") / "templates" / "faces_world.yaml").read_text().replace("NAME", "small")
    text = text.replace("participants: 60", "participants: 6").replace("trials_per_participant: 52", "trials_per_participant: 13")
    text = re.sub(r"  questions:\n(    .*\n)+", QUESTIONS, text)
    text = re.sub(r"question: \w+\b(?!:)", "question: light", text)
    both = f"  models:\n    direct: {{address: '{address}', model: m1, key: MODEL_KEY, requests_per_minute: 90000, price_in: 2.5, price_out: 10}}\n"
    both += f"    words: {{address: '{address}', model: m1, rating: similarity, embedding: e1, requests_per_minute: 90000}}\n"
    path = tmp_path / "small.yaml"
    path.write_text(text.replace("survey:\n", "survey:\n" + both, 1))
    return study.load(path)


def png(level):
    stream = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), level, dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def store(loaded, workspace):
    """Three images whose treated versions are brighter with the dose, sham versions not; null as the original."""
    workspace.mkdir()
    files = Files((workspace / "files").as_uri())
    with open_store(f"sqlite:///{workspace / 'store.db'}") as store:
        study_id = store.add_study(loaded.study.study, loaded.study.title, loaded.text, loaded.sha256)
        stage = store.start_stage(store.start_run(study_id, "m"), "generate", "ab" * 32, mlflow_run_id="n", code_version="1")
        levels = {f"img{k}": 90 + 20 * k for k in range(3)}
        store.put_images(study_id, stage, [ImageRecord(key, f"u{key}", "stimuli", files.put(png(level)), 4, 4) for key, level in levels.items()])
        direction = store.put_direction(study_id, name="outcome_up", kind="condition", target="outcome", hold=["skin"], spec={})
        rows = []
        for image in store.images(study_id):
            for arm, dose in [("null", 0.0)] + [(arm, d) for arm in ("treated", "sham", "placebo") for d in DOSES]:
                level = levels[image.key] + (round(30 * dose) if arm == "treated" else 0)
                rows.append(StimulusRecord(image.id, direction, arm, 0, dose, f"outcome_up/{image.key}", True, files.put(png(level))))
        store.put_stimuli(study_id, stage, rows)
        table = store.stimuli_table(study_id)
        people = loaded.study.model_copy(update={"survey": loaded.study.survey.model_copy(update={"respondents": None})})
        fielding.open_batch(store, study_id, people, table.assign(key=table["stimulus"]))
        yield store


def pictures(store, loaded):
    originals = {image.key: image.pixels_sha256 for image in store.images(1)}
    return models.pictures_to_ask(fielding.trials_of(store, 1, loaded.study), store.stimuli_table(1), originals)


def test_what_is_asked_says_what_is_randomised_and_nothing_of_this_picture(store, loaded, model, workspace):
    shown = pictures(store, loaded)
    assert len(shown) == shown["stimulus"].nunique() and set(shown["arm"]) == {"null", "treated", "sham", "placebo", "original"}
    who = loaded.study.survey.models["direct"]
    endpoint = models.Endpoint(who, KEY, workspace / "c.db")
    files = Files((workspace / "files").as_uri())
    list(models.answers(loaded.study, who, shown, files.get, endpoint))
    endpoint.close()
    texts = {json.dumps([m["content"] if m["role"] == "system" else m["content"][0]["text"] for m in body["messages"]]) for body, _ in model.requests}
    assert len(texts) == 4, "two questions, two orders: the text depends on nothing else"
    assert all("changed, by amounts drawn at random: outcome" in text and "held as it was: skin" in text for text in texts)
    assert not any(re.search(r"treated|sham|placebo|null|dose|img\d|1\.5", text) for text in texts)
    assert {auth for _, auth in model.requests} == {f"Bearer {KEY}"}
    assert KEY not in (workspace / "c.db").read_bytes().decode("latin-1")


def test_answers_are_read_kept_and_never_asked_twice(store, loaded, model, workspace):
    shown = pictures(store, loaded)
    who, files = loaded.study.survey.models["direct"], Files((workspace / "files").as_uri())
    slept = []
    endpoint = models.Endpoint(who, KEY, workspace / "c.db", sleep=slept.append)
    model.faults = [429, 500, 503]
    table = pd.DataFrame(models.answers(loaded.study, who, shown, files.get, endpoint))
    assert [wait for wait in slept if wait > 0.01] == [3.0, 2.0, 4.0] and len(table) == len(shown) * 4
    sides = table.pivot_table(index=["stimulus", "question"], columns="order", values="value")
    assert (sides["as_is"] - sides["reversed"]).abs().max() < 0.21 and table["value"].notna().all()
    asked = len(model.requests)
    again = models.Endpoint(who, KEY, workspace / "c.db")
    pd.testing.assert_frame_equal(table, pd.DataFrame(models.answers(loaded.study, who, shown, files.get, again)))
    assert len(model.requests) == asked and again.requests == 0
    unique = len({json.dumps(body) for body, _ in model.requests})
    assert endpoint.tokens_in == 100 * unique, "pictures of the same pixels are asked once"
    again.close()
    endpoint.close()


def test_the_rate_is_kept(loaded, address):
    now, slept = [0.0], []

    def sleep(seconds):
        slept.append(seconds)
        now[0] += seconds

    who = ModelRespondent(address=address, model="m1", requests_per_minute=30)
    question = Question(name="light", text="How bright is it?", low="dull", high="bright")
    endpoint = models.Endpoint(who, None, loaded.path.parent / "c.db", sleep=sleep, clock=lambda: now[0])
    for level in (10, 20, 30, 40):
        asked = models.Asked("s", "x", question, "as_is", 0)
        endpoint.chat(models.body(loaded.study, who, asked, png(level)))
    endpoint.close()
    assert slept == [2.0, 2.0, 2.0]


def test_a_similarity_rating_goes_with_the_words(store, loaded, workspace):
    who, files = loaded.study.survey.models["words"], Files((workspace / "files").as_uri())
    endpoint = models.Endpoint(who, None, workspace / "c.db")
    shown = pictures(store, loaded)
    table = pd.DataFrame(models.answers(loaded.study, who, shown, files.get, endpoint))
    endpoint.close()
    assert table["value"].between(1, 100).all()
    light = table[table["question"] == "light"].groupby("stimulus")["value"].mean()
    bright = shown.set_index("stimulus")["pixels_sha256"].map(lambda sha: np.asarray(Image.open(io.BytesIO(files.get(sha)))).mean())
    assert np.corrcoef(light, bright[light.index])[0, 1] > 0.8


def test_the_distribution_over_points_is_that_of_the_paper():
    references = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    cosines = np.array([0.6, 0.8, 1.4 / np.sqrt(2)])
    above = cosines - cosines.min()
    expected = (above / above.sum()) @ [1, 2, 3]
    assert models.similarity_rating(np.array([3.0, 4.0]), [1, 2, 3], references) == pytest.approx(expected)
    assert np.isnan(models.similarity_rating(np.zeros(2), [1, 2, 3], references))
    assert np.isnan(models.similarity_rating(np.ones(2), [1, 2], np.ones((2, 2))))


@pytest.mark.parametrize(
    ("text", "order", "value"),
    [
        ("71", "as_is", 71), ("71", "reversed", 29), ("I would say 71.5.", "as_is", 71.5), ("71/100", "as_is", np.nan),
        ("-3", "as_is", np.nan), ("101", "as_is", np.nan), ("", "as_is", np.nan), ("I cannot", "as_is", np.nan), ("40, yes 40", "as_is", 40),
    ],
)  # fmt: skip
def test_a_direct_answer_is_one_number_or_none(text, order, value):
    found = models.direct_rating(text, Question(name="q", text="How?"), order)
    assert found == pytest.approx(value, nan_ok=True)


def test_validity_says_what_was_planted():
    generator = np.random.default_rng(1)
    images, doses = 30, (-1.5, 0.0, 1.5)
    stimuli = pd.DataFrame(
        [(f"{i}/{d}", f"set{i}", "null" if d == 0 else "treated", d) for i in range(images) for d in doses] + [(f"{i}/o", f"set{i}", "original", np.nan) for i in range(images)],
        columns=["stimulus", "set_key", "arm", "dose"],
    )  # fmt: skip
    level = generator.normal(50, 8, images)
    true = np.array([level[int(s.split("/")[0])] + 6 * np.nan_to_num(d) for s, d in zip(stimuli["stimulus"], stimuli["dose"], strict=True)])

    def rated(mean, n, noise, order="as_is"):
        frame = stimuli.assign(mean=mean).loc[stimuli.index.repeat(n)]
        return frame.assign(question="q", order=order, value=frame["mean"] + generator.normal(0, noise, len(frame)))

    people = rated(true, 40, 10)[lambda t: t["arm"] != "original"]
    good = validity(pd.concat([rated(true, 3, 1), rated(true, 3, 1, "reversed")]), people, stimuli, "q", "vas")
    assert good.label == "calibrated" and good.pictures == 90
    assert good.pearson > 0.95 and good.spearman > 0.95 and good.sign_agreement > 0.97
    assert good.variance_ratio == pytest.approx(1, abs=0.15) and good.null_low < 0 < good.null_high and good.ks < 0.35
    steep = validity(rated(50 + 3 * (true - 50), 3, 1), people, stimuli, "q", "vas")
    assert steep.variance_ratio == pytest.approx(9, rel=0.15) and np.isnan(steep.order_flips)
    marked = validity(rated(true + 5 * (stimuli["arm"] != "original"), 3, 1), people, stimuli, "q", "vas")
    assert marked.null_low < 5 < marked.null_high and marked.null_low > 3
    biased = validity(pd.concat([rated(30, 1, 1), rated(70, 1, 1, "reversed")]), people, stimuli, "q", "vas")
    assert biased.order_flips == 1
    against = validity(rated(100 - true, 3, 1), people, stimuli, "q", "vas")
    assert against.pearson < -0.95 and against.sign_agreement < 0.03

    few = people[people["stimulus"].isin(people["stimulus"].unique()[: FEWEST - 1])]
    nobody = validity(rated(true, 3, 1), few, stimuli, "q", "vas")
    assert nobody.label == "uncalibrated"
    assert [nobody.facts()[name] for name in ("pearson", "spearman", "ks", "sign_agreement", "variance_ratio")] == [None] * 5
    assert nobody.null_low < 0 < nobody.null_high


def test_the_verb_estimates_asks_and_leaves_the_store_alone(store, loaded, model, tmp_path, workspace, monkeypatch, capsys):
    file, to = str(loaded.path), tmp_path / "asked"
    words = ["survey", "ask", file, "--model", "direct", "--to", str(to)]
    assert _run([*words, "--dry-run", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    cost = said["estimate"]
    assert not model.requests and cost["requests"] == len(pictures(store, loaded)) * 4
    assert cost["money"] == pytest.approx((2.5 * cost["tokens_in"] + 10 * cost["tokens_out"]) / 1e6)
    assert _run(words) == 2 and "MODEL_KEY is not set" in capsys.readouterr().err
    monkeypatch.setenv("MODEL_KEY", KEY)
    assert _run(["survey", "ask", file, "--model", "dircet", "--to", str(to)]) == 2
    assert "Did you mean 'direct'" in capsys.readouterr().err and not to.exists()
    model.faults = [401]
    assert _run(words) == 2
    out = capsys.readouterr().err
    assert "refused (401)" in out and KEY not in out and not to.exists()

    assert _run([*words, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert {report["label"] for report in said["validity"]} == {"uncalibrated"} and said["used"]["tokens_in"] > 0
    assert store.ratings_table(1).empty, "nothing of it is among ratings"
    assert pd.read_parquet(to / "answers.parquet")["respondent"].eq("direct").all()

    rows = fielding.expected(store, 1, loaded.study)
    generator = np.random.default_rng(3)
    light = store.stimuli_table(1).set_index("stimulus")["dose"].mul(store.stimuli_table(1).set_index("stimulus")["arm"].eq("treated"))
    value = 50 + 12 * rows["stimulus"].map(light).fillna(0).astype(float) + generator.normal(0, 3, len(rows))
    value = value.where(rows["scale"] == "vas", (1 + value * 6 / 100).round()).where(rows["kind"] == "image", rows["target"])
    rows = rows.assign(value=value.round(1), position=rows["position"] + 1, participant="P" + rows["list"].astype(str))
    rows.reindex(columns=batch.ANSWER_COLUMNS).to_csv(tmp_path / "people.csv", index=False)
    assert _run(["survey", "import", file, str(tmp_path / "people.csv")]) == 0
    capsys.readouterr()
    before = len(model.requests)
    assert _run([*words[:-1], str(tmp_path / "again"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    report = next(r for r in said["validity"] if r["question"] == "light")
    assert report["label"] == "calibrated" and report["pearson"] > 0.5 and report["sign_agreement"] > 0.9 and report["order_flips"] < 0.1
    assert len(model.requests) == before and said["used"]["requests"] == 0


def test_a_model_that_says_nothing_useful_is_told(store, loaded, model, workspace):
    model.manner = "mute"
    who, files = loaded.study.survey.models["direct"], Files((workspace / "files").as_uri())
    endpoint = models.Endpoint(who, KEY, workspace / "c.db")
    shown = pictures(store, loaded)
    table = pd.DataFrame(models.answers(loaded.study, who, shown, files.get, endpoint))
    endpoint.close()
    report = validity(table, pd.DataFrame(columns=["stimulus", "question", "value"]), shown, "light", "vas")
    assert report.unread == 1 and report.pictures == 0 and np.isnan(report.null_effect)
    with pytest.raises(ValueError, match="embedding"):
        ModelRespondent(address="http://localhost/v1", model="m", rating="similarity")
    with pytest.raises(UserError, match="did not answer"):
        models.Endpoint(ModelRespondent(address="http://127.0.0.1:9/v1", model="m"), None, workspace / "d.db", sleep=lambda s: None).chat({})
