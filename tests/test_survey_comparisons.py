"""Designs of several pictures and of one arm each: lists, simulated people, import, and the table of choices."""

import shlex

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML as YAML_READER

from contrafact import study
from contrafact.errors import Mistakes, UserError
from contrafact.readings.results import reading
from contrafact.report.methods import methods
from contrafact.stats import fit
from contrafact.stats.pairs import bradley_terry
from contrafact.store import open_store
from contrafact.store.records import ImageRecord, StimulusRecord
from contrafact.study import advice
from contrafact.study.schema import Hypothesis, Study
from contrafact.survey import analysis, batch, design, fielding, ledger

ARMS = [("null", 0.0)] + [(arm, d) for arm in ("treated", "sham") for d in (-1.0, 1.0)]
YAML = """
study: compared
title: Which of these?
world: {{kind: 'true', images: 400}}
directions: {{outcome: {{}}}}
doses: {{grid: [-1, 0, 1]}}
arms: {{placebo: 0}}
survey:
  design: {design}
  participants: {people}
  trials_per_participant: {trials}
  attention_trials: 1
  repeats: {repeats}
  questions: {questions}
  respondents: {{inattentive: 0.1, slope: 20, noise_sd: 6}}
"""
QUESTIONS = {
    "within_image": "[{name: neat, text: How neat?}, {name: why, text: What do you see?, scale: text}]",
    "between_arm": "[{name: neat, text: How neat?, scale: likert7}]",
    "pairs": "[{name: neat, text: Which is neater?, scale: choice}, {name: why, text: What differs?, scale: text}]",
    "guess": "[{name: higher, text: Which has more of it?, scale: choice}]",
    "best_worst": "[{name: neat, text: Which of these?, low: least neat, high: neatest, scale: best_worst}]",
}


@pytest.fixture
def loaded(tmp_path, request):
    path = tmp_path / "compared.yaml"
    people, trials = (12, 8) if request.param != "guess" else (12, 6)
    repeats = 0 if request.param == "guess" else 2
    path.write_text(
        YAML.format(design=request.param, people=people, trials=trials, repeats=repeats, questions=QUESTIONS[request.param])
    )
    return study.load(path)


@pytest.fixture
def ground(tmp_path, loaded):
    with open_store(f"sqlite:///{tmp_path / 'store.db'}") as store:
        study_id = store.add_study("compared", "Which", loaded.text, loaded.sha256)
        stage = store.start_stage(store.start_run(study_id, "m"), "generate", "ab" * 32, mlflow_run_id="n", code_version="1")
        store.put_images(study_id, stage, [ImageRecord(f"i{k}", f"u{k}", "stimuli", f"{k:064x}", 32, 32) for k in range(12)])
        direction = store.put_direction(study_id, name="outcome", kind="condition", target="outcome", hold=[], spec={})
        store.put_stimuli(study_id, stage, [
            StimulusRecord(image.id, direction, arm, 0, dose, f"outcome/{image.key}", True, f"{100 * n + k:064x}")
            for n, image in enumerate(store.images(study_id)) for k, (arm, dose) in enumerate(ARMS)
        ])  # fmt: skip
        yield store


def stimuli_of(store) -> pd.DataFrame:
    table = store.stimuli_table(1)
    return table.assign(key=table["stimulus"])


