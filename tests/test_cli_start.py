"""Starting the program: what is loaded, what is shown, and with which exit code it leaves."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from contrafact import cli
from contrafact.errors import Mistake, Mistakes, Paused, UserError

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "mlflow", "streamlit", "pandas", "sqlalchemy", "diffusers", "statsmodels")
VERBS = (
    "demo", "new", "check", "power", "run", "status", "register", "verify", "survey", "panel", "fit", "statements", "report", "dashboard", "db", "doctor",
)  # fmt: skip


def commands(group: typer.Typer = cli.app) -> Iterator[tuple[str, ...]]:
    """Every command, as the words a person types."""
    for one in group.registered_commands:
        assert one.callback is not None
        yield ((one.name or one.callback.__name__).replace("_", "-"),)
    for sub in group.registered_groups:
        assert sub.name and sub.typer_instance
        for words in commands(sub.typer_instance):
            yield (sub.name, *words)


def leaves(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        cli.main(words)
    out, err = capsys.readouterr()
    return int(left.value.code or 0), out, err


def test_the_verbs_are_those_of_this_version() -> None:
    assert {words[0] for words in commands()} == set(VERBS)


@pytest.mark.parametrize("words", [("--help",), ("check", "nowhere.yaml"), ("--version",)])
def test_starting_loads_no_heavy_library(words: tuple[str, ...]) -> None:
    code = f"""
import sys
import contrafact.cli
try:
    contrafact.cli.main({list(words)!r})
except SystemExit:
    pass
print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    result = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd=ROOT)
    assert result.stderr.splitlines()[-1] == "[]"


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_every_command_has_help_and_speaks_json(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = leaves([*words, "--help"], capsys)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", out)
    assert code == 0
    assert "--json" in plain
    assert re.search(r"Usage: contrafact .*\n\s*\n *\S.{10,}", plain), "no sentence of help"


def raises(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr("contrafact.study.load", fails)


MISTAKE = Mistake("x.yaml", 3, "model.batch", "'many'", "a whole number", None)


@pytest.mark.parametrize(
    ("error", "code", "key"),
    [
        (UserError("The file is odd.", hint="Mend it."), 2, "error"),
        (Mistakes([MISTAKE]), 2, "error"),
        (Paused("Stimuli wait for review.", hint="contrafact dashboard"), 0, "paused"),
        (KeyboardInterrupt(), 130, "error"),
        (RuntimeError("a bug with postgresql://me:hunter2@host/db"), 3, "error"),
    ],
)
def test_an_error_has_its_exit_code_and_no_traceback(
    error: BaseException,
    code: int,
    key: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    raises(error, monkeypatch)
    got, out, err = leaves(["check", "x.yaml"], capsys)
    assert (got, out) == (code, "")
    assert err and "Traceback" not in err and "hunter2" not in err

    got, out, err = leaves(["check", "x.yaml", "--json"], capsys)
    said = json.loads(out.splitlines()[-1])
    assert got == code == said["exit_code"]
    assert said[key]
    if isinstance(error, Mistakes):
        assert said["mistakes"][0]["line"] == 3


def test_our_fault_leaves_a_log_without_passwords(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raises(RuntimeError("cannot reach postgresql+psycopg://me:hunter2@host/db?password=hunter2"), monkeypatch)
    _, _, err = leaves(["check", "x.yaml"], capsys)
    (log,) = (workspace / "logs").iterdir()
    assert str(log) in err
    text = log.read_text()
    assert "Traceback" in text and "torch 2" in text and "contrafact check x.yaml" in text
    assert "hunter2" not in text


@pytest.mark.parametrize("words", [["chekc"], ["check"], ["check", "--nonsense"], ["demo", "--seed", "many"]])
def test_wrong_words_are_the_users_to_mend(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = leaves(words, capsys)
    assert code == 2 and out == "" and "Traceback" not in err and err
    code, out, _ = leaves([*words, "--json"], capsys)
    assert code == 2 and json.loads(out.splitlines()[-1])["error"]
