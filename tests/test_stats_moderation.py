"""Companions of the claims: planted differences between images and planted ways from dose to answer are found again."""

import math

import numpy as np
import pandas as pd
import pytest

from contrafact import seeds
from contrafact.stats.moderation import heterogeneity, mediation, shrunken

DOSES = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])


def answers(rng: np.random.Generator, people: int = 24, images: int = 24) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Ratings of an outcome and of what was changed, and the images' covariates. The treated slope on the outcome is 3, 2
    more per SD of ``age``; of it, 2 pass through what people saw (4 points per SD of dose, worth .5 a point)."""
    covariates = pd.DataFrame(
        {"age": rng.normal(50, 10, images), "size": rng.normal(size=images), "light": rng.normal(size=images)},
        index=[f"i{k}" for k in range(images)],
    )
    z = (covariates["age"] - covariates["age"].mean()) / covariates["age"].std(ddof=0)
    rows = []
    for person in range(people):
        level = rng.normal(0, 4)
        for number in rng.permutation(images):
            arm = rng.choice(["treated", "sham"])
            dose = float(rng.choice(DOSES))
            treated = dose * (arm == "treated")
            seen = 50 + 4 * treated + rng.normal(0, 5)
            value = 50 + level + (1 + 2 * z.iloc[number]) * treated + 0.5 * (seen - 50) + rng.normal(0, 3)
            rows.append((person, f"i{number}", arm if dose else "null", dose, seen, value))
    table = pd.DataFrame(rows, columns=["participant", "image", "arm", "dose", "seen", "value"])
    table = table.assign(direction="up", draw=0, trial=np.arange(len(table)))
    return table.assign(question="liked"), table.assign(question="noticed", value=table["seen"]), covariates


def test_slopes_that_differ_with_a_covariate_are_told_from_those_that_do_not() -> None:
    liked, _, covariates = answers(seeds.generator(1, "moderation"))
    found = {s.id: s for s in heterogeneity(liked, covariates.assign(same=1.0), "gaussian", 1)}
    age, size = found["by-age-treated-up-liked"], found["by-size-treated-up-liked"]
    assert age.low < 2.0 < age.high and age.low > 0 and age.p < 0.001 and age.label == "exploratory"
    assert size.low < 0 < size.high and "unshrunken" in size.method and "association" in size.caveats[0]
    same = found["by-same-treated-up-liked"]
    assert math.isnan(same.estimate) and same.caveats[-1] == "all images have the same 'same'"
    fewer = next(heterogeneity(liked, covariates.iloc[:20], "gaussian", 1))
    assert "4 images without a covariate are left out" in fewer.caveats and fewer.n_images == 24


def test_shrinkage_by_hand() -> None:
    # Without information beyond the prior nothing is far from 0; sure effects stay where they are.
    assert shrunken(np.array([]), np.array([]))[0].shape == (0,)
    unsure, _ = shrunken(np.array([1.0, -1.0, 0.5]), np.full(3, 2.0))
    assert (np.abs(unsure) < np.array([0.5, 0.5, 0.25])).all()
    sure, sds = shrunken(np.array([1.0, -1.0]), np.full(2, 0.01))
    assert sure == pytest.approx([1.0, -1.0], rel=0.06) and sds == pytest.approx([0.01, 0.01], rel=0.06)
    # The mixture against a direct integral for one effect.
    tau = np.linspace(0, 10, 200_001)
    weight = np.exp(-0.5 * tau**2) * np.exp(-0.5 * 9 / (1 + tau**2)) / np.sqrt(1 + tau**2)
    kept = tau**2 / (1 + tau**2)
    one, _ = shrunken(np.array([3.0]), np.array([1.0]))
    assert one[0] == pytest.approx(float((weight * kept).sum() / weight.sum() * 3), rel=2e-3)


def test_what_passes_through_another_answer_is_told_as_association() -> None:
    liked, noticed, _ = answers(seeds.generator(2, "mediation"))
    found = mediation(liked, noticed, "gaussian", 1)
    assert found.id == "mediated-noticed-treated-up-liked" and found.arm == "treated-sham"
    assert found.low < 2.0 < found.high and found.low > 0 and math.isnan(found.p) and "association" in found.caveats[0]
    nothing = mediation(liked, noticed.assign(value=seeds.generator(3, "noise").normal(size=len(noticed))), "gaussian", 1)
    assert nothing.low < 0 < nothing.high
    few = mediation(liked[liked["participant"] < 3], noticed, "gaussian", 1)
    assert math.isnan(few.estimate) and "3 of participant" in few.caveats[-1]
