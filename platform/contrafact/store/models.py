"""The tables, as typed classes that never leave this room.

Every rating can be followed to its stimulus, and from there to image, direction, dose, seed, models and run, in one
query on the view ``rating_provenance`` (one row for each rating and picture; of several pictures in a trial ``chosen``
says which one the rating names):

    SELECT participant, question, value, image, unit_id, direction, arm, draw, dose, seed, set_key,
           pixels_sha256, denoiser_sha256, guide_sha256, stage_run_id, mlflow_run_id, batch, list_number, position
      FROM rating_provenance
     WHERE study = 'grooming' AND NOT excluded AND NOT simulated;

Undefined numbers are NULL here and NaN outside; times are UTC. ``image`` and ``stimulus`` rows whose ``stage_run_id``
is NULL are no longer part of the study: they are kept because people have judged or been assigned them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


def without_nan(value: Any) -> Any:
    """Plain JSON in which a number that is not defined is null."""
    if isinstance(value, Mapping):
        return {str(key): without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


class Number(TypeDecorator[float]):
    """A float that may be undefined: NaN in memory, NULL in SQL."""

    impl = Float(53)
    cache_ok = True

    def process_bind_param(self, value: float | None, dialect: Dialect) -> float | None:
        return float(value) if value is not None and math.isfinite(value) else None

    def process_result_value(self, value: float | None, dialect: Dialect) -> float:
        return math.nan if value is None else value


class Time(TypeDecorator[datetime]):
    """An aware time in UTC; SQLite keeps no zone, so it is put back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Plain(TypeDecorator[Any]):
    """JSON without NaN, which JSON does not have and PostgreSQL refuses."""

    impl = JSON
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return without_nan(value)


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar = {
        float: Number(),
        datetime: Time(),
        dict[str, Any]: Plain(),
        list[str]: Plain(),
        bool: Boolean(),
        str: Text(),
    }

    id: Mapped[int] = mapped_column(Integer, primary_key=True)


def to(table: str, *, cascade: bool = False, nullable: bool = False, index: bool = True) -> Any:
    """A foreign key; ``cascade`` where the row means nothing without the other, no index where a unique constraint
    begins with the column."""
    key = ForeignKey(f"{table}.id", ondelete="CASCADE" if cascade else None)
    return mapped_column(key, index=index, nullable=nullable)


Hash = String(64)


class Study(Base):
    __tablename__ = "study"
    slug: Mapped[str] = mapped_column(String(48), unique=True)
    title: Mapped[str]
    yaml: Mapped[str]
    sha256: Mapped[str] = mapped_column(Hash)


class StudySalt(Base):
    """The secret under which ids of participants are hashed; without it no hash can be traced."""

    __tablename__ = "study_salt"
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"), unique=True)
    salt: Mapped[str] = mapped_column(Hash)


class Run(Base):
    __tablename__ = "run"
    study_id: Mapped[int] = to("study")
    mlflow_run_id: Mapped[str | None]
    status: Mapped[str] = mapped_column(String(16))
    started: Mapped[datetime]
    finished: Mapped[datetime | None]


class StageRun(Base):
    __tablename__ = "stage_run"
    run_id: Mapped[int] = to("run")
    study_id: Mapped[int] = to("study")
    stage: Mapped[str] = mapped_column(String(32))
    hash: Mapped[str] = mapped_column(Hash)
    status: Mapped[str] = mapped_column(String(16))
    facts: Mapped[dict[str, Any]]
    mlflow_run_id: Mapped[str | None]
    code_version: Mapped[str]
    started: Mapped[datetime]
    finished: Mapped[datetime | None]


class Image(Base):
    __tablename__ = "image"
    __table_args__ = (UniqueConstraint("study_id", "key"),)
    study_id: Mapped[int] = to("study", index=False)
    stage_run_id: Mapped[int | None] = to("stage_run", nullable=True)
    key: Mapped[str]
    unit_id: Mapped[str]
    outcome: Mapped[float | None]
    split: Mapped[str] = mapped_column(String(16))
    pixels_sha256: Mapped[str] = mapped_column(Hash)
    delivered_sha256: Mapped[str | None] = mapped_column(Hash)
    source_sha256: Mapped[str | None] = mapped_column(Hash)
    width: Mapped[int]
    height: Mapped[int]


class CovariateValue(Base):
    __tablename__ = "covariate_value"
    __table_args__ = (UniqueConstraint("image_id", "name"),)
    image_id: Mapped[int] = to("image", cascade=True, index=False)
    name: Mapped[str] = mapped_column(String(48))
    value: Mapped[float | None]


