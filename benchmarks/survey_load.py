"""The participant service under load: hundreds of people at once, a server that is killed, nothing lost, nothing doubled.

    python benchmarks/survey_load.py [--quick] [--store sqlite|postgresql] [--json FILE]

Starts the real ``contrafact survey serve`` on the loopback and lets simulated people answer it for five minutes, 500 at
once (``--quick``: 60 for 30 seconds); who is through or has left is followed by the next. Before each answer somebody
thinks for 2 to 8 seconds (triangular, most often 3.5, mean 4.5), and fetches the picture. One in twenty leaves at some
picture and their list goes to the next person after its lease; one in ten each double-clicks, has two tabs, loses
replies, reloads. Ten times (``--quick``: twice) the server is killed (SIGKILL) and started again at once.

``acknowledged`` are the trials that the server told a person are stored; ``stored`` those in the database; ``lost`` are
acknowledged and not there as they were told, ``doubled`` are there twice. ``balance_gap`` is the largest difference
between lists in how many people have finished or hold them now, over the lists that were begun. ``p95_ms`` is over the
answers outside restarts: from ``SETTLED`` seconds after a server listened to the next kill; ``p95_all_ms`` is over all,
from the first attempt that got a reply. ``seconds``, and the rate of writes, count the time in which a server was up,
``down_s`` the rest.
PostgreSQL is a server of our own with its durable defaults, found as Debian's package, or the one named by
CONTRAFACT_TEST_POSTGRES_URL, whose schema ``public`` is emptied.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import own_postgres
import pandas as pd
from sqlalchemy import text

from contrafact import seeds, settings, study
from contrafact.errors import Paused
from contrafact.images import decode, worlds
from contrafact.run.engine import run_study
from contrafact.service.visitors import MISHAPS, PLAIN, Given, Visitor
from contrafact.store import open_store
from contrafact.store.database import connect
from contrafact.store.visits import Visits
from contrafact.survey.batch import ATTENTION

TRIALS, FACES, LEASE_MINUTES = 40, 40, 2
LEAVES = 0.05  # of people, at a picture drawn evenly
SETTLED = 5.0  # seconds after a restart until answers count for p95: people come back all at once
SERVE = "import sys; from contrafact import cli; cli.main(sys.argv[1:])"
YAML = """
study: load
title: Portraits under load
stimuli: {{manifest: stimuli.csv}}
survey:
  participants: {lists}
  trials_per_participant: {trials}
  attention_trials: 1
  questions: [{{name: groomed, text: "How well-groomed is this person?"}}]
  service:
    consent: You will look at drawn faces and say how they look to you.
    instructions: Look at each face and answer from the gut.
    comprehension: [{{text: "What do you judge?", options: [faces, houses], answer: faces}}]
    debrief: The faces were drawn by a computer.
    contact: study@example.org
    lease_minutes: {lease}
hypotheses:
  - {{id: H1, claim: The direction moves ratings., direction: outcome, question: groomed, arm: treated, primary: true}}