@pytest.mark.parametrize("loaded", ["within_image", "between_arm", "pairs", "guess", "best_worst"], indirect=True)
def test_every_design_goes_out_and_comes_back(loaded, ground, tmp_path, monkeypatch):
    for room in (fielding, ledger):
        monkeypatch.setattr(room, "LISTS", 5)  # of 12: the last piece is a shorter one
    stimuli, survey = stimuli_of(ground), loaded.study.survey
    name = fielding.open_batch(ground, 1, loaded.study, stimuli)
    trials = fielding.trials_of(ground, 1, loaded.study)
    seen = stimuli.assign(reading=stimuli["dose"] * (stimuli["arm"] == "treated"))
    answers = fielding.simulated_answers(trials, seen, loaded.study)
    path = tmp_path / "answers.csv"
    batch.write_csv(path, answers)
    for accepted, there in ((len(answers), 0), (0, len(answers))):
        fate = fielding.import_answers(ground, 1, loaded.study, [path], simulated=True)[str(path)]
        assert (fate.accepted, fate.duplicates, fate.problems) == (accepted, there, ())
    assert fielding.exclude(ground, 1, loaded.study)["incomplete"] == 0
    per_trial = len(survey.asked)
    shown = survey.trials_per_participant + survey.repeats
    assert len(answers) == survey.participants * (shown * per_trial + 1)
    ground.close_field(1, name)
    assert ground.changed_rows(1) == []

    numbers, choices, texts = ground.ratings_table(1), ground.choices_table(1), ground.texts_table(1)
    once = pd.concat([numbers, choices, texts])
    assert once["rating_id"].nunique() == survey.participants * survey.trials_per_participant * per_trial
    shown_twice(loaded.study, once, numbers, choices, ground.repeats_table(1))
    assert texts["text"].isin(fielding.respondents.WORDS).all()
    if survey.design == "between_arm":
        assert (numbers[numbers["arm"] != "null"].groupby("participant")["arm"].nunique() == 1).all()
        assert set(numbers.groupby("participant")["arm"].apply(lambda own: "sham" in set(own)).value_counts()) == {6}
    if survey.design in ("pairs", "guess", "best_worst"):
        shown = choices.groupby("rating_id")
        assert (shown["chosen"].sum() == 1).all() and (shown["image"].nunique() == 1).all()
        assert (shown["place"].max() == (3 if survey.design == "best_worst" else 1)).all()
        treated = choices[choices["arm"] == "treated"]
        best = treated[treated["question"].isin(["neat", "higher", "neat_best"])]
        assert best[best["dose"] > 0]["chosen"].mean() > 0.1 + best[best["dose"] < 0]["chosen"].mean()
    if survey.design == "guess":
        right = choices.loc[choices["place"] + 1 == choices["target"]]
        assert (right["dose"] == 1).all() and right["chosen"].mean() > 0.6


def shown_twice(asked, once, numbers, choices, again):
    """Repeats are the same pictures half a list later, are in no table of evidence, and tell the retest reliability."""
    survey = asked.survey
    tables = reading(asked, {}, ratings=numbers, choices=choices, repeats=again).reliability
    lines = {row[0]: row[1] for table in tables for row in table.rows if row[0].startswith("test-retest")}
    if not survey.repeats:
        assert again.empty and not lines
        return
    assert again["rating_id"].nunique() == survey.participants * survey.repeats * len(survey.asked)
    assert not set(again["rating_id"]) & set(once["rating_id"])
    both = again.merge(once, on=["list_number", "question", "stimulus", "place"], suffixes=("", "_once"))
    assert len(both) == len(again) and (both["position"] - both["position_once"]).min() >= survey.trials_per_participant // 2
    assert lines and all(float(value) > 0.3 for value in lines.values())
    assert not any("test-retest" in row[0] for table in reading(asked, {}, ratings=numbers, choices=choices).reliability for row in table.rows)


@pytest.mark.parametrize("loaded", ["pairs"], indirect=True)
def test_choices_feed_the_estimator_of_pairs(loaded, ground, tmp_path):
    stimuli = stimuli_of(ground)
    fielding.open_batch(ground, 1, loaded.study, stimuli)
    seen = stimuli.assign(reading=stimuli["dose"] * (stimuli["arm"] == "treated"))
    path = tmp_path / "answers.csv"
    batch.write_csv(path, fielding.simulated_answers(fielding.trials_of(ground, 1, loaded.study), seen, loaded.study))
    fielding.import_answers(ground, 1, loaded.study, [path], simulated=True)
    choices = ground.choices_table(1)
    wide = choices.assign(item=choices["arm"] + choices["dose"].astype(str)).pivot(index="rating_id", columns="place", values="item")
    won = choices[choices["place"] == 0].set_index("rating_id")["chosen"].astype(float)
    fit = bradley_terry(pd.DataFrame({"first": wide[0], "second": wide[1], "outcome": won}))
    worth = fit.coefficients.set_index("term")["estimate"]
    assert worth["treated1.0"] > worth["sham1.0"] > worth["treated-1.0"]
    assert abs(worth["order"]) < 1


