"""Model respondents: a vision model answers what people are asked. Its answers never meet theirs in one table.

It sees the pixels and the question. The prompt says what was changed at random and what was held, so that the model
need not guess what else goes with the change (Gui and Toubia 2023, "The challenge of using LLMs to simulate human
behavior: a causal inference perspective"); it is never told the dose or the arm of a picture. Every question is asked
with the scale both ways round.

A similarity rating (Maier et al. 2025, "LLMs reproduce human purchase intent via semantic similarity elicitation of
Likert ratings", their equation for the distribution over points) lets the model answer in words and compares the
embedding of the sentence with those of anchors: the probability of a point is its cosine above the smallest, divided
by the sum of these, and the rating is the mean.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd

from contrafact.errors import UserError
from contrafact.study.schema import NUMBERS, ModelRespondent, Question, Study

ORDERS = ("as_is", "reversed")
WORDS_OUT = {"direct": 8, "similarity": 80}  # tokens that an answer may take
TRIES = 5
LONGEST_WAIT = 60.0  # seconds
MAX_ANSWER = 1_000_000  # bytes
_STEPS = ("definitely {low}", "{low}", "rather {low}", "neither {low} nor {high}", "rather {high}", "{high}", "definitely {high}")
_NUMBER = re.compile(r"(?<![\d.])-?\d+(?:\.\d+)?")


@dataclass(frozen=True)
class Asked:
    """One thing to ask: a picture (its hash) and a question with the scale one way round."""

    stimulus: str
    pixels_sha256: str
    question: Question
    order: str
    repeat: int


@dataclass(frozen=True)
class Cost:
    """``money`` is in the currency of the prices, NaN where no price is given."""

    requests: int
    tokens_in: int
    tokens_out: int
    money: float
    minutes: float


def prompt(study: Study, question: Question, rating: str, order: str) -> tuple[str, str]:
    """The system's and the user's text. They depend on study, question and order alone, never on the picture."""
    changed = sorted({direction.target for direction in study.directions.values()})
    held = sorted({name for direction in study.directions.values() for name in direction.hold})
    randomised = [
        "You take part in a study in which people judge pictures.",
        "Each picture exists in several versions, and which version is shown is decided at random.",
    ]
    if changed:
        randomised.append(f"Between versions, what a picture shows of this was changed, by amounts drawn at random: {', '.join(changed)}.")
    if held:
        randomised.append(f"This was held as it was: {', '.join(held)}.")
    randomised.append("Nothing else about the person, the thing or the situation differs between versions.")
    randomised.append("Judge the one picture that you see, as an ordinary person would at first sight.")
    low, high = (question.low, question.high) if order == "as_is" else (question.high, question.low)
    first, last = NUMBERS[question.scale]
    if rating == "direct":
        kind = "a whole number" if question.scale == "likert7" else "a number"
        asked = f"{question.text}\nAnswer with {kind} from {first:g} ({low}) to {last:g} ({high}), and with nothing else."
    else:
        asked = f"{question.text}\nAnswer in one sentence, between \"{low}\" and \"{high}\", and give no number."
    return " ".join(randomised), asked


def anchors(question: Question) -> list[tuple[float, str]]:
    """The points of a scale and the sentences that stand for them: seven, evenly spaced."""
    low, high = NUMBERS[question.scale]
    points = np.linspace(low, high, len(_STEPS))
    return [
        (float(point), f"{question.text} {step.format(low=question.low, high=question.high)}".strip())
        for point, step in zip(points, _STEPS, strict=True)
    ]


def similarity_rating(answer: np.ndarray, points: Sequence[float], references: np.ndarray) -> float:
    """The mean point under the distribution of similarities; NaN where an embedding is zero or all are alike.

    ``answer`` has shape (d,), ``references`` (n, d), ``points`` n numbers.
    """
    norms = np.linalg.norm(references, axis=1) * np.linalg.norm(answer)
    if not np.isfinite(norms).all() or not (norms > 0).all():
        return math.nan
    above = references @ answer / norms
    above = above - above.min()
    return float(above @ np.asarray(points) / above.sum()) if above.sum() > 0 else math.nan


def direct_rating(text: str, question: Question, order: str) -> float:
    """The one number in an answer, on the scale as it is; NaN where there is none, or several, or it is off the scale."""
    numbers = {float(number) for number in _NUMBER.findall(text)}
    low, high = NUMBERS[question.scale]
    if len(numbers) != 1:
        return math.nan
    value = numbers.pop()
    if not low <= value <= high:
        return math.nan
    return low + high - value if order == "reversed" else value


def pictures_to_ask(trials: pd.DataFrame, stimuli: pd.DataFrame, originals: Mapping[str, str]) -> pd.DataFrame:
    """The pictures that a batch shows, each once, and the originals of those that have a null edit.

    ``trials`` and ``stimuli`` as the store gives them, ``originals`` from image to pixel hash. Returns ``stimulus`` (text;
    ``original of IMAGE`` for an original), ``pixels_sha256``, ``set_key``, ``arm`` and ``dose``.
    """
    shown = stimuli[stimuli["stimulus"].isin(trials["stimulus"].dropna().unique())]
    nulls = shown[(shown["arm"] == "null") & shown["image"].isin(list(originals))]
    before = nulls.assign(
        stimulus="original of " + nulls["image"], pixels_sha256=nulls["image"].map(originals), arm="original", dose=math.nan
    )
    both = pd.concat([shown, before])
    return both.assign(stimulus=both["stimulus"].astype(str))[["stimulus", "pixels_sha256", "set_key", "arm", "dose"]]


def to_ask(pictures: pd.DataFrame, questions: Sequence[Question], repeats: int) -> Iterator[Asked]:
    """Everything to ask about ``pictures`` (``stimulus``, ``pixels_sha256``), in order."""
    for stimulus, pixels in pictures[["stimulus", "pixels_sha256"]].itertuples(index=False):
        for question in questions:
            for order in ORDERS:
                for repeat in range(repeats):
                    yield Asked(str(stimulus), str(pixels), question, order, repeat)


def estimate(study: Study, who: ModelRespondent, pictures: int) -> Cost:
    """What asking about so many pictures takes, at four characters a token; nothing is sent."""
    assert study.survey is not None
    texts = [sum(map(len, prompt(study, q, who.rating, order))) for q in study.survey.questions for order in ORDERS]
    calls = pictures * len(texts) * who.repeats
    tokens_in = round(pictures * who.repeats * (sum(texts) / 4 + len(texts) * who.tokens_per_picture))
    tokens_out = calls * WORDS_OUT[who.rating]
    priced = who.price_in is not None and who.price_out is not None
    money = (tokens_in * (who.price_in or 0) + tokens_out * (who.price_out or 0)) / 1e6 if priced else math.nan
    requests = calls * (2 if who.rating == "similarity" else 1)
    return Cost(requests, tokens_in, tokens_out, money, requests / who.requests_per_minute)


def body(study: Study, who: ModelRespondent, asked: Asked, picture: bytes) -> dict[str, Any]:
    """The request of one answer; ``picture`` is a PNG."""
    system, text = prompt(study, asked.question, who.rating, asked.order)
    link = "data:image/png;base64," + base64.b64encode(picture).decode()
    content = [{"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": link}}]
    return {
        "model": who.model,
        "temperature": who.temperature,
        "max_tokens": WORDS_OUT[who.rating],
        "seed": asked.repeat,
        "messages": [{"role": "system", "content": system}, {"role": "user", "content": content}],
    }


class Endpoint:
    """One OpenAI-compatible address. What was answered before is not asked again: answers are kept in ``cache``, a file,
    by the hash of address and request. Raises UserError where the address refuses or stays silent."""

    def __init__(
        self, who: ModelRespondent, key: str | None, cache: Path, *, timeout: float = 120.0,
        sleep: Callable[[float], None] = time.sleep, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._who, self._sleep, self._clock, self._next = who, sleep, clock, 0.0
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(timeout=timeout, headers=headers)
        cache.parent.mkdir(parents=True, exist_ok=True)
        self._cache = sqlite3.connect(cache, isolation_level=None)
        self._cache.execute("PRAGMA journal_mode = WAL")
        self._cache.execute("CREATE TABLE IF NOT EXISTS answer (request TEXT PRIMARY KEY, answer TEXT NOT NULL)")
        self.requests = self.tokens_in = self.tokens_out = 0

    def close(self) -> None:
        self._http.close()
        self._cache.close()

    def chat(self, request: dict[str, Any]) -> str:
        """The text of the answer."""
        said = self._ask("/chat/completions", request)
        try:
            return str(said["choices"][0]["message"]["content"] or "")
        except (KeyError, IndexError, TypeError) as error:
            raise UserError(f"{self._who.address}: the answer is not that of an OpenAI-compatible address.") from error

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings of texts, shape (n, d)."""
        said = self._ask("/embeddings", {"model": self._who.embedding, "input": list(texts)})
        try:
            rows = sorted(said["data"], key=lambda item: item["index"])
            found = np.array([row["embedding"] for row in rows], dtype=float)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{self._who.address}: the embeddings are not those of an OpenAI-compatible address.") from error
        if found.ndim != 2 or len(found) != len(texts):
            raise UserError(f"{self._who.address}: {len(texts)} embeddings were asked for, {len(found)} came.")
        return found

    def _ask(self, path: str, request: dict[str, Any]) -> Any:
        text = json.dumps([self._who.address, path, request], sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()
        row = self._cache.execute("SELECT answer FROM answer WHERE request = ?", (key,)).fetchone()
        if row:
            return json.loads(row[0])
        said = self._send(path, request)
        usage = said.get("usage") if isinstance(said, dict) else None
        if isinstance(usage, dict):
            self.tokens_in += int(usage.get("prompt_tokens") or 0)
            self.tokens_out += int(usage.get("completion_tokens") or 0)
        self._cache.execute("INSERT OR REPLACE INTO answer VALUES (?, ?)", (key, json.dumps(said)))
        return said

    def _send(self, path: str, request: dict[str, Any]) -> Any:
        address = self._who.address.rstrip("/") + path
        why = ""
        for attempt in range(TRIES):
            pause = self._next - self._clock()
            if pause > 0:
                self._sleep(pause)
            self._next = max(self._clock(), self._next) + 60 / self._who.requests_per_minute
            self.requests += 1
            wait = min(2.0**attempt, LONGEST_WAIT)
            try:
                answer = self._http.post(address, json=request)
            except httpx.HTTPError as error:
                why = f"did not answer ({type(error).__name__})"
            else:
                if answer.is_success and len(answer.content) <= MAX_ANSWER:
                    try:
                        return answer.json()
                    except ValueError as error:
                        raise UserError(f"{address}: the answer is not JSON.") from error
                if answer.status_code == 429:
                    told = answer.headers.get("Retry-After", "")
                    wait = min(float(told) if told.isdigit() else wait, LONGEST_WAIT)
                elif answer.status_code < 500:
                    reason = " ".join(answer.text.split())[:200]
                    raise UserError(f"{address}: refused ({answer.status_code}): {reason}")
                why = f"failed ({answer.status_code})"
            if attempt < TRIES - 1:
                self._sleep(wait)
        raise UserError(f"{address}: {why}, {TRIES} times.", hint="The same command goes on: answers are kept.")


def answers(
    study: Study, who: ModelRespondent, pictures: pd.DataFrame, picture: Callable[[str], bytes], endpoint: Endpoint
) -> Iterator[dict[str, Any]]:
    """Asks everything and yields one row an answer: ``stimulus``, ``question``, ``order``, ``repeat``, ``value`` (on the
    scale as it is, NaN where the answer cannot be read), ``text``.

    ``picture`` gives the PNG of a pixel hash.
    """
    assert study.survey is not None
    references: dict[str, tuple[list[float], np.ndarray]] = {}
    if who.rating == "similarity":
        for question in study.survey.questions:
            points, sentences = zip(*anchors(question), strict=True)
            references[question.name] = list(points), endpoint.embed(sentences)
    for asked in to_ask(pictures, study.survey.questions, who.repeats):
        text = endpoint.chat(body(study, who, asked, picture(asked.pixels_sha256)))
        if who.rating == "direct":
            value = direct_rating(text, asked.question, asked.order)
        elif text.strip():
            value = similarity_rating(endpoint.embed([text])[0], *references[asked.question.name])
        else:
            value = math.nan
        yield {
            "stimulus": asked.stimulus, "question": asked.question.name, "order": asked.order, "repeat": asked.repeat,
            "value": value, "text": text,
        }  # fmt: skip
