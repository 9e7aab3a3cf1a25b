"""What every test can rely on: a workspace of its own, and no address of the machine's."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty workspace; the program and its subprocesses find it in the environment."""
    for name in ("DATABASE_URL", "TRACKING_URI", "FILES_URL"):
        monkeypatch.delenv(f"CONTRAFACT_{name}", raising=False)
    folder = tmp_path / "workspace"
    monkeypatch.setenv("CONTRAFACT_WORKSPACE", str(folder))
    return folder
