"""The walls: `platform/` never shadows Python's platform, rooms import downwards, every verb is documented."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from contrafact import bundle

ROOT = Path(__file__).resolve().parents[1]
PLATFORM = "import platform; print(platform.system()); assert 'contrafact' not in platform.__file__"
CONSOLE = Path(sys.executable).with_name("contrafact")


def started(*words: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, check=False, cwd=cwd, capture_output=True, text=True, timeout=300)


def test_platform_is_a_source_root_and_no_package() -> None:
    assert not (ROOT / "platform" / "__init__.py").exists()


@pytest.mark.parametrize("option", ["-c", "-Ic"])
def test_pythons_own_platform_is_intact(option: str) -> None:
    result = started(sys.executable, option, PLATFORM)
    assert result.stdout.strip() == os.uname().sysname, result.stderr


def test_pythons_own_platform_is_intact_under_pytest(tmp_path: Path) -> None:
    test = tmp_path / "test_platform.py"
    test.write_text(f"def test_it():\n    {PLATFORM}\n")
    result = started(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={ROOT}", str(test))
    assert result.returncode == 0, result.stdout


def test_the_leaves_are_found_in_a_checkout() -> None:
    for name in ("pipelines", "dashboards", "migrations", "studies"):
        assert bundle.folder(name) == ROOT / name
    with pytest.raises(LookupError):
        bundle.folder("nowhere")


def test_rooms_import_downwards_only() -> None:
    result = started(str(CONSOLE.with_name("lint-imports")), "--no-cache")
    assert result.returncode == 0, result.stdout
