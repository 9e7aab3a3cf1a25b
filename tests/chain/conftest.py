"""A study of seconds, run through the real program, and workspaces that hold its finished first stages."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from threadpoolctl import threadpool_limits

from contrafact import cli, settings
from contrafact.store import Store, open_store
from contrafact.store.dump import canonical

ROOT = Path(__file__).resolve().parents[2]
TINY = Path(__file__).with_name("tiny.yaml")
PROGRAM = "import sys; from contrafact import cli; cli.main(sys.argv[1:])"


@dataclass(frozen=True)
class Told:
    """What a command answered: exit code, its JSON object, and what stood on standard error."""

    code: int
    said: dict[str, Any]
    err: str


@dataclass(frozen=True)
class Chain:
    """One workspace; ``run`` is ``contrafact run FILE --json`` in this process, ``start`` in one of its own."""

    workspace: Path
    tracking: str

    @property
    def environment(self) -> dict[str, str]:
        # One thread here and there, so that sums are taken in one order.
        own = {name: value for name, value in os.environ.items() if not name.startswith("CONTRAFACT_")}
        return own | {
            "CONTRAFACT_WORKSPACE": str(self.workspace),
            "CONTRAFACT_TRACKING_URI": self.tracking,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT / "platform"),
        }

    def tell(self, *words: str, **variables: str) -> Told:
        """A command in this process, with ``--json``; ``variables`` join its environment."""
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            for name in [name for name in os.environ if name.startswith("CONTRAFACT_")]:
                patch.delenv(name)
            for name, value in {**self.environment, **variables}.items():
                patch.setenv(name, value)
            # Libraries that are loaded already do not read the environment again.
            with threadpool_limits(1), pytest.raises(SystemExit) as left:
                cli.main([*words, "--json"])
        assert out.getvalue(), err.getvalue()
        return Told(int(left.value.code or 0), json.loads(out.getvalue().splitlines()[-1]), err.getvalue())

    def run(self, study: Path = TINY, *words: str) -> Told:
        """A run that must succeed."""
        told = self.tell("run", str(study), *words)
        assert told.code == 0, told
        return told

    def refused(self, study: Path, *words: str, **variables: str) -> str:
        """A run that must be refused with exit code 2; returns the sentence, which has all ``words``."""
        told = self.tell("run", str(study), **variables)
        assert told.code == 2, told
        assert told.said["exit_code"] == 2 and set(told.said) <= {"error", "mistakes", "exit_code"}
        sentence = told.said["error"]
        assert isinstance(sentence, str) and sentence in told.err
        assert "Traceback" not in told.err and 'File "' not in told.err
        for word in words:
            assert word in sentence, f"{word!r} is not in: {sentence}"
        return sentence

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        quiet = subprocess.DEVNULL
        command = [sys.executable, "-c", PROGRAM, *words]
        return subprocess.Popen(command, env=self.environment, cwd=ROOT, stdout=quiet, stderr=quiet)

    def kill(self, file: str, delay: float = 0.0) -> None:
        """Starts a run and ends it, as by ``kill -9``, ``delay`` seconds after ``file`` is in the work folder.

        ``file`` is ``<stage>-*`` or a path in there. Nothing is done where an earlier kill came late enough for it.
        """
        work = self.workspace / "work" / "tiny"
        if any(work.glob(file)):
            return
        with self.start("run", str(TINY)) as process:
            while process.poll() is None and not any(work.glob(file)):
                time.sleep(0.01)
            time.sleep(delay)
            process.kill()
        assert process.returncode == -9, f"{file}: the run ended ({process.returncode}) before it was killed"

    def copy(self, to: Path) -> Chain:
        """The same workspace once more, somewhere else."""
        shutil.copytree(self.workspace, to)
        return Chain(to, self.tracking)

    def store(self) -> Store:
        return open_store(settings.read(self.workspace).database_url, create=False)

    def report(self) -> Path:
        return self.workspace / "reports" / "tiny.html"

    def outcome(self) -> dict[str, Any]:
        """All that two runs of one study share, without ids, times and what the report says of the run itself."""
        with self.store() as store:
            dump = canonical(store).splitlines()
            study = store.study("tiny")
            assert study is not None
            models = {f"{model.role} {model.name}": model.files_sha256 for model in store.models(study.id)}
        kept = {each.name for each in (self.workspace / "files").rglob("*") if each.is_file()}
        html = self.report().read_text(encoding="utf-8")
        return {
            "store": dump,
            "models": models,
            "files": sorted(name for name in kept if not name.startswith("draft-")),
            "report": re.sub(r'(<dd class="hash run">)[^<]*', r"\1", html).splitlines(),
        }


def variant(path: Path, *changes: tuple[str, str]) -> Path:
    """The tiny study with some words changed, in a file of its own."""
    text = TINY.read_text(encoding="utf-8")
    for old, new in changes:
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {TINY.name}"
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def changed(tmp_path: Path) -> Callable[..., Path]:
    """``changed((old, new), ...)`` writes a variant of the tiny study."""
    return lambda *changes: variant(tmp_path / "variant.yaml", *changes)


@pytest.fixture(scope="session")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One tracker for all workspaces: MLflow takes seconds to lay out a new database."""
    yield f"sqlite:///{tmp_path_factory.mktemp('tracking') / 'mlflow.db'}"


@pytest.fixture
def fresh(tmp_path: Path, tracking: str) -> Chain:
    """Nothing is there yet."""
    return Chain(tmp_path / "fresh", tracking)


@pytest.fixture(scope="session")
def predicted(tmp_path_factory: pytest.TempPathFactory, tracking: str) -> Chain:
    """Done up to predict; to be copied, not to be changed."""
    chain = Chain(tmp_path_factory.mktemp("chain") / "predicted", tracking)
    chain.run(TINY, "--until", "predict")
    return chain


@pytest.fixture(scope="session")
def gated(predicted: Chain) -> Chain:
    """Done up to the gate, not registered; to be copied, not to be changed."""
    chain = predicted.copy(predicted.workspace.with_name("gated"))
    chain.run(TINY, "--until", "gate")
    return chain


@pytest.fixture(scope="session")
def whole(gated: Chain) -> Chain:
    """Done to the report, never interrupted; to be copied, not to be changed."""
    chain = gated.copy(gated.workspace.with_name("whole"))
    assert chain.run().said["stopped"] is None
    return chain
