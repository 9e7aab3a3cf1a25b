"""SurveyJS: results as its form library gives them, one object a person."""

from __future__ import annotations

import re
from collections.abc import Iterator

from contrafact.survey.formats.rows import (
    UNFILLED,
    Answer,
    Notes,
    Row,
    Stay,
    is_personal,
    leaves,
    moment,
    person_column,
    text_of,
)
from contrafact.survey.formats.source import Source, plain

OUR_NAME = re.compile(r"^p(?P<position>\d{3,4})__(?P<question>[a-z][a-z0-9_]*)$")
_TIMES = {"happenedat": "ended", "completedat": "ended", "createdat": "started", "startedat": "started", "endedat": "ended"}
_KEYS = {"instanceid", "responseid", "resultid", "surveyresultid"}


def matches(source: Source) -> bool:
    return source.is_json and bool(source.first)


def read(source: Source, notes: Notes) -> Iterator[Row]:
    if {"pages", "elements"} & set(source.first) and any(isinstance(source.first.get(k), list) for k in ("pages", "elements")):
        raise source.refuse(" is the definition of a survey, not its results.")
    for record in source.records():
        cells = record.cells
        person = person_column(cells)
        answers: list[Answer] = []
        times = {}
        key, stay = "", "answered"
        assignment = text_of(cells.get("assignment"))
        for name, value in cells.items():
            if plain(name) in _TIMES:
                times[_TIMES[plain(name)]] = moment(text_of(value))
            elif plain(name) in _KEYS:
                key = text_of(value)
            elif name == person or name in ("assignment", "pageNo", "completed"):
                pass
            elif is_personal(name):
                notes.dropped[name] = None
            elif isinstance(value, list) and any(isinstance(item, dict) and "content" in item for item in value):
                notes.dropped[name] = None
                notes.count("{n} uploaded files are left out")
            elif ours := OUR_NAME.match(name):
                answers.append(Answer(ours["question"], text_of(value), assignment=assignment, position=ours["position"].lstrip("0")))
            else:
                answers += [Answer(leaf, text, assignment=assignment) for leaf, text in leaves(value, name) if text]
        if cells.get("completed") is False:
            stay = "unfinished"
        known = text_of(cells[person]).strip() if person else ""
        yield Row(
            record.row,
            known or key or f"{source.path.stem}#{record.row}",
            answers,
            key=key,
            stay=_stay(stay, answers, known),
            started=times.get("started"),
            ended=times.get("ended"),
            content=cells,
        )


def _stay(stay: str, answers: list[Answer], person: str) -> Stay:
    if UNFILLED.search(person):
        return "preview"
    return "unfinished" if stay == "unfinished" else "answered" if answers else "unanswered"
