"""The distribution of one rating given its linear predictor: log-likelihood and what Laplace's method needs of it.

Binary and Poisson follow McCullagh & Nelder (1989); the ordinal family is the cumulative link model
``P(y <= k) = F(cut_k - eta)`` (McCullagh 1980), with the signs of R's ordinal and MASS.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import optimize, special

TINY = 1e-300


@dataclass(frozen=True)
class Rows:
    """Derivatives at each row's linear predictor ``eta`` (n,) and the K cutpoints.

    Attributes:
        value: log-likelihood.
        s: its derivative by eta (n,).
        w, dw: weight (n,) inside Laplace's determinant, positive, and its derivative by eta.
        observed: minus the second derivative by eta (n,).
        cut: derivative of the log-likelihood by the cutpoints (K,).
        s_cut, w_cut: derivatives of ``s`` and ``w`` by them (n, K).
        information: minus the second derivative by them (K, K).
    """

    value: float
    s: np.ndarray
    w: np.ndarray
    dw: np.ndarray
    observed: np.ndarray
    cut: np.ndarray
    s_cut: np.ndarray
    w_cut: np.ndarray
    information: np.ndarray


class Likelihood(Protocol):
    """Ratings of one family; ``cuts`` is the number of cutpoints."""

    @property
    def cuts(self) -> int: ...

    def rows(self, eta: np.ndarray, cuts: np.ndarray) -> Rows: ...

    def signs(self) -> np.ndarray:
        """Rows that would drive a predictor without bound: +1 up, -1 down, 0 neither (n,), for each boundary between
        categories (n, max(K, 1)); NaN where a row is on neither side."""
        ...

    def start(self) -> np.ndarray:
        """Cutpoints (K,) of the ratings without any predictor."""
        ...

    def draw(self, rng: np.random.Generator, eta: np.ndarray, cuts: np.ndarray) -> Likelihood:
        """New ratings from the model."""
        ...


def _uncut(value: float, s: np.ndarray, w: np.ndarray, dw: np.ndarray, observed: np.ndarray) -> Rows:
    none = np.zeros((len(s), 0))
    return Rows(value, s, w, dw, observed, np.zeros(0), none, none, np.zeros((0, 0)))


@dataclass(frozen=True)
class Binary:
    """Shares ``y`` (n,) in [0, 1] of ``mass`` (n,) trials each."""

    y: np.ndarray
    mass: np.ndarray
    link: str
    cuts: int = 0

    def rows(self, eta: np.ndarray, cuts: np.ndarray) -> Rows:
        y, mass = self.y, self.mass
        count = float((special.gammaln(mass + 1) - special.gammaln(mass * y + 1) - special.gammaln(mass * (1 - y) + 1)).sum())
        if self.link == "logit":
            p = special.expit(eta)
            w = mass * p * special.expit(-eta)
            value = float((mass * (y * eta - np.logaddexp(0.0, eta))).sum())
            return _uncut(value + count, mass * (y - p), w, w * (1 - 2 * p), w)
        # Fisher's weights in the determinant, as in lme4; the mode moves with the observed ones.
        up, down = special.log_ndtr(eta), special.log_ndtr(-eta)
        density = -0.5 * eta**2 - 0.5 * math.log(2 * math.pi)
        one, none = np.exp(density - up), np.exp(density - down)
        w = mass * one * none
        observed = mass * (y * one * (eta + one) + (1 - y) * none * (none - eta))
        value = float((mass * (y * up + (1 - y) * down)).sum())
        return _uncut(value + count, mass * (y * one - (1 - y) * none), w, w * (none - one - 2 * eta), observed)

    def signs(self) -> np.ndarray:
        return np.where(self.y == 1, 1.0, np.where(self.y == 0, -1.0, 0.0))[:, None]

    def start(self) -> np.ndarray:
        return np.zeros(0)

    def draw(self, rng: np.random.Generator, eta: np.ndarray, cuts: np.ndarray) -> Binary:
        p = special.expit(eta) if self.link == "logit" else special.ndtr(eta)
        return Binary(rng.binomial(np.rint(self.mass).astype(int), p) / np.rint(self.mass), self.mass, self.link)


@dataclass(frozen=True)
class Poisson:
    """Counts ``y`` (n,) with a logarithmic link; ``mass`` (n,) weighs each row's log-likelihood."""

    y: np.ndarray
    mass: np.ndarray
    cuts: int = 0

    def rows(self, eta: np.ndarray, cuts: np.ndarray) -> Rows:
        with np.errstate(over="ignore"):
            mean = np.exp(eta)
        w = self.mass * mean
        value = float((self.mass * (self.y * eta - mean - special.gammaln(self.y + 1))).sum())
        return _uncut(value, self.mass * (self.y - mean), w, w, w)

    def signs(self) -> np.ndarray:
        return np.where(self.y == 0, -1.0, 0.0)[:, None]

    def start(self) -> np.ndarray:
        return np.zeros(0)

    def draw(self, rng: np.random.Generator, eta: np.ndarray, cuts: np.ndarray) -> Poisson:
        return Poisson(rng.poisson(np.exp(eta)).astype(float), self.mass)


