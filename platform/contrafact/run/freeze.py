"""What a registration is made from, as the store knows it, and making or amending one by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from contrafact import study
from contrafact.errors import Paused, UserError
from contrafact.run.state import stages_of
from contrafact.settings import Settings
from contrafact.store import Store, open_store
from contrafact.study import LoadedStudy, Study

if TYPE_CHECKING:
    import pandas as pd

    from contrafact.store.records import ChainRecord


def freeze(loaded: LoadedStudy, settings: Settings, amend: str | None = None) -> ChainRecord:
    """The registration in force: made now where there is none, amended where ``amend`` says why.

    Raises UserError where the stages before the field are not done, or the study is not what was registered and
    no reason is given; Paused where stimuli wait for review.
    """
    from contrafact.survey import fielding

    states = {stage.name: stage for stage in stages_of(loaded, settings)}
    before = list(states)[: list(states).index("field")]
    if any(states[name].status != "done" for name in before):
        raise UserError(
            f"{loaded.path}: the stimuli are not made yet, and they are part of what is registered.",
            hint=f"Type: contrafact run {loaded.path} --until {before[-1]}",
        )
    with open_store(settings.database_url) as store:
        record = store.study(loaded.study.study)
        assert record is not None
        stimuli = shown(store, record.id, loaded.study)
        models = weights({name: stage.facts for name, stage in states.items()})
        if amend is None:
            fielding.freeze(store, record.id, loaded, stimuli, models)
        else:
            if not any("content" in link.payload for link in store.chain(record.id)):
                raise UserError(
                    f"The study '{loaded.study.study}' is not registered, so there is nothing to amend.",
                    hint=f"Type: contrafact register {loaded.path}",
                )
            manifest, sets = fielding.manifest_sha256(stimuli), fielding.sets_sha256(stimuli)
            facts = {"models": models, "stimuli": manifest, "sets": sets}
            payload = {**study.registration_payload(loaded, facts), "why": amend}
            store.append_registration(record.id, "amendment", payload)
        return [link for link in store.chain(record.id) if "content" in link.payload][-1]


def shown(store: Store, study_id: int, study: Study) -> pd.DataFrame:
    """The stimuli of whole sets that passed gate and review. The raw arm is for reviewers: dose 0 is its twin.

    Raises Paused where the study asks for review and a set has none.
    """
    stimuli = store.stimuli_table(study_id)
    if study.stimuli is None:
        passed = {decision.set_key for decision in store.gate_decisions(study_id) if decision.passed}
        stimuli = stimuli[stimuli["set_key"].isin(passed) & (stimuli["arm"] != "raw")]
    set_of = dict(zip(stimuli["stimulus"], stimuli["set_key"], strict=True))
    reviews = [review for review in store.reviews(study_id) if review.stimulus_id in set_of]
    if study.review.required:
        waiting = set(stimuli["set_key"]) - {set_of[review.stimulus_id] for review in reviews}
        if waiting:
            raise Paused(f"{len(waiting)} matched sets wait for review.", hint="Next: contrafact dashboard")
    rejected = {set_of[review.stimulus_id] for review in reviews if review.verdict == "reject"}
    stimuli = stimuli[~stimuli["set_key"].isin(rejected)]
    return stimuli.assign(key=stimuli["stimulus"]).reset_index(drop=True)


def weights(facts: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """sha256 of the models behind the stimuli, by role; none where the stimuli were brought finished."""
    finetune = facts.get("finetune", {})
    made = {role: finetune[role] for role in ("guide", "denoiser") if role in finetune}
    return {**facts.get("predict", {}).get("files", {}), **made}
