"""The HTTP application of one study's batch.

    GET  /                    the page
    POST /api/arrive          {link}                      who is there already goes on where they were
    POST /api/consent         {link, screening}           a list on lease; from here on things are kept
    POST /api/comprehension   {attempt, answers}
    GET  /api/state
    POST /api/answer          {key, position, values, moves, response_ms, answered_at, away, pasted}
    POST /api/forget          deletes everything of this person
    GET  /picture/NAME.png

After consent a request carries a token, ``Authorization: Bearer``, signed with the study's salt. Ids come in the body
and never in an address, so that no log holds them; addresses of people are neither stored nor logged. A link without
an id is a preview: all pages work, and nothing is kept.
"""

from __future__ import annotations

import hmac
import json
import math
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from contrafact.errors import UserError
from contrafact.images.decode import decode, png_bytes
from contrafact.panels.links import PROVIDERS, SIGNATURE, Arrival, WrongLink, arrival, done_link, signature
from contrafact.panels.prolific import completion_codes
from contrafact.service.writer import Writer
from contrafact.store import Store
from contrafact.store.files import Files
from contrafact.store.visits import Given, Screened, Shown, Visit, Visits
from contrafact.study.load import practice_files
from contrafact.study.schema import NUMBERS, Study, at_once
from contrafact.survey.batch import ATTENTION, LONGEST_MS, LONGEST_TEXT, keyed

PAGES = Path(__file__).parent / "pages"
TRIES = 2  # at the comprehension questions
LARGEST_BODY = 16_384
BURST, PER_SECOND = 30.0, 5.0  # requests of one person
SEATS = 5_000  # people whose lists are kept in memory
PREVIEW = "preview"
WORDS: dict[str, dict[str, str]] = json.loads((PAGES / "words.json").read_text(encoding="utf-8"))
"""The pages' own words by language; the browser has the same file."""
TURNED_AWAY = ("unfit", "full")  # by answers to the screening questions
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
}
Name = Annotated[str, Field(max_length=64)]
Link = Annotated[dict[Name, Annotated[str, Field(max_length=300)]], Field(max_length=20)]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Arrive(Body):
    link: Link


class Consent(Arrive):
    language: Name = ""
    screening: Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=10)] | None = None


class Comprehension(Body):
    attempt: Annotated[int, Field(ge=1, le=TRIES)]
    answers: Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=10)]


class Answer(Body):
    key: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{16,64}$")]
    position: Annotated[int, Field(ge=0, le=10_000)]
    values: Annotated[
        dict[Name, float | Annotated[str, Field(min_length=1, max_length=LONGEST_TEXT)]], Field(min_length=1, max_length=50)
    ]
    moves: Annotated[dict[Name, Annotated[int, Field(ge=0, le=1_000_000)]], Field(max_length=50)] = {}
    response_ms: Annotated[float, Field(ge=0, le=LONGEST_MS)]
    answered_at: datetime | None = None
    break_ms: Annotated[float, Field(ge=0, le=LONGEST_MS)] | None = None
    away: Annotated[int, Field(ge=0, le=10_000)] = 0
    pasted: Annotated[dict[Name, Annotated[int, Field(ge=0, le=1_000_000)]], Field(max_length=50)] = {}


class Refused(Exception):
    """An answer other than 200; ``say`` is what people are told, by its key in ``words.json``, in their language."""

    def __init__(self, status: int, message: str, **more: Any) -> None:
        super().__init__(message)
        self.status, self.facts = status, {"error": message, **more}


def told(status: int, say: str, **more: Any) -> Refused:
    """What people are told where something cannot be done."""
    return Refused(status, WORDS["en"][say], say=say, **more)


Shape = TypeVar("Shape", bound=Body)


