"""SurveyJS: results as its form library gives them, one object a person."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from contrafact.survey.formats import table
from contrafact.survey.formats.outgoing import PLACES, Outgoing, write_json
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
    """Any JSON whose objects are people: those of a long table hold one value each."""
    return source.is_json and bool(source.first) and not table.is_long(source)


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
                notes.count("uploaded files, left out: {n}")
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


def write(folder: Path, batch: Outgoing) -> list[str]:
    """One survey for each list, ``surveys/<assignment>.json``. Returns what is not carried over."""
    (folder / "surveys").mkdir()
    altered = False
    for code, trials in batch.lists():
        first: list[dict[str, Any]] = [
            {"type": "text", "name": "assignment", "visible": False, "defaultValue": code},
            {"type": "text", "name": "participant", "title": "Your participant id", "isRequired": True, "maxLength": 100},
        ]
        pages: list[dict[str, Any]] = [{"name": "start", "elements": first}]
        for trial in trials:
            stem = f"p{trial[0]['position']:03d}"
            elements: list[dict[str, Any]] = []
            for place, file in enumerate(trial[0]["files"]):
                about = {"imageLink": batch.pictures + "images/" + file, "altText": batch.places[place], "startWithNewLine": place == 0}
                elements.append({"type": "image", "name": f"{stem}__picture_{place + 1}", **about})
            for row in trial:
                texts = {name: _inert(row[name]) for name in ("text", "low", "high")}
                altered = altered or any(texts[name] != row[name] for name in texts)
                element: dict[str, Any] = {"name": f"{stem}__{row['question']}", "title": texts["text"], "isRequired": True}
                if row["scale"] == "likert7":
                    ends = {"minRateDescription": texts["low"], "maxRateDescription": texts["high"]}
                    elements.append({"type": "rating", "rateMin": 1, "rateMax": 7, **ends, **element})
                elif row["scale"] in PLACES:
                    choices = [{"value": place, "text": name} for place, name in enumerate(batch.places, start=1)]
                    if row["scale"] == "worst":
                        differ = f"{{{element['name']}}} <> {{{element['name'].removesuffix('worst')}best}}"
                        element["validators"] = [{"type": "expression", "expression": differ, "text": "These are two pictures."}]
                    elements.append({"type": "radiogroup", "choices": choices, "colCount": 0, **element})
                elif row["scale"] == "text":
                    elements.append({"type": "comment", "maxLength": 2000, **element})
                else:
                    ends = {"description": f"0: {texts['low']}; 100: {texts['high']}"}
                    elements.append({"type": "slider", "min": 0, "max": 100, "step": 0.1, "allowClear": True, **ends, **element})
            pages.append({"name": stem, "elements": elements})
        survey = {"title": _inert(batch.title), "clearInvisibleValues": "none", "showPrevButton": False, "pages": pages}
        write_json(folder / "surveys" / f"{code}.json", survey)
    told = [
        "Lists are not handed out: give each participant one file of surveys/, and no file to two people.",
        "Response times are not recorded by the form library.",
        "There is no debriefing and no completion code.",
    ]
    return told + ["{ and < in texts have an invisible sign beside them, so that nothing reads them as names or markup."] * altered


def _inert(text: str) -> str:
    """Text that is neither a piped name nor markup, whatever the host makes of it: the form library takes ``{name}`` for
    another question's answer and shows texts as they are, but hosts can turn them into HTML."""
    return re.sub(r"[{<]", lambda sign: sign[0] + "\u200b", text)
