"""The gate: a rule on cards that decides on whole matched sets, fixed before anybody has seen them.

On quality only, never on the outcome score that is reported: a gate on the effect would select what is tested.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Limits:
    null_error: float
    leakage_sd: float
    norm_ratio: tuple[float, float]
    realism: float


@dataclass(frozen=True)
class SetMeasures:
    """One matched set: all arms and doses of one image.

    ``null_error`` in [0, 1]; ``leakage`` (stimuli of the treated arm,) by held covariate, in SD;
    ``norm_ratio`` by control stimulus; ``realism`` by stimulus.
    """

    null_error: float
    leakage: Mapping[str, np.ndarray]
    norm_ratio: np.ndarray
    realism: np.ndarray


def reasons(measures: SetMeasures, limits: Limits) -> tuple[str, ...]:
    """Why a set is stopped; empty where it passes. A measure that is not estimable (NaN) does not stop a set."""
    found = []
    if measures.null_error > limits.null_error:
        found.append("null_error")
    found += [
        f"leakage_{name}"
        for name, values in measures.leakage.items()
        if np.any(np.abs(values) > limits.leakage_sd)
    ]
    low, high = limits.norm_ratio
    if np.any((measures.norm_ratio < low) | (measures.norm_ratio > high)):
        found.append("norm_ratio")
    if np.any(measures.realism > limits.realism):
        found.append("realism")
    return tuple(found)
