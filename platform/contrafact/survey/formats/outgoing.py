"""A batch on its way out: the same rows for every format, and what a format cannot carry."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from contrafact.study.schema import Question
from contrafact.survey.formats.guard import guarded

PLACES = ("choice", "best", "worst")  # scales whose answer is the place of a picture, from 1


@dataclass(frozen=True)
class Outgoing:
    """``rows``, in order: assignment, position (from 1), kind, question, text, low, high, scale, files (names under
    ``images`` from left to right, none on attention trials), target (what an attention trial asks for, or the place of
    the higher dose in a guess). ``pictures`` is the address that ends in a slash under which the folder of pictures
    will be found, or empty where the format carries it."""

    title: str
    rows: pd.DataFrame
    questions: Sequence[Question]
    pictures: str = ""

    @property
    def places(self) -> tuple[str, ...]:
        """What each picture of a trial is called, from left to right."""
        several = int(self.rows["files"].map(len).max())
        return tuple(f"Picture {place}" for place in range(1, several + 1)) if several > 1 else ("The picture to rate",)

    def lists(self) -> Iterator[tuple[str, list[list[dict[str, Any]]]]]:
        """Each assignment with its trials; a trial is its questions' rows."""
        names = [str(name) for name in self.rows.columns]
        for code, own in self.rows.groupby("assignment", sort=False):
            trials = own.groupby("position", sort=True)
            yield str(code), [[dict(zip(names, row, strict=True)) for row in trial.to_numpy(object)] for _, trial in trials]


def write_csv(path: Path, table: pd.DataFrame, *, header: bool = True) -> None:
    """A CSV that is safe to open in a spreadsheet: UTF-8, text cells and headers guarded."""
    safe = table.rename(columns=guarded).map(guarded)
    safe.to_csv(path, index=False, header=header, encoding="utf-8", lineterminator="\n", quoting=csv.QUOTE_MINIMAL)


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False), encoding="utf-8")
