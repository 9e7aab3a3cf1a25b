"""Results of Amazon Mechanical Turk, which closed in September 2026, from archives; and of Turkle, its clone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from contrafact.survey.formats.rows import (
    Answer,
    Notes,
    Row,
    Stay,
    by_plain,
    is_personal,
    leaves,
    moment,
    pick,
)
from contrafact.survey.formats.source import Source, plain

PREVIEW = "ASSIGNMENT_ID_NOT_AVAILABLE"
STATUS: dict[str, Stay] = {
    "submitted": "answered",
    "approved": "answered",
    "rejected": "answered",
    "returned": "unfinished",
    "abandoned": "unfinished",
    "accepted": "unfinished",
}
_STIMULUS = ("stimulus", "stimulusid", "image", "imageurl", "imageid", "img", "url", "picture", "id", "idstr", "itemid")


def matches(source: Source) -> bool:
    return "hitid" in source.names and any(name.startswith(("Answer.", "Input.")) for name in source.header)


def read(source: Source, notes: Notes) -> Iterator[Row]:
    names = by_plain(source.header)
    inputs = {plain(name[6:]): name for name in source.header if name.startswith("Input.")}
    shown = pick(inputs, *_STIMULUS)
    person = pick(names, "workerid", "turkleusername")
    answers = []
    for name in source.header:
        if name.startswith("Answer."):
            if is_personal(name[7:]):
                notes.dropped[name] = None
            else:
                answers.append(name)
    for record in source.records():
        cells = record.cells
        key = cells.get(names.get("assignmentid", ""), "")
        status = cells.get(names.get("assignmentstatus", ""), "").strip().lower()
        stay: Stay = "preview" if key == PREVIEW else STATUS.get(status, "answered")
        if status == "rejected":
            notes.count("rejected assignments, kept (payment and exclusion are two decisions): {n}")
        stimulus = cells[shown] if shown else next((cells[name] for name in inputs.values()), cells[names["hitid"]])
        yield Row(
            record.row,
            cells[person] if person else key,
            [
                Answer(
                    question,
                    text,
                    assignment=cells.get(inputs.get("assignment", ""), ""),
                    position=cells.get(inputs.get("position", ""), ""),
                    stimulus=stimulus,
                )
                for question, text in _answers(cells, answers)
            ],
            key=key,
            stay=stay,
            status=status,
            started=moment(cells.get(names.get("accepttime", ""), "")),
            ended=moment(cells.get(names.get("submittime", ""), "")),
            content=cells,
        )


def _answers(cells: Mapping[str, str], columns: list[str]) -> list[tuple[str, str]]:
    """Questions and answers; the columns of one radio button, ``x.yes`` and ``x.no``, become the option that is true."""
    found: list[tuple[str, str]] = []
    chosen: dict[str, list[str]] = {}
    for column in columns:
        name, text = column[7:], cells[column]
        if name == "taskAnswers" and text:
            found += _forms(text)
        elif "." in name and text in ("true", "false"):
            stem, option = name.rsplit(".", 1)
            chosen.setdefault(stem, [])
            if text == "true":
                chosen[stem].append(option)
        elif text:
            found.append((name, text))
    return found + [(name, "|".join(options)) for name, options in chosen.items() if options]


def _forms(text: str) -> list[tuple[str, str]]:
    """What a crowd form sends: a list of objects, where a choice is an object of truth values."""
    try:
        forms: Any = json.loads(text)
    except (ValueError, RecursionError):
        return [("taskAnswers", text)]
    found: list[tuple[str, str]] = []
    for form in forms if isinstance(forms, list) else [forms]:
        for name, value in form.items() if isinstance(form, dict) else [("taskAnswers", form)]:
            if is_personal(name):
                continue
            if isinstance(value, dict) and value and all(isinstance(item, bool) for item in value.values()):
                found.append((name, "|".join(option for option, on in value.items() if on)))
            else:
                found += [(leaf, answer) for leaf, answer in leaves(value, name) if answer]
    return found
