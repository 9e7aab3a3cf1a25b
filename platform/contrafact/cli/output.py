"""How every verb is told what to do and how it answers: options, JSON, tables, progress bars."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from contrafact.run import Progress


def _choose(folder: Path | None) -> Path | None:
    # Every room, and the dashboard's process, reads the one variable; so the option is the variable.
    if folder is not None:
        os.environ["CONTRAFACT_WORKSPACE"] = str(folder)
    return folder


Json = Annotated[
    bool, typer.Option("--json", help="One JSON object, last on standard output; all else on standard error.")
]
Workspace = Annotated[
    Path | None,
    typer.Option(
        "--workspace", metavar="DIR", callback=_choose, help="Folder of everything the program keeps (.contrafact)."
    ),
]
StudyFile = Annotated[Path, typer.Argument(metavar="FILE", help="The study file.")]


def answer(result: Mapping[str, Any], *, as_json: bool, text: str = "", then: str = "") -> None:
    """The end of a verb: ``result`` as JSON for machines, or ``text`` and the next command for people."""
    if as_json:
        print(json.dumps(result, allow_nan=False))
        return
    if text:
        print(text)
    if then:
        print(f"Next: {then}")


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns of plain text, the same on a terminal, in a pipe and in a log."""
    lines = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def duration(seconds: float) -> str:
    """Seconds as a person says them: ``0.4 s``, ``12 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def size(bytes_: float) -> str:
    """Bytes as a person says them (powers of 1000)."""
    for unit in ("B", "kB", "MB", "GB"):
        if bytes_ < 1000:
            return f"{bytes_:.0f} {unit}"
        bytes_ /= 1000
    return f"{bytes_:.1f} TB"


def masked(text: str) -> str:
    """The text with every password inside an address replaced by ``***``."""
    text = re.sub(r"(\w[\w+.-]*://[^\s:/@]*):[^\s/]+@", r"\1:***@", text)
    return re.sub(r"(?i)\b((?:password|secret|token)=)[^\s&'\"]+", r"\1***", text)


@contextmanager
def working(*, as_json: bool) -> Iterator[Progress]:
    """Bars with rate and time left on standard error; silent under ``--json``, where libraries that print are
    sent to standard error too, so that the JSON object stands alone."""
    from contrafact.run import silent

    if as_json:
        with redirect_stdout(sys.stderr):
            yield silent
        return

    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:,.1f}/s" if task.speed else "")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(compact=True),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:

        def progress(items: Iterable[Any], total: int | None, label: str) -> Iterable[Any]:
            bar = bars.add_task(label, total=total)
            try:
                yield from bars.track(items, task_id=bar, total=total)
            finally:
                bars.remove_task(bar)

        yield progress
