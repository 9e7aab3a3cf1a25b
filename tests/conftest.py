"""What every test can rely on: a workspace of its own, and no address of the machine's."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Callable, Iterator
from glob import glob
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty workspace; the program and its subprocesses find it in the environment."""
    for name in ("DATABASE_URL", "TRACKING_URI", "FILES_URL"):
        monkeypatch.delenv(f"CONTRAFACT_{name}", raising=False)
    folder = tmp_path / "workspace"
    monkeypatch.setenv("CONTRAFACT_WORKSPACE", str(folder))
    return folder


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """A PostgreSQL server: the one that is named, or one of our own from Debian's package."""
    named = os.environ.get("CONTRAFACT_TEST_POSTGRES_URL")
    if named:
        yield named
        return
    programs = sorted(glob("/usr/lib/postgresql/*/bin"))
    if not programs:
        reason = "neither CONTRAFACT_TEST_POSTGRES_URL nor Debian's postgresql package is there"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    # PostgreSQL refuses to run as root; a socket's path must be short.
    run_as = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    data = Path(subprocess.check_output([*run_as, "mktemp", "-d", "/tmp/pg-XXXXXX"], text=True).strip())
    start = [*run_as, f"{programs[-1]}/pg_ctl", "-D", str(data / "data"), "-w", "-t", "120"]
    try:
        subprocess.run(
            [*run_as, f"{programs[-1]}/initdb", "-D", str(data / "data"), "-U", "tester", "-A", "trust", "-N"],
            check=True, stdout=subprocess.DEVNULL, cwd="/",
        )  # fmt: skip
        options = f"-c listen_addresses='' -c unix_socket_directories={data} -c fsync=off"
        subprocess.run(
            [*start, "-o", options, "-l", str(data / "log"), "start"], check=True, stdout=subprocess.DEVNULL, cwd="/"
        )
        yield f"postgresql://tester@/postgres?host={data}"
    finally:
        subprocess.run([*start, "-m", "immediate", "stop"], check=False, capture_output=True, cwd="/")
        subprocess.run([*run_as, "rm", "-rf", str(data)], check=False, cwd="/")


@pytest.fixture(scope="session")
def database(server: str) -> Callable[..., str]:
    """``database(template="")`` makes a PostgreSQL database, empty or a copy of another, and returns its address."""
    numbers = itertools.count()

    def made(template: str = "") -> str:
        name = f"test_{os.getpid()}_{next(numbers)}"
        address = make_url(server).set(drivername="postgresql+psycopg")
        engine = create_engine(address, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            like = f' TEMPLATE "{make_url(template).database}"' if template else ""
            connection.execute(text(f'CREATE DATABASE "{name}"{like}'))
        engine.dispose()
        return address.set(database=name).render_as_string(hide_password=False)

    return made