"""


class Server:
    """The command itself, killed and started again on its port."""

    def __init__(self, path: Path, environment: Mapping[str, str]) -> None:
        with closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.words = [sys.executable, "-c", SERVE, "survey", "serve", str(path), "--port", str(self.port), "--json"]
        self.environment = dict(environment)
        self.address = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        self.running = subprocess.Popen(self.words, env=self.environment, stdout=subprocess.PIPE, text=True)
        assert self.running.stdout is not None
        if not self.running.stdout.readline():  # it says its address when it listens
            raise RuntimeError("the server did not start")

    def kill(self) -> None:
        self.running.kill()
        self.running.wait()


def field(folder: Path, lists: int) -> Path:
    """A registered study of finished stimuli with its lists made; the workspace is in the environment."""
    rng = seeds.generator(1, "survey_load")
    factors = rng.normal(size=(FACES, len(worlds.FACTORS)))
    rows = []
    for face, (own, pixels) in enumerate(zip(factors, worlds.render(factors, 64), strict=True)):
        moved = own.copy()
        moved[worlds.FACTORS.index("groom")] += 1
        for arm, dose, picture in (("null", 0.0, pixels), ("treated", 1.0, worlds.render(moved[None], 64)[0])):
            name = f"{face}-{arm}"
            (folder / f"{name}.png").write_bytes(decode.png_bytes(picture))
            rows.append((name, f"face{face}", "outcome", arm, dose, f"{name}.png"))
    columns = ["stimulus", "image", "direction", "arm", "dose", "file"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "stimuli.csv", index=False)
    path = folder / "load.yaml"
    path.write_text(YAML.format(lists=lists, trials=TRIALS, lease=LEASE_MINUTES))
    try:
        run_study(study.load(path), settings.read())
    except Paused:
        return path
    raise RuntimeError("the study did not wait for people")


def responding(rng: np.random.Generator) -> Any:
    """Answers at random; one in twenty leaves at some picture."""
    stays = rng.random() > LEAVES

    def respond(trials: Sequence[Mapping[str, Any]]) -> dict[int, Given]:
        answered = trials if stays else trials[: rng.integers(len(trials))]
        return {
            trial["position"]: (
                {"groomed" if trial["picture"] else ATTENTION: float(rng.integers(101))}, float(rng.integers(400, 9000)),
            )
            for trial in answered
        }  # fmt: skip

    return respond


async def load(server: Server, people: int, seconds: float, kills: int) -> tuple[list[Visitor], list[tuple[float, float]]]:
    """Everybody who came, and when no server was there: from each kill to the moment the next one listened."""
    rng = seeds.generator(2, "survey_load")
    crowd: list[Visitor] = []
    downs: list[tuple[float, float]] = []

    def next_one() -> Visitor:
        own = seeds.generator(3, "survey_load", len(crowd))
        mishap = str(own.choice(MISHAPS)) if own.random() < 0.1 * len(MISHAPS) else PLAIN
        link = {"participant": f"person-{len(crowd)}"}
        think = partial(own.triangular, 2, 3.5, 8)
        crowd.append(Visitor(server.address, link, responding(own), ["faces"], own, mishap, think))
        return crowd[-1]

    async def seat(number: int) -> None:
        await asyncio.sleep(number / people * min(8.0, seconds / 4))  # nobody's clicks are in step with another's
        while await next_one().visit() != "full":
            pass
        raise RuntimeError("more people came than there are lists")

    async def until(moment: float) -> None:
        """Waits for a moment, in seconds during which there was a server."""
        lost = sum(back - gone for gone, back in downs)
        await asyncio.sleep(max(start + moment + lost - time.perf_counter(), 0))

    start = time.perf_counter()
    seats = [asyncio.create_task(seat(number)) for number in range(people)]
    for one in range(kills):
        await until(seconds * (one + 0.5 + 0.4 * rng.random()) / (kills + 0.5))
        gone = time.perf_counter()
        server.kill()
        await asyncio.to_thread(server.start)
        downs.append((gone, time.perf_counter()))
    await until(seconds)
    for task in seats:
        task.cancel()
    for end in await asyncio.gather(*seats, return_exceptions=True):
        if not isinstance(end, asyncio.CancelledError):
            raise end
    return crowd, downs


def measured(kind: str, url: str, people: int, seconds: float, kills: int) -> dict[str, Any]:
    """One row of the table. ``url`` is empty for SQLite."""
    with tempfile.TemporaryDirectory(prefix="survey-load-") as place:
        folder = Path(place)
        os.environ["CONTRAFACT_WORKSPACE"] = str(folder / "workspace")
        if url:
            os.environ["CONTRAFACT_DATABASE_URL"] = url
        else:
            os.environ.pop("CONTRAFACT_DATABASE_URL", None)
        lists = int(people * (1 + seconds / (TRIALS * 4.5)) * 1.3)
        path = field(folder, lists)
        address = settings.read().database_url
        durable(kind, address)
        server = Server(path, os.environ)
        try:
            crowd, downs = asyncio.run(load(server, people, seconds, kills))
        finally:
            server.kill()
        row = {"store": kind, "participants": people, "seconds": seconds, "kills": len(downs), "came": len(crowd)}
        return row | checked(address, crowd) | quickness(crowd, downs, seconds)


def durable(kind: str, url: str) -> None:
    """Refuses to measure commits that a loss of power could take back."""
    engine = connect(url)
    with engine.connect() as connection:
        wanted = {"PRAGMA synchronous": 2} if kind == "sqlite" else {"SHOW synchronous_commit": "on", "SHOW fsync": "on"}
        for question, answer in wanted.items():
            found = connection.execute(text(question)).scalar_one()
            if found != answer:
                raise SystemExit(f"{question} is {found}, not {answer}: commits are not durable.")
    engine.dispose()


def checked(url: str, crowd: Sequence[Visitor]) -> dict[str, int]:
    """What people were told beside what is there, matched by the key of the answer's person and trial."""
    with open_store(url) as store:
        record = store.study("load")
        assert record is not None
        batch = store.batches(record.id)[-1].name
        visits = Visits(store, record.id, batch)
        answers = store.answers(record.id, batch)
        there = answers.groupby(["list", "position"])["value"].agg(["size", "first"])
        lost = acknowledged = 0
        numbers = list_numbers(url)
        for person in crowd:
            number = numbers.get(int(person.token.partition(".")[0] or 0))
            for position, values in person.acknowledged.items():
                acknowledged += 1
                key = (number, position)
                lost += key not in there.index or there.loc[key, "first"] != next(iter(values.values()))
        filled = visits.filled()
        begun = [filled[number] for number in range(max(number for number in filled if filled[number]) + 1)]
    return {
        "acknowledged": acknowledged, "stored": len(there), "lost": int(lost), "doubled": int((there["size"] > 1).sum()),
        "balance_gap": max(begun) - min(begun), "refused": sum(person.refused for person in crowd),
    }  # fmt: skip