class Desk:
    """What the handlers share: the study, its pictures under opaque names, and the lists of those who are there."""

    def __init__(
        self, store: Store, files: Files, study_id: int, study: Study, batch: str, practice: Path | None = None
    ) -> None:
        assert study.survey is not None and study.survey.service is not None
        self.study, self.survey, self.texts = study, study.survey, study.survey.service
        self.store, self.files, self.study_id = store, files, study_id
        self.visits = Visits(store, study_id, batch)
        self.languages: tuple[str, ...] = (self.survey.language, *self.survey.languages)
        self.spoken = {language: self.survey.spoken(language) for language in self.languages}
        self.lease = timedelta(minutes=self.texts.lease_minutes)
        self.writer = Writer(self.visits, self.lease)
        self.salt = store.salt(study_id)
        self.signed = self.survey.panel is not None and self.survey.panel.signed
        self.provider = PROVIDERS[self.survey.panel.provider if self.survey.panel else "link"]
        self.codes = completion_codes(self.salt)
        self.names = {one: keyed(self.salt, "picture", one, length=20) for one in self.visits.pictures()}
        self.pixels = {self.names[one]: sha for one, sha in self.visits.pictures().items()}
        self.practice = {
            keyed(self.salt, "practice", file.name, length=20): file for file in (practice_files(practice) if practice else ())
        }
        self.scales = {part.name: part.scale for part in self.survey.asked}
        self._seats: OrderedDict[int, dict[int, Shown]] = OrderedDict()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._looked = -math.inf

    def arrival(self, link: Mapping[str, str]) -> Arrival:
        """Who comes with these parameters; raises WrongLink where they are not of the panel, or not signed by us."""
        who = arrival(self.provider, link)
        if self.signed and not who.preview:
            proof = signature(self.salt, who.participant)
            if not hmac.compare_digest(proof.encode(), link.get(SIGNATURE, "").encode()):
                raise WrongLink("This link is not one that was given out. Please take the whole link that you were given.")
        return who

    def language(self, *wanted: str) -> str:
        """The first of the wanted languages that the study has, else the study's own."""
        known = (each.lower().partition("-")[0] for each in wanted)
        return next((each for each in known if each in self.languages), self.languages[0])

    def token(self, visit: int) -> str:
        return f"{visit}.{keyed(self.salt, 'visit', visit, length=32)}"

    def known(self, request: Request) -> int | None:
        """The visit that a request's token names; None in a preview. Raises Refused where it is not ours."""
        word = request.headers.get("authorization", "").removeprefix("Bearer ")
        if word == PREVIEW:
            return None
        number = word.partition(".")[0]
        if not (number.isascii() and number.isdigit() and len(number) < 12):
            raise told(401, "signed_out")
        if not hmac.compare_digest(word.encode(), self.token(int(number)).encode()):
            raise told(401, "signed_out")
        self.slow_down(word)
        return int(number)

    def slow_down(self, who: str) -> None:
        """A bucket of requests for each person; raises Refused where it is empty."""
        now = time.monotonic()
        left, at = self._buckets.pop(who, (BURST, now))
        left = min(BURST, left + (now - at) * PER_SECOND)
        self._buckets[who] = (max(left - 1, 0), now)
        if len(self._buckets) > SEATS:
            self._buckets.popitem(last=False)
        if left < 1:
            raise told(429, "slow", retry=1)

    async def withdrawn(self) -> frozenset[str]:
        """Matched sets that were withdrawn, as the chain says; looked up every few seconds."""
        if time.monotonic() - self._looked > 5:
            self._looked = time.monotonic()
            chain = await run_in_threadpool(self.store.chain, self.study_id)
            self.writer.withdrawn = frozenset(link.payload["set"] for link in chain if link.kind == "withdrawal")
        return self.writer.withdrawn

    async def seat(self, visit: Visit | None) -> dict[int, Shown]:
        """The trials of somebody's list by position; a preview sees the first list."""
        number = 0 if visit is None else visit.id
        if number not in self._seats or (visit is not None and visit.assignment is None):
            trials = await run_in_threadpool(self.visits.trials, visit.assignment if visit else None)
            self._seats[number] = {trial.position: trial for trial in trials}
            if len(self._seats) > SEATS:
                self._seats.popitem(last=False)
        return self._seats[number]

    async def visit(self, number: int) -> Visit:
        found = await run_in_threadpool(self.visits.get, number)
        if found is None:
            raise told(410, "gone")
        return found

    async def state(
        self, visit: Visit | None, link: dict[str, str] | None = None, language: str = ""
    ) -> dict[str, Any]:
        """Where somebody is, and all that their page needs to go on; ``language`` is that of a preview."""
        language = self.language(visit.language if visit else language)
        survey = self.spoken[language]
        assert survey.service is not None
        texts = survey.service
        first = "instructions" if texts.comprehension else "trials"
        status = first if visit is None else visit.status
        facts: dict[str, Any] = {
            "status": status, "preview": visit is None, "tries_left": TRIES - (visit.tries if visit else 0),
            "token": PREVIEW if visit is None else self.token(visit.id),
            "language": language, "instructions": texts.instructions, "debrief": texts.debrief,
            "comprehension": [{"text": one.text, "options": one.options} for one in texts.comprehension],
            "questions": [q.model_dump(include={"name", "text", "low", "high", "scale"}) for q in survey.questions],
            "trials": [], "answered": [], "practice": [], "breaks": self.texts.breaks, "feedback": self.survey.design == "guess",
        }  # fmt: skip
        if status == "screened_out":
            return facts
        if status in TURNED_AWAY:
            return facts | self.finish(link, "SCREENED_OUT")
        withdrawn = await self.withdrawn()
        answered = set() if visit is None or visit.assignment is None else await run_in_threadpool(
            self.visits.answered, visit.assignment
        )  # fmt: skip
        facts["answered"] = sorted(answered)
        facts["trials"] = [
            self._trial(trial, language) for position, trial in (await self.seat(visit)).items()
            if position in answered or trial.set_key not in withdrawn
        ]  # fmt: skip
        if status == "done":
            facts |= self.finish(link)
            if visit is not None and visit.assignment is not None and self.survey.pay.bonus:
                facts["bonus"] = await run_in_threadpool(self._bonus, visit.assignment)
        elif self.texts.practice is not None and not answered:
            facts["practice"] = await run_in_threadpool(self._practice, self.texts.practice.trials, visit.assignment if visit else None)
        return facts

    def finish(self, link: dict[str, str] | None, kind: str = "COMPLETED") -> dict[str, Any]:
        """The code of a way to end, and the panel's link for it; one that names no code says that people are done."""
        back = kind == "COMPLETED" or "{code}" in self.provider.done
        return {"code": self.codes[kind], "return": done_link(self.provider, self.codes[kind], link or {}) if back else ""}

    def screened(self, given: Sequence[str] | None, language: str) -> Screened | None:
        """What answers to the screening questions, given in a language, mean; None where nothing is asked. Raises Refused
        where they are none. Kept are the study's own words."""
        asked, shown = self.texts.screening, self.spoken[language].service
        if not asked or shown is None:
            return None
        offered = [one.options for one in shown.screening]
        if given is None or len(given) != len(asked) or any(one not in options for one, options in zip(given, offered, strict=True)):
            raise Refused(422, "screening: one of the options of each question is asked for.")
        both = [(each.options[options.index(one)], each) for one, options, each in zip(given, offered, asked, strict=True)]
        return Screened(
            {each.name: one for one, each in both}, all(one in each.admitted for one, each in both),
            {each.name: each.quotas[one] for one, each in both if one in each.quotas},
        )  # fmt: skip

    def _trial(self, trial: Shown, language: str) -> dict[str, Any]:
        if trial.kind == "attention":
            assert trial.target is not None
            text = WORDS[language]["attention"].replace("{number}", f"{trial.target:g}")
            question = {"name": ATTENTION, "text": text, "low": "0", "high": "100", "scale": "vas"}
            return {"position": trial.position, "picture": None, "pictures": [], "questions": [question]}
        pictures = [f"/picture/{self.names[one]}.png" for one in trial.stimuli]
        return {"position": trial.position, "picture": pictures[0], "pictures": pictures, "questions": None}

    def _bonus(self, assignment: int) -> dict[str, Any]:
        """What somebody's right guesses come to, by the answers that are stored."""
        assert self.survey.guessed is not None
        right, made = self.visits.guesses(assignment, self.survey.guessed)
        pay = self.survey.pay
        return {"right": right, "guesses": made, "amount": f"{right * pay.bonus:.2f}", "currency": pay.currency}

    def _practice(self, trials: int, assignment: int | None) -> list[dict[str, Any]]:
        """Practice trials as the page gets them; ``right`` is the place of the right picture in a guess of the study's
        own, which nobody is scored on."""
        if self.practice:
            names, several = [f"/picture/{name}.png" for name in self.practice], at_once(self.survey.design, self.survey.set_size)
            shown = [names[start : start + several] for start in range(0, trials * several, several)]
            return [{"pictures": pictures, "questions": None, "right": None} for pictures in shown]
        own = self.visits.practice(assignment, trials)
        return [{"pictures": self._trial(one, self.languages[0])["pictures"], "questions": None, "right": one.target} for one in own]

    def right(self, trial: Shown, values: Mapping[str, float | str]) -> bool | None:
        """Whether a guess, once it is stored, was right; None where there is nothing to guess."""
        if trial.kind == "attention" or trial.target is None or self.survey.guessed is None:
            return None
        return values.get(self.survey.guessed) == trial.target

    def checked(self, trial: Shown, answer: Answer) -> dict[str, float | str]:
        """The values of an answer; raises Refused where they are not answers to what the trial asks."""
        scales = {ATTENTION: "vas"} if trial.kind == "attention" else self.scales
        if set(answer.values) != set(scales) or not set(answer.moves) <= set(scales):
            raise Refused(422, f"This trial asks for {', '.join(scales)}.")
        values: dict[str, float | str] = {}
        for name, value in answer.values.items():
            if isinstance(value, str) != (scales[name] == "text"):
                raise Refused(422, f"{name}: {'a text' if scales[name] == 'text' else 'a number'} is asked for.")
            if isinstance(value, str):
                values[name] = value.replace("\0", "")  # which PostgreSQL cannot hold
                continue
            low, high = NUMBERS.get(scales[name], (1.0, float(len(trial.stimuli))))
            if not low <= value <= high or (scales[name] != "vas" and value != int(value)):
                raise Refused(422, f"{name}: {value:g} is not on its scale, {low:g} to {high:g}.")
            values[name] = value
        for best in (name for name, scale in scales.items() if scale == "best"):
            if values[best] == values[best.removesuffix("best") + "worst"]:
                raise Refused(422, "The best picture and the worst are two pictures.")
        return values


