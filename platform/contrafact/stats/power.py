"""Power of a comparison of two conditions where people and images are both samples, in closed form.

Designs have the names of Judd, Westfall & Kenny (2017): three letters say whether participants and condition, images and
condition, participants and images are crossed (C) or nested (N). ``CCC`` shows every image in both conditions to
everybody; ``CNC`` has images of their own in each condition; ``NCC`` has participants of their own; ``NNC`` both;
``counterbalanced`` shows everybody each image in one condition, which half of the people see the other way round (the five
designs of Westfall, Kenny & Judd 2014). ``CCNp``, ``CNNp``, ``NNNp`` give each participant images of his own, ``CCNt``,
``NCNt``, ``NNNt`` give each image participants of its own.

Conditions are coded -1 and 1, so a slope variance is that of half the difference. In a balanced design the difference of
the two means has variance ``4/N (MS_participant + MS_image - MS_rest)`` with expected mean squares
``MS = rest + N/levels * variance``, and Satterthwaite's (1946) degrees of freedom follow from the three.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from scipy import stats

Design = Literal[
    "CCC", "CNC", "NCC", "NNC", "counterbalanced", "CCNp", "CNNp", "NNNp", "CCNt", "NCNt", "NNNt"
]
DESIGNS: tuple[Design, ...] = get_args(Design)
COMPONENTS = {
    "participant": 0.2,
    "image": 0.2,
    "participant_slope": 0.1,
    "image_slope": 0.1,
    "participant_image": 0.1,
    "residual": 0.3,
}
"""Variances (or shares of variance) that a design needs, with the shares that Westfall, Kenny & Judd take by default."""


@dataclass(frozen=True)
class Power:
    """``ncp`` is the expected t; ``ceiling`` the power that endless participants would reach with these images."""

    design: Design
    power: float
    ncp: float
    df: float
    se: float
    ceiling: float
    ratings: float


def crossed_power(
    design: Design,
    difference: float,
    participants: float,
    images: float,
    variances: Mapping[str, float] = COMPONENTS,
    *,
    alpha: float = 0.05,
    alternative: Literal["two-sided", "greater", "less"] = "two-sided",
) -> Power:
    """Power of a t test of ``difference``, the difference of the condition means.

    ``variances`` has the keys of ``COMPONENTS``; where they sum to 1, ``difference`` is d in units of the total standard
    deviation. ``participants`` and ``images`` count both conditions together. What a design cannot tell apart (a slope and
    an intercept of a unit seen in one condition alone) is added up.

    Raises:
        ValueError: an unknown design or component, a negative variance, or too few levels for any degree of freedom.
    """
    if design not in DESIGNS:
        raise ValueError(f"unknown design '{design}'; known are {', '.join(DESIGNS)}")
    if set(variances) != set(COMPONENTS):
        raise ValueError(f"a design needs the variances {', '.join(COMPONENTS)}")
    if any(not value >= 0 for value in variances.values()):
        raise ValueError("a variance is never negative")
    n, rest, people, pictures = _layout(design, participants, images, variances)
    parts = [part for part in (people, pictures) if part is not None]
    if any(part.df < 1 for part in parts):
        raise ValueError(f"{participants:g} participants and {images:g} images leave '{design}' no degree of freedom")
    squares = [rest + n / part.levels * part.variance for part in parts]
    total = sum(squares) - rest * (len(parts) - 1)
    spread = sum(square**2 / part.df for square, part in zip(squares, parts, strict=True))
    if len(parts) == 2:
        spread += rest**2 / (parts[0].df * parts[1].df)
    se, df = math.sqrt(4 / n * total), total**2 / spread if spread else math.inf
    ceiling = 1.0
    if pictures is not None and pictures.variance:
        least = math.sqrt(4 * pictures.variance / pictures.levels)
        ceiling = t_power(difference / least, pictures.df, alpha, alternative)
    ncp = difference / se if se else math.copysign(math.inf, difference)
    return Power(design, t_power(ncp, df, alpha, alternative), ncp, df, se, ceiling, n)


def t_power(
    ncp: float, df: float, alpha: float = 0.05, alternative: Literal["two-sided", "greater", "less"] = "two-sided"
) -> float:
    """Chance that a t test with expected t ``ncp`` on ``df`` degrees of freedom has p below ``alpha``."""
    if alternative != "two-sided":
        ncp = ncp if alternative == "greater" else -ncp
        return _beyond(float(stats.t.ppf(1 - alpha, df)), ncp, df)
    bound = float(stats.t.ppf(1 - alpha / 2, df))
    return _beyond(bound, ncp, df) + _beyond(bound, -ncp, df)


def _beyond(bound: float, ncp: float, df: float) -> float:
    if not math.isfinite(ncp) or abs(ncp) > 30:  # past where the noncentral t can be computed, and far from any doubt
        return float(ncp > bound)
    return float(stats.nct.sf(bound, df, ncp)) if math.isfinite(df) else float(stats.norm.sf(bound - ncp))


@dataclass(frozen=True)
class _Part:
    """A random factor: its levels, the variance that it adds to the contrast of one level, and its degrees of freedom."""

    levels: float
    variance: float
    df: float


def _layout(
    design: Design, p: float, q: float, v: Mapping[str, float]
) -> tuple[float, float, _Part | None, _Part | None]:
    """Ratings in all, variance of the rest, and the parts of participants and images in one design."""
    within = design.startswith("CC") and design != "counterbalanced"  # each pair is seen twice, its own control
    people_split, images_split = design[0] == "N", design[1] == "N"
    of_people = v["participant_slope"] + people_split * v["participant"]
    of_images = v["image_slope"] + images_split * v["image"]
    rest = v["residual"] + (0.0 if within else v["participant_image"])
    people = _Part(p, of_people, p - (2 if people_split else 1))
    pictures = _Part(q, of_images, q - (2 if images_split else 1))
    if design == "counterbalanced":
        # Which half of the people saw which half of the images takes one degree of freedom from each.
        return p * q, rest, _Part(p, of_people, p - 2), _Part(q, of_images, q - 2)
    if design.endswith("Np"):
        # An image has one participant, so its variance is noise between the answers of that one.
        return (2 * q, rest + 2 * of_images, people, None) if within else (q, rest + of_images, people, None)
    if design.endswith("Nt"):
        return (2 * p, rest + 2 * of_people, None, pictures) if within else (p, rest + of_people, None, pictures)
    return p * q * {"CCC": 2.0, "NNC": 0.5}.get(design, 1.0), rest, people, pictures
