"""How the people who answer are hidden and deleted: the salt of their ids, deletion on request, expiry."""

from __future__ import annotations

import secrets
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from contrafact.errors import UserError
from contrafact.store import commitments
from contrafact.store import models as m
from contrafact.store.records import ChainRecord
from contrafact.store.repository.chain import append_link
from contrafact.store.repository.sessions import Sessions


class People(Sessions):
    def salt(self, study_id: int) -> bytes:
        """The study's secret for hashing ids, made at the first call."""
        with self._write() as session:
            row = session.scalar(select(m.StudySalt).where(m.StudySalt.study_id == study_id))
            if row is None:
                row = m.StudySalt(study_id=study_id, salt=secrets.token_hex(32))
                session.add(row)
            return bytes.fromhex(row.salt)

    def forget(self, study_id: int, pid_hash: str, why: str) -> ChainRecord:
        """Deletes, on request, all that one participant answered, and says so in the chain without saying who.

        The lists are free again. Raises UserError where nobody of that hash is in the study.
        """
        with self._write() as session:
            person = session.scalar(
                select(m.Participant).where(m.Participant.study_id == study_id, m.Participant.pid_hash == pid_hash)
            )
            if person is None:
                raise UserError("Nobody of that id has answered in this study.", hint="Nothing was deleted.")
            digests: list[str] = []
            taken = select(m.Assignment).where(m.Assignment.participant_id == person.id).order_by(m.Assignment.id)
            for assignment in session.scalars(taken).all():
                batch = session.get_one(m.Batch, assignment.batch_id)
                digests += commitments.forget(session, study_id, batch.name, assignment.list_number)
                trials = select(m.Trial.id).where(m.Trial.assignment_id == assignment.id)
                session.execute(delete(m.Rating).where(m.Rating.trial_id.in_(trials)))
                assignment.participant_id = assignment.started = assignment.finished = None
                if assignment.status != "left":  # that list was given anew already
                    assignment.status = "open"
            for own in (m.Exclusion, m.Visit, m.PanelId):
                session.execute(delete(own).where(own.participant_id == person.id))
            session.flush()
            session.delete(person)
            return append_link(session, study_id, "deletion", {"why": why, "digests": digests})

    def expire(self, study_id: int, *, dry_run: bool = False) -> tuple[int, int, datetime | None]:
        """Deletes the panel's ids whose day is over and notes in the audit how many; or only counts them.

        Returns how many are over, how many stay, and the day of the next of these. Answers and keyed hashes stay, and
        with them the chain.
        """
        with self._write() as session:
            own = select(m.PanelId.delete_after).join(m.Participant).where(m.Participant.study_id == study_id)
            days = session.scalars(own.order_by(m.PanelId.delete_after)).all()
            now = m.now()
            left = [day for day in days if day >= now]
            if not dry_run:
                expire(session, study_id, now)
            return len(days) - len(left), len(left), left[0] if left else None


def expire(session: Session, study_id: int, now: datetime) -> None:
    """Deletes the panel's ids of a study whose day is over, and leaves their number in the audit."""
    people = select(m.Participant.id).where(m.Participant.study_id == study_id)
    over = (m.PanelId.delete_after < now, m.PanelId.participant_id.in_(people))
    gone = session.scalars(select(m.PanelId.id).where(*over)).all()
    if gone:
        session.execute(delete(m.PanelId).where(*over))
        detail = {"panel_ids": len(gone)}
        session.add(m.Audit(study_id=study_id, actor="retention", action="expiry", detail=detail, at=now))
