"""Directions, stimuli, their cards, and the gate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from sqlalchemy import and_, delete, func, select
from sqlalchemy.orm import Session

from contrafact.errors import UserError
from contrafact.store import models as m
from contrafact.store.records import CardRecord, DirectionRecord, GateRecord, StimulusRecord
from contrafact.store.repository.reviews import last_words
from contrafact.store.repository.rows import as_record, as_records, as_row, put_rows
from contrafact.store.repository.sessions import Sessions


class Stimuli(Sessions):
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
            return as_records(DirectionRecord, session.scalars(query))

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
            rows = [as_row(one, study_id=study_id, stage_run_id=stage_run_id) for one in stimuli]
            put_rows(
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
            return as_records(StimulusRecord, rows)

    def stimuli_table(self, study_id: int) -> pd.DataFrame:
        """One row a stimulus, in the order of ``stimuli``: ``stimulus`` (id), ``image``, ``unit_id``, ``direction``,
        ``arm``, ``draw``, ``dose``, ``strength``, ``set_key``, ``seed``, ``in_support``, ``pixels_sha256``, the newest
        card's measures (NaN where there is none), ``leakage`` and ``flags``, ``passed`` (None where not gated) and
        ``rejected`` (a reviewer's last word on these pixels is reject)."""
        newest = select(func.max(m.Card.id).label("id")).group_by(m.Card.stimulus_id).subquery()
        card = select(m.Card).where(m.Card.id.in_(select(newest.c.id))).subquery()
        last = last_words(study_id).subquery()
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
                rows = [as_row(card, stage_run_id=stage_run_id) for card in part]
                put_rows(session, m.Card, rows, lambda row, known=known: known.get((row["stimulus_id"], row["judge_sha256"])))

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
                as_record(
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
            rows = [as_row(decision, study_id=study_id, stage_run_id=stage_run_id) for decision in decisions]
            put_rows(session, m.GateDecision, rows, lambda row: known.get(row["set_key"]))

    def gate_decisions(self, study_id: int) -> list[GateRecord]:
        """The gate's decisions, by set."""
        with self._read() as session:
            query = (
                select(m.GateDecision).where(m.GateDecision.study_id == study_id).order_by(m.GateDecision.set_key)
            )
            return as_records(GateRecord, session.scalars(query))


def _in_order(stimulus: type[m.Stimulus]) -> tuple[Any, ...]:
    return stimulus.image_id, stimulus.direction_id, stimulus.arm, stimulus.draw, stimulus.dose


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
