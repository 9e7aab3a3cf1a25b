"""Simulated people recover what was planted, know nothing but pixels, and are found out when they do not look."""

import numpy as np
import pandas as pd
import pytest

from contrafact.study.schema import Respondents, World
from contrafact.survey import design, exclusions, respondents

DOSES = np.array([-1.5, -0.75, 0.0, 0.75, 1.5])


@pytest.fixture(scope="module")
def stimuli() -> pd.DataFrame:
    rows = [
        (f"{image}/{arm}/{dose}", f"image{image}", "d", "null" if dose == 0 else arm, 0, dose, f"{image}")
        for image in range(24)
        for arm in ("treated", "sham")
        for dose in DOSES
        if arm == "treated" or dose
    ]
    return pd.DataFrame(rows, columns=list(design.STIMULUS_COLUMNS))


@pytest.fixture(scope="module")
def lists(stimuli) -> pd.DataFrame:
    return design.make_lists(stimuli, 48, 36, 2, seed=11)


def pictures_of(stimuli: pd.DataFrame, per_dose: float = 0.9) -> pd.DataFrame:
    reading = np.where(stimuli["arm"] == "treated", per_dose * stimuli["dose"], 0.0)
    return stimuli.set_index("key")[["image"]].assign(reading=reading)


def treated_slope(answers: pd.DataFrame, stimuli: pd.DataFrame) -> float:
    """Least squares of the analysis' shape on those whom the exclusions leave in."""
    out = exclusions.excluded(answers.assign(question="q"))
    kept = answers[~answers["participant"].isin(out["participant"])]
    rows = kept.merge(stimuli[stimuli["arm"].isin(["treated", "null"])], left_on="stimulus", right_on="key")
    columns = np.column_stack([np.ones(len(rows)), rows["dose"], rows["dose"].abs()])
    return float(np.linalg.lstsq(columns, rows["value"].to_numpy(), rcond=None)[0][1])


def test_answers_recover_the_expected_slope(stimuli, lists):
    """Strong lapses, many sleepers and clipping, so that an expectation that ignored them would fail."""
    people = Respondents(slope=30.0, lapse=0.15, inattentive=0.3, participant_sd=15.0)
    pictures = pictures_of(stimuli)
    slopes = [
        treated_slope(respondents.answer(lists, pictures, people, 5, replication=k), stimuli) for k in range(25)
    ]
    expected = respondents.expected_slope(np.tile(0.9 * DOSES, (24, 1)), DOSES, people, attention=2)
    error = np.std(slopes, ddof=1) / np.sqrt(len(slopes))
    assert abs(np.mean(slopes) - expected) < 3.5 * error
    assert expected < 0.9 * 30 * 0.85 * 0.97  # lapses alone would leave 85%
    assert error < 0.5


def test_the_expected_answer_is_the_mean_of_the_model():
    people = Respondents(slope=20.0, lapse=0.1)
    rng = np.random.default_rng(2)
    z, n = 1.8, 400_000
    sd = np.hypot(np.hypot(people.participant_sd, people.image_sd), people.noise_sd)
    sd = np.hypot(sd, z * np.hypot(people.participant_slope_sd, people.image_slope_sd))
    drawn = np.clip(rng.normal(50 + 20 * z, sd, n), 0, 100)
    drawn = np.where(rng.random(n) < 0.1, 100 * rng.random(n), drawn)
    assert respondents.expected_answer(z, people) == pytest.approx(drawn.mean(), abs=4 * drawn.std() / np.sqrt(n))


def test_expected_slope_without_noise_or_sleepers_is_the_planted_one():
    people = Respondents(slope=10.0, lapse=0, inattentive=0, participant_sd=0, image_sd=0, noise_sd=0.001)
    reading = np.tile(0.8 * DOSES, (3, 1))
    reading[2] = np.nan  # an image out of support
    assert respondents.expected_slope(reading, DOSES, people) == pytest.approx(8.0, abs=1e-3)
    assert np.isnan(respondents.expected_slope(reading[2:], DOSES, people))
    even = respondents.expected_slope(np.tile(np.abs(DOSES), (3, 1)), DOSES, people)
    assert even == pytest.approx(0, abs=1e-6), "what plus and minus share is no slope"


def test_indifferent_people_show_no_slope(stimuli, lists):
    people = respondents.in_world(Respondents(), World(kind="null_rating"))
    pictures = pictures_of(stimuli)
    slopes = [treated_slope(respondents.answer(lists, pictures, people, 7, replication=k), stimuli) for k in range(20)]
    assert abs(np.mean(slopes)) < 3.5 * np.std(slopes, ddof=1) / np.sqrt(20)
    assert respondents.expected_slope(np.tile(DOSES, (3, 1)), DOSES, people) == pytest.approx(0)


