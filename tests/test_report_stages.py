"""The last two stages on a real store: from answers to statements and one file."""

from __future__ import annotations

import io
import json
import math
import shlex
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from contrafact import bundle, cli, settings, study
from contrafact.errors import UserError
from contrafact.images import decode
from contrafact.report import write_tables
from contrafact.run.context import Context
from contrafact.store import open_store
from contrafact.store.files import Files
from contrafact.store.records import ImageRecord, StimulusRecord
from contrafact.survey import batch, fielding
from contrafact.tracking import Tracker

DOSES = (-1.5, -0.75, 0.75, 1.5)
VARIANTS = [("null", 0.0, 0)] + [(arm, dose, 0) for arm in ("treated", "sham") for dose in DOSES]
HEAD = "direction,question,participant,image,arm,dose,value\n"
NUMBERS = ("estimate", "low", "high", "p", "p_adjusted", "se", "df", "method")
"""What is computed, and told to the last digits."""


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    """A registered study of 16 images and 14 simulated people, rated, with the analysis to come."""
    text = (bundle.folder("studies") / "templates" / "faces_world.yaml").read_text()
    text = text.replace("NAME", "small").replace("participants: 60", "participants: 14")
    text = text.replace("trials_per_participant: 52", "trials_per_participant: 26")
    (tmp_path / "small.yaml").write_text(text)
    loaded = study.load(tmp_path / "small.yaml")
    home = settings.read(tmp_path / "home")
    home.workspace.mkdir()
    files, tracker = Files(home.files_url), Tracker(home.tracking_uri)
    with open_store(home.database_url) as store:
        study_id = store.add_study(loaded.study.study, loaded.study.title, loaded.text, loaded.sha256)
        stage = store.start_stage(store.start_run(study_id, "m"), "generate", "ab" * 32)
        store.put_images(study_id, stage, [ImageRecord(f"i{k:02d}", f"u{k}", "stimuli", f"{k:064x}", 32, 32) for k in range(16)])
        name = next(iter(loaded.study.directions))
        direction = store.put_direction(study_id, name=name, kind="condition", target="outcome", hold=[], spec={})
        rows = []
        for n, image in enumerate(store.images(study_id)):
            placebo = [("placebo", dose, n % 6) for dose in DOSES]
            for arm, dose, draw in [*VARIANTS, *placebo]:
                shade = int(120 + 30 * dose * (arm == "treated") + n)
                pixels = files.put(decode.png_bytes(np.full((32, 32, 3), shade, np.uint8)))
                rows.append(StimulusRecord(image.id, direction, arm, draw, dose, f"{name}/{image.key}", True, pixels))
        store.put_stimuli(study_id, stage, rows)
        stimuli = store.stimuli_table(study_id).assign(key=lambda table: table["stimulus"])
        fielding.freeze(store, study_id, loaded, stimuli, {})
        name = fielding.open_batch(store, study_id, loaded.study, stimuli)
        seen = stimuli.assign(reading=stimuli["dose"] * (stimuli["arm"] == "treated"), mark=0.0)
        answers = tmp_path / "answers.csv"
        batch.write_csv(answers, fielding.simulated_answers(fielding.trials_of(store, study_id, loaded.study), seen, loaded.study))
        fielding.import_answers(store, study_id, loaded.study, [answers], simulated=True)
        excluded = fielding.exclude(store, study_id, loaded.study)
        truth = pd.DataFrame([(f"i{k:02d}", d, d) for k in range(16) for d in (0.0, *DOSES)], columns=["image", "dose", "reading"])
        target = io.BytesIO()
        truth.to_parquet(target)
        folder = tmp_path / "work"
        folder.mkdir()
        yield Context(
            loaded=loaded, study_id=study_id, stage_run_id=store.start_stage(1, "analyse", "cd" * 32), store=store,
            files=files, folder=folder, settings=home, tracker=tracker, tracking_run=tracker.start("analyse"),
            upstream={
                "gate": {"truth_readings": files.put(target.getvalue()), "quality": {"judge_slope": 0.9}},
                "field": {"batch": name, "participants": 14, "excluded": excluded},
            },
        )  # fmt: skip


def test_answers_become_statements_and_a_report(context: Context) -> None:
    analyse, report = (import_module(f"contrafact.pipelines.{stage}").run for stage in ("analyse", "report"))
    facts = analyse(context)
    registered = {s["id"]: s for s in facts["statements"] if s["label"] == "registered"}
    assert set(registered) == {h.id for h in context.study.hypotheses}
    slopes = {s["arm"]: s for s in facts["statements"]}
    assert {"treated", "sham", "placebo", "treated-sham"} <= set(slopes)
    assert len({s["id"] for s in (*facts["statements"], *facts["beside"])}) == len([*facts["statements"], *facts["beside"]])
    assert all(s["component"] == "odd" for s in facts["statements"])
    contrast = slopes["treated-sham"]
    assert contrast["low"] > 0 and abs(contrast["estimate"] - facts["truth"]) < 5
    assert {s["component"] for s in facts["beside"]} == {"odd", "even"}

    # The same again, as after a kill: nothing is said twice.
    links, kept = len(context.store.chain(context.study_id)), context.store.statements(context.study_id)
    assert analyse(context) == facts
    assert len(context.store.chain(context.study_id)) == links == 2
    assert [s.id for s in context.store.statements(context.study_id)] == [s.id for s in kept]
    assert math.isnan(next(s for s in kept if s.label == "exploratory").p_adjusted)

    made = report(replace(context, upstream={**context.upstream, "analyse": facts}))
    html = Path(made["report"]).read_text()
    assert f"{contrast['estimate']:.2f}" in html and facts["registration"] in html
    assert "contains the truth" in html or "does not contain the truth" in html
    assert html.count("data:image/png") >= 6 * 5
    assert Path(made["pdf"]).read_bytes().startswith(b"%PDF")


