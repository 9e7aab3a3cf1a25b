"""What people did beside answering: noted, told, and never a reason to leave anybody out (the frozen rules alone are).

The pages note how often somebody went away from a trial (``away``) and how many signs were pasted into a free text
(``pasted``); pace and runs are seen in the answers themselves.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from contrafact.survey.exclusions import FASTEST_MS, STRAIGHT_FROM

SCAN_MS = 100.0  # a word: nobody reads 600 words a minute, which is scanning (Carver 1990, Reading Rate, ch. 2)
COLUMNS = ("participant", "answers", "away", "pasted", "hasty", "longest_run")


def flags(answers: pd.DataFrame, wording: Mapping[str, str]) -> pd.DataFrame:
    """One row a person, by ``participant``: how many ``answers``; ``away``, trials that were left while they stood, and
    ``pasted``, texts that were pasted into (both NaN where nobody noted it); ``hasty``, trials answered in less than
    300 ms or, where a question was new, faster than its words can be scanned; ``longest_run``, how many numbers in a row
    were the same for one question.

    ``answers`` has a row for each answer: ``participant``, ``list_number``, ``position``, ``question``, ``value``,
    ``text``, ``response_ms``, ``away``, ``pasted``. ``wording`` is by question.
    """
    if answers.empty:
        return pd.DataFrame(columns=list(COLUMNS))
    rows = answers.sort_values(["participant", "position", "question"], kind="stable")
    first = ~rows.duplicated(["participant", "question"])
    words = rows["question"].map(lambda name: len(wording.get(name, "").split())).where(first, 0)
    rows = rows.assign(needed=(words * SCAN_MS).clip(lower=FASTEST_MS))
    trial = ["participant", "list_number", "position"]
    shown = rows.groupby(trial).agg(ms=("response_ms", "first"), needed=("needed", "max"), away=("away", "max"))
    shown = shown.assign(hasty=shown["ms"] < shown["needed"], left=(shown["away"] > 0).astype(float).where(shown["away"].notna()))
    by = shown.groupby("participant")
    numbers = rows.dropna(subset=["value"])
    new = (numbers["value"] != numbers.groupby(["participant", "question"])["value"].shift()).astype(int)
    run = new.groupby([numbers["participant"], numbers["question"]]).cumsum().rename("run")
    runs = numbers.groupby(["participant", "question", run]).size().groupby("participant").max()
    pasted = (rows["pasted"] > 0).astype(float).where(rows["pasted"].notna()).groupby(rows["participant"])
    table = pd.DataFrame({
        "answers": rows.groupby("participant").size(), "away": by["left"].sum(min_count=1), "pasted": pasted.sum(min_count=1),
        "hasty": by["hasty"].sum(), "longest_run": runs,
    })  # fmt: skip
    return table.rename_axis("participant").reset_index()[list(COLUMNS)]


def told(people: pd.DataFrame) -> list[tuple[str, str, str]]:
    """What was noted, in how many people, and how often: rows of a table; "not recorded" where nobody noted it."""
    found = []
    for name, words in (
        ("away", "left the page while a trial stood"),
        ("pasted", "pasted into a free text"),
        ("hasty", f"answered in less than {FASTEST_MS:g} ms, or a new question faster than it can be read"),
    ):
        noted = people[name].dropna()
        if name == "pasted" and noted.empty and people["away"].notna().any():
            continue  # no free text was asked for
        some = "not recorded" if noted.empty else f"{int((noted > 0).sum())} of {len(noted)}"
        found.append((words, some, "not recorded" if noted.empty else f"{int(noted.sum())} times"))
    runs = people["longest_run"].dropna()
    long = runs[runs >= STRAIGHT_FROM]
    found.append((
        f"gave the same number {STRAIGHT_FROM} times in a row or more", f"{len(long)} of {len(people)}",
        f"longest run {int(runs.max())}" if len(runs) else "none",
    ))  # fmt: skip
    return found