@dataclass(frozen=True)
class Ordinal:
    """Categories ``y`` (n,) from 0 to ``cuts``; ``mass`` (n,) weighs each row's log-likelihood."""

    y: np.ndarray
    mass: np.ndarray
    link: str
    cuts: int

    def _density(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Density of the link and its first two derivatives; zero at infinity."""
        if self.link == "probit":
            finite = np.where(np.isinf(t), 0.0, t)
            f = np.where(np.isinf(t), 0.0, np.exp(-0.5 * finite**2) / math.sqrt(2 * math.pi))
            return f, -finite * f, (finite**2 - 1) * f
        p = special.expit(t)
        f = p * special.expit(-t)
        return f, f * (1 - 2 * p), f * (1 - 6 * f)

    def rows(self, eta: np.ndarray, cuts: np.ndarray) -> Rows:
        ends = np.concatenate([[-np.inf], cuts, [np.inf]])
        high, low = ends[self.y + 1] - eta, ends[self.y] - eta
        # The difference of two tails is taken on the side where both are small.
        flip = low > 0
        top, bottom = np.where(flip, -low, high), np.where(flip, -high, low)
        cdf = special.ndtr if self.link == "probit" else special.expit
        p = np.maximum(cdf(top) - cdf(bottom), TINY)
        (f_h, d_h, c_h), (f_l, d_l, c_l) = self._density(high), self._density(low)
        h, l, dh, dl, ch, cl = f_h / p, f_l / p, d_h / p, d_l / p, c_h / p, c_l / p
        s, bend = l - h, dh - dl
        w = s**2 - bend
        dw = -2 * s * w + (ch - cl) + s * bend
        s_h, s_l = -dh - h * s, dl + l * s
        w_h, w_l = 2 * s * s_h - ch + h * bend, 2 * s * s_l + cl - l * bend
        above = np.eye(self.cuts + 1)[:, : self.cuts][self.y]  # the cutpoint over the category, none for the last
        below = np.eye(self.cuts + 1)[:, 1:][self.y] if self.cuts else above
        mass, weight = self.mass, self.mass * w
        pull = (above * (mass * h)[:, None] - below * (mass * l)[:, None]).sum(axis=0)
        cross = above.T @ (below * (mass * h * l)[:, None])
        information = (
            np.diag((above * (mass * (h**2 - dh))[:, None]).sum(axis=0))
            + np.diag((below * (mass * (l**2 + dl))[:, None]).sum(axis=0))
            - cross
            - cross.T
        )
        return Rows(
            float((mass * np.log(p)).sum()),
            mass * s,
            weight,
            mass * dw,
            weight,
            pull,
            above * (mass * s_h)[:, None] + below * (mass * s_l)[:, None],
            above * (mass * w_h)[:, None] + below * (mass * w_l)[:, None],
            information,
        )

    def signs(self) -> np.ndarray:
        boundary = np.arange(self.cuts)
        above, below = boundary == self.y[:, None] - 1, boundary == self.y[:, None]
        return np.where(above, 1.0, np.where(below, -1.0, np.nan))

    def start(self) -> np.ndarray:
        share = np.cumsum(np.bincount(self.y, self.mass, self.cuts + 1)) / self.mass.sum()
        return special.ndtri(share[:-1]) if self.link == "probit" else special.logit(share[:-1])

    def draw(self, rng: np.random.Generator, eta: np.ndarray, cuts: np.ndarray) -> Ordinal:
        noise = rng.normal(size=len(eta)) if self.link == "probit" else rng.logistic(size=len(eta))
        return Ordinal(np.searchsorted(cuts, eta + noise), self.mass, self.link, self.cuts)


def separating(likelihood: Likelihood, x: np.ndarray) -> np.ndarray:
    """Fixed effects that predict a part of the ratings without error (Albert & Anderson 1984): marks (p,).

    A linear programme looks for a direction of cutpoints and coefficients along which no row's likelihood falls and
    some rows' rises for ever (Konis 2007); where there is none, nothing is marked.
    """
    signs = likelihood.signs()
    row, boundary = np.nonzero(~np.isnan(signs))
    sign = signs[row, boundary]
    columns = x[row] / np.maximum(np.abs(x).max(axis=0), TINY)
    if likelihood.cuts:
        columns = np.hstack([columns, -np.eye(likelihood.cuts)[boundary]])
    pattern = np.unique(np.column_stack([columns, sign]), axis=0)
    columns, sign = pattern[:, :-1], pattern[:, -1]
    up, still = columns[sign != 0] * sign[sign != 0, None], columns[sign == 0]
    # Only the sum of the gains matters, and each gain is held in [0, 1].
    found = optimize.linprog(
        -up.sum(axis=0),
        A_ub=np.vstack([-up, up]),
        b_ub=np.concatenate([np.zeros(len(up)), np.ones(len(up))]),
        A_eq=still if len(still) else None,
        b_eq=np.zeros(len(still)) if len(still) else None,
        bounds=(None, None),
    )
    if found.x is None or -found.fun < 1e-6:
        return np.zeros(x.shape[1], dtype=bool)
    return np.abs(found.x[: x.shape[1]]) > 1e-6
