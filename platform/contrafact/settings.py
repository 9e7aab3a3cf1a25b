"""The environment, read in one place by one function.

============================== =======================================================================
``CONTRAFACT_WORKSPACE``       folder of everything the program keeps; default ``.contrafact``
``CONTRAFACT_DATABASE_URL``    SQLAlchemy address of the store; default SQLite in the workspace
``CONTRAFACT_TRACKING_URI``    MLflow's address; default SQLite in the workspace
``CONTRAFACT_FILES_URL``       fsspec address of the content-addressed files; default a workspace folder
``CONTRAFACT_DATA``            folder against which ``$CONTRAFACT_DATA`` in study files is resolved
``CONTRAFACT_PROLIFIC_TOKEN``  token of Prolific's API
``CONTRAFACT_PROLIFIC_SECRET`` secret with which Prolific signs webhooks
``CONTRAFACT_PROLIFIC_URL``    address of Prolific's API, where it is another one
============================== =======================================================================
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """Addresses of one installation; ``workspace`` is an absolute path."""

    workspace: Path
    database_url: str
    tracking_uri: str
    files_url: str
    data: Path | None
    prolific_token: str | None = field(default=None, repr=False)
    prolific_secret: str | None = field(default=None, repr=False)
    prolific_url: str | None = None


def read(workspace: Path | str | None = None) -> Settings:
    """Settings from the environment; ``workspace`` given by the caller wins over the variable."""
    root = Path(workspace or os.environ.get("CONTRAFACT_WORKSPACE", ".contrafact")).expanduser().resolve()
    data = os.environ.get("CONTRAFACT_DATA")
    return Settings(
        workspace=root,
        database_url=os.environ.get("CONTRAFACT_DATABASE_URL", f"sqlite:///{root / 'store.db'}"),
        tracking_uri=os.environ.get("CONTRAFACT_TRACKING_URI", f"sqlite:///{root / 'mlflow.db'}"),
        files_url=os.environ.get("CONTRAFACT_FILES_URL", (root / "files").as_uri()),
        data=Path(data).expanduser().resolve() if data else None,
        prolific_token=os.environ.get("CONTRAFACT_PROLIFIC_TOKEN") or None,
        prolific_secret=os.environ.get("CONTRAFACT_PROLIFIC_SECRET") or None,
        prolific_url=os.environ.get("CONTRAFACT_PROLIFIC_URL") or None,
    )
