"""Who changed what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select

from contrafact.store import models as m
from contrafact.store.records import AuditRecord
from contrafact.store.repository.rows import as_records
from contrafact.store.repository.sessions import Sessions


class Audit(Sessions):
    def add_audit(self, study_id: int, actor: str, action: str, detail: Mapping[str, Any]) -> None:
        """Appends who changed what."""
        with self._write() as session:
            session.add(
                m.Audit(study_id=study_id, actor=actor, action=action, detail=dict(detail), at=m.now())
            )

    def audit(self, study_id: int) -> list[AuditRecord]:
        """Who changed what in a study, oldest first."""
        with self._read() as session:
            query = select(m.Audit).where(m.Audit.study_id == study_id).order_by(m.Audit.id)
            return as_records(AuditRecord, session.scalars(query))
