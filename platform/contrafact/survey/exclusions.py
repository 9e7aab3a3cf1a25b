"""Who is left out of the registered analysis: rules frozen before the first rating, counted, never a deletion."""

from __future__ import annotations

import numpy as np
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
    100), ``target`` (NaN on pictures), ``response_ms`` (NaN where unknown). A rule that cannot be judged (no times, no
    attention trials) leaves nobody out. Straight-lining asks for each question apart and holds if all agree.
    """
    found: list[tuple[object, str, str]] = []
    for participant, own in answers.groupby("participant", sort=True):
        pictures, attention = own[own["kind"] == "image"], own[own["kind"] == "attention"]
        seen = pictures.dropna(subset=["value"])

        missed = (attention["value"] - attention["target"]).abs()
        failed = int((missed > ATTENTION_TOLERANCE).sum())  # an unanswered one is not a failure but incomplete
        if failed > attention_limit(len(attention)):
            found.append((participant, "attention", f"{failed} of {len(attention)} failed"))

        top = [values.value_counts(normalize=True).iloc[0] for _, values in seen.groupby("question")["value"]]
        enough = all(n >= STRAIGHT_FROM for n in seen.groupby("question").size())
        if top and enough and min(top) >= STRAIGHT_SHARE:
            found.append((participant, "straight_lining", f"{min(top):.0%} of answers alike"))

        pace = float(np.median(times)) if len(times := seen["response_ms"].dropna()) else np.nan
        if pace < FASTEST_MS:
            found.append((participant, "speed", f"median {pace:.0f} ms"))

        if len(seen) < COMPLETE_SHARE * len(pictures):
            found.append((participant, "incomplete", f"{len(seen)} of {len(pictures)} answered"))
    return pd.DataFrame(found, columns=["participant", "rule", "detail"])


def counts(exclusions: pd.DataFrame) -> dict[str, int]:
    """How many participants each rule leaves out, every rule named; one person may fall under several."""
    return {rule: int((exclusions["rule"] == rule).sum()) for rule in RULES}
