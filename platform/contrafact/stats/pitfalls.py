"""What a careful reader would object to, where the data themselves show it: one sentence each, with the remedy.

What is wrong with a design cannot all be seen in its ratings; what is not seen here is not thereby right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from scipy import stats

from contrafact.stats.dose import ARMS, CROWDED
from contrafact.stats.mixed import MIN_LEVELS

SURE = 0.01
"""Below this p a difference between arms or lists is told."""
LEFT = 10
"""Below so many people who left, arms are not compared."""
LIKERT = 7
"""Up to so many steps a scale is ordinal rather than continuous."""


def pitfalls(table: pd.DataFrame, bounds: Mapping[str, tuple[float, float]] | None = None) -> tuple[str, ...]:
    """Sentences on one study's ratings; none where nothing is seen.

    ``table`` as for ``stats.dose.analyse``, and, where known, ``simulated``, ``position`` (in the list), ``list_number``.
    ``bounds`` are the ends of each question's scale.
    """
    if table.empty:
        return ()
    kept = table[~table["excluded"].astype(bool)] if "excluded" in table else table
    rows = kept[kept["value"].notna()]
    found = [*_samples(rows), *_scales(rows, bounds or {}), *_arms(rows), *_lost(table), *_order(rows)]
    if "simulated" in table and table["simulated"].nunique() > 1:
        found.append("Answers of people and of simulated people are in one table: analyse them apart.")
    return tuple(dict.fromkeys(found))


def _samples(rows: pd.DataFrame) -> Iterator[str]:
    n, people, images = len(rows), rows["participant"].nunique(), rows["image"].nunique()
    if images < MIN_LEVELS:
        yield f"{images} images stand for all others: nothing holds for new ones; plan at least {MIN_LEVELS}, better 30."
    if people < MIN_LEVELS:
        yield f"{people} participants stand for all others: ask at least {MIN_LEVELS}, better 30."
    for (arm, direction), own in rows[rows["arm"].isin(ARMS)].groupby(["arm", "direction"]):
        if own["image"].nunique() == 1 < images:
            yield f"The arm '{arm}' of '{direction}' has a single image, so arm and image cannot be told apart: use more."
    if n and n >= 3 * people:
        yield (
            f"{n:,} ratings come from {people} participants and {images} images: the sample sizes are {people} and {images}, "
            "and a test that takes ratings as independent is wrong; use the crossed model."
        )


def _scales(rows: pd.DataFrame, bounds: Mapping[str, tuple[float, float]]) -> Iterator[str]:
    for question, own in rows.groupby("question"):
        steps = own["value"].nunique()
        if 1 < steps <= LIKERT and (own["value"] % 1 == 0).all():
            yield (
                f"The answers to '{question}' have {steps} steps: their means can mislead (Liddell & Kruschke 2018); look at "
                "the ordinal model beside."
            )
        for end, name in zip(bounds.get(str(question), ()), ("floor", "ceiling"), strict=False):
            share = float((own["value"] == end).mean())
            if share > CROWDED:
                yield f"{share:.0%} of the answers to '{question}' are at the {name}: the slope is too flat there; ask with a wider scale."


def _arms(rows: pd.DataFrame) -> Iterator[str]:
    arms = set(rows["arm"])
    if "treated" in arms and "null" not in arms:
        against = "the untouched photograph" if "raw" in arms else "nothing"
        yield f"Treated pictures are compared with {against} and not with dose 0, which went through the same code: show dose 0."
    if "treated" in arms and "sham" not in arms:
        yield "There is no sham arm, so what editing itself does is in the slope: add sham edits of the same size."
    if {"treated", "sham"} <= arms:
        images = {arm: set(rows.loc[rows["arm"] == arm, "image"]) for arm in ("treated", "sham")}
        if odd := len(images["treated"] ^ images["sham"]):
            yield f"{odd} images were rated in only one of treated and sham: compare the same images in both."


def _lost(table: pd.DataFrame) -> Iterator[str]:
    """Exclusions and missing answers that fall on one arm more than on another."""
    for what, lost in (
        ("excluded ratings", table["excluded"].astype(bool) if "excluded" in table else None),
        ("missing answers", table["value"].isna()),
    ):
        if lost is None or not lost.any() or lost.all() or table["arm"].nunique() < 2:
            continue
        # By participant, since one person is lost with all his trials.
        shares = lost.groupby([table["participant"], table["arm"]]).mean().unstack().dropna()
        if len(shares) < MIN_LEVELS or shares.nunique(axis=1).max() < 2:
            continue
        p = float(stats.friedmanchisquare(*shares.to_numpy().T).pvalue) if shares.shape[1] > 2 else float(
            stats.wilcoxon(shares.iloc[:, 0], shares.iloc[:, 1]).pvalue
        )
        if p < SURE:
            worst = shares.mean().idxmax()
            yield f"There are more {what} in the arm '{worst}' than in others (p = {p:.2g}): the arms no longer compare like with like; find out why."


def leaving(trials: pd.DataFrame) -> tuple[pd.DataFrame, str | None]:
    """At which arm's pictures people leave for good: by ``arm``, how many pictures were ``reached`` and at how many
    somebody ``left``; and the sentence where arms differ, else None.

    ``trials`` has all trials of the lists that were begun: ``list``, ``position``, ``arm`` (missing on trials without a
    picture), ``answered``. A list is left at the first trial after the last answer. Everybody leaves once at most, so
    the pictures reached are independent trials of a discrete hazard (Cox 1972), and arms are compared by chi-squared
    on the counts; nothing is said of fewer than ``LEFT`` people.
    """
    answered = trials["position"].where(trials["answered"]).groupby(trials["list"]).transform("max").fillna(-1)
    at = trials["position"].where(trials["position"] > answered).groupby(trials["list"]).transform("min")
    seen = trials[(trials["position"] <= at.fillna(np.inf)) & trials["arm"].notna()]
    left = (seen["position"] == at[seen.index]).groupby(seen["arm"]).sum().rename("left").astype(int)
    table = pd.concat([seen.groupby("arm").size().rename("reached"), left], axis=1).reset_index()
    if len(table) < 2 or table["left"].sum() < LEFT:
        return table, None
    p = float(stats.chi2_contingency([table["left"], table["reached"] - table["left"]], correction=False).pvalue)
    if p >= SURE:
        return table, None
    worst = table.iloc[int((table["left"] / table["reached"]).to_numpy().argmax())]
    return table, (
        f"People left more often at pictures of the arm '{worst['arm']}' ({worst['left']} of {worst['reached']:,} reached) "
        f"than at others (p = {p:.2g}): who stayed is no longer who began; report it, and do not take the effect as that "
        "in everybody."
    )


def _order(rows: pd.DataFrame) -> Iterator[str]:
    if "position" not in rows or rows["position"].nunique() < 3:
        return
    for question, own in rows.groupby("question"):
        slopes = [
            stats.linregress(one["position"], one["value"]).slope
            for _, one in own.groupby("participant")
            if one["position"].nunique() > 2
        ]
        if len(slopes) < MIN_LEVELS or np.ptp(slopes) == 0:
            continue
        test = stats.ttest_1samp(slopes, 0.0)
        if test.pvalue < SURE:
            way = "rise" if test.statistic > 0 else "fall"
            yield f"Answers to '{question}' {way} along the list (p = {test.pvalue:.2g}): lists are balanced against it, and the position in the model would make the test sharper."
    if "list_number" in rows:
        dose = rows["dose"].where(rows["arm"] == "treated", 0.0)
        halves = rows["position"] > rows.groupby("participant")["position"].transform("median")
        early, late = (dose[half].groupby(rows.loc[half, "participant"]).mean() for half in (~halves, halves))
        gap = (late - early).dropna()
        apart = np.ptp(gap) == 0 or stats.ttest_1samp(gap, 0.0).pvalue < SURE if len(gap) >= MIN_LEVELS else False
        if apart and gap.mean() != 0:
            yield "Treated doses do not stand evenly early and late in the lists: order and dose are mixed; draw the lists again."
