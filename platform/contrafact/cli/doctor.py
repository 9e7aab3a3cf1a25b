"""``contrafact doctor``: whether this machine and these addresses will do."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import typer

from contrafact.cli.output import Json, Workspace, answer, masked, size, table

FREE_DISK = 5e9  # bytes: models, checkpoints and stimuli of a few studies
MEMORY = 4e9 * 0.95  # bytes: what the demo is measured with, less what a kernel keeps


@dataclass(frozen=True)
class Check:
    name: str
    found: str
    ok: bool
    mend: str = ""


def register(app: typer.Typer) -> None:
    @app.command()
    def doctor(workspace: Workspace = None, as_json: Json = False) -> None:
        """Looks at Python, disk, memory, torch, database, files and tracking; exit code 2 where one is amiss."""
        from contrafact import settings

        place = settings.read()
        checks = [
            _python(),
            _disk(place.workspace),
            _memory(),
            Check("cores", str(os.cpu_count()), True),
            _torch(),
            _attempt("database", masked(place.database_url), lambda: _database(place.database_url)),
            _attempt("files", masked(place.files_url), lambda: _files(place.files_url)),
            _attempt("tracking", masked(place.tracking_uri), lambda: _tracking(place.tracking_uri)),
        ]
        amiss = [check for check in checks if not check.ok]
        rows = [(check.name, "ok" if check.ok else "AMISS", check.found) for check in checks]
        answer(
            {"ok": not amiss, "checks": [vars(check) for check in checks], "next": "contrafact demo"},
            as_json=as_json,
            text="\n".join(
                [table(("check", "state", "found"), rows), *(f"{check.name}: {check.mend}" for check in amiss)]
            ),
            then="contrafact doctor (once mended)" if amiss else "contrafact demo",
        )
        raise typer.Exit(2 if amiss else 0)


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    return Check("python", version, sys.version_info >= (3, 11), "Python 3.11 or newer is needed.")


def _existing(folder: Path) -> Path:
    return next(each for each in (folder, *folder.parents) if each.exists())


def _disk(workspace: Path) -> Check:
    free = shutil.disk_usage(_existing(workspace)).free
    mend = f"Free {size(FREE_DISK)} there, or name another folder with --workspace."
    return Check("disk", f"{size(free)} free at {workspace}", free >= FREE_DISK, mend)


def _memory() -> Check:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    mend = f"The demo wants {size(MEMORY)}; close other programs or make `model.batch` smaller."
    return Check("memory", size(total), total >= MEMORY, mend)


def _torch() -> Check:
    try:
        import torch
        import torchvision  # its compiled operators break first where the builds do not belong together
    except Exception as error:  # noqa: BLE001 - a broken build fails in its own way
        return Check("torch", f"{type(error).__name__}: {error}", False, "Install from requirements.lock.")
    fast = torch.cuda.is_available() or torch.cpu.get_capabilities().get("avx512_bf16", False)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    found = f"torch {torch.__version__}, torchvision {torchvision.__version__}, {device}, "
    return Check("torch", found + ("bfloat16" if fast else "float32"), True)


def _attempt(name: str, address: str, probe: Callable[[], str]) -> Check:
    try:
        return Check(name, f"{address}: {probe()}", True)
    except Exception as error:  # noqa: BLE001 - what is amiss is what is asked
        said = masked(str(error)).splitlines()[0] if str(error) else type(error).__name__
        mend = f"Look at CONTRAFACT_{name.upper()}_{'URI' if name == 'tracking' else 'URL'} and --workspace."
        return Check(name, f"{address}: {said}", False, mend)


def _database(url: str) -> str:
    from contrafact.store import upgrade

    state = upgrade.status(url)
    if state.current is None:
        return "empty, made by the first run"
    if state.current != state.newest:
        raise ValueError(f"schema {state.current}, newest {state.newest}: contrafact db upgrade")
    return f"schema {state.current}"


def _files(url: str) -> str:
    from contrafact.store.files import Files

    files = Files(url)
    content = b"contrafact doctor"
    if files.get(files.put(content)) != content:
        raise ValueError("what was written is not what is read")
    return "written and read"


def _tracking(uri: str) -> str:
    if uri.startswith("http"):
        from urllib.request import urlopen

        with urlopen(f"{uri.rstrip('/')}/health", timeout=5) as reply:
            return f"answers {reply.status}"
    folder = _existing(Path(uri.split(":///", 1)[-1]).parent)
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{folder} cannot be written")
    return "local"
