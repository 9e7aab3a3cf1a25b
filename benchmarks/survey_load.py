"""The participant service under load: many people at once, and a server that is killed while they answer.

    python benchmarks/survey_load.py [--quick] [--json FILE] [--store sqlite postgresql]

People arrive over the first seconds, consent, pass the comprehension question and answer trial after trial, thinking
2 to 8 seconds over each, for five minutes; ten times the server is ended with kill -9 and started anew. A request
that fails is sent again under its own key until it is acknowledged, as the page does. Then every acknowledged answer
is looked for in the store: ``lost`` are those that are not there as acknowledged, ``doubled`` those that are there
more than once. ``balance_gap`` is the difference between the fullest and the emptiest list, completed plus live.
``p95_ms`` is the time from sending an answer to its acknowledgement, without requests that a restart fell into.
``--quick``: 60 people, 30 seconds, two kills. PostgreSQL is the server of ``CONTRAFACT_TEST_POSTGRES_URL``, or one of
our own from Debian's package. All addresses are on the loopback.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from contrafact import settings, study
from contrafact.errors import Paused
from contrafact.images import decode, worlds
from contrafact.run.engine import run_study
from contrafact.store import open_store
from contrafact.store.visits import Visits

TRIALS = 80  # more than anybody answers in the time
THINK = (2.0, 8.0)
YAML = """
study: load
title: Portraits under load
stimuli: {{manifest: stimuli.csv}}
survey:
  participants: {people}
  trials_per_participant: {trials}
  attention_trials: 0
  questions:
    - {{name: groomed, text: "How well-groomed is this person?", low: not at all, high: very}}
  service:
    consent: You will look at drawn faces. You may stop at any time.
    instructions: Look at each face and answer from the gut.
    comprehension:
      - {{text: "What do you judge?", options: [faces, houses], answer: faces}}
    debrief: Thank you for your help.
    contact: study@example.org
hypotheses:
  - {{id: H1, claim: The direction moves ratings., direction: outcome, question: groomed, arm: treated-sham, primary: true}}
"""


@dataclass
class Log:
    """What the people saw: acknowledged answers by key, and (sent, came back) of each first request."""

    acknowledged: dict[str, float] = field(default_factory=dict)
    times: list[tuple[float, float]] = field(default_factory=list)
    down: list[tuple[float, float]] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--store", nargs="+", choices=["sqlite", "postgresql"], default=["sqlite", "postgresql"])
    asked = parser.parse_args()
    people, seconds, kills = (60, 30, 2) if asked.quick else (500, 300, 10)
    runs = []
    for name in asked.store:
        with tempfile.TemporaryDirectory() as place, database(name, Path(place)) as url:
            runs.append({"store": name, **measured(Path(place), url, people, seconds, kills)})
            print(json.dumps(runs[-1]), flush=True)
    result = json.dumps({"runs": runs}, indent=1)
    print(result)
    if asked.json:
        asked.json.write_text(result + "\n")


@contextmanager
def database(name: str, place: Path) -> Iterator[str]:
    """The address of an empty database."""
    if name == "sqlite":
        yield f"sqlite:///{place / 'store.db'}"
        return
    named = os.environ.get("CONTRAFACT_TEST_POSTGRES_URL")
    if named:
        yield named
        return
    programs = sorted(glob("/usr/lib/postgresql/*/bin"))
    if not programs:
        raise SystemExit("PostgreSQL is missing. Type: sudo apt-get install -y postgresql")
    as_root = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    with tempfile.TemporaryDirectory(prefix="pg") as short:
        data = Path(short) / "data"
        Path(short).chmod(0o777)
        made = [*as_root, f"{programs[-1]}/initdb", "-D", str(data), "-U", "tester", "-A", "trust"]
        subprocess.run(made, check=True, stdout=subprocess.DEVNULL)
        control = [*as_root, f"{programs[-1]}/pg_ctl", "-D", str(data), "-w"]
        subprocess.run([*control, "-o", f"-k {short} -h ''", "-l", f"{short}/log", "start"], check=True, stdout=subprocess.DEVNULL)
        try:
            yield f"postgresql://tester@/postgres?host={short}"
        finally:
            subprocess.run([*control, "-m", "fast", "stop"], check=True, stdout=subprocess.DEVNULL)


def durable(url: str) -> str:
    """How commits are made durable; the service's own setting, asked of the database."""
    with open_store(url) as store, store._read() as session:
        if make_url(url).get_backend_name() == "sqlite":
            level = session.execute(text("PRAGMA synchronous")).scalar_one()
            assert level == 2, "SQLite's commits are not on the disk before they count"
            return "synchronous=FULL"
        found = {name: session.execute(text(f"SHOW {name}")).scalar_one() for name in ("synchronous_commit", "fsync")}
        assert found == {"synchronous_commit": "on", "fsync": "on"}, "PostgreSQL's commits are not durable"
        return "synchronous_commit=on, fsync=on"


