"""Which list the next person is given, and how even the lists are while people come and go.

A batch has its lists 0, 1, 2, ... Where somebody leaves a list unfinished, it is given anew under the number
``list + AGAIN`` (then ``+ 2 * AGAIN``, ...), so what the first person answered stays theirs. Least filled first is
then: the lowest list that nobody has finished and nobody holds.
"""

from __future__ import annotations

from collections.abc import Iterable

AGAIN = 100_000  # above the number of participants that a study may have


def list_of(number: int) -> int:
    """The list that is shown under a number."""
    return number % AGAIN


def next_number(free: Iterable[int], left: Iterable[int]) -> int | None:
    """The number that the next person is given, of lists that nobody took and of those whose lease ended; None where
    the batch is full. A number out of ``left`` is to be given anew."""
    return min((*free, *left), key=lambda number: (list_of(number), number), default=None)
