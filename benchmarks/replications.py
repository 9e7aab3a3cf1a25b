"""Coverage and false claims of the whole back half of the chain: respondents, exclusions and analysis, many times.

    python benchmarks/replications.py STUDY.yaml --workspace DIR [--replications 200] [--indifferent]

The study must have been run in DIR up to its gate (the demo leaves its study as DIR/demo.yaml): its stimuli and the reader's readings of them are reused, new simulated people
answer each time. Prints one JSON object: how often the 95% interval of the treated slope, and of treated minus
sham, covers the truth (what these people would answer to re-rendered counterfactuals), and how often each
hypothesis is claimed, with Wilson's 95% Monte Carlo intervals. With ``--indifferent`` nobody's answers depend on
the face (a null_rating world on the same stimuli): claims there are errors.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from contrafact import settings, study
from contrafact.run.state import stages_of
from contrafact.stats.dose import Test, analyse
from contrafact.store.files import Files
from contrafact.study.schema import Study
from contrafact.survey import design, exclusions, respondents


def replicate(number: int, plan: Study, stimuli: pd.DataFrame, indifferent: bool) -> list[dict[str, Any]]:
    """Statements of one replication: new people, new lists, the same pictures."""
    assert plan.survey is not None and plan.survey.respondents is not None
    survey, question = plan.survey, plan.survey.questions[0]
    people = respondents.in_world(plan.survey.respondents, plan.world)
    if indifferent:
        people = people.model_copy(update={"slope": 0.0})
    lists = design.make_lists(
        stimuli.rename(columns={"stimulus": "key"}).assign(set_key=stimuli["direction"] + "/" + stimuli["image"]),
        survey.participants, survey.trials_per_participant, survey.attention_trials, plan.seed + number,
    )  # fmt: skip
    pictures = stimuli.set_index("stimulus")[["image", "reading", "mark"]]
    answers = respondents.answer(
        lists, pictures, people, plan.seed, question=question.name, replication=number
    )
    out = set(exclusions.excluded(answers.assign(question=question.name))["participant"])
    table = answers[answers["kind"] == "image"].merge(
        stimuli.drop(columns=["reading", "mark"]), on="stimulus"
    )
    table = table.assign(question=question.name, excluded=table["participant"].isin(out))
    tests = [
        Test(h.id, h.direction, h.question, h.arm, h.test, h.alternative, h.margin, h.alpha, h.family)
        for h in plan.hypotheses
    ]
    # Two-sided intervals, whatever the registered alternative; families of their own, or Holm's correction of the
    # registered claims would count them.
    tests += [
        Test(name, plan.hypotheses[0].direction, question.name, arm, family=name)
        for name, arm in (("slope", "treated"), ("contrast", "treated-sham"))
    ]
    return [
        statement.facts() for statement in analyse(table, tests, plan.seed) if statement.label == "registered"
    ]


def true_slope(plan: Study, files: Files, sha256: str) -> float:
    """What these people's answers change per SD of dose where the renderer moved the cause alone."""
    assert plan.survey is not None and plan.survey.respondents is not None
    seen = pd.read_parquet(io.BytesIO(files.get(sha256))).pivot_table(
        index="image", columns="dose", values="reading"
    )
    people = respondents.in_world(plan.survey.respondents, plan.world)
    return respondents.expected_slope(
        seen.to_numpy(), seen.columns.to_numpy(float), people, attention=plan.survey.attention_trials,
        scale=plan.survey.questions[0].scale,
    )  # fmt: skip


def share(hits: int, n: int) -> dict[str, float]:
    low, high = proportion_confint(hits, n, method="wilson")
    return {"share": hits / n, "low": float(low), "high": float(high), "n": n}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", type=Path)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--replications", type=int, default=200)
    parser.add_argument("--indifferent", action="store_true")
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args()

    place = settings.read(asked.workspace)
    loaded = study.load(asked.study, data=place.data)
    facts = {stage.name: stage.facts for stage in stages_of(loaded, place)}
    if not facts["gate"]:
        parser.error(f"{asked.study} has no finished gate stage in {asked.workspace}: run it first.")
    files = Files(place.files_url)
    stimuli = pd.read_parquet(io.BytesIO(files.get(facts["gate"]["readings"])))
    stimuli = stimuli[stimuli["passed"]].reset_index(drop=True)
    truth = 0.0 if asked.indifferent else true_slope(loaded.study, files, facts["gate"]["truth_readings"])

    began = time.perf_counter()
    work = partial(replicate, plan=loaded.study, stimuli=stimuli, indifferent=asked.indifferent)
    with ProcessPoolExecutor(asked.processes) as pool:
        found = list(pool.map(work, range(1, asked.replications + 1), chunksize=5))
    rows = pd.DataFrame([row for one in found for row in one])
    by_id = dict(iter(rows.groupby("id", sort=False)))
    result: dict[str, Any] = {"truth": truth, "replications": asked.replications}
    for name in ("slope", "contrast"):
        part = by_id.pop(name)
        covered = int(((part["low"] <= truth) & (truth <= part["high"])).sum())
        result[f"coverage_{name}"] = share(covered, len(part)) | {
            "mean_estimate": float(part["estimate"].mean()),
            "sd_estimate": float(part["estimate"].std()),
            "mean_se": float(part["se"].mean()),
        }
    result["claimed"] = {
        key: share(int(part["verdict"].eq(True).sum()), len(part)) for key, part in by_id.items()
    }
    print(json.dumps(result | {"seconds": round(time.perf_counter() - began, 1)}, indent=1))


if __name__ == "__main__":
    main()
