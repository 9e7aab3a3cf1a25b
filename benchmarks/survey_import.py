"""A million ratings through ``contrafact survey import``: time, and memory that does not grow with the file.

    python benchmarks/survey_import.py [--quick] [--json FILE]

The ratings of 10,000 people, 100 each (``--quick``: a tenth of it), as the answers file of a batch (a row a rating) and
as Qualtrics exports them (a row a person, a column a loop, three header rows). Each file is imported into a study that
asked for these ratings, and read alone to the long table (Parquet); before that a file of a tenth of the length, whose
peak memory stands beside. Each import is the command itself in a process of its own: the time is that of the process
from start to end, processor time and wall time; the memory its peak (``VmHWM``, which it reads itself at its end:
``ru_maxrss`` begins with what the process held that started it).

The peer is ``pandas.read_csv`` and ``DataFrame.to_sql`` of the same answers file into SQLite, which checks, matches and
hashes nothing; ``times_peer`` is processor time over the peer's. At the end the import into the study is repeated, as
a file that comes twice, and stores nothing.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from contrafact import seeds

EACH = 100  # ratings by each person, of as many pictures
STUDY = """
study: million
title: A million ratings
stimuli: {manifest: stimuli.csv}
survey:
  questions: [{name: trust, text: How trustworthy is this person?}]
  trials_per_participant: 100
  attention_trials: 0
hypotheses: [{id: H1, claim: The direction moves trust., direction: outcome, question: trust, arm: treated, primary: true}]
"""
PEER = """
import sqlite3, sys, pandas
table = pandas.read_csv(sys.argv[1])
with sqlite3.connect(sys.argv[2]) as database:
    table.to_sql("answers", database, index=False)
