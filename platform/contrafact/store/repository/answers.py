"""What people answered, who of them is excluded, and the tables of ratings with their provenance."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import pandas as pd
from sqlalchemy import and_, delete, insert, select, update
from sqlalchemy.orm import Session

from contrafact.errors import UserError
from contrafact.store import models as m
from contrafact.store.repository.batches import of_lists
from contrafact.store.repository.sessions import Sessions
from contrafact.study.schema import NUMBERS, PLACES

ANSWERS = ["list", "position", "question", "value", "text", "response_ms", "pid_hash"]


class Answers(Sessions):
    def answers(self, study_id: int, name: str, lists: tuple[int, int] | None = None) -> pd.DataFrame:
        """What was answered in a batch, attention trials included: ``list``, ``position``, ``question``, ``value``,
        ``text``, ``response_ms``, ``pid_hash``; by list, position and question; ``lists`` as in ``batch_trials``."""
        query = (
            select(
                m.Assignment.list_number.label("list"), m.Trial.position, m.Question.name.label("question"),
                m.Rating.value, m.Rating.text, m.Rating.response_ms, m.Participant.pid_hash,
            )
            .select_from(m.Rating)
            .join(m.Trial, m.Trial.id == m.Rating.trial_id)
            .join(m.Assignment, m.Assignment.id == m.Trial.assignment_id)
            .join(m.Batch, m.Batch.id == m.Assignment.batch_id)
            .join(m.Participant, m.Participant.id == m.Assignment.participant_id)
            .join(m.Question, m.Question.id == m.Rating.question_id)
            .where(m.Batch.study_id == study_id, m.Batch.name == name)
            .order_by(m.Assignment.list_number, m.Trial.position, m.Question.id)
        )  # fmt: skip
        return self._table(of_lists(query, lists), ("value", "response_ms"), ())

    def put_answers(
        self, study_id: int, name: str, answers: Iterable[pd.DataFrame], *, simulated: bool, correct: bool = False
    ) -> int:
        """Writes pieces of answers, with the columns of ``answers`` (``text`` may be missing), and their participants;
        a list is in one piece. Returns how many are new.

        The same value twice is fine; another value takes the place of the first if ``correct``, and the audit says
        so. Raises UserError, and writes nothing, where another value is there already and is not to be corrected,
        where a list belongs to somebody else, where nothing of the kind was asked, or where simulated answers would be
        mixed with those of people.
        """
        with self._write() as session:
            batch = session.scalar(select(m.Batch).where(m.Batch.study_id == study_id, m.Batch.name == name))
            if batch is None:
                raise UserError(f"There is no batch '{name}' in this study.")
            if batch.simulated != simulated:
                raise UserError(
                    f"The batch '{name}' is for {'simulated respondents' if batch.simulated else 'people'}.",
                    hint="Answers of people and simulated answers are never pooled.",
                )
            at, new = m.now(), 0
            corrected: list[dict[str, Any]] = []
            for piece in answers:
                told = _put_answers(session, batch, piece, correct, at)
                new, corrected = new + told[0], corrected + told[1]
                session.flush()
                session.expunge_all()  # so that memory does not grow with the answers
            if corrected:
                detail = {"batch": batch.name, "answers": corrected}
                session.add(m.Audit(study_id=study_id, actor="import", action="correction", detail=detail, at=at))
            return new

    def put_exclusions(self, study_id: int, name: str, exclusions: pd.DataFrame) -> None:
        """Replaces the exclusions of a batch: ``pid_hash``, ``rule``, ``detail``. Nothing is deleted but the marks."""
        with self._write() as session:
            batch_id = session.scalars(
                select(m.Batch.id).where(m.Batch.study_id == study_id, m.Batch.name == name)
            ).one()
            session.execute(delete(m.Exclusion).where(m.Exclusion.batch_id == batch_id))
            people = dict(
                session.execute(
                    select(m.Participant.pid_hash, m.Participant.id).where(m.Participant.study_id == study_id)
                ).all()
            )
            session.add_all(
                m.Exclusion(batch_id=batch_id, participant_id=people[pid], rule=rule, detail=detail)
                for pid, rule, detail in exclusions[["pid_hash", "rule", "detail"]].itertuples(index=False)
            )

    def exclusions(self, study_id: int) -> pd.DataFrame:
        """Who falls under which rule: ``batch``, ``list``, ``participant`` (id), ``rule``, ``detail``."""
        query = (
            select(
                m.Batch.name.label("batch"), m.Assignment.list_number.label("list"),
                m.Exclusion.participant_id.label("participant"), m.Exclusion.rule, m.Exclusion.detail,
            )
            .select_from(m.Exclusion)
            .join(m.Batch, m.Batch.id == m.Exclusion.batch_id)
            .join(
                m.Assignment,
                and_(
                    m.Assignment.batch_id == m.Batch.id, m.Assignment.participant_id == m.Exclusion.participant_id
                ),
            )
            .where(m.Batch.study_id == study_id)
            .order_by(m.Batch.id, m.Assignment.list_number, m.Exclusion.rule)
        )  # fmt: skip
        return self._table(query, (), ())

    def ratings_table(self, study_id: int) -> pd.DataFrame:
        """Every rating of one picture on a scale of numbers, with its provenance: the columns of the view
        ``rating_provenance``, in an order that depends on lists and positions alone."""
        return self._provenance(study_id, tuple(NUMBERS))

    def choices_table(self, study_id: int) -> pd.DataFrame:
        """Every choice among pictures, as ``ratings_table``: a row for each picture that was shown, by ``place`` (from 0,
        left to right), and ``chosen``. A choice is its ``rating_id``; ``target`` is the place, from 1, of the right one
        where a guess has one; best and worst are two choices, ``NAME_best`` and ``NAME_worst``."""
        return self._provenance(study_id, PLACES).astype({"chosen": bool})

    def repeats_table(self, study_id: int) -> pd.DataFrame:
        """Every answer to a trial that was shown a second time, of all scales, as ``choices_table``; no other table has
        them."""
        return self._provenance(study_id, (*NUMBERS, *PLACES, "text"), "repeat")

    def texts_table(self, study_id: int) -> pd.DataFrame:
        """Every free text, as ``choices_table``, in ``text``."""
        return self._provenance(study_id, ("text",))

    def _provenance(self, study_id: int, scales: Sequence[str], kind: str = "image") -> pd.DataFrame:
        view = m.rating_provenance.c
        query = (
            select(m.rating_provenance)
            .where(view.study_id == study_id, view.kind == kind, view.scale.in_(scales))
            .order_by(view.batch, view.list_number, view.position, view.place, view.question)
        )
        return self._table(query, ("value", "response_ms", "dose", "target"), ("simulated", "excluded"))


def _put_answers(
    session: Session, batch: m.Batch, answers: pd.DataFrame, correct: bool, at: datetime
) -> tuple[int, list[dict[str, Any]]]:
    """How many answers of a piece are new, and what was corrected."""
    numbers = {int(number) for number in answers["list"]}
    assignments = {
        row.list_number: row
        for row in session.scalars(
            select(m.Assignment).where(m.Assignment.batch_id == batch.id, m.Assignment.list_number.in_(numbers))
        )
    }
    own = m.Trial.assignment_id.in_({assignment.id for assignment in assignments.values()})
    named = m.Participant.pid_hash.in_(set(answers["pid_hash"]))
    people = {
        row.pid_hash: row
        for row in session.scalars(select(m.Participant).where(m.Participant.study_id == batch.study_id, named))
    }
    trials = {
        (assignment_id, position): trial_id
        for trial_id, assignment_id, position in session.execute(
            select(m.Trial.id, m.Trial.assignment_id, m.Trial.position).where(own)
        )
    }
    questions = dict(
        session.execute(
            select(m.Question.name, m.Question.id).where(m.Question.study_id == batch.study_id)
        ).all()
    )
    corrected: list[dict[str, Any]] = []
    known: dict[tuple[int, int], float | str | None] = {
        (trial_id, question_id): value if text is None else text
        for trial_id, question_id, value, text in session.execute(
            select(m.Rating.trial_id, m.Rating.question_id, m.Rating.value, m.Rating.text)
            .join(m.Trial, m.Trial.id == m.Rating.trial_id)
            .where(own)
        )
    }
    new: list[dict[str, Any]] = []
    begun = set()
    ordered = answers.reindex(columns=ANSWERS).sort_values(["list", "position"], kind="stable")
    for number, position, question, number_given, text, response_ms, pid in ordered.itertuples(index=False):
        assignment = assignments.get(int(number))
        trial_id = trials.get((assignment.id, int(position))) if assignment else None
        if assignment is None or trial_id is None or question not in questions:
            raise UserError(f"List {number}, position {position + 1}: '{question}' was not asked there.")
        person = people.get(pid)
        if person is None:
            person = people[pid] = m.Participant(study_id=batch.study_id, pid_hash=pid, simulated=batch.simulated)
            session.add(person)
            session.flush()
        if assignment.participant_id is None:
            assignment.participant_id, assignment.started, assignment.status = person.id, at, "started"
        if assignment.participant_id != person.id or person.simulated != batch.simulated:
            raise UserError(f"List {number} already belongs to another participant.")
        key = (trial_id, questions[question])
        given: dict[str, Any] = {
            "value": None if pd.isna(number_given) else float(number_given), "text": text if isinstance(text, str) else None,
            "response_ms": float(response_ms),
        }  # fmt: skip
        value = given["value"] if given["text"] is None else given["text"]
        if key not in known:
            known[key] = value
            begun.add(assignment.id)
            new.append({"trial_id": trial_id, "question_id": key[1], "at": at, **given})
        elif known[key] == value:
            continue
        elif correct:
            rating = (m.Rating.trial_id == trial_id, m.Rating.question_id == key[1])
            session.execute(update(m.Rating).where(*rating).values(given))
            corrected.append({
                "list": int(number), "position": int(position), "question": question, "before": known[key], "after": value,
            })  # fmt: skip
        else:
            raise UserError(
                f"List {number}, position {position + 1}, '{question}': {_said(value)} here, but {_said(known[key])} is in "
                "the store for the same answer.",
                hint="Nothing was written.",
            )
    if new:
        session.execute(insert(m.Rating), new)
    answered = {trial_id for trial_id, _ in known}
    open_ = {owner for (owner, _), trial_id in trials.items() if trial_id not in answered}
    for assignment in assignments.values():
        if assignment.id in begun and assignment.id not in open_:
            assignment.status, assignment.finished = "done", at
    return len(new), corrected


def _said(value: float | str | None) -> str:
    return f"{value:g}" if isinstance(value, float) else repr(value)[:60]
