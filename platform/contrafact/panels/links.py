"""Any panel that hands people over by a link: which parameters they bring, and where they are sent back to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from contrafact.errors import UserError
from contrafact.survey.batch import keyed
from contrafact.survey.formats.rows import UNFILLED


@dataclass(frozen=True)
class Provider:
    """``entry`` goes from the parameter of a link to the placeholder that the panel fills in. ``participant`` and
    ``session`` name two of them. ``done`` is where people are sent at the end, with ``{code}`` and the names of
    parameters filled in; empty where the code is shown to be copied."""

    entry: Mapping[str, str]
    participant: str
    session: str = ""
    pattern: str = r"[A-Za-z0-9_.:@-]{1,128}"
    done: str = ""


PROVIDERS = {
    "prolific": Provider(
        {name: "{{%" + name + "%}}" for name in ("PROLIFIC_PID", "STUDY_ID", "SESSION_ID")},
        participant="PROLIFIC_PID",
        session="SESSION_ID",
        pattern=r"[0-9a-f]{24}",
        done="https://app.prolific.com/submissions/complete?cc={code}",
    ),
    "connect": Provider(
        {name: "{" + name + "}" for name in ("participantId", "assignmentId", "projectId")},
        participant="participantId",
        session="assignmentId",
        done="https://connect.cloudresearch.com/participant/project/{projectId}/complete",
    ),
    "sona": Provider({"survey_code": "%SURVEY_CODE%"}, participant="survey_code", pattern=r"[0-9]{1,12}"),
    "link": Provider({"participant": ""}, participant="participant"),
}


SIGNATURE = "sig"  # the parameter of a signed link


class WrongLink(UserError):
    """Somebody's link is not one of the panel's."""


@dataclass(frozen=True)
class Arrival:
    """Who came: raw ids, to be hashed at once. A preview never counts."""

    participant: str
    session: str
    preview: bool


def entry_link(provider: Provider, address: str) -> str:
    """The study's address with the panel's placeholders, as it is pasted into the panel."""
    query = urlencode(provider.entry, safe="{}%")
    return address + ("&" if "?" in address else "?") + query


def signature(salt: bytes, participant: str) -> str:
    """What proves that a link to this id is ours: HMAC-SHA256 under the study's salt."""
    return keyed(salt, "link", participant, length=20)


def signed_links(provider: Provider, address: str, salt: bytes, people: Iterable[str]) -> dict[str, str]:
    """A link for each id, by id. Raises UserError where an id is none, or stands there twice."""
    found: dict[str, str] = {}
    for number, one in enumerate(people, start=1):
        if not re.fullmatch(provider.pattern, one):
            raise UserError(f"Line {number}: '{one[:40]}' is no id.", hint=f"An id matches {provider.pattern}.")
        if one in found:
            raise UserError(f"Line {number}: '{one[:40]}' stands there twice.")
        query = urlencode({provider.participant: one, SIGNATURE: signature(salt, one)})
        found[one] = address + ("&" if "?" in address else "?") + query
    return found


def arrival(provider: Provider, query: Mapping[str, str]) -> Arrival:
    """Who comes with these parameters. No parameters, or placeholders that were not filled in, are a preview.

    Raises WrongLink where the id is not of the panel's kind.
    """
    participant = query.get(provider.participant, "")
    session = query.get(provider.session, "") if provider.session else ""
    if not participant or UNFILLED.search(participant):
        return Arrival("", "", preview=True)
    if not re.fullmatch(provider.pattern, participant):
        raise WrongLink(f"The link's `{provider.participant}` is no id of this panel.")
    return Arrival(participant, session if re.fullmatch(provider.pattern, session) else "", preview=False)


def done_link(provider: Provider, code: str, query: Mapping[str, str]) -> str:
    """Where a person who has finished is sent, empty where the code is only shown."""
    values = {name: quote(query.get(name, ""), safe="") for name in provider.entry} | {"code": quote(code, safe="")}
    return re.sub(r"\{(\w+)\}", lambda match: values[match[1]], provider.done)
