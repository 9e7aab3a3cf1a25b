"""A statement: one number about people, with everything needed to doubt it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_type_hints


@dataclass(frozen=True)
class Statement:
    """One tested hypothesis, or one exploratory figure beside it.

    What cannot be estimated is NaN, and ``caveats`` say why. ``level`` is the coverage of ``low`` to ``high``
    (0.95 for a difference, 0.90 for an equivalence test at alpha 0.05). ``p_adjusted`` is Holm's within the
    declared family, NaN for an exploratory statement. ``equivalent`` is None where equivalence was not tested.
    ``verdict`` answers the registered claim: True, False, or None where nothing can be said.
    """

    id: str
    label: Literal["registered", "exploratory"]
    arm: str
    estimate: float
    low: float
    high: float
    p: float
    p_adjusted: float
    equivalent: bool | None
    margin: float
    n_ratings: int
    n_participants: int
    n_images: int
    unit: str
    method: str
    seed: int
    caveats: tuple[str, ...] = ()
    direction: str = ""
    question: str = ""
    component: Literal["odd", "even"] = "odd"
    level: float = 0.95
    se: float = math.nan
    df: float = math.nan
    verdict: bool | None = None

    def facts(self) -> dict[str, Any]:
        """The statement for JSON and SQL: NaN and infinity become None."""
        return {key: _plain(value) for key, value in asdict(self).items()}

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Statement:
        """The statement that ``facts`` were made of; None becomes NaN again where a number belongs."""
        kinds = get_type_hints(cls)
        found = {key: facts[key] for key in kinds if key in facts}
        numbers = {key: math.nan for key, value in found.items() if value is None and kinds[key] is float}
        return cls(**{**found, **numbers, "caveats": tuple(facts.get("caveats") or ())})


def _plain(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return list(value) if isinstance(value, tuple) else value
