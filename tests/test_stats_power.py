"""Power in closed form: against what is published with the paper, and against simulated studies."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from contrafact import seeds
from contrafact.stats.power import COMPONENTS, DESIGNS, crossed_power

PUBLISHED = pd.read_csv(Path(__file__).parent / "references" / "crossed_power.csv")


@pytest.mark.parametrize("row", list(PUBLISHED.itertuples(index=False)), ids=lambda row: f"{row[0]}-{row[1]}x{row[2]}")
def test_power_is_that_of_westfall_kenny_and_judd(row: tuple[str, int, int, float, float]) -> None:
    design, participants, images, ncp, power = row
    found = crossed_power(design, 0.5, participants, images)  # type: ignore[arg-type]
    assert found.ncp == pytest.approx(ncp, abs=1e-5)
    assert found.power == pytest.approx(power, abs=0.01)


def test_with_one_random_factor_alone_it_is_the_paired_t_test() -> None:
    alone = dict.fromkeys(COMPONENTS, 0.0) | {"participant_slope": 1.0}
    found = crossed_power("CCC", 1.2, 15, 10, alone)
    assert (found.df, found.ceiling) == (14, 1.0)
    assert found.power == pytest.approx(1 - stats.nct.cdf(stats.t.ppf(0.975, 14), 14, 0.6 * math.sqrt(15)), abs=1e-4)
    one = crossed_power("CCC", 1.2, 15, 10, alone, alternative="greater")
    assert one.power > found.power > crossed_power("CCC", 1.2, 15, 10, alone, alternative="less").power


@pytest.mark.parametrize("design", DESIGNS)
def test_the_standard_error_is_that_of_simulated_means(design: str) -> None:
    rng = seeds.generator(1, "power", design)
    v = {"participant": 1.0, "image": 2.0, "participant_slope": 0.5, "image_slope": 0.7, "participant_image": 1.5, "residual": 2.5}
    p, q = (32, 8) if design.endswith("Nt") else (8, 32)
    participant, image = np.indices((p, q)).reshape(2, -1)
    if design[2:] in ("Np", "Nt"):  # four of the one for each of the other
        here = participant == image // 4 if design.endswith("Np") else image == participant // 4
        participant, image = participant[here], image[here]
    half_p, half_q = participant % 2 * 2 - 1, image % 2 * 2 - 1
    c = half_q if design in ("CNC", "CNNp", "NNNt") else half_p * half_q if design == "counterbalanced" else half_p
    if design == "NNC":
        participant, image, c = (column[half_p == half_q] for column in (participant, image, c))
    if design.startswith("CC"):
        participant, image = np.tile(participant, 2), np.tile(image, 2)
        c = np.repeat([-1, 1], len(participant) // 2)
    differences = []
    for _ in range(2500):
        y = (
            rng.normal(0, math.sqrt(v["participant"]), p)[participant]
            + rng.normal(0, math.sqrt(v["image"]), q)[image]
            + c * rng.normal(0, math.sqrt(v["participant_slope"]), p)[participant]
            + c * rng.normal(0, math.sqrt(v["image_slope"]), q)[image]
            + rng.normal(0, math.sqrt(v["participant_image"]), (p, q))[participant, image]
            + rng.normal(0, math.sqrt(v["residual"]), len(c))
        )
        differences.append(y[c > 0].mean() - y[c < 0].mean())
    found = crossed_power(design, 1.0, p, q, v)  # type: ignore[arg-type]
    assert found.ratings == len(c)
    assert np.std(differences) == pytest.approx(found.se, rel=0.05)


def test_few_images_set_a_ceiling_that_participants_do_not_lift() -> None:
    many = crossed_power("CCC", 0.5, 1_000_000, 8)
    assert many.power == pytest.approx(many.ceiling, abs=1e-3) and many.ceiling < 0.6
    assert crossed_power("CCC", 0.5, 50, 8).ceiling == many.ceiling
    assert crossed_power("CCC", 0.5, 50, 80).ceiling > 0.99
    # A huge effect is sure, and never not a number.
    assert crossed_power("CCC", 500.0, 50, 80).power == 1.0


def test_what_cannot_be_planned_is_told() -> None:
    with pytest.raises(ValueError, match="unknown design 'CCD'"):
        crossed_power("CCD", 0.5, 20, 20)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="never negative"):
        crossed_power("CCC", 0.5, 20, 20, {**COMPONENTS, "image": -1})
    with pytest.raises(ValueError, match="no degree of freedom"):
        crossed_power("NNC", 0.5, 2, 20)
    with pytest.raises(ValueError, match="needs the variances"):
        crossed_power("CCC", 0.5, 20, 20, {"image": 1.0})
