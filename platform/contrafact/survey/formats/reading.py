"""One file on its way in: which format it is, what becomes of every row, and the one long table."""

from __future__ import annotations

import hashlib
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pyarrow
import pyarrow.parquet

from contrafact.errors import UserError
from contrafact.survey.exclusions import ATTENTION_TOLERANCE
from contrafact.survey.formats import jspsych, label_studio, mturk, prolific, qualtrics, surveyjs, table
from contrafact.survey.formats.guard import guarded
from contrafact.survey.formats.rows import DAMAGED_DATE, DAMAGED_ID, Notes, Row, number_of
from contrafact.survey.formats.source import Source, open_source
from contrafact.survey.formats.table import Mapped

LONG = ("participant", "row", "assignment", "position", "stimulus", "question", "value", "text", "response_ms",
        "target", "started", "ended", "status")  # fmt: skip
CHUNK = 20_000  # answers held in memory at once
TOLD = 50  # sentences about single rows
DATES = "answers that look like dates made by a spreadsheet: {n}"


class Format(NamedTuple):
    matches: Callable[[Source], bool]
    read: Callable[[Source, Notes], Iterator[Row]]


# In this order; the last two take what no other knows.
FORMATS = {
    "prolific": Format(prolific.matches, prolific.read),
    "mturk": Format(mturk.matches, mturk.read),
    "qualtrics": Format(qualtrics.matches, qualtrics.read),
    "label_studio": Format(label_studio.matches, label_studio.read),
    "jspsych": Format(jspsych.matches, jspsych.read),
    "contrafact": Format(table.is_batch, table.read_batch),
    "surveyjs": Format(surveyjs.matches, surveyjs.read),
    "csv": Format(lambda source: True, table.read_table),
}


@dataclass(frozen=True)
class Fate:
    """What became of the rows of a file; ``accepted`` to ``invalid`` add up to ``rows``.

    ``duplicates`` repeat a row of the file or of an earlier import; ``previews`` are the researcher's own tests;
    ``unfinished`` were begun and not ended (what they answered is kept, the frozen rules decide); ``unanswered`` hold
    no answer; ``unmatched`` belong to no assignment of the study; ``invalid`` break a rule. ``participants`` counts
    people in all rows but previews, ``answers`` single answers that are taken in. ``excluded`` counts rows of people
    whom the frozen rules leave out: they are taken in all the same, and nothing is excluded before a study is named.
    ``problems`` are sentences with row and column about single rows, ``warnings`` about the file.
    """

    format: str
    rows: int = 0
    participants: int = 0
    accepted: int = 0
    duplicates: int = 0
    previews: int = 0
    unfinished: int = 0
    unanswered: int = 0
    unmatched: int = 0
    invalid: int = 0
    excluded: int = 0
    corrected: int = 0
    answers: int = 0
    dropped_columns: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    def facts(self) -> dict[str, object]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def refuse_invalid(self, name: str) -> None:
        """Raise UserError with the first problems if any row is invalid."""
        if self.invalid:
            told = "\n".join(f"- {problem}" for problem in self.problems[:20])
            more = f"\n- and {self.invalid - 20} more" if self.invalid > 20 else ""
            corrects = " If the file corrects an earlier one, --correct takes its values." * ("an earlier import" in told)
            raise UserError(
                f"{name}: {self.invalid} of {self.rows} rows cannot be taken in:\n{told}{more}",
                hint=f"Nothing was written. Mend these rows and import the file again.{corrects}",
            )


