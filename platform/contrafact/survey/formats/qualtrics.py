"""Qualtrics: results with three header rows, two or one, as numbers or as choice texts."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pandas as pd

from contrafact.survey.formats.outgoing import PLACES, Outgoing, write_csv
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
_OWN = {"responseid", "recordeddate", "finished", "progress", "responsetype", "durationinseconds", "distributionchannel",
        "userlanguage", "ipaddress"}  # fmt: skip
_MADE = re.compile(r"Topics$|^Q_|_DO(_\w+)?$")
LONGEST_QUERY = 8000  # signs; common servers take a request line of 8 kB
_LOOP = re.compile(r"^(?P<loop>\d+)_(?P<question>.+)$")


def matches(source: Source) -> bool:
    names = source.names
    ids = len(source.top) > 1 and any("ImportId" in cell for cell in source.top[1][:3])
    labels = bool(names & {"startdate", "enddate", "recordeddate"}) and len(names & _OWN) >= 2
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
        elif _MADE.search(stable) or _MADE.search(name) or plain(name) in ("tags", "sentiment"):
            continue  # what Qualtrics made of the answers, the order of what was shown, and its marks of fraud
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
            notes.count("responses that Qualtrics marks as spam, kept for the frozen rules to judge: {n}")
        if "Q_RecaptchaScore" in fraud and number_of(cells[fraud["Q_RecaptchaScore"]]) < 0.5:
            notes.count("responses with a reCAPTCHA score below .5, kept for the frozen rules to judge: {n}")
        if any(cells[place].strip().lower() in ("true", "1") for name, place in fraud.items() if name != "Q_RecaptchaScore"):
            notes.count("responses that Qualtrics marks as repeated, kept for the frozen rules to judge: {n}")
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
    # Loop n is the n-th picture of a list; the attention trials among them are not looped.
    position = f"#{loop['loop']}" if loop else cells[extra["position"]] if "position" in extra else ""
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


def write(folder: Path, batch: Outgoing) -> list[str]:
    """``survey.txt`` (Advanced TXT), ``loop_merge.csv`` (no header, as Qualtrics wants it) and ``links.csv``.

    The list reaches the survey by its link: ``picture_1`` and so on are embedded data, and loop n shows picture_n; where
    a trial shows several, they are ``picture_n_1``, ``picture_n_2``. Result columns are then ``<loop>_<question>``.
    Returns what is not carried over.
    """
    lists, places = dict(batch.lists()), range(1, len(batch.places) + 1)
    pictures = {code: [trial[0] for trial in trials if trial[0]["files"]] for code, trials in lists.items()}
    checks = {code: [trial[0] for trial in trials if not trial[0]["files"]] for code, trials in lists.items()}
    loops, attention = max(map(len, pictures.values())), max(map(len, checks.values()))
    shown = [[f"picture_{n}" + f"_{place}" * (len(places) > 1) for place in places] for n in range(1, loops + 1)]
    fields = ["PROLIFIC_PID", "assignment", *(name for loop in shown for name in loop), *(f"target_{n}" for n in range(1, attention + 1))]
    lines = ["[[AdvancedFormat]]", "", *(f"[[ED:{name}]]" for name in fields), "", "[[Block:Pictures]]", ""]
    image = "".join(
        f'<img src="{html.escape(batch.pictures)}images/${{lm://Field/{place}}}" alt="{name}">'
        for place, name in zip(places, batch.places, strict=True)
    ) + "<br>"
    for number, question in enumerate(batch.questions):
        text = (image if number == 0 else "") + _inert(question.text)
        lines += _question(question.name, text, question.model_dump(), len(places))
    for n in range(1, attention + 1):
        text = f"This one checks attention: please answer ${{e://Field/target_{n}}}."
        lines += [f"[[Block:Attention {n}]]", "", *_question(f"attention_{n}", text, {"scale": "vas", "low": "0", "high": "100"}, 0)]
    (folder / "survey.txt").write_text("\n".join(lines), encoding="utf-8")
    merge = pd.DataFrame([[*(f"${{e://Field/{name}}}" for name in loop), str(n)] for n, loop in enumerate(shown, start=1)])
    write_csv(folder / "loop_merge.csv", merge, header=False)
    links = [
        {
            "assignment": code,
            "query": urlencode(
                {"assignment": code}
                | {name: file for loop, row in zip(shown, pictures[code], strict=False) for name, file in zip(loop, row["files"], strict=True)}
                | {f"target_{n}": f"{row['target']:g}" for n, row in enumerate(checks[code], start=1)}
            ),
        }
        for code in lists
    ]
    write_csv(folder / "links.csv", pd.DataFrame(links))
    told = [
        "In the editor give the block Pictures Loop & Merge with loop_merge.csv and no randomisation: a text file cannot.",
        "Lists are not handed out: give each participant a link with one query of links.csv at its end.",
        "The line from 0 to 100 is a field for a number: a text file cannot make sliders. Forced answers cannot be asked for.",
        "Response times are not recorded; add a Timing question named after the question and `_t` to have them.",
    ]
    if attention:
        told.append("Attention trials come after the pictures instead of among them.")
    if any(question.scale == "worst" for question in batch.questions):
        told.append("Nothing keeps people from naming one picture as the best and as the worst; the import counts such trials.")
    if (longest := max(len(link["query"]) for link in links)) > LONGEST_QUERY:
        told.append(f"The longest query has {longest} signs, and some browsers and hosts cut addresses off: try it first.")
    if min(map(len, pictures.values())) < loops:
        told.append("Lists are not of one length: loops without a picture must be skipped by display logic.")
    return told


def _question(name: str, text: str, about: Mapping[str, Any], pictures: int) -> list[str]:
    low, high = _inert(about["low"]), _inert(about["high"])
    if about["scale"] in ("likert7", *PLACES):
        last, ends = (7, f"1 = {low}, 7 = {high}") if about["scale"] == "likert7" else (pictures, "By its place: 1 is the first picture.")
        choices = [line for n in range(1, last + 1) for line in (f"[[Choice:{n}]]", str(n))]
        return ["[[Question:MC:SingleAnswer:Horizontal]]", f"[[ID:{name}]]", f"{text}<br>{ends}", "[[AdvancedChoices]]", *choices, ""]
    if about["scale"] == "text":
        return ["[[Question:TE:Essay]]", f"[[ID:{name}]]", text, ""]
    return ["[[Question:TE:SingleLine]]", f"[[ID:{name}]]", f"{text}<br>A number from 0 ({low}) to 100 ({high}).", ""]


def _inert(text: str) -> str:
    """Text that is no markup, no tag of the format and no piped field; a blank line would end the question."""
    safe = html.escape(text).replace("[[", "[&#91;").replace("${", "$&#123;")
    return re.sub(r"[\r\n\u2028\u2029]+", "<br>", safe)
