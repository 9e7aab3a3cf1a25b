"""A study in the field: what is shown to whom, registered first, out as a batch and back as ratings.

The same code takes in the answers of people and of simulated people.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol

import pandas as pd

from contrafact.errors import UserError
from contrafact.study import LoadedStudy, refuse_changes, registration_payload
from contrafact.study.schema import Question, Study
from contrafact.survey import batch, design, exclusions, respondents
from contrafact.survey.formats import Fate, Mapped, Reading, alone, long_table
from contrafact.survey.ledger import LISTS, Ledger

NATURAL_KEY = ["image", "direction", "arm", "draw", "dose"]


class Ground(Protocol):
    """What fielding asks of the store. Tables hold plain columns; ``list`` and ``position`` count from 0."""

    def salt(self, study_id: int) -> bytes:
        """The study's secret, made at the first call."""

    def chain(self, study_id: int) -> Sequence[Any]:
        """Links of the registration chain in order, with ``kind``, ``payload`` and ``hash``."""

    def append_registration(self, study_id: int, kind: Literal["registration"], payload: Mapping[str, Any]) -> Any:
        """Appends a link."""

    def put_questions(self, study_id: int, questions: Sequence[Question]) -> None:
        """Writes the questions by name; the same again changes nothing."""

    def put_batch(self, study_id: int, name: str, trials: pd.DataFrame, *, simulated: bool) -> int:
        """Writes ``assignment`` (code), ``list``, ``position``, ``kind``, ``place``, ``stimulus`` (id, None on attention
        trials) and ``target``; assignments that the batch has already are left as they are. Returns the batch's id."""

    def lists(self, study_id: int, name: str | None = None) -> tuple[str, dict[int, str]]:
        """The name of the newest batch or of the one named, and the codes of its lists by number, in order; empty
        where there is none."""

    def batch_trials(
        self, study_id: int, name: str | None = None, lists: tuple[int, int] | None = None
    ) -> pd.DataFrame:
        """``batch`` (name), the columns of ``put_batch`` and ``pixels_sha256``, of the newest batch or of the one named;
        empty where there is none. ``lists`` is the first and the last number of those asked for."""

    def answers(self, study_id: int, name: str, lists: tuple[int, int] | None = None) -> pd.DataFrame:
        """``list``, ``position``, ``question``, ``value``, ``text``, ``response_ms``, ``pid_hash`` of a batch."""

    def put_answers(
        self, study_id: int, name: str, answers: Iterable[pd.DataFrame], *, simulated: bool, correct: bool = False
    ) -> int:
        """Writes pieces with rows as ``answers`` gives them, in one transaction, with their participants; the same value
        twice is fine, another one is refused, or takes the place of the first if ``correct``. Returns how many are new."""

    def put_exclusions(self, study_id: int, name: str, exclusions: pd.DataFrame) -> None:
        """Replaces the batch's exclusions: ``pid_hash``, ``rule``, ``detail``."""


def manifest_sha256(stimuli: pd.DataFrame) -> str:
    """The hash of which pictures a study shows; ``stimuli`` has the natural key and ``pixels_sha256``."""
    rows = stimuli[[*NATURAL_KEY, "pixels_sha256"]].sort_values(NATURAL_KEY).to_numpy(object).tolist()
    return hashlib.sha256(json.dumps(rows, default=str).encode()).hexdigest()


def sets_sha256(stimuli: pd.DataFrame) -> dict[str, str]:
    """As ``manifest_sha256`` for each matched set (column ``set_key``), so that a change can be named."""
    return {str(key): manifest_sha256(rows) for key, rows in stimuli.groupby("set_key", sort=True)}


