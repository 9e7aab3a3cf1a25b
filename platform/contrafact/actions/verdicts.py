"""A person's verdict on a matched set: before registration it decides, afterwards the set can only be withdrawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from contrafact.errors import UserError
from contrafact.readings.workspace import opened, registered
from contrafact.settings import Settings
from contrafact.store import Store


def review(
    settings: Settings,
    slug: str,
    set_key: str,
    pixels: Mapping[int, str],
    verdict: Literal["keep", "reject"],
    reason: str,
    reviewer: str,
) -> None:
    """Keeps or rejects a whole matched set; what is fielded leaves out a set whose last word of anybody is reject.

    ``pixels`` is what the reviewer saw, as ``readings.stimuli.MatchedSet.pixels``. Raises UserError, and writes
    nothing, where the study is registered already, where the pictures are not those any more, where the reviewer has
    no name, or where a rejection has no reason.
    """
    with opened(settings, slug) as (store, study):
        if registered(store, study.id):
            raise UserError(
                f"The study '{slug}' is registered, so no verdict changes what is shown.",
                hint="Withdraw the set: that is written into the chain of the registration.",
            )
        _require_same(store, study.id, set_key, pixels)
        detail = {"set": set_key, "reason": reason.strip(), "stimuli": len(pixels)}
        # Each picture has its row, so that a verdict ends where its pixels do.
        store.add_reviews(pixels, verdict, reason, reviewer, detail)


def withdraw(
    settings: Settings, slug: str, set_key: str, pixels: Mapping[int, str], reason: str, reviewer: str
) -> str:
    """Writes into the chain of a registered study that a set is withdrawn; returns the hash of the link.

    The name stands in the audit alone: a chain can never be cleaned of it. Raises UserError, and writes nothing,
    where the study is not registered, where the set is withdrawn already or the pictures are not those any more, or
    where name or reason is missing.
    """
    if not reviewer.strip() or not reason.strip():
        raise UserError("A withdrawal needs a name and a reason.")
    with opened(settings, slug) as (store, study):
        if not registered(store, study.id):
            raise UserError(f"The study '{slug}' is not registered yet.", hint="Reject the set instead.")
        if any(link.kind == "withdrawal" and link.payload["set"] == set_key for link in store.chain(study.id)):
            raise UserError(f"The set '{set_key}' is withdrawn already.")
        _require_same(store, study.id, set_key, pixels)
        payload = {"set": set_key, "pixels": sorted(pixels.values()), "why": reason.strip()}
        link = store.append_registration(study.id, "withdrawal", payload)
        detail = {"set": set_key, "reason": reason.strip(), "link": link.hash}
        store.add_audit(study.id, reviewer.strip(), "withdrawal", detail)
        return link.hash


def _require_same(store: Store, study_id: int, set_key: str, pixels: Mapping[int, str]) -> None:
    """A verdict is on the very pixels that were seen."""
    now = {one.id: one.pixels_sha256 for one in store.stimuli(study_id) if one.set_key == set_key}
    if not now or now != dict(pixels):
        raise UserError(f"The pictures of '{set_key}' were made anew since they were shown.", hint="Look again.")
