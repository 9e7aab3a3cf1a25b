"""A registered study of finished stimuli in the field, as `contrafact run` leaves it, and its service."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from contrafact import settings, study
from contrafact.errors import Paused
from contrafact.images import decode, worlds
from contrafact.run.engine import run_study
from contrafact.settings import Settings
from contrafact.store import Store, open_store
from contrafact.store.files import Files
from contrafact.study import LoadedStudy
from contrafact.study.schema import Translation

ARMS = [("null", 0.0), *((arm, dose) for arm in ("treated", "sham") for dose in (-1.0, 1.0))]
YAML = """
study: cards
title: Portraits at a glance
stimuli: {manifest: stimuli.csv}
survey:
  participants: 3
  trials_per_participant: 5
  attention_trials: 1
  questions:
    - {name: groomed, text: "How well-groomed is this person?", low: not at all, high: very}
    - {name: warm, text: "How warm does this person look?", low: cold, high: warm, scale: likert7}
  service:
    consent: |
      You will look at a few drawn faces and say how they look to you. This takes three minutes.

      Taking part is voluntary. You may stop at any time, and delete your answers by opening your link again.
    instructions: Look at each face and answer from the gut. There is no right or wrong.
    comprehension:
      - {text: "What do you judge?", options: [faces, houses], answer: faces}
    debrief: The faces were drawn by a computer and differed in one detail. Thank you for your help.
    contact: study@example.org
hypotheses:
  - {id: H1, claim: The direction moves ratings., direction: outcome, question: groomed, arm: treated-sham, primary: true}
"""


@dataclass(frozen=True)
class Fielded:
    path: Path
    loaded: LoadedStudy
    store: Store
    study_id: int
    batch: str
    files: Files
    settings: Settings


@pytest.fixture(scope="session")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the study, its pictures and the workspace after one run, to be copied."""
    folder = tmp_path_factory.mktemp("ran")
    drawn = np.random.default_rng(3).normal(size=(5, len(worlds.FACTORS)))
    rows = []
    for face in range(5):
        for arm, dose in ARMS:
            factors = drawn[[face]].copy()
            factors[0, worlds.FACTORS.index("groom")] += dose * (arm == "treated")
            name = f"{face}-{arm}-{dose:g}.png"
            (folder / name).write_bytes(decode.png_bytes(worlds.render(factors, 32)[0]))
            rows.append((name[:-4], f"face{face}", "outcome", arm, dose, name))
    columns = ["stimulus", "image", "direction", "arm", "dose", "file"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "stimuli.csv", index=False)
    (folder / "cards.yaml").write_text(YAML)
    with pytest.raises(Paused, match="participants have finished"):
        run_study(study.load(folder / "cards.yaml"), settings.read(folder / "workspace"))
    return folder


@pytest.fixture(scope="session")
def ran_postgres(ran: Path, database: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same in a database of a server, to be copied."""
    own = settings.read(tmp_path_factory.mktemp("ran_postgres"))
    where = replace(own, database_url=database())
    with pytest.raises(Paused, match="participants have finished"):
        run_study(study.load(ran / "cards.yaml"), where)
    return where.database_url


@pytest.fixture
def fielded(
    request: pytest.FixtureRequest, ran: Path, tmp_path: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Fielded]:
    """The study in the field, in the test's own workspace; with the parameter ``postgres`` on a server."""
    shutil.copytree(ran, tmp_path, dirs_exist_ok=True)
    if getattr(request, "param", "sqlite") == "postgres":
        copied = request.getfixturevalue("database")(request.getfixturevalue("ran_postgres"))
        monkeypatch.setenv("CONTRAFACT_DATABASE_URL", copied)
    where, path = settings.read(workspace), tmp_path / "cards.yaml"
    with open_store(where.database_url) as store:
        record = store.study("cards")
        assert record is not None
        batch = store.batches(record.id)[-1].name
        yield Fielded(path, study.load(path), store, record.id, batch, Files(where.files_url), where)


@pytest.fixture
def german() -> Translation:
    """All that people read in that study, and in one that asks for their age."""
    return Translation.model_validate({
        "title": "Porträts auf einen Blick",
        "questions": {
            "groomed": {"text": "Wie gepflegt ist diese Person?", "low": "gar nicht", "high": "sehr"},
            "warm": {"text": "Wie warm wirkt diese Person?", "low": "kalt", "high": "warm"},
        },
        "consent": "Sie sehen einige gezeichnete Gesichter.", "instructions": "Antworten Sie aus dem Bauch.",
        "screening": {"age": {"text": "Wie alt sind Sie?", "options": ["jung", "alt"]}},
        "comprehension": [{"text": "Was beurteilen Sie?", "options": ["Häuser", "Gesichter"]}], "debrief": "Danke.",
    })  # fmt: skip


QUESTIONS = {
    "pairs": "[{name: neat, text: Which is neater?, scale: choice}, {name: why, text: What differs?, scale: text}]",
    "guess": "[{name: neat, text: Which is neater?, scale: choice}, {name: why, text: What differs?, scale: text}]",
    "best_worst": "[{name: neat, text: Which of these?, low: least neat, high: neatest, scale: best_worst}]",
}


@pytest.fixture
def side_by_side(ran: Path, tmp_path: Path, workspace: Path) -> Callable[..., Fielded]:
    """``side_by_side(design, people, trials, more="", pages="")``: the same pictures, several at once, in the field."""

    def field(design: str, people: int, trials: int, more: str = "", pages: str = "") -> Fielded:
        for file in ran.glob("*.*"):
            if file.is_file():
                shutil.copy(file, tmp_path)
        path = tmp_path / f"{design}.yaml"
        service = YAML.partition("  service:\n")[2].partition("hypotheses:")[0]
        path.write_text(
            f"study: {design}\ntitle: Portraits side by side\nstimuli: {{manifest: stimuli.csv}}\n"
            f"survey:\n  design: {design}\n  participants: {people}\n  trials_per_participant: {trials}\n"
            f"  attention_trials: 0\n  questions: {QUESTIONS[design]}\n{more}  service:\n{service}{pages}hypotheses:\n"
            "  - {id: H1, claim: The direction moves choices., direction: outcome, question: neat, arm: treated, primary: true}\n"
        )
        loaded, where = study.load(path), settings.read(workspace)
        with pytest.raises(Paused, match="participants have finished"):
            run_study(loaded, where)
        store = open_store(where.database_url)
        record = store.study(design)
        assert record is not None
        return Fielded(path, loaded, store, record.id, store.batches(record.id)[-1].name, Files(where.files_url), where)

    return field
