"""What a panel says of its people, and what they are paid."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from sqlalchemy import func, select

from contrafact.errors import UserError
from contrafact.panels.records import PaymentRecord
from contrafact.store import models as m
from contrafact.store.records import SubmissionRecord
from contrafact.store.repository.rows import as_record
from contrafact.store.repository.sessions import Sessions


class Panels(Sessions):
    def put_submission(
        self, study_id: int, submission: str, pid_hash: str, status: str, at: datetime, event: str | None = None
    ) -> bool:
        """Writes what a panel says of a submission (keyed hashes), unless it is older than what is known or the event
        was taken before; returns whether anything changed."""
        with self._write() as session:
            if event is not None:
                if session.scalar(select(m.PanelEvent.id).where(m.PanelEvent.event_id == event)):
                    return False
                session.add(m.PanelEvent(event_id=event, study_id=study_id, at=m.now()))
            own = (m.PanelSubmission.study_id == study_id, m.PanelSubmission.submission_hash == submission)
            row = session.scalar(select(m.PanelSubmission).where(*own))
            if row is None:
                session.add(
                    m.PanelSubmission(
                        study_id=study_id, submission_hash=submission, pid_hash=pid_hash, status=status, at=at
                    )
                )
                return True
            if at < row.at or row.status == status:
                return False
            row.status, row.at = status, at
            return True

    def submissions(self, study_id: int) -> list[SubmissionRecord]:
        """What the panel says of the submissions of a study, oldest first."""
        with self._read() as session:
            query = select(m.PanelSubmission).where(m.PanelSubmission.study_id == study_id).order_by(m.PanelSubmission.id)
            return [as_record(SubmissionRecord, row, submission=row.submission_hash) for row in session.scalars(query)]

    def finished_participants(self, study_id: int) -> set[str]:
        """The keyed hashes of participants who have answered a whole list."""
        query = (
            select(m.Participant.pid_hash)
            .join(m.Assignment)
            .where(m.Participant.study_id == study_id, m.Assignment.status == "done")
        )
        with self._read() as session:
            return set(session.scalars(query))

    def right_guesses(self, study_id: int, question: str) -> dict[str, int]:
        """How often people named the right picture, by keyed hash; who never did is not there."""
        query = (
            select(m.Participant.pid_hash, func.count(m.Rating.id))
            .select_from(m.Rating)
            .join(m.Question, m.Question.id == m.Rating.question_id)
            .join(m.Trial, m.Trial.id == m.Rating.trial_id)
            .join(m.Assignment, m.Assignment.id == m.Trial.assignment_id)
            .join(m.Participant, m.Participant.id == m.Assignment.participant_id)
            .where(
                m.Participant.study_id == study_id, m.Question.name == question, m.Trial.kind == "image",
                m.Rating.value == m.Trial.target,
            )
            .group_by(m.Participant.pid_hash)
        )  # fmt: skip
        with self._read() as session:
            return dict(session.execute(query).all())

    def turned_away(self, study_id: int) -> dict[str, set[str]]:
        """Keyed hashes of people whom the participant service gave no list, by their answers to the screening questions:
        ``unfit``, or ``full`` where enough people gave the same."""
        found: dict[str, set[str]] = {"unfit": set(), "full": set()}
        query = select(m.Visit.status, m.Participant.pid_hash).join(m.Participant).where(m.Participant.study_id == study_id)
        with self._read() as session:
            for status, pid_hash in session.execute(query.where(m.Visit.status.in_(found))):
                found[status].add(pid_hash)
        return found

    def plan_payments(self, study_id: int, reason: str, currency: str, amounts: Mapping[str, int]) -> None:
        """Writes bonuses by submission (keyed hash) and minor units that are not there yet. Raises UserError where one
        is there with another amount."""
        with self._write() as session:
            own = (m.Payment.study_id == study_id, m.Payment.reason == reason)
            known = {row.submission_hash: row for row in session.scalars(select(m.Payment).where(*own))}
            for submission, amount in amounts.items():
                row = known.get(submission)
                if row is None:
                    session.add(
                        m.Payment(
                            study_id=study_id, submission_hash=submission, reason=reason, amount=amount,
                            currency=currency, state="planned", at=m.now(),
                        )
                    )  # fmt: skip
                elif (row.amount, row.currency) != (amount, currency):
                    raise UserError(
                        f"A bonus for '{reason}' is in the ledger with {row.amount / 100:.2f} {row.currency}, not "
                        f"{amount / 100:.2f} {currency}.",
                        hint="Nothing was written. Another payment needs another reason.",
                    )

    def payments(self, study_id: int) -> list[PaymentRecord]:
        """The ledger of a study, in the order in which it was written."""
        with self._read() as session:
            query = select(m.Payment).where(m.Payment.study_id == study_id).order_by(m.Payment.id)
            return [as_record(PaymentRecord, row, submission=row.submission_hash) for row in session.scalars(query)]

    def move_payments(
        self, study_id: int, reason: str, submissions: Iterable[str], before: str, after: str, reference: str | None
    ) -> int:
        """Moves bonuses of these submissions from one state to the next, all of them or none, and names the panel's set;
        returns how many moved."""
        wanted = set(submissions)
        with self._write() as session:
            own = (m.Payment.study_id == study_id, m.Payment.reason == reason, m.Payment.state == before)
            query = select(m.Payment).where(*own, m.Payment.submission_hash.in_(wanted)).with_for_update()
            rows = session.scalars(query).all()
            if len(rows) != len(wanted):
                return 0
            for row in rows:
                row.state, row.reference, row.at = after, reference, m.now()
            return len(rows)
