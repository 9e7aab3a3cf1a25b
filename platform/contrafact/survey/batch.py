"""A batch as files, out to any survey tool; `ledger.py` takes the answers in.

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
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from contrafact.errors import UserError
from contrafact.study.schema import NUMBERS, Question
from contrafact.survey.formats import jspsych, label_studio, qualtrics, surveyjs
from contrafact.survey.formats.outgoing import Outgoing, write_csv

ANSWER_COLUMNS = ("assignment", "position", "question", "value", "response_ms", "participant")
LONGEST_TEXT = 2000  # signs of free text
LONGEST_MS = 24 * 3600 * 1000
ATTENTION = "attention"  # the question that an attention trial asks, on 0 to 100


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
    missing: Sequence[str] = (),
) -> list[str]:
    """Write the batch as the folder ``to``, or as a zip file where the name ends in .zip; whole or not at all.

    ``picture`` gives the PNG of a stimulus key; ``pictures`` is the address, ending in a slash, under which the folder
    of pictures will be found by formats that do not carry it; ``missing`` are sentences on what no format carries
    (``Survey.not_in_files``). Returns sentences on what the format does not carry
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
        lost += missing
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