async def _read(request: Request, shape: type[Shape]) -> Shape:
    """The body, within bounds; raises Refused where it is something else."""
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise Refused(415, "A body is JSON.")
    content = b""
    try:
        async for part in request.stream():
            content += part
            if len(content) > LARGEST_BODY:
                raise Refused(413, "This is more than an answer can be.")
    except ClientDisconnect:  # a bad network is no mistake of ours; the page sends it again
        raise Refused(400, "The request broke off.") from None
    try:
        return shape.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise Refused(422, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def build(
    store: Store, files: Files, study_id: int, study: Study, batch: str, practice: Path | None = None
) -> Starlette:
    """The application for one batch; the study has ``survey.service``, and ``practice`` is the folder that it names for
    practice trials, as ``LoadedStudy.inputs`` has it."""
    desk = Desk(store, files, study_id, study, batch, practice)

    async def about(request: Request) -> dict[str, Any]:
        accepted = _accepted(request.headers.get("accept-language", ""))
        language = desk.language(request.query_params.get("lang", ""), *accepted)
        words, texts = desk.survey.languages.get(language), desk.spoken[language].service  # type: ignore[call-overload]
        return {
            "study": study.study, "title": words.title if words else study.title, "language": language,
            "languages": desk.languages, "consent": texts and texts.consent, "contact": desk.texts.contact,
            "retention_days": desk.texts.retention_days,
            "parameters": [*desk.provider.entry, *[SIGNATURE] * desk.signed], "minutes": desk.survey.pay.minutes,
        }  # fmt: skip

    async def arrive(request: Request) -> dict[str, Any]:
        link = (await _read(request, Arrive)).link
        who = desk.arrival(link)
        if who.preview:
            return {"status": "consent"}
        pid = keyed(desk.salt, "participant", who.participant)
        desk.slow_down(pid)
        found = await run_in_threadpool(desk.visits.find, pid)
        return {"status": "consent"} if found is None else await desk.state(found, link)

    async def consent(request: Request) -> dict[str, Any]:
        given = await _read(request, Consent)
        who, link = desk.arrival(given.link), given.link
        pid = "" if who.preview else keyed(desk.salt, "participant", who.participant)
        if pid:
            desk.slow_down(pid)
            if (found := await run_in_threadpool(desk.visits.find, pid)) is not None:
                return await desk.state(found, link)
        language = desk.language(given.language, *_accepted(request.headers.get("accept-language", "")))
        shown = desk.spoken[language].service
        if shown is not None and shown.screening and given.screening is None:
            return {"status": "screening", "screening": [{"text": one.text, "options": one.options} for one in shown.screening]}
        screened = desk.screened(given.screening, language)
        if who.preview:
            return {"status": "unfit"} if screened and not screened.fit else await desk.state(None, language=language)
        keep = timedelta(days=desk.texts.retention_days)
        begin = partial(desk.visits.begin, pid, who.participant, lease=desk.lease, keep=keep, screened=screened, language=language)
        found = await desk.writer.do(begin)
        if found is None:
            return {"status": "full"}
        if not desk.texts.comprehension and found.status == "instructions":
            found = await desk.writer.do(partial(desk.visits.check, found.id, 1, True, TRIES, desk.lease)) or found
        return await desk.state(found, link)

    async def comprehension(request: Request) -> dict[str, Any]:
        number, given = desk.known(request), await _read(request, Comprehension)
        right = [[one.answer for one in spoken.service.comprehension] for spoken in desk.spoken.values() if spoken.service]
        passed = given.answers in right  # in whichever language
        if number is None:
            status = "trials" if passed else "instructions" if given.attempt < TRIES else "screened_out"
            return {"status": status, "tries_left": TRIES - given.attempt}
        found = await desk.writer.do(partial(desk.visits.check, number, given.attempt, passed, TRIES, desk.lease))
        if found is None:
            raise told(410, "gone")
        return {"status": found.status, "tries_left": TRIES - found.tries}

    async def state(request: Request) -> dict[str, Any]:
        number = desk.known(request)
        return await desk.state(None if number is None else await desk.visit(number), dict(request.query_params))

    async def answer(request: Request) -> dict[str, Any]:
        number, given = desk.known(request), await _read(request, Answer)
        seat = desk._seats.get(number or 0)
        if seat is None:
            visit = None if number is None else await desk.visit(number)
            if visit is not None and visit.assignment is None:
                raise _why(visit.status)
            seat = await desk.seat(visit)
        trial = seat.get(given.position)
        if trial is None:
            raise Refused(404, "There is no such trial in this list.")
        values = desk.checked(trial, given)
        if number is None:
            right = desk.right(trial, values)
            return {"stored": values, "done": given.position == max(seat), "preview": True, "right": right}
        if given.answered_at is not None and given.answered_at.tzinfo is None:
            raise Refused(422, "answered_at: a time with its zone")
        await desk.withdrawn()
        taken = await desk.writer.take(
            Given(
                number, trial.id, given.key, values, given.moves, given.response_ms, given.answered_at, given.break_ms,
                given.away, given.pasted,
            )
        )
        if taken.fate == "refused":
            raise _why((await desk.visit(number)).status)
        facts = {
            "position": given.position, "stored": dict(taken.values), "response_ms": taken.response_ms,
            "repeated": taken.fate == "repeated", "done": taken.whole, "right": desk.right(trial, taken.values),
        }  # fmt: skip
        if taken.fate == "conflict":
            raise Refused(409, "Another answer was given here before; it is kept.", **facts)
        return facts

    async def forget(request: Request) -> dict[str, Any]:
        number = desk.known(request)
        if number is not None:
            await desk.writer.do(partial(desk.visits.forget, number))
            desk._seats.pop(number, None)
        return {"status": "forgotten"}

    async def picture(request: Request) -> Response:
        name = request.path_params["name"]
        if name in desk.practice:
            content = await run_in_threadpool(_as_png, desk.practice[name])
        elif (sha := desk.pixels.get(name)) is not None:
            content = await run_in_threadpool(desk.files.get, sha)
        else:
            return JSONResponse({"error": "There is no such picture."}, 404)
        return Response(content, media_type="image/png", headers={"Cache-Control": "private, max-age=86400, immutable"})

    def page(name: str) -> Route:
        async def file(request: Request) -> Response:
            return FileResponse(PAGES / name, headers={"Cache-Control": "no-cache"})

        return Route("/" if name == "index.html" else f"/{name}", file)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        desk.writer.close()

    app = Starlette(
        lifespan=lifespan,
        routes=[
            *map(page, ("index.html", "survey.js", "survey.css", "icon.svg", "words.json")),
            Route("/api/about", _answered(about)),
            Route("/api/arrive", _answered(arrive), methods=["POST"]),
            Route("/api/consent", _answered(consent), methods=["POST"]),
            Route("/api/comprehension", _answered(comprehension), methods=["POST"]),
            Route("/api/state", _answered(state)),
            Route("/api/answer", _answered(answer), methods=["POST"]),
            Route("/api/forget", _answered(forget), methods=["POST"]),
            Route("/picture/{name}.png", picture),
        ],
    )
    app.add_middleware(_Headers)
    return app


def _accepted(header: str) -> list[str]:
    """The languages that a browser accepts, the most wanted first (RFC 9110, section 12.5.4)."""
    found = []
    for part in header[:500].split(","):
        name, _, weight = part.strip().partition(";q=")
        with suppress(ValueError):
            found.append((float(weight or 1), name))
    return [name for weight, name in sorted(found, key=lambda one: -one[0]) if weight > 0]


def _why(status: str) -> Refused:
    """Why a visit of this status has no trial to answer."""
    if status == "instructions":
        return told(403, "too_early")
    if status in ("screened_out", *TURNED_AWAY):
        return told(410, "ended")
    return told(410, "not_yours")


def _as_png(file: Path) -> bytes:
    """A picture of the study's folder, drawn anew: pixels go out and nothing that stood beside them."""
    return png_bytes(np.asarray(decode(file)))


def _answered(handler: Callable[[Request], Awaitable[dict[str, Any]]]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            return JSONResponse(await handler(request), headers={"Cache-Control": "no-store"})
        except Refused as refused:
            after = {"Retry-After": "1"} if refused.status == 429 else {}
            return JSONResponse(refused.facts, refused.status, headers={"Cache-Control": "no-store", **after})
        except UserError as error:
            # A link that is not of the panel is the visitor's; a database that is away is not.
            wrong = isinstance(error, WrongLink)
            return JSONResponse({"error": error.message} | ({"say": "wrong_link"} if wrong else {}), 422 if wrong else 503)

    return endpoint


class _Headers:
    """Puts the safety headers on every response."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] += [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
            await send(message)

        await self.app(scope, receive, with_headers if scope["type"] == "http" else send)
