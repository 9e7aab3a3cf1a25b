"""The chain after the registration: whatever is changed behind its back is found and named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import text

from contrafact import bundle, cli, settings, study
from contrafact.images import decode
from contrafact.report.preregistration import preregistrations
from contrafact.run.verify import verify
from contrafact.stats.dose import Test as Claim
from contrafact.stats.dose import analyse
from contrafact.store import Store, open_store
from contrafact.store.database import connect
from contrafact.store.files import Files
from contrafact.store.records import GateRecord, ImageRecord, StimulusRecord
from contrafact.survey import batch, fielding

DOSES = (-1.5, -0.75, 0.75, 1.5)


@dataclass
class Field:
    home: settings.Settings
    loaded: study.LoadedStudy
    store: Store
    name: str

    def change(self, statement: str, **values: object) -> None:
        """As somebody would who has the database's password."""
        engine = connect(self.home.database_url)
        with engine.begin() as connection:
            assert connection.execute(text(statement), values).rowcount >= 1
        engine.dispose()

    def changes(self) -> tuple[str, ...]:
        (found,) = verify(self.home, self.loaded)
        return found.changes


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a registered study, answered by people who are simulated, closed and analysed; and its batch."""
    tmp_path = tmp_path_factory.mktemp("made")
    workspace = tmp_path / "workspace"
    source = (bundle.folder("studies") / "templates" / "faces_world.yaml").read_text()
    source = source.replace("NAME", "small").replace("participants: 60", "participants: 8")
    source = source.replace("trials_per_participant: 52", "trials_per_participant: 20")
    path = tmp_path / "small.yaml"
    path.write_text(source)
    loaded, home = study.load(path), settings.read(workspace)
    workspace.mkdir()
    files = Files(home.files_url)
    with open_store(home.database_url) as store:
        one = store.add_study("small", "Small", loaded.text, loaded.sha256)
        stage = store.start_stage(store.start_run(one, "m"), "generate", "ab" * 32)
        store.put_images(one, stage, [ImageRecord(f"i{k}", f"u{k}", "stimuli", f"{k:064x}", 32, 32) for k in range(8)])
        direction = next(iter(loaded.study.directions))
        number = store.put_direction(one, name=direction, kind="condition", target="outcome", hold=[], spec={})
        rows = []
        for n, image in enumerate(store.images(one)):
            for arm, dose in [("null", 0.0), *((arm, dose) for arm in ("treated", "sham") for dose in DOSES)]:
                pixels = files.put(decode.png_bytes(np.full((32, 32, 3), int(100 + 9 * n + 4 * dose), np.uint8)))
                rows.append(StimulusRecord(image.id, number, arm, 0, dose, f"{direction}/{image.key}", True, pixels))
        store.put_stimuli(one, stage, rows)
        store.put_gate_decisions(one, stage, [GateRecord(f"{direction}/i{k}", True) for k in range(8)])
        stimuli = store.stimuli_table(one).assign(key=lambda table: table["stimulus"])
        fielding.freeze(store, one, loaded, stimuli, {})
        name = fielding.open_batch(store, one, loaded.study, stimuli)
        seen = stimuli.assign(reading=stimuli["dose"] * (stimuli["arm"] == "treated"))
        answers = tmp_path / "answers.csv"
        batch.write_csv(answers, fielding.simulated_answers(fielding.trials_of(store, one, loaded.study), seen, loaded.study))
        fielding.import_answers(store, one, loaded.study, [answers], simulated=True)
        fielding.exclude(store, one, loaded.study)
        assert store.close_field(one, name) is not None
        assert store.close_field(one, name) is None, "nothing is said twice"
        tests = [Claim(h.id, h.direction, h.question, h.arm, h.test, margin=h.margin) for h in loaded.study.hypotheses]
        found = analyse(store.ratings_table(one), tests, 1)
        store.put_statements(one, stage, found)
        store.append_registration(one, "analysis", {"statements": [s.facts() for s in found]})
    return tmp_path, name


@pytest.fixture
def field(made: tuple[Path, str], workspace: Path, tmp_path: Path) -> Iterator[Field]:
    """A copy of it that may be spoilt."""
    folder, name = made
    shutil.copytree(folder / "workspace", workspace)
    loaded = study.load(shutil.copy(folder / "small.yaml", tmp_path))
    home = settings.read(workspace)
    with open_store(home.database_url) as store:
        yield Field(home, loaded, store, name)


def test_what_nobody_touched_is_whole(field: Field) -> None:
    (found,) = verify(field.home, field.loaded)
    assert found.changes == () and found.links == 3
    assert found.checked == {"links": 3, "stimuli": 72, "answers": 8 * 22}
    assert found.head == field.store.chain(1)[-1].hash
    assert verify(field.home) == (found,)


CHANGES: dict[str, tuple[Callable[[Field], None], str]] = {
    "answer": (
        lambda f: f.change("UPDATE rating SET value = value + 0.1 WHERE id = 30"),
        "the answer to 'trust' at list 1, position 8 of",
    ),
    "time of an answer": (
        lambda f: f.change("UPDATE rating SET response_ms = 5000 WHERE id = 3"),
        "at list 0, position 3 of",
    ),
    "answer that is gone": (
        lambda f: f.change("DELETE FROM rating WHERE id = 30"),
        "is gone, and no deletion on request says so",
    ),
    "owner of answers": (
        lambda f: f.change("UPDATE participant SET pid_hash = 'x' WHERE id = 2"),
        "the answer to 'trust' at list 1",
    ),
    "dose of a stimulus": (
        lambda f: f.change("UPDATE stimulus SET dose = 0.7 WHERE dose = 0.75 AND arm = 'sham' AND image_id = 3"),
        "the matched set 'outcome_up/i2' is not the one that was registered",
    ),
    "pixels of a stimulus": (
        lambda f: f.change("UPDATE stimulus SET pixels_sha256 = (SELECT pixels_sha256 FROM stimulus WHERE id = 1) WHERE id = 40"),
        "the matched set 'outcome_up/i",
    ),
    "gate": (
        lambda f: f.change("UPDATE gate_decision SET passed = :no WHERE set_key = 'outcome_up/i4'", no=False),
        "the matched set 'outcome_up/i4' is gone",
    ),
    "exclusion added": (
        lambda f: f.change(
            "INSERT INTO exclusion (batch_id, participant_id, rule, detail) VALUES (1, 3, 'speed', 'median 9 ms')"
        ),
        "the exclusion of list 2 of",
    ),
    "commitment": (
        lambda f: f.change("UPDATE commitment SET digest = :new WHERE id = 5", new="0" * 64),
        "the commitments of link 2",
    ),
    "statement": (
        lambda f: f.change("UPDATE statement SET p = 0.01 WHERE id = 1"),
        "the statements: p of H1 is not what the analysis said",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_any_change_is_found_and_named(field: Field, what: str) -> None:
    change, sentence = CHANGES[what]
    change(field)
    assert any(sentence in one for one in field.changes()), field.changes()


def test_a_forged_exclusion_is_found_even_with_a_commitment(field: Field) -> None:
    CHANGES["exclusion added"][0](field)
    field.store.close_field(1, field.name)
    assert any("is excluded by the rule 'speed' and does not fall under it" in one for one in field.changes())


def test_a_picture_is_read_byte_by_byte(field: Field) -> None:
    sha256 = field.store.stimuli(1)[0].pixels_sha256
    path = Path(field.home.files_url.removeprefix("file://")) / sha256[:2] / sha256
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(bytes(content))
    (sentence,) = field.changes()
    assert sentence.startswith("the picture of image i0") and "damaged" in sentence


def test_a_changed_plan_and_a_changed_chain_are_named(field: Field, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(field.loaded.text.replace("alternative: greater", "alternative: less", 1))
    (found,) = verify(field.home, study.load(other))
    assert len(found.changes) == 1 and "alternative" in found.changes[0]
    engine = connect(field.home.database_url)
    with engine.begin() as connection:
        for (name,) in connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'trigger'")).all():
            connection.execute(text(f'DROP TRIGGER "{name}"'))
        connection.execute(text("UPDATE registration SET payload = replace(payload, 'small', 'smalL') WHERE sequence = 1"))
    engine.dispose()
    assert "broken at link 1 (registration" in field.changes()[0]


def test_a_deletion_on_request_leaves_the_chain_valid(field: Field) -> None:
    person = field.store.answers(1, field.name).query("list == 3")["pid_hash"].iloc[0]
    link = field.store.forget(1, str(person), "asked by mail")
    assert field.changes() == ()
    assert field.store.answers(1, field.name)["list"].nunique() == 7
    assert person not in json.dumps(dict(link.payload)) and len(link.payload["digests"]) >= 22
    # What is left of the deleted rows has no salt, so it cannot be guessed back.
    engine = connect(field.home.database_url)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM commitment WHERE list_number = 3 AND salt IS NOT NULL")).scalar() == 0
    engine.dispose()
    CHANGES["answer"][0](field)
    assert len(field.changes()) == 1, "the rest is still guarded"


def test_the_verb_says_it_and_leaves_with_2(field: Field, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(field.loaded.path)
    with pytest.raises(SystemExit) as left:
        cli.main(["verify", path, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert left.value.code == 0 and found["whole"] and found["studies"][0]["links"] == 3
    CHANGES["answer"][0](field)
    with pytest.raises(SystemExit) as left:
        cli.main(["verify"])
    assert left.value.code == 2 and "The answer to 'trust' at list 1" in capsys.readouterr().out


def test_the_registration_in_the_words_of_the_usual_templates(field: Field) -> None:
    link = field.store.chain(1)[0]
    pages = preregistrations(link.payload, link.hash, "2026-01-01 12:00")
    assert set(pages) == {"osf.md", "aspredicted.md"}
    for page in pages.values():
        assert link.hash in page and "8 participants with 20 pictures each: 160 judgements" in page
        assert all(h.claim.split(".")[0] in page for h in field.loaded.study.hypotheses)
        assert "Holm" in page and "attention trials" in page
    assert pages["aspredicted.md"].count("\n## ") == 8 and pages["osf.md"].count("\n## ") == 21
    spoilt = json.loads(json.dumps(link.payload))
    spoilt["content"]["title"] = "<script>x</script> [a](b)"
    assert "<script>" not in preregistrations(spoilt, link.hash, "")["osf.md"]
