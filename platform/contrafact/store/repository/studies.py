"""Studies, their runs, and what a stage wrote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, or_, select, update
from sqlalchemy.orm import Session

from contrafact.store import models as m
from contrafact.store.records import RunRecord, StageRunRecord, StudyRecord
from contrafact.store.repository.rows import as_records
from contrafact.store.repository.sessions import Sessions


class Studies(Sessions):
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
            return as_records(StudyRecord, session.scalars(select(m.Study).order_by(m.Study.slug)))

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
            return as_records(
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
            return as_records(StageRunRecord, session.scalars(query))

    def clear_stage_outputs(self, study_id: int, stage: str) -> None:
        """Takes back everything that runs of this stage wrote, as if it had never finished.

        Answers and verdicts of people are never deleted: the images and stimuli that they belong to are kept, and
        are no longer part of the study until the same stage writes them again. Batches that people have begun stay.
        """
        with self._write() as session:
            _clear(session, study_id, stage, m.StageRun.id.is_not(None))


def _interrupt(session: Session, model: type[m.Run | m.StageRun], own: ColumnElement[bool]) -> None:
    session.execute(
        update(model).where(own, model.status == "running").values(status="interrupted", finished=m.now())
    )


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
