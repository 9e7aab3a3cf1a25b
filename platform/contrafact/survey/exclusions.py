"""Who is left out of the registered analysis: rules frozen before the first rating, counted, never a deletion."""

from __future__ import annotations

import pandas as pd

ATTENTION_TOLERANCE = 5.0  # points on 0 to 100 by which an attention trial may be missed
FASTEST_MS = 300.0  # a picture cannot be seen and judged in less
STRAIGHT_SHARE = 0.9  # of one person's answers that are one and the same value
STRAIGHT_FROM = 8  # answers below which straight-lining cannot be told from agreement
COMPLETE_SHARE = 0.9  # of the pictures of a list

RULES = {
    "attention": f"failed more than half of the attention trials (off by more than {ATTENTION_TOLERANCE:g} of 100)",
    "straight_lining": f"gave one and the same answer to at least {STRAIGHT_SHARE:.0%} of the pictures",
    "speed": f"median response time below {FASTEST_MS:g} ms",
    "incomplete": f"answered fewer than {COMPLETE_SHARE:.0%} of the pictures of the list",
}


def attention_limit(attention: int) -> int:
    """The largest number of failed attention trials that is forgiven: half of them."""
    return attention // 2


def excluded(answers: pd.DataFrame) -> pd.DataFrame:
    """The participants whom a rule leaves out: ``participant``, ``rule``, ``detail``; one row a rule, sorted.

    ``answers`` has one row for each trial and question of a participant's list, answered or not: ``participant``,
    ``kind`` (``image`` or ``attention``), ``question``, ``value`` (NaN where not answered; attention trials on 0 to
    100), ``target`` (NaN on pictures), ``response_ms`` (NaN where unknown), and ``free`` where free text was asked for. A rule that cannot be judged (no times, no
    attention trials) leaves nobody out. Straight-lining asks for each question apart and holds if all agree.
    """
    pictures, attention = answers[answers["kind"] == "image"], answers[answers["kind"] == "attention"]
    numbers = pictures.dropna(subset=["value"])
    seen = pictures[pictures["value"].notna() | pictures["free"].notna()] if "free" in pictures else numbers
    found: list[tuple[object, str, str]] = []

    missed = (attention["value"] - attention["target"]).abs() > ATTENTION_TOLERANCE
    asked = attention.groupby("participant").size().to_dict()
    for person, failed in missed.groupby(attention["participant"]).sum().items():
        if failed > attention_limit(asked[person]):  # an unanswered one is not a failure but incomplete
            found.append((person, "attention", f"{failed} of {asked[person]} failed"))

    each = numbers.groupby(["participant", "question"])
    alike = numbers.groupby(["participant", "question", "value"]).size().groupby(["participant", "question"]).max()
    share = (alike / each.size()).groupby("participant").min()
    enough = each.size().groupby("participant").min() >= STRAIGHT_FROM
    for person, top in share[enough & (share >= STRAIGHT_SHARE)].items():
        found.append((person, "straight_lining", f"{top:.0%} of answers alike"))

    pace = seen.dropna(subset=["response_ms"]).groupby("participant")["response_ms"].median()
    for person, median in pace[pace < FASTEST_MS].items():
        found.append((person, "speed", f"median {median:.0f} ms"))

    given = seen.groupby("participant").size().to_dict()
    for person, shown in pictures.groupby("participant").size().items():
        if given.get(person, 0) < COMPLETE_SHARE * shown:
            found.append((person, "incomplete", f"{given.get(person, 0)} of {shown} answered"))

    order = list(RULES)
    found.sort(key=lambda row: order.index(row[1]))
    table = pd.DataFrame(found, columns=["participant", "rule", "detail"])
    return table.sort_values("participant", kind="stable", ignore_index=True)


def counts(exclusions: pd.DataFrame) -> dict[str, int]:
    """How many participants each rule leaves out, every rule named; one person may fall under several."""
    return {rule: int((exclusions["rule"] == rule).sum()) for rule in RULES}
