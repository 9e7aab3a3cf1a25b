"""The engine, with the real store and tracker; the stages alone are small, as they are what it is given."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contrafact import settings, study
from contrafact.errors import Paused, UserError
from contrafact.run.engine import RunResult, run_study
from contrafact.run.state import stages_of
from contrafact.store import open_store

STAGES = tuple(study.plan.__globals__["STAGES"])

QUIET = """
def run(context):
    with (context.settings.workspace.parent / "log").open("a") as log:
        log.write("{name}\\n")
    context.log_metrics({{"loss": 0.5}}, step=1)
    return {{"upstream": list(context.upstream), "undefined": float("nan")}}
"""


class Lab:
    """A study of a rendered world in eight stages, each of which writes its name to a log."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "small.yaml"
        self.pipelines = folder / "pipelines"
        self.pipelines.mkdir()
        template = (Path(__file__).parents[1] / "studies" / "templates" / "faces_world.yaml").read_text()
        self.file.write_text(template.replace("NAME", "small"))
        for name in STAGES:
            self.stage(name, QUIET.format(name=name))

    def stage(self, name: str, source: str) -> None:
        (self.pipelines / f"{name}.py").write_text(source)

    def run(self, until: str | None = None) -> RunResult:
        return run_study(study.load(self.file), settings.read(), until=until, pipelines=self.pipelines)

    def log(self) -> list[str]:
        """What ran since the last look."""
        path = self.folder / "log"
        lines = path.read_text().split() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines

    def folders(self) -> list[str]:
        return [each.name for each in (settings.read().workspace / "work" / "small").glob("*-*")]


@pytest.fixture(scope="session")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One tracker for all tests: MLflow takes seconds to lay out a new database."""
    return f"sqlite:///{tmp_path_factory.mktemp('tracking') / 'mlflow.db'}"


@pytest.fixture
def lab(tmp_path: Path, tracking: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.setenv("CONTRAFACT_TRACKING_URI", tracking)
    before = dict(sys.modules)
    yield Lab(tmp_path)
    for name in STAGES:  # the lab's stages stand under the names of the real ones
        sys.modules.pop(f"contrafact.pipelines.{name}", None)
    sys.modules.update((name, module) for name, module in before.items() if name.startswith("contrafact.pipelines."))


def test_every_stage_runs_once_and_is_handed_the_facts_before_it(lab: Lab) -> None:
    result = lab.run()
    assert lab.log() == list(STAGES)
    assert result.facts["gate"] == {"upstream": list(STAGES[:4]), "undefined": None}
    assert not any(stage.cached for stage in result.stages) and all(stage.seconds > 0 for stage in result.stages)
    assert lab.folders() == [], "folders of finished stages stay behind"

    again = lab.run()
    assert lab.log() == []
    assert all(stage.cached for stage in again.stages) and again.facts == result.facts


def test_a_change_runs_what_depends_on_it_and_nothing_else(lab: Lab) -> None:
    lab.run()
    lab.log()
    lab.file.write_text(lab.file.read_text().replace("artefact_auc: 0.9", "artefact_auc: 0.77"))
    lab.run()
    assert lab.log() == ["gate", "field", "analyse", "report"]


def test_going_back_to_an_older_study_does_it_anew(lab: Lab) -> None:
    """The older result was replaced in the store, so its hash must not count as finished."""
    first = lab.file.read_text()
    lab.run(until="ingest")
    lab.file.write_text(re.sub(r"(?m)^seed: \d+", "seed: 77", first))
    lab.run(until="ingest")
    lab.file.write_text(first)
    lab.log()
    lab.run(until="ingest")
    assert lab.log() == ["ingest"]


def test_until_ends_early_and_an_unknown_stage_is_named(lab: Lab) -> None:
    assert [stage.name for stage in lab.run(until="predict").stages] == ["ingest", "predict"]
    with pytest.raises(UserError, match="no stage 'gait'.*'gate'"):
        lab.run(until="gait")


def test_a_failed_stage_is_marked_and_done_again(lab: Lab) -> None:
    lab.stage("predict", "def run(context):\n    raise ZeroDivisionError('odd')")
    with pytest.raises(ZeroDivisionError):
        lab.run()
    with open_store(settings.read().database_url) as store:
        runs = store.stage_runs(store.study("small").id)
    assert {run.stage: run.status for run in runs} == {"ingest": "done", "predict": "failed"}

    lab.log()
    lab.stage("predict", QUIET.format(name="predict"))
    lab.run(until="predict")
    assert lab.log() == ["predict"]


def test_a_killed_stage_goes_on_in_its_folder(lab: Lab) -> None:
    lab.stage(
        "generate",
        """
