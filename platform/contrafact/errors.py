"""What a user can mend, and how it is said.

    UserError            one clear sentence, exit code 2, no traceback
    ├── Mistakes         several of them at once (a study file, a manifest)
    └── Paused           not a mistake: the work waits for a person, exit code 0
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches


class UserError(Exception):
    """Something the user can mend.

    ``message`` is one sentence that names the file, line or field; ``hint`` is the mend.
    """

    exit_code = 2

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


@dataclass(frozen=True)
class Mistake:
    """One mistake in a file: where it is, what was found, what is allowed."""

    file: str
    line: int
    path: str
    found: str
    allowed: str
    nearest: str | None = None

    def __str__(self) -> str:
        near = f" Did you mean '{self.nearest}'?" if self.nearest else ""
        return f"{self.file}:{self.line}: {self.path}: found {self.found}; allowed: {self.allowed}.{near}"


class Mistakes(UserError):
    """All mistakes of one file, told together."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(str(mistake) for mistake in mistakes))


class Paused(UserError):
    """The run waits for a person; ``hint`` is the next command."""

    exit_code = 0


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word closest to ``word``, or None where nothing is close."""
    found = get_close_matches(str(word), list(known), n=1, cutoff=0.6)
    return found[0] if found else None
