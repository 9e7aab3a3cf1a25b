"""Prolific: a draft of the study, its submissions, approvals and screen-outs.

Written from the public reference of Prolific's API, version 1; no live call was made while it was written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from contrafact.errors import UserError
from contrafact.panels.links import PROVIDERS, entry_link
from contrafact.study.schema import Study
from contrafact.survey.batch import keyed

ADDRESS = "https://api.prolific.com"
TRIES = 5
LONGEST_WAIT = 60.0  # seconds before another try
PAGE = 100
CODES = {
    "COMPLETED": [{"action": "MANUALLY_REVIEW"}],
    "NO_CONSENT": [{"action": "REQUEST_RETURN", "return_reason": "No consent was given."}],
    "FAILED_ATTENTION_CHECK": [{"action": "MANUALLY_REVIEW"}],
    "INCOMPATIBLE_DEVICE": [{"action": "REQUEST_RETURN", "return_reason": "The device cannot show the study."}],
    "SCREENED_OUT": [{"action": "MANUALLY_REVIEW"}],
}
"""Ways to end, with what Prolific does then; who is screened out by the study's own questions is paid by a person."""


class OutcomeUnknown(UserError):
    """The panel did not answer, and the request may or may not have been carried out."""


@dataclass(frozen=True)
class Request:
    """One call, exactly as it is sent, but for the token."""

    method: str
    path: str
    json: Mapping[str, Any] | None = None

    def facts(self, address: str) -> dict[str, Any]:
        headers = {"Authorization": "Token ***"} | ({"Content-Type": "application/json"} if self.json is not None else {})
        return {"method": self.method, "url": address + self.path, "headers": headers, "json": self.json}


