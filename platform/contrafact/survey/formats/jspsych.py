"""jsPsych 6 to 8: CSV or JSON, one person or many a file, nested responses or the JSON texts of older versions.

Also studies that save rows of their own with ``rt`` and ``response``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd

from contrafact.survey.formats.outgoing import Outgoing, write_csv, write_json
from contrafact.survey.formats.rows import (
    PEOPLE,
    UNFILLED,
    Answer,
    Notes,
    Row,
    Stay,
    by_plain,
    is_personal,
    leaves,
    moment,
    number_of,
    pick,
    text_of,
)
from contrafact.survey.formats.source import Record, Source, plain

_RESPONSES = ("response", "responses", "button_pressed", "key_press")  # the later two are jsPsych 6's
_STIMULI = ("stimulusid", "stimulus", "image", "imageid", "item", "question", "questiontext")
_QUESTIONS = ("questionname", "question_name", "measure", "scaleid", "scale", "questionid", "question", "item", "task", "phase")
_CHECK = re.compile(r"^(attention|comprehension|catch|is)?(attention|catch|comprehension)(check|trial)?s?$")
_TARGET = re.compile(r"(requested|expected|target|correct)(response|answer|value)?$")
_STANDARD = {
    "success", "timeout", "failed_images", "failed_audio", "failed_video", "trial_type", "trial_index", "time_elapsed",
    "internal_node_id", "plugin_version", "extension_type", "extension_version", "rt",
}  # fmt: skip
LONGEST_RUN = 10_000  # trials held in memory at once; more than one person ever gives


def matches(source: Source) -> bool:
    names = set(source.first) if source.is_json else set(source.header)
    return "trial_type" in names or {"trial_index", "time_elapsed"} <= names or (
        "rt" in names and bool(names & set(_RESPONSES))
    )


def read(source: Source, notes: Notes) -> Iterator[Row]:
    for run in _runs(source):
        # Where no id is told, the same trials are the same person, whatever the file is called.
        content = repr([record.cells for record in run])
        yield from _run(run, hashlib.blake2b(content.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest(), notes)


def _runs(source: Source) -> Iterator[list[Record]]:
    """The trials of one person: a list of the file, or up to where the trials are counted from the beginning again."""
    run: list[Record] = []
    for record in source.records():
        if run and (record.run != run[-1].run or _restarts(run[-1].cells, record.cells) or len(run) >= LONGEST_RUN):
            yield run
            run = []
        run.append(record)
    if run:
        yield run


def _restarts(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    first, second = (number_of(text_of(cells.get("trial_index"))) for cells in (before, after))
    return second < first or (second == 0 == first)


def _run(run: list[Record], fallback: str, notes: Notes) -> Iterator[Row]:
    names = by_plain(name for record in run for name in record.cells)
    known = [names[name] for name in PEOPLE if name in names]
    # An id that stands in one trial alone (a form at the beginning) is that of the whole run.
    somebody = next((text for name in known for record in run if (text := text_of(record.cells.get(name)).strip())), "")
    for name in names.values():
        if is_personal(name):
            notes.dropped[name] = None
    stimulus = pick(names, *_STIMULI)
    check = next((names[name] for name in names if _CHECK.match(name)), None)
    target = next((names[name] for name in names if check and _TARGET.search(name)), None)
    question = pick(names, *(plain(name) for name in _QUESTIONS))
    debug = pick(names, "debug", "ispreview", "preview")
    at = pick(names, "trialsubmitts", "submittedat", "timestamp", "answeredat")
    for record in run:
        cells = record.cells
        own = next((text for name in known if (text := text_of(cells.get(name)).strip())), "")
        missed = check is not None and text_of(cells.get(check)).strip().lower() in ("1", "true", "1.0")
        asked = text_of(cells.get(question)).strip() if question else ""
        if missed:
            asked = plain(check)
            notes.count("trials that check attention (no rule excludes by them before a study is named): {n}")
        if "trial_type" not in cells and "trial_type" in names.values():
            notes.count("rows without a trial_type: {n}")
        answers = [
            Answer(
                name or asked or text_of(cells.get("trial_type")) or "response",
                text,
                assignment=text_of(cells.get("assignment")),
                position=text_of(cells.get("position")),
                stimulus=text_of(cells.get(stimulus)) if stimulus else "",
                response_ms=text_of(cells.get("rt")).replace("null", ""),
                target=number_of(text_of(cells.get(target))) if missed and target else float("nan"),
            )
            for name, text in _answers(cells)
        ]
        stay: Stay = "answered" if answers else "unanswered"
        if debug and text_of(cells.get(debug)).strip().lower() in ("1", "true") or UNFILLED.search(own or somebody):
            stay = "preview"
        yield Row(
            record.row,
            own or somebody or fallback,
            answers,
            stay=stay,
            ended=moment(text_of(cells.get(at))) if at else None,
            content=(cells, "" if own or somebody else fallback),
        )


def _answers(cells: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and texts; the name is empty where the trial has one answer."""
    for column in _RESPONSES:
        value = cells.get(column)
        if value == "null":  # what its CSV writer makes of a missing answer
            continue
        if isinstance(value, str) and value[:1] in ("{", "["):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                return [("", value)]  # an answer that happens to begin with a brace
        if isinstance(value, dict):
            return [(name, text) for name, text in leaves(value) if text and not is_personal(name.rsplit(".", 1)[-1])]
        if text := text_of(value):
            return [("", text)]
    return []


def write(folder: Path, batch: Outgoing) -> list[str]:
    """A folder that any web server can give out as it is: jsPsych, the page, a file for each list, and ``links.csv``.

    Returns what is not carried over.
    """
    page = resources.files("contrafact.survey.formats") / "jspsych_page"
    index = ""
    for part in page.iterdir():
        if part.name == "index.html":
            index = part.read_text(encoding="utf-8")
        else:
            with part.open("rb") as source, (folder / part.name).open("wb") as copy:
                shutil.copyfileobj(source, copy)
    for name in re.findall(r"INTEGRITY\((.+?)\)", index):
        digest = base64.b64encode(hashlib.sha384((folder / name).read_bytes()).digest()).decode()
        index = index.replace(f"INTEGRITY({name})", f"sha384-{digest}")
    (folder / "index.html").write_text(index, encoding="utf-8")
    (folder / "lists").mkdir()
    codes = []
    for code, trials in batch.lists():
        codes.append(code)
        listed = [
            {
                "assignment": code,
                "position": trial[0]["position"],
                "files": [f"images/{name}" for name in trial[0]["files"]],
                "questions": [{name: row[name] for name in ("question", "text", "low", "high", "scale")} for row in trial],
            }
            for trial in trials
        ]
        write_json(folder / "lists" / f"{code}.json", {"title": batch.title, "trials": listed})
    links = [f"index.html?assignment={code}&participant=" for code in codes]
    write_csv(folder / "links.csv", pd.DataFrame({"assignment": codes, "link": links}))
    return [
        "Lists are not handed out: give each participant a link of links.csv with the participant's id at its end.",
        "The browser saves the answers as a file; where your host keeps them, call it in run.js and mend the hash in index.html.",
        "There is no consent, no debriefing and no completion code.",
        "A reload begins again: jsPsych keeps its data in memory.",
    ]
