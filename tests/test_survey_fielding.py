"""A study in the field, end to end in a real store: registered, out, in, counted."""

import re

import numpy as np
import pandas as pd
import pytest

from contrafact import bundle, study
from contrafact.errors import UserError
from contrafact.store import open_store
from contrafact.store.records import ImageRecord, StimulusRecord
from contrafact.survey import batch, behaviour, fielding

ARMS = [("null", 0.0)] + [(arm, d) for arm in ("treated", "sham", "placebo") for d in (-1.5, -0.75, 0.75, 1.5)]


@pytest.fixture
def loaded(tmp_path):
    text = (bundle.folder("studies") / "templates" / "faces_world.yaml").read_text()
    text = text.replace("NAME", "small").replace("participants: 60", "participants: 8")
    text = text.replace("trials_per_participant: 52", "trials_per_participant: 13")
    path = tmp_path / "small.yaml"
    path.write_text(text)
    return study.load(path)


@pytest.fixture
def ground(tmp_path, loaded):
    """A store whose first study has 13 images with 13 stimuli each."""
    with open_store(f"sqlite:///{tmp_path / 'store.db'}") as store:
        study_id = store.add_study(loaded.study.study, loaded.study.title, loaded.text, loaded.sha256)
        stage = store.start_stage(store.start_run(study_id, "m"), "generate", "ab" * 32, mlflow_run_id="n", code_version="1")
        images = [ImageRecord(f"img{k}", f"unit{k}", "stimuli", f"{k:064x}", 32, 32) for k in range(13)]
        store.put_images(study_id, stage, images)
        direction = store.put_direction(
            study_id, name="outcome_up", kind="condition", target="outcome", hold=["skin"], spec={}
        )
        rows = [
            StimulusRecord(image.id, direction, arm, 0, dose, f"outcome_up/{image.key}", True, f"{100 * n + k:064x}")
            for n, image in enumerate(store.images(study_id))
            for k, (arm, dose) in enumerate(ARMS)
        ]
        store.put_stimuli(study_id, stage, rows)
        yield store


@pytest.fixture
def stimuli(ground) -> pd.DataFrame:
    table = ground.stimuli_table(1)
    return table.assign(key=table["stimulus"])


def readings_of(stimuli: pd.DataFrame) -> pd.DataFrame:
    return stimuli.assign(reading=stimuli["dose"] * (stimuli["arm"] == "treated"), mark=0.0)


def fielded(ground, loaded, stimuli, tmp_path, replication=0):
    """Batch, simulated answers as a file, import."""
    name = fielding.open_batch(ground, 1, loaded.study, stimuli)
    trials = fielding.trials_of(ground, 1, loaded.study)
    rows = fielding.simulated_answers(trials, readings_of(stimuli), loaded.study, replication)
    path = tmp_path / f"answers{replication}.csv"
    batch.write_csv(path, rows)
    return name, path


def test_simulated_people_go_in_through_the_door_of_people(ground, loaded, stimuli, tmp_path):
    name, path = fielded(ground, loaded, stimuli, tmp_path)
    fate = fielding.import_answers(ground, 1, loaded.study, [path], simulated=True)[str(path)]
    assert (fate.rows, fate.accepted, fate.problems) == (8 * 15, 8 * 15, ())
    answers = ground.answers(1, name)
    assert (answers["question"] == batch.ATTENTION).sum() == 8 * 2
    assert answers.groupby("list")["pid_hash"].nunique().eq(1).all()
    assert not answers["pid_hash"].str.contains("simulated").any()

    again = fielding.import_answers(ground, 1, loaded.study, [path], simulated=True)[str(path)]
    assert (again.accepted, again.duplicates) == (0, 8 * 15)
    assert len(ground.answers(1, name)) == 8 * 15
    _, other = fielded(ground, loaded, stimuli, tmp_path, replication=1)
    with pytest.raises(UserError, match="in an earlier import"):
        fielding.import_answers(ground, 1, loaded.study, [other])

    counted = fielding.exclude(ground, 1, loaded.study)
    assert sum(counted.values()) == len(ground.exclusions(1))
    assert set(counted) == {"attention", "straight_lining", "speed", "incomplete"}


