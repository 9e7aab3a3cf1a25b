"""A study at Prolific: what the panel says beside what was answered, approvals, screen-outs, bonuses."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from contrafact.errors import UserError
from contrafact.panels import ledger, prolific
from contrafact.panels.prolific import Prolific
from contrafact.study.schema import Study
from contrafact.survey.batch import keyed

MAX_LINES = 20_000


class Ground(ledger.Ground, Protocol):
    """What is asked of the store."""

    def batches(self, study_id: int) -> Sequence[Any]: ...

    def put_submission(
        self, study_id: int, submission: str, pid_hash: str, status: str, at: datetime, event: str | None = None
    ) -> bool: ...

    def finished_participants(self, study_id: int) -> set[str]: ...

    def right_guesses(self, study_id: int, question: str) -> Mapping[str, int]: ...

    def turned_away(self, study_id: int) -> Mapping[str, set[str]]: ...


def draft_request(ground: Ground, study_id: int, study: Study) -> prolific.Request:
    """The request that makes the draft of the newest batch. Raises UserError where there is none, or it is simulated."""
    batches = ground.batches(study_id)
    if not batches:
        raise UserError(f"The study '{study.study}' has no batch yet.", hint="Run the study up to its field stage first.")
    if batches[-1].simulated:
        raise UserError(
            f"The batch '{batches[-1].name}' is for simulated respondents.", hint="Remove `respondents:` to ask people."
        )
    return prolific.draft_request(study, batches[-1].name, ground.salt(study_id))


def published(ground: Ground, panel: Prolific, study_id: int, study: Study) -> str:
    """Prolific's id of the study. Raises UserError where there is no draft."""
    request = draft_request(ground, study_id, study)
    assert request.json is not None
    found = panel.find(str(request.json["internal_name"]))
    if found is None:
        raise UserError(f"The study '{study.study}' has no draft at Prolific.", hint="contrafact panel draft")
    return str(found["id"])


def reconcile(ground: Ground, panel: Prolific, study_id: int, panel_study: str) -> dict[str, Any]:
    """Takes in what the panel says now (webhooks may be lost), and sets it beside the answers.

    Returns counts by status, how many changed, whole lists without a submission, and submissions that are to be paid
    without a whole list.
    """
    salt, now = ground.salt(study_id), datetime.now(UTC)
    finished = ground.finished_participants(study_id)
    counts: Counter[str] = Counter()
    changed, without_list, seen = 0, 0, set()
    for submission in panel.submissions(panel_study):
        status, person = prolific.status_of(submission), _person(salt, submission)
        counts[status] += 1
        seen.add(person)
        changed += ground.put_submission(study_id, keyed(salt, "submission", submission["id"]), person, status, now)
        without_list += status in ("AWAITING_REVIEW", "APPROVED") and person not in finished
    return {
        "statuses": dict(sorted(counts.items())),
        "changed": changed,
        "lists_without_submission": len(finished - seen),
        "submissions_without_list": without_list,
    }


def to_approve(ground: Ground, panel: Prolific, study_id: int, panel_study: str) -> tuple[list[str], int]:
    """Submissions that await review, with a whole list and the code of those who finished; and how many others wait
    for a person's decision. Nobody is rejected by a program."""
    salt = ground.salt(study_id)
    finished, code = ground.finished_participants(study_id), prolific.completion_codes(salt)["COMPLETED"]
    good, others = [], 0
    for submission in panel.submissions(panel_study):
        if prolific.status_of(submission) != "AWAITING_REVIEW":
            continue
        entered = submission.get("study_code") or submission.get("entered_code")
        if _person(salt, submission) in finished and entered == code:
            good.append(str(submission["id"]))
        else:
            others += 1
    return good, others


def to_screen_out(ground: Ground, panel: Prolific, study_id: int, panel_study: str) -> list[str]:
    """Submissions that await review of people whom the screening questions turned away, with the code of that page."""
    salt = ground.salt(study_id)
    people, code = set().union(*ground.turned_away(study_id).values()), prolific.completion_codes(salt)["SCREENED_OUT"]
    return [
        str(submission["id"])
        for submission in panel.submissions(panel_study)
        if prolific.status_of(submission) == "AWAITING_REVIEW"
        and _person(salt, submission) in people
        and (submission.get("study_code") or submission.get("entered_code")) == code
    ]


EARNED = "right-guesses"
"""The reason under which right guesses are paid, once for each submission."""


def earned(ground: Ground, panel: Prolific, study_id: int, study: Study, panel_study: str) -> dict[str, int]:
    """What right guesses earned, by id of the approved submission, in minor units: all that was not sent yet.

    Raises UserError where the study promises no bonus.
    """
    survey = study.survey
    if survey is None or not survey.pay.bonus or survey.guessed is None:
        raise UserError(f"The study '{study.study}' promises no bonus.", hint="Name a file of bonuses, or set survey.pay.bonus.")
    salt, right = ground.salt(study_id), ground.right_guesses(study_id, survey.guessed)
    sent = {p.submission for p in ground.payments(study_id) if p.reason == EARNED and p.state in ("paying", "paid")}
    amounts = {
        str(submission["id"]): round(right.get(_person(salt, submission), 0) * survey.pay.bonus * 100)
        for submission in panel.submissions(panel_study)
        if prolific.status_of(submission) in ("APPROVED", "PARTIALLY_APPROVED")
        and keyed(salt, "submission", submission["id"]) not in sent
    }
    return {submission: amount for submission, amount in amounts.items() if amount}


def read_bonuses(path: Path) -> dict[str, int]:
    """Submission ids and minor units, from a CSV with ``submission`` and ``amount`` (major units, a point).

    Raises UserError with row and column.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            if not {"submission", "amount"} <= set(reader.fieldnames or ()):
                raise UserError(f"{path}, row 1: the columns are submission and amount.")
            found: dict[str, int] = {}
            for number, row in enumerate(reader, start=2):
                submission, amount = (row["submission"] or "").strip(), (row["amount"] or "").strip()
                if number > MAX_LINES:
                    raise UserError(f"{path} has more than {MAX_LINES} rows.")
                if not submission.isalnum():
                    raise UserError(f"{path}, row {number}, submission: '{submission[:40]}' is no id of a submission.")
                if submission in found:
                    raise UserError(f"{path}, row {number}, submission: it stands there twice.")
                found[submission] = _minor(amount, f"{path}, row {number}, amount")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read: {error}.") from error
    return found


def _minor(text: str, place: str) -> int:
    whole, _, part = text.partition(".")
    if not (whole.isascii() and whole.isdigit() and len(whole) < 6 and (part == "" or (part.isascii() and part.isdigit())) and len(part) < 3):
        raise UserError(f"{place}: '{text[:40]}' is not an amount such as 1.25.")
    return int(whole) * 100 + int(part.ljust(2, "0") or 0)


def _person(salt: bytes, submission: Mapping[str, Any]) -> str:
    return keyed(salt, "participant", prolific.participant_of(submission))