import os, signal

def run(context):
    done = []
    for k in context.progress(range(5), 5, "items"):
        item = context.folder / f"{k}"
        if item.exists():
            continue
        item.write_text("made")
        done.append(k)
        if k == 2:
            os.kill(os.getpid(), signal.SIGKILL)
    return {"made": done}
""",
    )
    code = (
        "import sys; from pathlib import Path; from contrafact import settings, study\n"
        "from contrafact.run.engine import run_study\n"
        f"run_study(study.load({str(lab.file)!r}), settings.read(), pipelines=Path({str(lab.pipelines)!r}))"
    )
    killed = subprocess.run([sys.executable, "-c", code], check=False, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    states = {stage.name: stage.status for stage in stages_of(study.load(lab.file), settings.read(), lab.pipelines)}
    assert (states["finetune"], states["generate"], states["gate"]) == ("done", "begun", "to do")

    lab.log()
    result = lab.run(until="generate")
    assert lab.log() == [] and result.facts["generate"] == {"made": [3, 4]}


@pytest.mark.parametrize(("raised", "error"), [("KeyboardInterrupt", KeyboardInterrupt), ("Paused('Wait.')", Paused)])
def test_interrupted_or_waiting_the_same_command_goes_on(
    lab: Lab, raised: str, error: type[BaseException]
) -> None:
    lab.stage(
        "field",
        f"""
from contrafact.errors import Paused

def run(context):
    if not (context.folder / "half").exists():
        (context.folder / "half").write_text("")
        raise {raised}
    return {{"whole": True}}
""",
    )
    with pytest.raises(error):
        lab.run()
    lab.log()
    assert lab.run().facts["field"] == {"whole": True}
    assert lab.log() == ["analyse", "report"]


def test_a_stop_leads_straight_to_the_report(lab: Lab) -> None:
    lab.stage("predict", "def run(context):\n    return {'stopped': 'The guide is at chance.'}")
    for _ in range(2):
        result = lab.run()
        assert result.stopped == "The guide is at chance."
        assert [stage.name for stage in result.stages] == ["ingest", "predict", "report"]
    assert lab.log() == ["ingest", "report"], "the second time all is known"


def test_two_runs_of_one_study_do_not_collide(lab: Lab) -> None:
    lab.stage("ingest", "import time\n\ndef run(context):\n    (context.folder / 'on').touch()\n    time.sleep(60)")
    code = (
        "from pathlib import Path; from contrafact import settings, study\n"
        "from contrafact.run.engine import run_study\n"
        f"run_study(study.load({str(lab.file)!r}), settings.read(), pipelines=Path({str(lab.pipelines)!r}))"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as other:
        _wait_for(lambda: any((settings.read().workspace / "work").glob("small/ingest-*/on")))
        with pytest.raises(UserError, match="being run by another process"):
            lab.run()
        other.kill()
    lab.stage("ingest", QUIET.format(name="ingest"))
    lab.run(until="ingest")


def test_facts_that_json_does_not_have_are_our_fault(lab: Lab) -> None:
    lab.stage("ingest", "from pathlib import Path\n\ndef run(context):\n    return {'a': [{'b': Path('x')}]}")
    with pytest.raises(TypeError, match=r"ingest\.a\[0\]\.b is PosixPath"):
        lab.run()


def test_the_tracker_and_the_store_name_each_other(lab: Lab) -> None:
    import mlflow

    lab.run(until="ingest")
    place = settings.read()
    with open_store(place.database_url) as store:
        (run,) = store.stage_runs(store.study("small").id)
    client = mlflow.MlflowClient(place.tracking_uri)
    tracked = client.get_run(run.mlflow_run_id)
    assert tracked.data.params["store_stage_run"] == str(run.id)
    assert tracked.data.metrics == {"loss": 0.5}
    parent = client.get_run(tracked.data.tags["mlflow.parentRunId"])
    assert json.loads(parent.data.params["store_run"]) == run.run_id


def _wait_for(condition: Callable[[], bool]) -> None:
    import time

    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
