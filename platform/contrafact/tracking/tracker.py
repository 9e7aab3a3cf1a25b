"""Runs, parameters, curves and artifacts in MLflow, without its global active run."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

# Nothing is sent to anybody, and no line of MLflow's own stands between ours.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from contrafact.errors import UserError

for name in ("alembic", "mlflow"):
    logging.getLogger(name).setLevel(logging.WARNING)

EXPERIMENT = "contrafact"
ENDS = {"done": "FINISHED", "failed": "FAILED", "paused": "KILLED", "interrupted": "KILLED"}
LONGEST_PARAM = 6000  # MLflow's own bound on a value
MOST = 100  # parameters that MLflow takes at once
_PARENT = "mlflow.parentRunId"


class Tracker:
    """Runs at an MLflow address: a server (``http://...``) or a database (``sqlite:///...``).

    With SQLite the file and its folder are made, and artifacts lie beside it in ``artifacts``; elsewhere the server
    says where. Raises UserError where the address cannot be used.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        location = None
        if uri.startswith("sqlite"):
            try:
                file = Path(make_url(uri).database or "").resolve()
                file.parent.mkdir(parents=True, exist_ok=True)
            except (ArgumentError, OSError) as error:
                raise UserError(
                    f"The tracking database cannot be made: {error}.", hint="Check CONTRAFACT_TRACKING_URI."
                ) from error
            location = (file.parent / "artifacts").as_uri()
        with self._reached():
            self._client = MlflowClient(tracking_uri=uri)
            found = self._client.get_experiment_by_name(EXPERIMENT)
            self._experiment = (
                found.experiment_id if found else self._client.create_experiment(EXPERIMENT, location)
            )

    def start(self, name: str, parent: str | None = None) -> str:
        """A new run's id; with ``parent`` it is nested under that run."""
        with self._reached():
            tags = {_PARENT: parent} if parent else {}
            run = self._client.create_run(self._experiment, run_name=name, tags=tags)
            return str(run.info.run_id)

    def params(self, run_id: str, params: Mapping[str, object]) -> None:
        """Settings of a run, as text. MLflow refuses to change one that is set."""
        rows = [Param(key, str(value)[:LONGEST_PARAM]) for key, value in params.items()]
        with self._reached():
            for start in range(0, len(rows), MOST):
                self._client.log_batch(run_id, params=rows[start : start + MOST])

    def metrics(self, run_id: str, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Numbers of a run; with ``step`` they are points of curves.

        A number that is not finite is not a number MLflow could draw or compare (its databases make 0 or the largest
        float of it): it is kept as the tag ``not_estimable.<key>``, with the step if there is one.
        """
        at = int(time.time() * 1000)
        finite = [
            Metric(key, float(value), at, step or 0) for key, value in metrics.items() if math.isfinite(value)
        ]
        with self._reached():
            if finite:
                self._client.log_batch(run_id, metrics=finite)
            for key, value in metrics.items():
                if not math.isfinite(value):
                    where = "" if step is None else f" at step {step}"
                    self._client.set_tag(run_id, f"not_estimable.{key}", f"{value}{where}")

    def artifact(self, run_id: str, path: Path, folder: str = "") -> None:
        """A file, or a folder with all that is in it, kept under ``folder`` of the run."""
        with self._reached():
            if path.is_dir():
                self._client.log_artifacts(run_id, str(path), folder or None)
            else:
                self._client.log_artifact(run_id, str(path), folder or None)

    def finish(self, run_id: str, status: str) -> None:
        """Ends a run as ``done``, ``failed``, ``paused`` or ``interrupted``."""
        with self._reached():
            self._client.set_terminated(run_id, ENDS[status])

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except (MlflowException, SQLAlchemyError, OSError) as error:
            told = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise UserError(
                f"The tracker at {_masked(self.uri)} cannot be used: {told}", hint="Check CONTRAFACT_TRACKING_URI."
            ) from error


def _masked(uri: str) -> str:
    try:
        return make_url(uri).render_as_string(hide_password=True)
    except ArgumentError:
        return uri
