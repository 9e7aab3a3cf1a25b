"""Five roles, given by unit: nobody is seen by people who also trained a model that made or judged the picture.

A unit's role is a keyed hash of the study's seed and the unit's name, compared with the cumulative shares. It
depends on no other unit, so images can be added without moving anybody. The price is balance: with few units the
shares are met only on average (of 100 units a share of .06 gives 1 to 12). Whoever needs exact counts says so in
the manifest's `split` column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from contrafact import seeds
from contrafact.errors import UserError
from contrafact.study.schema import SPLITS, Splits

#: Units below which nothing can be trained or measured on a split; the lockbox may be empty.
MINIMUM_UNITS = {"train": 10, "judge": 10, "validation": 5, "stimuli": 2}
#: Splits on which a binary outcome must show both levels.
NEEDS_BOTH_LEVELS = ("train", "judge", "validation")


def split_of(unit_id: str, shares: Splits, seed: int) -> str:
    """The role of one unit; the same whatever other units there are."""
    place = seeds.integer(seed, "split", unit_id) / 2**63
    reached = 0.0
    for name in SPLITS:
        reached += getattr(shares, name)
        if place < reached:
            return name
    return [name for name in SPLITS if getattr(shares, name) > 0][-1]  # shares add up to 1 but for rounding


def steers(unit_ids: Sequence[str], share: float, seed: int) -> NDArray[np.bool_]:
    """Whether the steering guide learns from each image's unit (n,); ``share`` of the units on average."""
    return np.array([seeds.integer(seed, "steers", unit) / 2**63 < share for unit in unit_ids], bool)


def assign(
    unit_ids: Sequence[str], shares: Splits, seed: int, given: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Unit to role. ``given`` holds the units whose role the manifest states."""
    given = given or {}
    return {unit: given.get(unit) or split_of(unit, shares, seed) for unit in dict.fromkeys(unit_ids)}


def require_parts(steers: NDArray[np.bool_], unit_id: Sequence[str], outcome: Sequence[float], *, binary: bool) -> None:
    """Refuse train images (n,) of which too few units steer, or too few are left to read doses."""
    table = pd.DataFrame({"steers": steers, "unit": unit_id, "outcome": outcome})
    for part, told in ((True, "steer"), (False, "read doses")):
        mine = table[table["steers"] == part]
        units, levels = mine["unit"].nunique(), mine["outcome"].nunique()
        if units < MINIMUM_UNITS["train"] or (binary and levels < 2):
            raise UserError(
                f"Of the units of the split `train`, {units} are to {told}, with {levels} levels of the outcome; "
                f"{MINIMUM_UNITS['train']} units are needed{', and both levels' if binary else ''}.",
                hint="Change `predictors.guide.steering_share`, or leave it out.",
            )


def require_enough(split: pd.Series, unit_id: pd.Series, outcome: pd.Series, *, binary: bool) -> None:
    """Refuse a study whose splits are too small to train or to measure on (one row an image)."""
    units = unit_id.groupby(split).nunique()
    counts = {name: int(units.get(name, 0)) for name in SPLITS}
    told = ", ".join(f"{name} {count}" for name, count in counts.items())
    mend = "Bring more units, change `images.splits` or `seed`, or give roles in the manifest's `split` column."
    for name, least in MINIMUM_UNITS.items():
        if counts[name] < least:
            raise UserError(
                f"There are too few images for the splits: `{name}` holds {counts[name]} units and needs {least} "
                f"(units: {told}).",
                hint=mend,
            )
    if binary:
        for name in NEEDS_BOTH_LEVELS:
            levels = np.unique(outcome[split == name])
            if len(levels) < 2:
                raise UserError(
                    f"The split `{name}` has images with outcome {levels[0]:g} alone (units: {told}).", hint=mend
                )