class Model(Base):
    __tablename__ = "model"
    __table_args__ = (UniqueConstraint("study_id", "role", "name"),)
    study_id: Mapped[int] = to("study", index=False)
    stage_run_id: Mapped[int] = to("stage_run")
    role: Mapped[str] = mapped_column(String(16))
    name: Mapped[str]
    files_sha256: Mapped[str] = mapped_column(Hash)
    quality: Mapped[dict[str, Any]]


class Direction(Base):
    __tablename__ = "direction"
    __table_args__ = (UniqueConstraint("study_id", "name"),)
    study_id: Mapped[int] = to("study", index=False)
    name: Mapped[str] = mapped_column(String(48))
    kind: Mapped[str] = mapped_column(String(16))
    target: Mapped[str] = mapped_column(String(48))
    hold: Mapped[list[str]]
    spec: Mapped[dict[str, Any]]


class Stimulus(Base):
    __tablename__ = "stimulus"
    __table_args__ = (UniqueConstraint("study_id", "image_id", "direction_id", "arm", "draw", "dose"),)
    study_id: Mapped[int] = to("study", index=False)
    stage_run_id: Mapped[int | None] = to("stage_run", nullable=True)
    image_id: Mapped[int] = to("image", cascade=True)
    direction_id: Mapped[int] = to("direction", cascade=True)
    arm: Mapped[str] = mapped_column(String(16))
    draw: Mapped[int] = mapped_column(BigInteger)
    dose: Mapped[float]
    strength: Mapped[float | None]
    seed: Mapped[int | None] = mapped_column(BigInteger)
    set_key: Mapped[str] = mapped_column(Text, index=True)
    in_support: Mapped[bool]
    pixels_sha256: Mapped[str] = mapped_column(Hash)
    edited_sha256: Mapped[str | None] = mapped_column(Hash)
    denoiser_sha256: Mapped[str | None] = mapped_column(Hash)
    guide_sha256: Mapped[str | None] = mapped_column(Hash)


class Card(Base):
    __tablename__ = "card"
    __table_args__ = (UniqueConstraint("stimulus_id", "judge_sha256"),)
    stimulus_id: Mapped[int] = to("stimulus", cascade=True, index=False)
    stage_run_id: Mapped[int] = to("stage_run")
    judge_sha256: Mapped[str] = mapped_column(Hash)
    judge_dose: Mapped[float | None]
    delivered_dose: Mapped[float | None]
    leakage: Mapped[dict[str, Any]]
    l1: Mapped[float | None]
    ssim: Mapped[float | None]
    realism: Mapped[float | None]
    artefact: Mapped[float | None]
    flags: Mapped[list[str]]


class GateDecision(Base):
    __tablename__ = "gate_decision"
    __table_args__ = (UniqueConstraint("study_id", "set_key"),)
    study_id: Mapped[int] = to("study", index=False)
    stage_run_id: Mapped[int] = to("stage_run")
    set_key: Mapped[str]
    passed: Mapped[bool]
    reasons: Mapped[list[str]]


class Review(Base):
    """Append-only: a trigger refuses every update and deletion. Valid for the pixels that were shown."""

    __tablename__ = "review"
    stimulus_id: Mapped[int] = to("stimulus")
    pixels_sha256: Mapped[str] = mapped_column(Hash)
    verdict: Mapped[str] = mapped_column(String(8))
    reason: Mapped[str]
    reviewer: Mapped[str]
    at: Mapped[datetime]


class Registration(Base):
    """A link of the chain. Append-only: a trigger refuses every update and deletion."""

    __tablename__ = "registration"
    __table_args__ = (UniqueConstraint("study_id", "sequence"),)
    study_id: Mapped[int] = to("study", index=False)
    sequence: Mapped[int]
    kind: Mapped[str] = mapped_column(String(16))
    payload: Mapped[dict[str, Any]]
    previous_hash: Mapped[str] = mapped_column(Hash)
    hash: Mapped[str] = mapped_column(Hash)
    at: Mapped[datetime]


class Commitment(Base):
    """sha256(salt, row) of an answer or an exclusion, added by link ``sequence``; without its salt it says nothing."""

    __tablename__ = "commitment"
    study_id: Mapped[int] = to("study")
    sequence: Mapped[int]
    batch: Mapped[str]
    list_number: Mapped[int]
    position: Mapped[int]
    item: Mapped[str]
    salt: Mapped[str | None] = mapped_column(Hash)
    digest: Mapped[str] = mapped_column(Hash)


class Question(Base):
    __tablename__ = "question"
    __table_args__ = (UniqueConstraint("study_id", "name"),)
    study_id: Mapped[int] = to("study", index=False)
    name: Mapped[str] = mapped_column(String(48))
    text: Mapped[str]
    scale: Mapped[str] = mapped_column(String(16))
    low: Mapped[str]
    high: Mapped[str]


