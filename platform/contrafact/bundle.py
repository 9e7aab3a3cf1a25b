"""Where the leaf folders are: the only place that knows whether this is a checkout or a wheel."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path


def folder(name: str) -> Path:
    """The folder of a leaf: ``pipelines``, ``dashboards``, ``migrations`` or ``studies``."""
    spec = find_spec(f"contrafact.{name}")
    if spec is None or not spec.submodule_search_locations:
        raise LookupError(name)
    return Path(next(iter(spec.submodule_search_locations)))
