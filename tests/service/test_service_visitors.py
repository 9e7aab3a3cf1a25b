"""Simulated people act through the service, mishaps and all; what they were told is what is there."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from contrafact.service.app import build
from contrafact.service.visitors import MISHAPS, Visitor, field_simulated, serving
from contrafact.store.visits import Visits
from contrafact.study.schema import Respondents, Screening
from contrafact.survey import fielding

both_stores = pytest.mark.parametrize(
    "fielded", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True
)
ROOT = Path(__file__).resolve().parents[2]


def shown(trials: Any) -> dict[int, Any]:
    """An answer of its own to each trial, so that none can be taken for another."""
    return {
        one["position"]: ({"groomed": 20.0 + one["position"], "warm": 4.0} if one["picture"] else {"attention": 50.0}, 900.0)
        for one in trials
    }


@both_stores
@pytest.mark.parametrize("mishap", MISHAPS)
def test_mishaps_lose_and_double_nothing(mishap: str, fielded: Any) -> None:
    app = build(fielded.store, fielded.files, fielded.study_id, fielded.loaded.study, fielded.batch)
    with serving(app) as address:
        crowd = [
            Visitor(address, {"participant": f"p{n}"}, shown, ["faces"], np.random.default_rng(n), mishap) for n in range(3)
        ]

        async def all_of_them() -> list[str]:
            return await asyncio.gather(*(one.visit() for one in crowd))

        assert asyncio.run(all_of_them()) == ["done"] * 3 and all(len(one.code) == 8 for one in crowd)
    there = fielded.store.answers(fielded.study_id, fielded.batch)
    assert len(there) == 33 and not there.duplicated(["list", "position", "question"]).any()
    image = there[there["question"] == "groomed"]
    assert (image["value"] == 20.0 + image["position"]).all() and set(image["response_ms"]) <= {900.0, 901.0}
    assert all(one.acknowledged == {k: v for k, (v, _) in shown_of(one).items()} for one in crowd)
    if mishap == "two_tabs":
        assert sum(one.refused for one in crowd) > 0, "the other tab is told"


def shown_of(person: Visitor) -> dict[int, Any]:
    trials = [{"position": p, "picture": "attention" not in v} for p, v in person.acknowledged.items()]
    assert len(trials) == 6
    return shown(trials)


def readings(fielded: Any) -> pd.DataFrame:
    """What a reader would have measured: the planted dose in treated pictures."""
    table = fielded.store.stimuli_table(fielded.study_id)
    return pd.DataFrame(
        {
            "stimulus": table["stimulus"], "image": table["image"],
            "reading": np.where(table["arm"] == "treated", table["dose"], 0.0), "mark": (table["arm"] == "treated") * 1.0,
        }
    )  # fmt: skip


@both_stores
def test_people_answer_the_same_by_the_pages_and_by_a_file(fielded: Any, german: Any) -> None:
    """In two languages, past screening questions with quotas that just suffice, with breaks."""
    survey = fielded.loaded.study.survey
    age = Screening(name="age", text="How old?", options=("young", "old"), quotas={"young": 1, "old": 2})
    pages = survey.service.model_copy(update={"screening": (age,), "breaks": 2})
    people = Respondents(mishaps=1.0, dropout=0.1)
    survey = survey.model_copy(update={"respondents": people, "service": pages, "languages": {"de": german}})
    own = fielded.loaded.study.model_copy(update={"survey": survey})
    ends = field_simulated(fielded.store, fielded.files, fielded.study_id, own, fielded.batch, readings(fielded))
    assert ends["done"] + ends["left"] == 3 and ends["left"] > 0
    assert Visits(fielded.store, fielded.study_id, fielded.batch).languages().keys() == {"de", "en"}
    trials = fielding.trials_of(fielded.store, fielded.study_id, own)
    by_file = fielding.simulated_answers(trials, readings(fielded), own)
    keys = ["assignment", "position", "question"]
    number = dict(zip(trials["list"], trials["assignment"], strict=True))
    there = fielded.store.answers(fielded.study_id, fielded.batch)
    there = there.assign(assignment=there["list"].map(number), position=there["position"] + 1)
    both = by_file.merge(there, on=keys, how="outer", suffixes=("", "_page"))
    apart = both[both["value"] != both["value_page"]]
    assert apart.empty, apart.to_string()
    assert ends == field_simulated(fielded.store, fielded.files, fielded.study_id, own, fielded.batch, readings(fielded))


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_a_server_that_is_killed_under_load_loses_and_doubles_nothing(tmp_path: Path) -> None:
    out = tmp_path / "load.json"
    command = [sys.executable, "benchmarks/survey_load.py", "--quick", "--store", "sqlite", "--json", str(out)]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": "platform"}, check=True, timeout=900)
    (row,) = json.loads(out.read_text())["runs"]
    assert row["kills"] == 2 and row["acknowledged"] > 60
    assert row["lost"] == row["doubled"] == 0 and row["balance_gap"] <= 1 and row["stored"] >= row["acknowledged"]
