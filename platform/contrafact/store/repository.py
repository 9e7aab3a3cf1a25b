"""The store: what may be written and asked. Records in, records and tables out; every write is one transaction."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar

import pandas as pd
from sqlalchemy import (
    ColumnElement,
    Engine,
    Select,
    and_,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session

from contrafact.errors import UserError
from contrafact.panels.records import PaymentRecord
from contrafact.stats.statement import Statement
from contrafact.store import commitments
from contrafact.store import models as m
from contrafact.store.database import reachable
from contrafact.store.records import (
    AuditRecord,
    BatchRecord,
    CardRecord,
    ChainRecord,
    DirectionRecord,
    GateRecord,
    ImageRecord,
    Kind,
    LockboxRecord,
    ModelRecord,
    ReviewRecord,
    RunRecord,
    StageRunRecord,
    StimulusRecord,
    StudyRecord,
    SubmissionRecord,
)
from contrafact.study.schema import NUMBERS, PLACES, Question

Record = TypeVar("Record")
Rows = Select[*tuple[Any, ...]]

ANSWERS = ["list", "position", "question", "value", "text", "response_ms", "pid_hash"]
TRIALS = ["batch", "assignment", "list", "position", "kind", "place", "stimulus", "target", "pixels_sha256"]


class Store:
    """One database; made by ``open_store``. Every method raises UserError where the database is locked or away."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writer = engine.execution_options(write=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _read(self) -> Iterator[Session]:
        with reachable(self._engine.url), Session(self._engine) as session:
            yield session

    @contextmanager
    def _write(self) -> Iterator[Session]:
        with reachable(self._engine.url), Session(self._writer) as session, session.begin():
            yield session

    # Studies, runs, stages

    def add_study(self, slug: str, title: str, yaml: str, sha256: str) -> int:
        """The study's id; title and text of a known slug are brought up to date."""
        with self._write() as session:
            row = session.scalar(select(m.Study).where(m.Study.slug == slug)) or m.Study(slug=slug)
            row.title, row.yaml, row.sha256 = title, yaml, sha256
            session.add(row)
            session.flush()
            return row.id

    def study(self, slug: str) -> StudyRecord | None:
        """The study of this slug; None where it never ran here."""
        return next((study for study in self.studies() if study.slug == slug), None)

    def studies(self) -> list[StudyRecord]:
        """All studies, by slug."""
        with self._read() as session:
            return _records(StudyRecord, session.scalars(select(m.Study).order_by(m.Study.slug)))

    def start_run(self, study_id: int, mlflow_run_id: str | None = None) -> int:
        """A new run's id. A run of the study that still counts as running was killed: it becomes ``interrupted``."""
        with self._write() as session:
            _interrupt(session, m.Run, m.Run.study_id == study_id)
            row = m.Run(study_id=study_id, mlflow_run_id=mlflow_run_id, status="running", started=m.now())
            session.add(row)
            session.flush()
            return row.id

    def finish_run(self, run_id: int, status: str) -> None:
        """Ends a run as ``done``, ``failed`` or ``paused``."""
        with self._write() as session:
            session.execute(
                update(m.Run).where(m.Run.id == run_id).values(status=status, finished=m.now())
            )

    def runs(self, study_id: int) -> list[RunRecord]:
        """All runs of a study, oldest first."""
        with self._read() as session:
            return _records(
                RunRecord, session.scalars(select(m.Run).where(m.Run.study_id == study_id).order_by(m.Run.id))
            )

    def start_stage(
        self, run_id: int, stage: str, hash: str, *, mlflow_run_id: str | None = None, code_version: str = ""
    ) -> int:
        """A new stage run's id.

        What runs of this stage with another hash wrote is cleared (``clear_stage_outputs``) and they count as
        ``replaced``; what a killed run of the same hash wrote stays.
        """
        with self._write() as session:
            study_id = session.scalars(select(m.Run.study_id).where(m.Run.id == run_id)).one()
            own = and_(m.StageRun.study_id == study_id, m.StageRun.stage == stage)
            _interrupt(session, m.StageRun, own)
            if session.scalar(select(m.StageRun.id).where(own, m.StageRun.hash != hash).limit(1)):
                _clear(session, study_id, stage, m.StageRun.hash != hash)
            row = m.StageRun(
                run_id=run_id, study_id=study_id, stage=stage, hash=hash, status="running", facts={},
                mlflow_run_id=mlflow_run_id, code_version=code_version, started=m.now(),
            )  # fmt: skip
            session.add(row)
            session.flush()
            return row.id

    def finish_stage(self, stage_run_id: int, status: str, facts: Mapping[str, Any]) -> None:
        """Ends a stage run as ``done``, ``failed`` or ``paused``, with its facts."""
        with self._write() as session:
            session.execute(
                update(m.StageRun)
                .where(m.StageRun.id == stage_run_id)
                .values(status=status, facts=dict(facts), finished=m.now())
            )

    def find_finished_stage(self, study_id: int, stage: str, hash: str) -> dict[str, Any] | None:
        """The facts of the stage if it is done with this hash and nothing has replaced it since; else None."""
        with self._read() as session:
            return session.scalar(
                select(m.StageRun.facts)
                .where(
                    m.StageRun.study_id == study_id,
                    m.StageRun.stage == stage,
                    m.StageRun.hash == hash,
                    m.StageRun.status == "done",
                )
                .order_by(m.StageRun.id.desc())
                .limit(1)
            )

    def stage_runs(self, study_id: int) -> list[StageRunRecord]:
        """All stage runs of a study, oldest first."""
        with self._read() as session:
            query = select(m.StageRun).where(m.StageRun.study_id == study_id).order_by(m.StageRun.id)
            return _records(StageRunRecord, session.scalars(query))

    def clear_stage_outputs(self, study_id: int, stage: str) -> None:
        """Takes back everything that runs of this stage wrote, as if it had never finished.

        Answers and verdicts of people are never deleted: the images and stimuli that they belong to are kept, and
        are no longer part of the study until the same stage writes them again. Batches that people have begun stay.
        """
        with self._write() as session:
            _clear(session, study_id, stage, m.StageRun.id.is_not(None))

    # Images and models

    def put_images(self, study_id: int, stage_run_id: int, images: Iterable[ImageRecord]) -> None:
        """Writes images with their covariates by key; a known key is brought up to date."""
        with self._write() as session:
            known = dict(
                session.execute(select(m.Image.key, m.Image.id).where(m.Image.study_id == study_id)).all()
            )
            covariates = {}
            rows = []
            for image in images:
                row = _row(image, study_id=study_id, stage_run_id=stage_run_id)
                covariates[image.key] = row.pop("covariates")
                rows.append(row)
            _bulk(session, m.Image, rows, lambda row: known.get(row["key"]))
            if old := [known[key] for key in covariates if key in known]:
                session.connection().execute(
                    delete(m.CovariateValue).where(m.CovariateValue.image_id == bindparam("image")),
                    [{"image": image_id} for image_id in old],
                )
            ids = dict(
                session.execute(select(m.Image.key, m.Image.id).where(m.Image.study_id == study_id)).all()
            )
            values = [
                {"image_id": ids[key], "name": name, "value": value}
                for key, own in covariates.items()
                for name, value in own.items()
            ]
            if values:
                session.execute(insert(m.CovariateValue), values)

    def images(self, study_id: int, split: str | None = None) -> list[ImageRecord]:
        """The images of a study or of one split, in the order they were written.

        Those of the lockbox are left out, and asking for them raises UserError, until it was opened.
        """
        with self._read() as session:
            wanted = [m.Image.study_id == study_id, m.Image.stage_run_id.is_not(None)]
            if split is not None:
                wanted.append(m.Image.split == split)
            opened = session.scalar(select(m.LockboxOpening).where(m.LockboxOpening.study_id == study_id))
            if opened is None:
                if split == "lockbox":
                    raise UserError(
                        "The lockbox of this study is closed.", hint="It is opened once, with a reason that is logged."
                    )
                wanted.append(m.Image.split != "lockbox")
            covariates: dict[int, dict[str, float | None]] = {}
            for image_id, name, value in session.execute(
                select(m.CovariateValue.image_id, m.CovariateValue.name, m.CovariateValue.value)
                .join(m.Image, m.Image.id == m.CovariateValue.image_id)
                .where(*wanted)
                .order_by(m.CovariateValue.id)
            ):
                covariates.setdefault(image_id, {})[name] = value
            rows = session.scalars(select(m.Image).where(*wanted).order_by(m.Image.id))
            return [_record(ImageRecord, row, covariates=covariates.get(row.id, {})) for row in rows]

    def open_lockbox(self, study_id: int, reason: str) -> LockboxRecord:
        """Opens the lockbox, once, and writes time and reason into the chain. Raises UserError the second time."""
        with self._write() as session:
            opened = session.scalar(select(m.LockboxOpening).where(m.LockboxOpening.study_id == study_id))
            if opened is not None:
                raise UserError(
                    f"The lockbox of this study was opened on {opened.at:%Y-%m-%d %H:%M} UTC ({opened.reason}).",
                    hint="It is opened once.",
                )
            row = m.LockboxOpening(study_id=study_id, reason=reason, at=m.now())
            session.add(row)
            _append(session, study_id, "opening", {"reason": reason})
            session.flush()
            return _record(LockboxRecord, row)

    def put_models(self, study_id: int, stage_run_id: int, models: Iterable[ModelRecord]) -> None:
        """Writes models by role and name; a known one is brought up to date."""
        with self._write() as session:
            known = {
                (role, name): model_id
                for model_id, role, name in session.execute(
                    select(m.Model.id, m.Model.role, m.Model.name).where(m.Model.study_id == study_id)
                )
            }
            rows = [_row(model, study_id=study_id, stage_run_id=stage_run_id) for model in models]
            _bulk(session, m.Model, rows, lambda row: known.get((row["role"], row["name"])))

    def models(self, study_id: int) -> list[ModelRecord]:
        """All models of a study, by role and name."""
        with self._read() as session:
            query = select(m.Model).where(m.Model.study_id == study_id).order_by(m.Model.role, m.Model.name)
            return _records(ModelRecord, session.scalars(query))

    # Directions, stimuli, cards, the gate

    def put_direction(
        self, study_id: int, *, name: str, kind: str, target: str, hold: Sequence[str], spec: Mapping[str, Any]
    ) -> int:
        """The direction's id; a known name is brought up to date."""
        with self._write() as session:
            row = session.scalar(
                select(m.Direction).where(m.Direction.study_id == study_id, m.Direction.name == name)
            ) or m.Direction(study_id=study_id, name=name)
            row.kind, row.target, row.hold, row.spec = kind, target, list(hold), dict(spec)
            session.add(row)
            session.flush()
            return row.id

    def directions(self, study_id: int) -> list[DirectionRecord]:
        """The directions of a study, in the order they were written."""
        with self._read() as session:
            query = select(m.Direction).where(m.Direction.study_id == study_id).order_by(m.Direction.id)
            return _records(DirectionRecord, session.scalars(query))

    def put_stimuli(self, study_id: int, stage_run_id: int, stimuli: Sequence[StimulusRecord]) -> None:
        """Writes stimuli by (image, direction, arm, draw, dose); known ones are brought up to date.

        A stimulus whose pixels change loses its cards. Raises UserError, and writes none, where people have rated
        one whose pixels would change.
        """
        with self._write() as session:
            known = {
                (row.image_id, row.direction_id, row.arm, row.draw, row.dose): row
                for row in session.scalars(
                    select(m.Stimulus).where(
                        m.Stimulus.study_id == study_id, m.Stimulus.image_id.in_({one.image_id for one in stimuli})
                    )
                )
            }
            ids: dict[tuple[Any, ...], int] = {key: row.id for key, row in known.items()}
            repainted = [
                row.id
                for one in stimuli
                if (row := known.get((one.image_id, one.direction_id, one.arm, one.draw, one.dose)))
                and row.pixels_sha256 != one.pixels_sha256
            ]
            if repainted:
                _refuse_rated(session, repainted)
                session.execute(delete(m.Card).where(m.Card.stimulus_id.in_(repainted)))
            session.expunge_all()
            rows = [_row(one, study_id=study_id, stage_run_id=stage_run_id) for one in stimuli]
            _bulk(
                session, m.Stimulus, rows,
                lambda row: ids.get(tuple(row[c] for c in ("image_id", "direction_id", "arm", "draw", "dose"))),
            )  # fmt: skip

    def stimuli(
        self, study_id: int, *, direction_id: int | None = None, image_ids: Sequence[int] | None = None
    ) -> list[StimulusRecord]:
        """The stimuli of a study, or those of one direction or of some images, by image, direction, arm, draw, dose."""
        wanted = [m.Stimulus.study_id == study_id, m.Stimulus.stage_run_id.is_not(None)]
        if direction_id is not None:
            wanted.append(m.Stimulus.direction_id == direction_id)
        if image_ids is not None:
            wanted.append(m.Stimulus.image_id.in_(image_ids))
        with self._read() as session:
            rows = session.scalars(select(m.Stimulus).where(*wanted).order_by(*_in_order(m.Stimulus)))
            return _records(StimulusRecord, rows)

    def stimuli_table(self, study_id: int) -> pd.DataFrame:
        """One row a stimulus, in the order of ``stimuli``: ``stimulus`` (id), ``image``, ``unit_id``, ``direction``,
        ``arm``, ``draw``, ``dose``, ``strength``, ``set_key``, ``seed``, ``in_support``, ``pixels_sha256``, the newest
        card's measures (NaN where there is none), ``leakage`` and ``flags``, ``passed`` (None where not gated) and
        ``rejected`` (a reviewer's last word on these pixels is reject)."""
        newest = select(func.max(m.Card.id).label("id")).group_by(m.Card.stimulus_id).subquery()
        card = select(m.Card).where(m.Card.id.in_(select(newest.c.id))).subquery()
        last = _last_words(study_id).subquery()
        query = (
            select(
                m.Stimulus.id.label("stimulus"), m.Image.key.label("image"), m.Image.unit_id,
                m.Direction.name.label("direction"), m.Stimulus.arm, m.Stimulus.draw, m.Stimulus.dose,
                m.Stimulus.strength, m.Stimulus.set_key, m.Stimulus.seed, m.Stimulus.in_support,
                m.Stimulus.pixels_sha256, card.c.judge_sha256, card.c.judge_dose, card.c.delivered_dose, card.c.l1, card.c.ssim,
                card.c.realism, card.c.artefact, card.c.leakage, card.c.flags, m.GateDecision.passed,
                m.Stimulus.id.in_(select(last.c.stimulus_id).where(last.c.verdict == "reject")).label("rejected"),
            )
            .join(m.Image, m.Image.id == m.Stimulus.image_id)
            .join(m.Direction, m.Direction.id == m.Stimulus.direction_id)
            .outerjoin(card, card.c.stimulus_id == m.Stimulus.id)
            .outerjoin(
                m.GateDecision,
                and_(m.GateDecision.study_id == m.Stimulus.study_id, m.GateDecision.set_key == m.Stimulus.set_key),
            )
            .where(m.Stimulus.study_id == study_id, m.Stimulus.stage_run_id.is_not(None))
            .order_by(*_in_order(m.Stimulus))
        )  # fmt: skip
        floats = ("dose", "strength", "judge_dose", "delivered_dose", "l1", "ssim", "realism", "artefact")
        return self._table(query, floats, ("in_support", "rejected"))

    def put_cards(self, study_id: int, stage_run_id: int, cards: Iterable[CardRecord]) -> None:
        """Writes cards of a study's stimuli by stimulus and judge; a known one is brought up to date."""
        cards = list(cards)
        with self._write() as session:
            for part in (cards[k : k + 500] for k in range(0, len(cards), 500)):
                known = {
                    (stimulus_id, judge): card_id
                    for card_id, stimulus_id, judge in session.execute(
                        select(m.Card.id, m.Card.stimulus_id, m.Card.judge_sha256)
                        .join(m.Stimulus, m.Stimulus.id == m.Card.stimulus_id)
                        .where(
                            m.Stimulus.study_id == study_id, m.Card.stimulus_id.in_([card.stimulus_id for card in part])
                        )
                    )
                }
                rows = [_row(card, stage_run_id=stage_run_id) for card in part]
                _bulk(session, m.Card, rows, lambda row, known=known: known.get((row["stimulus_id"], row["judge_sha256"])))

    def cards(self, study_id: int) -> list[CardRecord]:
        """The cards of a study's stimuli."""
        with self._read() as session:
            rows = session.scalars(
                select(m.Card)
                .join(m.Stimulus, m.Stimulus.id == m.Card.stimulus_id)
                .where(m.Stimulus.study_id == study_id, m.Stimulus.stage_run_id.is_not(None))
                .order_by(m.Card.stimulus_id, m.Card.judge_sha256)
            )
            return [
                _record(
                    CardRecord, row, leakage={k: math.nan if v is None else v for k, v in row.leakage.items()}
                )
                for row in rows
            ]

    def put_gate_decisions(self, study_id: int, stage_run_id: int, decisions: Iterable[GateRecord]) -> None:
        """Writes the gate's decisions by set; a known one is brought up to date."""
        with self._write() as session:
            known = dict(
                session.execute(
                    select(m.GateDecision.set_key, m.GateDecision.id).where(m.GateDecision.study_id == study_id)
                ).all()
            )
            rows = [_row(decision, study_id=study_id, stage_run_id=stage_run_id) for decision in decisions]
            _bulk(session, m.GateDecision, rows, lambda row: known.get(row["set_key"]))

    def gate_decisions(self, study_id: int) -> list[GateRecord]:
        """The gate's decisions, by set."""
        with self._read() as session:
            query = (
                select(m.GateDecision).where(m.GateDecision.study_id == study_id).order_by(m.GateDecision.set_key)
            )
            return _records(GateRecord, session.scalars(query))

    # Review

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
            return _records(ReviewRecord, rows)

    def reviews(self, study_id: int) -> list[ReviewRecord]:
        """Each reviewer's last word on each stimulus of the study, as far as it still has the pixels they saw."""
        with self._read() as session:
            return _records(ReviewRecord, session.scalars(_last_words(study_id).order_by(m.Review.id)))

    def review_history(self, study_id: int) -> list[ReviewRecord]:
        """Every verdict ever given in the study, oldest first."""
        with self._read() as session:
            rows = session.scalars(
                select(m.Review)
                .join(m.Stimulus, m.Stimulus.id == m.Review.stimulus_id)
                .where(m.Stimulus.study_id == study_id)
                .order_by(m.Review.id)
            )
            return _records(ReviewRecord, rows)

    # The chain

    def append_registration(self, study_id: int, kind: Kind, payload: Mapping[str, Any]) -> ChainRecord:
        """Appends a link to the study's chain and returns it.

        The same payload as in the last link of this kind is not appended again, so that a resumed stage says
        nothing twice: that link is returned.
        """
        with self._write() as session:
            return _append(session, study_id, kind, payload)

    def chain(self, study_id: int) -> list[ChainRecord]:
        """The links of a study's chain, in order."""
        with self._read() as session:
            query = (
                select(m.Registration).where(m.Registration.study_id == study_id).order_by(m.Registration.sequence)
            )
            return _records(ChainRecord, session.scalars(query))

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
            return None if payload is None else _append(session, study_id, "field", payload)

    def changed_rows(self, study_id: int) -> list[str]:
        """A sentence for each answer or exclusion that is not what the chain is committed to."""
        with self._read() as session:
            return commitments.broken(session, study_id)

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
            return _append(session, study_id, "deletion", {"why": why, "digests": digests})

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

    # The survey

    def salt(self, study_id: int) -> bytes:
        """The study's secret for hashing ids, made at the first call."""
        with self._write() as session:
            row = session.scalar(select(m.StudySalt).where(m.StudySalt.study_id == study_id))
            if row is None:
                row = m.StudySalt(study_id=study_id, salt=secrets.token_hex(32))
                session.add(row)
            return bytes.fromhex(row.salt)

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
            rows = [] if batch is None else session.execute(_of_lists(_trials(batch.id), lists)).all()
            table = pd.DataFrame(rows, columns=TRIALS[1:]).astype({"target": float})
        # Without this pandas makes decimal numbers of the ids beside missing ones.
        table["stimulus"] = pd.Series([row.stimulus for row in rows], index=table.index, dtype=object)
        table.insert(0, "batch", "" if batch is None else batch.name)
        return table

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
        return self._table(_of_lists(query, lists), ("value", "response_ms"), ())

    def put_answers(
        self, study_id: int, name: str, answers: Iterable[pd.DataFrame], *, simulated: bool, correct: bool = False
    ) -> int:
        """Writes pieces of answers, with the columns of ``answers`` (``text`` may be missing), and their participants;
        a list is in one piece. Returns how many are new.

        The same value twice is fine; another value takes the place of the first if ``correct``, and the audit says
        so. Raises UserError, and writes nothing, where another value is there already and is not to be corrected, where a list belongs to somebody else, where nothing of the kind was asked, or where simulated answers
        would be mixed with those of people.
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

    # Panels

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
            return [_record(SubmissionRecord, row, submission=row.submission_hash) for row in session.scalars(query)]

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
            return [_record(PaymentRecord, row, submission=row.submission_hash) for row in session.scalars(query)]

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

    # Results and what people did

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
                _record(Statement, row, id=row.hypothesis, caveats=tuple(row.caveats))
                for row in session.scalars(query)
            ]

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
            return _records(AuditRecord, session.scalars(query))

    def _table(self, query: Rows, floats: Sequence[str], booleans: Sequence[str]) -> pd.DataFrame:
        with self._read() as session:
            found = session.execute(query)
            table = pd.DataFrame(found.all(), columns=list(found.keys()))
        return table.astype({**dict.fromkeys(floats, float), **dict.fromkeys(booleans, bool)})


def _record(cls: type[Record], row: object, **given: Any) -> Record:
    names = [field.name for field in dataclasses.fields(cls) if field.name not in given]  # type: ignore[arg-type]
    return cls(**{name: getattr(row, name) for name in names}, **given)


def _records(cls: type[Record], rows: Iterable[object]) -> list[Record]:
    return [_record(cls, row) for row in rows]


def _row(record: Any, **more: Any) -> dict[str, Any]:
    row = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    del row["id"]
    return {**row, **more}


def _bulk(session: Session, model: type[m.Base], rows: list[dict[str, Any]], known: Any) -> None:
    """Inserts rows, or updates them where ``known(row)`` gives an id."""
    new, old = [], []
    for row in rows:
        found = known(row)
        if found is None:
            new.append(row)
        else:
            old.append({"id": found, **row})
    if new:
        session.execute(insert(model), new)
    if old:
        session.execute(update(model), old)


def _interrupt(session: Session, model: type[m.Run | m.StageRun], own: ColumnElement[bool]) -> None:
    session.execute(
        update(model).where(own, model.status == "running").values(status="interrupted", finished=m.now())
    )


def _in_order(stimulus: type[m.Stimulus]) -> tuple[Any, ...]:
    return stimulus.image_id, stimulus.direction_id, stimulus.arm, stimulus.draw, stimulus.dose


def _clear(session: Session, study_id: int, stage: str, which: ColumnElement[bool]) -> None:
    own = and_(m.StageRun.study_id == study_id, m.StageRun.stage == stage, which)
    runs = select(m.StageRun.id).where(own)
    for written in (m.Model, m.Card, m.GateDecision, m.Statement):
        session.execute(delete(written).where(written.stage_run_id.in_(runs)))
    images = and_(m.Image.study_id == study_id, or_(m.Image.stage_run_id.in_(runs), m.Image.stage_run_id.is_(None)))
    stimuli = and_(
        m.Stimulus.study_id == study_id,
        or_(
            m.Stimulus.stage_run_id.in_(runs),
            m.Stimulus.stage_run_id.is_(None),
            m.Stimulus.image_id.in_(select(m.Image.id).where(images)),
        ),
    )
    session.execute(delete(m.Card).where(m.Card.stimulus_id.in_(select(m.Stimulus.id).where(stimuli))))
    touched = select(m.Review.stimulus_id).union(select(m.TrialStimulus.stimulus_id))
    session.execute(delete(m.Stimulus).where(stimuli, m.Stimulus.id.not_in(touched)))
    session.execute(update(m.Stimulus).where(stimuli).values(stage_run_id=None))
    session.execute(delete(m.Image).where(images, m.Image.id.not_in(select(m.Stimulus.image_id))))
    session.execute(update(m.Image).where(images).values(stage_run_id=None))
    if stage in ("ingest", "generate"):  # finished stimuli come in with ingest
        unused = m.Direction.id.not_in(select(m.Stimulus.direction_id))
        session.execute(delete(m.Direction).where(m.Direction.study_id == study_id, unused))
    if stage == "field":
        people = select(m.Assignment.batch_id).join(m.Participant).where(~m.Participant.simulated)
        session.execute(delete(m.Batch).where(m.Batch.study_id == study_id, m.Batch.id.not_in(people)))
        begun = select(m.Assignment.participant_id).where(m.Assignment.participant_id.is_not(None))
        session.execute(
            delete(m.Participant).where(
                m.Participant.study_id == study_id, m.Participant.simulated, m.Participant.id.not_in(begun)
            )
        )
    session.execute(update(m.StageRun).where(own, m.StageRun.status == "done").values(status="replaced"))


def _refuse_rated(session: Session, stimuli: Sequence[int]) -> None:
    rated = session.execute(
        select(m.Image.key, m.Stimulus.arm, m.Stimulus.dose)
        .select_from(m.Rating)
        .join(m.Trial, m.Trial.id == m.Rating.trial_id)
        .join(m.TrialStimulus, m.TrialStimulus.trial_id == m.Trial.id)
        .join(m.Assignment, m.Assignment.id == m.Trial.assignment_id)
        .join(m.Participant, m.Participant.id == m.Assignment.participant_id)
        .join(m.Stimulus, m.Stimulus.id == m.TrialStimulus.stimulus_id)
        .join(m.Image, m.Image.id == m.Stimulus.image_id)
        .where(m.Stimulus.id.in_(stimuli), ~m.Participant.simulated)
        .limit(1)
    ).first()
    if rated is not None:
        raise UserError(
            f"People have rated the stimulus of image {rated.key}, {rated.arm}, dose {rated.dose:g}, and its pixels "
            "would change.",
            hint="Undo the change, or give the changed study a new name (`study:`).",
        )


def _last_words(study_id: int) -> Select[m.Review]:
    newest = (
        select(func.max(m.Review.id))
        .join(m.Stimulus, m.Stimulus.id == m.Review.stimulus_id)
        .where(m.Stimulus.study_id == study_id, m.Stimulus.pixels_sha256 == m.Review.pixels_sha256)
        .group_by(m.Review.stimulus_id, m.Review.reviewer)
    )
    return select(m.Review).where(m.Review.id.in_(newest))


def _link_hash(sequence: int, kind: str, payload: Mapping[str, Any], previous: str, at: str) -> str:
    content = {"sequence": sequence, "kind": kind, "payload": payload, "previous": previous, "at": at}
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _append(session: Session, study_id: int, kind: Kind, payload: Mapping[str, Any]) -> ChainRecord:
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
                return _record(ChainRecord, link)
            break
    sequence, previous = (links[0].sequence + 1, links[0].hash) if links else (1, "")
    at = m.now()
    row = m.Registration(
        study_id=study_id, sequence=sequence, kind=kind, payload=plain, previous_hash=previous, at=at,
        hash=_link_hash(sequence, kind, plain, previous, at.isoformat()),
    )  # fmt: skip
    session.add(row)
    session.flush()
    return _record(ChainRecord, row)


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


def expire(session: Session, study_id: int, now: datetime) -> None:
    """Deletes the panel's ids of a study whose day is over, and leaves their number in the audit."""
    people = select(m.Participant.id).where(m.Participant.study_id == study_id)
    over = (m.PanelId.delete_after < now, m.PanelId.participant_id.in_(people))
    gone = session.scalars(select(m.PanelId.id).where(*over)).all()
    if gone:
        session.execute(delete(m.PanelId).where(*over))
        detail = {"panel_ids": len(gone)}
        session.add(m.Audit(study_id=study_id, actor="retention", action="expiry", detail=detail, at=now))


def _batch(study_id: int, name: str | None) -> Select[m.Batch]:
    query = select(m.Batch).where(m.Batch.study_id == study_id).order_by(m.Batch.id.desc()).limit(1)
    return query if name is None else query.where(m.Batch.name == name)


def _of_lists(query: Rows, lists: tuple[int, int] | None) -> Rows:
    return query if lists is None else query.where(m.Assignment.list_number.between(*lists))


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
