"""Properties of the whole chain: killed, repeated, in other batches, reviewed, refused. All start from one run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contrafact import seeds, settings
from contrafact.images import decode
from contrafact.store.files import Files

# What appears in the work folder, and the longest random time from then to the kill (seconds).
MOMENTS = [
    ("ingest-*", 0.5),
    ("predict-*", 0.5),
    ("predict-*/guide", 0.3),
    ("predict-*/judge", 0.3),
    ("predict-*/probe_judge", 0.5),
    ("finetune-*", 0.5),
    ("finetune-*/train/checkpoint.safetensors", 0.3),
    ("finetune-*/samples.png", 0.3),
    ("generate-*", 0.5),
    ("generate-*/placebo", 0.3),
    ("generate-*/outcome-0.json", 0.1),
    ("gate-*", 0.5),
    ("field-*", 0.1),
    ("field-*/batch/answers.csv", 0.05),
    ("analyse-*", 0.5),
    ("report-*", 0.1),
]


def test_a_killed_chain_ends_like_one_that_was_not(
    predicted: Any, whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = predicted.copy(tmp_path / "killed")
    chain.kill("finetune-*/train/checkpoint.safetensors")
    (halted,) = (chain.workspace / "work" / "tiny").glob("finetune-*")
    (halted / "guide_denoised.draft").mkdir()  # as a kill in the middle of writing it leaves it
    (halted / "guide_denoised.draft" / ".tmp").write_bytes(b"half")
    chain.kill("generate-*/outcome-0.json")
    (block,) = (chain.workspace / "work" / "tiny").glob("generate-*/outcome-0.json")
    stored = {row["pixels_sha256"] for _, row in json.loads(block.read_text(encoding="utf-8"))["stimuli"]}
    again: list[str] = []
    put = Files.put
    monkeypatch.setattr(Files, "put", lambda files, content: again.append(put(files, content)) or again[-1])
    told = chain.run()
    assert len(stored) == 7 * 7 and not stored & set(again), "a picture that was stored was made again"
    assert [stage["name"] for stage in told.said["stages"] if stage["cached"]] == ["ingest", "predict", "finetune"]
    assert chain.outcome() == whole.outcome()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_chain_that_is_killed_in_every_stage_ends_like_one_that_was_not(fresh: Any, whole: Any) -> None:
    rng = seeds.generator(1, "kill")
    for file, longest in MOMENTS:
        fresh.kill(file, delay=longest * float(rng.random()))
    fresh.run()
    assert fresh.outcome() == whole.outcome()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_same_study_twice_gives_the_same_bits(fresh: Any, whole: Any) -> None:
    with fresh.start("run", str(Path(__file__).with_name("tiny.yaml"))) as process:
        assert process.wait() == 0
    assert pictures(fresh) == pictures(whole)
    assert fresh.outcome() == whole.outcome()


def pictures(chain: Any) -> dict[tuple[Any, ...], str]:
    with chain.store() as store:
        table = store.stimuli_table(store.study("tiny").id)
    return table.set_index(["image", "arm", "draw", "dose"])["pixels_sha256"].to_dict()


@pytest.mark.parametrize("size", [1, 32])
def test_the_number_of_images_edited_at_once_changes_no_pixel_by_more_than_1(
    size: int, gated: Any, changed: Callable[..., Path], tmp_path: Path
) -> None:
    """The study itself edits 7 at once, of 9."""
    other = gated.copy(tmp_path / "other")
    other.run(changed(("batch: 7}", f"batch: {size}}}")), "--until", "generate")
    first, second = pictures(gated), pictures(other)
    assert first.keys() == second.keys() and len(first) == 9 * (1 + 2 * 3)
    files, others = (Files(settings.read(each.workspace).files_url) for each in (gated, other))
    for key, sha256 in first.items():
        one, two = decode.from_png(files.get(sha256)), decode.from_png(others.get(second[key]))
        assert np.abs(one.astype(int) - two).max() <= 1, key


def test_doses_out_of_support_for_every_image(gated: Any, changed: Callable[..., Path], tmp_path: Path) -> None:
    chain = gated.copy(tmp_path / "far")
    study = changed(("grid: [-0.4, 0, 0.4]", "grid: [-40, 0, 40]"))
    chain.refused(study, str(study), "doses.grid", "-40 to 40 SD", "doses.support", "smaller doses")
    assert not chain.report().exists()
    with chain.store() as store:
        study_id = store.study("tiny").id
        assert store.stimuli(study_id) == [] and store.chain(study_id) == []


@pytest.mark.slow
def test_a_dose_beyond_the_trust_region_is_flagged_not_faked(
    predicted: Any, changed: Callable[..., Path], tmp_path: Path
) -> None:
    chain = predicted.copy(tmp_path / "short")
    plan = changed(("steps: 4, secant_steps: 1", "steps: 4, trust_radius: 1.0e-5, secant_steps: 1"), ("images: 9}", "images: 4}"))
    assert chain.run(plan, "--until", "gate").said["stopped"] is not None
    with chain.store() as store:
        study = store.study("tiny")
        flags = {card.stimulus_id: list(card.flags) for card in store.cards(study.id)}
        arm = {one.id: one.arm for one in store.stimuli(study.id)}
    assert len(flags) == 4 * (1 + 3 * 2)
    assert all(flag == (["unsupported"] if arm[one] == "treated" else []) for one, flag in flags.items())



def test_the_run_waits_for_review_and_a_rejection_takes_the_whole_set_out(
    gated: Any, changed: Callable[..., Path], tmp_path: Path
) -> None:
    chain = gated.copy(tmp_path / "reviewed")
    study = changed(("survey:\n", "review: {required: true}\nsurvey:\n"))
    waiting = chain.run(study)
    assert "matched sets wait for review" in waiting.said["paused"]
    assert "Next: contrafact dashboard" in waiting.said["paused"]

    with chain.store() as store:
        study_id = store.study("tiny").id
        assert store.chain(study_id) == [], "registered before anybody looked"
        passed = [decision.set_key for decision in store.gate_decisions(study_id) if decision.passed]
        table = store.stimuli_table(study_id).set_index("stimulus")
        one_of_each = {row.set_key: stimulus for stimulus, row in table.iterrows()}
        bad, *good = passed
        for set_key in good[:-1]:
            store.add_review(int(one_of_each[set_key]), "keep", "", "Ada")
        store.add_review(int(one_of_each[bad]), "reject", "two noses", "Ada")
    assert "1 matched sets wait" in chain.run(study).said["paused"], "one set has no verdict yet"
    with chain.store() as store:
        store.add_review(int(one_of_each[good[-1]]), "keep", "", "Grace")

    done = chain.run(study)
    assert done.said["stopped"] is None and Path(done.said["report"]).exists()
    with chain.store() as store:
        shown = store.batch_trials(study_id)["stimulus"].dropna().astype(int)
        rated = store.ratings_table(study_id)
    fielded = set(table.loc[shown.unique(), "set_key"])
    assert bad not in fielded and fielded <= set(good) and fielded
    assert bad.split("/")[1] not in set(rated["image"]) and len(rated)


def test_a_changed_plan_is_refused_after_registration(
    whole: Any, changed: Callable[..., Path], tmp_path: Path
) -> None:
    chain = whole.copy(tmp_path / "changed")
    study = changed(("alternative: greater", "alternative: two-sided"))
    html = chain.report().read_bytes()
    chain.refused(study, str(study), "alternative", "Undo the change", "--amend")
    assert chain.report().read_bytes() == html
    with chain.store() as store:
        assert [link.kind for link in store.chain(store.study("tiny").id)] == ["registration", "field", "analysis"]

    chain.run()  # the registered study again
    assert chain.outcome() == whole.outcome()