def test_files_are_taken_in_together_or_not_at_all(ground, loaded, stimuli, tmp_path):
    name, path = fielded(ground, loaded, stimuli, tmp_path)
    rows = pd.read_csv(path)
    good, bad = tmp_path / "good.csv", tmp_path / "bad.csv"
    rows[:60].to_csv(good, index=False)
    rows[55:].assign(value=lambda r: r["value"].where(r.index != 57, 1000.0)).to_csv(bad, index=False)
    with pytest.raises(UserError, match="row 4, value: 1000 is outside 0 to 100"):
        fielding.import_answers(ground, 1, loaded.study, [good, bad], simulated=True)
    assert ground.answers(1, name).empty

    rows[55:].to_csv(bad, index=False)  # the files overlap in five rows
    assert fielding.import_answers(ground, 1, loaded.study, [good, bad], dry_run=True)[str(bad)].duplicates == 5
    assert ground.answers(1, name).empty
    fielding.import_answers(ground, 1, loaded.study, [good, bad], simulated=True)
    assert len(ground.answers(1, name)) == len(rows)


def test_a_corrected_file_shows_its_difference_before_it_takes_the_place_of_the_first(ground, loaded, stimuli, tmp_path):
    name, path = fielded(ground, loaded, stimuli, tmp_path)
    fielding.import_answers(ground, 1, loaded.study, [path], simulated=True)
    rows = pd.read_csv(path)
    picture = rows.index[rows["question"] != batch.ATTENTION][3]
    before, after = rows.loc[picture, "value"], round((rows.loc[picture, "value"] + 31) % 100, 1)
    corrected = tmp_path / "corrected.csv"
    rows.assign(value=rows["value"].where(rows.index != picture, after)).to_csv(corrected, index=False)
    difference = rf"row {picture + 2}, value: {after:g} here, but {before:g} in an earlier import.*--correct"
    with pytest.raises(UserError, match=re.compile(difference, re.DOTALL)):
        fielding.import_answers(ground, 1, loaded.study, [corrected], simulated=True, dry_run=True)

    fate = fielding.import_answers(ground, 1, loaded.study, [corrected], simulated=True, correct=True, dry_run=True)[str(corrected)]
    assert (fate.corrected, fate.duplicates) == (1, len(rows) - 1) and before in set(ground.answers(1, name)["value"])
    fate = fielding.import_answers(ground, 1, loaded.study, [corrected], simulated=True, correct=True)[str(corrected)]
    assert fate.problems == (f"row {picture + 2}, value: {after:g} takes the place of {before:g}",)
    answers = ground.answers(1, name)
    assert len(answers) == len(rows)
    [entry] = ground.audit(1)
    assert entry.action == "correction"
    assert [(a["before"], a["after"], a["position"]) for a in entry.detail["answers"]] == [(before, after, rows.loc[picture, "position"] - 1)]
    kept = answers.set_index(["list", "position", "question"])["value"]
    change = entry.detail["answers"][0]
    assert kept[change["list"], change["position"], change["question"]] == after
    again = fielding.import_answers(ground, 1, loaded.study, [corrected], simulated=True, correct=True)[str(corrected)]
    assert (again.corrected, again.duplicates) == (0, len(rows)) and len(ground.audit(1)) == 1


def test_who_is_left_out_is_counted_in_rows_and_taken_in(ground, loaded, stimuli, tmp_path):
    name, path = fielded(ground, loaded, stimuli, tmp_path)
    rows = pd.read_csv(path)
    first = rows["assignment"] == rows["assignment"].iloc[0]
    rows.assign(response_ms=rows["response_ms"].where(~first, 20)).to_csv(path, index=False)
    counts = [fielding.import_answers(ground, 1, loaded.study, [path], simulated=True)[str(path)].excluded for _ in range(2)]
    assert counts == [15, 15] and len(ground.answers(1, name)) == len(rows), "the same in a second import"
    assert fielding.exclude(ground, 1, loaded.study)["speed"] == 1


def test_a_list_only_begun_is_incomplete_and_one_not_begun_is_nobody(ground, loaded, stimuli, tmp_path):
    _, path = fielded(ground, loaded, stimuli, tmp_path)
    rows = pd.read_csv(path)
    first = rows["assignment"].iloc[0]
    rows[rows["assignment"] == first][:5].to_csv(path, index=False)
    fielding.import_answers(ground, 1, loaded.study, [path], simulated=True)
    assert fielding.exclude(ground, 1, loaded.study)["incomplete"] == 1
    assert ground.exclusions(1)["participant"].nunique() == 1


