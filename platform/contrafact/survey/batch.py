"""A batch as files: out to any survey tool, and the answers back in with the fate of every row.

    DIR/trials.csv             one row for each answer asked for: assignment, position, question, text, picture
    DIR/images/*.png           pictures under names that tell nothing of image, arm or dose
    DIR/answers_template.csv   what comes back: assignment, position, question, value, response_ms, participant
    DIR/data_card.md           what the columns mean

Names of pictures and codes of assignments are keyed hashes: without the study's salt neither can be traced to a
stimulus, and participants' ids are hashed with the same salt before anything is kept.
"""

from __future__ import annotations

import csv
import hashlib
import hmac
import io
import math
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd

from contrafact.errors import UserError, nearest
from contrafact.study.schema import Question

ANSWER_COLUMNS = ("assignment", "position", "question", "value", "response_ms", "participant")
REQUIRED = ("assignment", "position", "question", "value")
ATTENTION = "attention"  # the question that an attention trial asks, on 0 to 100
SCALES = {"vas": (0.0, 100.0), "likert7": (1.0, 7.0)}
LONGEST_MS = 24 * 3600 * 1000
MAX_BYTES = 200_000_000
FORMULA_STARTS = "=+-@\t\r\n＝＋－＠"


def keyed(salt: bytes, *labels: object, length: int = 64) -> str:
    """HMAC-SHA256 of the labels under the study's salt, as hex digits."""
    text = "\x1f".join(map(str, labels))
    return hmac.new(salt, text.encode(), hashlib.sha256).hexdigest()[:length]


def guarded(cell: object) -> object:
    """Text that a spreadsheet would run as a formula, made harmless by a leading apostrophe."""
    if not isinstance(cell, str) or _number(cell):
        return cell
    start = cell.lstrip("' ")[:1]  # an apostrophe of the text's own must not be taken for the guard
    return "'" + cell if start and start in FORMULA_STARTS else cell


def unguarded(cell: str) -> str:
    """The text as it was before ``guarded``."""
    return cell[1:] if cell[:1] == "'" and guarded(cell[1:]) == cell else cell


def _number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def asked(trials: pd.DataFrame, questions: Sequence[Question]) -> pd.DataFrame:
    """Every answer that a batch asks for, one row each, in order.

    ``trials`` has ``assignment`` (code), ``position`` (from 0), ``kind``, ``stimulus`` and ``target``. Pictures are
    asked all ``questions``, attention trials the one question ``attention``. Adds ``question``, ``text``, ``low``,
    ``high`` and ``scale``.
    """
    wording = pd.DataFrame([{**q.model_dump(), "question": q.name, "kind": "image"} for q in questions])
    wording = wording[["kind", "question", "text", "low", "high", "scale"]]
    images = trials[trials["kind"] == "image"].merge(wording, on="kind")
    attention = trials[trials["kind"] == "attention"].assign(question=ATTENTION, low="0", high="100", scale="vas")
    attention["text"] = [f"This one checks attention: please answer {target:g}." for target in attention["target"]]
    rows = pd.concat([frame for frame in (images, attention) if len(frame)])
    return rows.sort_values(["assignment", "position"], kind="stable", ignore_index=True)


def export(
    to: Path,
    trials: pd.DataFrame,
    questions: Sequence[Question],
    picture: Callable[[object], bytes],
    salt: bytes,
    *,
    title: str,
) -> Path:
    """Write the batch as the folder ``to``, or as a zip file where the name ends in .zip; whole or not at all.

    ``picture`` gives the PNG of a stimulus key. Raises UserError where ``to`` exists.
    """
    if to.exists():
        raise UserError(f"{to} exists already.", hint="Name a new folder, or move the old one away.")
    to.parent.mkdir(parents=True, exist_ok=True)
    rows = asked(trials, questions)
    shown = rows["stimulus"].dropna().unique().tolist()
    names = {stimulus: f"{keyed(salt, 'picture', stimulus, length=20)}.png" for stimulus in shown}
    with tempfile.TemporaryDirectory(dir=to.parent, prefix=".batch-") as scratch:
        folder = Path(scratch) / "batch"
        (folder / "images").mkdir(parents=True)
        for stimulus, name in sorted(names.items(), key=lambda item: item[1]):
            (folder / "images" / name).write_bytes(picture(stimulus))
        table = rows.assign(file=[f"images/{names[s]}" if s in names else "" for s in rows["stimulus"]])
        table["position"] += 1
        columns = ["assignment", "position", "question", "text", "scale", "low", "high", "file"]
        write_csv(folder / "trials.csv", table[columns])
        write_csv(folder / "answers_template.csv", table.reindex(columns=ANSWER_COLUMNS))
        (folder / "data_card.md").write_text(_card(title, trials, questions, len(names)), encoding="utf-8")
        if to.suffix == ".zip":
            shutil.move(shutil.make_archive(str(Path(scratch) / "packed"), "zip", folder), to)
        else:
            folder.rename(to)
    return to


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """A CSV that is safe to open in a spreadsheet: UTF-8, text cells and headers guarded."""
    safe = table.rename(columns=guarded).map(guarded)
    safe.to_csv(path, index=False, encoding="utf-8", lineterminator="\n")


