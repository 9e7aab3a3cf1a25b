"""The whole store as text without ids and times: two runs that made the same things give the same text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from sqlalchemy import select

from contrafact.store import models as m
from contrafact.store.repository import Store

#: what names a row where another refers to it
_KEYS = {
    "study": ("slug",),
    "stage_run": ("study_id", "stage", "hash"),
    "image": ("study_id", "key"),
    "direction": ("study_id", "name"),
    "stimulus": ("image_id", "direction_id", "arm", "draw", "dose"),
    "registration": ("study_id", "sequence"),
    "question": ("study_id", "name"),
    "batch": ("study_id", "name"),
    "assignment": ("batch_id", "list_number"),
    "trial": ("assignment_id", "position"),
}
#: secrets and what is made of them, and what MLflow or the clock decided
_LEFT_OUT = {
    "salt", "pid_hash", "submission_key", "submission_hash", "code", "mlflow_run_id", "previous_hash", "digest",
}  # fmt: skip
_CLOCKED = {"seconds", "path", "report", "root", "retracted"}


def canonical(store: Store) -> str:
    """A line for each row of each table, sorted: ``table {"column": value, ...}``.

    Rows refer to each other by natural keys: a participant is the first list they answered, a link of the chain its
    number. Left out are ids, times, MLflow's ids, hashes under a study's salt, stage runs that were cut off or
    replaced, in facts and payloads the keys ``seconds``, ``path``, ``report``, ``root`` and ``retracted``, and all facts of the report stage, whose file
    prints hashes of the chain, which hold times.
    """
    with store._read() as session:
        tables = {
            table.name: [dict(row) for row in session.execute(select(table).order_by(table.c.id)).mappings()]
            for table in m.Base.metadata.sorted_tables
        }
    by_id = {name: {row["id"]: row for row in rows} for name, rows in tables.items()}
    links = {row["hash"]: f"link {row['sequence']}" for row in tables["registration"]}
    first = {row["participant_id"]: row for row in reversed(tables["assignment"])}

    def natural(table: str, key: int | None) -> Any:
        if key is None:
            return None
        if table == "participant":
            return natural("assignment", first[key]["id"]) if key in first else None
        return [value(table, by_id[table][key], column) for column in _KEYS[table]]

    def value(table: str, row: Mapping[str, Any], column: str) -> Any:
        for key in m.Base.metadata.tables[table].c[column].foreign_keys:
            return natural(key.column.table.name, row[column])
        return _settled(row[column], links)

    lines = []
    for name, rows in tables.items():
        if name in ("run", "study_salt", "panel_id"):
            continue
        columns = _columns(name)
        for row in rows:
            if name == "stage_run" and row["status"] != "done":
                continue
            told = {column: value(name, row, column) for column in columns}
            if name == "stage_run" and row["stage"] == "report":
                del told["facts"]
            if name == "participant":
                told["id"] = natural("participant", row["id"])
            line = f"{name} {json.dumps(m.without_nan(told), sort_keys=True, ensure_ascii=False)}"
            if name != "stage_run" or line not in lines:  # a stage may have been done twice
                lines.append(line)
    return "\n".join(sorted(lines)) + "\n"


def _columns(name: str) -> list[str]:
    table = m.Base.metadata.tables[name]
    left_out = {"id", "run_id", *_LEFT_OUT, *(("hash",) if name == "registration" else ())}
    return [column.name for column in table.c if column.name not in left_out and not isinstance(column.type, m.Time)]


def _settled(value: Any, links: Mapping[str, str]) -> Any:
    """A value in which nothing depends on the clock or on where the workspace is."""
    if isinstance(value, Mapping):
        return {key: _settled(item, links) for key, item in value.items() if key not in _CLOCKED}
    if isinstance(value, list):
        return [_settled(item, links) for item in value]
    if isinstance(value, str):
        return PurePath(value).name if value.startswith("/") else links.get(value, value)
    return value