def test_every_claim_is_reproduced_by_its_own_command(
    context: Context, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = import_module("contrafact.pipelines.analyse").run(context)
    names = write_tables(facts, context.files, tmp_path / "tables")
    assert names[:2] == ["statements.csv", "statements.tex"] and "tabular" in (tmp_path / "tables" / names[1]).read_text()
    monkeypatch.chdir(tmp_path / "tables")
    listed = pd.read_csv("statements.csv", keep_default_na=False)
    everything = [*facts["statements"], *facts["beside"]]
    calls = {id: shlex.split(call) for id, call in zip(listed["id"], listed["call"], strict=True)}
    assert {s["id"] for s in everything} == {id for id, words in calls.items() if words[0] == "contrafact"}
    beside = [s for s in everything if calls[s["id"]][1] == "statements"]
    assert {s["id"].split("-")[0] for s in beside} >= {"paired", "linearity", "demand"}
    names = [word for s in beside for word in ("--id", s["id"])]
    with pytest.raises(SystemExit):
        cli.main([*calls[beside[0]["id"]][1:-2], *names, "--json"])
    again = json.loads(capsys.readouterr().out.splitlines()[-1])["statements"]
    for told, found in zip(beside, again, strict=True):
        assert found["estimate"] == (None if told["estimate"] is None else pytest.approx(told["estimate"], rel=1e-6, abs=1e-9))
        assert {**found, **dict.fromkeys(NUMBERS)} == {**told, **dict.fromkeys(NUMBERS)}

    claims = [s for s in facts["statements"] if s["label"] == "registered"]
    claims += [s for s in everything if s["id"].startswith(("slope-sham", "even-treated-sham"))]
    assert len({s["component"] for s in claims}) == 2
    for claim in claims:
        words = calls[claim["id"]]
        assert words[:2] == ["contrafact", "fit"]
        with pytest.raises(SystemExit) as left:
            cli.main([*words[1:], "--json"])
        assert left.value.code == 0
        (found,) = json.loads(capsys.readouterr().out.splitlines()[-1])["contrasts"]
        assert (found["estimate"], found["se"]) == pytest.approx((claim["estimate"], claim["se"]), rel=1e-6)
        # Where a variance vanished a claim is told with fewer degrees of freedom.
        bounded = any("df bounded" in caveat for caveat in claim["caveats"])
        assert claim["df"] < found["df"] if bounded else claim["df"] == pytest.approx(found["df"], rel=1e-3)


@pytest.mark.parametrize(
    ("plan", "table", "sentence"),
    [
        ('{"study": 1}', "value\n1\n", "is no plan: study"),
        (None, "value\n1\n", "no column 'direction'"),
        (None, f"{HEAD}outcome_up,trust,p,i,treated,1,high\n", "column 'value' holds words"),
        (None, f"{HEAD}outcome_up,kind,p,i,treated,1,2\n", "question 'kind' is not one of the plan"),
        (None, f"{HEAD}outcome_up,trust,p,i,control,1,2\n", "arm 'control' is not one of the plan"),
    ],
)
def test_answers_that_the_plan_does_not_know_are_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], plan: str | None, table: str, sentence: str
) -> None:
    text = (bundle.folder("studies") / "templates" / "faces_world.yaml").read_text().replace("NAME", "small")
    (file := tmp_path / ("plan.json" if plan else "small.yaml")).write_text(plan or text)
    (answers := tmp_path / "answers.csv").write_text(table)
    with pytest.raises(SystemExit) as left:
        cli.main(["statements", str(file), str(answers)])
    assert left.value.code == 2 and sentence in " ".join(capsys.readouterr().err.split())


def test_a_changed_plan_is_refused_before_anything_is_said(context: Context, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(context.loaded.text.replace("alternative: greater", "alternative: less", 1))
    with pytest.raises(UserError, match="alternative"):
        import_module("contrafact.pipelines.analyse").run(replace(context, loaded=study.load(other)))
    assert context.store.statements(context.study_id) == []
    assert [link.kind for link in context.store.chain(context.study_id)] == ["registration"]


def test_a_study_that_stopped_has_a_report_too(context: Context) -> None:
    stopped = {"predict": {"stopped": "The judge's AUC includes chance."}}
    made = import_module("contrafact.pipelines.report").run(replace(context, upstream=stopped))
    html = Path(made["report"]).read_text()
    assert "The judge&#39;s AUC includes chance." in html and "What would help" in html
