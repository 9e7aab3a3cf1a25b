"""Each rendered world runs to its own end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contrafact.study.worlds import WORLD_FACTORS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
NOISY, CALM = "respondents: {slope: 20}", "noise_sd: 3, lapse: 0, inattentive: 0}"


def facts(chain: Any, stage: str) -> dict[str, Any]:
    with chain.store() as store:
        runs = store.stage_runs(store.study("tiny").id)
    return next(dict(run.facts) for run in reversed(runs) if run.stage == stage)


def statement(found: dict[str, Any], **wanted: str) -> dict[str, Any]:
    every = [*found["statements"], *found["beside"]]
    return next(s for s in every if all(s[key] == value for key, value in wanted.items()))


def test_labels_at_random_stop_the_run_before_anything_is_drawn(fresh: Any, changed: Callable[..., Path]) -> None:
    told = fresh.run(changed(("kind: confounded", "kind: null_outcome")))
    assert [stage["name"] for stage in told.said["stages"]] == ["ingest", "predict", "report"]
    assert "an interval that includes chance" in told.said["stopped"]
    assert "an interval that includes chance" in Path(told.said["report"]).read_text(encoding="utf-8")
    with fresh.store() as store:
        study_id = store.study("tiny").id
        assert store.stimuli(study_id) == [] and store.batches(study_id) == [] and store.chain(study_id) == []


def test_a_true_cause_is_found(fresh: Any, changed: Callable[..., Path]) -> None:
    respondents = f"respondents: {{slope: 20, {CALM}"
    assert fresh.run(changed(("kind: confounded", 'kind: "true"'), (NOISY, respondents))).said["stopped"] is None
    found = facts(fresh, "analyse")
    primary = statement(found, id="H1")
    # Pictures as poor as these fall short of the dose; how the interval covers the truth is measured elsewhere.
    assert found["truth"] > 0 and primary["low"] > 0 and primary["verdict"] is True


def test_respondents_who_do_not_care_have_a_slope_of_nought(fresh: Any, changed: Callable[..., Path]) -> None:
    assert fresh.run(changed(("kind: confounded", "kind: null_rating"))).said["stopped"] is None
    found = facts(fresh, "analyse")
    assert found["truth"] == pytest.approx(0, abs=1e-9)
    assert statement(found, id="H1")["verdict"] is False
    even = statement(found, component="even", arm="treated")
    assert even["low"] < 0 < even["high"]


def test_the_mark_of_editing_is_caught_and_claims_nothing(fresh: Any, changed: Callable[..., Path]) -> None:
    respondents = f"respondents: {{slope: 20, mark_slope: 8, {CALM}"
    assert fresh.run(changed(("kind: confounded", "kind: artefact"), (NOISY, respondents))).said["stopped"] is None
    found = facts(fresh, "analyse")
    assert statement(found, component="even", arm="treated")["low"] > 0, "people react to the mark alone"
    primary = statement(found, id="H1")
    assert primary["verdict"] is False and primary["p_adjusted"] > 0.05


def test_a_direction_that_marks_its_pictures_reaches_nobody(
    predicted: Any, changed: Callable[..., Path], tmp_path: Path
) -> None:
    """A hard box of change: the detector tells treated from dose 0, and every set is stopped where the study minds."""
    chain = predicted.copy(tmp_path / "marked")
    marking = (
        ("edit: {steps: 4, secant_steps: 1, mask_quantile: 0.5, batch: 7}", "edit: {steps: 4, mask: [0.25, 0.25, 0.5, 0.5]}"),
        ("doses: {grid: [-0.4, 0, 0.4]}", "doses: {grid: [-0.8, 0, 0.8], support: [0, 1]}"),
        ("placebo: 3, images: 9", "placebo: 0, images: 12"),
    )  # fmt: skip
    stopped = chain.run(changed(*marking, ("artefact_auc: 1.0", "artefact_auc: 0.55"))).said["stopped"]
    found = facts(chain, "gate")
    auc = found["directions"]["outcome"]["artefact_auc"]
    assert auc > 0.55 and found["sets_passed"] == 0
    assert found["reasons"]["artefact_auc"] == found["sets_failed"] == 12
    assert f"an AUC of {auc:.2f}" in stopped and "gate.artefact_auc" in stopped
    with chain.store() as store:
        assert store.batches(store.study("tiny").id) == []
    assert chain.run(changed(*marking), "--until", "gate").said["stopped"] is None, "the study may say otherwise"
    assert facts(chain, "gate")["sets_passed"] == 12


def test_a_continuous_outcome_of_products_goes_from_pixels_to_a_claim(
    fresh: Any, changed: Callable[..., Path]
) -> None:
    study = changed(
        ("world: {kind: confounded, images: 500, cause: groom, nuisance: skin,",
         "world: {name: products, kind: confounded, images: 500, cause: label, nuisance: backdrop,"),
        ("  size: 16\n", "  size: 16\n  outcome: {kind: continuous}\n"),
        ("{skin: {kind: continuous, protected: true}}", "{backdrop: {}}"),
        ("hold: [skin]", "hold: [backdrop]"),
        (NOISY, f"respondents: {{reads: label, slope: 20, {CALM}"),
    )  # fmt: skip
    assert fresh.run(study).said["stopped"] is None
    predicted = facts(fresh, "predict")
    for role in ("guide", "judge"):
        assert predicted[role]["metric"] == "r2" and predicted[role]["low"] > 0
    gated, found = facts(fresh, "gate"), facts(fresh, "analyse")
    assert gated["directions"]["outcome"]["slope"] > 0
    assert gated["factor_slopes"].keys() == set(WORLD_FACTORS["products"]) and gated["factor_slopes"]["label"] > 0.2
    assert found["truth"] > 0 and statement(found, id="H1")["label"] == "registered"
