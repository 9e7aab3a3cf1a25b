"""Matched sets for the eye: every arm and dose of an image beside the image itself, with cards and verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from contrafact.errors import UserError
from contrafact.readings import workspace
from contrafact.readings.figures import NAMES, number
from contrafact.settings import Settings
from contrafact.store.files import Files

if TYPE_CHECKING:
    from contrafact.store import Store

Standing = Literal["waiting", "kept", "rejected", "stopped", "withdrawn"]


@dataclass(frozen=True)
class SetState:
    """``stopped`` is the gate's verdict, with its ``reasons``; ``rejected`` is the last word of some reviewer."""

    key: str
    direction: str
    image: str
    standing: Standing
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Sets:
    """All matched sets in the order of their images; of a ``registered`` study they can only be withdrawn."""

    registered: bool
    states: tuple[SetState, ...]


@dataclass(frozen=True)
class Picture:
    """``png`` is None where there is none; ``card`` has names and values in words, ``flags`` what was remarked."""

    png: bytes | None
    alt: str
    card: tuple[tuple[str, str], ...] = ()
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """What a person once said; all their verdicts are kept, and the last one counts."""

    reviewer: str
    verdict: str
    reason: str
    at: datetime
    counts: bool


@dataclass(frozen=True)
class MatchedSet:
    """``rows`` are (arm in words, pictures in the order of ``columns``); ``pixels`` is what is shown: stimulus id to
    SHA-256, which a verdict names."""

    state: SetState
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Picture, ...]], ...]
    verdicts: tuple[Verdict, ...]
    pixels: Mapping[int, str]


def sets(settings: Settings, slug: str) -> Sets:
    """What there is to review. Raises UserError where there is no such study."""
    with workspace.opened(settings, slug) as (store, study):
        return Sets(workspace.registered(store, study.id), standings(store, study.id))


def standings(store: Store, study_id: int) -> tuple[SetState, ...]:
    """All matched sets of a study and where each stands, in the order of their images."""
    stimuli = store.stimuli_table(study_id)
    gate = {decision.set_key: decision for decision in store.gate_decisions(study_id)}
    reviewed = {review.stimulus_id for review in store.reviews(study_id)}
    gone = {link.payload["set"] for link in store.chain(study_id) if link.kind == "withdrawal"}
    found = []
    for key, rows in stimuli.groupby("set_key", sort=False):
        decision = gate.get(str(key))
        standing: Standing = "waiting"
        if key in gone:
            standing = "withdrawn"
        elif decision is not None and not decision.passed:
            standing = "stopped"
        elif rows["rejected"].any():
            standing = "rejected"
        elif reviewed & set(rows["stimulus"]):
            standing = "kept"
        first = rows.iloc[0]
        found.append(
            SetState(str(key), first["direction"], first["image"], standing, tuple(decision.reasons if decision else ()))
        )
    return tuple(found)


def matched_set(settings: Settings, slug: str, key: str) -> MatchedSet:
    """One set with its pictures. Raises UserError where the study has no such set."""
    with workspace.opened(settings, slug) as (store, study):
        return _matched_set(store, Files(settings.files_url), study.id, key)


def _matched_set(store: Store, files: Files, study_id: int, key: str) -> MatchedSet:
    state = next((one for one in standings(store, study_id) if one.key == key), None)
    if state is None:
        raise UserError(f"There is no matched set '{key}' in this study.", hint="It may have been made anew: look again.")
    stimuli = store.stimuli_table(study_id)
    own = stimuli[stimuli["set_key"] == key]
    doses = sorted(own.loc[own["arm"] != "raw", "dose"].unique())
    raw = _raw(store, files, study_id, state.image, own)
    rows = []
    for _, edited in own[~own["arm"].isin(["null", "raw"])].groupby(["arm", "draw"], sort=False):
        arm, draw = str(edited["arm"].iloc[0]), int(edited["draw"].iloc[0])
        at = pd.concat([edited, own[own["arm"] == "null"]]).drop_duplicates("dose").set_index("dose")
        pictures = [_picture(at.loc[dose] if dose in at.index else None, dose, state.image, files) for dose in doses]
        rows.append(((_order(arm), draw), (_named(arm, draw), (raw, *pictures))))
    return MatchedSet(
        state,
        ("raw", *(f"dose {_dose(dose)}" for dose in doses)),
        tuple(row for _, row in sorted(rows, key=lambda one: one[0])),
        _verdicts(store, study_id, own),
        dict(zip(map(int, own["stimulus"]), own["pixels_sha256"], strict=True)),
    )


def _raw(store: Store, files: Files, study_id: int, image: str, own: pd.DataFrame) -> Picture:
    """The image itself: brought as the raw arm, or as it came in."""
    kept = list(own.loc[own["arm"] == "raw", "pixels_sha256"])
    kept += [one.shown_sha256 for one in store.images(study_id, split="stimuli") if one.key == image]
    if not kept:
        return Picture(None, f"no raw picture of image {image}")
    return Picture(files.get(kept[0]), f"Image {image}, raw")


def _picture(row: Any, dose: float, image: str, files: Files) -> Picture:
    if row is None:
        return Picture(None, f"no picture of image {image} at dose {_dose(dose)}")
    what = "dose 0" if row["arm"] == "null" else f"{NAMES.get(row['arm'], row['arm'])}, dose {_dose(dose)}"
    png = files.get(row["pixels_sha256"])
    if pd.isna(row["judge_sha256"]):
        return Picture(png, f"Image {image}, {what}")
    leakage = row["leakage"] or {}
    card = (
        ("judge", f"{number(row['judge_dose'])} SD"),
        *((f"{name} leak", f"{number(value)} SD") for name, value in leakage.items()),
        ("L1", number(row["l1"], 3)),
        ("SSIM", number(row["ssim"], 3)),
        ("realism", f"{number(row['realism'])} SD"),
        *((("artefact", number(row["artefact"])),) if pd.notna(row["artefact"]) else ()),
    )
    card = tuple((name, value.replace("not estimable SD", "not estimable")) for name, value in card)
    return Picture(png, f"Image {image}, {what}, the judge reads {card[0][1]}", card, tuple(row["flags"] or ()))


def _verdicts(store: Store, study_id: int, own: pd.DataFrame) -> tuple[Verdict, ...]:
    """One line a verdict: a person judges a set, and the store keeps that for each of its pictures."""
    ids = set(map(int, own["stimulus"]))
    counting = {review.id for review in store.reviews(study_id)}
    lines: dict[tuple[str, str, str, int], Verdict] = {}
    times: dict[int, int] = {}
    for review in store.review_history(study_id):
        if review.stimulus_id in ids:
            # The n-th word on a picture belongs to the n-th verdict on its set.
            times[review.stimulus_id] = times.get(review.stimulus_id, 0) + 1
            key = (review.reviewer, review.verdict, review.reason, times[review.stimulus_id])
            lines[key] = Verdict(review.reviewer, review.verdict, review.reason, review.at, review.id in counting)
    return tuple(lines.values())


def _dose(dose: float) -> str:
    return f"{dose:+g}".replace("-", "\N{MINUS SIGN}") if dose else "0"


def _order(arm: str) -> int:
    known = list(NAMES)
    return known.index(arm) if arm in known else len(known)


def _named(arm: str, draw: int) -> str:
    return f"placebo, permutation {draw}" if arm == "placebo" else NAMES.get(arm, arm)
