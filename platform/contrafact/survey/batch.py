"""A batch as files: out to any survey tool, and the answers back in with the fate of every row.

    DIR/trials.csv             one row for each answer asked for: assignment, position, question, text, picture
    DIR/trials.jsonl           the same for machines, every text untouched
    DIR/images/*.png           pictures under names that tell nothing of image, arm or dose
    DIR/answers_template.csv   what comes back: assignment, position, question, value, response_ms, participant
    DIR/data_card.md           what the columns mean

Names of pictures and codes of assignments are keyed hashes: without the study's salt neither can be traced to a
stimulus, and participants' ids are hashed with the same salt before anything is kept.
"""

from __future__ import annotations

import hashlib
import hmac
import html
import math
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pandas as pd

from contrafact.errors import UserError
from contrafact.study.schema import NUMBERS, Question
from contrafact.survey.formats import jspsych, label_studio, qualtrics, surveyjs
from contrafact.survey.formats.outgoing import Outgoing, write_csv
from contrafact.survey.formats.reading import Fate, Reading
from contrafact.survey.formats.rows import Answer, Notes, Row

ANSWER_COLUMNS = ("assignment", "position", "question", "value", "response_ms", "participant")
EARLIER = "an earlier import"
ATTENTION = "attention"  # the question that an attention trial asks, on 0 to 100
OTHER_END = {"best": "worst", "worst": "best"}
LONGEST_TEXT = 2000  # signs of free text
LONGEST_MS = 24 * 3600 * 1000
_LOOP = re.compile(r"#(\d{1,4})$")
_NUMBERED = re.compile(rf"{ATTENTION}_(\d{{1,2}})$")


def keyed(salt: bytes, *labels: object, length: int = 64) -> str:
    """HMAC-SHA256 of the labels under the study's salt, as hex digits."""
    text = "\x1f".join(map(str, labels))
    return hmac.new(salt, text.encode(), hashlib.sha256).hexdigest()[:length]


def asked(trials: pd.DataFrame, questions: Sequence[Question]) -> pd.DataFrame:
    """Every answer that a batch asks for, one row each, in order.

    ``trials`` has ``assignment`` (code), ``position`` (from 0), ``kind``, ``stimulus``, ``target`` and, where trials show
    several pictures, ``place`` (from 0), a row for each. Trials with pictures, shown a second time or not, are asked all
    ``questions`` (``Survey.asked``), attention trials the one question ``attention``. Adds ``question``, ``text``, ``low``, ``high``, ``scale`` and ``shown``, the stimuli from left to
    right.
    """
    shown: dict[tuple[str, int], tuple[object, ...]] = {}
    placed = trials.sort_values("place", kind="stable") if "place" in trials else trials
    for code, position, stimulus in placed[["assignment", "position", "stimulus"]].itertuples(index=False):
        shown[code, position] = shown.get((code, position), ()) + (() if pd.isna(stimulus) else (stimulus,))
    trials = trials[trials["place"] == 0].drop(columns="place") if "place" in trials else trials
    places = zip(trials["assignment"], trials["position"], strict=True)
    trials = trials.assign(shown=pd.Series([shown[key] for key in places], index=trials.index, dtype=object))
    wording = pd.DataFrame([{**q.model_dump(), "question": q.name} for q in questions])
    wording = wording[["question", "text", "low", "high", "scale"]]
    images = trials[trials["kind"] != "attention"].merge(wording, how="cross")
    attention = trials[trials["kind"] == "attention"].assign(question=ATTENTION, low="0", high="100", scale="vas")
    attention["text"] = [attention_text(target) for target in attention["target"]]
    rows = pd.concat([frame for frame in (images, attention) if len(frame)])
    return rows.sort_values(["assignment", "position"], kind="stable", ignore_index=True)


def attention_text(target: float) -> str:
    """What an attention trial says."""
    return f"This one checks attention: please answer {target:g}."


