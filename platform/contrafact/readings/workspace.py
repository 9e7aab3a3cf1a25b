"""The door to a workspace for what only looks at it: nothing is made, not even an empty database."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML

from contrafact.errors import UserError
from contrafact.settings import Settings
from contrafact.store import Store, open_store, upgrade
from contrafact.store.records import StudyRecord
from contrafact.study.schema import Study


def slugs(settings: Settings) -> tuple[str, ...]:
    """The studies of a workspace; none where there is no store yet."""
    if upgrade.status(settings.database_url).current is None:
        return ()
    with open_store(settings.database_url, create=False) as store:
        return tuple(record.slug for record in store.studies())


@contextmanager
def opened(settings: Settings, slug: str) -> Iterator[tuple[Store, StudyRecord]]:
    """The store and the row of a study. Raises UserError where there is no store or no such study."""
    with open_store(settings.database_url, create=False) as store:
        record = store.study(slug)
        if record is None:
            raise UserError(f"There is no study '{slug}' in this workspace.", hint="contrafact status lists them.")
        yield store, record


def registered(store: Store, study_id: int) -> bool:
    """Whether the study is frozen, so that no verdict changes any more what is shown."""
    return any(link.kind == "registration" for link in store.chain(study_id))


def values(record: StudyRecord) -> Mapping[str, Any]:
    """What the study's file says, as it was run."""
    found = YAML(typ="safe", pure=True).load(record.yaml)
    return found if isinstance(found, Mapping) else {}


def study(record: StudyRecord) -> Study:
    """The frozen study. Raises UserError where it was run by a version of this program with another schema."""
    try:
        return Study.model_validate_json(json.dumps(values(record)), strict=True)
    except ValidationError:
        raise UserError(
            f"The study '{record.slug}' was run by a version of contrafact with other keys.",
            hint="Look at its file with contrafact check, and run it again.",
        ) from None
