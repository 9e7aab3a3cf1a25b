"""Can people tell? Sensitivity and criterion of yes-no and pair judgements (Green & Swets 1966)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import stats


@dataclass(frozen=True)
class Detection:
    """Sensitivity d' with its 95% interval, and criterion c (above 0: says yes too seldom), both in SD of noise."""

    d_prime: float
    low: float
    high: float
    criterion: float
    hit_rate: float
    false_alarm_rate: float


def yes_no(hits: int, signals: int, false_alarms: int, noises: int) -> Detection:
    """d' and criterion with the log-linear correction: half an event is added to each cell (Hautus 1995).

    The interval is that of Gourevitch & Galanter (1967). NaN where a kind of trial was never shown.

    Raises:
        ValueError: counts that cannot be.
    """
    if not (0 <= hits <= signals and 0 <= false_alarms <= noises):
        raise ValueError("hits lie between 0 and signal trials, false alarms between 0 and noise trials")
    if not signals or not noises:
        nan = math.nan
        return Detection(nan, nan, nan, nan, nan, nan)
    h, f = (hits + 0.5) / (signals + 1), (false_alarms + 0.5) / (noises + 1)
    zh, zf = float(stats.norm.ppf(h)), float(stats.norm.ppf(f))
    variance = h * (1 - h) / (signals * stats.norm.pdf(zh) ** 2) + f * (1 - f) / (noises * stats.norm.pdf(zf) ** 2)
    half = float(stats.norm.ppf(0.975)) * math.sqrt(variance)
    d = zh - zf
    return Detection(d, d - half, d + half, -(zh + zf) / 2, h, f)


def two_alternatives(right_first: int, first: int, right_second: int, second: int) -> Detection:
    """d' of a forced choice between two, from how often the choice was right where the target stood first or second.

    ``d' = (z(H) - z(F)) / sqrt(2)`` with H the rate of "first" where it was first and F where it was second (Macmillan &
    Creelman 2005, ch. 7); the criterion is the lean against the first place, over sqrt(2) as well.
    """
    found = yes_no(right_first, first, second - right_second, second)
    root = math.sqrt(2)
    return Detection(
        found.d_prime / root, found.low / root, found.high / root, found.criterion / root,
        found.hit_rate, found.false_alarm_rate,
    )  # fmt: skip
