"""The registration chain, and the answers and exclusions that it is committed to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from contrafact.errors import UserError
from contrafact.store import commitments
from contrafact.store import models as m
from contrafact.store.records import ChainRecord, Kind
from contrafact.store.repository.rows import as_record, as_records
from contrafact.store.repository.sessions import Sessions


class Chain(Sessions):
    def append_registration(self, study_id: int, kind: Kind, payload: Mapping[str, Any]) -> ChainRecord:
        """Appends a link to the study's chain and returns it.

        The same payload as in the last link of this kind is not appended again, so that a resumed stage says
        nothing twice: that link is returned.
        """
        with self._write() as session:
            return append_link(session, study_id, kind, payload)

    def chain(self, study_id: int) -> list[ChainRecord]:
        """The links of a study's chain, in order."""
        with self._read() as session:
            query = (
                select(m.Registration).where(m.Registration.study_id == study_id).order_by(m.Registration.sequence)
            )
            return as_records(ChainRecord, session.scalars(query))

    def verify_chain(self, study_id: int) -> None:
        """Raises UserError, naming the link, where a link was changed, removed from within, or put in between.

        Links cut off at the end leave a chain that is whole; the hash that a report prints tells of them.
        """
        previous = ""
        for number, link in enumerate(self.chain(study_id), start=1):
            content = _link_hash(link.sequence, link.kind, link.payload, previous, link.at.isoformat())
            if (link.sequence, link.previous_hash, link.hash) != (number, previous, content):
                raise UserError(
                    f"The registration chain of this study is broken at link {number} ({link.kind} of "
                    f"{link.at:%Y-%m-%d %H:%M} UTC): it is not what was frozen.",
                    hint="Restore the database from a copy; nothing can be tested on a changed registration.",
                )
            previous = link.hash

    def close_field(self, study_id: int, name: str) -> ChainRecord | None:
        """Commits the chain to the answers and exclusions of a batch; None where it is committed to them all already."""
        with self._write() as session:
            batch = session.scalars(select(m.Batch).where(m.Batch.study_id == study_id, m.Batch.name == name)).one()
            last = session.scalar(
                select(func.max(m.Registration.sequence)).where(m.Registration.study_id == study_id)
            )
            payload = commitments.new(session, study_id, batch, (last or 0) + 1)
            return None if payload is None else append_link(session, study_id, "field", payload)

    def changed_rows(self, study_id: int) -> list[str]:
        """A sentence for each answer or exclusion that is not what the chain is committed to."""
        with self._read() as session:
            return commitments.broken(session, study_id)


def _link_hash(sequence: int, kind: str, payload: Mapping[str, Any], previous: str, at: str) -> str:
    content = {"sequence": sequence, "kind": kind, "payload": payload, "previous": previous, "at": at}
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def append_link(session: Session, study_id: int, kind: Kind, payload: Mapping[str, Any]) -> ChainRecord:
    """As ``Chain.append_registration``, in the caller's transaction."""
    # As the database will give it back: text keys, lists, no NaN.
    plain = json.loads(json.dumps(m.without_nan(payload)))
    session.execute(select(m.Study.id).where(m.Study.id == study_id).with_for_update())
    links = list(
        session.scalars(
            select(m.Registration)
            .where(m.Registration.study_id == study_id)
            .order_by(m.Registration.sequence.desc())
        )
    )
    for link in links:
        if link.kind == kind:
            if link.payload == plain:
                return as_record(ChainRecord, link)
            break
    sequence, previous = (links[0].sequence + 1, links[0].hash) if links else (1, "")
    at = m.now()
    row = m.Registration(
        study_id=study_id, sequence=sequence, kind=kind, payload=plain, previous_hash=previous, at=at,
        hash=_link_hash(sequence, kind, plain, previous, at.isoformat()),
    )  # fmt: skip
    session.add(row)
    session.flush()
    return as_record(ChainRecord, row)