class Prolific:
    """Calls that are safe to repeat are repeated on 429, on 5xx and on silence; others only where they were refused
    before anything happened (429). Raises UserError where Prolific refuses, and ``OutcomeUnknown`` where nobody knows.
    """

    def __init__(
        self, token: str, address: str = ADDRESS, *, timeout: float = 30.0, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.address = address
        self._sleep = sleep
        self._http = httpx.Client(base_url=address, timeout=timeout, headers={"Authorization": f"Token {token}"})

    def close(self) -> None:
        self._http.close()

    def send(self, request: Request, *, repeatable: bool) -> Any:
        """The answer's JSON, None where it is empty."""
        told = f"Prolific, {request.method} {_without_ids(request.path)}"
        for attempt in range(1, TRIES + 1):
            wait = min(2.0 ** (attempt - 1), LONGEST_WAIT)
            try:
                answer = self._http.request(request.method, request.path, json=request.json)
            except httpx.ConnectError as error:
                unknown, why = False, f"cannot be reached ({type(error).__name__})"
            except httpx.HTTPError as error:
                unknown, why = True, f"did not answer ({type(error).__name__})"
            else:
                if answer.is_success:
                    return _json(answer, told)
                if answer.status_code == 429:
                    unknown, why = False, "has too many requests (429)"
                    wait = min(_seconds(answer.headers.get("Retry-After", ""), wait), LONGEST_WAIT)
                elif answer.status_code >= 500:
                    unknown, why = True, f"failed ({answer.status_code})"
                else:
                    raise UserError(f"{told}: refused ({answer.status_code}): {_reason(answer)}")
            if unknown and not repeatable:
                raise OutcomeUnknown(f"{told}: {why}; it may have been carried out.", hint="Look before trying again.")
            if attempt < TRIES:
                self._sleep(wait)
        raise UserError(f"{told}: {why}, {TRIES} times.", hint="Try again later: the same command goes on.")

    def pages(self, path: str) -> Iterator[dict[str, Any]]:
        """All results of a list, page by page."""
        offset = 0
        while True:
            joint = "&" if "?" in path else "?"
            page = self.send(Request("GET", f"{path}{joint}limit={PAGE}&offset={offset}"), repeatable=True)
            found = page.get("results", []) if isinstance(page, dict) else []
            yield from found
            offset += len(found)
            if len(found) < PAGE:
                return

    def find(self, internal_name: str) -> dict[str, Any] | None:
        """The study of this internal name, the latest if there are several."""
        found = [study for study in self.pages("/api/v1/studies/") if study.get("internal_name") == internal_name]
        return found[-1] if found else None

    def draft(self, request: Request) -> dict[str, Any]:
        """The draft, made now, or the study of the same internal name that is there already."""
        assert request.json is not None
        known = self.find(str(request.json["internal_name"]))
        if known is not None:
            return known
        try:
            return dict(self.send(request, repeatable=False))
        except OutcomeUnknown:
            known = self.find(str(request.json["internal_name"]))
            if known is None:
                raise
            return known

    def submissions(self, study: str) -> Iterator[dict[str, Any]]:
        yield from self.pages(f"/api/v1/studies/{study}/submissions/")

    def approve(self, study: str, submissions: list[str]) -> None:
        """Approves submissions; one that is approved already stays so."""
        body = {"study_id": study, "submission_ids": submissions}
        self.send(Request("POST", "/api/v1/submissions/bulk-approve/", body), repeatable=True)

    def screen_out(self, study: str, submissions: list[str], amount: float) -> None:
        """Screens out with ``amount`` (major units) for each; not repeated where the outcome is unknown."""
        body = {"submission_ids": submissions, "bonus_per_submission": amount, "increase_places": True}
        self.send(Request("POST", f"/api/v1/studies/{study}/screen-out-submissions/", body), repeatable=False)

    def set_up_bonuses(self, study: str, amounts: list[tuple[str, int]]) -> str:
        """The id of a set of bonuses (participant's id, minor units) that is not paid yet; one that is never paid
        does no harm, so this may be repeated."""
        lines = "\n".join(f"{participant},{amount // 100}.{amount % 100:02d}" for participant, amount in amounts)
        body = {"study_id": study, "csv_bonuses": lines}
        return str(self.send(Request("POST", "/api/v1/submissions/bonus-payments/", body), repeatable=True)["id"])

    def pay_bonuses(self, bulk: str) -> None:
        """Pays a set. Sent once: to Prolific a repeat is a second payment."""
        self.send(Request("POST", f"/api/v1/bulk-bonus-payments/{bulk}/pay/"), repeatable=False)


def internal_name(study: Study, batch: str) -> str:
    return f"contrafact {study.study} {batch}"


def completion_codes(salt: bytes) -> dict[str, str]:
    """A code of 8 characters for each way to end, known to nobody without the study's salt."""
    return {kind: keyed(salt, "completion", kind, length=8).upper() for kind in CODES}


def draft_request(study: Study, batch: str, salt: bytes) -> Request:
    """The request that makes the draft. Raises UserError where the study names no panel."""
    survey = study.survey
    if survey is None or survey.panel is None:
        raise UserError(
            f"The study '{study.study}' names no panel.", hint="Add `panel:` with address and description under `survey:`."
        )
    panel, pay = survey.panel, survey.pay
    codes = completion_codes(salt)
    screens = survey.service is not None and bool(survey.service.screening)
    return Request("POST", "/api/v1/studies/", {
        "name": study.title,
        "internal_name": internal_name(study, batch),
        "description": panel.description,
        "external_study_url": entry_link(PROVIDERS["prolific"], panel.address),
        "prolific_id_option": "url_parameters",
        "completion_codes": [
            {"code": codes[kind], "code_type": "OTHER" if kind == "SCREENED_OUT" else kind, "actor": "participant", "actions": actions}
            for kind, actions in CODES.items() if kind != "SCREENED_OUT" or screens
        ],
        **({"is_custom_screening": True} if screens else {}),
        "total_available_places": survey.participants,
        "estimated_completion_time": max(1, round(pay.minutes)),
        "maximum_allowed_time": round(panel.maximum_minutes or max(2 + 3 * pay.minutes, 20)),
        "reward": reward(study),
        "device_compatibility": list(panel.devices),
        "peripheral_requirements": [],
        "filters": [dict(item) for item in panel.filters],
        "submissions_config": {"max_submissions_per_participant": 1, "max_concurrent_submissions": -1},
    })  # fmt: skip


def reward(study: Study) -> int:
    """What one participant gets, in minor units."""
    assert study.survey is not None
    return round(study.survey.pay.hourly * study.survey.pay.minutes / 60 * 100)


def status_of(submission: Mapping[str, Any]) -> str:
    """A status as it is kept: ``AWAITING_REVIEW``, whatever the sign between its words."""
    return str(submission.get("status", "")).upper().replace(" ", "_").replace("-", "_")[:24]


def participant_of(submission: Mapping[str, Any]) -> str:
    return str(submission.get("participant_id") or submission.get("participant") or "")


def _without_ids(path: str) -> str:
    """A path for messages and logs: ids are cut short."""
    return "/".join(part if len(part) < 20 or not part.isalnum() else "..." for part in path.split("?")[0].split("/"))


def _seconds(text: str, otherwise: float) -> float:
    try:
        return max(float(text), 0.0)
    except ValueError:
        return otherwise


def _json(answer: httpx.Response, told: str) -> Any:
    if not answer.content:
        return None
    try:
        return answer.json()
    except ValueError as error:
        raise UserError(f"{told}: the answer is not JSON.") from error


def _reason(answer: httpx.Response) -> str:
    """Why it was refused, in Prolific's words, cut short."""
    try:
        detail = answer.json()
        detail = detail.get("error", detail) if isinstance(detail, dict) else detail
        detail = detail.get("detail") or detail.get("message") or detail if isinstance(detail, dict) else detail
    except ValueError:
        detail = answer.text
    return " ".join(str(detail).split())[:300]
