"""What every format is brought to: rows with answers, each row with a fate."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Literal
from zoneinfo import ZoneInfo

from contrafact.survey.formats.source import plain

Stay = Literal["answered", "unfinished", "preview", "unanswered"]

# Dropped at the door, whatever the format: who somebody is, where, and on what machine.
PERSONAL = re.compile(
    r"^(ip|ipaddr(ess)?|.*ipaddress|email.*|.*email|(recipient|participant|worker|first|last|full|user|sur|given|family)?"
    r"(first|last|full|user)?name|phone.*|.*phone(number)?|(post|street|home)?address|location.*|.*latitude|.*longitude|lat|lng|"
    r"geo.*|useragent|browser.*|operatingsystem|os|osversion|screenresolution|resolution|device(id|model|type)?|deviceinfo|"
    r"external(data)?reference|tokenguid|paymentcode|recipientid|accesstoken|cookie.*|fingerprint.*|dateofbirth|birthdate|"
    r"birthday|zip(code)?|postcode|postalcode|city|town|.*facebook.*|.*paypal.*|iban|ssn)$"
)
# Ids of people, best first.
PEOPLE = (
    "prolificpid", "prolificid", "prolificsubjectid", "participant", "participantid", "participantkey",
    "participantprivateid", "pid", "workerid", "subject", "subjectid", "subjid", "raterid", "rater", "respondentid",
    "respondent", "userid", "personid", "turkleusername", "psiturkuniqueid", "annotator",
)  # fmt: skip
# Other ids, which are no answers and say who somebody is to whoever holds the panel's lists.
IDS = {"studyid", "sessionid", "submissionid", "hitid", "assignmentid", "runid", "experimentid", "participantpublicid",
       "responseid", "annotationid", "turksubmitto", "sonaid", "surveycode"}  # fmt: skip
DAMAGED_ID = re.compile(r"^\d([.,]\d+)?E\+\d+$", re.IGNORECASE)
DAMAGED_DATE = re.compile(r"^(\d{1,2}-[A-Z][a-z]{2}|[A-Z][a-z]{2}-\d{1,2}|\d{1,2}/\d{1,2}/\d{2,4}|\d{1,2}\.[A-Z][a-zä]{2})$")
UNFILLED = re.compile(r"\{\{.*\}\}|\$\{.*\}|%[A-Z_]+%")


@dataclass(slots=True)
class Answer:
    """One answer to one question: the text as it stood in the file, and what it was asked about.

    ``assignment`` and ``position`` (from 1, as in the files that went out) lead back to a batch. ``target`` is what an
    attention trial asked for.
    """

    question: str
    text: str
    assignment: str = ""
    position: str = ""
    stimulus: str = ""
    response_ms: str = ""
    target: float = math.nan


@dataclass(slots=True)
class Row:
    """One row of a file. ``key`` is the id by which the source itself tells rows apart, empty where it has none."""

    number: int
    participant: str
    answers: list[Answer]
    key: str = ""
    stay: Stay = "answered"
    status: str = ""
    started: datetime | None = None
    ended: datetime | None = None
    problem: str = ""
    content: Any = None


@dataclass
class Notes:
    """What a reader has to say about a file as a whole."""

    warnings: list[str] = field(default_factory=list)
    dropped: dict[str, None] = field(default_factory=dict)
    counted: dict[str, int] = field(default_factory=dict)

    def count(self, what: str) -> None:
        """One more of a kind that is told once, with its number; the text ends in ``{n}``."""
        self.counted[what] = self.counted.get(what, 0) + 1

    def said(self) -> list[str]:
        return [*self.warnings, *(what.replace("{n}", str(n)) for what, n in self.counted.items())]


def person_column(header: Iterable[str]) -> str | None:
    """The column that holds the participant's id."""
    found = {plain(name): name for name in reversed(list(header))}
    return next((found[name] for name in PEOPLE if name in found), None)


def is_personal(name: str) -> bool:
    """Whether a column must not come in: it is personal, or an id that leads back to a person."""
    return bool(PERSONAL.match(plain(name))) or plain(name) in IDS or plain(name) in PEOPLE


def pick(names: Mapping[str, str], *wanted: str) -> str | None:
    """The first of ``wanted`` (plain names) that is there; ``names`` goes from plain names to columns."""
    return next((names[name] for name in wanted if name in names), None)


def by_plain(header: Iterable[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in header:
        found.setdefault(plain(name), name)
    return found


def text_of(value: Any) -> str:
    """A JSON value as the text of a cell: numbers as they are written, null as nothing."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, list) and all(not isinstance(item, (list, dict)) for item in value):
        return "|".join(text_of(item) for item in value)
    return json.dumps(value, ensure_ascii=False, sort_keys=True) if isinstance(value, (list, dict)) else str(value)


def leaves(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """The answers inside a nested response, by dotted name; a list that holds objects stays one JSON text."""
    if isinstance(value, dict) and value:
        return [leaf for name, item in value.items() for leaf in leaves(item, f"{prefix}.{name}" if prefix else str(name))]
    return [(prefix, text_of(value) if value != {} else "")]


def number_of(text: str) -> float:
    """The number that a cell holds, NaN where it holds none."""
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) and "_" not in text else math.nan


_ZONES = {"PST": -8, "PDT": -7, "UTC": 0, "GMT": 0, "EST": -5, "EDT": -4}  # MTurk's, never the machine's
_MTURK = re.compile(r"^\w{3} (\w{3} \d{2} \d{2}:\d{2}:\d{2}) ([A-Z]{3}) (\d{4})$")


def moment(text: str, zone: str | None = None) -> datetime | None:
    """A time in UTC, from ISO 8601, seconds or milliseconds since 1970, or MTurk's own way; None where it is none.

    ``zone`` is that of a time which names no zone (UTC where it is None).
    """
    text = text.strip()
    if not text:
        return None
    try:
        if match := _MTURK.match(text):
            at = datetime.strptime(f"{match[1]} {match[3]}", "%b %d %H:%M:%S %Y")
            return at.replace(tzinfo=timezone(timedelta(hours=_ZONES[match[2]]))).astimezone(UTC)
        if re.fullmatch(r"\d{9,14}(\.\d+)?", text):
            return datetime.fromtimestamp(float(text) / (1000 if float(text) > 1e11 else 1), UTC)
        at = datetime.fromisoformat(text)
        return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=ZoneInfo(zone or "UTC")).astimezone(UTC)
    except (ValueError, KeyError, OverflowError, OSError):
        return None