def freeze(
    ground: Ground, study_id: int, loaded: LoadedStudy, stimuli: pd.DataFrame, models: Mapping[str, str]
) -> str:
    """The hash of the study's registration: made now if there is none, else checked against study and stimuli.

    Raises UserError where the study or the pictures are not those that were registered.
    """
    manifest = manifest_sha256(stimuli)
    frozen = [link for link in ground.chain(study_id) if "content" in link.payload]
    if not frozen:
        facts = {"models": models, "stimuli": manifest, "sets": sets_sha256(stimuli)}
        ground.append_registration(study_id, "registration", registration_payload(loaded, facts))
        return str(ground.chain(study_id)[-1].hash)
    refuse_changes(frozen[-1].payload, loaded)
    if frozen[-1].payload["stimuli"] != manifest:
        raise UserError(
            f"{loaded.path}: the stimuli are not those that were registered.",
            hint=f'Undo what changed them, or amend: contrafact register {loaded.path} --amend "why".',
        )
    return str(frozen[-1].hash)


def open_batch(ground: Ground, study_id: int, study: Study, stimuli: pd.DataFrame) -> str:
    """The batch of these stimuli, made if need be; returns its name.

    Lists of more participants begin with the lists of fewer, so a larger sample only adds to the batch.
    """
    survey = study.survey
    assert survey is not None
    frame = [manifest_sha256(stimuli), survey.trials_per_participant, survey.attention_trials, study.seed]
    if survey.design != "within_image":
        frame += [survey.design, survey.compare, survey.set_size]
    if survey.repeats:
        frame.append(survey.repeats)
    name = f"batch-{hashlib.sha256(json.dumps(frame).encode()).hexdigest()[:8]}"
    lists = design.field_lists(stimuli, survey, study.seed)
    salt = ground.salt(study_id)
    codes = {
        number: batch.keyed(salt, "assignment", name, number, length=10) for number in range(survey.participants)
    }
    ground.put_questions(study_id, (*survey.asked, attention_question()))
    ground.put_batch(
        study_id,
        name,
        lists.assign(assignment=lists["list"].map(codes)),
        simulated=survey.respondents is not None,
    )
    return name


def attention_question() -> Question:
    """The question of attention trials, kept beside the study's own."""
    return Question(name=batch.ATTENTION, text="Attention: please answer the number that is asked for.")


def trials_of(
    ground: Ground, study_id: int, study: Study, name: str | None = None, lists: tuple[int, int] | None = None
) -> pd.DataFrame:
    """The trials of a batch, as ``Ground.batch_trials``. Raises UserError where nothing was fielded yet."""
    trials = ground.batch_trials(study_id, name, lists)
    if trials.empty:
        raise UserError(f"The study '{study.study}' has no batch yet.", hint="Run the study up to its field stage first.")
    return trials


def expected(
    ground: Ground, study_id: int, study: Study, name: str | None = None, lists: tuple[int, int] | None = None
) -> pd.DataFrame:
    """Everything a batch asks for, or its ``lists`` from one number to another, with the answers that are in already
    (NaN, None elsewhere); ``free`` is free text."""
    assert study.survey is not None
    trials = trials_of(ground, study_id, study, name, lists)
    answers = ground.answers(study_id, str(trials["batch"].iloc[0]), lists).rename(columns={"text": "free"})
    asked = batch.asked(trials, study.survey.asked)
    return asked.merge(answers, on=["list", "position", "question"], how="left", validate="one_to_one")


def export_batch(
    ground: Ground,
    picture: Callable[[str], bytes],
    study_id: int,
    study: Study,
    to: Path,
    name: str | None = None,
    *,
    format: str = "csv",
    pictures: str = "",
) -> list[str]:
    """Writes the batch as files, as ``batch.export``; ``picture`` gives the PNG of a pixel hash."""
    assert study.survey is not None
    trials = trials_of(ground, study_id, study, name)
    pixels = dict(zip(trials["stimulus"], trials["pixels_sha256"], strict=True))
    return batch.export(
        to,
        trials,
        study.survey.asked,
        lambda stimulus: picture(pixels[stimulus]),
        ground.salt(study_id),
        title=study.title,
        format=format,
        pictures=pictures,
        missing=study.survey.not_in_files,
    )