@pytest.mark.parametrize("loaded", ["pairs", "guess", "best_worst"], indirect=True)
def test_choices_are_tested_by_what_pictures_are_worth_and_the_command_gives_the_same(loaded, ground, tmp_path):
    stimuli, survey = stimuli_of(ground), loaded.study.survey
    fielding.open_batch(ground, 1, loaded.study, stimuli)
    seen = stimuli.assign(reading=stimuli["dose"] * (stimuli["arm"] == "treated"))
    path = tmp_path / "answers.csv"
    people = survey.respondents.model_copy(update={"slope": 8.0, "noise_sd": 10.0})
    unsure = loaded.study.model_copy(update={"survey": survey.model_copy(update={"respondents": people})})
    batch.write_csv(path, fielding.simulated_answers(fielding.trials_of(ground, 1, loaded.study), seen, unsure))
    fielding.import_answers(ground, 1, loaded.study, [path], simulated=True)
    table = analysis.evidence(ground.ratings_table(1), ground.choices_table(1))
    name = loaded.study.survey.questions[0].name
    scored = survey.design == "best_worst"
    assert set(table["question"]) == {name} and (table.groupby("trial").size() == (4 if scored else 2)).all()
    arm = "treated" if survey.design == "guess" else "treated-sham"
    claim = Hypothesis(id="H1", claim="It is neater.", direction="outcome", question=name, arm=arm, primary=True)
    asked = loaded.study.model_copy(update={"hypotheses": (claim,)})
    found = {s.id: s for s in analysis.statements(asked, table)}
    tested = found["H1"]
    assert tested.unit == f"{'best-worst score' if scored else 'log-odds of choice'} per SD of dose"
    assert tested.estimate > 0 and tested.verdict is not None
    beside = ("learning",) if scored else ("learning", "accuracy", "signs")
    assert {f"{what}-treated-outcome-{name}" for what in beside} <= set(found)
    assert found[f"{'logit' if scored else 'linear'}-{arm}-outcome-{name}"].estimate > 0
    if not scored:
        assert found[f"accuracy-treated-outcome-{name}"].low > 0, "the higher dose is chosen more often than not"
    words = shlex.split(analysis.calls(asked, table, list(found.values()))["H1"])
    (name_of_all, everything), (file, rows) = analysis.tables(asked, table)
    everything.to_csv(tmp_path / name_of_all, index=False)
    (once_more,) = analysis.statements(asked, pd.read_csv(tmp_path / name_of_all), exploratory=False)
    assert once_more.estimate == pytest.approx(tested.estimate, rel=1e-6)
    assert words[2] == file and words[words.index("--family") + 1] == ("gaussian" if scored else "binary")
    again = fit(rows, words[words.index("--formula") + 1], family=words[words.index("--family") + 1])
    parts = {"treated": 1, "sham": -1} if arm == "treated-sham" else {"treated": 1}
    assert again.contrast(parts).estimate == pytest.approx(tested.estimate, rel=1e-3)
    text = dict(methods(asked, {}, ()))["Analysis"]
    assert "logit mixed model" in text and ("Marley" in text) == scored
    figures = reading(asked, {}, ratings=ground.ratings_table(1), choices=ground.choices_table(1)).figures
    assert figures[0].caption.startswith("Best-worst score" if scored else "Share chosen")


@pytest.mark.parametrize("loaded", ["pairs", "guess", "best_worst"], indirect=True)
def test_sides_and_places_are_balanced(loaded):
    table = pd.DataFrame(
        [(f"i{k}", "outcome", arm, 0, dose, f"s{k}") for k in range(12) for arm, dose in ARMS],
        columns=["image", "direction", "arm", "draw", "dose", "set_key"],
    )
    table = table.assign(key=range(len(table)))
    survey = loaded.study.survey.model_copy(update={"participants": 40})
    lists = design.field_lists(table, survey, 3)
    fewer = design.field_lists(table, loaded.study.survey, 3)
    pd.testing.assert_frame_equal(lists[lists["list"] < 12], fewer, check_dtype=False)
    shown = lists[lists["kind"] == "image"].merge(table, left_on="stimulus", right_on="key")
    sides = shown.groupby(["stimulus", "place"]).size().unstack(fill_value=0)
    if survey.design == "best_worst":
        assert (sides.max(axis=1) - sides.min(axis=1)).max() <= 1, "every picture stands equally often at each place"
    else:
        shown_as = shown.sort_values(["list", "position", "place"]).groupby(["list", "position"])["stimulus"].agg(tuple)
        ways = shown_as.map(lambda pair: (min(pair), 1 if pair[0] < pair[1] else -1, max(pair)))
        turned = pd.DataFrame(ways.tolist()).groupby([0, 2])[1].sum()
        assert turned.abs().max() <= 2, "every pair stands each way round equally often"
        kinds = shown.sort_values(["list", "position", "place"]).groupby(["list", "position"])["arm"].agg(tuple)
        for pair in {tuple(sorted(kind)) for kind in kinds if kind[0] != kind[1]}:
            own = kinds[kinds.map(lambda kind, pair=pair: tuple(sorted(kind)) == pair)]
            first = own.map(lambda kind, pair=pair: kind[0] == pair[0]).groupby("list").agg(["sum", "size"])
            assert (abs(2 * first["sum"] - first["size"]) <= 1).all(), "within a list, to within one"
    counts = lists[lists["kind"] == "image"].groupby("stimulus").size()
    assert counts.min() > 0


