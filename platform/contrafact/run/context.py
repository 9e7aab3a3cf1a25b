"""What a stage is handed: its study, its folder, the store, and a place for curves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from contrafact.settings import Settings
    from contrafact.store import Store
    from contrafact.store.files import Files
    from contrafact.study import LoadedStudy
    from contrafact.study.schema import Study
    from contrafact.tracking import Tracker

Facts = dict[str, Any]
Item = TypeVar("Item")
#: ``progress(iterable, total, label)`` gives the items on; ``total`` may be None where it is not known.
Progress = Callable[[Iterable[Any], int | None, str], Iterable[Any]]


def silent(items: Iterable[Item], total: int | None = None, label: str = "") -> Iterable[Item]:
    """The progress that shows nothing (``--json``, tests)."""
    return items


@dataclass(frozen=True)
class Context:
    """One run of one stage.

    ``folder`` survives a kill: whatever lies in it may be taken up again. ``upstream`` holds the facts of the
    finished stages by name. Facts that a stage returns must be plain JSON.
    """

    loaded: LoadedStudy
    study_id: int
    stage_run_id: int
    store: Store
    files: Files
    folder: Path
    upstream: Mapping[str, Facts]
    settings: Settings
    tracker: Tracker
    tracking_run: str
    progress: Progress = silent

    @property
    def study(self) -> Study:
        """The frozen study."""
        return self.loaded.study

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Numbers of this stage; with ``step`` they are points of a curve."""
        self.tracker.metrics(self.tracking_run, dict(metrics), step=step)

    def log_params(self, params: Mapping[str, object]) -> None:
        """Settings of this stage."""
        self.tracker.params(self.tracking_run, dict(params))

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """A file or a folder of this stage, kept by the tracker."""
        self.tracker.artifact(self.tracking_run, path, folder)
