"""From rows of the database to plain records, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, TypeVar

from sqlalchemy import insert, update
from sqlalchemy.orm import Session

from contrafact.store import models as m

Record = TypeVar("Record")


def as_record(cls: type[Record], row: object, **given: Any) -> Record:
    """A record of the row's columns of the same names, and of ``given``."""
    names = [field.name for field in dataclasses.fields(cls) if field.name not in given]  # type: ignore[arg-type]
    return cls(**{name: getattr(row, name) for name in names}, **given)


def as_records(cls: type[Record], rows: Iterable[object]) -> list[Record]:
    """As ``as_record``, of each row."""
    return [as_record(cls, row) for row in rows]


def as_row(record: Any, **more: Any) -> dict[str, Any]:
    """The columns of a record on its way in, without its id, and ``more``."""
    row = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    del row["id"]
    return {**row, **more}


def put_rows(session: Session, model: type[m.Base], rows: list[dict[str, Any]], known: Any) -> None:
    """Inserts rows, or updates them where ``known(row)`` gives an id."""
    new, old = [], []
    for row in rows:
        found = known(row)
        if found is None:
            new.append(row)
        else:
            old.append({"id": found, **row})
    if new:
        session.execute(insert(model), new)
    if old:
        session.execute(update(model), old)
