"""The wheel in an environment without any development dependency, outside the repository."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.wheel, pytest.mark.timeout(1500)]

ROOT = Path(__file__).resolve().parents[1]
LEAVES = ("pipelines", "dashboards", "migrations", "studies")


def told(*words: object, cwd: Path, **environment: str) -> str:
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    result = subprocess.run(
        [str(word) for word in words],
        check=False,
        cwd=cwd,
        env={**kept, **environment},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, f"{words}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    told(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with the wheel and what requirements.lock names, and nothing else."""
    uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    assert uv, "uv is missing; `make test` installs it"
    folder = tmp_path_factory.mktemp("installed")
    told(uv, "venv", "--quiet", "--python", sys.executable, folder / "venv", cwd=folder)
    here = {"VIRTUAL_ENV": str(folder / "venv")}
    told(uv, "pip", "install", "--require-hashes", "-r", ROOT / "requirements.lock", cwd=folder, **here)
    told(uv, "pip", "install", "--no-deps", wheel, cwd=folder, **here)
    return folder / "venv" / "bin" / "python"


def test_the_wheel_holds_what_git_holds(wheel: Path) -> None:
    listed = told("git", "ls-files", "platform/contrafact", *LEAVES, cwd=ROOT).split()
    expected = {
        name.replace("platform/contrafact", "contrafact", 1) if name.startswith("platform") else f"contrafact/{name}"
        for name in listed
    }
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if name.startswith("contrafact/")}
    assert expected <= held, expected - held
    assert not {name for name in held if "__pycache__" in name}


def test_it_runs_outside_the_repository_without_development_dependencies(python: Path, tmp_path: Path) -> None:
    contrafact = python.with_name("contrafact")
    workspace = {"CONTRAFACT_WORKSPACE": str(tmp_path / "workspace")}
    assert not (python.parent / "pytest").exists() and not (python.parent / "ruff").exists()

    assert "demo" in told(contrafact, "--help", cwd=tmp_path)
    told(contrafact, "new", "mine", "--template", "faces_world", cwd=tmp_path)
    assert json.loads(told(contrafact, "check", "mine.yaml", "--json", cwd=tmp_path))["study"] == "mine"
    plan = json.loads(told(contrafact, "run", "mine.yaml", "--dry-run", "--json", cwd=tmp_path, **workspace))
    assert [stage["cached"] for stage in plan["stages"]] == [False] * 8
    told(contrafact, "db", "upgrade", cwd=tmp_path, **workspace)
    state = json.loads(told(contrafact, "db", "status", "--json", cwd=tmp_path, **workspace))
    assert state["current"] == state["newest"]

    code = f"""
import platform, contrafact
from contrafact import bundle
assert platform.system() and "site-packages" in contrafact.__file__
print(all(any(bundle.folder(name).iterdir()) for name in {LEAVES!r}))
"""
    assert told(python, "-c", code, cwd=tmp_path).strip() == "True"


def test_every_room_and_stage_can_be_imported_from_the_wheel(python: Path, tmp_path: Path) -> None:
    code = """
import importlib, pkgutil
import contrafact
from contrafact import bundle
for module in pkgutil.walk_packages(contrafact.__path__, "contrafact."):
    importlib.import_module(module.name)
stages = sorted(path.stem for path in bundle.folder("pipelines").glob("*.py"))
for stage in stages:
    importlib.import_module(f"contrafact.pipelines.{stage}")
print(*stages)
"""
    assert "analyse" in told(python, "-c", code, cwd=tmp_path).split()
