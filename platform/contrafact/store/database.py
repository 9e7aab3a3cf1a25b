"""The connection to a database: how SQLite is set up, and what is said where it cannot be reached."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError

from contrafact.errors import UserError

BUSY_MS = 5000


def parsed(url: str) -> URL:
    """The address as an object; PostgreSQL is spoken to through psycopg 3 whichever way the address names it."""
    try:
        found = make_url(url)
        if found.drivername in ("postgres", "postgresql"):
            found = found.set(drivername="postgresql+psycopg")
        found.get_dialect()
    except (ArgumentError, NoSuchModuleError):
        raise UserError(
            "CONTRAFACT_DATABASE_URL is not the address of a database that is known here.",
            hint="It looks like sqlite:///store.db or postgresql://user@host/name.",
        ) from None
    return found


def sqlite_file(url: URL) -> Path | None:
    """The file of an SQLite database; None for other databases."""
    if url.get_backend_name() != "sqlite":
        return None
    if not url.database or url.database == ":memory:":
        raise UserError("A store needs a file.", hint="The address looks like sqlite:///store.db.")
    return Path(url.database)


def connect(url: str) -> Engine:
    """An engine; nothing is opened yet.

    On SQLite: write-ahead log, commits that are on the disk before they count, foreign keys, five seconds of patience, and a writer takes its lock at the start of
    its transaction (``execution_options(write=True)``), as a reader that turns writer could not wait for it.
    """
    address = parsed(url)
    engine = create_engine(address, pool_pre_ping=sqlite_file(address) is None)
    if sqlite_file(address) is not None:
        event.listen(engine, "connect", _prepare)
        event.listen(engine, "begin", _begin)
    return engine


def _prepare(connection: Any, record: object) -> None:
    connection.isolation_level = None  # transactions begin where SQLAlchemy says so, DDL included
    for pragma in (f"busy_timeout = {BUSY_MS}", "journal_mode = WAL", "foreign_keys = ON", "synchronous = FULL"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    write = connection.get_execution_options().get("write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


@contextmanager
def reachable(url: URL) -> Iterator[None]:
    """Turns what a database refuses into one sentence; the address is shown without its password."""
    shown = url.render_as_string(hide_password=True)
    try:
        yield
    except OperationalError as error:
        text = str(error.orig)
        if "locked" in text:
            raise UserError(
                f"The database {shown} is locked by another process.",
                hint=f"Wait for it to finish (we waited {BUSY_MS // 1000} seconds).",
            ) from error
        if "readonly" in text:
            raise UserError(f"The database {shown} cannot be written.", hint="Check its permissions.") from error
        if "full" in text:
            raise UserError(f"The disk of the database {shown} is full.") from error
        if any(word in text for word in ("no such table", "no such column")):
            raise
        raise UserError(
            f"The database {shown} cannot be reached: {text.splitlines()[0]}.", hint="Check CONTRAFACT_DATABASE_URL."
        ) from error
    except DBAPIError as error:
        if "file is not a database" not in str(error.orig):
            raise
        raise UserError(f"{url.database} is not a database.", hint="Check CONTRAFACT_DATABASE_URL.") from error
