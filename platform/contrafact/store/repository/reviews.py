"""Verdicts of people on stimuli."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Select, func, select

from contrafact.errors import UserError
from contrafact.store import models as m
from contrafact.store.records import ReviewRecord
from contrafact.store.repository.rows import as_records
from contrafact.store.repository.sessions import Sessions


class Reviews(Sessions):
    def add_review(self, stimulus_id: int, verdict: str, reason: str, reviewer: str) -> ReviewRecord:
        """Appends a person's verdict on one stimulus, as ``add_reviews``."""
        return self.add_reviews([stimulus_id], verdict, reason, reviewer)[0]

    def add_reviews(
        self, stimuli: Iterable[int], verdict: str, reason: str, reviewer: str, audit: Mapping[str, Any] | None = None
    ) -> list[ReviewRecord]:
        """Appends a person's verdict, ``keep`` or ``reject``, on the pixels that each of these stimuli has now, with
        ``audit`` as the detail of one row of the audit: all of it or nothing.

        There is no way to change it but to give another. Raises UserError for another word, a nameless reviewer,
        or a rejection without a reason.
        """
        if verdict not in ("keep", "reject"):
            raise UserError(f"A verdict is keep or reject, not '{verdict}'.")
        if not reviewer.strip():
            raise UserError("A verdict needs the reviewer's name.")
        if verdict == "reject" and not reason.strip():
            raise UserError("A rejection needs a reason.")
        wanted = list(stimuli)
        with self._write() as session:
            known = {row.id: row for row in session.scalars(select(m.Stimulus).where(m.Stimulus.id.in_(wanted)))}
            if missing := [one for one in wanted if one not in known]:
                raise UserError(f"There is no stimulus {missing[0]}.")
            rows = [
                m.Review(
                    stimulus_id=one, pixels_sha256=known[one].pixels_sha256, verdict=verdict,
                    reason=reason.strip(), reviewer=reviewer.strip(), at=m.now(),
                )
                for one in wanted
            ]  # fmt: skip
            session.add_all(rows)
            if audit is not None:
                study_id = known[wanted[0]].study_id
                session.add(
                    m.Audit(
                        study_id=study_id, actor=reviewer.strip(), action=f"review: {verdict}", detail=dict(audit), at=m.now()
                    )
                )
            session.flush()
            return as_records(ReviewRecord, rows)

    def reviews(self, study_id: int) -> list[ReviewRecord]:
        """Each reviewer's last word on each stimulus of the study, as far as it still has the pixels they saw."""
        with self._read() as session:
            return as_records(ReviewRecord, session.scalars(last_words(study_id).order_by(m.Review.id)))

    def review_history(self, study_id: int) -> list[ReviewRecord]:
        """Every verdict ever given in the study, oldest first."""
        with self._read() as session:
            rows = session.scalars(
                select(m.Review)
                .join(m.Stimulus, m.Stimulus.id == m.Review.stimulus_id)
                .where(m.Stimulus.study_id == study_id)
                .order_by(m.Review.id)
            )
            return as_records(ReviewRecord, rows)


def last_words(study_id: int) -> Select[m.Review]:
    """Each reviewer's newest verdict on each stimulus whose pixels are still those they saw."""
    newest = (
        select(func.max(m.Review.id))
        .join(m.Stimulus, m.Stimulus.id == m.Review.stimulus_id)
        .where(m.Stimulus.study_id == study_id, m.Stimulus.pixels_sha256 == m.Review.pixels_sha256)
        .group_by(m.Review.stimulus_id, m.Review.reviewer)
    )
    return select(m.Review).where(m.Review.id.in_(newest))
