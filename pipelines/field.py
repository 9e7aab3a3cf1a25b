"""field: registration first, then lists out and ratings in, from people or from simulated respondents."""

from __future__ import annotations

import io
import shutil
from typing import Any

import pandas as pd

from contrafact.errors import Paused, UserError
from contrafact.run.context import Context
from contrafact.run.freeze import shown, weights
from contrafact.stats.pitfalls import leaving
from contrafact.store.visits import Visits
from contrafact.survey import batch, fielding


def run(context: Context) -> dict[str, Any]:
    """Facts: the batch, its participants and ratings (and how often an answer was asked for again, where the study repeats
    trials), exclusions by rule, where people left, the registration's hash."""
    study, store, study_id = context.study, context.store, context.study_id
    if study.survey is None:
        return {"stopped": "The study has no `survey`, so nothing was fielded."}
    stimuli = shown(store, study_id, study)
    registration = fielding.freeze(store, study_id, context.loaded, stimuli, weights(context.upstream))
    name = fielding.open_batch(store, study_id, study, stimuli)
    if study.survey.respondents is not None:
        _simulate(context, name)
    answers = store.answers(study_id, name)
    participants = int(answers["list"].nunique())
    if study.survey.respondents is None and study.survey.service is not None:
        _wait_for_visits(context, name)
    elif study.survey.respondents is None and participants < study.survey.participants:
        _wait(context, name, participants)
    again = store.repeats_table(study_id)
    repeats = int(again[again["batch"] == name]["rating_id"].nunique())
    facts = {
        "batch": name,
        "participants": participants,
        "ratings": int((answers["question"] != batch.ATTENTION).sum()) - repeats,
        **({"repeats": repeats} if study.survey.repeats else {}),
        **_visits(context, name),
        "excluded": fielding.exclude(store, study_id, study, name),
        "left": _left(context, name, stimuli),
        "registration": registration,
    }
    store.close_field(study_id, name)
    context.log_metrics({"participants": facts["participants"], "ratings": facts["ratings"]})
    return facts


def _simulate(context: Context, name: str) -> None:
    """Simulated people come to the pages where the study has some; else they answer the exported batch, and their file
    goes in through the same door as anybody's."""
    kept = context.upstream.get("gate", {}).get("readings")
    if kept is None:
        raise UserError(
            "Simulated respondents need the reader of a rendered world.", hint="Remove `survey.respondents`."
        )
    readings = pd.read_parquet(io.BytesIO(context.files.get(kept)))
    readings["stimulus"] = readings["stimulus"].astype("int64")
    if context.study.survey is not None and context.study.survey.service is not None:
        from contrafact.service.visitors import field_simulated

        practice = context.loaded.inputs.get("survey.service.practice.folder")
        field_simulated(context.store, context.files, context.study_id, context.study, name, readings, practice)
        return
    out = context.folder / "batch"
    shutil.rmtree(out, ignore_errors=True)
    fielding.export_batch(context.store, context.files.get, context.study_id, context.study, out, name)
    trials = fielding.trials_of(context.store, context.study_id, context.study, name)
    batch.write_csv(out / "answers.csv", fielding.simulated_answers(trials, readings, context.study))
    fielding.import_answers(
        context.store, context.study_id, context.study, [out / "answers.csv"], simulated=True, name=name
    )


def _left(context: Context, name: str, stimuli: pd.DataFrame) -> dict[str, Any]:
    """People who left before the end, by the arm of the picture at which they did."""
    trials = fielding.begun(context.store, context.study_id, context.study, name)
    arms = dict(zip(stimuli["key"], stimuli["arm"], strict=True))
    arm = ["/".join(sorted({arms[one] for one in shown})) or None for shown in trials["shown"]]
    table, warning = leaving(trials.assign(arm=arm))
    return {"by_arm": table.to_dict("records"), "warning": warning}


def _visits(context: Context, name: str) -> dict[str, Any]:
    """People who got no list by their answers to the screening questions, and people by language, where the study asks
    for either."""
    survey, store = context.study.survey, context.store
    found: dict[str, Any] = {}
    if survey is not None and survey.service is not None and survey.service.screening:
        found["turned_away"] = {why: len(people) for why, people in store.turned_away(context.study_id).items()}
    if survey is not None and survey.languages:
        found["languages"] = Visits(store, context.study_id, name).languages()
    return found


def _wait_for_visits(context: Context, name: str) -> None:
    """Stops until as many lists are whole as the study asks for; lists that people left are counted by the rules."""
    assert context.study.survey is not None
    done = next(batch.done for batch in context.store.batches(context.study_id) if batch.name == name)
    if done < context.study.survey.participants:
        raise Paused(
            f"{done} of {context.study.survey.participants} participants have finished.",
            hint=f"Next: contrafact survey serve {context.loaded.path}",
        )


def _wait(context: Context, name: str, participants: int) -> None:
    """Exports the batch, once, and stops until its answers are in."""
    assert context.study.survey is not None
    out = context.settings.workspace / "batches" / f"{context.study.study}-{name}"
    if not out.exists():
        fielding.export_batch(context.store, context.files.get, context.study_id, context.study, out, name)
    raise Paused(
        f"{participants} of {context.study.survey.participants} participants have answered; the batch is in {out}.",
        hint=f"Next: contrafact survey import {context.loaded.path} answers.csv",
    )
