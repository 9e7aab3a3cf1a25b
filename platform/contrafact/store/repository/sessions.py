"""What every subject of the store stands on: a read or a write is one transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import pandas as pd
from sqlalchemy import Engine, Select
from sqlalchemy.orm import Session

from contrafact.store.database import reachable

Rows = Select[*tuple[Any, ...]]


class Sessions:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writer = engine.execution_options(write=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _read(self) -> Iterator[Session]:
        with reachable(self._engine.url), Session(self._engine) as session:
            yield session

    @contextmanager
    def _write(self) -> Iterator[Session]:
        with reachable(self._engine.url), Session(self._writer) as session, session.begin():
            yield session

    def _table(self, query: Rows, floats: Sequence[str], booleans: Sequence[str]) -> pd.DataFrame:
        with self._read() as session:
            found = session.execute(query)
            table = pd.DataFrame(found.all(), columns=list(found.keys()))
        return table.astype({**dict.fromkeys(floats, float), **dict.fromkeys(booleans, bool)})
