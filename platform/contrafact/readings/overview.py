"""Where the studies of a workspace stand, what command goes on, and what one of them found."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from contrafact.readings import workspace
from contrafact.readings.results import ReportReading, reading
from contrafact.readings.stimuli import standings
from contrafact.settings import Settings
from contrafact.store import open_store, upgrade
from contrafact.study.plan import STAGES, STIMULI_STAGES

if TYPE_CHECKING:
    from contrafact.store import Store
    from contrafact.store.records import RunRecord, StageRunRecord, StudyRecord


@dataclass(frozen=True)
class StageState:
    """``status`` is done, running, paused, failed, interrupted, to do, or left out where the study was stopped before.

    ``seconds`` is the wall time of its last run, None while that goes on and where there was none.
    """

    name: str
    status: str
    seconds: float | None


@dataclass(frozen=True)
class StudyState:
    """``note`` is the sentence of what stopped, failed or paused; ``waiting`` counts sets that nobody has reviewed."""

    slug: str
    title: str
    stages: tuple[StageState, ...]
    run_status: str
    run_started: datetime | None
    run_finished: datetime | None
    note: str | None
    waiting: int
    registered: bool
    next: str

    @property
    def done(self) -> int:
        """Stages with nothing left to do."""
        return sum(stage.status in ("done", "left out") for stage in self.stages)


@dataclass(frozen=True)
class Results:
    """``report`` is the path of the finished report, None where there is none."""

    reading: ReportReading
    report: Path | None


def studies(settings: Settings) -> tuple[StudyState, ...]:
    """Every study of the workspace, the one that was run last first; none where there is no store yet."""
    if upgrade.status(settings.database_url).current is None:
        return ()
    with open_store(settings.database_url, create=False) as store:
        found = [_state(store, record, settings) for record in store.studies()]
    never = datetime.min.replace(tzinfo=UTC)
    return tuple(sorted(found, key=lambda one: one.run_started or never, reverse=True))


def results(settings: Settings, slug: str) -> Results:
    """What a study found so far, without its pictures. Raises UserError where its text is of another version."""
    with workspace.opened(settings, slug) as (store, record):
        facts = {run.stage: run.facts for run in store.stage_runs(record.id) if run.status == "done"}
        found = reading(workspace.study(record), facts, ratings=store.ratings_table(record.id))
    path = facts.get("report", {}).get("report")
    return Results(found, Path(path) if path and Path(path).is_file() else None)


def _state(store: Store, record: StudyRecord, settings: Settings) -> StudyState:
    values = workspace.values(record)
    runs, history = store.runs(record.id), store.stage_runs(record.id)
    stages, stopped = _stages(STIMULI_STAGES if values.get("stimuli") else tuple(STAGES), history)
    registered = workspace.registered(store, record.id)
    asked = bool((values.get("review") or {}).get("required")) and not registered
    waiting = sum(one.standing == "waiting" for one in standings(store, record.id)) if asked else 0
    last = runs[-1] if runs else None
    return StudyState(
        slug=record.slug,
        title=record.title,
        stages=stages,
        run_status=last.status if last else "never run",
        run_started=last.started if last else None,
        run_finished=last.finished if last else None,
        note=stopped or _error(last, history),
        waiting=waiting,
        registered=registered,
        next=_next(record.slug, stages, settings),
    )


def _stages(names: Sequence[str], history: Sequence[StageRunRecord]) -> tuple[tuple[StageState, ...], str | None]:
    """Each stage by its last run; what was done before an earlier stage was done anew is to do again."""
    latest = {run.stage: run for run in history}
    found, newest, stopped = [], 0, None
    for name in names:
        run = latest.get(name)
        current = run is not None and run.status != "replaced" and run.id > newest
        if run is None or not current:
            found.append(StageState(name, "left out" if stopped else "to do", None))
            continue
        newest = run.id
        seconds = (run.finished - run.started).total_seconds() if run.finished else None
        found.append(StageState(name, run.status, seconds))
        stopped = stopped or run.facts.get("stopped")
    return tuple(found), stopped


def _error(last: RunRecord | None, history: Sequence[StageRunRecord]) -> str | None:
    """The sentence of a run that did not come through."""
    if last is None or last.status not in ("failed", "paused"):
        return None
    told = [run.facts["error"] for run in history if run.run_id == last.id and "error" in run.facts]
    return str(told[-1]).partition(": ")[2] if told else None


def _next(slug: str, stages: Sequence[StageState], settings: Settings) -> str:
    """The store knows a study's name and not where its file lies, so the file is called by that name."""
    statuses = {stage.status for stage in stages}
    verb = "status" if "running" in statuses else "report" if statuses <= {"done", "left out"} else "run"
    elsewhere = settings.workspace != Path(".contrafact").resolve()
    return f"contrafact {verb} {slug}.yaml" + (f" --workspace {shlex.quote(str(settings.workspace))}" if elsewhere else "")
