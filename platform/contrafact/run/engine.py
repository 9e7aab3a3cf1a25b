"""Carries out a plan: finished stages are skipped, a killed one goes on in its folder, a failed one is marked."""

from __future__ import annotations

import fcntl
import importlib.util
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import contrafact
from contrafact import bundle, study
from contrafact.errors import Paused, UserError, nearest
from contrafact.run.context import Context, Facts, Progress, silent
from contrafact.settings import Settings
from contrafact.store import Store, open_store
from contrafact.store.files import Files
from contrafact.study import LoadedStudy, PlannedStage
from contrafact.tracking import Tracker


@dataclass(frozen=True)
class StageResult:
    """``seconds`` of wall time in this run, 0 for a stage that was finished before (``cached``)."""

    name: str
    cached: bool
    seconds: float


@dataclass(frozen=True)
class RunResult:
    """``facts`` by stage; ``stopped`` is the sentence of the stage that ended the run early, None otherwise."""

    stages: tuple[StageResult, ...]
    facts: dict[str, Facts]
    stopped: str | None


def run_study(
    loaded: LoadedStudy,
    settings: Settings,
    *,
    progress: Progress = silent,
    until: str | None = None,
    finished: Callable[[StageResult], None] = lambda result: None,
    pipelines: Path | None = None,
) -> RunResult:
    """Runs the stages of a study, up to and with ``until``; ``finished`` is called after each of them.

    A stage whose facts hold a sentence under ``stopped`` ends the run: of what follows, only the report is made.
    ``pipelines`` is the folder of the stages' sources, by default the installed one. Raises UserError where the
    same study is being run by another process, Paused where a stage waits for people, and whatever a stage
    raises, after the stage was marked as failed.
    """
    folder = pipelines or bundle.folder("pipelines")
    stages = _until(study.plan(loaded, pipelines=folder), until)
    work = settings.workspace / "work" / loaded.study.study
    results: list[StageResult] = []
    facts: dict[str, Facts] = {}
    stopped: str | None = None
    run: _Run | None = None
    with _alone(work, loaded), open_store(settings.database_url) as store:
        study_id = store.add_study(loaded.study.study, loaded.study.title, loaded.text, loaded.sha256)
        try:
            for stage in stages:
                if stopped and stage.name != "report":
                    continue
                began = time.perf_counter()
                # What stands on a stage that was done anew is done anew.
                known = None if run else store.find_finished_stage(study_id, stage.name, stage.hash)
                if known is None:
                    run = run or _Run(loaded, settings, store, study_id, work, progress)
                    known = run.carry_out(stage, folder, facts)
                    result = StageResult(stage.name, False, time.perf_counter() - began)
                else:
                    result = StageResult(stage.name, True, 0.0)
                facts[stage.name] = known
                results.append(result)
                finished(result)
                stopped = stopped or known.get("stopped")
        except BaseException as error:
            if run:
                run.finish("paused" if isinstance(error, Paused) else "failed")
            raise
        if run:
            run.finish("done")
    return RunResult(tuple(results), facts, stopped)


class _Run:
    """One run of one study in the store and in the tracker, opened when there is something to do."""

    def __init__(
        self,
        loaded: LoadedStudy,
        settings: Settings,
        store: Store,
        study_id: int,
        work: Path,
        progress: Progress,
    ) -> None:
        self.loaded, self.settings, self.store, self.progress = loaded, settings, store, progress
        self.study_id, self.work = study_id, work
        self.files = Files(settings.files_url)
        self.tracker = Tracker(settings.tracking_uri)
        self.tracking_run = self.tracker.start(loaded.study.study)
        self.id = store.start_run(study_id, self.tracking_run)
        self.tracker.params(
            self.tracking_run,
            {"study": loaded.study.study, "study_sha256": loaded.sha256, "store_study": study_id, "store_run": self.id},
        )

    def finish(self, status: str) -> None:
        self.store.finish_run(self.id, status)
        self.tracker.finish(self.tracking_run, status)

    def carry_out(self, stage: PlannedStage, pipelines: Path, upstream: Mapping[str, Facts]) -> Facts:
        """Runs one stage and returns its facts, which are in the store by then."""
        tracking_run = self.tracker.start(stage.name, parent=self.tracking_run)
        stage_run = self.store.start_stage(
            self.id, stage.name, stage.hash, mlflow_run_id=tracking_run, code_version=contrafact.__version__
        )
        self.tracker.params(tracking_run, {"stage_hash": stage.hash, "store_stage_run": stage_run})
        folder = self.work / f"{stage.name}-{stage.hash[:12]}"
        folder.mkdir(parents=True, exist_ok=True)
        context = Context(
            loaded=self.loaded,
            study_id=self.study_id,
            stage_run_id=stage_run,
            store=self.store,
            files=self.files,
            folder=folder,
            upstream=dict(upstream),
            settings=self.settings,
            tracker=self.tracker,
            tracking_run=tracking_run,
            progress=self.progress,
        )
        try:
            facts = _plain(_load(stage.name, pipelines).run(context), stage.name)
        except BaseException as error:
            status = "paused" if isinstance(error, Paused) else "failed"
            self.store.finish_stage(stage_run, status, {"error": f"{type(error).__name__}: {error}"})
            self.tracker.finish(tracking_run, status)
            raise
        self.store.finish_stage(stage_run, "done", facts)
        self.tracker.finish(tracking_run, "done")
        # What a stage leaves behind is in the store and in the files; its folder was for the way there.
        for old in self.work.glob(f"{stage.name}-*"):
            shutil.rmtree(old, ignore_errors=True)
        return facts


@contextmanager
def _alone(work: Path, loaded: LoadedStudy) -> Iterator[None]:
    """Two runs of one study would write the same folders; the lock of a killed process is gone with it."""
    try:
        work.mkdir(parents=True, exist_ok=True)
        lock = (work / "lock").open("w")
    except OSError as error:
        raise UserError(
            f"The workspace {work} cannot be written: {error.strerror}.", hint="Name another one with --workspace."
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"The study '{loaded.study.study}' is being run by another process.",
                hint=f"Wait for it, or look: contrafact status {loaded.path}",
            ) from None
        yield


def _until(stages: tuple[PlannedStage, ...], last: str | None) -> tuple[PlannedStage, ...]:
    names = [stage.name for stage in stages]
    if last is None:
        return stages
    if last not in names:
        near = nearest(last, names)
        raise UserError(
            f"There is no stage '{last}'; the stages of this study are {', '.join(names)}.",
            hint=f"Did you mean '{near}'?" if near else "",
        )
    return stages[: names.index(last) + 1]


def _load(stage: str, pipelines: Path) -> ModuleType:
    """A stage is reached by name: nothing imports a leaf."""
    name, path = f"contrafact.pipelines.{stage}", pipelines / f"{stage}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickling look a module up by its name
    spec.loader.exec_module(module)
    return module


def _plain(value: Any, where: str) -> Any:
    """Facts as JSON has them; a number that is not defined is null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, str | bool | int):
        return value
    raise TypeError(f"{where} is {type(value).__name__}, which JSON does not have")
