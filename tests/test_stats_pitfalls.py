"""Each pitfall that can be seen is said, and a sound study is left alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from contrafact import seeds
from contrafact.stats.pitfalls import leaving, pitfalls

BOUNDS = {"trust": (0.0, 100.0)}
VARIANTS = [("null", 0.0), *((arm, dose) for arm in ("treated", "sham") for dose in (-1.0, 1.0))]


def sound() -> pd.DataFrame:
    """30 people, 40 images, 40 trials in a random order."""
    rng = seeds.generator(1, "warnings")
    rows = []
    for p in range(30):
        for position, image in enumerate(rng.permutation(40)):
            rows.append((p, image, *VARIANTS[(image + p) % 5], position, p))
    table = pd.DataFrame(rows, columns=["participant", "image", "arm", "dose", "position", "list_number"])
    value = 50 + 4 * table["dose"] * (table["arm"] == "treated") + rng.normal(0, 12, len(table))
    return table.assign(
        value=value.clip(1, 99), direction="up", question="trust", excluded=False, simulated=False
    )


def test_a_sound_study_hears_what_its_sample_is_and_nothing_else() -> None:
    (sentence,) = pitfalls(sound(), BOUNDS)
    assert "1,200 ratings come from 30 participants and 40 images" in sentence
    assert pitfalls(sound().iloc[:0]) == ()


def _lost(table: pd.DataFrame) -> pd.DataFrame:
    gone = (table["arm"] == "sham") & (table["image"] % 2 == 0)
    return table.assign(value=table["value"].where(~gone))


SPOILT: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "images": (lambda t: t[t["image"] < 3], "3 images stand for all others"),
    "people": (lambda t: t[t["participant"] < 4], "4 participants stand for all others"),
    "one image an arm": (lambda t: t[(t["arm"] != "sham") | (t["image"] == 7)], "'sham' of 'up' has a single image"),
    "likert": (lambda t: t.assign(value=(t["value"] / 20).round()), "steps: their means can mislead"),
    "floor": (lambda t: t.assign(value=(t["value"] - 45).clip(0)), "are at the floor"),
    "ceiling": (lambda t: t.assign(value=(t["value"] + 45).clip(None, 100)), "are at the ceiling"),
    "photograph": (lambda t: t.assign(arm=t["arm"].replace("null", "raw")), "compared with the untouched photograph"),
    "no null": (lambda t: t[t["arm"] != "null"], "compared with nothing and not with dose 0"),
    "no sham": (lambda t: t[t["arm"] != "sham"], "no sham arm"),
    "unmatched": (lambda t: t[(t["arm"] != "sham") | (t["image"] > 5)], "6 images were rated in only one"),
    "attrition": (_lost, "more missing answers in the arm 'sham'"),
    "order": (lambda t: t.assign(value=t["value"] + 0.8 * t["position"]), "rise along the list"),
    "order and dose": (
        lambda t: t.assign(position=t.groupby("participant")["dose"].rank(method="first")),
        "order and dose are mixed",
    ),
    "pooled": (lambda t: t.assign(simulated=t["participant"] < 9), "people and of simulated people are in one table"),
}  # fmt: skip


@pytest.mark.parametrize("what", SPOILT)
def test_each_pitfall_is_said(what: str) -> None:
    spoil, sentence = SPOILT[what]
    before, after = pitfalls(sound(), BOUNDS), pitfalls(spoil(sound()), BOUNDS)
    assert any(sentence in one for one in after), after
    assert not any(sentence in one for one in before)


def test_false_alarms_are_rare() -> None:
    rng = seeds.generator(2, "warnings")
    table = sound()
    alarms = [len(pitfalls(table.assign(value=50 + rng.normal(0, 12, len(table))), BOUNDS)) - 1 for _ in range(30)]
    assert np.mean(alarms) < 0.1


def begun(chance: dict[str, float], seed: int = 1) -> pd.DataFrame:
    """The lists of the sound study, each left for good at a picture with a chance that its arm decides."""
    rng = seeds.generator(seed, "leaving")
    table = pd.concat([sound().assign(participant=lambda t, k=k: t["participant"] + 100 * k) for k in range(5)])
    table = table.reset_index(drop=True).sort_values(["participant", "position"])
    leaves = rng.random(len(table)) < table["arm"].map(chance).to_numpy()
    gone = leaves.astype(float) if leaves.any() else np.zeros(len(table))
    answered = pd.Series(gone, table.index).groupby(table["participant"]).cumsum() == 0
    return table.assign(list=table["participant"], answered=answered)[["list", "position", "arm", "answered"]]


def test_leaving_is_told_where_it_falls_on_one_arm() -> None:
    even = dict.fromkeys(("null", "treated", "sham"), 0.02)
    chances = [leaving(begun(even, seed)) for seed in range(6)]  # false alarms: 3 of 400 at a level of .01
    assert sum(told is not None for _, told in chances) <= 1 and all(table["left"].sum() > 10 for table, _ in chances)
    trials = begun(even | {"treated": 0.08})
    table, told = leaving(trials)
    assert told is not None and "'treated'" in told
    left = trials.groupby("list")["answered"].transform(lambda one: not one.all())
    assert table["left"].sum() == trials[left]["list"].nunique(), "everybody leaves once"
    assert table["reached"].sum() == trials["answered"].sum() + table["left"].sum()
    assert leaving(begun(dict.fromkeys(even, 0.0)))[1] is None