def test_a_perfect_difference_set_is_found():
    own = pd.DataFrame({"key": range(13), "set_key": "s"})
    together = np.zeros((13, 13), dtype=int)
    for block in design._blocks(own, 4):
        for a in block:
            for b in block:
                together[a, b] += 1
    assert set(together[~np.eye(13, dtype=bool)]) == {1} and set(together.diagonal()) == {4}, "a balanced block design"
    with pytest.raises(UserError, match="has 13 pictures, and survey.set_size asks for 14"):
        design._blocks(own, 14)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("design: pairs, questions: [{name: a, text: How?}]", "scale 'vas'"),
        ("questions: [{name: a, text: How?, scale: choice}]", "scale 'choice'"),
        ("design: pairs, questions: [{name: a, text: Why?, scale: text}]", "free text alone"),
        ("set_size: 4, questions: [{name: a, text: How?}]", "'set_size' with design within_image"),
        ("design: guess, compare: [[treated, sham]], questions: [{name: a, text: How?, scale: choice}]", "'compare' with design guess"),
        ("design: guess, repeats: 3, questions: [{name: a, text: How?, scale: choice}]", "'repeats' with design guess"),
        (
            "participants: 9, questions: [{name: a, text: How?}], "
            + "service: {screening: [{name: b, text: Old?, options: [y, n], quotas: {y: 4, n: 4}}]}",
            "room for 8 people, while survey.participants is 9",
        ),
        (
            "design: between_arm, questions: [{name: a, text: How?}], service: {practice: {trials: 1}}",
            "practice on the study's own pictures with design between_arm",
        ),
        ("questions: [{name: a, text: How?}], service: {practice: {trials: 3, folder: .}}", "with 0 pictures; allowed: 3 pictures at least"),
        ("questions: [{name: a, text: How?}], pay: {bonus: 0.05}", "a bonus with design within_image"),
        ("trials_per_participant: 9, repeats: 5, questions: [{name: a, text: How?}]", "at most 4, half of trials_per_participant"),
    ],
)
def test_words_that_do_not_fit_the_design_are_told(tmp_path, given, found):
    path = tmp_path / "x.yaml"
    path.write_text(f"study: x\ntitle: A title\nworld: {{}}\ndirections: {{outcome: {{}}}}\nsurvey: {{respondents: {{}}, {given}}}\n")
    with pytest.raises(Mistakes) as told:
        study.load(path)
    assert found in str(told.value)


def test_pay_and_length_are_told_before_money_is_spent():
    yaml = YAML_READER(typ="safe")
    text = (
        "study: x\ntitle: A title\nimages: {{manifest: m.csv, folder: ., covariates: {{}}}}\ndirections: {{outcome: {{}}}}\n"
        "survey: {{trials_per_participant: {trials}, questions: [{{name: a, text: How?}}], pay: {pay}}}\n"
    )

    def told(trials, pay):
        return advice.warnings(Study.model_validate(yaml.load(text.format(trials=trials, pay=pay))))

    assert told(40, "{hourly: 9, minutes: 8}") == []
    assert "asks for at least 6" in told(40, "{hourly: 5, minutes: 8}")[0]
    [short] = told(100, "{hourly: 9, minutes: 8}")
    assert "11 minutes, and pay.minutes says 8: 6.43 GBP an hour" in short
    assert "beyond 30 attention fades" in told(400, "{hourly: 9, minutes: 45}")[0]