def export(
    to: Path,
    trials: pd.DataFrame,
    questions: Sequence[Question],
    picture: Callable[[object], bytes],
    salt: bytes,
    *,
    title: str,
    format: str = "csv",
    pictures: str = "",
) -> list[str]:
    """Write the batch as the folder ``to``, or as a zip file where the name ends in .zip; whole or not at all.

    ``picture`` gives the PNG of a stimulus key; ``pictures`` is the address, ending in a slash, under which the folder
    of pictures will be found by formats that do not carry it. Returns sentences on what the format does not carry
    over; they stand in the data card too. Raises UserError where ``to`` exists, there is no such format, or it needs
    an address for the pictures.
    """
    if format not in WRITERS:
        raise UserError(f"There is no format '{format}' to write.", hint=f"Formats are {', '.join(WRITERS)}.")
    if format in NEED_ADDRESS and not re.fullmatch(r"https?://[^\s\"'<>${}]+/", pictures):
        raise UserError(
            f"A {format} survey takes its pictures from a web address.",
            hint="Name it with --pictures https://.../ (it ends in a slash) and put the folder images there.",
        )
    if to.exists():
        raise UserError(f"{to} exists already.", hint="Name a new folder, or move the old one away.")
    to.parent.mkdir(parents=True, exist_ok=True)
    rows = asked(trials, questions)
    shown = list(dict.fromkeys(one for several in rows["shown"] for one in several))
    names = {stimulus: f"{keyed(salt, 'picture', stimulus, length=20)}.png" for stimulus in shown}
    files = pd.Series([[names[one] for one in several] for several in rows["shown"]], index=rows.index, dtype=object)
    rows = rows.assign(files=files, position=rows["position"] + 1)
    with tempfile.TemporaryDirectory(dir=to.parent, prefix=".batch-") as scratch:
        folder = Path(scratch) / "batch"
        (folder / "images").mkdir(parents=True)
        for stimulus, name in sorted(names.items(), key=lambda item: item[1]):
            (folder / "images" / name).write_bytes(picture(stimulus))
        lost = WRITERS[format](folder, Outgoing(title, rows, questions, pictures))
        if rows.loc[rows["kind"] == "image", "target"].notna().any():
            lost.append("Nobody is told after a guess whether it was right: the answers are in no file that goes out.")
        card = _card(title, trials, questions, len(names), format, lost)
        (folder / "data_card.md").write_text(card, encoding="utf-8")
        if to.suffix == ".zip":
            shutil.move(shutil.make_archive(str(Path(scratch) / "packed"), "zip", folder), to)
        else:
            folder.rename(to)
    return lost


def _write_plain(folder: Path, batch: Outgoing) -> list[str]:
    """``trials.csv`` for people, ``trials.jsonl`` with every text untouched for machines, and the answers' template."""
    table = batch.rows.assign(file=[" ".join(f"images/{name}" for name in names) for names in batch.rows["files"]])
    table = table[["assignment", "position", "question", "text", "scale", "low", "high", "file"]]
    write_csv(folder / "trials.csv", table)
    table.to_json(folder / "trials.jsonl", orient="records", lines=True, force_ascii=False)
    write_csv(folder / "answers_template.csv", table.reindex(columns=ANSWER_COLUMNS))
    return []


WRITERS: dict[str, Callable[[Path, Outgoing], list[str]]] = {
    "csv": _write_plain,
    "qualtrics": qualtrics.write,
    "jspsych": jspsych.write,
    "surveyjs": surveyjs.write,
    "label_studio": label_studio.write,
}
NEED_ADDRESS = ("qualtrics", "surveyjs", "label_studio")


def _card(
    title: str, trials: pd.DataFrame, questions: Sequence[Question], pictures: int, format: str, lost: Sequence[str]
) -> str:
    asked_for = "\n".join(f"- `{q.name}`: {_line(q.text)} ({_ends(q)})" for q in questions)
    attention = trials[trials["kind"] == "attention"].groupby("assignment").size()
    not_carried = "\n".join([f"## What {format} does not carry over", *(f"- {sentence}" for sentence in lost)])
    parts = [_PLAIN_CARD] * (format == "csv") + [f"{not_carried}\n"] * bool(lost)
    return f"""# {_line(title)}

{trials["assignment"].nunique()} assignments, {pictures} pictures, \
{int((trials["kind"] != "attention").sum())} times a picture is shown, {int(attention.max()) if len(attention) else 0} attention \
trials an assignment.

## Questions
{asked_for}
- `{ATTENTION}`: the answer asked for in the text, 0 to 100; no picture is shown

{chr(10).join(parts)}"""


def _ends(question: Question) -> str:
    """What the numbers of an answer mean."""
    if question.scale in NUMBERS:
        low, high = NUMBERS[question.scale]
        return f"{low:g} = {_line(question.low)}, {high:g} = {_line(question.high)}"
    return "free text" if question.scale == "text" else "a picture by its place: 1 is the first"


