"""Each rendered world runs to its own end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
CALM = ("respondents: {slope: 20}", "respondents: {slope: 20, mark_slope: 8, noise_sd: 3, lapse: 0, inattentive: 0}")


def facts(chain: Any, stage: str) -> dict[str, Any]:
    with chain.store() as store:
        runs = store.stage_runs(store.study("tiny").id)
    return next(dict(run.facts) for run in reversed(runs) if run.stage == stage)


def test_labels_at_random_stop_the_run_before_anything_is_drawn(fresh: Any, changed: Callable[..., Path]) -> None:
    told = fresh.run(changed(("kind: confounded", "kind: null_outcome")))
    assert [stage["name"] for stage in told.said["stages"]] == ["ingest", "predict", "report"]
    assert "an interval that includes chance" in told.said["stopped"]
    assert "an interval that includes chance" in Path(told.said["report"]).read_text(encoding="utf-8")
    with fresh.store() as store:
        study_id = store.study("tiny").id
        assert store.stimuli(study_id) == [] and store.batches(study_id) == [] and store.chain(study_id) == []


def test_a_true_cause_has_a_true_slope(fresh: Any, changed: Callable[..., Path]) -> None:
    assert fresh.run(changed(("kind: confounded", "kind: true"))).said["stopped"] is None
    assert facts(fresh, "analyse")["truth"] > 0


def test_respondents_who_do_not_care_have_a_slope_of_nought(fresh: Any, changed: Callable[..., Path]) -> None:
    assert fresh.run(changed(("kind: confounded", "kind: null_rating"))).said["stopped"] is None
    assert facts(fresh, "analyse")["truth"] == pytest.approx(0, abs=1e-9)


def test_the_mark_of_editing_is_caught_and_claims_nothing(fresh: Any, changed: Callable[..., Path]) -> None:
    told = fresh.run(changed(("kind: confounded", "kind: artefact"), CALM))
    assert told.said["stopped"] is None
    found = facts(fresh, "analyse")
    even = next(s for s in found["beside"] if s["component"] == "even" and s["arm"] == "treated")
    assert even["low"] > 0, "people react to the mark alone"
    primary = next(s for s in found["statements"] if s["id"] == "H1")
    assert primary["verdict"] is False and primary["p_adjusted"] > 0.05
