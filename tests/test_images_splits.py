"""Roles belong to units, stay when units are added, and are refused where they are too small."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contrafact.errors import UserError
from contrafact.images import splits
from contrafact.study.schema import SPLITS, Splits

units = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=30)


@given(units, units, st.integers(0, 2**31 - 1))
def test_adding_units_moves_nobody(old: list[str], new: list[str], seed: int) -> None:
    before = splits.assign(old, Splits(), seed)
    after = splits.assign([*new, *old], Splits(), seed)
    assert all(after[unit] == role for unit, role in before.items())


def test_shares_are_met_and_the_seed_matters() -> None:
    names = [f"u{k}" for k in range(20_000)]
    roles = splits.assign(names, Splits(), 1)
    share = pd.Series(roles).value_counts(normalize=True)
    for name in SPLITS:
        assert share[name] == pytest.approx(getattr(Splits(), name), abs=0.012)
    other = splits.assign(names, Splits(), 2)
    agree = np.mean([roles[name] == other[name] for name in names])
    assert agree == pytest.approx(sum(getattr(Splits(), name) ** 2 for name in SPLITS), abs=0.02)


@given(st.text(min_size=1), st.integers(0, 2**31 - 1))
def test_a_share_of_nothing_is_never_drawn(unit: str, seed: int) -> None:
    shares = Splits(train=0.5, judge=0.5, validation=0, stimuli=0, lockbox=0)
    assert splits.split_of(unit, shares, seed) in ("train", "judge")


def test_the_manifest_overrides() -> None:
    roles = splits.assign(["a", "b"], Splits(), 1, {"a": "lockbox"})
    assert roles == {"a": "lockbox", "b": splits.split_of("b", Splits(), 1)}


def test_who_steers_reads_no_dose_and_more_units_move_nobody() -> None:
    names = [f"u{k}" for k in range(20_000)]
    steers = splits.steers(np.repeat(names, 2), 0.3, 1).reshape(-1, 2)
    assert (steers[:, 0] == steers[:, 1]).all() and steers.mean() == pytest.approx(0.3, abs=0.012)
    assert (splits.steers(names[500:700], 0.3, 1) == steers[500:700, 0]).all()
    assert splits.steers(names, 1.0, 1).all()
    # Who steers does not follow from the split.
    train = np.array([role == "train" for role in splits.assign(names, Splits(), 1).values()])
    assert steers[train].mean() == pytest.approx(0.3, abs=0.02)


def test_both_parts_of_the_guide_need_enough_to_learn_from() -> None:
    units, alternating, level = [f"u{k // 2}" for k in range(40)], [0.0, 1.0] * 20, [0.0] * 40
    first = np.arange(40)
    splits.require_parts(first < 20, units, alternating, binary=True)
    splits.require_parts(first < 20, units, level, binary=False)
    for steers, outcome, mistake in (
        (first < 20, level, "10 are to steer, with 1 levels"),
        (first < 18, alternating, "9 are to steer"),
        (first < 22, alternating, "9 are to read doses"),
    ):
        with pytest.raises(UserError, match=mistake):
            splits.require_parts(steers, units, outcome, binary=True)


def rows(counts: dict[str, int], images_each: int = 2) -> tuple[pd.Series, pd.Series, pd.Series]:
    role = [name for name, n in counts.items() for _ in range(n * images_each)]
    unit = [f"{name}{k}" for name, n in counts.items() for k in range(n) for _ in range(images_each)]
    outcome = [float(k % 2) for k in range(len(role))]
    return pd.Series(role), pd.Series(unit), pd.Series(outcome)


ENOUGH = {"train": 10, "judge": 10, "validation": 5, "stimuli": 2, "lockbox": 0}


def test_enough_is_enough() -> None:
    splits.require_enough(*rows(ENOUGH), binary=True)


@pytest.mark.parametrize("name", ["train", "judge", "validation", "stimuli"])
def test_too_few_units_name_the_split_the_counts_and_the_mend(name: str) -> None:
    with pytest.raises(UserError, match=f"too few images for the splits: `{name}` holds {ENOUGH[name] - 1} units") as told:
        splits.require_enough(*rows({**ENOUGH, name: ENOUGH[name] - 1}), binary=True)
    assert "lockbox 0" in told.value.message and "`split` column" in told.value.hint


def test_images_of_one_unit_do_not_count_twice() -> None:
    with pytest.raises(UserError, match="`train` holds 1 units"):
        splits.require_enough(*rows({**ENOUGH, "train": 1}, images_each=30), binary=True)


def test_a_split_with_one_level_is_refused_for_a_binary_outcome_alone() -> None:
    role, unit, outcome = rows(ENOUGH)
    outcome[role == "judge"] = 1.0
    with pytest.raises(UserError, match="`judge` has images with outcome 1 alone"):
        splits.require_enough(role, unit, outcome, binary=True)
    splits.require_enough(role, unit, outcome, binary=False)