def test_a_larger_sample_adds_lists_and_leaves_the_others(ground, loaded, stimuli):
    fielding.open_batch(ground, 1, loaded.study, stimuli)
    before = fielding.trials_of(ground, 1, loaded.study)
    survey = loaded.study.survey.model_copy(update={"participants": 11})
    fielding.open_batch(ground, 1, loaded.study.model_copy(update={"survey": survey}), stimuli)
    after = fielding.trials_of(ground, 1, loaded.study)
    assert after["assignment"].nunique() == 11
    pd.testing.assert_frame_equal(after[after["list"] < 8].reset_index(drop=True), before)


def test_the_registration_comes_once_and_holds(ground, loaded, stimuli, tmp_path):
    first = fielding.freeze(ground, 1, loaded, stimuli, {"guide": "ab"})
    assert fielding.freeze(ground, 1, loaded, stimuli, {"guide": "ab"}) == first and len(ground.chain(1)) == 1
    assert ground.chain(1)[0].payload["stimuli"] == fielding.manifest_sha256(stimuli.sample(frac=1, random_state=1))

    with pytest.raises(UserError, match="stimuli are not those"):
        fielding.freeze(ground, 1, loaded, stimuli[:-13], {})
    other = tmp_path / "other.yaml"
    other.write_text(loaded.text.replace("alternative: greater", "alternative: less", 1))
    with pytest.raises(UserError, match="alternative"):
        fielding.freeze(ground, 1, study.load(other), stimuli, {})
    assert len(ground.chain(1)) == 1


def test_seven_point_answers_stay_on_their_scale(ground, loaded, stimuli):
    question = loaded.study.survey.questions[0].model_copy(update={"scale": "likert7"})
    survey = loaded.study.survey.model_copy(update={"questions": (question,)})
    seven = loaded.study.model_copy(update={"survey": survey})
    fielding.open_batch(ground, 1, seven, stimuli)
    rows = fielding.simulated_answers(fielding.trials_of(ground, 1, seven), readings_of(stimuli), seven)
    values = rows.loc[rows["question"] == question.name, "value"]
    assert set(values) <= set(np.arange(1.0, 8.0)) and values.nunique() > 3


def test_nothing_fielded_is_told(ground, loaded):
    with pytest.raises(UserError, match="has no batch yet"):
        fielding.trials_of(ground, 1, loaded.study)


def test_what_people_did_beside_answering_is_counted_and_excludes_nobody():
    wording = {"trust": "one two three four five six seven eight nine ten", "why": "Why?"}
    rows = [(1, 0, p, "trust", 50.0 if p < 9 else 51.0, None, 900.0 if p else 950.0, int(p in (2, 5)), None) for p in range(12)]
    rows += [(1, 0, p, "why", np.nan, "so", 900.0, int(p in (2, 5)), 30 * (p == 3)) for p in range(12)]
    rows += [(2, 1, p, "trust", float(p), None, 299.0 if p == 4 else 1200.0, np.nan, np.nan) for p in range(12)]
    columns = ["participant", "list_number", "position", "question", "value", "text", "response_ms", "away", "pasted"]
    found = behaviour.flags(pd.DataFrame(rows, columns=columns), wording)
    # The first person needs a second for the ten words of the first trial; the second has not been watched by a page.
    expected = pd.DataFrame({
        "participant": [1, 2], "answers": [24, 12], "away": [2.0, np.nan], "pasted": [1.0, np.nan], "hasty": [1, 1], "longest_run": [9, 1],
    })  # fmt: skip
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)
    told = {words.split(" ")[0]: rest for words, *rest in behaviour.told(found)}
    assert told["left"] == ["1 of 1", "2 times"] and told["gave"] == ["1 of 2", "longest run 9"] and told["answered"] == ["2 of 2", "2 times"]
    unseen = behaviour.told(found.assign(away=np.nan, pasted=np.nan))
    assert unseen[0][1:] == ("not recorded", "not recorded"), "nothing is called zero that nobody counted"