class Batch(Base):
    __tablename__ = "batch"
    __table_args__ = (UniqueConstraint("study_id", "name"),)
    study_id: Mapped[int] = to("study", index=False)
    registration_id: Mapped[int | None] = to("registration", nullable=True)
    name: Mapped[str]
    simulated: Mapped[bool]


class Participant(Base):
    """Who answered, as a keyed hash; ``PanelId`` alone may know more, for a while."""

    __tablename__ = "participant"
    __table_args__ = (UniqueConstraint("study_id", "pid_hash"),)
    study_id: Mapped[int] = to("study", index=False)
    pid_hash: Mapped[str] = mapped_column(Hash)
    simulated: Mapped[bool]


class Assignment(Base):
    """One list of one batch; ``status`` is open, started, done, or left, once somebody else was given the list anew."""

    __tablename__ = "assignment"
    __table_args__ = (UniqueConstraint("batch_id", "list_number"), UniqueConstraint("batch_id", "code"))
    batch_id: Mapped[int] = to("batch", cascade=True, index=False)
    participant_id: Mapped[int | None] = to("participant", nullable=True)
    list_number: Mapped[int]
    code: Mapped[str]
    status: Mapped[str] = mapped_column(String(8))
    started: Mapped[datetime | None]
    finished: Mapped[datetime | None]


class Trial(Base):
    """``target`` is the answer that an attention trial asks for, or the place of the right picture in a guess."""

    __tablename__ = "trial"
    __table_args__ = (UniqueConstraint("assignment_id", "position"),)
    assignment_id: Mapped[int] = to("assignment", cascade=True, index=False)
    position: Mapped[int]
    kind: Mapped[str] = mapped_column(String(16))
    target: Mapped[float | None]


class TrialStimulus(Base):
    __tablename__ = "trial_stimulus"
    __table_args__ = (UniqueConstraint("trial_id", "position"),)
    trial_id: Mapped[int] = to("trial", cascade=True, index=False)
    position: Mapped[int]
    stimulus_id: Mapped[int] = to("stimulus")


class Rating(Base):
    """``value`` is a number on the scale, or the place, from 1, of the picture that was chosen; free text is in ``text``.
    ``at`` is the server's clock. From the participant service also: ``submission_key``, made in the browser for one
    trial; ``answered_at`` by the participant's clock; ``moves``, how often the answer was moved before it was given;
    ``break_ms``, how long the break before the trial was, where there was one (``response_ms`` begins after it);
    ``away``, how often the page was left while the trial stood; ``pasted``, how many signs were pasted into a free text."""

    __tablename__ = "rating"
    __table_args__ = (
        UniqueConstraint("trial_id", "question_id"),
        Index("uq_rating_submission_key_question_id", "submission_key", "question_id", unique=True),
    )
    trial_id: Mapped[int] = to("trial", cascade=True, index=False)
    question_id: Mapped[int] = to("question")
    value: Mapped[float | None]
    text: Mapped[str | None]
    response_ms: Mapped[float | None]
    at: Mapped[datetime]
    submission_key: Mapped[str | None] = mapped_column(String(64))
    answered_at: Mapped[datetime | None]
    moves: Mapped[int | None]
    break_ms: Mapped[float | None]
    away: Mapped[int | None]
    pasted: Mapped[int | None]


class Visit(Base):
    """A person at the participant service; ``status`` is instructions, trials, done, screened_out (the instructions were
    not understood), unfit (by the answers to ``screening``) or full (enough people gave these answers). The list is
    theirs until ``lease_until``, which every answer moves on. ``language`` is the one in which they were asked."""

    __tablename__ = "visit"
    __table_args__ = (UniqueConstraint("batch_id", "participant_id"),)
    batch_id: Mapped[int] = to("batch", cascade=True, index=False)
    participant_id: Mapped[int] = to("participant")
    assignment_id: Mapped[int | None] = mapped_column(ForeignKey("assignment.id"), unique=True)
    status: Mapped[str] = mapped_column(String(16))
    tries: Mapped[int]
    consented: Mapped[datetime]
    screening: Mapped[dict[str, Any]]
    language: Mapped[str] = mapped_column(String(8))
    lease_until: Mapped[datetime]


class PanelId(Base):
    """The id by which a panel pays somebody: apart from everything else, and deleted after its day."""

    __tablename__ = "panel_id"
    participant_id: Mapped[int] = mapped_column(ForeignKey("participant.id", ondelete="CASCADE"), unique=True)
    raw: Mapped[str]
    delete_after: Mapped[datetime] = mapped_column(index=True)