_PLAIN_CARD = """## trials.csv, and trials.jsonl for machines
| column | meaning |
|---|---|
| assignment | code of one list; give each participant one, and no code twice |
| position | place in the list, from 1; show in this order |
| question, text, scale, low, high | what is asked, on `vas` (0 to 100) or `likert7` (1 to 7), and the ends' labels; `choice`, `best` and `worst` ask for the place of a picture, from 1; `text` is free |
| file | the picture, relative to this folder; several stand side by side in this order; empty on attention trials |

In trials.csv a text that a spreadsheet would run as a formula has an apostrophe before it; trials.jsonl has every
text as it is.

## answers.csv
Fill in a copy of answers_template.csv. Comma, semicolon or tab, UTF-8.

| column | meaning |
|---|---|
| assignment, position, question | as in trials.csv |
| value | the answer on the question's scale, or the text; empty: not answered |
| response_ms | milliseconds from picture to answer; may be empty |
| participant | the panel's id; a keyed hash of it is kept, never the id |
"""


def _line(text: str) -> str:
    """Text on one line of Markdown, which shows it as text: no markup, no link, no table."""
    return re.sub(r"([\\`*_{}\[\]#|!])", r"\\\1", html.escape(re.sub(r"\s+", " ", text), quote=False))


def read_answers(
    reading: Reading, expected: pd.DataFrame, salt: bytes, *, correct: bool = False
) -> tuple[pd.DataFrame, Fate, Counter[str]]:
    """The answers of a file of any format, checked against what was asked.

    ``expected`` is ``asked(...)`` of the batch, with ``value`` and ``pid_hash`` where answers are known already (NaN
    and None elsewhere) and ``free`` for free text, so that a file may be imported twice. An answer that differs from a known one is invalid,
    unless ``correct``. Returns the new answers (``assignment``, ``position`` from 0, ``question``, ``value``, ``text``,
    ``response_ms`` NaN where not given, ``pid_hash``, ``corrected``), the fate of every row, and how many rows each
    person (by hash) has. Raw participant ids do not leave this function. Raises UserError where the file as a whole cannot be read.
    """
    ledger = _Ledger(expected, salt, correct, reading.notes)
    accepted: list[dict[str, Any]] = []
    for row in reading.rows():
        try:
            fate, answers = ledger.judge(row)
            if row.problem:
                raise _Bad(row.problem)
        except _Bad as bad:
            reading.complain(row, str(bad))
            reading.settle(row, "invalid")
            continue
        if fate == "unmatched" and (code := next((a.assignment for a in row.answers if a.assignment), "")):
            reading.complain(row, f"assignment: '{code[:40]}' is not of this batch")
        for answer in answers:
            if answer["corrected"]:
                reading.complain(row, f"value: {_said(answer['given'])} takes the place of {_said(answer['before'])}")
        reading.settle(row, fate, len(answers))
        accepted += answers
    columns = ["assignment", "position", "question", "value", "text", "response_ms", "pid_hash", "corrected"]
    return pd.DataFrame(accepted, columns=columns), reading.fate, ledger.rows_of


class _Bad(Exception):
    """A row that breaks a rule: column and what is wrong with it."""


