"""Lists are balanced whatever the sizes, and frozen by the seed."""

import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contrafact.errors import UserError
from contrafact.survey import design

GRID = (-1.5, -0.75, 0.75, 1.5)


def stimuli_of(images: int, sham: bool = True, placebo: int = 12, directions: int = 1) -> pd.DataFrame:
    """Whole matched sets, as the gate passes them."""
    rows = []
    for direction in range(directions):
        for image in range(images):
            cells = [("null", 0, 0.0)] + [("treated", 0, dose) for dose in GRID]
            cells += [("sham", 1, dose) for dose in GRID] if sham else []
            cells += [("placebo", image % placebo, dose) for dose in GRID] if placebo else []
            rows += [
                (f"{direction}/{image}/{arm}/{dose}", f"image{image:03d}", f"d{direction}", arm, draw, dose, f"{image}")
                for arm, draw, dose in cells
            ]
    return pd.DataFrame(rows, columns=list(design.STIMULUS_COLUMNS))


@settings(max_examples=30, deadline=None)
@given(
    images=st.integers(1, 25),
    sham=st.booleans(),
    placebo=st.integers(0, 3),
    directions=st.integers(1, 2),
    participants=st.integers(1, 12),
    trials=st.integers(2, 60),
    attention=st.integers(0, 4),
    seed=st.integers(0, 2**31 - 1),
)
def test_any_design_is_balanced(images, sham, placebo, directions, participants, trials, attention, seed):
    stimuli = stimuli_of(images, sham, placebo, directions)
    trials = min(trials, len(stimuli))
    lists = design.make_lists(stimuli, participants, trials, attention, seed)
    report = design.balance(lists, stimuli)

    assert report.participants == participants
    assert report.ratings == participants * trials
    assert report.stimulus_spread <= 1
    assert report.image_spread <= 1, "images are seen floor or ceiling of trials / images times"
    assert report.repeated == 0
    if images > 2:
        assert report.in_a_row == 0

    pauses = lists[lists["kind"] == "attention"]
    assert len(pauses) == participants * attention
    assert not (pauses["position"] == 0).any()
    assert pauses["stimulus"].isna().all()
    assert pauses["target"].isin(design.ATTENTION_TARGETS).all()
    for _, own in lists.groupby("list"):
        assert own["position"].tolist() == list(range(trials + attention))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), data=st.data())
def test_uneven_sets_keep_equal_ratings(seed, data):
    """Images with different numbers of variants (finished stimuli from elsewhere)."""
    whole = stimuli_of(8)
    keep = data.draw(st.lists(st.booleans(), min_size=len(whole), max_size=len(whole)))
    stimuli = whole[np.array(keep)]
    if len(stimuli) < 2:
        return
    trials = data.draw(st.integers(2, len(stimuli)))
    report = design.balance(design.make_lists(stimuli, 9, trials, 0, seed), stimuli)
    assert report.stimulus_spread <= 1
    assert report.repeated == 0


def test_the_demo_design_is_exactly_even():
    """52 trials of 13 cells: each list shows each arm and dose by its share, each picture four ratings."""
    stimuli = stimuli_of(60)
    report = design.balance(design.make_lists(stimuli, 60, 52, 2, seed=3), stimuli)
    assert (report.stimulus_low, report.stimulus_high) == (4, 4)
    assert report.arm_spread == 0 and report.cell_spread == 0


def test_lists_that_do_not_divide_stay_nearly_even():
    stimuli = stimuli_of(41)
    report = design.balance(design.make_lists(stimuli, 100, 30, 1, seed=8), stimuli)
    assert report.arm_spread < 2.5 and report.cell_spread < 2.5


def test_the_seed_decides_and_the_order_of_the_rows_does_not():
    stimuli = stimuli_of(20)
    first = design.make_lists(stimuli, 12, 20, 2, seed=1)
    shuffled = design.make_lists(stimuli.sample(frac=1, random_state=4), 12, 20, 2, seed=1)
    pd.testing.assert_frame_equal(first, shuffled)
    assert not first["stimulus"].equals(design.make_lists(stimuli, 12, 20, 2, seed=2)["stimulus"])


def test_neighbours_in_the_lists_do_not_give_the_arm_away():
    """The next picture's arm cannot be told from this one's: a shuffled order, not a rotation people can learn."""
    stimuli = stimuli_of(60)
    lists = design.make_lists(stimuli, 60, 52, 0, seed=5).merge(stimuli, left_on="stimulus", right_on="key")
    following = pd.crosstab(lists["arm"], lists.groupby("list")["arm"].shift(-1), normalize="index")
    assert following["treated"].between(0.24, 0.38).all()  # 4 of 13 cells are treated


def test_many_people_are_quick():
    stimuli = stimuli_of(60)
    start = time.perf_counter()
    design.make_lists(stimuli, 200, 60, 2, seed=1)
    assert time.perf_counter() - start < 15  # two seconds for a thousand on an idle core


def test_too_few_stimuli_are_told():
    with pytest.raises(UserError, match="trials_per_participant is 60, but there are only 26 different trials"):
        design.make_lists(stimuli_of(2), 5, 60, 0, seed=1)
    with pytest.raises(UserError, match="no stimulus"):
        design.make_lists(stimuli_of(2).iloc[:0], 5, 2, 0, seed=1)