class Exclusion(Base):
    __tablename__ = "exclusion"
    __table_args__ = (UniqueConstraint("batch_id", "participant_id", "rule"),)
    batch_id: Mapped[int] = to("batch", cascade=True, index=False)
    participant_id: Mapped[int] = to("participant")
    rule: Mapped[str] = mapped_column(String(48))
    detail: Mapped[str]


class PanelSubmission(Base):
    """What a panel says of one submission. Ids are keyed hashes; ``at`` is the panel's time of the status."""

    __tablename__ = "panel_submission"
    __table_args__ = (UniqueConstraint("study_id", "submission_hash"),)
    study_id: Mapped[int] = to("study", index=False)
    submission_hash: Mapped[str] = mapped_column(Hash)
    pid_hash: Mapped[str] = mapped_column(Hash)
    status: Mapped[str] = mapped_column(String(24))
    at: Mapped[datetime]


class PanelEvent(Base):
    """A webhook that was taken in; a repeat is known by its id."""

    __tablename__ = "panel_event"
    event_id: Mapped[str] = mapped_column(String(200), unique=True)
    study_id: Mapped[int] = to("study")
    at: Mapped[datetime]


class Payment(Base):
    """A bonus: planned, created, paying or paid. ``amount`` is in minor units."""

    __tablename__ = "payment"
    __table_args__ = (UniqueConstraint("study_id", "submission_hash", "reason"),)
    study_id: Mapped[int] = to("study", index=False)
    submission_hash: Mapped[str] = mapped_column(Hash)
    reason: Mapped[str] = mapped_column(String(48))
    amount: Mapped[int]
    currency: Mapped[str] = mapped_column(String(3))
    state: Mapped[str] = mapped_column(String(8))
    reference: Mapped[str | None]
    at: Mapped[datetime]


class Statement(Base):
    """Columns as the fields of ``contrafact.stats.statement.Statement``; ``hypothesis`` is its ``id``."""

    __tablename__ = "statement"
    study_id: Mapped[int] = to("study")
    stage_run_id: Mapped[int] = to("stage_run")
    hypothesis: Mapped[str]
    label: Mapped[str] = mapped_column(String(16))
    direction: Mapped[str] = mapped_column(String(48))
    question: Mapped[str] = mapped_column(String(48))
    arm: Mapped[str] = mapped_column(String(32))
    component: Mapped[str] = mapped_column(String(8))
    estimate: Mapped[float | None]
    low: Mapped[float | None]
    high: Mapped[float | None]
    level: Mapped[float | None]
    se: Mapped[float | None]
    df: Mapped[float | None]
    p: Mapped[float | None]
    p_adjusted: Mapped[float | None]
    margin: Mapped[float | None]
    equivalent: Mapped[bool | None]
    verdict: Mapped[bool | None]
    n_ratings: Mapped[int]
    n_participants: Mapped[int]
    n_images: Mapped[int]
    unit: Mapped[str]
    method: Mapped[str]
    seed: Mapped[int] = mapped_column(BigInteger)
    caveats: Mapped[list[str]]


class LockboxOpening(Base):
    __tablename__ = "lockbox_opening"
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id"), unique=True)
    reason: Mapped[str]
    at: Mapped[datetime]


class Audit(Base):
    """Append-only: a trigger refuses every update and deletion."""

    __tablename__ = "audit"
    study_id: Mapped[int] = to("study")
    actor: Mapped[str]
    action: Mapped[str]
    detail: Mapped[dict[str, Any]]
    at: Mapped[datetime]


# The view, made by the migrations. It has metadata of its own: it is not a table to be created or compared.
rating_provenance = Table(
    "rating_provenance",
    MetaData(),
    Column("rating_id", Integer),
    Column("study_id", Integer),
    Column("study", Text),
    Column("participant", Integer),
    Column("simulated", Boolean),
    Column("excluded", Boolean),
    Column("question", Text),
    Column("value", Number()),
    Column("response_ms", Number()),
    Column("stimulus", Integer),
    Column("image", Text),
    Column("unit_id", Text),
    Column("direction", Text),
    Column("arm", Text),
    Column("draw", BigInteger),
    Column("dose", Number()),
    Column("seed", BigInteger),
    Column("set_key", Text),
    Column("pixels_sha256", Text),
    Column("denoiser_sha256", Text),
    Column("guide_sha256", Text),
    Column("stage_run_id", Integer),
    Column("stage_mlflow_run_id", Text),
    Column("run_id", Integer),
    Column("mlflow_run_id", Text),
    Column("batch", Text),
    Column("list_number", Integer),
    Column("position", Integer),
    Column("place", Integer),
    Column("text", Text),
    Column("scale", Text),
    Column("trial", Integer),
    Column("kind", Text),
    Column("target", Number()),
    Column("chosen", Boolean),
    Column("away", Integer),
    Column("pasted", Integer),
)
