"""What a batch asked for, what is answered already, and what a file adds to it: on disk, since a batch may be larger
than memory."""

from __future__ import annotations

import math
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import pandas as pd

from contrafact.study.schema import NUMBERS
from contrafact.survey.batch import ATTENTION, LONGEST_MS, LONGEST_TEXT, keyed
from contrafact.survey.formats.reading import Fate, Reading
from contrafact.survey.formats.rows import Answer, Notes, Row

LISTS = 200  # lists held in memory at once
OTHER_END = {"best": "worst", "worst": "best"}
_EARLIER = 0  # the row of an answer that came in before this file
_LOOP = re.compile(r"#(\d{1,4})$")
_NUMBERED = re.compile(rf"{ATTENTION}_(\d{{1,2}})$")
_ASKED = ("assignment", "position", "question", "kind", "scale", "shown", "target")
_GIVEN = ("value", "free", "response_ms", "pid_hash")
_SCHEMA = """
CREATE TABLE asked (
    assignment TEXT, position INTEGER, question TEXT, kind TEXT, scale TEXT, shown INTEGER, target REAL,
    value REAL, free TEXT, response_ms REAL, pid_hash TEXT, row INTEGER, new INTEGER DEFAULT 0,
    PRIMARY KEY (assignment, position, question)
) WITHOUT ROWID
"""


class _Bad(Exception):
    """A row that breaks a rule: column and what is wrong with it."""


class _Place(NamedTuple):
    """One answer that was asked for; ``row`` is None where none was given, ``new`` whether one came in since."""

    scale: str
    shown: int
    row: int | None
    before: float | str


