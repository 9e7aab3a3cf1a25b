"""Tables: the answers file of a batch, any table whose columns speak for themselves, and any other by a mapping."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from contrafact.errors import UserError, nearest
from contrafact.survey.formats.guard import unguarded
from contrafact.survey.formats.rows import (
    UNFILLED,
    Answer,
    Notes,
    Row,
    Stay,
    by_plain,
    is_personal,
    moment,
    number_of,
    person_column,
    pick,
    text_of,
)
from contrafact.survey.formats.source import Record, Source, plain

_VALUES = ("value", "rating", "response", "answer", "score", "choice")
_QUESTIONS = ("question", "questionid", "questionname", "trait", "measure", "scale", "dimension", "attribute", "item", "itemid")
_STIMULI = ("stimulus", "stimulusid", "image", "imageid", "face", "faceid", "picture", "photo", "file", "item", "itemid")
_RESPONSE = ("responsems", "rtms", "rt", "reactiontime", "responsetime")
_TIMES = ("ts", "time", "date", "timestamp", "at")


class Mapped(BaseModel):
    """Which columns say what, for tables of other tools.

    Every text is a column's name. ``questions`` is for wide tables (a column a question: column to question name),
    ``question`` and ``value`` for long ones. ``keep`` and ``preview`` and ``unfinished`` go from a column to the cells
    that a row must have to be kept, or by which it is a preview or unfinished.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Annotated[str, Field(max_length=40, description="name of the tool, for the report")] = "mapped"
    participant: str
    question: str | None = Field(default=None, description="column of the question; absent: all rows ask `response`")
    value: str | None = None
    questions: dict[str, str] = {}
    response_ms: str | None = None
    response_s: str | None = None
    stimulus: str | None = None
    assignment: str | None = None
    position: str | None = None
    key: str | None = Field(default=None, description="column of the tool's own id of a row or submission")
    started: str | None = None
    ended: str | None = None
    status: str | None = None
    keep: dict[str, tuple[str, ...]] = {}
    preview: dict[str, tuple[str, ...]] = {}
    unfinished: dict[str, tuple[str, ...]] = {}

    def columns(self) -> list[str]:
        """Every column that is named."""
        single = (self.participant, self.question, self.value, self.response_ms, self.response_s, self.stimulus,
                  self.assignment, self.position, self.key, self.started, self.ended, self.status)  # fmt: skip
        return [name for name in single if name] + [*self.questions, *self.keep, *self.preview, *self.unfinished]


