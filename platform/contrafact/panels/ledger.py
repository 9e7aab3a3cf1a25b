"""Bonuses that cannot be paid twice, whatever fails in between.

A payment is one row for (study, submission, reason), and goes

    planned -> created (the panel knows the set, unpaid) -> paying (the call was sent) -> paid

Only the step to ``paying`` moves money. It is claimed in the store before the call is sent, and the call is never
repeated: where its outcome stays unknown the row stays ``paying`` until the panel's own list shows the bonus.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from contrafact.errors import UserError
from contrafact.panels.prolific import OutcomeUnknown, Prolific, participant_of, status_of
from contrafact.panels.records import PaymentRecord
from contrafact.survey.batch import keyed

LARGEST = 100_00  # minor units for one person; a slip of a digit is stopped here


class Ground(Protocol):
    """What the ledger asks of the store; each call is one transaction."""

    def salt(self, study_id: int) -> bytes: ...

    def plan_payments(self, study_id: int, reason: str, currency: str, amounts: Mapping[str, int]) -> None:
        """Writes payments that are not there yet as planned. Raises UserError where one is there with another amount."""

    def payments(self, study_id: int) -> list[PaymentRecord]: ...

    def move_payments(
        self, study_id: int, reason: str, submissions: Iterable[str], before: str, after: str, reference: str | None
    ) -> int:
        """Moves those that stand at ``before`` (and, if a reference is set, are of it) on; returns how many moved."""


def plan(ground: Ground, study_id: int, reason: str, currency: str, amounts: Mapping[str, int]) -> None:
    """Plans payments by submission id (raw) and amount (minor units); a second time changes nothing."""
    for amount in amounts.values():
        if not 0 < amount <= LARGEST:
            raise UserError(f"A bonus of {amount / 100:.2f} {currency} is not between 0.01 and {LARGEST / 100:.2f}.")
    salt = ground.salt(study_id)
    hashed = {keyed(salt, "submission", submission): amount for submission, amount in amounts.items()}
    ground.plan_payments(study_id, reason, currency, hashed)


def pay(ground: Ground, panel: Prolific, study_id: int, panel_study: str, reason: str) -> dict[str, int]:
    """Pays what is planned for a reason; returns how many payments are in which state.

    ``unknown`` payments were sent and not confirmed: they are not sent again. Raises UserError where a submission is
    not of the panel's study or not approved.
    """
    salt = ground.salt(study_id)
    there = {keyed(salt, "submission", item["id"]): item for item in panel.submissions(panel_study)}
    _confirm(ground, study_id, there)
    own = [payment for payment in ground.payments(study_id) if payment.reason == reason]
    planned = [payment for payment in own if payment.state == "planned"]
    for payment in planned:
        submission = there.get(payment.submission)
        if submission is None:
            raise UserError("A submission in the list of bonuses is not of this study at Prolific.", hint="Nothing was paid.")
        if status_of(submission) not in ("APPROVED", "PARTIALLY_APPROVED"):
            raise UserError(
                f"A submission in the list of bonuses is {status_of(submission)}, not approved.", hint="Nothing was paid."
            )
    if planned:
        bulk = panel.set_up_bonuses(
            panel_study, [(participant_of(there[payment.submission]), payment.amount) for payment in planned]
        )
        ground.move_payments(study_id, reason, [p.submission for p in planned], "planned", "created", bulk)
    created: dict[str, list[str]] = {}
    for payment in ground.payments(study_id):
        if payment.reason == reason and payment.state == "created" and payment.reference:
            created.setdefault(payment.reference, []).append(payment.submission)
    for bulk, submissions in created.items():
        # Claimed first: of two commands at once, and after a crash, one alone finds all of the set at `created`.
        if ground.move_payments(study_id, reason, submissions, "created", "paying", bulk) != len(submissions):
            continue
        try:
            panel.pay_bonuses(bulk)
        except OutcomeUnknown:
            continue
        except UserError:
            ground.move_payments(study_id, reason, submissions, "paying", "created", bulk)  # refused: no money moved
            raise
        ground.move_payments(study_id, reason, submissions, "paying", "paid", bulk)
    states = [payment.state for payment in ground.payments(study_id) if payment.reason == reason]
    return {"paid": states.count("paid"), "unknown": states.count("paying"), "open": states.count("planned") + states.count("created")}


def _confirm(ground: Ground, study_id: int, there: Mapping[str, Mapping[str, Any]]) -> None:
    """Payments that were sent and not confirmed are paid once the panel's list shows more such bonuses than we know of."""
    known = ground.payments(study_id)
    for payment in known:
        if payment.state != "paying":
            continue
        shown = [int(amount) for amount in there.get(payment.submission, {}).get("bonus_payments") or []]
        same = [p for p in known if p.submission == payment.submission and p.amount == payment.amount and p.state == "paid"]
        if shown.count(payment.amount) > len(same):
            ground.move_payments(study_id, payment.reason, [payment.submission], "paying", "paid", payment.reference)