class Ledger:
    """The answers of one batch. ``ask`` for all that was asked, ``read`` files, then take ``new`` or ``begun``.

    Memory grows with the people, not with their answers. Raw ids of participants do not leave ``read``. An answer that
    differs from a known one is invalid, unless ``correct``.
    """

    def __init__(self, salt: bytes, *, correct: bool = False) -> None:
        self._salt, self._correct = salt, correct
        self._disk = sqlite3.connect("", isolation_level=None)  # a private file that goes with the connection
        self._disk.execute("PRAGMA journal_mode = OFF")
        self._disk.execute("PRAGMA cache_size = -32000")  # kB
        self._disk.execute(_SCHEMA)
        self._disk.execute("BEGIN")
        self._owner: dict[str, str | None] = {}  # of every assignment, in the order of the lists
        self._assignment_of: dict[str, str] = {}
        self._pids: dict[str, str] = {}

    def ask(self, expected: pd.DataFrame) -> None:
        """Takes in rows of ``batch.asked``, with ``value`` and ``pid_hash`` where answers are known already (NaN and
        None elsewhere), ``free`` for free text and ``response_ms``; an assignment's rows come together."""
        rows = expected.reindex(columns=[*_ASKED, *_GIVEN]).assign(shown=expected["shown"].map(len)).astype(object)
        rows = rows.where(rows.notna(), None)
        known = rows["free"].notna() | rows["value"].notna()
        rows = rows.assign(row=pd.Series([_EARLIER if one else None for one in known], index=rows.index, dtype=object))
        self._disk.executemany(f"INSERT INTO asked VALUES ({'?, ' * 12}0)", rows.itertuples(index=False, name=None))
        self._owner |= dict.fromkeys(rows["assignment"])
        for code, pid in rows.loc[known, ["assignment", "pid_hash"]].drop_duplicates().itertuples(index=False):
            self._owner[code], self._assignment_of[pid] = pid, code

    def read(self, reading: Reading) -> tuple[Fate, Counter[str]]:
        """Takes in a file of any format; returns the fate of every row, and how many rows each person (by hash) has.

        Raises UserError where the file as a whole cannot be read. What it adds stays in the ledger, whatever the fate.
        """
        rows_of: Counter[str] = Counter()
        self._disk.execute("UPDATE asked SET row = ? WHERE row > ?", (_EARLIER, _EARLIER))
        for row in reading.rows():
            try:
                fate, answers = self._judge(row, reading, rows_of)
                if row.problem:
                    raise _Bad(row.problem)
            except _Bad as bad:
                reading.complain(row, str(bad))
                reading.settle(row, "invalid")
                continue
            if fate == "unmatched" and (code := next((a.assignment for a in row.answers if a.assignment), "")):
                reading.complain(row, f"assignment: '{code[:40]}' is not of this batch")
            reading.settle(row, fate, answers)
        return reading.fate, rows_of

    def new(self) -> Iterator[pd.DataFrame]:
        """The answers that files have added: ``assignment``, ``position`` from 0, ``question``, ``value``, ``text``,
        ``response_ms`` (NaN where not given), ``pid_hash``, ``corrected``; in pieces of whole lists."""
        query = "assignment, position, question, value, free AS text, response_ms, pid_hash, new = 2 AS corrected"
        for piece in self._lists(query, "new > 0"):
            yield piece.astype({"corrected": bool})

    def begun(self) -> Iterator[pd.DataFrame]:
        """All that was asked of people who have begun, with what they answered, as ``exclusions.excluded`` takes it;
        ``participant`` is the keyed hash."""
        for piece in self._lists("assignment, kind, question, target, value, free, response_ms"):
            yield piece.assign(participant=piece["assignment"].map(self._owner))

    def _lists(self, columns: str, where: str = "TRUE") -> Iterator[pd.DataFrame]:
        numbers = dict.fromkeys(("value", "response_ms", "target"), float)
        begun = [code for code, owner in self._owner.items() if owner]
        for first in range(0, len(begun), LISTS):
            codes = begun[first : first + LISTS]
            marks = ", ".join("?" * len(codes))
            found = self._disk.execute(f"SELECT {columns} FROM asked WHERE assignment IN ({marks}) AND {where}", codes)
            piece = pd.DataFrame(found.fetchall(), columns=[column[0] for column in found.description])
            if len(piece):
                yield piece.astype({name: kind for name, kind in numbers.items() if name in piece})

    def _judge(self, row: Row, reading: Reading, rows_of: Counter[str]) -> tuple[str, int]:
        """The fate of one row, and how many of its answers are new; raises _Bad where it is invalid.

        A row of another tool may hold answers that the batch did not ask for (consent, age); they are passed over.
        """
        fates, new = set(), 0
        for answer in row.answers:
            if answer.assignment and (answer.position or _NUMBERED.match(answer.question)):
                fate = self._one(row, answer, reading)
                fates.add(fate)
                new += fate in ("accepted", "corrected")
        if row.participant:
            pid = self._pid(row.participant)
            rows_of[pid] += 1
        if not fates:  # a panel's list of submissions, or a tool's row without a place in the batch
            known = bool(row.participant) and pid in self._assignment_of
            return (row.stay if row.stay != "answered" else "accepted" if known else "unmatched"), 0
        if row.stay == "unfinished" and fates != {"unmatched"}:
            return "unfinished", new
        order = ("corrected", "accepted", "duplicates", "unanswered", "unmatched")
        return next(fate for fate in order if fate in fates), new

    def _one(self, row: Row, answer: Answer, reading: Reading) -> str:
        code = answer.assignment
        if code not in self._owner:
            return "unmatched"
        if not answer.text:
            return "unanswered"
        position, question = self._position(answer)
        place = self._place(code, position, question)
        if place is None:
            asked = self._column("question", code, "position = ?", position)
            if not asked:
                raise _Bad(f"position: {position + 1} is not in this assignment")
            raise _Bad(f"question: '{question[:40]}' is not asked there, but {', '.join(asked)}")
        value = _value(answer.text, place.scale, place.shown)
        response_ms = _decimal(answer.response_ms, "response_ms") if answer.response_ms else math.nan
        if response_ms < 0 or response_ms > LONGEST_MS:
            raise _Bad(f"response_ms: {response_ms:g} is outside 0 to {LONGEST_MS}")
        pid = self._person(code, row.participant)
        fate = "accepted"
        if place.row is not None:
            if place.before == value:
                return "duplicates"
            if place.row != _EARLIER or not self._correct:
                where = "an earlier import" if place.row == _EARLIER else f"row {place.row}"
                raise _Bad(f"value: {_said(value)} here, but {_said(place.before)} in {where}, for the same answer")
            fate = "corrected"
            reading.complain(row, f"value: {_said(value)} takes the place of {_said(place.before)}")
        number, text = (None, value) if isinstance(value, str) else (value, None)
        self._disk.execute(
            "UPDATE asked SET value = ?, free = ?, response_ms = ?, pid_hash = ?, row = ?, new = ? "
            "WHERE assignment = ? AND position = ? AND question = ?",
            (number, text, response_ms, pid, row.number, 1 + (fate == "corrected"), code, position, question),
        )
        self._compare(code, position, question, place.scale, value, reading.notes)
        return fate

    def _compare(self, code: str, position: int, question: str, scale: str, value: float | str, notes: Notes) -> None:
        """Counts trials in which the best picture is the worst; no rule excludes by it."""
        if scale in OTHER_END:
            other = self._place(code, position, question.removesuffix(scale) + OTHER_END[scale])
            if other is not None and other.row is not None and other.before == value:
                notes.count("trials in which one picture is named as the best and as the worst: {n}")

    def _place(self, code: str, position: int, question: str) -> _Place | None:
        query = "SELECT scale, shown, row, coalesce(free, value) FROM asked WHERE assignment = ? AND position = ? AND question = ?"
        found = self._disk.execute(query, (code, position, question)).fetchone()
        return None if found is None else _Place(*found)

    def _column(self, name: str, code: str, where: str, *given: Any) -> list[Any]:
        query = f"SELECT DISTINCT {name} FROM asked WHERE assignment = ? AND {where} ORDER BY {name}"
        return [found for (found,) in self._disk.execute(query, (code, *given))]

    def _position(self, answer: Answer) -> tuple[int, str]:
        """Position from 0 and question. Tools that cannot place attention trials among the pictures number both: the
        third picture is at ``#3``, the second attention trial asks ``attention_2``."""
        match = _NUMBERED.match(answer.question) if not answer.position else _LOOP.match(answer.position)
        if match:
            places = self._column("position", answer.assignment, "(kind = 'attention') = ?", not answer.position)
            if not 1 <= int(match[1]) <= len(places):
                raise _Bad(f"question: '{match[0][:40]}' is not asked in this assignment")
            return places[int(match[1]) - 1], answer.question if answer.position else ATTENTION
        return _whole_number(answer.position, "position") - 1, answer.question

    def _pid(self, raw: str) -> str:
        if raw not in self._pids:
            self._pids[raw] = keyed(self._salt, "participant", raw)
        return self._pids[raw]

    def _person(self, code: str, raw: str) -> str:
        """The keyed hash of who answered; one person has one assignment and the other way round."""
        if not raw:
            raise _Bad("participant: empty, but an answer belongs to a person")
        pid = self._pid(raw)
        if (self._owner[code] or pid) != pid:
            raise _Bad("participant: this assignment already belongs to another participant")
        self._owner[code] = pid
        if self._assignment_of.setdefault(pid, code) != code:
            raise _Bad(f"participant: this person already answered assignment '{self._assignment_of[pid]}'")
        return pid