class Reading:
    """A file, its format found out. Iterate ``rows`` once to the end; then ``fate`` is whole.

    Raises UserError where the file cannot be read, or is not of the ``format`` that was named.
    """

    def __init__(self, path: Path, format: str = "auto", columns: Mapped | None = None) -> None:
        self.source = open_source(path)
        self.notes = Notes()
        self.count = dict.fromkeys(
            ("rows", "duplicates", "previews", "unfinished", "unanswered", "unmatched", "invalid", "accepted", "answers",
             "corrected", "excluded"), 0,
        )  # fmt: skip
        self.problems: list[str] = []
        self.people: set[bytes] = set()
        if columns is not None:
            self.format = columns.format
            self._read = lambda source, notes: table.read_mapped(source, columns, notes)
            return
        if format == "auto":
            format = next(name for name, known in FORMATS.items() if known.matches(self.source))
        elif format not in FORMATS:
            raise UserError(f"There is no format '{format}'.", hint=f"Formats are auto, {', '.join(FORMATS)}.")
        elif not FORMATS[format].matches(self.source):
            raise self.source.refuse(f" is no {format} file by its columns.", "Let --format be auto.")
        self.format = format
        self._read = FORMATS[format].read

    def rows(self) -> Iterator[Row]:
        """Rows that are neither previews nor repeats; their fate is for the caller to ``settle``."""
        seen = _Seen()
        for row in self._read(self.source, self.notes):
            self.count["rows"] += 1
            if row.stay == "preview":
                self.count["previews"] += 1
                continue
            row.participant = _whole(row.participant)
            for answer in row.answers:
                for name in ("question", "text", "assignment", "position", "stimulus"):
                    setattr(answer, name, _whole(getattr(answer, name)))
            if row.participant:
                self.people.add(_digest(row.participant))
            first = seen.first(row)
            if first == row.number:
                if problem := _damage(row, self.notes):
                    row.problem = row.problem or problem
                yield row
            elif first > 0:
                self.count["duplicates"] += 1
            else:
                row.problem = f"all columns: row {-first} has the same id and says something else"
                yield row

    def settle(self, row: Row, fate: str, answers: int = 0) -> None:
        """Counts a row under its fate, with the number of its answers that are taken in."""
        self.count[fate] += 1
        self.count["answers"] += answers

    def complain(self, row: Row, problem: str) -> None:
        """A sentence about one row."""
        if len(self.problems) < TOLD:
            self.problems.append(f"row {row.number}, {problem}")

    @property
    def fate(self) -> Fate:
        return Fate(
            format=self.format,
            participants=len(self.people),
            dropped_columns=tuple(self.notes.dropped),
            warnings=(*self.source.warnings, *self.notes.said()),
            problems=tuple(self.problems),
            **self.count,
        )


def alone(reading: Reading, pseudonyms: dict[str, str]) -> Iterator[pd.DataFrame]:
    """The long table of a file that belongs to no study, in pieces with the columns ``LONG``.

    Participants are numbered in ``pseudonyms`` in the order in which they come, so that no id leaves. ``value`` is
    NaN where ``text`` is no number; ``started`` and ``ended`` are UTC.
    """
    found: list[tuple[object, ...]] = []
    for row in reading.rows():
        if not row.problem and not row.participant and row.stay != "unanswered":
            row.problem = "participant: empty, but an answer belongs to a person"
        if row.problem:
            reading.complain(row, row.problem)
            reading.settle(row, "invalid")
            continue
        answers = [answer for answer in row.answers if answer.text]
        for a in answers:
            if abs(number_of(a.text) - a.target) > ATTENTION_TOLERANCE:
                reading.notes.count(f"attention trials missed by more than {ATTENTION_TOLERANCE:g} points: {{n}}")
            if a.response_ms.startswith("-"):
                reading.notes.count("negative response times, read as missing: {n}")
                a.response_ms = ""
        person = pseudonyms.setdefault(row.participant, f"p{len(pseudonyms) + 1:06d}") if row.participant else ""
        for a in answers:
            found.append((
                person, row.number, a.assignment, a.position, a.stimulus, a.question, number_of(a.text), a.text,
                number_of(a.response_ms), a.target, row.started, row.ended, row.status,
            ))  # fmt: skip
        reading.settle(row, "accepted" if row.stay == "answered" else row.stay, len(answers))
        if len(found) >= CHUNK:
            yield _frame(found)
            found = []
    if found:
        yield _frame(found)


