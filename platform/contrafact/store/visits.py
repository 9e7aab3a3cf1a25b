"""People at the participant service: consent, a list on lease, answers that are written once, deletion.

A method is one transaction. All hold for several processes on one PostgreSQL; SQLite has one writer anyway.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, Literal

from sqlalchemy import and_, func, insert, literal, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from contrafact.store import models as m
from contrafact.store.repository import Store
from contrafact.store.repository.people import expire
from contrafact.survey import allocation


@dataclass(frozen=True)
class Visit:
    """One person at the service; ``status`` is instructions, trials, done, screened_out, unfit or full."""

    id: int
    status: str
    tries: int
    assignment: int | None
    language: str


@dataclass(frozen=True)
class Screened:
    """Somebody's answers to the screening questions, by name; whether such people go on; and how many of an answer there
    may be, for those of the answers that are bounded."""

    answers: Mapping[str, str]
    fit: bool
    quotas: Mapping[str, int]


@dataclass(frozen=True)
class Shown:
    """A trial of a list, with its stimuli from left to right; ``target`` is the answer that an attention trial asks for
    or the place, from 1, of the right picture in a guess, None elsewhere."""

    id: int
    position: int
    kind: str
    target: float | None
    stimuli: tuple[int, ...]
    set_key: str | None


@dataclass(frozen=True)
class Given:
    """The answers to one trial, under a key made in the browser. ``values``, numbers or free texts, ``moves`` and
    ``pasted`` (signs) are by question; ``break_ms`` is the break before the trial, None where there was none; ``away`` is
    how often the page was left."""

    visit: int
    trial: int
    key: str
    values: Mapping[str, float | str]
    moves: Mapping[str, int]
    response_ms: float
    answered_at: datetime | None
    break_ms: float | None = None
    away: int = 0
    pasted: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Taken:
    """What became of it: ``repeated`` where the same was there under the same key, ``conflict`` where something else
    was, ``refused`` where the person has no such trial. ``values`` and ``response_ms`` are those stored; ``whole`` that
    nothing is missing now."""

    fate: Literal["stored", "repeated", "conflict", "refused"]
    values: Mapping[str, float | str]
    response_ms: float
    whole: bool


class Visits:
    """The visits to one batch of one study."""

    def __init__(self, store: Store, study_id: int, batch: str) -> None:
        self._store, self._study = store, study_id
        with store._read() as session:
            row = session.scalars(
                select(m.Batch).where(m.Batch.study_id == study_id, m.Batch.name == batch)
            ).one()
            self._batch, self._simulated = row.id, row.simulated
            self._questions: dict[str, int] = dict(
                session.execute(
                    select(m.Question.name, m.Question.id).where(m.Question.study_id == study_id)
                ).all()
            )

    def find(self, pid_hash: str) -> Visit | None:
        """The visit of a person who has consented already."""
        with self._store._read() as session:
            row = session.scalar(
                select(m.Visit).join(m.Participant)
                .where(m.Visit.batch_id == self._batch, m.Participant.pid_hash == pid_hash)
            )  # fmt: skip
            return None if row is None else _visit(row)

    def get(self, visit: int) -> Visit | None:
        """A visit by its id."""
        with self._store._read() as session:
            row = session.get(m.Visit, visit)
            return None if row is None or row.batch_id != self._batch else _visit(row)

    def begin(
        self, pid_hash: str, raw: str, *, lease: timedelta, keep: timedelta, screened: Screened | None = None,
        language: str = "en",
    ) -> Visit | None:
        """Somebody consents: their visit with a list on lease, or the one they have; None where the batch is full.

        Who is not fit, or comes when as many as the quota allows have finished or hold a list, has a visit without a list,
        so that nobody can answer anew. Panels' ids whose day is over are deleted on the way.
        """
        now = m.now()
        with self._store._write() as session:
            expire(session, self._study, now)
            person = session.scalar(
                select(m.Participant).where(
                    m.Participant.study_id == self._study, m.Participant.pid_hash == pid_hash
                )
            )
            if person is not None:
                row = session.scalar(
                    select(m.Visit).where(m.Visit.batch_id == self._batch, m.Visit.participant_id == person.id)
                )
                if row is not None:
                    return _visit(row)
            turned_away = self._turned_away(session, screened, now) if screened else None
            assignment = None if turned_away else self._lease(session, now)
            if assignment is None and not turned_away:
                return None
            if person is None:
                person = m.Participant(study_id=self._study, pid_hash=pid_hash, simulated=self._simulated)
                session.add(person)
                session.flush()
            if assignment is not None:
                assignment.participant_id, assignment.started, assignment.status = person.id, now, "started"
                if session.scalar(select(m.PanelId.id).where(m.PanelId.participant_id == person.id)) is None:
                    session.add(m.PanelId(participant_id=person.id, raw=raw, delete_after=now + keep))
            row = m.Visit(
                batch_id=self._batch, participant_id=person.id, assignment_id=assignment and assignment.id,
                status=turned_away or "instructions", tries=0, consented=now, lease_until=now + lease,
                screening=dict(screened.answers) if screened else {}, language=language,
            )  # fmt: skip
            session.add(row)
            session.flush()
            return _visit(row)

    def _turned_away(self, session: Session, screened: Screened, now: datetime) -> str | None:
        """Why somebody gets no list by their answers, None where they do."""
        if not screened.fit:
            return "unfit"
        if screened.quotas:
            # Whoever else is given a list of this batch waits until this one is given.
            session.execute(select(m.Batch.id).where(m.Batch.id == self._batch).with_for_update())
            live = or_(m.Visit.status == "done", and_(m.Visit.status.in_(("instructions", "trials")), m.Visit.lease_until >= now))
            there = session.scalars(select(m.Visit.screening).where(m.Visit.batch_id == self._batch, live)).all()
            for name, most in screened.quotas.items():
                if sum(one.get(name) == screened.answers[name] for one in there) >= most:
                    return "full"
        return None

    def _lease(self, session: Session, now: datetime) -> m.Assignment | None:
        own = m.Assignment.batch_id == self._batch
        locked: dict[str, Any] = {"skip_locked": True, "of": m.Assignment}
        free = session.scalar(
            select(m.Assignment).where(own, m.Assignment.status == "open")
            .order_by(m.Assignment.list_number).limit(1).with_for_update(**locked)
        )  # fmt: skip
        left = session.scalar(
            select(m.Assignment).join(m.Visit, m.Visit.assignment_id == m.Assignment.id)
            .where(own, m.Assignment.status == "started", m.Visit.lease_until < now)
            .order_by(m.Assignment.list_number % allocation.AGAIN).limit(1).with_for_update(**locked)
        )  # fmt: skip
        candidates = {row.list_number: row for row in (free, left) if row is not None}
        number = allocation.next_number(
            [free.list_number] if free else [], [left.list_number] if left else []
        )
        if number is None or candidates[number] is free:
            return free
        assert left is not None
        left.status = "left"
        return self._again(session, left)

    def _again(self, session: Session, left: m.Assignment) -> m.Assignment:
        """The list of somebody who has left it, for the next person."""
        newest = session.scalars(
            select(func.max(m.Assignment.list_number)).where(
                m.Assignment.batch_id == self._batch,
                m.Assignment.list_number % allocation.AGAIN == allocation.list_of(left.list_number),
            )
        ).one()
        row = m.Assignment(
            batch_id=self._batch, list_number=newest + allocation.AGAIN, code=secrets.token_hex(5), status="open"
        )
        session.add(row)
        session.flush()
        session.execute(
            insert(m.Trial).from_select(
                ["assignment_id", "position", "kind", "target"],
                select(literal(row.id), m.Trial.position, m.Trial.kind, m.Trial.target).where(
                    m.Trial.assignment_id == left.id
                ),
            )
        )
        old, new = m.Trial.__table__.alias("old"), m.Trial.__table__.alias("new")
        session.execute(
            insert(m.TrialStimulus).from_select(
                ["trial_id", "position", "stimulus_id"],
                select(new.c.id, m.TrialStimulus.position, m.TrialStimulus.stimulus_id)
                .join(old, old.c.id == m.TrialStimulus.trial_id)
                .join(new, new.c.position == old.c.position)
                .where(old.c.assignment_id == left.id, new.c.assignment_id == row.id),
            )
        )
        return row

    def check(self, visit: int, attempt: int, passed: bool, tries: int, lease: timedelta) -> Visit | None:
        """Notes how a try (from 1) at the comprehension questions went; after ``tries`` failed ones the list is free
        again. A try that was noted already changes nothing."""
        with self._store._write() as session:
            row = session.get(m.Visit, visit)
            if row is None or row.batch_id != self._batch:
                return None
            if row.status == "instructions" and attempt == row.tries + 1:
                row.tries = attempt
                if passed:
                    row.status, row.lease_until = "trials", m.now() + lease
                elif attempt >= tries:
                    assignment = session.get_one(m.Assignment, row.assignment_id)
                    if assignment.status == "started":
                        assignment.participant_id, assignment.started, assignment.status = None, None, "open"
                    row.status, row.assignment_id = "screened_out", None
            session.flush()
            return _visit(row)

    def trials(self, assignment: int | None = None) -> list[Shown]:
        """The trials of a list, in order; of the batch's first where none is named."""
        first = (
            select(m.Assignment.id).where(m.Assignment.batch_id == self._batch)
            .order_by(m.Assignment.list_number).limit(1).scalar_subquery()
        )  # fmt: skip
        query = (
            select(
                m.Trial.id, m.Trial.position, m.Trial.kind, m.Trial.target, m.TrialStimulus.stimulus_id,
                m.Stimulus.set_key,
            )
            .outerjoin(m.TrialStimulus, m.TrialStimulus.trial_id == m.Trial.id)
            .outerjoin(m.Stimulus, m.Stimulus.id == m.TrialStimulus.stimulus_id)
            .where(m.Trial.assignment_id == (first if assignment is None else assignment))
            .order_by(m.Trial.position, m.TrialStimulus.position)
        )  # fmt: skip
        with self._store._read() as session:
            rows = session.execute(query).all()
        return [
            Shown(
                number, own[0].position, own[0].kind, None if own[0].target is None or own[0].target != own[0].target else own[0].target,
                tuple(row.stimulus_id for row in own if row.stimulus_id is not None), own[0].set_key,
            )
            for number, own in ((number, list(rows)) for number, rows in groupby(rows, lambda row: row.id))
        ]  # fmt: skip

    def practice(self, assignment: int | None, trials: int) -> list[Shown]:
        """So many trials of the list after a person's (after the first where none is named), of images that their own list
        does not show where there are enough, then of other pictures; what is right among images of their own list is not
        told (``target`` None)."""
        with self._store._read() as session:
            numbers = dict(
                session.execute(
                    select(m.Assignment.list_number, m.Assignment.id)
                    .where(m.Assignment.batch_id == self._batch, m.Assignment.list_number < allocation.AGAIN)
                ).all()
            )  # fmt: skip
            number = 0 if assignment is None else session.get_one(m.Assignment, assignment).list_number
        own, other = self.trials(assignment), numbers.get(allocation.list_of(number) + 1, numbers[0])
        sets, pictures = {trial.set_key for trial in own}, {one for trial in own for one in trial.stimuli}
        found = [trial for trial in self.trials(other) if trial.kind == "image"]
        found.sort(key=lambda trial: (trial.set_key in sets, not pictures.isdisjoint(trial.stimuli)))
        return [replace(trial, target=None) if trial.set_key in sets else trial for trial in found[:trials]]

    def pictures(self) -> dict[int, str]:
        """The pixels of every stimulus of the batch."""
        with self._store._read() as session:
            return dict(
                session.execute(
                    select(m.Stimulus.id, m.Stimulus.pixels_sha256).distinct()
                    .join(m.TrialStimulus).join(m.Trial).join(m.Assignment)
                    .where(m.Assignment.batch_id == self._batch)
                ).all()
            )  # fmt: skip

    def answered(self, assignment: int) -> set[int]:
        """The positions of a list that have been answered."""
        with self._store._read() as session:
            return set(
                session.scalars(
                    select(m.Trial.position).distinct().join(m.Rating, m.Rating.trial_id == m.Trial.id)
                    .where(m.Trial.assignment_id == assignment)
                )
            )  # fmt: skip

    def guesses(self, assignment: int, question: str) -> tuple[int, int]:
        """How many guesses of a list were right, and how many were made."""
        right = m.Rating.value == m.Trial.target
        query = (
            select(func.count().filter(right), func.count()).select_from(m.Rating)
            .join(m.Trial, m.Trial.id == m.Rating.trial_id).join(m.Question, m.Question.id == m.Rating.question_id)
            .where(m.Trial.assignment_id == assignment, m.Trial.kind == "image", m.Question.name == question)
        )  # fmt: skip
        with self._store._read() as session:
            found, made = session.execute(query).one()
        return found, made

    def take(self, answers: Sequence[Given], withdrawn: frozenset[str], lease: timedelta) -> list[Taken]:
        """Writes answers of any number of people in one transaction; returns what became of each, in order.

        A list is done, and its lease over, once every trial is answered that shows none of the ``withdrawn`` sets.
        """
        now = m.now()
        with self._store._write() as session:
            visits = {
                row.id: row
                for row in session.scalars(select(m.Visit).where(m.Visit.id.in_({one.visit for one in answers})))
            }
            owner: dict[int, int] = dict(
                session.execute(
                    select(m.Trial.id, m.Trial.assignment_id).where(m.Trial.id.in_({one.trial for one in answers}))
                ).all()
            )
            good = [
                one for one in answers
                if (visit := visits.get(one.visit)) is not None and visit.status in ("trials", "done")
                and owner.get(one.trial) == visit.assignment_id
            ]  # fmt: skip
            before = self._stored(session, good)
            rows = [
                {
                    "trial_id": one.trial, "question_id": self._questions[question], "at": now,
                    "value": None if isinstance(value, str) else value, "text": value if isinstance(value, str) else None,
                    "response_ms": one.response_ms, "submission_key": one.key, "answered_at": one.answered_at,
                    "moves": one.moves.get(question), "break_ms": one.break_ms, "away": one.away,
                    "pasted": one.pasted.get(question, 0) if isinstance(value, str) else None,
                }
                for one in good if one.trial not in before for question, value in one.values.items()
            ]  # fmt: skip
            if rows:
                dialect = session.get_bind().dialect.name
                fresh = (postgresql if dialect == "postgresql" else sqlite).insert(m.Rating)
                session.execute(fresh.on_conflict_do_nothing(), rows)
            after = self._stored(session, good)
            whole = self._whole(session, {owner[one.trial] for one in good}, withdrawn)
            for visit in {one.visit: visits[one.visit] for one in good}.values():
                visit.lease_until = now + lease
                if visit.assignment_id in whole and visit.status != "done":
                    visit.status = "done"
                    session.execute(
                        update(m.Assignment).where(m.Assignment.id == visit.assignment_id)
                        .values(status="done", finished=now)
                    )  # fmt: skip
            return [
                _taken(one, before.get(one.trial), after.get(one.trial), owner[one.trial] in whole)
                if one in good else Taken("refused", {}, 0.0, False)
                for one in answers
            ]  # fmt: skip

    def _stored(self, session: Session, answers: Sequence[Given]) -> dict[int, dict[str, m.Rating]]:
        names = {number: name for name, number in self._questions.items()}
        found: dict[int, dict[str, m.Rating]] = {}
        for row in session.scalars(select(m.Rating).where(m.Rating.trial_id.in_({one.trial for one in answers}))):
            found.setdefault(row.trial_id, {})[names[row.question_id]] = row
        return found

    def _whole(self, session: Session, assignments: set[int], withdrawn: frozenset[str]) -> set[int]:
        """Those of the lists that lack no answer."""
        lacking = (
            select(m.Trial.assignment_id).distinct()
            .outerjoin(m.Rating, m.Rating.trial_id == m.Trial.id)
            .where(m.Trial.assignment_id.in_(assignments), m.Rating.id.is_(None))
        )  # fmt: skip
        if withdrawn:
            paused = (
                select(m.TrialStimulus.trial_id).join(m.Stimulus).where(m.Stimulus.set_key.in_(withdrawn))
            )
            lacking = lacking.where(m.Trial.id.not_in(paused))
        return assignments - set(session.scalars(lacking))

    def forget(self, visit: int) -> None:
        """Deletes a person on their own request (``Store.forget``); nothing where there is no such visit."""
        with self._store._read() as session:
            pid_hash = session.scalar(
                select(m.Participant.pid_hash).join(m.Visit)
                .where(m.Visit.id == visit, m.Visit.batch_id == self._batch)
            )  # fmt: skip
        if pid_hash is not None:
            self._store.forget(self._study, pid_hash, "asked for by the participant")

    def languages(self) -> dict[str, int]:
        """How many people were asked in each language, of those who had a list."""
        query = (
            select(m.Visit.language, func.count()).where(m.Visit.batch_id == self._batch, m.Visit.assignment_id.is_not(None))
            .group_by(m.Visit.language).order_by(m.Visit.language)
        )  # fmt: skip
        with self._store._read() as session:
            return dict(session.execute(query).all())

    def filled(self) -> dict[int, int]:
        """How many people have finished each list of the batch, or hold it now; deserted ones do not count."""
        query = select(m.Assignment.list_number, m.Assignment.status, m.Visit.lease_until).outerjoin(
            m.Visit, m.Visit.assignment_id == m.Assignment.id
        )
        counts: dict[int, int] = {}
        now = m.now()
        with self._store._read() as session:
            for number, status, until in session.execute(query.where(m.Assignment.batch_id == self._batch)):
                counts.setdefault(allocation.list_of(number), 0)
                live = status == "started" and until is not None and until >= now
                counts[allocation.list_of(number)] += status == "done" or live
        return counts


def _visit(row: m.Visit) -> Visit:
    return Visit(row.id, row.status, row.tries, row.assignment_id, row.language)


def _taken(
    one: Given, before: Mapping[str, m.Rating] | None, after: Mapping[str, m.Rating] | None, whole: bool
) -> Taken:
    if after is None:  # the key was used for another trial
        return Taken("conflict", {}, 0.0, whole)
    stored = {name: given for name, row in after.items() if (given := row.value if row.text is None else row.text) is not None}
    response = next(iter(after.values())).response_ms
    same = all(row.submission_key == one.key for row in after.values()) and stored == dict(one.values)
    fate: Literal["stored", "repeated", "conflict"] = "conflict" if not same else "stored" if before is None else "repeated"
    return Taken(fate, stored, response or 0.0, whole)