def load_mapping(path: Path) -> Mapped:
    """A mapping from its YAML file. Raises UserError with the key that is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
        if len(text) > 100_000:
            raise UserError(f"{path} is too long for a mapping of columns.")
        mapping = Mapped.model_validate(YAML(typ="safe", pure=True).load(text) or {})
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}.") from error
    except YAMLError as error:
        raise UserError(f"{path} is not YAML: {str(error).splitlines()[0]}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}: {key or 'file'}: {first['msg']}.", hint=f"Keys are {', '.join(Mapped.model_fields)}.") from error
    if bool(mapping.value) == bool(mapping.questions):
        raise UserError(f"{path}: name `value` for a long table or `questions` for a wide one, not both and not neither.")
    return mapping


REQUIRED = ("assignment", "position", "question", "value")


def is_batch(source: Source) -> bool:
    """Whether it is the answers file of a batch, or was meant to be one."""
    return {"assignment", "position"} <= source.names


def read_batch(source: Source, notes: Notes) -> Iterator[Row]:
    """``assignment, position, question, value`` and, if known, ``response_ms`` and ``participant``, in any order."""
    names = by_plain(map(unguarded, _header(source)))
    for name in REQUIRED:
        if name not in names:
            close = nearest(name, names)
            raise source.refuse(
                f", row 1: the column '{name}' is missing" + (f" ('{close}' is there)." if close else "."),
                f"The columns are {', '.join(REQUIRED)}, response_ms, participant.",
            )
        if f"{name}.2" in source.header:
            raise source.refuse(f", row 1: the column '{name}' stands there twice.")
    for record in source.records():
        cells = {name: text_of(record.cells[column]).strip() for name, column in names.items()}
        answer = Answer(
            unguarded(cells["question"]),
            unguarded(cells["value"]),
            assignment=unguarded(cells["assignment"]),
            position=unguarded(cells["position"]),
            stimulus=unguarded(cells.get("stimulus", "")),
            response_ms=unguarded(cells.get("responsems", "")),
        )
        yield Row(
            record.row,
            unguarded(cells.get("participant", "")),
            [answer],
            key=f"{answer.assignment}\x1f{answer.position}\x1f{answer.question}",
            stay="answered" if answer.text else "unanswered",
            content=(answer.text, cells.get("participant", "")),
        )


def is_long(source: Source) -> bool:
    """Whether each row is one value: a column of values beside one of questions or stimuli."""
    names = source.names
    return bool(names & set(_VALUES)) and bool(names & {*_QUESTIONS, *_STIMULI}) and person_column(_header(source)) is not None


def read_table(source: Source, notes: Notes) -> Iterator[Row]:
    """A table whose columns speak for themselves: long with a value column, else a column a question.

    Raises UserError where no column says who answered.
    """
    header = _header(source)
    names = by_plain(header)
    person = person_column(header)
    if person is None:
        seen = ", ".join(header[:12])
        raise source.refuse(
            ": no column says who answered" + (f" (there are {seen})." if seen else "."),
            "Name the columns in a file for --columns.",
        )
    value = pick(names, *_VALUES)
    for name in header:
        if is_personal(name):
            notes.dropped[name] = None
    if value:
        mapping = Mapped(
            participant=person,
            value=value,
            question=pick(names, *_QUESTIONS),
            stimulus=pick(names, *_STIMULI),
            response_ms=pick(names, *_RESPONSE),
            assignment=names.get("assignment"),
            position=names.get("position"),
            status=names.get("status"),
        )
    else:
        wide = [name for name in header if not is_personal(name) and not plain(name).endswith(_TIMES)]
        mapping = Mapped(participant=person, questions={name: name for name in wide})
        if not wide:
            notes.warnings.append("there are participants and times in it, but no answers")
    for row in _mapped(source, mapping):
        if value and row.answers and row.answers[0].text.strip() in ("NA", "NaN"):
            notes.count("cells with NA, read as missing: {n}")
            row.answers, row.stay = [], "unanswered"
        yield row


def read_mapped(source: Source, mapping: Mapped, notes: Notes) -> Iterator[Row]:
    """A table by its mapping. Raises UserError where a column that it names is missing."""
    header = _header(source)
    for name in mapping.columns():
        if name not in header:
            close = nearest(name, header)
            raise source.refuse(
                f", row 1: the column '{name}' of the mapping is missing" + (f" ('{close}' is there)." if close else ".")
            )
    for name in header:
        if is_personal(name):
            notes.dropped[name] = None
    yield from _mapped(source, mapping)


def _mapped(source: Source, mapping: Mapped) -> Iterator[Row]:
    for record in source.records():
        if any(_cell(record, column) not in allowed for column, allowed in mapping.keep.items()):
            continue
        yield _mapped_row(record, mapping)


def _mapped_row(record: Record, mapping: Mapped) -> Row:
    def cell(column: str | None) -> str:
        return _cell(record, column) if column else ""

    seconds = number_of(cell(mapping.response_s))
    about: dict[str, Any] = {
        "assignment": cell(mapping.assignment),
        "position": cell(mapping.position),
        "stimulus": cell(mapping.stimulus),
        "response_ms": f"{1000 * seconds:.0f}" if math.isfinite(seconds) else cell(mapping.response_ms),
    }
    asked = {mapping.value: cell(mapping.question) or "response"} if mapping.value else mapping.questions
    texts = {name: text_of(record.cells.get(column)) for column, name in asked.items()}
    answers = [Answer(name, text, **about) for name, text in texts.items() if text.strip()]
    person = cell(mapping.participant)
    stay: Stay = "answered" if answers or not (mapping.value or mapping.questions) else "unanswered"
    if any(cell(column) in cells for column, cells in mapping.unfinished.items()):
        stay = "unfinished"
    if UNFILLED.search(person) or any(cell(column) in cells for column, cells in mapping.preview.items()):
        stay = "preview"
    return Row(
        record.row,
        person,
        answers,
        key=cell(mapping.key),
        stay=stay,
        status=cell(mapping.status),
        started=moment(cell(mapping.started)),
        ended=moment(cell(mapping.ended)),
        content=record.cells,
    )


def _cell(record: Record, column: str) -> str:
    return text_of(record.cells.get(column)).strip()


def _header(source: Source) -> list[str]:
    return list(source.first) if source.is_json else source.header
