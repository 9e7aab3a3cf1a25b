"""One thread that writes: answers that wait together are one transaction, so a commit's cost is shared."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TypeVar

from contrafact.store.visits import Given, Taken, Visits

Result = TypeVar("Result")
LARGEST = 64  # answers in one transaction


class Writer:
    """Belongs to one event loop. What it returns has been committed."""

    def __init__(self, visits: Visits, lease: timedelta) -> None:
        self._visits, self._lease = visits, lease
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="writer")
        self._waiting: list[tuple[Given, asyncio.Future[Taken]]] = []
        self._work: asyncio.Task[None] | None = None
        self.withdrawn: frozenset[str] = frozenset()

    async def take(self, answer: Given) -> Taken:
        """Writes one answer together with those that wait."""
        future: asyncio.Future[Taken] = asyncio.get_running_loop().create_future()
        self._waiting.append((answer, future))
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._flush())
        return await future

    async def do(self, write: Callable[[], Result]) -> Result:
        """Carries out another write, after those before it."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, write)

    async def _flush(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting[:LARGEST], self._waiting[LARGEST:]
            answers = [answer for answer, _ in group]
            try:
                results = await self.do(lambda batch=answers: self._visits.take(batch, self.withdrawn, self._lease))  # type: ignore[misc]
            except Exception as error:  # noqa: BLE001 - each who waits is told
                for _, future in group:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), result in zip(group, results, strict=True):
                if not future.done():
                    future.set_result(result)

    def close(self) -> None:
        self._thread.shutdown(wait=True)
