"""Where a study stands: each planned stage against what the store knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contrafact import study
from contrafact.settings import Settings
from contrafact.store import open_store, upgrade
from contrafact.study import LoadedStudy


@dataclass(frozen=True)
class StageState:
    """``status`` is ``done`` for this very content, ``begun`` where a run of it was cut off, else ``to do``."""

    name: str
    hash: str
    status: str
    facts: Mapping[str, Any]


def stages_of(
    loaded: LoadedStudy, settings: Settings, pipelines: Path | None = None
) -> tuple[StageState, ...]:
    """The stages of a study and their states; nothing is written, not even an empty database."""
    planned = study.plan(loaded, pipelines=pipelines)
    finished: dict[str, Mapping[str, Any]] = {}
    if upgrade.status(settings.database_url).current is not None:
        with open_store(settings.database_url, create=False) as store:
            row = store.study(loaded.study.study)
            for stage in planned:
                facts = store.find_finished_stage(row.id, stage.name, stage.hash) if row else None
                if facts is not None:
                    finished[stage.name] = facts
    work = settings.workspace / "work" / loaded.study.study
    states: list[StageState] = []
    for stage in planned:
        begun = (work / f"{stage.name}-{stage.hash[:12]}").is_dir()
        status = "done" if stage.name in finished else "begun" if begun else "to do"
        states.append(StageState(stage.name, stage.hash, status, finished.get(stage.name, {})))
    return tuple(states)


def studies(settings: Settings) -> tuple[tuple[str, str], ...]:
    """(slug, title) of every study in the store."""
    if upgrade.status(settings.database_url).current is None:
        return ()
    with open_store(settings.database_url, create=False) as store:
        return tuple((each.slug, each.title) for each in store.studies())