def _card(title: str, trials: pd.DataFrame, questions: Sequence[Question], pictures: int) -> str:
    asked_for = "\n".join(
        f"- `{q.name}`: {q.text} ({SCALES[q.scale][0]:g} = {q.low}, {SCALES[q.scale][1]:g} = {q.high})"
        for q in questions
    )
    attention = trials[trials["kind"] == "attention"].groupby("assignment").size()
    return f"""# {title}

{trials["assignment"].nunique()} assignments, {pictures} pictures, \
{int((trials["kind"] == "image").sum())} pictures to rate, {int(attention.max()) if len(attention) else 0} attention \
trials an assignment.

## Questions
{asked_for}
- `{ATTENTION}`: the answer asked for in the text, 0 to 100; no picture is shown

## trials.csv
| column | meaning |
|---|---|
| assignment | code of one list; give each participant one, and no code twice |
| position | place in the list, from 1; show in this order |
| question, text, scale, low, high | what is asked, on `vas` (0 to 100) or `likert7` (1 to 7), and the ends' labels |
| file | the picture, relative to this folder; empty on attention trials |

## answers.csv
Fill in a copy of answers_template.csv. Comma, semicolon or tab, UTF-8.

| column | meaning |
|---|---|
| assignment, position, question | as in trials.csv |
| value | the answer on the question's scale; empty: not answered |
| response_ms | milliseconds from picture to answer; may be empty |
| participant | the panel's id; a keyed hash of it is kept, never the id |
"""


@dataclass(frozen=True)
class Fate:
    """What became of the rows of an answers file; the counts add up to ``rows``.

    ``unanswered`` have an empty value, ``duplicates`` repeat a row that is there already, ``unmatched`` name an
    assignment that is not of this batch, ``invalid`` break a rule. ``problems`` are sentences with row and column.
    """

    rows: int
    accepted: int
    duplicates: int
    unanswered: int
    unmatched: int
    invalid: int
    problems: tuple[str, ...] = field(default=())

    def facts(self) -> dict[str, object]:
        return {**asdict(self), "problems": list(self.problems)}

    def refuse_invalid(self, name: str) -> None:
        """Raise UserError with the first problems if any row is invalid."""
        if self.invalid:
            told = "\n".join(f"- {problem}" for problem in self.problems[:20])
            more = f"\n- and {len(self.problems) - 20} more" if len(self.problems) > 20 else ""
            raise UserError(
                f"{name}: {self.invalid} of {self.rows} rows cannot be taken in:\n{told}{more}",
                hint="Nothing was written. Mend these rows and import the file again.",
            )


def read_answers(path: Path, expected: pd.DataFrame, salt: bytes) -> tuple[pd.DataFrame, Fate]:
    """The answers of a file, checked against what was asked.

    ``expected`` is ``asked(...)`` of the batch, with ``value`` and ``pid_hash`` where answers are known already (NaN
    and None elsewhere), so that a file may be imported twice. Returns the new answers (``assignment``, ``position``
    from 0, ``question``, ``value``, ``response_ms`` NaN where not given, ``pid_hash``) and the fate of every row. Raw
    participant ids do not leave this function. Raises UserError where the file as a whole cannot be read.
    """
    header, rows = _table(path)
    ledger = _Ledger(expected, salt)
    accepted: list[dict[str, object]] = []
    problems: list[str] = []
    count = {"duplicates": 0, "unanswered": 0, "unmatched": 0, "invalid": 0}
    for number, cells in rows:
        try:
            if len(cells) != len(header):
                raise _Bad(f"all columns: {len(cells)} cells where the header has {len(header)}")
            fate, answer = ledger.judge(number, dict(zip(header, cells, strict=True)))
        except _Bad as bad:
            problems.append(f"row {number}, {bad}")
            count["invalid"] += 1
            continue
        if fate == "unmatched":
            problems.append(f"row {number}, assignment: '{cells[header.index('assignment')][:40]}' is not of this batch")
        if answer is None:
            count[fate] += 1
        else:
            accepted.append(answer)
    columns = ["assignment", "position", "question", "value", "response_ms", "pid_hash"]
    fates = Fate(rows=len(rows), accepted=len(accepted), problems=tuple(problems), **count)
    return pd.DataFrame(accepted, columns=columns), fates


class _Bad(Exception):
    """A row that breaks a rule: column and what is wrong with it."""


