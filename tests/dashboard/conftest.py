"""A small workspace, filled through the store as stages fill it, with faces rendered under shifted factors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from contrafact import settings
from contrafact.images import decode, worlds
from contrafact.settings import Settings
from contrafact.stats.statement import Statement
from contrafact.store import Store, open_store
from contrafact.store.files import Files
from contrafact.store.records import CardRecord, GateRecord, ImageRecord, StimulusRecord
from contrafact.study.schema import Question

DOSES = (-1.5, -0.75, 0.0, 0.75, 1.5)
YAML = """
study: {slug}
title: {title}
question: Does it show?
world: {{images: 1000}}
directions: {{smile: {{target: outcome, hold: [skin]}}}}
images: {{covariates: {{skin: {{protected: true}}}}}}
review: {{required: true}}
survey:
  questions: [{{name: kind, text: "How kind?"}}]
  respondents: {{}}
hypotheses:
  - {{id: H1, claim: {claim}, direction: smile, question: kind, primary: true}}
"""
Fill = Callable[..., int]


@pytest.fixture
def place(workspace: Path) -> Settings:
    return settings.read(workspace)


@pytest.fixture
def fill(place: Settings) -> Fill:
    """``fill(slug)`` writes a study up to the gate and returns its id; ``until="report"`` goes on to its report."""

    def filled(slug: str = "smiles", *, title: str = "Smiles", images: Sequence[str] = ("ann", "bob", "cy"),
               until: str = "gate") -> int:  # fmt: skip
        with open_store(place.database_url) as store:
            quoted = {name: json.dumps(words, ensure_ascii=False) for name, words in (("title", title), ("claim", f"Smiles look kind {title}"))}
            text = YAML.format(slug=slug, **quoted)
            study_id = store.add_study(slug, title, text, hashlib.sha256(text.encode()).hexdigest())
            run = store.start_run(study_id)
            _stimuli(store, Files(place.files_url), study_id, run, images)
            if until == "gate":
                store.finish_run(run, "paused")
            else:
                _results(store, place, study_id, run, slug)
                store.finish_run(run, "done")
        return study_id

    return filled


def _stage(store: Store, run: int, name: str, facts: dict[str, Any]) -> int:
    stage = store.start_stage(run, name, hashlib.sha256(name.encode()).hexdigest())
    store.finish_stage(stage, "done", facts)
    return stage


def _stimuli(store: Store, files: Files, study_id: int, run: int, images: Sequence[str]) -> None:
    drawn = np.random.default_rng(7).normal(size=(len(images), len(worlds.FACTORS)))

    def painted(row: int, shift: float, factor: str) -> str:
        factors = drawn[[row]].copy()
        factors[0, worlds.FACTORS.index(factor)] += shift
        return files.put(decode.png_bytes(worlds.render(factors, 32)[0]))

    ingest = _stage(store, run, "ingest", {"images": len(images)})
    store.put_images(study_id, ingest, [
        ImageRecord(key, key, "stimuli", painted(row, 0, "groom"), 32, 32) for row, key in enumerate(images)
    ])  # fmt: skip
    for name in ("predict", "finetune"):
        _stage(store, run, name, {})
    generate = _stage(store, run, "generate", {"stimuli": 13 * len(images), "in_support": 13 * len(images)})
    direction = store.put_direction(
        study_id, name="smile", kind="condition", target="outcome", hold=["skin"], spec={}
    )
    ids = {image.key: image.id for image in store.images(study_id)}
    variants = [(arm, dose) for dose in DOSES for arm in (("treated", "sham", "placebo") if dose else ("null",))]
    store.put_stimuli(study_id, generate, [
        StimulusRecord(
            image_id=ids[key], direction_id=direction, arm=arm, draw=row + 11 if arm == "placebo" else 0, dose=dose, set_key=f"smile/{key}",
            in_support=True, pixels_sha256=painted(row, dose * (1 if arm == "treated" else 0.1), "groom"), seed=row,
        )
        for row, key in enumerate(images) for arm, dose in variants
    ])  # fmt: skip
    gate = _stage(store, run, "gate", {"sets_passed": len(images), "sets_failed": 0})
    store.put_cards(study_id, gate, [
        CardRecord(
            stimulus_id=one.id, judge_sha256="a" * 64, judge_dose=one.dose if one.arm == "treated" else 0.02,
            leakage={"skin": float("nan") if one.arm == "sham" else 0.03}, l1=0.012, ssim=0.97, realism=0.4,
            artefact=float("nan"), flags=["blurred"] if one.dose > 1 and one.arm == "treated" else [],
        )
        for one in store.stimuli(study_id)
    ])  # fmt: skip
    store.put_gate_decisions(study_id, gate, [GateRecord(f"smile/{key}", True) for key in images])


def _results(store: Store, place: Settings, study_id: int, run: int, slug: str) -> None:
    store.append_registration(study_id, "registration", {"content": {}, "study": slug})
    store.put_questions(study_id, [Question(name="kind", text="How kind?")])
    shown = store.stimuli(study_id)
    trials = pd.DataFrame(
        [(f"list-{number}", number, position, "image", one.id, float("nan"))
         for number in range(6) for position, one in enumerate(shown)],
        columns=["assignment", "list", "position", "kind", "stimulus", "target"],
    )  # fmt: skip
    store.put_batch(study_id, "first", trials, simulated=True)
    noise = np.random.default_rng(3).normal(size=len(trials))
    dose = {one.id: one.dose if one.arm == "treated" else 0.0 for one in shown}
    store.put_answers(study_id, "first", [trials.assign(
        question="kind", value=50 + 8 * trials["stimulus"].map(dose) + noise, response_ms=900.0,
        pid_hash=[hashlib.sha256(str(number).encode()).hexdigest() for number in trials["list"]],
    )], simulated=True)  # fmt: skip
    _stage(store, run, "field", {"participants": 6, "ratings": len(trials), "excluded": {"inattentive": 1}})
    found = Statement(
        id="H1", label="registered", arm="treated-sham", estimate=8.0, low=7.1, high=8.9, p=1e-5, p_adjusted=1e-5,
        equivalent=None, margin=float("nan"), n_ratings=len(trials), n_participants=6, n_images=3,
        unit="rating points per SD of dose", method="mixed model", seed=1, direction="smile", question="kind",
        verdict=True,
    )  # fmt: skip
    _stage(store, run, "analyse", {"statements": [found.facts()], "beside": [], "truth": None})
    report = place.workspace / "reports" / f"{slug}.html"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text("<!doctype html><title>report</title>")
    _stage(store, run, "report", {"report": str(report)})
