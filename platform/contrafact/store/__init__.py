"""SQL and content-addressed files. ``open_store(url)`` gives a ``Store``; ORM classes never leave."""

from __future__ import annotations

from contrafact.errors import UserError
from contrafact.store import upgrade
from contrafact.store.database import connect
from contrafact.store.repository import Store

__all__ = ["Store", "open_store"]


def open_store(url: str, *, create: bool = True) -> Store:
    """The store at an SQLAlchemy address; an empty database gets its schema if ``create``.

    Raises UserError where the database is newer or older than this code, locked, not reachable, or empty without
    ``create``. An older one is never changed on the way: that is for ``contrafact db upgrade``.
    """
    found = upgrade.status(url)
    found.refuse_newer()
    if found.current is None:
        if not create:
            raise UserError("There is no store yet.", hint="Run a study first: contrafact run FILE.")
        upgrade.upgrade(url)
    elif not found.fits:
        raise UserError(
            f"The database is older than this version of contrafact (its schema is {found.current}, the newest "
            f"{found.newest}).",
            hint="Bring it up to date: contrafact db upgrade",
        )
    return Store(connect(url))