def _value(text: str, scale: str, shown: int) -> float | str:
    """An answer on its scale; ``shown`` is the number of pictures that it is about."""
    if scale == "text":
        if len(text) > LONGEST_TEXT:
            raise _Bad(f"value: {len(text)} signs, and a text has {LONGEST_TEXT} at most")
        return text.replace("\0", "")  # which PostgreSQL cannot hold
    value = _decimal(text, "value")
    low, high = NUMBERS.get(scale, (1.0, float(shown)))
    if not low <= value <= high:
        raise _Bad(f"value: {value:g} is outside {low:g} to {high:g}")
    if scale != "vas" and value != round(value):
        raise _Bad(f"value: {value:g} is not one of {low:g}, {low + 1:g}, ... {high:g}")
    return value


def _said(value: float | str) -> str:
    return f"'{value[:40]}'" if isinstance(value, str) else f"{value:g}"


def _whole_number(text: str, column: str) -> int:
    value = _decimal(text, column)
    if value != round(value) or abs(value) > 1e9:
        raise _Bad(f"{column}: '{text[:40]}' is not a whole number")
    return int(value)


def _decimal(text: str, column: str) -> float:
    """A finite number; a decimal comma is understood."""
    try:
        value = float(text if "." in text else text.replace(",", ".", 1))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise _Bad(f"{column}: '{text[:40]}' is not a number")
    return value
