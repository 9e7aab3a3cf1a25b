"""Which of two? Abilities of items from paired comparisons with ties, order effect and covariates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PairsFit:
    """``coefficients`` has a row for each term: ``term, estimate, se, z, p, low, high`` (95%, Wald).

    Abilities are log-odds against the first item in sorted order (or slopes of covariates), ``order`` the log-odds of
    being shown first, ``tie`` the log of Davidson's nu.
    """

    coefficients: pd.DataFrame
    loglik: float
    n: int


def bradley_terry(
    table: pd.DataFrame, *, order: bool = True, covariates: pd.DataFrame | None = None
) -> PairsFit:
    """Maximum likelihood for rows ``first``, ``second`` (items) and ``outcome`` (1 first, 0 second, 0.5 tie), and
    optionally ``n`` (how often).

    Bradley & Terry (1952), ties after Davidson (1970), order after Davidson & Beaver (1977): utilities are ``a_i + order``,
    ``a_j`` and, for a tie, ``log nu + (a_i + a_j) / 2``. ``covariates``, indexed by item, makes abilities linear in its
    columns. Standard errors take comparisons as independent: with several by one person they are too small, and the
    binomial mixed model is the one to test with.

    Raises:
        ValueError: fewer than two items, outcomes that are none, items that no chain of wins and losses joins, or no way
            to tell order from abilities.
    """
    rows = table.dropna(subset=["first", "second", "outcome"])
    outcome = rows["outcome"].to_numpy(float)
    weight = rows["n"].to_numpy(float) if "n" in rows else np.ones(len(rows))
    if not np.isin(outcome, (0.0, 0.5, 1.0)).all():
        raise ValueError("an outcome is 1 (the first), 0 (the second) or 0.5 (a tie)")
    codes, items = pd.factorize(np.concatenate([rows["first"], rows["second"]]), sort=True)
    first, second = codes[: len(rows)], codes[len(rows) :]
    if len(items) < 2 or (first == second).any():
        raise ValueError("a comparison needs two different items")
    if covariates is None:
        _refuse_apart(first, second, outcome, list(items))
        ability, names = np.eye(len(items))[:, 1:], [str(item) for item in items[1:]]
    else:
        missing = [item for item in items if item not in covariates.index]
        if missing:
            raise ValueError(f"item '{missing[0]}' has no covariates")
        ability, names = covariates.loc[items].to_numpy(float), [str(name) for name in covariates.columns]

    # Utilities of (first, second, tie) are linear in all parameters, so the likelihood is that of a multinomial logit.
    n, k = len(rows), ability.shape[1]
    ties = bool((outcome == 0.5).any())
    design = np.zeros((n, 3 if ties else 2, k + order + ties))
    design[:, 0, :k], design[:, 1, :k] = ability[first], ability[second]
    if order:
        design[:, 0, k] = 1.0
        names.append("order")
    if ties:
        design[:, 2, :k] = (ability[first] + ability[second]) / 2
        design[:, 2, -1] = 1.0
        names.append("tie")
    chosen = np.select([outcome == 1.0, outcome == 0.0], [0, 1], 2)
    beta, cov, loglik = _newton(design, chosen, weight)
    se = np.sqrt(np.diag(cov))
    z = beta / se
    half = float(stats.norm.ppf(0.975)) * se
    found = pd.DataFrame({
        "term": names, "estimate": beta, "se": se, "z": z, "p": 2 * stats.norm.sf(np.abs(z)),
        "low": beta - half, "high": beta + half,
    })  # fmt: skip
    return PairsFit(found, loglik, int(weight.sum()))


def _newton(design: Floats, chosen: NDArray[np.int64], weight: Floats) -> tuple[Floats, Floats, float]:
    rows = np.arange(len(design))
    beta, last = np.zeros(design.shape[2]), -math.inf
    for _ in range(100):
        utility = design @ beta
        utility -= utility.max(axis=1, keepdims=True)
        p = np.exp(utility)
        p /= p.sum(axis=1, keepdims=True)
        loglik = float(weight @ np.log(p[rows, chosen]))
        centred = design - np.einsum("nc,nck->nk", p, design)[:, None]
        score = np.einsum("n,nk->k", weight, centred[rows, chosen])
        information = np.einsum("n,nc,nck,ncl->kl", weight, p, centred, centred, optimize=True)
        if np.linalg.matrix_rank(information, hermitian=True) < len(beta) or np.abs(beta).max() > 20:
            raise ValueError("the comparisons do not tell the terms apart; show items in both orders, or drop a term")
        if abs(loglik - last) < 1e-10 * (1 + abs(loglik)):
            break
        step = np.linalg.solve(information, score)
        beta, last = beta + step / max(1.0, float(np.abs(step).max())), loglik
    return beta, np.linalg.inv(information), loglik


def _refuse_apart(
    first: NDArray[np.int64], second: NDArray[np.int64], outcome: Floats, items: Sequence[object]
) -> None:
    """Ford's condition (1957): from every item a chain of wins leads to every other."""
    won = np.where(outcome == 0, second, first)
    lost = np.where(outcome == 0, first, second)
    tied = outcome == 0.5
    arcs = np.concatenate([won, lost[tied]]), np.concatenate([lost, won[tied]])
    graph = coo_array((np.ones(len(arcs[0])), arcs), shape=(len(items), len(items)))
    count, group = connected_components(graph, connection="strong")
    if count > 1:
        odd = items[int(np.flatnonzero(group == np.bincount(group).argmin())[0])]
        raise ValueError(f"item '{odd}' never lost, never won, or never met the others, so its ability has no end: compare it more")