class _Ledger:
    """What was asked, what is answered already, and whose each assignment is."""

    def __init__(self, expected: pd.DataFrame, salt: bytes, correct: bool, notes: Notes) -> None:
        self.salt, self.correct, self.notes = salt, correct, notes
        self.scale: dict[tuple[str, int, str], tuple[str, int]] = {}  # and how many pictures are shown
        self.known: dict[tuple[str, int, str], tuple[str, float | str]] = {}
        self.owner: dict[str, str] = {}
        self.attention: dict[str, list[int]] = {}
        self.pictures: dict[str, list[int]] = {}
        self.rows_of: Counter[str] = Counter()
        self.pids: dict[str, str] = {}
        for row in expected.to_dict("records"):
            key = (str(row["assignment"]), int(row["position"]), str(row["question"]))
            self.scale[key] = str(row["scale"]), len(row["shown"])
            places = (self.attention if key[2] == ATTENTION else self.pictures).setdefault(key[0], [])
            if key[1] not in places[-1:]:
                places.append(key[1])
            free = row.get("free")
            if isinstance(free, str) or not math.isnan(row.get("value", math.nan)):
                self.known[key] = (EARLIER, free if isinstance(free, str) else float(row["value"]))
                self.owner[key[0]] = str(row["pid_hash"])
        self.codes = {key[0] for key in self.scale}
        self.assignment_of = {pid: code for code, pid in self.owner.items()}

    def judge(self, row: Row) -> tuple[str, list[dict[str, Any]]]:
        """The fate of one row, and its answers that are new; raises _Bad where it is invalid.

        A row of another tool may hold answers that the batch did not ask for (consent, age); they are passed over.
        """
        fates, new = set(), []
        for answer in row.answers:
            if answer.assignment and (answer.position or _NUMBERED.match(answer.question)):
                fate, taken = self._one(row, answer)
                fates.add(fate)
                new += [taken] if taken else []
        if row.participant:
            pid = self._pid(row.participant)
            self.rows_of[pid] += 1
        if not fates:  # a panel's list of submissions, or a tool's row without a place in the batch
            known = bool(row.participant) and pid in self.assignment_of
            return (row.stay if row.stay != "answered" else "accepted" if known else "unmatched"), []
        if row.stay == "unfinished" and fates != {"unmatched"}:
            return "unfinished", new
        order = ("corrected", "accepted", "duplicates", "unanswered", "unmatched")
        return next(fate for fate in order if fate in fates), new

    def _one(self, row: Row, answer: Answer) -> tuple[str, dict[str, Any] | None]:
        code = answer.assignment
        if code not in self.codes:
            return "unmatched", None
        if not answer.text:
            return "unanswered", None
        position, question = self._place(answer)
        key = (code, position, question)
        if key not in self.scale:
            there = sorted({k[2] for k in self.scale if k[:2] == (code, position)})
            if not there:
                raise _Bad(f"position: {position + 1} is not in this assignment")
            raise _Bad(f"question: '{question[:40]}' is not asked there, but {', '.join(there)}")
        value = _value(answer.text, *self.scale[key])
        response_ms = _decimal(answer.response_ms, "response_ms") if answer.response_ms else math.nan
        if response_ms < 0 or response_ms > LONGEST_MS:
            raise _Bad(f"response_ms: {response_ms:g} is outside 0 to {LONGEST_MS}")
        pid = self._person(code, row.participant)
        fate, first = "accepted", cast("float | str", math.nan)
        if key in self.known:
            place, first = self.known[key]
            if first == value:
                return "duplicates", None
            if place != EARLIER or not self.correct:
                raise _Bad(f"value: {_said(value)} here, but {_said(first)} in {place}, for the same answer")
            fate = "corrected"
        self.known[key] = (f"row {row.number}", value)
        if (scale := self.scale[key][0]) in OTHER_END:
            other = self.known.get((code, position, question.removesuffix(scale) + OTHER_END[scale]))
            if other and other[1] == value:
                self.notes.count("trials in which one picture is named as the best and as the worst: {n}")
        return fate, {
            "assignment": code,
            "position": position,
            "question": question,
            "value": math.nan if isinstance(value, str) else value,
            "text": value if isinstance(value, str) else None,
            "given": value,
            "response_ms": response_ms,
            "pid_hash": pid,
            "corrected": fate == "corrected",
            "before": first,
        }

    def _place(self, answer: Answer) -> tuple[int, str]:
        """Position from 0 and question. Tools that cannot place attention trials among the pictures number both: the
        third picture is at ``#3``, the second attention trial asks ``attention_2``."""
        match = _NUMBERED.match(answer.question) if not answer.position else _LOOP.match(answer.position)
        if match:
            places = (self.pictures if answer.position else self.attention).get(answer.assignment, [])
            if not 1 <= int(match[1]) <= len(places):
                raise _Bad(f"question: '{match[0][:40]}' is not asked in this assignment")
            return places[int(match[1]) - 1], answer.question if answer.position else ATTENTION
        return _whole_number(answer.position, "position") - 1, answer.question

    def _pid(self, raw: str) -> str:
        if raw not in self.pids:
            self.pids[raw] = keyed(self.salt, "participant", raw)
        return self.pids[raw]

    def _person(self, code: str, raw: str) -> str:
        """The keyed hash of who answered; one person has one assignment and the other way round."""
        if not raw:
            raise _Bad("participant: empty, but an answer belongs to a person")
        pid = self._pid(raw)
        if self.owner.setdefault(code, pid) != pid:
            raise _Bad("participant: this assignment already belongs to another participant")
        if self.assignment_of.setdefault(pid, code) != code:
            raise _Bad(f"participant: this person already answered assignment '{self.assignment_of[pid]}'")
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

