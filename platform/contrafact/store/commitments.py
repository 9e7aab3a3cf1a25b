"""What was answered, and who was left out, tied to the chain without being in it.

Each answer and each exclusion has a commitment, sha256(salt, row), with a random salt of its own. A ``field`` link of the
chain holds one hash over the commitments that it adds. A deletion on request removes row and salt and leaves the
commitment, which then says nothing about anybody: the chain still verifies, and any other change of a row is found.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from contrafact.store import models as m

Key = tuple[str, int, int, str]
EXCLUDED = "excluded by "
"""What stands as the item of an exclusion, before the rule; its position is -1."""


def new(session: Session, study_id: int, batch: m.Batch, sequence: int) -> dict[str, Any] | None:
    """Commits to the rows of a batch that have no commitment yet, or another content, as link ``sequence``.

    Returns the link's payload, None where there is nothing to say. Exclusions that are no more, and rows of simulated
    batches that were made anew, are taken back by name of their digest; answers of people never are.
    """
    rows, known = _rows(session, study_id), _standing(session, study_id)
    fresh: list[m.Commitment] = []
    for key, row in rows.items():
        if key[0] != batch.name:
            continue
        one = known.get(key)
        if one is None or one.salt is None or _digest(one.salt, row) != one.digest:
            salt = secrets.token_hex(32)
            place = {"batch": key[0], "list_number": key[1], "position": key[2], "item": key[3]}
            fresh.append(m.Commitment(study_id=study_id, sequence=sequence, **place, salt=salt, digest=_digest(salt, row)))
    simulated = {link.sequence for link in _links(session, study_id, "field") if link.payload["simulated"]}
    retracted = sorted(
        one.digest
        for key, one in known.items()
        if key not in rows and (one.sequence in simulated or key[3].startswith(EXCLUDED))
    )
    if not fresh and not retracted:
        return None
    session.add_all(fresh)
    exclusions = sum(one.item.startswith(EXCLUDED) for one in fresh)
    return {
        "batch": batch.name, "simulated": batch.simulated, "answers": len(fresh) - exclusions, "exclusions": exclusions,
        "root": _root(one.digest for one in fresh), "retracted": retracted,
    }  # fmt: skip


def broken(session: Session, study_id: int) -> list[str]:
    """One sentence for each row that is not what the chain was told; empty where all are, or no field was closed."""
    links = _links(session, study_id, "field")
    if not links:
        return []
    found = []
    every = _all(session, study_id)
    for link in links:
        if _root(one.digest for one in every if one.sequence == link.sequence) != link.payload["root"]:
            found.append(f"the commitments of link {link.sequence} (field of {link.at:%Y-%m-%d %H:%M} UTC) were changed")
    rows, known = _rows(session, study_id), _standing(session, study_id)
    for key, one in known.items():
        if key not in rows:
            found.append(f"{_named(key)} is gone, and no deletion on request says so")
        elif one.salt is None or _digest(one.salt, rows[key]) != one.digest:
            found.append(f"{_named(key)} is not what it was when the field was closed")
    found += [f"{_named(key)} was not there when the field was closed" for key in rows if key not in known]
    return found


def forget(session: Session, study_id: int, batch: str, list_number: int) -> list[str]:
    """Removes the salts of one list and returns the digests that a deletion link has to name."""
    own = [one for one in _standing(session, study_id).values() if (one.batch, one.list_number) == (batch, list_number)]
    for one in _all(session, study_id):
        if (one.batch, one.list_number) == (batch, list_number):
            one.salt = None  # of earlier contents too: nothing may be guessed from any of them
    return [one.digest for one in own]


def _all(session: Session, study_id: int) -> list[m.Commitment]:
    return list(session.scalars(select(m.Commitment).where(m.Commitment.study_id == study_id).order_by(m.Commitment.id)))


def _standing(session: Session, study_id: int) -> dict[Key, m.Commitment]:
    """The newest commitment of each row that was neither deleted on request nor taken back."""
    gone = {digest for link in _links(session, study_id, "deletion") for digest in link.payload["digests"]}
    gone |= {digest for link in _links(session, study_id, "field") for digest in link.payload["retracted"]}
    newest = {(one.batch, one.list_number, one.position, one.item): one for one in _all(session, study_id)}
    return {key: one for key, one in newest.items() if one.digest not in gone}


def _links(session: Session, study_id: int, kind: str) -> list[m.Registration]:
    query = select(m.Registration).where(m.Registration.study_id == study_id, m.Registration.kind == kind)
    return list(session.scalars(query.order_by(m.Registration.sequence)))


def _rows(session: Session, study_id: int) -> dict[Key, list[Any]]:
    """Every answer with the picture it was given to, and every exclusion, by place."""
    answers = session.execute(
        select(
            m.Batch.name, m.Assignment.list_number, m.Trial.position, m.Question.name, m.Rating.text, m.Rating.value,
            m.Rating.response_ms, m.Participant.pid_hash, m.Trial.kind, m.Trial.target, m.Image.key, m.Direction.name,
            m.Stimulus.arm, m.Stimulus.draw, m.Stimulus.dose, m.Stimulus.pixels_sha256,
        )
        .select_from(m.Rating)
        .join(m.Trial, m.Trial.id == m.Rating.trial_id)
        .join(m.Assignment, m.Assignment.id == m.Trial.assignment_id)
        .join(m.Batch, m.Batch.id == m.Assignment.batch_id)
        .join(m.Participant, m.Participant.id == m.Assignment.participant_id)
        .join(m.Question, m.Question.id == m.Rating.question_id)
        .outerjoin(m.TrialStimulus, m.TrialStimulus.trial_id == m.Trial.id)
        .outerjoin(m.Stimulus, m.Stimulus.id == m.TrialStimulus.stimulus_id)
        .outerjoin(m.Image, m.Image.id == m.Stimulus.image_id)
        .outerjoin(m.Direction, m.Direction.id == m.Stimulus.direction_id)
        .where(m.Batch.study_id == study_id)
        .order_by(m.Batch.id, m.Assignment.list_number, m.Trial.position, m.Question.id, m.TrialStimulus.position)
    )  # fmt: skip
    found: dict[Key, list[Any]] = {}
    for batch, number, position, question, text, *content in answers:
        # A trial that shows several pictures has a row for each of them, in their order. Numbers have no text beside them.
        row = m.without_nan(list(content) if text is None else [*content, text])
        found.setdefault((batch, number, position, question), []).append(row)
    excluded = session.execute(
        select(m.Batch.name, m.Assignment.list_number, m.Exclusion.rule, m.Exclusion.detail, m.Participant.pid_hash)
        .select_from(m.Exclusion)
        .join(m.Batch, m.Batch.id == m.Exclusion.batch_id)
        .join(m.Participant, m.Participant.id == m.Exclusion.participant_id)
        .join(
            m.Assignment,
            (m.Assignment.batch_id == m.Batch.id) & (m.Assignment.participant_id == m.Exclusion.participant_id),
        )
        .where(m.Batch.study_id == study_id)
        .order_by(m.Batch.id, m.Assignment.list_number, m.Exclusion.rule)
    )
    for batch, number, rule, *content in excluded:
        found[batch, number, -1, EXCLUDED + rule] = [list(content)]
    return found


def _named(key: Key) -> str:
    batch, number, position, item = key
    if item.startswith(EXCLUDED):
        return f"the exclusion of list {number} of {batch} by the rule '{item.removeprefix(EXCLUDED)}'"
    return f"the answer to '{item}' at list {number}, position {position + 1} of {batch}"


def _digest(salt: str, row: list[Any]) -> str:
    text = json.dumps(row, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(f"{salt}\n{text}".encode()).hexdigest()


def _root(digests: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()
