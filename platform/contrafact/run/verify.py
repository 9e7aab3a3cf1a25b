"""Is a registered study still what it was? The chain walked, and everything that hangs on it computed again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from contrafact import study
from contrafact.errors import Paused, UserError
from contrafact.run.freeze import shown
from contrafact.settings import Settings
from contrafact.store import Store, open_store
from contrafact.store.files import Files
from contrafact.study import LoadedStudy
from contrafact.study.schema import Study
from contrafact.survey import exclusions, fielding


@dataclass(frozen=True)
class Verified:
    """``changes`` holds a sentence for whatever is not as the chain has it; ``head`` is the hash of the last link.

    A chain whose last links were cut off is whole in itself: compare ``head`` with a report or a published copy.
    """

    study: str
    links: int
    head: str
    checked: Mapping[str, int]
    changes: tuple[str, ...]


def verify(settings: Settings, loaded: LoadedStudy | None = None) -> tuple[Verified, ...]:
    """Every registered study of the workspace, or the one of a study file, whose plan is compared as well.

    Raises UserError where the study is not registered.
    """
    with open_store(settings.database_url, create=False) as store:
        files = Files(settings.files_url)
        slugs = [each.slug for each in store.studies()] if loaded is None else [loaded.study.study]
        found = []
        for slug in slugs:
            record = store.study(slug)
            if record is None or not store.chain(record.id):
                if loaded is not None:
                    raise UserError(f"The study '{slug}' is not registered.", hint=f"Type: contrafact register {loaded.path}")
                continue
            found.append(_one(store, files, record.id, slug, loaded))
        return tuple(found)


def _one(store: Store, files: Files, study_id: int, slug: str, loaded: LoadedStudy | None) -> Verified:
    links = store.chain(study_id)
    try:
        store.verify_chain(study_id)
    except UserError as error:
        return Verified(slug, len(links), links[-1].hash, {}, (error.message,))
    frozen = next((link.payload for link in reversed(links) if "content" in link.payload), None)
    changes: list[str] = []
    checked = {"links": len(links)}
    if frozen is not None:
        if loaded is not None:
            changes += [f"the plan: {one}" for one in study.changed_since(frozen, loaded)]
        registered = Study.model_validate_json(json.dumps(frozen["content"]))
        checked["stimuli"], found = _stimuli(store, files, study_id, registered, frozen)
        changes += found
        changes += _exclusions(store, study_id, registered)
    changes += store.changed_rows(study_id)
    checked["answers"] = sum(len(store.answers(study_id, each.name)) for each in store.batches(study_id))
    changes += _statements(store, study_id)
    return Verified(slug, len(links), links[-1].hash, checked, tuple(changes))


def _stimuli(
    store: Store, files: Files, study_id: int, registered: Study, frozen: Mapping[str, Any]
) -> tuple[int, list[str]]:
    """The pictures that were registered, against the rows and the bytes that are there."""
    try:
        now = shown(store, study_id, registered)
    except Paused:  # reviews are append-only, so this is a set that was not there
        return 0, ["the stimuli: there are sets that nobody has reviewed"]
    changes = []
    if fielding.manifest_sha256(now) != frozen["stimuli"]:
        before, after = frozen.get("sets", {}), fielding.sets_sha256(now)
        named = [
            f"the stimuli: the matched set '{key}' {'is gone' if key not in after else 'is new' if key not in before else 'is not the one that was registered'}"
            for key in sorted({*before, *after})
            if before.get(key) != after.get(key)
        ]
        changes += named or ["the stimuli are not those that were registered"]
    for picture in now.drop_duplicates("pixels_sha256").itertuples():
        try:
            files.get(str(picture.pixels_sha256))
        except UserError as error:
            changes.append(f"the picture of image {picture.image}, {picture.arm}, dose {picture.dose:g}: {error.message}")
    return len(now), changes


def _exclusions(store: Store, study_id: int, registered: Study) -> Iterator[str]:
    """The frozen rules applied again to the answers that are there."""
    if registered.survey is None:
        return
    kept = store.exclusions(study_id)
    for each in store.batches(study_id):
        own = kept[kept["batch"] == each.name]
        if own.empty and not each.begun:
            continue
        asked = fielding.expected(store, study_id, registered, each.name)
        begun = asked.groupby("list")["pid_hash"].transform("first")
        again = exclusions.excluded(asked.assign(participant=asked["list"])[begun.notna()])
        then, now = (set(table[["list", "rule"]].itertuples(index=False, name=None)) for table in (own, again.rename(columns={"participant": "list"})))
        for number, rule in sorted(now - then):
            yield f"the exclusions: list {number} of {each.name} falls under the rule '{rule}' and is not excluded by it"
        for number, rule in sorted(then - now):
            yield f"the exclusions: list {number} of {each.name} is excluded by the rule '{rule}' and does not fall under it"


def _statements(store: Store, study_id: int) -> Iterator[str]:
    """The statements that are kept, against those of the last analysis in the chain."""
    analysis = next((link for link in reversed(store.chain(study_id)) if link.kind == "analysis"), None)
    if analysis is None:
        return
    kept = {one.id: one.facts() for one in store.statements(study_id)}
    for one in analysis.payload["statements"]:
        now = kept.get(one["id"])
        if now is None:
            yield f"the statements: {one['id']} is gone"
            continue
        differ = [key for key, value in one.items() if now.get(key) != value]
        if differ:
            yield f"the statements: {', '.join(differ)} of {one['id']} is not what the analysis said"