def test_people_of_an_artefact_world_react_to_the_mark_alone(stimuli, lists):
    people = respondents.in_world(Respondents(mark_slope=15.0, inattentive=0), World(kind="artefact"))
    marked = pictures_of(stimuli).assign(mark=stimuli["dose"].abs().to_numpy())
    answers = respondents.answer(lists, marked, people, 3).merge(stimuli, left_on="stimulus", right_on="key")
    by_dose = answers.groupby("dose")["value"].mean()
    assert by_dose[1.5] - by_dose[0.0] > 10 and by_dose[-1.5] - by_dose[0.0] > 10
    assert abs(by_dose[1.5] - by_dose[-1.5]) < 5


def test_nobody_can_tell_them_the_dose(stimuli, lists):
    with pytest.raises(ValueError, match="dose"):
        respondents.answer(lists, pictures_of(stimuli).assign(dose=1.0), Respondents(), 1)


def test_a_picture_without_a_reading_is_an_error_not_a_zero(stimuli, lists):
    pictures = pictures_of(stimuli)
    pictures.iloc[5, pictures.columns.get_loc("reading")] = np.nan
    with pytest.raises(ValueError, match="no reading"):
        respondents.answer(lists, pictures, Respondents(), 1)


def test_people_are_the_same_in_any_company(stimuli, lists):
    pictures, people = pictures_of(stimuli), Respondents(inattentive=0.3)
    every = respondents.answer(lists, pictures, people, 1)
    some = respondents.answer(lists[lists["list"].isin([7, 30])], pictures, people, 1)
    same = every[every["participant"].isin([7, 30])].reset_index(drop=True)
    pd.testing.assert_frame_equal(same, some.reset_index(drop=True))
    other = respondents.answer(lists, pictures, people, 1, replication=1)
    assert (every["value"] != other["value"]).mean() > 0.8


def test_exclusions_are_counted_and_nothing_is_deleted():
    def person(name, values, targets=(30.0, 70.0), attention=(30.0, 70.0), ms=1500.0):
        rows = [(name, "image", "q", v, np.nan, ms) for v in values]
        rows += [(name, "attention", "attention", a, t, ms) for a, t in zip(attention, targets, strict=True)]
        return pd.DataFrame(rows, columns=["participant", "kind", "question", "value", "target", "response_ms"])

    varied = list(np.linspace(5, 95, 10))
    answers = pd.concat(
        [
            person("good", varied),
            person("one slip", varied, attention=(30.0, 10.0)),
            person("asleep", varied, attention=(90.0, 10.0)),
            person("straight", [50.0] * 9 + [51.0]),
            person("fast", varied, ms=120.0),
            person("untimed", varied, ms=np.nan),
            person("left", varied[:8] + [np.nan] * 2),
            person("asleep and fast", varied, attention=(90.0, 10.0), ms=100.0),
        ],
        ignore_index=True,
    )
    before = answers.copy()
    found = exclusions.excluded(answers)
    pd.testing.assert_frame_equal(answers, before)
    assert set(zip(found["participant"], found["rule"], strict=True)) == {
        ("asleep", "attention"),
        ("straight", "straight_lining"),
        ("fast", "speed"),
        ("left", "incomplete"),
        ("asleep and fast", "attention"),
        ("asleep and fast", "speed"),
    }
    assert exclusions.counts(found) == {"attention": 2, "straight_lining": 1, "speed": 2, "incomplete": 1}
    assert exclusions.counts(exclusions.excluded(person("good", varied))) == dict.fromkeys(exclusions.RULES, 0)


def test_most_who_do_not_look_are_found_and_almost_nobody_else(stimuli, lists):
    people = Respondents(inattentive=1.0)
    answers = respondents.answer(lists, pictures_of(stimuli), people, 1).assign(question="q")
    assert exclusions.excluded(answers)["participant"].nunique() > 0.8 * 48
    people = Respondents(inattentive=0.0)
    answers = respondents.answer(lists, pictures_of(stimuli), people, 1).assign(question="q")
    assert exclusions.excluded(answers)["participant"].nunique() <= 1


def test_the_truth_of_seven_steps_is_in_steps():
    people = Respondents(lapse=0.05)
    rng = np.random.default_rng(1)
    reading, n = 1.3, 200_000
    sd = np.sqrt(people.participant_sd**2 + people.image_sd**2 + people.noise_sd**2
                 + (people.participant_slope_sd**2 + people.image_slope_sd**2) * reading**2)  # fmt: skip
    value = np.clip(50 + people.slope * reading + sd * rng.standard_normal(n), 0, 100)
    value = np.where(rng.random(n) < people.lapse, rng.uniform(0, 100, n), value)
    steps = respondents.on_scale(value, "likert7")
    assert set(np.unique(steps)) == set(range(1, 8))
    expected = respondents.expected_answer(reading, people, scale="likert7")
    assert float(expected) == pytest.approx(steps.mean(), abs=4 * steps.std() / np.sqrt(n))
    doses = np.array([-1.5, -0.75, 0, 0.75, 1.5])
    vas, likert = (respondents.expected_slope(doses[None], doses, people, scale=scale) for scale in ("vas", "likert7"))
    assert likert == pytest.approx(vas * 6 / 100, rel=0.02) and likert != vas * 6 / 100