def list_numbers(url: str) -> dict[int, int]:
    """The number of the list that each visit holds."""
    engine = connect(url)
    with engine.connect() as connection:
        query = "SELECT visit.id, list_number FROM visit JOIN assignment ON assignment.id = visit.assignment_id"
        found = {int(visit): int(number) for visit, number in connection.execute(text(query))}
    engine.dispose()
    return found


def quickness(crowd: Sequence[Visitor], downs: Sequence[tuple[float, float]], seconds: float) -> dict[str, float]:
    """Milliseconds from sending an answer to its acknowledgement, and answers a second."""
    times = np.array([one for person in crowd for one in person.timings])
    took = 1000 * (times[:, 1] - times[:, 0])
    calm = np.ones(len(times), dtype=bool)
    for gone, back in downs:
        calm &= (times[:, 1] < gone) | (times[:, 0] > back + SETTLED)
    return {
        "p50_ms": round(float(np.median(took[calm])), 1), "p95_ms": round(float(np.quantile(took[calm], 0.95)), 1),
        "p95_all_ms": round(float(np.quantile(took, 0.95)), 1), "writes_per_s": round(len(times) / seconds, 1),
        "down_s": round(sum(back - gone for gone, back in downs), 1),
    }  # fmt: skip


@contextmanager
def postgresql() -> Iterator[str]:
    """A server that keeps its durable defaults, on a socket alone."""
    if named := os.environ.get("CONTRAFACT_TEST_POSTGRES_URL"):
        engine = connect(named)
        with engine.begin() as connection:
            connection.execute(text("DROP SCHEMA public CASCADE"))
            connection.execute(text("CREATE SCHEMA public"))
        engine.dispose()
        yield named
        return
    with own_postgres.server() as address:
        yield address


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--quick", action="store_true", help="60 people, 30 seconds, two kills")
    parser.add_argument("--store", choices=("sqlite", "postgresql"), help="one of them alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the table is written")
    chosen = parser.parse_args()
    size = (60, 30.0, 2) if chosen.quick else (500, 300.0, 10)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # servers are stopped on the way out
    runs = []
    for kind in (chosen.store,) if chosen.store else ("postgresql", "sqlite"):
        if kind == "sqlite":
            runs.append(measured(kind, "", *size))
        else:
            try:
                with postgresql() as url:
                    runs.append(measured(kind, url, *size))
            except own_postgres.Absent as error:
                parser.error(f"{error} Or name --store sqlite.")
        print(json.dumps(runs[-1]), flush=True)
    if chosen.json:
        chosen.json.write_text(json.dumps({"runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
