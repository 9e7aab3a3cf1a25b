"""What every test can rely on: a workspace of its own, and no address of the machine's."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import own_postgres
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
    try:
        with own_postgres.server("-c fsync=off") as address:
            yield address
    except own_postgres.Absent as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))


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
