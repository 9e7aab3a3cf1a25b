"""What stands on the card of a tiny study, and what its weights would add."""

from __future__ import annotations

import math
from typing import Any

from contrafact.store import Store


def facts(store: Store, stage: str) -> dict[str, Any]:
    return next(dict(run.facts) for run in reversed(store.stage_runs(store.study("tiny").id)) if run.stage == stage)  # type: ignore[union-attr]


def test_the_card_says_what_was_drawn_and_leaves_open_what_has_no_weights(gated: Any) -> None:
    with gated.store() as store:
        predicted, found = facts(store, "predict"), facts(store, "gate")
    assert predicted["near_duplicates"] == []
    assert found["drawability"].keys() == {"outcome", "skin"}
    for one in found["drawability"].values():
        assert one["low"] < one["slope"] < one["high"]
    card = found["directions"]["outcome"]
    assert 0 < card["anomaly"] < math.inf
    assert card["moves"].keys() == {"skin"}
    assert card["lpips"] is None and card["clip_similarity"] is None
