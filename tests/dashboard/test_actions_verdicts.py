"""A verdict decides what is fielded until the study is registered; what is refused writes nothing."""

from __future__ import annotations

import pytest

from contrafact import actions
from contrafact.errors import Paused, UserError
from contrafact.readings import stimuli, workspace
from contrafact.run.freeze import shown
from contrafact.settings import Settings
from contrafact.store import open_store
from contrafact.store.records import StimulusRecord


def pixels(place: Settings, key: str) -> dict[int, str]:
    return dict(stimuli.matched_set(place, "smiles", key).pixels)


def written(place: Settings, study_id: int) -> tuple[int, int, int]:
    with open_store(place.database_url) as store:
        return len(store.review_history(study_id)), len(store.audit(study_id)), len(store.chain(study_id))


def test_the_field_waits_for_every_set_and_leaves_out_the_rejected(fill, place: Settings) -> None:
    study_id = fill()

    def fielded() -> set[str]:
        with open_store(place.database_url) as store:
            record = store.study("smiles")
            assert record is not None
            return set(shown(store, study_id, workspace.study(record))["set_key"])

    actions.review(place, "smiles", "smile/ann", pixels(place, "smile/ann"), "keep", "", "Ann")
    actions.review(place, "smiles", "smile/bob", pixels(place, "smile/bob"), "reject", "blurred", "Ann")
    with pytest.raises(Paused, match="1 matched sets wait"):
        fielded()
    actions.review(place, "smiles", "smile/cy", pixels(place, "smile/cy"), "keep", "", "Ann")
    assert fielded() == {"smile/ann", "smile/cy"}
    actions.review(place, "smiles", "smile/bob", pixels(place, "smile/bob"), "keep", "", "Bo")
    assert fielded() == {"smile/ann", "smile/cy"}, "another person's word does not take a rejection back"
    actions.review(place, "smiles", "smile/bob", pixels(place, "smile/bob"), "keep", "on second thoughts", "Ann")
    assert fielded() == {"smile/ann", "smile/bob", "smile/cy"}
    assert written(place, study_id) == (65, 5, 0), "nothing that was said is lost"


@pytest.mark.parametrize(
    ("verdict", "reason", "reviewer", "sentence"),
    [("keep", "", " ", "name"), ("reject", " ", "Ann", "reason"), ("perhaps", "", "Ann", "keep or reject")],
)
def test_an_incomplete_verdict_writes_nothing(fill, place: Settings, verdict, reason, reviewer, sentence) -> None:
    study_id = fill(images=("ann",))
    with pytest.raises(UserError, match=sentence):
        actions.review(place, "smiles", "smile/ann", pixels(place, "smile/ann"), verdict, reason, reviewer)
    assert written(place, study_id) == (0, 0, 0)


def test_a_verdict_is_on_the_pixels_that_were_seen(fill, place: Settings) -> None:
    study_id = fill(images=("ann",))
    seen = pixels(place, "smile/ann")
    with open_store(place.database_url) as store:
        one = next(one for one in store.stimuli(study_id) if one.arm == "treated")
        changed = {**vars(one), "pixels_sha256": "b" * 64}
        store.put_stimuli(study_id, one.stage_run_id, [StimulusRecord(**changed)])
    with pytest.raises(UserError, match="made anew since they were shown"):
        actions.review(place, "smiles", "smile/ann", seen, "keep", "", "Ann")
    with pytest.raises(UserError, match="made anew"):
        actions.review(place, "smiles", "smile/nobody", {}, "keep", "", "Ann")
    assert written(place, study_id) == (0, 0, 0)


def test_after_registration_a_set_can_only_be_withdrawn_and_once(fill, place: Settings) -> None:
    study_id = fill(until="report")
    seen = pixels(place, "smile/bob")
    with pytest.raises(UserError, match="registered, so no verdict changes what is shown"):
        actions.review(place, "smiles", "smile/bob", seen, "reject", "blurred", "Ann")
    with pytest.raises(UserError, match="a name and a reason"):
        actions.withdraw(place, "smiles", "smile/bob", seen, "", "Ann")
    assert written(place, study_id) == (0, 0, 1)
    link = actions.withdraw(place, "smiles", "smile/bob", seen, "He asked.", "Ann")
    with pytest.raises(UserError, match="withdrawn already"):
        actions.withdraw(place, "smiles", "smile/bob", seen, "He asked again.", "Ann")
    assert written(place, study_id) == (0, 1, 2)
    with open_store(place.database_url) as store:
        store.verify_chain(study_id)
        assert store.chain(study_id)[-1].hash == link and store.audit(study_id)[0].actor == "Ann"
    assert [one.standing for one in stimuli.sets(place, "smiles").states] == ["waiting", "withdrawn", "waiting"]


def test_an_unregistered_study_has_nothing_to_withdraw_from(fill, place: Settings) -> None:
    fill(images=("ann",))
    with pytest.raises(UserError, match="not registered yet. Reject the set instead"):
        actions.withdraw(place, "smiles", "smile/ann", pixels(place, "smile/ann"), "He asked.", "Ann")
    with pytest.raises(UserError, match="no study 'elsewhere'"):
        actions.withdraw(place, "elsewhere", "smile/ann", {}, "He asked.", "Ann")
