"""The store: what is written once is written once, what people said stays, and a rating never loses its stimulus."""

from __future__ import annotations

import math
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from contrafact.errors import UserError
from contrafact.stats.statement import Statement
from contrafact.store import Store, open_store
from contrafact.store.database import connect
from contrafact.store.dump import canonical
from contrafact.store.models import Registration
from contrafact.store.records import CardRecord, GateRecord, ImageRecord, ModelRecord, StimulusRecord
from contrafact.study.schema import Question

HASH = {letter: letter * 64 for letter in "abcdef"}
DOSES = (-1.0, 0.0, 1.0)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with nothing in it: copying it is quicker than making it."""
    file = tmp_path_factory.mktemp("empty") / "store.db"
    open_store(f"sqlite:///{file}").close()
    return file


@pytest.fixture(scope="module")
def empty_postgres(database: Callable[..., str]) -> str:
    """As ``empty``, on a server."""
    made = database()
    open_store(made).close()
    return made


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("database")(request.getfixturevalue("empty_postgres")))
    return f"sqlite:///{shutil.copy(request.getfixturevalue('empty'), tmp_path / 'store.db')}"


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with open_store(url) as opened:
        yield opened


class Filled:
    """A study of two images as its stages write it, people or simulated people included."""

    def __init__(self, store: Store, *, simulated: bool = False, slug: str = "grooming") -> None:
        self.store, self.simulated = store, simulated
        self.study = store.add_study(slug, "Grooming", "study: grooming", HASH["a"])
        self.run = store.start_run(self.study, "mlflow-run")

    def stage(self, name: str, hash: str = HASH["a"]) -> int:
        return self.store.start_stage(
            self.run, name, hash, mlflow_run_id=f"mlflow-{name}", code_version="0.1.0"
        )

    def ingest(self, hash: str = HASH["a"], keys: str = "xy") -> int:
        stage = self.stage("ingest", hash)
        images = [
            ImageRecord(key, f"unit-{key}", "stimuli", HASH["b"], 32, 32, outcome=1.0, covariates={"skin": math.nan})
            for key in keys
        ]
        self.store.put_images(self.study, stage, images)
        self.store.finish_stage(stage, "done", {"images": len(images)})
        return stage

    def generate(self, hash: str = HASH["a"], pixels: str = HASH["c"], draft: bool = False) -> list[StimulusRecord]:
        stage = self.stage("generate", hash)
        direction = self.store.put_direction(
            self.study, name="groomed", kind="guidance", target="outcome", hold=["skin"], spec={"depth": 0.6}
        )
        rows = [
            StimulusRecord(
                image.id, direction, "null" if dose == 0 else arm, 0, dose, f"groomed/{image.key}", True, pixels,
                strength=2 * dose, seed=2**62 + 1, denoiser_sha256=HASH["d"], guide_sha256=HASH["e"],
            )
            for image in self.store.images(self.study)
            for arm in ("treated", "sham")
            for dose in DOSES
            if dose != 0 or arm == "treated"
        ]  # fmt: skip
        self.store.put_stimuli(self.study, stage, rows[: len(rows) // 2] if draft else rows)
        if not draft:
            self.store.finish_stage(stage, "done", {"stimuli": len(rows)})
        return self.store.stimuli(self.study)

    def gate(self, hash: str = HASH["a"]) -> None:
        stage = self.stage("gate", hash)
        cards = [
            CardRecord(s.id, HASH["f"], 0.9 * s.dose, {"skin": math.nan}, 0.01, 0.99, 1.0, math.nan)
            for s in self.store.stimuli(self.study)
        ]
        self.store.put_cards(self.study, stage, cards)
        self.store.put_gate_decisions(
            self.study, stage, [GateRecord("groomed/x", True), GateRecord("groomed/y", False, ["leakage"])]
        )
        self.store.finish_stage(stage, "done", {})

    def field(self, hash: str = HASH["a"], people: int = 2) -> pd.DataFrame:
        stage = self.stage("field", hash)
        self.store.append_registration(self.study, "registration", {"content": {"seed": 1}, "stimuli": HASH["c"]})
        self.store.put_questions(self.study, QUESTIONS)
        self.store.put_batch(self.study, "first", self.lists(people), simulated=self.simulated)
        answers = self.answers(people)
        self.store.put_answers(self.study, "first", [answers], simulated=self.simulated)
        self.store.put_exclusions(
            self.study, "first", pd.DataFrame([("person-1", "speed", "median 10 ms")], columns=["pid_hash", "rule", "detail"])
        )
        self.store.finish_stage(stage, "done", {"ratings": len(answers)})
        return answers

    def lists(self, people: int) -> pd.DataFrame:
        """Every list: an attention trial between the pictures."""
        shown = [s.id for s in self.store.stimuli(self.study) if s.set_key == "groomed/x"]
        shown.insert(1, None)
        return pd.DataFrame(
            [
                (f"code-{number}", number, position, "attention" if s is None else "image", s, 40.0 if s is None else math.nan)
                for number in range(people)
                for position, s in enumerate(shown)
            ],
            columns=["assignment", "list", "position", "kind", "stimulus", "target"],
        )  # fmt: skip

    def answers(self, people: int) -> pd.DataFrame:
        return pd.DataFrame(
            [
                (row.list, row.position, "attention" if row.kind == "attention" else "trust", 10.0 * row.position, math.nan, f"person-{row.list}")
                for row in self.lists(people).itertuples()
            ],
            columns=["list", "position", "question", "value", "response_ms", "pid_hash"],
        )  # fmt: skip

    def whole(self) -> Filled:
        self.ingest()
        self.generate()
        self.gate()
        self.field()
        return self


QUESTIONS = [
    Question(name="trust", text="How trustworthy is this person?"),
    Question(name="attention", text="Attention: please answer the number."),
]


def test_a_rating_names_all_that_made_it(store: Store) -> None:
    filled = Filled(store).whole()
    table = store.ratings_table(filled.study)
    assert len(table) == 10, "two people, five pictures each; attention trials show none"
    row = table[(table["list_number"] == 0) & (table["dose"] == 1.0) & (table["arm"] == "treated")].iloc[0]
    expected = {
        "study": "grooming", "image": "x", "unit_id": "unit-x", "direction": "groomed", "draw": 0, "seed": 2**62 + 1,
        "set_key": "groomed/x", "pixels_sha256": HASH["c"], "denoiser_sha256": HASH["d"], "guide_sha256": HASH["e"],
        "stage_mlflow_run_id": "mlflow-generate", "mlflow_run_id": "mlflow-run", "batch": "first", "question": "trust",
    }  # fmt: skip
    assert {key: row[key] for key in expected} == expected
    assert row["value"] == 10.0 * row["position"] and math.isnan(row["response_ms"])
    assert list(table.groupby("list_number")["excluded"].first()) == [False, True]
    assert not table["simulated"].any()
    assert store.ratings_table(store.add_study("other", "Other", "", HASH["a"])).empty


def test_what_is_not_defined_is_null_in_sql_and_nan_here(store: Store, url: str) -> None:
    filled = Filled(store).whole()
    with connect(url).connect() as raw:
        assert raw.execute(text("SELECT count(*) FROM card WHERE artefact IS NULL")).one() == (10,)
        assert raw.execute(text("SELECT DISTINCT value FROM covariate_value")).all() == [(None,)]
        assert "NaN" not in str(raw.execute(text("SELECT leakage FROM card")).all())
    card = store.cards(filled.study)[0]
    assert math.isnan(card.artefact) and math.isnan(card.leakage["skin"])
    assert math.isnan(store.images(filled.study)[0].covariates["skin"])
    assert store.stimuli_table(filled.study)["artefact"].isna().all()


def test_the_table_of_stimuli_joins_card_gate_and_review(store: Store) -> None:
    filled = Filled(store).whole()
    first = store.stimuli(filled.study)[0]
    store.add_review(first.id, "reject", "an ear is missing", "Ann")
    table = store.stimuli_table(filled.study).set_index("stimulus")
    assert list(table.groupby("image")["passed"].first()) == [True, False]
    assert list(table.index[table["rejected"]]) == [first.id]
    assert np.allclose(table["judge_dose"], 0.9 * table["dose"])
    store.add_review(first.id, "keep", "", "Ann")
    assert not store.stimuli_table(filled.study)["rejected"].any()


def test_verdicts_are_added_and_never_changed(store: Store) -> None:
    filled = Filled(store)
    filled.ingest()
    stimulus = filled.generate()[0]
    store.add_review(stimulus.id, "reject", "blurred", "Ann")
    store.add_review(stimulus.id, "keep", "", "Ann")
    store.add_review(stimulus.id, "reject", "odd", "Ben")
    assert [(r.reviewer, r.verdict) for r in store.reviews(filled.study)] == [("Ann", "keep"), ("Ben", "reject")]
    assert len(store.review_history(filled.study)) == 3
    assert store.reviews(filled.study)[0].at.utcoffset() is not None
    for verdict, reason, reviewer in (("maybe", "x", "Ann"), ("reject", " ", "Ann"), ("keep", "", " ")):
        with pytest.raises(UserError):
            store.add_review(stimulus.id, verdict, reason, reviewer)
    for statement in ("UPDATE review SET verdict = 'keep'", "DELETE FROM review", "DELETE FROM registration"):
        store.append_registration(filled.study, "amendment", {"why": "a link to delete"})
        with store._write() as session, pytest.raises(DBAPIError, match="append-only"):
            session.execute(text(statement))


def test_a_verdict_is_void_for_other_pixels(store: Store) -> None:
    filled = Filled(store)
    filled.ingest()
    store.add_review(filled.generate()[0].id, "reject", "blurred", "Ann")
    filled.generate(HASH["b"], pixels=HASH["d"])
    assert store.reviews(filled.study) == [] and len(store.review_history(filled.study)) == 1
    filled.generate(HASH["c"], pixels=HASH["c"])
    assert [review.verdict for review in store.reviews(filled.study)] == ["reject"]


def test_the_chain_tells_where_it_was_changed(store: Store) -> None:
    study = Filled(store).study
    first = store.append_registration(study, "registration", {"content": {"seed": 1}, "alpha": 0.05, "x": math.nan})
    again = store.append_registration(study, "registration", {"content": {"seed": 1}, "alpha": 0.05, "x": None})
    assert again == first, "a resumed stage registers nothing twice"
    store.append_registration(study, "amendment", {"why": "longer in the field"})
    last = store.append_registration(study, "analysis", {"registration": first.hash})
    assert [link.sequence for link in store.chain(study)] == [1, 2, 3] and last.previous_hash != first.hash
    store.verify_chain(study)
    changes = {
        "UPDATE registration SET payload = '{\"why\": \"never mind\"}' WHERE sequence = 2": 2,
        "UPDATE registration SET at = '2020-01-01 00:00:00' WHERE sequence = 1": 1,
        "DELETE FROM registration WHERE sequence = 2": 2,
    }
    links = Registration.__table__
    for change, broken in changes.items():
        with store._write() as session:
            raw = session.connection()
            triggers = ("",) if raw.dialect.name == "postgresql" else ("_update", "_delete")
            on = " ON registration" if raw.dialect.name == "postgresql" else ""
            for event in triggers:
                raw.exec_driver_sql(f"DROP TRIGGER IF EXISTS registration_append_only{event}{on}")
            kept = [dict(row) for row in raw.execute(links.select()).mappings()]
            raw.exec_driver_sql(change)
        with pytest.raises(UserError, match=f"broken at link {broken}"):
            store.verify_chain(study)
        with store._write() as session:
            session.execute(links.delete())
            session.execute(links.insert(), kept)
        store.verify_chain(study)


def test_stages_are_found_by_hash_until_they_are_replaced(store: Store) -> None:
    filled = Filled(store)
    killed = filled.stage("ingest")
    filled.ingest()
    assert store.find_finished_stage(filled.study, "ingest", HASH["a"]) == {"images": 2}
    assert store.find_finished_stage(filled.study, "ingest", HASH["b"]) is None
    assert {run.id: run.status for run in store.stage_runs(filled.study)}[killed] == "interrupted"
    filled.ingest(HASH["b"], keys="yz")
    assert [image.key for image in store.images(filled.study)] == ["y", "z"]
    assert store.find_finished_stage(filled.study, "ingest", HASH["a"]) is None, "its rows are gone"
    store.finish_run(filled.run, "done")
    store.start_run(filled.study)
    store.start_run(filled.study)
    assert [run.status for run in store.runs(filled.study)] == ["done", "interrupted", "running"]


def test_a_killed_stage_leaves_no_trace_once_resumed(tmp_path: Path, empty: Path) -> None:
    texts = []
    for killed in (False, True):
        with open_store(f"sqlite:///{shutil.copy(empty, tmp_path / f'{killed}.db')}") as store:
            if killed:  # so that ids differ
                Filled(store, slug="another").ingest()
            filled = Filled(store)
            if killed:
                filled.stage("ingest", HASH["f"])
            filled.ingest()
            if killed:
                assert len(filled.generate(draft=True)) == 5
            filled.generate()
            filled.gate()
            filled.field()
            if killed:
                filled.field()
            store.put_statements(filled.study, filled.stage("analyse"), [statement(), replace(statement(), id="H2")])
            texts.append([line for line in canonical(store).splitlines() if "another" not in line])
    assert texts[0] == texts[1]
    assert any(line.startswith("rating ") and '"first"' in line for line in texts[0])


def test_a_dump_shows_a_difference(tmp_path: Path, empty: Path) -> None:
    texts = []
    for pixels in (HASH["c"], HASH["d"]):
        with open_store(f"sqlite:///{shutil.copy(empty, tmp_path / pixels[0])}") as store:
            filled = Filled(store)
            filled.ingest()
            filled.generate(pixels=pixels)
            texts.append(canonical(store))
    assert texts[0] != texts[1] and texts[0].replace(HASH["c"], HASH["d"]) == texts[1]


def test_answers_of_people_outlive_every_change(store: Store) -> None:
    filled = Filled(store).whole()
    before = store.ratings_table(filled.study)
    for stage in ("ingest", "generate", "gate", "field", "analyse"):
        store.clear_stage_outputs(filled.study, stage)
    assert store.stimuli(filled.study) == [] and store.images(filled.study) == [] and store.cards(filled.study) == []
    after = store.ratings_table(filled.study)
    assert len(after) == len(before) and list(after["image"]) == list(before["image"])
    filled.ingest(HASH["b"])
    filled.generate(HASH["b"])
    pd.testing.assert_frame_equal(
        store.ratings_table(filled.study).drop(columns=["stage_run_id"]), before.drop(columns=["stage_run_id"])
    )
    with pytest.raises(UserError, match="People have rated the stimulus of image x"):
        filled.generate(HASH["d"], pixels=HASH["d"])
    with pytest.raises(UserError, match="People have begun the batch"):
        store.put_batch(filled.study, "first", filled.lists(2).assign(position=lambda t: t["position"] + 1), simulated=False)
    with pytest.raises(UserError, match="in other words"):
        store.put_questions(filled.study, [Question(name="trust", text="Would you trust this person?")])


def test_simulated_answers_go_with_their_stimuli(store: Store) -> None:
    filled = Filled(store, simulated=True).whole()
    assert store.ratings_table(filled.study)["simulated"].all()
    filled.generate(HASH["b"], pixels=HASH["d"])
    assert len(store.ratings_table(filled.study)) == 10
    filled.field(HASH["b"])
    table = store.ratings_table(filled.study)
    assert len(table) == 10 and set(table["pixels_sha256"]) == {HASH["d"]}


def test_answers_come_in_once(store: Store) -> None:
    filled = Filled(store)
    filled.ingest()
    filled.generate()
    answers = filled.field()
    assert store.put_answers(filled.study, "first", [answers], simulated=False) == 0
    stored = store.answers(filled.study, "first")
    pd.testing.assert_frame_equal(stored.drop(columns="text"), answers, check_dtype=False)
    bad = {
        "10 is in the store": answers.assign(value=99.0)[1:2],
        "belongs to another participant": answers.assign(pid_hash="somebody")[:1],
        "was not asked there": answers.assign(position=50)[:1],
    }
    for sentence, rows in bad.items():
        with pytest.raises(UserError, match=sentence):
            store.put_answers(filled.study, "first", [rows], simulated=False)
    with pytest.raises(UserError, match="is for people"):
        store.put_answers(filled.study, "first", [answers], simulated=True)
    assert len(store.answers(filled.study, "first")) == len(answers)


def test_a_batch_grows_and_keeps_its_lists(store: Store) -> None:
    filled = Filled(store)
    filled.ingest()
    filled.generate()
    filled.field(people=2)
    store.put_batch(filled.study, "first", filled.lists(3), simulated=False)
    trials = store.batch_trials(filled.study)
    assert trials["list"].nunique() == 3 and set(trials["batch"]) == {"first"}
    assert trials["stimulus"].map(type).isin([int, type(None)]).all(), "ids stay whole numbers beside missing ones"
    assert trials.loc[trials["kind"] == "attention", "target"].eq(40).all()
    batch = store.batches(filled.study)[0]
    assert (batch.assignments, batch.begun, batch.registration) == (3, 2, store.chain(filled.study)[0].hash)
    assert list(store.exclusions(filled.study)[["list", "rule"]].itertuples(index=False, name=None)) == [(1, "speed")]
    assert store.batch_trials(store.add_study("new", "New", "", HASH["a"])).empty
    assert store.salt(filled.study) == store.salt(filled.study) and len(store.salt(filled.study)) == 32


def statement() -> Statement:
    return Statement(
        "H1", "registered", "treated-sham", 7.5, 5.0, 10.0, 0.001, math.nan, None, math.nan, 600, 60, 24,
        "rating points per SD of dose", "mixed model", 7, ("few images",), "groomed", "trust", verdict=True,
    )  # fmt: skip


def test_statements_come_back_as_they_were(store: Store) -> None:
    filled = Filled(store)
    stage = filled.stage("analyse")
    store.put_statements(filled.study, stage, [statement(), statement()])
    store.put_statements(filled.study, stage, [statement()])
    assert [s.facts() for s in store.statements(filled.study)] == [statement().facts()]


def test_models_and_audit(store: Store) -> None:
    filled = Filled(store)
    stage = filled.stage("predict")
    for auc in (0.8, 0.9):
        store.put_models(filled.study, stage, [ModelRecord("judge", "judge", HASH["f"], {"auc": auc})])
    assert [model.quality for model in store.models(filled.study)] == [{"auc": 0.9}]
    store.add_audit(filled.study, "Ann", "verdict", {"stimulus": 1})
    assert [(row.actor, row.action) for row in store.audit(filled.study)] == [("Ann", "verdict")]


def test_the_lockbox_opens_once(store: Store) -> None:
    filled = Filled(store)
    box = ImageRecord("kept", "unit", "lockbox", HASH["b"], 32, 32)
    store.put_images(filled.study, filled.stage("ingest"), [box, replace(box, key="seen", split="train")])
    assert [image.key for image in store.images(filled.study)] == ["seen"]
    with pytest.raises(UserError, match="lockbox of this study is closed"):
        store.images(filled.study, split="lockbox")
    store.open_lockbox(filled.study, "the final test")
    assert [image.key for image in store.images(filled.study, split="lockbox")] == ["kept"]
    assert store.chain(filled.study)[-1].kind == "opening"
    with pytest.raises(UserError, match="the final test"):
        store.open_lockbox(filled.study, "once more")


def test_many_images_are_quick(store: Store) -> None:
    filled = Filled(store)
    stage = filled.stage("ingest")
    images = [
        ImageRecord(f"{k:05d}.png", f"u{k}", "train", HASH["b"], 32, 32, covariates={"age": k, "skin": 0.5})
        for k in range(3000)
    ]
    store.put_images(filled.study, stage, images)
    store.put_images(filled.study, stage, images[:10])
    found = store.images(filled.study)
    assert [replace(image, id=0) for image in found] == images


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)  # a server has no lock over a whole database
def test_a_locked_database_is_one_sentence(store: Store, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("contrafact.store.database.BUSY_MS", 200)
    with sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None) as raw:
        raw.execute("BEGIN IMMEDIATE")
        with open_store(url) as second, pytest.raises(UserError, match="locked by another process"):
            second.add_study("a", "A", "", HASH["a"])
        assert store.studies() == [], "readers are not kept waiting"
        raw.execute("ROLLBACK")
    assert store.add_study("a", "A", "", HASH["a"])
