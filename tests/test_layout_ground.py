"""What a newcomer's first command stands on: the lock files, and the sentence where something is missing."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-bootstrap.lock")


def pinned(name: str) -> set[tuple[str, str]]:
    """(package, version) of a lock file; a package may have two, for two versions of Python."""
    return set(re.findall(r"(?m)^([A-Za-z0-9_.-]+)==(\S+)", (ROOT / name).read_text()))


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_pins_every_file_by_hash_and_names_no_place(name: str) -> None:
    text = (ROOT / name).read_text()
    assert "://" not in text and "--index" not in text and "--find-links" not in text and " @ " not in text
    blocks = re.split(r"(?m)^(?=\S)", text)[1:]
    assert blocks and all("--hash=sha256:" in block for block in blocks)
    assert not re.search(r"==\S*\+", text), "a local build (such as +cpu) breaks compiled operators"


def test_both_locks_agree_and_hold_what_the_project_names() -> None:
    runtime, development = pinned("requirements.lock"), pinned("requirements-dev.lock")
    assert runtime <= development
    packages = {re.sub(r"[-_.]+", "-", package).lower() for package, _ in runtime}
    assert {"torch", "torchvision", "open-clip-torch", "diffusers", "mlflow", "streamlit", "alembic"} <= packages
    assert not {"pytest", "ruff", "mypy", "playwright"} & packages


def fake_python(folder: Path, body: str) -> Path:
    python = folder / "python3"
    python.write_text(f"#!/bin/sh\n{body}\n")
    python.chmod(0o755)
    return python


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("exit 1", "Python 3.11 or newer is needed"),
        ('case "$2" in *ensurepip*) exit 1;; esac', "Type: sudo apt-get install -y python3-venv"),
        (None, "Type: sudo apt-get install -y python3 python3-venv"),
    ],
)
def test_what_is_missing_is_said_in_one_line(body: str | None, sentence: str, tmp_path: Path) -> None:
    assert shutil.which("make")
    python = fake_python(tmp_path, body) if body else tmp_path / "nowhere"
    result = subprocess.run(
        ["make", "demo", f"PYTHON={python}", f"VENV={tmp_path / 'venv'}"],
        cwd=ROOT, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 2
    assert sentence in result.stderr
    assert not (tmp_path / "venv").exists()


def test_ci_runs_the_readmes_own_test_command_with_every_group() -> None:
    text = (ROOT / ".ci" / "run").read_text()
    assert subprocess.run(["bash", "-n", ROOT / ".ci" / "run"], check=False).returncode == 0
    assert "make check" in text and re.search(r"make test .*-m 'not slow'", text)