@contextmanager
def long_table(to: Path | None) -> Iterator[Callable[[pd.DataFrame], None]]:
    """Takes pieces of the long table to a file, by the end of its name; to nowhere where ``to`` is None.

    The file appears once it is whole. Raises UserError where it is there already or is neither .csv nor .parquet.
    """
    if to is None:
        yield lambda piece: None
        return
    if to.exists():
        raise UserError(f"{to} exists already.", hint="Name a new file with --to.")
    if to.suffix not in (".csv", ".parquet"):
        raise UserError(f"{to}: the long table is a .csv or a .parquet file.")
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=to.parent, prefix=".long-") as scratch:
        part = Path(scratch) / to.name
        if to.suffix == ".csv":
            _frame([]).to_csv(part, index=False)
            yield lambda piece: _spreadsheet(piece).to_csv(
                part, mode="a", header=False, index=False, encoding="utf-8", lineterminator="\n"
            )
        else:
            schema = pyarrow.Schema.from_pandas(_frame([("", 0, *[""] * 4, 0.0, "", 0.0, 0.0, None, None, "")]), preserve_index=False)
            with pyarrow.parquet.ParquetWriter(part, schema) as writer:
                yield lambda piece: writer.write_table(pyarrow.Table.from_pandas(piece, schema, preserve_index=False))
        part.rename(to)


def _spreadsheet(piece: pd.DataFrame) -> pd.DataFrame:
    text = piece.select_dtypes(["object", "string"]).columns
    return piece.assign(**{name: piece[name].map(guarded) for name in text})


def _frame(rows: list[tuple[object, ...]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=list(LONG))
    for name in ("started", "ended"):
        frame[name] = pd.to_datetime(frame[name], utc=True).astype("datetime64[ms, UTC]")
    return frame.astype(dict.fromkeys(("value", "response_ms", "target"), float))


def _damage(row: Row, notes: Notes) -> str:
    """What a spreadsheet has made of ids, which is a problem, and of answers, which is a warning."""
    ids = [("participant", row.participant), *(("assignment", answer.assignment) for answer in row.answers[:1])]
    for name, text in ids:
        if "+" in text and DAMAGED_ID.match(text):
            return f"{name}: '{text[:40]}' is an id that a spreadsheet has turned into a number"
    for answer in row.answers:
        if 5 <= len(answer.text) <= 10 and not answer.text.isdigit() and DAMAGED_DATE.match(answer.text):
            if notes.counted.get(DATES, 0) < 3:
                notes.warnings.append(
                    f"row {row.number}, {answer.question[:40]}: '{answer.text}' looks like a date that a spreadsheet has made "
                    "of an answer"
                )
            notes.count(DATES)
            break
    return ""


class _Seen:
    """Which rows came before. On disk, so that memory does not grow with the file."""

    def __init__(self) -> None:
        self.known = sqlite3.connect("", isolation_level=None)  # a private file that goes with the connection
        self.known.execute("PRAGMA journal_mode = OFF")
        self.known.execute("CREATE TABLE seen (id BLOB PRIMARY KEY, content BLOB, row INTEGER) WITHOUT ROWID")
        self.known.execute("BEGIN")

    def first(self, row: Row) -> int:
        """The number of the row with the same id: its own if it is new, negative if that one says something else."""
        content = _digest(repr(row.content))
        key = _digest(row.key) if row.key else content
        new = self.known.execute("INSERT OR IGNORE INTO seen VALUES (?, ?, ?)", (key, content, row.number))
        if new.rowcount:
            return row.number
        said, number = self.known.execute("SELECT content, row FROM seen WHERE id = ?", (key,)).fetchone()
        return number if said == content else -number


def _whole(text: str) -> str:
    """Text without halves of characters (JSON can hold them), which no file and no database takes."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