class _Ledger:
    """What was asked, what is answered already, and whose each assignment is."""

    def __init__(self, expected: pd.DataFrame, salt: bytes) -> None:
        self.salt = salt
        self.scale: dict[tuple[str, int, str], str] = {}
        self.known: dict[tuple[str, int, str], tuple[str, float]] = {}
        self.owner: dict[str, str] = {}
        for row in expected.to_dict("records"):
            key = (str(row["assignment"]), int(row["position"]), str(row["question"]))
            self.scale[key] = str(row["scale"])
            if not math.isnan(row.get("value", math.nan)):
                self.known[key] = ("an earlier import", float(row["value"]))
                self.owner[key[0]] = str(row["pid_hash"])
        self.codes = {key[0] for key in self.scale}
        self.assignment_of = {pid: code for code, pid in self.owner.items()}

    def judge(self, number: int, row: dict[str, str]) -> tuple[str, dict[str, object] | None]:
        """The fate of one row, and its answer where it is a new one; raises _Bad where it is invalid."""
        code = row["assignment"]
        if code not in self.codes:
            return "unmatched", None
        if not row["value"]:
            return "unanswered", None
        position, question = _whole_number(row["position"], "position") - 1, row["question"]
        key = (code, position, question)
        if key not in self.scale:
            there = sorted({k[2] for k in self.scale if k[:2] == (code, position)})
            if not there:
                raise _Bad(f"position: {position + 1} is not in this assignment")
            raise _Bad(f"question: '{question[:40]}' is not asked there, but {', '.join(there)}")
        value = self._value(row["value"], self.scale[key])
        response_ms = _decimal(row["response_ms"], "response_ms") if row.get("response_ms") else math.nan
        if response_ms < 0 or response_ms > LONGEST_MS:
            raise _Bad(f"response_ms: {response_ms:g} is outside 0 to {LONGEST_MS}")
        pid = self._person(code, row.get("participant", ""))
        if key in self.known:
            place, first = self.known[key]
            if first == value:
                return "duplicates", None
            raise _Bad(f"value: {value:g} here, but {first:g} in {place}, for the same answer")
        self.known[key] = (f"row {number}", value)
        return "accepted", {
            "assignment": code,
            "position": position,
            "question": question,
            "value": value,
            "response_ms": response_ms,
            "pid_hash": pid,
        }

    @staticmethod
    def _value(text: str, scale: str) -> float:
        value = _decimal(text, "value")
        low, high = SCALES[scale]
        if not low <= value <= high:
            raise _Bad(f"value: {value:g} is outside {low:g} to {high:g}")
        if scale == "likert7" and value != round(value):
            raise _Bad(f"value: {value:g} is not one of 1, 2, ... 7")
        return value

    def _person(self, code: str, raw: str) -> str:
        """The keyed hash of who answered; one person has one assignment and the other way round."""
        if not raw:
            raise _Bad("participant: empty, but an answer belongs to a person")
        pid = keyed(self.salt, "participant", raw)
        if self.owner.setdefault(code, pid) != pid:
            raise _Bad("participant: this assignment already belongs to another participant")
        if self.assignment_of.setdefault(pid, code) != code:
            raise _Bad(f"participant: this person already answered assignment '{self.assignment_of[pid]}'")
        return pid


def _whole_number(text: str, column: str) -> int:
    value = _decimal(text, column)
    if value != round(value):
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


def _table(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Header and numbered rows (the header is row 1) of a CSV in the forms that spreadsheets write."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    if len(raw) > MAX_BYTES:
        raise UserError(f"{path} has {len(raw) / 1e6:.0f} MB; at most {MAX_BYTES / 1e6:.0f} are read.")
    encoding = "utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}).", hint="Save it as CSV UTF-8.") from error
    first = text.split("\n", 1)[0]
    separator = max(",;\t", key=first.count)
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
    except csv.Error as error:
        raise UserError(f"{path} is not a CSV file: {error}.") from error
    if not lines:
        raise UserError(f"{path} is empty.", hint=f"Its first row must be {','.join(ANSWER_COLUMNS)}.")
    header = [unguarded(cell.strip()).lower() for cell in lines[0]]
    for name in REQUIRED:
        if name not in header:
            close = nearest(name, header)
            raise UserError(
                f"{path}, row 1: the column '{name}' is missing" + (f" ('{close}' is there)." if close else "."),
                hint=f"The columns are {', '.join(ANSWER_COLUMNS)}.",
            )
    if repeated := [name for name in ANSWER_COLUMNS if header.count(name) > 1]:
        raise UserError(f"{path}, row 1: the column '{repeated[0]}' stands there twice.")
    rows = [
        (number, [unguarded(cell.strip()) for cell in cells])
        for number, cells in enumerate(lines[1:], start=2)
        if any(cell.strip() for cell in cells)
    ]
    return header, rows
