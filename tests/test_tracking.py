"""MLflow behind five verbs, and nowhere else."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest

from contrafact.errors import UserError


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workspace") / "new"


def test_a_run_keeps_all_it_was_told(home: Path) -> None:
    from mlflow import MlflowClient

    from contrafact.tracking import Tracker

    uri = f"sqlite:///{home / 'mlflow.db'}"
    tracker = Tracker(uri)
    run = tracker.start("grooming")
    stage = tracker.start("finetune", parent=run)
    tracker.params(stage, {f"p{k}": k for k in range(120)} | {"long": "x" * 9000})
    for step in (10, 20):
        tracker.metrics(stage, {"loss": 1 / step, "auc": math.nan}, step=step)
    (home / "grid").mkdir()
    (home / "grid" / "a.txt").write_text("picture")
    tracker.artifact(stage, home / "grid" / "a.txt", "curves")
    tracker.artifact(stage, home / "grid")
    tracker.finish(stage, "done")
    tracker.finish(run, "paused")

    again = Tracker(uri)
    assert again.start("second") != run
    client = MlflowClient(tracking_uri=uri)
    found = client.get_run(stage)
    assert found.data.params["p119"] == "119" and len(found.data.params["long"]) == 6000
    assert [(point.step, point.value) for point in client.get_metric_history(stage, "loss")] == [(10, 0.1), (20, 0.05)]
    assert found.data.metrics.keys() == {"loss"}, "NaN is no number"
    assert found.data.tags["not_estimable.auc"] == "nan at step 20"
    assert found.data.tags["mlflow.parentRunId"] == run
    assert (found.info.status, client.get_run(run).info.status) == ("FINISHED", "KILLED")
    kept = sorted(path.relative_to(home).parts[-2:] for path in (home / "artifacts").rglob("a.txt"))
    assert kept == [("artifacts", "a.txt"), ("curves", "a.txt")]


def test_an_address_that_does_not_answer_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from contrafact.tracking import Tracker

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for uri in ("http://127.0.0.1:9", f"sqlite:///{tmp_path}"):
        with pytest.raises(UserError, match="cannot be"):
            Tracker(uri)


def test_the_store_does_not_load_mlflow() -> None:
    code = "import sys, contrafact.store, contrafact.store.files; print([m for m in ('mlflow', 'torch') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
