"""The tested hypotheses."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from sqlalchemy import delete, select

from contrafact.stats.statement import Statement
from contrafact.store import models as m
from contrafact.store.repository.rows import as_record
from contrafact.store.repository.sessions import Sessions


class Statements(Sessions):
    def put_statements(self, study_id: int, stage_run_id: int, statements: Sequence[Statement]) -> None:
        """Replaces the statements of a study."""
        with self._write() as session:
            session.execute(delete(m.Statement).where(m.Statement.study_id == study_id))
            for statement in statements:
                row = dataclasses.asdict(statement)
                row["hypothesis"], row["caveats"] = row.pop("id"), list(row["caveats"])
                session.add(m.Statement(study_id=study_id, stage_run_id=stage_run_id, **row))

    def statements(self, study_id: int) -> list[Statement]:
        """The statements of a study, in the order they were written."""
        with self._read() as session:
            query = select(m.Statement).where(m.Statement.study_id == study_id).order_by(m.Statement.id)
            return [
                as_record(Statement, row, id=row.hypothesis, caveats=tuple(row.caveats))
                for row in session.scalars(query)
            ]
