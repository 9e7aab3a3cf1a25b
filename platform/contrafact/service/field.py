"""The end of the field: enough people have finished, and nobody is still at it."""

from __future__ import annotations

import time
from typing import Protocol

from contrafact.store import Store
from contrafact.store.visits import Visits

EVERY = 5.0  # seconds between two looks
GRACE = 60.0  # seconds in which the last person's page fetches the completion code


class Stoppable(Protocol):
    should_exit: bool


class Field:
    """How far a batch is; ``target`` is the number of participants that the study asks for."""

    def __init__(self, store: Store, study_id: int, batch: str, target: int) -> None:
        self._store, self._study, self._batch, self._target = store, study_id, batch, target
        self._visits = Visits(store, study_id, batch)
        self.ended = False

    def done(self) -> int:
        """Participants who have finished their list."""
        return next(batch.done for batch in self._store.batches(self._study) if batch.name == self._batch)

    def over(self) -> bool:
        """Whether enough people have finished and nobody else holds a list."""
        done = self.done()
        return done >= self._target and sum(self._visits.filled().values()) <= done

    def watch(self, server: Stoppable, every: float = EVERY, grace: float = GRACE) -> None:
        """Looks from time to time and stops the server once the field is over; returns when the server stops."""
        since: float | None = None
        while True:
            time.sleep(every)
            if server.should_exit:  # somebody else has stopped it, and the store may be closed
                return
            since = (since or time.monotonic()) if self.over() else None
            if since is not None and time.monotonic() - since >= grace:
                self.ended = server.should_exit = True