def measured(place: Path, url: str, people: int, seconds: float, kills: int) -> dict[str, Any]:
    """One run against one database."""
    os.environ |= {"CONTRAFACT_DATABASE_URL": url, "CONTRAFACT_WORKSPACE": str(place / "workspace")}
    file = fielded(place, people)
    commits = durable(url)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = asyncio.run(field_time(file, port, people, seconds, kills))
    with open_store(url) as store:
        row = store.study("load")
        assert row is not None
        filled = Visits(store, row.id, store.batches(row.id)[-1].name).filled()
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg") if "postgres" in url else url)
    with engine.connect() as connection:
        stored = connection.execute(text("SELECT submission_key, trial_id, value FROM rating")).all()
    engine.dispose()
    by_key: dict[str, list[float]] = {}
    for key, _, value in stored:
        by_key.setdefault(key, []).append(value)
    trials = Counter(trial for _, trial, _ in stored)
    calm = [
        1000 * (back - sent) for sent, back in log.times
        if not any(sent <= up and back >= gone for gone, up in log.down)
    ]  # fmt: skip
    return {
        "participants": people,
        "seconds": seconds,
        "kills": len(log.down),
        "acknowledged": len(log.acknowledged),
        "stored": len(stored),
        "lost": sum(by_key.get(key, [])[:1] != [value] for key, value in log.acknowledged.items()),
        "doubled": sum(len(values) > 1 for values in by_key.values()) + sum(n > 1 for n in trials.values()),
        "balance_gap": max(filled.values()) - min(filled.values()),
        "writes_per_second": round(len(log.acknowledged) / seconds, 1),
        "p50_ms": round(float(np.quantile(calm, 0.5)), 1),
        "p95_ms": round(float(np.quantile(calm, 0.95)), 1),
        "restart_s": round(float(np.mean([up - gone for gone, up in log.down])), 2) if log.down else None,
        "refused": dict(log.refused),
        "commits": commits,
    }


def fielded(place: Path, people: int, faces: int = 100) -> Path:
    """A study of finished stimuli, run up to the field."""
    drawn = np.random.default_rng(3).normal(size=(faces, len(worlds.FACTORS)))
    rows, cause = [], worlds.FACTORS.index("groom")
    for arm, dose in [("null", 0.0), ("treated", -1.0), ("treated", 1.0), ("sham", -1.0), ("sham", 1.0)]:
        factors = drawn.copy()
        factors[:, cause] += dose * (arm == "treated")
        for face, picture in enumerate(worlds.render(factors, 32)):
            name = f"{face}-{arm}-{dose:g}.png"
            (place / name).write_bytes(decode.png_bytes(picture))
            rows.append((name[:-4], f"face{face}", "outcome", arm, dose, name))
    columns = ["stimulus", "image", "direction", "arm", "dose", "file"]
    pd.DataFrame(rows, columns=columns).to_csv(place / "stimuli.csv", index=False)
    file = place / "load.yaml"
    file.write_text(YAML.format(people=people, trials=TRIALS))
    try:
        run_study(study.load(file), settings.read())
    except Paused:
        return file
    raise SystemExit("the study did not wait for people")


