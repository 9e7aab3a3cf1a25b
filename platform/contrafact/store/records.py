"""What goes into the store and comes out of it: plain frozen records, no ORM, no session.

``id`` is 0 in a record that is on its way in. A number that is not defined is NaN. Times are aware, in UTC.
A statement's record is ``contrafact.stats.statement.Statement`` itself, a question's ``contrafact.study.schema.Question``;
batches and answers come and go as tables.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

Kind = Literal["registration", "amendment", "opening", "field", "analysis", "withdrawal", "deletion"]


@dataclass(frozen=True)
class StudyRecord:
    slug: str
    title: str
    yaml: str
    sha256: str
    id: int = 0


@dataclass(frozen=True)
class RunRecord:
    """One ``contrafact run``; ``status`` is running, done, failed, paused or interrupted."""

    study_id: int
    mlflow_run_id: str | None
    status: str
    started: datetime
    finished: datetime | None
    id: int = 0


@dataclass(frozen=True)
class StageRunRecord:
    """One run of one stage; ``status`` as of a run, or replaced once another hash took its place."""

    run_id: int
    study_id: int
    stage: str
    hash: str
    status: str
    facts: Mapping[str, Any]
    mlflow_run_id: str | None
    code_version: str
    started: datetime
    finished: datetime | None
    id: int = 0


@dataclass(frozen=True)
class ImageRecord:
    """A study image. ``key`` is its name in the manifest; ``width`` and ``height`` are pixels of the source.

    ``pixels_sha256`` is the model's view; ``delivered_sha256`` the same crop at ``images.delivery`` px, where named.
    """

    key: str
    unit_id: str
    split: str
    pixels_sha256: str
    width: int
    height: int
    outcome: float = math.nan
    source_sha256: str | None = None
    covariates: Mapping[str, float] = field(default_factory=dict)
    delivered_sha256: str | None = None
    id: int = 0

    @property
    def shown_sha256(self) -> str:
        """What people see of it."""
        return self.delivered_sha256 or self.pixels_sha256


@dataclass(frozen=True)
class ModelRecord:
    """A trained model; ``files_sha256`` is the folder's hash in ``Files``, ``quality`` plain JSON."""

    role: Literal["guide", "judge", "probe_guide", "probe_judge", "reader", "denoiser", "placebo", "slider"]
    name: str
    files_sha256: str
    quality: Mapping[str, Any] = field(default_factory=dict)
    id: int = 0


@dataclass(frozen=True)
class DirectionRecord:
    name: str
    kind: str
    target: str
    hold: Sequence[str] = ()
    spec: Mapping[str, Any] = field(default_factory=dict)
    id: int = 0


@dataclass(frozen=True)
class StimulusRecord:
    """One variant of one image.

    ``dose`` is what was requested, SD of the outcome score; ``strength`` how far along the direction that was, in
    the direction's own unit. ``pixels_sha256`` is what people see, ``edited_sha256`` the edit at the model's size where
    that is another picture. ``draw`` numbers the sham direction or the placebo permutation, 0 otherwise. Seed and
    hashes of models are None where a finished stimulus was brought from elsewhere.
    """

    image_id: int
    direction_id: int
    arm: str
    draw: int
    dose: float
    set_key: str
    in_support: bool
    pixels_sha256: str
    strength: float = math.nan
    seed: int | None = None
    denoiser_sha256: str | None = None
    guide_sha256: str | None = None
    edited_sha256: str | None = None
    stage_run_id: int = 0
    id: int = 0


@dataclass(frozen=True)
class CardRecord:
    """The measures of one stimulus by one judge: doses and leakage in SD, ``l1`` in the range 0 to 1.

    All are taken at the model's size; ``delivered_dose`` is the judge's movement on the picture that people see, made
    smaller again, where it was delivered at another size.
    """

    stimulus_id: int
    judge_sha256: str
    judge_dose: float
    leakage: Mapping[str, float]
    l1: float
    ssim: float
    realism: float
    artefact: float
    flags: Sequence[str] = ()
    delivered_dose: float = math.nan
    id: int = 0


@dataclass(frozen=True)
class GateRecord:
    """The verdict of the rule on one matched set; ``reasons`` is empty where it passed."""

    set_key: str
    passed: bool
    reasons: Sequence[str] = ()
    id: int = 0


@dataclass(frozen=True)
class ReviewRecord:
    """A person's verdict on the very pixels that were shown."""

    stimulus_id: int
    pixels_sha256: str
    verdict: Literal["keep", "reject"]
    reason: str
    reviewer: str
    at: datetime
    id: int = 0


@dataclass(frozen=True)
class ChainRecord:
    """One link of a study's chain; ``sequence`` counts from 1, ``previous_hash`` of the first is empty."""

    sequence: int
    kind: Kind
    payload: Mapping[str, Any]
    previous_hash: str
    hash: str
    at: datetime
    id: int = 0


@dataclass(frozen=True)
class BatchRecord:
    """``registration`` is the hash in force when it was made; ``begun`` counts the assignments that somebody took, ``done``
    those that are whole."""

    name: str
    simulated: bool
    registration: str | None
    assignments: int
    begun: int
    done: int = 0
    id: int = 0


@dataclass(frozen=True)
class SubmissionRecord:
    """What a panel says of one submission; ``submission`` and ``pid_hash`` are keyed hashes."""

    submission: str
    pid_hash: str
    status: str
    at: datetime


@dataclass(frozen=True)
class LockboxRecord:
    reason: str
    at: datetime
    id: int = 0


@dataclass(frozen=True)
class AuditRecord:
    """Who changed what through a page or a command."""

    actor: str
    action: str
    detail: Mapping[str, Any]
    at: datetime
    id: int = 0
