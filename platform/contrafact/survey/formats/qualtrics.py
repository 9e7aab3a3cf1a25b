"""Qualtrics: results with three header rows, two or one, as numbers or as choice texts."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator

from contrafact.survey.formats.rows import PEOPLE, Answer, Notes, Row, Stay, is_personal, moment, number_of
from contrafact.survey.formats.source import Source, plain

# The fields of every response, by ImportId and by the labels of older and newer headers.
_FIELDS = {
    "startdate": "started", "enddate": "ended", "status": "status", "responsetype": "status", "progress": "progress",
    "finished": "finished", "durationinseconds": "seconds", "duration": "seconds", "recordeddate": "recorded",
    "recordid": "key", "responseid": "key", "distributionchannel": "channel", "userlanguage": "language",
    "responseset": "set",
}  # fmt: skip
_LEGACY = {"V1": "responseid", "V2": "responseset", "V3": "name", "V4": "externaldatareference", "V5": "email",
           "V6": "ipaddress", "V7": "status", "V8": "startdate", "V9": "enddate", "V10": "finished"}  # fmt: skip
PREVIEWS = {"1", "2", "survey preview", "survey test", "preview", "test", "9", "10", "12"}
SPAM = {"8", "spam", "possible spam", "possible spam (survey preview)"}
NOT_FINISHED = {"0", "false", "falsch", "faux", "falso", "no", "nein", "onwaar", "falskt"}
_TIMING = re.compile(r"^(?P<stem>.*?)[ _-]?(?:t|time|timer|timing)? ?_(First Click|Last Click|Page Submit|Click Count)$", re.IGNORECASE)
_LOOP = re.compile(r"^(?P<loop>\d+)_(?P<question>.+)$")


def matches(source: Source) -> bool:
    names = source.names
    ids = len(source.top) > 1 and any("ImportId" in cell for cell in source.top[1][:3])
    labels = {"startdate", "enddate"} <= names and bool(names & {"responseid", "recordeddate", "finished", "progress"})
    legacy = {"v1", "v8", "v9", "v10"} <= names
    return ids or labels or legacy


def header_rows(source: Source) -> int:
    """Three with the row of ImportIds, two where the second row repeats labels, else one."""
    if len(source.top) > 1 and any(_import_id(cell) for cell in source.top[1]):
        return 3
    if source.top and any(_import_id(cell) for cell in source.top[0]):
        return 2
    if source.top:
        labels = [plain(cell) for cell in source.top[0]]
        if {"responseid", "startdate", "enddate"} & set(labels):
            return 2
        key = next((place for place, name in enumerate(source.header) if plain(name) == "responseid"), None)
        if key is not None and len(source.top[0]) > key and not re.match(r"R_\w+", source.top[0][key]) and len(source.top) > 1:
            return 2 if re.match(r"R_\w+", source.top[1][key] if len(source.top[1]) > key else "") else 1
    return 1


def read(source: Source, notes: Notes) -> Iterator[Row]:
    count = header_rows(source)
    ids = [_import_id(cell) for cell in source.top[count - 2]] if count > 1 else []
    ids += [{}] * (len(source.header) - len(ids))
    zone = next((str(item["timeZone"]) for item in ids if "timeZone" in item), None)
    fields: dict[str, int] = {}
    questions: list[tuple[int, str]] = []
    pages: dict[str, int] = {}
    extra: dict[str, int] = {}
    person: tuple[int, int] | None = None
    for place, name in enumerate(source.header):
        stable = str(ids[place].get("ImportId", "")) or _LEGACY.get(name, name)
        role = _FIELDS.get(plain(stable)) or (_FIELDS.get(plain(name)) if not stable.startswith("QID") else None)
        if role:
            fields.setdefault(role, place)
        elif plain(name) in PEOPLE and not (plain(name).endswith("name") or plain(name) == "annotator"):
            rank = PEOPLE.index(plain(name))
            if person is None or rank < person[0]:
                person = (rank, place)
            notes.dropped[name] = None
        elif plain(name) in ("assignment", "position"):
            extra[plain(name)] = place
        elif match := _TIMING.match(name):
            if name.lower().endswith("page submit"):
                pages[match["stem"].strip()] = place
        elif is_personal(stable) or is_personal(name) or _device(name):
            notes.dropped[name] = None
        elif stable.endswith("Topics") or name.startswith("Q_") or plain(name) in ("tags", "sentiment"):
            continue  # what Qualtrics made of the answers, and its marks of fraud
        else:
            questions.append((place, name))
    if "key" not in fields:
        notes.warnings.append("no response ids: a response that stands here twice is told by its content alone")
    fraud = {name: place for place, name in enumerate(source.header) if name in ("Q_RecaptchaScore", "Q_RelevantIDDuplicate", "Q_BallotBoxStuffing")}
    for number, cells in source.lines(start=count):
        value = {role: cells[place].strip() for role, place in fields.items()}
        status, channel = value.get("status", "").lower(), value.get("channel", "").lower()
        progress = number_of(value.get("progress", ""))
        stay: Stay = "answered"
        if status in PREVIEWS or channel in ("preview", "test"):
            stay = "preview"
        elif value.get("finished", "").lower() in NOT_FINISHED or ("finished" not in value and progress < 100):
            stay = "unfinished"
        if status in SPAM:
            notes.count("{n} responses are marked as spam by Qualtrics; they are kept for the frozen rules to judge")
        if "Q_RecaptchaScore" in fraud and number_of(cells[fraud["Q_RecaptchaScore"]]) < 0.5:
            notes.count("{n} responses have a reCAPTCHA score below .5; they are kept for the frozen rules to judge")
        if any(cells[place].strip().lower() in ("true", "1") for name, place in fraud.items() if name != "Q_RecaptchaScore"):
            notes.count("{n} responses are marked as repeated by Qualtrics; they are kept for the frozen rules to judge")
        known = cells[person[1]].strip() if person else ""
        yield Row(
            number,
            known or value.get("key", "") or f"row {number}",
            [answer for place, name in questions if (answer := _answer(name, cells[place], cells, pages, extra))],
            key=value.get("key", ""),
            stay=stay,
            status=value.get("status", ""),
            started=moment(value.get("started", ""), zone),
            ended=moment(value.get("ended", "") or value.get("recorded", ""), zone),
            content=cells,
        )


def _answer(name: str, text: str, cells: list[str], pages: dict[str, int], extra: dict[str, int]) -> Answer | None:
    if not text.strip():
        return None
    loop = _LOOP.match(name)
    question = loop["question"] if loop else name
    position = loop["loop"] if loop else cells[extra["position"]] if "position" in extra else ""
    seconds = math.nan
    for stem in (name, re.sub(r"_\d+$", "", name)):  # the timer of a page is named after its question
        if stem in pages:
            seconds = number_of(cells[pages[stem]])
            break
    return Answer(
        question,
        text,
        assignment=cells[extra["assignment"]] if "assignment" in extra else "",
        position=position,
        response_ms=f"{seconds * 1000:.0f}" if math.isfinite(seconds) else "",
    )


def _device(name: str) -> bool:
    return bool(re.search(r"_(Browser|Version|Operating System|Resolution)$", name))


def _import_id(cell: str) -> dict[str, object]:
    if not cell.lstrip().startswith("{"):
        return {}
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) and "ImportId" in value else {}
