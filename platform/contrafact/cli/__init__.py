"""Verbs for people. ``main`` is the error boundary.

Exit codes: 0 done, or waiting for a person; 2 the user can mend it; 3 our fault, a log file is named; 130
interrupted. Heavy rooms are imported inside the commands, so that ``--help`` and ``check`` are instant.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

import contrafact
from contrafact.cli import (
    check,
    dashboard,
    db,
    demo,
    doctor,
    fit,
    new,
    panel,
    power,
    register,
    report,
    run,
    statements,
    status,
    survey,
    verify,
)
from contrafact.cli.output import masked
from contrafact.errors import Mistakes, Paused, UserError

UNFORESEEN, INTERRUPTED = 3, 130

app = typer.Typer(
    name="contrafact",
    help="From a study file with images to a tested claim.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for verb in (demo, new, check, power, run, status, register, verify, survey, panel, fit, statements, report, dashboard, db, doctor):
    verb.register(app)

# Typer brings its own copy of click's exceptions and exports the leaves only.
_BadUsage: type[Any] = typer.BadParameter.__mro__[2]


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"contrafact {contrafact.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """From a study file with images to a tested claim."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command and leaves with its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(_run(words))


def _run(words: list[str]) -> int:
    as_json = "--json" in words
    try:
        code = app(args=words, prog_name="contrafact", standalone_mode=False) or 0
        if code == INTERRUPTED:  # Typer turns Ctrl-C into this code
            raise KeyboardInterrupt
        return code
    except UserError as error:
        said: dict[str, Any] = {"paused" if isinstance(error, Paused) else "error": masked(str(error))}
        if isinstance(error, Mistakes):
            said["mistakes"] = [asdict(mistake) for mistake in error.mistakes]
        return _tell(said, masked(str(error)), error.exit_code, as_json)
    except _BadUsage as error:
        if not as_json:
            error.show()
        return _tell({"error": error.format_message()}, "", error.exit_code, as_json)
    except (KeyboardInterrupt, typer.Abort):
        return _tell({"error": "Interrupted."}, "Interrupted. The same command goes on.", INTERRUPTED, as_json)
    except Exception as error:  # noqa: BLE001 - the boundary: whatever flies this far is logged
        log = _write_log(error, words)
        text = masked(f"Something went wrong that is not your fault: {type(error).__name__}: {error}")
        return _tell({"error": text, "log": str(log)}, f"{text}\nDetails: {log}", UNFORESEEN, as_json)


def _tell(said: dict[str, Any], text: str, code: int, as_json: bool) -> int:
    if text:
        print(text, file=sys.stderr)
    if as_json:
        print(json.dumps({**said, "exit_code": code}))
    return code


def _write_log(error: Exception, words: list[str]) -> Path:
    """A file that can be pasted into a bug report: command, versions and traceback, passwords masked."""
    import platform
    import tempfile
    import time
    import traceback
    from importlib import metadata

    from contrafact import settings

    names = ("torch", "torchvision", "diffusers", "sqlalchemy", "pandas", "statsmodels", "mlflow", "streamlit")
    installed = {package.metadata["Name"].lower(): package.version for package in metadata.distributions()}
    lines = [
        f"contrafact {contrafact.__version__}",
        f"command: contrafact {' '.join(words)}",
        f"python {platform.python_version()} on {platform.platform()}",
        *(f"{name} {installed.get(name, 'is not installed')}" for name in names),
        "",
        *traceback.format_exception(error),
    ]
    name = f"error-{time.strftime('%Y%m%dT%H%M%S')}.log"
    for folder in (settings.read().workspace / "logs", Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / name
            path.write_text(masked("\n".join(lines)), encoding="utf-8")
            return path
        except OSError:
            continue
    raise error
