"""How far a model's answers are those of people: numbers beside each other, never a pooled table."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from scipy import stats

FEWEST = 8  # pictures below which nothing is said about agreement
MIDDLE = {"vas": 50.0, "likert7": 4.0}


@dataclass(frozen=True)
class Validity:
    """One question's report. Numbers that cannot be had are NaN.

    ``label`` is "calibrated" where people rated enough of the same pictures, else "uncalibrated".
    ``pearson``, ``spearman``: of means by picture. ``ks``: largest distance of the distributions of answers, 0 to 1.
    ``sign_agreement``: share of pairs of treated versions of one image, null edit included, that both sides order alike
    (ties of either side left out). ``variance_ratio``: variance of the model's means over that of people's, less the sampling
    variance of both. ``order_flips``: share of pictures that fall on the other side of the scale's middle when its ends
    are exchanged. ``null_effect``: mean of null edit less original, with a 95% interval, in points. ``unread``: share of
    answers without a number.
    """

    question: str
    label: str
    pictures: int
    pearson: float
    spearman: float
    ks: float
    sign_agreement: float
    variance_ratio: float
    order_flips: float
    null_effect: float
    null_low: float
    null_high: float
    unread: float

    def facts(self) -> dict[str, object]:
        """Plain JSON; what is not estimable is null."""
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(self).items()}


def validity(model: pd.DataFrame, people: pd.DataFrame, stimuli: pd.DataFrame, question: str, scale: str) -> Validity:
    """The report on one question.

    ``model``: ``stimulus``, ``question``, ``order``, ``value``. ``people``: ``stimulus``, ``question``, ``value``; may
    be empty. ``stimuli``: ``stimulus``, ``set_key``, ``arm`` (``original`` for pictures before any edit), ``dose``.
    """
    own = model[model["question"] == question]
    read = own.dropna(subset=["value"])
    means = read.groupby("stimulus")["value"].mean()
    theirs = people[people["question"] == question].dropna(subset=["value"])
    their_means = theirs.groupby("stimulus")["value"].mean()
    both = means.index.intersection(their_means.index)
    enough = len(both) >= FEWEST
    nan = math.nan
    pearson = spearman = ks = ratio = agreement = nan
    if enough:
        a, b = means[both].to_numpy(), their_means[both].to_numpy()
        if a.std() > 0 and b.std() > 0:
            pearson, spearman = float(stats.pearsonr(a, b).statistic), float(stats.spearmanr(a, b).statistic)
        shared = read[read["stimulus"].isin(both)]["value"], theirs[theirs["stimulus"].isin(both)]["value"]
        ks = float(stats.ks_2samp(*shared).statistic)
        one, other = _true_variance(read, both), _true_variance(theirs, both)
        ratio = one / other if other > 0 else nan
        agreement = _sign_agreement(means[both], their_means[both], stimuli)
    effect, low, high = _null_effect(means, stimuli)
    return Validity(
        question=question,
        label="calibrated" if enough else "uncalibrated",
        pictures=len(both) if enough else int(means.size),
        pearson=pearson,
        spearman=spearman,
        ks=ks,
        sign_agreement=agreement,
        variance_ratio=ratio,
        order_flips=_order_flips(read, MIDDLE[scale]),
        null_effect=effect,
        null_low=low,
        null_high=high,
        unread=float(own["value"].isna().mean()) if len(own) else nan,
    )


def _true_variance(answers: pd.DataFrame, stimuli: pd.Index) -> float:
    """Variance of means by picture, less what their own noise adds to it."""
    groups = answers[answers["stimulus"].isin(stimuli)].groupby("stimulus")["value"]
    noise = (groups.var(ddof=1) / groups.size()).dropna()
    return float(groups.mean().var(ddof=1) - (noise.mean() if len(noise) else 0.0))


def _sign_agreement(model: pd.Series, people: pd.Series, stimuli: pd.DataFrame) -> float:
    """Over pairs of versions of one image along the treated direction, dose 0 included."""
    table = stimuli.assign(stimulus=stimuli["stimulus"].astype(str)).set_index("stimulus").reindex(model.index)
    table = table[table["arm"].isin(["treated", "null"])]
    alike = compared = 0
    for members in table.groupby("set_key").groups.values():
        doses = table.loc[members, "dose"].to_numpy(float)
        first, second = np.triu_indices(len(members), 1)
        different = doses[first] != doses[second]
        signs = [np.sign(np.subtract(*side[members].to_numpy()[[first, second]]))[different] for side in (model, people)]
        told = (signs[0] != 0) & (signs[1] != 0)
        alike += int((signs[0] == signs[1])[told].sum())
        compared += int(told.sum())
    return alike / compared if compared else math.nan


def _order_flips(read: pd.DataFrame, middle: float) -> float:
    sides = read.groupby(["stimulus", "order"])["value"].mean().unstack("order").dropna()
    if sides.shape[1] < 2 or sides.empty:
        return math.nan
    signs = np.sign(sides.to_numpy() - middle)
    return float((signs[:, 0] * signs[:, 1] < 0).mean())


def _null_effect(means: pd.Series, stimuli: pd.DataFrame) -> tuple[float, float, float]:
    """Mean over images of the null edit less the original, and its 95% t interval."""
    table = stimuli.assign(stimulus=stimuli["stimulus"].astype(str)).set_index("stimulus")
    table = table.assign(value=means).dropna(subset=["value"])
    wide = table[table["arm"].isin(["null", "original"])].pivot_table(index="set_key", columns="arm", values="value")
    if not {"null", "original"} <= set(wide.columns):
        return math.nan, math.nan, math.nan
    difference = (wide["null"] - wide["original"]).dropna().to_numpy()
    if len(difference) < 2:
        return math.nan, math.nan, math.nan
    half = stats.t.ppf(0.975, len(difference) - 1) * difference.std(ddof=1) / math.sqrt(len(difference))
    return float(difference.mean()), float(difference.mean() - half), float(difference.mean() + half)