"""
OURS = "import sys; from contrafact import cli; cli.main(sys.argv[1:])"
PEAK = """
import atexit
atexit.register(lambda: print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))))
"""


def lists(people: int) -> pd.DataFrame:
    """What everybody is shown and answers: ``list``, ``position`` (from 0), ``picture``, ``value``, ``response_ms``."""
    rng = seeds.generator(6, "import", people)
    pictures = np.argsort(rng.random((people, EACH)), axis=1).ravel()
    return pd.DataFrame({
        "list": np.repeat(np.arange(people), EACH), "position": np.tile(np.arange(EACH), people), "picture": pictures,
        "value": rng.integers(0, 1001, people * EACH) / 10, "response_ms": rng.integers(300, 4000, people * EACH),
    })  # fmt: skip


def field(folder: Path, shown: pd.DataFrame) -> Path:
    """A workspace whose study has asked for these ratings, and its file."""
    from contrafact import study
    from contrafact.store import open_store
    from contrafact.store.records import ImageRecord, StimulusRecord
    from contrafact.survey.fielding import attention_question

    folder.mkdir()
    path = folder / "million.yaml"
    path.write_text(STUDY)
    (folder / "stimuli.csv").write_text("stimulus,file,image,direction,arm,dose\n")
    loaded = study.load(path)
    assert loaded.study.survey is not None
    with open_store(f"sqlite:///{folder / 'store.db'}") as store:
        study_id = store.add_study("million", loaded.study.title, loaded.text, loaded.sha256)
        stage = store.start_stage(store.start_run(study_id, "m"), "generate", "ab" * 32, mlflow_run_id="n", code_version="1")
        store.put_images(study_id, stage, [ImageRecord(f"i{k}", f"u{k}", "stimuli", f"{k:064x}", 32, 32) for k in range(EACH)])
        up = store.put_direction(study_id, name="outcome", kind="condition", target="outcome", hold=[], spec={})
        store.put_stimuli(study_id, stage, [
            StimulusRecord(image.id, up, "null", 0, 0.0, f"outcome/{image.key}", True, f"{k:064x}")
            for k, image in enumerate(store.images(study_id))
        ])  # fmt: skip
        store.put_questions(study_id, (*loaded.study.survey.asked, attention_question()))
        ids = store.stimuli_table(study_id)["stimulus"].to_numpy()
        trials = shown[["list", "position"]].assign(
            assignment=[f"{number:010x}" for number in shown["list"]], kind="image", target=np.nan,
            stimulus=pd.Series(ids[shown["picture"]], dtype=object),
        )  # fmt: skip
        store.put_batch(study_id, "batch", trials, simulated=False)
    return path


def answers(path: Path, shown: pd.DataFrame) -> Path:
    """The answers file of a batch, in an order of its own: a row a rating."""
    table = pd.DataFrame({
        "assignment": [f"{number:010x}" for number in shown["list"]], "position": shown["position"] + 1, "question": "trust",
        "value": shown["value"], "response_ms": shown["response_ms"], "participant": [f"person-{n}" for n in shown["list"]],
    })  # fmt: skip
    table.sample(frac=1, random_state=6).to_csv(path, index=False)
    return path


def qualtrics(path: Path, shown: pd.DataFrame) -> Path:
    """The same as Qualtrics exports it: a row a person, three header rows."""
    names = [f"{loop}_trust" for loop in range(1, EACH + 1)]
    head = ["StartDate", "EndDate", "Status", "Finished", "ResponseId", *names, "PROLIFIC_PID", "assignment"]
    ids = [json.dumps({"ImportId": name}) for name in ("startDate", "endDate", "status", "finished", "_recordId", *names, *head[-2:])]
    values = shown["value"].to_numpy().reshape(-1, EACH)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerows([head, head, ids])
        rows.writerows(
            ["2026-03-02 09:14:07", "2026-03-02 09:25:40", "0", "1", f"R_{n}", *own, f"person-{n}", f"{n:010x}"]
            for n, own in enumerate(values.tolist())
        )
    return path


def measured(words: list[str], workspace: Path) -> dict[str, Any]:
    """A process to its end: its last line of JSON if it has one, ``wall_s``, ``cpu_s``, ``peak_mb``."""
    before = time.perf_counter()
    environment = os.environ | {"CONTRAFACT_WORKSPACE": str(workspace), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", PEAK + words[0], *words[1:]], env=environment, stdout=subprocess.PIPE, stderr=sys.stderr)
    assert process.stdout is not None
    *said, peak = process.stdout.read().decode().splitlines()
    _, status, used = os.wait4(process.pid, 0)
    if process.returncode or status:
        raise SystemExit(f"{words[1:4]} ended with {status}")
    facts = {"wall_s": time.perf_counter() - before, "cpu_s": used.ru_utime + used.ru_stime, "peak_mb": int(peak) / 1024}
    return {**(json.loads(said[-1]) if said else {}), **{name: round(value, 1) for name, value in facts.items()}}


def runs(size: int, folder: Path) -> list[dict[str, Any]]:
    """Every import at one number of ratings."""
    shown = lists(size // EACH)
    files = {"contrafact": answers(folder / f"{size}.csv", shown), "qualtrics": qualtrics(folder / f"{size}-qualtrics.csv", shown)}
    # In a process of its own, so that what stands here stays small.
    made = folder / f"{size}"
    pid = os.fork()
    if pid == 0:
        field(made, shown)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    peer = measured([PEER, str(files["contrafact"]), str(folder / f"{size}-peer.db")], folder)
    found = [{"tool": "pandas", "into": "sqlite", "format": "csv", "ratings": size, "stored": size, **peer}]
    for name, path in files.items():
        workspace = folder / f"{size}-{name}"
        shutil.copytree(made, workspace)
        study = [str(workspace / "million.yaml")]
        for into, words in (("study", study), ("long table", ["--to", str(workspace / "long.parquet")]), ("study, again", study)):
            said = measured([OURS, "survey", "import", *words, str(path), "--json"], workspace)
            assert said["invalid"] == said["unmatched"] == 0 and said["participants"] == size // EACH, said
            assert said["answers"] == (0 if into == "study, again" else size), said
            kept = {key: said[key] for key in ("wall_s", "cpu_s", "peak_mb")}
            found.append({"tool": "contrafact", "into": into, "format": name, "ratings": size, "stored": said["answers"], **kept})
        shutil.rmtree(workspace)
    shutil.rmtree(made)
    for row in found:
        row |= {"ratings_a_second": round(size / row["wall_s"]), "times_peer": round(row["cpu_s"] / peer["cpu_s"], 1)}
        print(*(f"{key}={value}" for key, value in row.items()), file=sys.stderr, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="10,000 and 100,000 ratings")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the runs here as well")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="import-") as folder:
        rows = [row for size in ((10_000, 100_000) if given.quick else (100_000, 1_000_000)) for row in runs(size, Path(folder))]
    print(f"{'':14} {'into':14} {'format':11} {'ratings':>9} {'wall s':>7} {'cpu s':>7} {'a second':>9} {'peak MB':>8} {'x peer':>7}")
    for row in rows:
        print(
            f"{row['tool']:14} {row['into']:14} {row['format']:11} {row['ratings']:9} {row['wall_s']:7} {row['cpu_s']:7} "
            f"{row['ratings_a_second']:9} {row['peak_mb']:8} {row['times_peer']:7}"
        )
    if given.json:
        machine = {"python": platform.python_version(), "cores": os.cpu_count(), "pandas": pd.__version__}
        given.json.write_text(json.dumps({"machine": machine, "runs": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
