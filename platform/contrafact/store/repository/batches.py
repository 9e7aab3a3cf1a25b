"""What people are asked: questions, and batches of lists of trials."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd
from sqlalchemy import Select, func, insert, select
from sqlalchemy.orm import Session

from contrafact.errors import UserError
from contrafact.store import models as m
from contrafact.store.records import BatchRecord
from contrafact.store.repository.sessions import Rows, Sessions
from contrafact.study.schema import Question

TRIALS = ["assignment", "list", "position", "kind", "place", "stimulus", "target", "pixels_sha256"]


class Batches(Sessions):
    def put_questions(self, study_id: int, questions: Iterable[Question]) -> None:
        """Writes questions by name. Raises UserError where one that people have answered would change."""
        with self._write() as session:
            known = {
                row.name: row
                for row in session.scalars(select(m.Question).where(m.Question.study_id == study_id))
            }
            for question in questions:
                wording = question.model_dump()
                row = known.get(question.name)
                if row is None:
                    session.add(m.Question(study_id=study_id, **wording))
                elif any(getattr(row, name) != text for name, text in wording.items()):
                    answered = select(m.Rating.id).join(m.Trial).join(m.Assignment).join(m.Participant)
                    if session.scalar(
                        answered.where(m.Rating.question_id == row.id, ~m.Participant.simulated).limit(1)
                    ):
                        raise UserError(
                            f"People have answered the question '{question.name}' in other words.",
                            hint="Give the new wording a name of its own.",
                        )
                    for name, text in wording.items():
                        setattr(row, name, text)

    def questions(self, study_id: int) -> list[Question]:
        """The questions of a study, in the order they were written."""
        with self._read() as session:
            query = select(m.Question).where(m.Question.study_id == study_id).order_by(m.Question.id)
            return [
                Question.model_validate({name: getattr(row, name) for name in Question.model_fields})
                for row in session.scalars(query)
            ]

    def put_batch(self, study_id: int, name: str, trials: pd.DataFrame, *, simulated: bool) -> int:
        """Writes a batch, or the lists that it lacks, and returns its id.

        ``trials`` has ``assignment`` (the list's code), ``list`` and ``position`` (from 0), ``kind``, ``stimulus`` (id,
        missing on attention trials), ``target`` (the answer asked for, NaN where none is) and, where trials show several
        pictures, ``place`` (from 0), a row each. A batch is tied to the registration in force.
        Where a list that is there already differs, the batch is written anew, or, if people have begun it, UserError
        is raised.
        """
        rows = _trial_rows(trials)
        with self._write() as session:
            batch = session.scalar(select(m.Batch).where(m.Batch.study_id == study_id, m.Batch.name == name))
            if batch is not None:
                known = _trial_rows(pd.DataFrame(session.execute(_trials(batch.id)).all()))
                if {number: rows[number] for number in rows if number in known} != {
                    number: known[number] for number in known if number in rows
                }:
                    if session.scalar(
                        select(m.Participant.id)
                        .join(m.Assignment)
                        .where(m.Assignment.batch_id == batch.id, ~m.Participant.simulated)
                        .limit(1)
                    ):
                        raise UserError(
                            f"People have begun the batch '{name}', and its lists would change.",
                            hint="Undo what changed them.",
                        )
                    session.delete(batch)
                    session.flush()
                    batch = None
                else:
                    rows = {number: row for number, row in rows.items() if number not in known}
            if batch is None:
                in_force = (
                    select(m.Registration.id)
                    .where(
                        m.Registration.study_id == study_id, m.Registration.kind.in_(("registration", "amendment"))
                    )
                    .order_by(m.Registration.sequence.desc())
                    .limit(1)
                )
                batch = m.Batch(
                    study_id=study_id, name=name, simulated=simulated, registration_id=session.scalar(in_force)
                )
                session.add(batch)
                session.flush()
            if rows:
                _put_lists(session, batch.id, rows)
            return batch.id

    def batches(self, study_id: int) -> list[BatchRecord]:
        """The batches of a study, oldest first, with the hash of the registration they stand on."""
        with self._read() as session:
            query = (
                select(
                    m.Batch, m.Registration.hash, func.count(m.Assignment.id), func.count(m.Assignment.participant_id),
                    func.count(m.Assignment.id).filter(m.Assignment.status == "done"),
                )
                .outerjoin(m.Registration, m.Registration.id == m.Batch.registration_id)
                .outerjoin(m.Assignment, m.Assignment.batch_id == m.Batch.id)
                .where(m.Batch.study_id == study_id)
                .group_by(m.Batch.id, m.Registration.hash)
                .order_by(m.Batch.id)
            )
            return [
                BatchRecord(
                    id=batch.id, name=batch.name, simulated=batch.simulated, registration=registration,
                    assignments=assignments, begun=begun, done=done,
                )
                for batch, registration, assignments, begun, done in session.execute(query)
            ]  # fmt: skip

    def lists(self, study_id: int, name: str | None = None) -> tuple[str, dict[int, str]]:
        """The name of the newest batch, or of the one named, and the codes of its lists by number, in order; empty where
        there is none."""
        with self._read() as session:
            batch = session.scalar(_batch(study_id, name))
            if batch is None:
                return "", {}
            query = select(m.Assignment.list_number, m.Assignment.code).where(m.Assignment.batch_id == batch.id)
            return batch.name, dict(session.execute(query.order_by(m.Assignment.list_number)).all())

    def batch_trials(
        self, study_id: int, name: str | None = None, lists: tuple[int, int] | None = None
    ) -> pd.DataFrame:
        """The trials of a batch, by list and position: ``batch`` (name), the columns of ``put_batch``, and
        ``pixels_sha256``; of the newest batch where none is named, and empty where there is none. ``lists`` is the first
        and the last number of those asked for, all by default."""
        with self._read() as session:
            batch = session.scalar(_batch(study_id, name))
            rows = [] if batch is None else session.execute(of_lists(_trials(batch.id), lists)).all()
            table = pd.DataFrame(rows, columns=TRIALS).astype({"target": float})
        # Without this pandas makes decimal numbers of the ids beside missing ones.
        table["stimulus"] = pd.Series([row.stimulus for row in rows], index=table.index, dtype=object)
        table.insert(0, "batch", "" if batch is None else batch.name)
        return table


ListRow = tuple[str, tuple[tuple[int, str, int, int | None, float | None], ...]]


def _trial_rows(trials: pd.DataFrame) -> dict[int, ListRow]:
    """Code and trials (position, kind, place, stimulus, target) of each list, in plain types that can be compared."""
    found: dict[int, ListRow] = {}
    if trials.empty:
        return found
    placed = trials if "place" in trials else trials.assign(place=0)
    for number, own in placed.sort_values(["position", "place"]).groupby("list", sort=True):
        columns = (own[name] for name in ("position", "kind", "place", "stimulus", "target"))
        found[int(str(number))] = str(own["assignment"].iloc[0]), tuple(
            (
                int(position), str(kind), int(place), None if pd.isna(stimulus) else int(stimulus),
                None if pd.isna(target) else float(target),
            )
            for position, kind, place, stimulus, target in zip(*columns, strict=True)
        )  # fmt: skip
    return found


def _trials(batch_id: int) -> Rows:
    return (
        select(
            m.Assignment.code.label("assignment"), m.Assignment.list_number.label("list"), m.Trial.position,
            m.Trial.kind, func.coalesce(m.TrialStimulus.position, 0).label("place"),
            m.TrialStimulus.stimulus_id.label("stimulus"), m.Trial.target, m.Stimulus.pixels_sha256,
        )
        .select_from(m.Trial)
        .join(m.Assignment, m.Assignment.id == m.Trial.assignment_id)
        .outerjoin(m.TrialStimulus, m.TrialStimulus.trial_id == m.Trial.id)
        .outerjoin(m.Stimulus, m.Stimulus.id == m.TrialStimulus.stimulus_id)
        .where(m.Assignment.batch_id == batch_id)
        .order_by(m.Assignment.list_number, m.Trial.position, m.TrialStimulus.position)
    )  # fmt: skip


def _put_lists(session: Session, batch_id: int, lists: Mapping[int, ListRow]) -> None:
    session.execute(
        insert(m.Assignment),
        [
            {"batch_id": batch_id, "list_number": number, "code": code, "status": "open"}
            for number, (code, _) in lists.items()
        ],
    )
    ids = dict(
        session.execute(
            select(m.Assignment.list_number, m.Assignment.id).where(m.Assignment.batch_id == batch_id)
        ).all()
    )
    trials = [
        {"assignment_id": ids[number], "position": position, "kind": kind, "target": target}
        for number, (_, rows) in lists.items()
        for position, kind, place, _, target in rows
        if place == 0
    ]
    session.execute(insert(m.Trial), trials)
    trial_ids = {
        (assignment_id, position): trial_id
        for trial_id, assignment_id, position in session.execute(
            select(m.Trial.id, m.Trial.assignment_id, m.Trial.position)
            .join(m.Assignment, m.Assignment.id == m.Trial.assignment_id)
            .where(m.Assignment.batch_id == batch_id)
        )
    }
    shown = [
        {"trial_id": trial_ids[ids[number], position], "position": place, "stimulus_id": stimulus}
        for number, (_, rows) in lists.items()
        for position, _, place, stimulus, _ in rows
        if stimulus is not None
    ]
    if shown:
        session.execute(insert(m.TrialStimulus), shown)


def _batch(study_id: int, name: str | None) -> Select[m.Batch]:
    query = select(m.Batch).where(m.Batch.study_id == study_id).order_by(m.Batch.id.desc()).limit(1)
    return query if name is None else query.where(m.Batch.name == name)


def of_lists(query: Rows, lists: tuple[int, int] | None) -> Rows:
    """The query narrowed to the lists from the first number to the last."""
    return query if lists is None else query.where(m.Assignment.list_number.between(*lists))
