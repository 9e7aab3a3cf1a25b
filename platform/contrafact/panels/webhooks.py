"""Prolific's webhooks: checked on the raw bytes, taken once, put in order by their own time."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Protocol

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from contrafact.panels import prolific
from contrafact.survey.batch import keyed

OLDEST = 300.0  # seconds between signing and arrival
MAX_BYTES = 100_000


class Ground(Protocol):
    """What webhooks ask of the store."""

    def salt(self, study_id: int) -> bytes: ...

    def put_submission(
        self, study_id: int, submission: str, pid_hash: str, status: str, at: datetime, event: str | None = None
    ) -> bool: ...


def signature_holds(secret: bytes, timestamp: str, body: bytes, given: str, now: float | None = None) -> bool:
    """Whether the base64 HMAC-SHA256 over timestamp and raw body is right and not older than five minutes.

    The timestamp is in seconds since 1970; milliseconds are understood.
    """
    try:
        at = float(timestamp)
    except ValueError:
        return False
    at = at / 1000 if at > 1e11 else at
    wanted = base64.b64encode(hmac.new(secret, timestamp.encode() + body, hashlib.sha256).digest()).decode()
    fresh = abs((time.time() if now is None else now) - at) <= OLDEST
    return hmac.compare_digest(wanted.encode(), given.encode()) and fresh


def receive(
    ground: Ground, study_id: int, secret: bytes, headers: Mapping[str, str], body: bytes, now: float | None = None
) -> int:
    """Takes one call in and returns the HTTP status of the answer.

    401 where the signature is wrong or old, 400 where the body cannot be read, 200 for what was taken, what came
    before, and what is of another kind. A repeat or an event that is older than what is known changes nothing.
    """
    given, timestamp = headers.get("x-prolific-request-signature", ""), headers.get("x-prolific-request-timestamp", "")
    if not signature_holds(secret, timestamp, body, given, now):
        return 401
    event = headers.get("x-event-id", "")
    try:
        told = json.loads(body)
        at = _moment(headers.get("x-timestamp") or timestamp)
        kind = told["event_type"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return 400
    if kind != "submission.status.change":
        return 200
    submission, participant = told.get("resource_id"), prolific.participant_of(told)
    if not event or not isinstance(submission, str) or not submission or not participant:
        return 400
    salt = ground.salt(study_id)
    ground.put_submission(
        study_id,
        keyed(salt, "submission", submission),
        keyed(salt, "participant", participant),
        prolific.status_of(told),
        at,
        event=event[:200],
    )
    return 200


def application(ground: Ground, study_id: int, secret: bytes) -> Starlette:
    """An application with the one address ``POST /webhooks/prolific``; it can be mounted in another."""

    async def take(request: Request) -> Response:
        body = b""
        async for piece in request.stream():
            body += piece
            if len(body) > MAX_BYTES:
                return Response(status_code=413)
        return Response(status_code=receive(ground, study_id, secret, request.headers, body))

    return Starlette(routes=[Route("/webhooks/prolific", take, methods=["POST"])])


def _moment(text: str) -> datetime:
    """Seconds or milliseconds since 1970, or ISO 8601."""
    try:
        number = float(text)
    except ValueError:
        at = datetime.fromisoformat(text)
        return at if at.tzinfo else at.replace(tzinfo=UTC)
    return datetime.fromtimestamp(number / 1000 if number > 1e11 else number, UTC)