async def field_time(file: Path, port: int, people: int, seconds: float, kills: int) -> Log:
    """The people and the one who kills the server, together, for ``seconds``."""
    log, address = Log(), f"http://127.0.0.1:{port}"
    limits = httpx.Limits(max_connections=people + 10, max_keepalive_connections=people + 10)
    async with httpx.AsyncClient(base_url=address, limits=limits, timeout=10.0) as client:
        server = await started(file, port, client)
        ends = time.monotonic() + seconds
        crowd = [asyncio.create_task(person(client, k, ends, log)) for k in range(people)]
        try:
            for kill in range(kills):
                await asyncio.sleep(max(0.0, ends - seconds + seconds * (kill + 1) / (kills + 1) - time.monotonic()))
                gone = time.monotonic()
                server.send_signal(signal.SIGKILL)
                await server.wait()
                server = await started(file, port, client)
                log.down.append((gone, time.monotonic()))
            await asyncio.gather(*crowd)
        finally:
            server.kill()
            await server.wait()
    return log


async def started(file: Path, port: int, client: httpx.AsyncClient) -> asyncio.subprocess.Process:
    command = [str(Path(sys.executable).with_name("contrafact")), "survey", "serve", str(file), "--port", str(port)]
    server = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL)
    for _ in range(600):
        try:
            if (await client.get("/api/about")).status_code == 200:
                return server
        except httpx.TransportError:
            if server.returncode is not None:
                break
            await asyncio.sleep(0.1)
    raise SystemExit("the service did not start")


async def person(client: httpx.AsyncClient, number: int, ends: float, log: Log) -> None:
    """One participant, from the link to the end of the time."""
    dice = random.Random(number)
    await asyncio.sleep(dice.uniform(0, min(THINK[1], (ends - time.monotonic()) / 4)))
    link = {"link": {"participant": f"load-{number:06d}"}}
    await said(client, "/api/arrive", link, {}, ends, log)
    state = await said(client, "/api/consent", link, {}, ends, log)
    if state is None or "token" not in state:
        return
    headers = {"Authorization": f"Bearer {state['token']}"}
    await said(client, "/api/comprehension", {"attempt": 1, "answers": ["faces"]}, headers, ends, log)
    for trial in state["trials"]:
        await asyncio.sleep(dice.uniform(*THINK))
        if time.monotonic() >= ends:
            return
        key, value = f"load-{number:06d}-{trial['position']:04d}-key", round(dice.uniform(0, 100), 1)
        body = {"key": key, "position": trial["position"], "values": {"groomed": value}, "response_ms": 900.0}
        sent = time.monotonic()
        reply = await said(client, "/api/answer", body, headers, ends + 30, log)
        if reply is None:
            return
        log.times.append((sent, time.monotonic()))
        log.acknowledged[key] = reply["stored"]["groomed"]


async def said(
    client: httpx.AsyncClient, path: str, body: dict[str, Any], headers: dict[str, str], until: float, log: Log
) -> dict[str, Any] | None:
    """A request that is sent again, under the same key, until it is acknowledged; None where time is up."""
    while time.monotonic() < until:
        try:
            reply = await client.post(path, json=body, headers=headers)
        except httpx.TransportError:
            await asyncio.sleep(0.25)
            continue
        if reply.status_code == 200:
            return dict(reply.json())
        log.refused[f"{path} {reply.status_code}"] += 1
        if reply.status_code < 500 and reply.status_code != 429:
            return None
        await asyncio.sleep(0.5)
    return None


if __name__ == "__main__":
    main()