def import_answers(
    ground: Ground,
    study_id: int,
    study: Study,
    paths: Sequence[Path],
    *,
    simulated: bool = False,
    dry_run: bool = False,
    name: str | None = None,
    format: str = "auto",
    columns: Mapped | None = None,
    correct: bool = False,
) -> dict[str, Fate]:
    """Takes in answers files of any format, all or none; returns the fate of every row by file.

    Raises UserError, with the rows and columns named, where any row is invalid; an answer that differs from the one
    that is in the store is invalid unless ``correct``.
    """
    found, codes = ground.lists(study_id, name)
    numbers, ledger = list(codes), Ledger(ground.salt(study_id), correct=correct)
    for first in range(0, max(len(numbers), 1), LISTS):
        some = numbers[first : first + LISTS] or [0]
        ledger.ask(expected(ground, study_id, study, found or name, (some[0], some[-1])))
    fates = []
    for path in paths:
        fate, rows_of = ledger.read(Reading(path, format, columns))
        fate.refuse_invalid(str(path))
        fates.append((str(path), fate, rows_of))
    left_out = {person for piece in ledger.begun() for person in exclusions.excluded(piece)["participant"]}
    if not dry_run:
        number_of = {code: number for number, code in codes.items()}
        new = (piece.assign(list=piece["assignment"].map(number_of).astype("int64")) for piece in ledger.new())
        ground.put_answers(study_id, found, new, simulated=simulated, correct=correct)
    return {path: replace(fate, excluded=sum(rows_of[pid] for pid in left_out)) for path, fate, rows_of in fates}


def read_alone(
    paths: Sequence[Path], to: Path | None = None, *, format: str = "auto", columns: Mapped | None = None
) -> dict[str, Fate]:
    """Reads files that belong to no study; returns the fate of every row by file.

    ``to`` is the long table (``formats.LONG``) of all of them, Parquet or, with formulas made harmless, CSV; whole or
    not at all. Participants are numbered in the order in which they come. Raises UserError where ``to`` is there
    already, or a file cannot be read.
    """
    pseudonyms: dict[str, str] = {}
    fates: dict[str, Fate] = {}
    with long_table(to) as write:
        for path in paths:
            reading = Reading(path, format, columns)
            for piece in alone(reading, pseudonyms):
                write(piece)
            fates[str(path)] = reading.fate
    return fates


def simulated_answers(trials: pd.DataFrame, readings: pd.DataFrame, study: Study, replication: int = 0) -> pd.DataFrame:
    """What simulated people answer to a batch, as an answers file.

    ``trials`` as from ``trials_of``; ``readings`` is what the reader measured: ``stimulus`` (id), ``image``,
    ``reading`` and optionally ``mark``. Nothing else of it reaches the respondents.
    """
    survey = study.survey
    assert survey is not None and survey.respondents is not None
    people = respondents.in_world(survey.respondents, study.world)
    seen = [column for column in ("image", "reading", "mark") if column in readings]
    pictures = readings.set_index("stimulus")[seen]
    rows = respondents.answer_all(trials, pictures, survey.questions, people, study.seed, replication)
    rows = rows.assign(
        position=rows["position"] + 1, participant=[f"simulated-{number}" for number in rows["participant"]]
    )
    return rows.sort_values(["assignment", "position"], kind="stable")[list(batch.ANSWER_COLUMNS)]


def begun(ground: Ground, study_id: int, study: Study, name: str | None = None) -> pd.DataFrame:
    """The trials of lists that somebody answered a part of: ``list``, ``position``, ``shown`` (ids, none on attention
    trials), ``answered`` (a question of it at least)."""
    asked = expected(ground, study_id, study, name)
    trials = asked.assign(answered=asked["value"].notna()).groupby(["list", "position"], as_index=False)
    found = trials.agg(shown=("shown", "first"), answered=("answered", "any"))
    return found[found.groupby("list")["answered"].transform("any")]


def exclude(ground: Ground, study_id: int, study: Study, name: str | None = None) -> dict[str, int]:
    """Applies the frozen rules to the batch, records who falls under which, and counts them."""
    asked = expected(ground, study_id, study, name)
    begun = asked.groupby("list")["pid_hash"].transform("first")
    own = asked.assign(participant=begun)[begun.notna()]
    found = exclusions.excluded(own)
    ground.put_exclusions(study_id, str(asked["batch"].iloc[0]), found.rename(columns={"participant": "pid_hash"}))
    return exclusions.counts(found)
