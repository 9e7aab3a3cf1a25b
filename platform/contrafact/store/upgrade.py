"""The version of a database's schema, and bringing it up to date: the one place that speaks to Alembic."""

from __future__ import annotations

from dataclasses import dataclass

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from contrafact import bundle
from contrafact.errors import UserError
from contrafact.store.database import connect, parsed, reachable, sqlite_file


@dataclass(frozen=True)
class Status:
    """``current`` is the database's revision, None where it is empty; ``known`` are all that this version knows."""

    current: str | None
    newest: str
    known: tuple[str, ...]

    @property
    def fits(self) -> bool:
        return self.current == self.newest

    def refuse_newer(self) -> None:
        """Raises UserError where the database was written by a later version."""
        if self.current is not None and self.current not in self.known:
            raise UserError(
                f"The database is newer than this version of contrafact (its schema is {self.current}, the newest "
                f"known here {self.newest}).",
                hint="Update contrafact, or name another database with CONTRAFACT_DATABASE_URL.",
            )


def config(url: str) -> Config:
    """Alembic's configuration, with the address as an attribute: it may hold a password or a percent sign."""
    made = Config(attributes={"url": url})
    made.set_main_option("script_location", str(bundle.folder("migrations")).replace("%", "%%"))
    return made


def status(url: str) -> Status:
    """The schema's version; a database that does not exist is empty and is not created. Raises UserError where the
    database cannot be reached."""
    scripts = ScriptDirectory.from_config(config(url))
    newest = scripts.get_current_head()
    assert newest is not None
    known = tuple(script.revision for script in scripts.walk_revisions())
    address = parsed(url)
    file = sqlite_file(address)
    if file is not None and not file.exists():
        return Status(None, newest, known)
    with reachable(address):
        engine = connect(url)
        try:
            with engine.connect() as connection:
                return Status(MigrationContext.configure(connection).get_current_revision(), newest, known)
        finally:
            engine.dispose()


def upgrade(url: str) -> None:
    """Brings the schema to the newest version, in one transaction; creates an SQLite file and its folder.

    Raises UserError where the database is newer than this code or cannot be reached.
    """
    status(url).refuse_newer()
    address = parsed(url)
    file = sqlite_file(address)
    with reachable(address):
        if file is not None:
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(f"The folder {file.parent} cannot be made: {error.strerror}.") from error
        command.upgrade(config(url), "head")
