"""Simulated people at the participant service: over HTTP they do what the page does in a browser, mishaps included.

A visitor is told what a page shows (pictures under opaque names, questions, the number that an attention trial asks
for) and nothing else. An answer is sent until the server says that it is stored, each under a key made here, as
``pages/survey.js`` does.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import uvicorn

from contrafact import seeds
from contrafact.service.app import Desk, build
from contrafact.store import Store
from contrafact.store.files import Files
from contrafact.study.schema import Screening, Study
from contrafact.survey import respondents

MISHAPS = ("double_click", "two_tabs", "bad_network", "reload")
"""A double click on every answer; a second tab that answers the same trial otherwise; replies that never arrive; the
page loaded anew between two trials."""
PLAIN = "plain"
ENDS = ("done", "left", "full", "unfit", "screened_out")
AT_ONCE = 64  # simulated people of one study
PATIENCE = 600.0  # seconds that somebody tries again until the server answers
BREAK_MS = 20_000.0  # a simulated break
SHARE = 0.3  # of trials at which a mishap other than the double click happens

Given = tuple[dict[str, float | str], float]
"""Values by question, and the response time in milliseconds."""
Respond = Callable[[Sequence[Mapping[str, Any]]], dict[int, Given]]
"""Trials as the page gets them; answers by position. A position without one is where the person leaves."""


@dataclass
class Visitor:
    """One person with one link; ``visit`` is their whole visit.

    ``acknowledged`` has the values that the server said are stored, by position; ``refused`` counts 409, ``timings``
    are the beginning and the end (s, ``time.perf_counter``) of each request for an answer that got its reply.
    """

    address: str
    link: Mapping[str, str]
    respond: Respond
    knows: Sequence[str]  # answers to the comprehension questions
    rng: np.random.Generator
    mishap: str = PLAIN
    screening: Sequence[str] = ()  # answers to the screening questions
    language: str = ""
    think: Callable[[], float] | None = None  # seconds before each answer
    acknowledged: dict[int, dict[str, float | str]] = field(default_factory=dict)
    timings: list[tuple[float, float]] = field(default_factory=list)
    refused: int = 0
    token: str = ""
    code: str = ""

    def __post_init__(self) -> None:
        self._client = httpx.AsyncClient(base_url=self.address, timeout=15, verify=_tls(), trust_env=False)

    async def visit(self) -> str:
        """Returns done, left, full, unfit or screened_out; raises TimeoutError where the server stays away."""
        try:
            state = await self.arrive()
            return state["status"] if state["status"] in ENDS[2:] else await self.answer_all(state)
        finally:
            await self._client.aclose()

    async def arrive(self) -> dict[str, Any]:
        """Opens the link, consents and understands; returns the page's state."""
        state = await self._facts("/api/arrive", {"link": self.link})
        if state["status"] == "consent":
            state = await self._facts("/api/consent", {"link": self.link, "language": self.language})
        if state["status"] == "screening":
            answers = {"link": self.link, "language": self.language, "screening": list(self.screening)}
            state = await self._facts("/api/consent", answers)
        self.token = state.get("token", "")
        if state["status"] == "instructions":
            state |= await self._facts("/api/comprehension", {"attempt": 1, "answers": list(self.knows)})
        return state

    async def answer_all(self, state: dict[str, Any]) -> str:
        """Answers what is open, in order; ``left`` where ``respond`` has no answer."""
        wanted, seen = self.respond(state["trials"]), set[str]()
        for trial in state["practice"]:  # looked at, and nothing of it is sent
            for picture in trial["pictures"]:
                await self._insist("GET", picture)
        for number, trial in enumerate(state["trials"]):
            if trial["position"] in state["answered"]:
                continue
            for picture in trial["pictures"]:
                if picture not in seen:
                    seen.add(picture)
                    await self._insist("GET", picture)
            if trial["position"] not in wanted:
                return "left"
            if self.think is not None:
                await asyncio.sleep(self.think())
            rests = bool(state["breaks"]) and number > 0 and number % state["breaks"] == 0
            await self._answer(trial["position"], *wanted[trial["position"]], BREAK_MS if rests else None)
            if self.mishap == "reload" and self.rng.random() < SHARE:
                again = await self.arrive()
                if lost := set(self.acknowledged) - set(again["answered"]):
                    raise RuntimeError(f"the service has lost the answers at {sorted(lost)}, which it had acknowledged")
        end = (await self._insist("GET", "/api/state")).json()
        self.code = end.get("code", "")
        return str(end["status"])

    async def _answer(
        self, position: int, values: dict[str, float | str], response_ms: float, break_ms: float | None
    ) -> None:
        body: dict[str, Any] = {"key": self.rng.bytes(16).hex(), "position": position, "values": values,
                                "response_ms": response_ms, "break_ms": break_ms}  # fmt: skip
        happens = self.rng.random() < SHARE
        if self.mishap == "bad_network" and happens:  # sent perhaps, and no reply comes back
            with suppress(TimeoutError, httpx.TransportError):
                async with asyncio.timeout(self.rng.uniform(0.001, 0.05)):
                    await self._send("POST", "/api/answer", body)
        both = [body] * (2 if self.mishap == "double_click" else 1)
        if self.mishap == "two_tabs" and happens:
            both.append(body | {"key": self.rng.bytes(16).hex(), "response_ms": response_ms + 1})
        for reply in await asyncio.gather(*(self._insist("POST", "/api/answer", one) for one in both)):
            if reply.status_code == 200:
                self.acknowledged[position] = reply.json()["stored"]
            elif reply.status_code == 409:
                self.refused += 1
            else:
                raise RuntimeError(f"the service refused an answer with {reply.status_code}: {reply.text[:200]}")

    async def _facts(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        reply = await self._insist("POST", path, body)
        if reply.status_code != 200:
            raise RuntimeError(f"the service refused {path} with {reply.status_code}: {reply.text[:200]}")
        return dict(reply.json())

    async def _send(self, method: str, path: str, body: Mapping[str, Any] | None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        return await self._client.request(method, path, json=body, headers=headers)

    async def _insist(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> httpx.Response:
        """Tries until the server answers, more and more slowly, as the page does."""
        began, wait = time.perf_counter(), 0.4
        while True:
            begun = time.perf_counter()
            with suppress(httpx.TransportError):
                reply = await self._send(method, path, body)
                if reply.status_code < 500 and reply.status_code != 429:
                    if path == "/api/answer":
                        self.timings.append((begun, time.perf_counter()))
                    return reply
            if time.perf_counter() - began > PATIENCE:
                raise TimeoutError(f"the service did not answer for {PATIENCE:.0f} s")
            await asyncio.sleep(wait * (0.75 + self.rng.random() / 2))
            wait = min(wait * 1.7, 8)


def people(
    address: str, desk: Desk, readings: pd.DataFrame, study: Study, replication: int = 0
) -> Iterator[Visitor]:
    """The simulated people of a study, one a list, the same who would answer its batch as a file.

    ``readings`` as for ``fielding.simulated_answers``. What they see of a picture is what the reader measured of it,
    under the name that the page shows.
    """
    survey = study.survey
    assert survey is not None and survey.service is not None and survey.respondents is not None
    who = respondents.in_world(survey.respondents, study.world)
    pictures = readings.assign(name=readings["stimulus"].map(desk.names)).dropna(subset=["name"]).set_index("name")
    pictures = pictures[[column for column in ("image", "reading", "mark") if column in pictures]]

    def responding(number: int) -> Respond:
        def respond(trials: Sequence[Mapping[str, Any]]) -> dict[int, Given]:
            shown = pd.DataFrame(
                {
                    "list": number, "position": trial["position"], "kind": "image" if picture else "attention",
                    "place": place, "stimulus": picture and picture.rsplit("/", 1)[-1].removesuffix(".png"),
                    "target": np.nan if picture else _asked_for(trial["questions"][0]["text"]),
                }
                for trial in trials for place, picture in enumerate(trial["pictures"] or [None])
            )  # fmt: skip
            given: dict[int, Given] = {}
            answers = respondents.answer_all(shown, pictures, survey.questions, who, study.seed, replication)
            for row in answers.to_dict("records"):
                values = given.setdefault(int(row["position"]), ({}, float(row["response_ms"])))[0]
                values[str(row["question"])] = row["value"] if isinstance(row["value"], str) else float(row["value"])
            return given

        return respond

    answers = [_admitted(one, survey.participants, study.seed) for one in survey.service.screening]
    for number in range(survey.participants):
        rng = seeds.generator(study.seed, "visitors", replication, number)
        mishap = str(rng.choice(MISHAPS)) if rng.random() < who.mishaps else PLAIN
        ids = (f"simulated-{number}", f"{number + 1:024x}", f"{number + 1}")
        link = {desk.provider.participant: next(one for one in ids if re.fullmatch(desk.provider.pattern, one))}
        language = str(rng.choice(desk.languages))
        shown = desk.spoken[language].service
        assert shown is not None
        knows = [one.answer for one in shown.comprehension]
        told = [
            own.options[one.options.index(each[number])]
            for one, own, each in zip(survey.service.screening, shown.screening, answers, strict=True)
        ]
        yield Visitor(address, link, responding(number), knows, rng, mishap, told, language)


def field_simulated(
    store: Store, files: Files, study_id: int, study: Study, batch: str, readings: pd.DataFrame, practice: Path | None = None
) -> dict[str, int]:
    """Fields a batch with the study's simulated people through a real server on this machine's loopback.

    People arrive one after another, so that everybody gets the list of their number, and then answer side by side.
    Returns how many are done, have left, found no list. After a run that was cut off everybody goes on where they were.
    """
    desk = Desk(store, files, study_id, study, batch)

    async def all_of_them(address: str) -> list[str]:
        crowd = list(people(address, desk, readings, study))
        for person in crowd:
            await person.arrive()
        turn = asyncio.Semaphore(AT_ONCE)

        async def go_on(person: Visitor) -> str:
            async with turn:
                return await person.visit()

        return list(await asyncio.gather(*map(go_on, crowd)))

    with serving(build(store, files, study_id, study, batch, practice)) as address:
        ends = asyncio.run(all_of_them(address))
    return {end: ends.count(end) for end in ENDS}


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """The application on a free port of the loopback, in a thread of its own; yields its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, access_log=False, log_level="warning", server_header=False))
    thread = threading.Thread(target=server.run, name="service", daemon=True)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise RuntimeError("the service did not start")
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def _admitted(question: Screening, people: int, seed: int) -> list[str]:
    """What each of so many people answers to a screening question: something that goes on, within the quotas."""
    pool = [option for option in question.admitted for _ in range(min(question.quotas.get(option, people), people))]
    return [pool[k] for k in seeds.generator(seed, "screening", question.name).permutation(len(pool))[:people]]


def _asked_for(text: str) -> float:
    """The number that an attention trial asks for, read from its words."""
    found = re.search(r"\d+", text)
    assert found is not None
    return float(found[0])


@cache
def _tls() -> ssl.SSLContext:
    """One context for all clients; making it takes longer than a visit's first request."""
    return ssl.create_default_context()
