"""Generalised and cumulative mixed models by Laplace's method, as in R's lme4 and ordinal.

The criterion is ``-2 log p(y | b, u) + u'u + log |L'Z'WZL + I|`` at the mode of u (Bates et al. 2015 for the
notation; Pinheiro & Chao 2006, section 2, for the approximation), a function of fixed effects, cutpoints and the
entries of L together. The mode is found by Newton steps that pass through the same elimination as a linear model's;
the gradient is analytic, the mode's own movement included. The search is BFGS in coordinates that the working
linear model whitens. Standard errors come from the Hessian in all parameters, a difference of gradients.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy import linalg, optimize

from contrafact.stats.crossproducts import Crossing, Factor
from contrafact.stats.elimination import Elimination
from contrafact.stats.families import Likelihood, Rows
from contrafact.stats.linear import VANISHED, bend, working

MODE = 1e-7
"""The mode is found when one more Newton step would gain less; after that step its error is below rounding."""

DECREMENT = 1e-6
START = 0.5
RUNAWAY = 8.0
FLAT = 1e-6
STEPS = 200


@dataclass(frozen=True)
class LaplaceFit:
    """A fitted model; the names are those of :class:`contrafact.stats.linear.LinearFit`.

    ``beta`` (K + p,) holds the cutpoints first. ``sigma`` is 1: variances are on the scale of the link.
    """

    beta: np.ndarray
    cov: np.ndarray
    lambdas: tuple[np.ndarray, ...]
    vanished: tuple[tuple[int, ...], ...]
    criterion: float
    converged: bool
    gradient: float
    evaluations: int
    effects: tuple[np.ndarray, ...]
    effect_cov: tuple[np.ndarray, ...]
    eta: np.ndarray
    state: _State = field(repr=False)
    sigma: float = 1.0

    def satterthwaite(self, weights: np.ndarray) -> float:
        """Wald's test has no degrees of freedom: infinity."""
        return math.inf

    @cached_property
    def _shares(self) -> tuple[np.ndarray, ...]:
        return self.state.shares()

    def parts(self, weights: np.ndarray) -> tuple[np.ndarray, ...]:
        """For each factor (q,), how much of the variance of a contrast the variance of each column makes.

        That is ``s^2 dV / ds^2``, half the derivative by the logarithm of its SD, from the working linear model.
        """
        return tuple(np.einsum("i,kij,j->k", weights, share, weights) for share in self._shares)


class LaplaceModel:
    """One table and its family.

    Args:
        likelihood: the ratings.
        x: fixed effects (n, p) of full column rank, without an intercept where there are cutpoints.
        factors: at least one; their order is kept in the results.
        offset: (n,).
    """

    def __init__(self, likelihood: Likelihood, x: np.ndarray, factors: Sequence[Factor], offset: np.ndarray) -> None:
        self.likelihood, self.offset = likelihood, offset
        self.cuts, (self.n, self.p) = likelihood.cuts, x.shape
        # Columns are centred (cutpoints take the means up) and made orthonormal, so that no unit matters.
        self._center = x.mean(axis=0) if self.cuts else np.zeros(self.p)
        basis, turn = np.linalg.qr(x - self._center)
        self.x = basis * math.sqrt(self.n)
        self._turn = linalg.solve_triangular(turn, np.eye(self.p)) * math.sqrt(self.n) if self.p else turn
        self.scales = [np.sqrt((factor.z**2).mean(axis=0)) for factor in factors]
        scaled = [
            Factor(f.name, f.labels, f.codes, f.z / scale, f.terms, f.free)
            for f, scale in zip(factors, self.scales, strict=True)
        ]
        self.crossing = Crossing(scaled)
        self._order = [next(i for i, f in enumerate(scaled) if f is factor) for factor in self.crossing.factors]
        self.given = np.argsort(self._order)
        self.mode = [np.zeros((factor.levels, factor.z.shape[1])) for factor in self.crossing.factors]
        self.evaluations = 0

    def lambdas(self, theta: np.ndarray) -> list[np.ndarray]:
        blocks, at = [], 0
        for factor in self.crossing.factors:
            block, k = np.zeros(factor.free.shape), int(factor.free.sum())
            block[factor.free] = theta[at : at + k]
            blocks.append(block)
            at += k
        return blocks

    def cutpoints(self, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ordered cutpoints (K,) from the first and the logarithms of the gaps, and their Jacobian (K, K)."""
        if not self.cuts:
            return free, np.zeros((0, 0))
        steps = np.concatenate([[1.0], np.exp(free[1:])])
        jacobian = np.tril(np.ones((self.cuts, self.cuts))) * steps
        return free[0] + np.concatenate([[0.0], np.cumsum(steps[1:])]), jacobian

    def at(self, psi: np.ndarray) -> _State:
        self.evaluations += 1
        return _State(self, psi)

    def turning(self, state: _State) -> np.ndarray:
        """From cutpoints and fixed effects of the search to those of the table."""
        k, p = self.cuts, self.p
        turn = np.zeros((k + p, k + p))
        turn[:k, :k], turn[k:, k:] = self.cutpoints(state.psi[:k])[1], self._turn
        turn[:k, k:] = self._center @ self._turn  # P(y <= k) = F(cut - (x - center) b)
        return turn

    def _plain(self, psi: np.ndarray) -> Rows:
        """The ratings without random effects."""
        return self.likelihood.rows(self.x @ psi[self.cuts : self.cuts + self.p] + self.offset, self.cutpoints(psi[: self.cuts])[0])

    def start(self) -> np.ndarray:
        """Cutpoints and fixed effects without random ones, by Newton's method; SDs of START."""
        cuts = self.likelihood.start()
        free = np.concatenate([cuts[:1], np.log(np.maximum(np.diff(cuts), 1e-3))])
        psi = np.concatenate([free, np.zeros(self.p)])
        rows = self._plain(psi)
        for _ in range(50):
            jacobian = self.cutpoints(psi[: self.cuts])[1]
            pull = np.concatenate([jacobian.T @ rows.cut, self.x.T @ rows.s])
            across = -jacobian.T @ (rows.s_cut.T @ self.x)
            information = np.block(
                [[jacobian.T @ rows.information @ jacobian, across], [across.T, self.x.T @ (rows.observed[:, None] * self.x)]]
            )
            information[np.diag_indices_from(information)] += 1e-8 * self.n
            step = np.linalg.solve(information, pull)
            if pull @ step < 1e-8:
                break
            step *= min(1.0, 3.0 / float(np.abs(step).max()))
            for _ in range(30):
                tried = self._plain(psi + step)
                if tried.value > rows.value:
                    break
                step = step / 2
            else:
                break
            psi, rows = psi + step, tried
        theta = np.concatenate([(START * np.eye(len(f.free)))[f.free] for f in self.crossing.factors])
        return np.concatenate([psi, theta])

    def runaway(self, psi: np.ndarray) -> bool:
        """Whether the model without random effects ran off: predictions beyond any that data can tell."""
        cuts, _ = self.cutpoints(psi[: self.cuts])
        eta = self.x @ psi[self.cuts : self.cuts + self.p]
        return bool(np.abs(eta).max(initial=0.0) > RUNAWAY or np.abs(cuts).max(initial=0.0) > RUNAWAY)

    def fit(self, psi: np.ndarray | None = None) -> LaplaceFit:
        """Minimise the criterion, from ``psi`` or from the model without random effects."""
        state = self.at(self.start() if psi is None else psi)
        for _ in range(3):
            state, root = self._search(state)
            # Whitened Hessian by central differences of the gradient, one hundredth of a standard error wide.
            k, width = len(state.psi), 0.01
            hessian = np.empty((k, k))
            for i in range(k):
                ahead, behind = (self.at(state.psi + sign * width * root[:, i]) for sign in (1, -1))
                hessian[i] = root.T @ (ahead.gradient - behind.gradient) / (2 * width)
            hessian = (hessian + hessian.T) / 2
            values, vectors = np.linalg.eigh(hessian)
            along = vectors.T @ (root.T @ state.gradient)
            # Without curvature are directions that turn two columns of L into each other; those lose nothing.
            curved = values > FLAT
            decrement = float((along[curved] ** 2 / values[curved]).sum() + np.abs(along[~curved]).sum())
            if values[0] < -1e-3:  # a saddle
                better = self.at(state.psi + 0.3 * root @ vectors[:, 0])
            elif decrement < 1e-8:
                break
            else:
                better = self.at(state.psi - root @ (vectors[:, curved] @ (along[curved] / values[curved])))
            if better.value > state.value:
                break
            state = better
            if values[0] >= -1e-3 and decrement < 1e-4:
                break
        state, dead = self._settle(state)
        inverse = (vectors[:, curved] / values[curved]) @ vectors[:, curved].T
        covariance = 2 * root @ inverse @ root.T
        return self._result(state, covariance, dead, bool(values[0] > -1e-3 and decrement < 1e-3))

    def _search(self, state: _State) -> tuple[_State, np.ndarray]:
        """BFGS from ``state``; gives the end and the whitening ``root``, a root of the inverse of a Hessian."""
        values, vectors = np.linalg.eigh(state.hessian())
        root = vectors / np.sqrt(np.maximum(np.abs(values), 1e-6 * np.abs(values).max()))
        inverse = np.eye(len(state.psi))
        slope = root.T @ state.gradient
        for _ in range(STEPS):
            step = -inverse @ slope
            if -slope @ step < DECREMENT:
                break
            step *= min(1.0, 10.0 / float(np.linalg.norm(step)))
            for _ in range(30):
                tried = self.at(state.psi + root @ step)
                if tried.value <= state.value + 1e-4 * float(slope @ step):
                    break
                step = step / 2
            else:
                break
            turned = root.T @ tried.gradient
            change = turned - slope
            curve = float(step @ change)
            if curve > 1e-8 * float(step @ step):
                left = np.eye(len(step)) - np.outer(step, change) / curve
                inverse = left @ inverse @ left.T + np.outer(step, step) / curve
            state, slope = tried, turned
            self.mode = state.u
        return state, root

    def profile(self, best: _State, place: tuple[int, int], rise: float) -> tuple[float, float]:
        """Ends of the likelihood interval of one SD: where the criterion, all else fitted anew, is ``rise`` above ``best``'s.

        ``place`` is a factor (in the order given) and its column. The lower end is 0 where even a variance of zero lies
        within. The column's row of L is held at a length and turns freely.
        """
        at = int(self.given[place[0]])
        frees = [factor.free for factor in self.crossing.factors]
        start = len(best.psi) - len(best.theta) + sum(int(free.sum()) for free in frees[:at])
        mine = start + np.flatnonzero(np.nonzero(frees[at])[0] == place[1])
        curves, vectors = np.linalg.eigh(best.hessian())
        whole = (vectors / np.maximum(np.abs(curves), 1e-6 * np.abs(curves).max())) @ vectors.T
        whole = (whole + whole.T) / 2
        state = best

        def beyond(length: float) -> float:
            nonlocal state

            def held(psi: np.ndarray) -> tuple[float, np.ndarray]:
                nonlocal state
                own = psi[mine]
                size = max(float(np.linalg.norm(own)), 1e-8)
                moved = psi.copy()
                moved[mine] = own * length / size
                state = self.at(moved)
                self.mode = state.u
                gradient = state.gradient.copy()
                pull = gradient[mine]
                gradient[mine] = (pull - own * (own @ pull) / size**2) * length / size
                return state.value, gradient

            psi = state.psi.copy()
            if not psi[mine].any():
                psi[mine[-1]] = 1.0
            found = optimize.minimize(held, psi, jac=True, method="BFGS", options={"gtol": 1e-3, "hess_inv0": whole})
            return float(found.fun) - best.value - rise

        own = float(np.linalg.norm(best.psi[mine]))
        centre, width = max(own, 0.05), 1.3
        while beyond(centre * width) < 0:
            width *= 1.5
        high = float(optimize.brentq(beyond, own if own > 0.05 else 1e-6, centre * width, xtol=1e-4 * centre))
        scale = float(self.scales[place[0]][place[1]])
        if own <= 0.05 or beyond(1e-6) < 0:
            return 0.0, high / scale
        return float(optimize.brentq(beyond, 1e-6, own, xtol=1e-4 * centre)) / scale, high / scale

    def _settle(self, state: _State) -> tuple[_State, list[tuple[int, ...]]]:
        """Vanished columns of L to exactly zero, signs so that the diagonal is not negative."""
        blocks, dead, signs = self.lambdas(state.theta), [], []
        for block in blocks:
            sign = np.where(np.diag(block) < 0, -1.0, 1.0)
            block *= sign
            gone = [i for i in range(len(block)) if np.abs(block[i:, i]).max() < VANISHED]
            block[:, gone] = 0.0
            dead.append(tuple(i for i in range(len(block)) if block[i, i] < VANISHED))
            signs.append(sign)
        theta = np.concatenate([block[f.free] for block, f in zip(blocks, self.crossing.factors, strict=True)])
        if np.array_equal(theta, state.theta):
            return state, dead
        return self.at(np.concatenate([state.psi[: -len(theta)], theta])), dead

    def _result(
        self, state: _State, covariance: np.ndarray, dead: list[tuple[int, ...]], converged: bool
    ) -> LaplaceFit:
        k, p = self.cuts, self.p
        cuts, _ = self.cutpoints(state.psi[:k])
        beta = self._turn @ state.psi[k : k + p]
        turn = self.turning(state)
        order = self.given
        effects, lambdas, spreads = [], [], []
        for at in order:
            scale = self.scales[self._order[at]]
            lambdas.append(state.blocks[at] / scale[:, None])
            effects.append(state.u[at] @ state.blocks[at].T / scale)
            spreads.append(state.elimination.covariance[at] / np.outer(scale, scale))
        return LaplaceFit(
            beta=np.concatenate([cuts + self._center @ beta, beta]),
            cov=turn @ covariance[: k + p, : k + p] @ turn.T,
            lambdas=tuple(lambdas),
            vanished=tuple(dead[at] for at in order),
            criterion=state.value,
            converged=converged,
            gradient=float(np.abs(state.gradient).max()),
            evaluations=self.evaluations,
            effects=tuple(effects),
            effect_cov=tuple(spreads),
            eta=state.eta,
            state=state,
        )


class _State:
    """The criterion, its gradient and an approximate Hessian at one point ``psi`` = (cuts, fixed, theta).

    ``u`` holds the mode, (levels, q) for each factor of the crossing; ``L u`` are the effects.
    """

    def __init__(self, model: LaplaceModel, psi: np.ndarray) -> None:
        self.model, self.psi = model, psi
        k, p = model.cuts, model.p
        self.theta = psi[k + p :]
        self.blocks = model.lambdas(self.theta)
        self.cuts, self._jacobian = model.cutpoints(psi[:k])
        self._fixed = model.x @ psi[k : k + p] + model.offset
        self.u, random = model.mode, self._rows([u @ b.T for u, b in zip(model.mode, self.blocks, strict=True)])
        self.rows = self._at(random)
        height = _square(self.u) - 2 * self.rows.value
        for _ in range(100):
            s, w = self.rows.s, self.rows.observed
            elimination = Elimination(model.crossing, model.crossing.products(w), self.blocks)
            moved = self._rows(self._effects(elimination, w * random + s))
            target = self._toward(s + w * (random - moved))
            gain = float(s @ (moved - random)) - sum(
                float((old * (new - old)).sum()) for old, new in zip(self.u, target, strict=True)
            )
            share = 1.0
            for _ in range(30):
                u = [(1 - share) * old + share * new for old, new in zip(self.u, target, strict=True)]
                between = (1 - share) * random + share * moved
                rows = self._at(between)
                tried = _square(u) - 2 * rows.value
                if tried <= height + 1e-9 * abs(height):
                    break
                share /= 2
            self.u, random, self.rows, height = u, between, rows, tried
            if gain < MODE:
                break
        self.eta = self._fixed + random
        self.elimination = Elimination(model.crossing, model.crossing.products(self.rows.w), self.blocks)
        self.value = height + self.elimination.logdet

    def _at(self, random: np.ndarray) -> Rows:
        return self.model.likelihood.rows(self._fixed + random, self.cuts)

    def _rows(self, effects: Sequence[np.ndarray]) -> np.ndarray:
        return self.model.crossing.rows(effects)

    def _sums(self, rows: np.ndarray) -> list[np.ndarray]:
        """``Z' rows`` (levels, q) of each factor."""
        a, b = self.model.crossing.against(rows[:, None])
        return [part[:, :, 0] for part in (a, *self.model.crossing.split(b))]

    def _toward(self, rows: np.ndarray) -> list[np.ndarray]:
        """``L' Z' rows``."""
        return [part @ block for part, block in zip(self._sums(rows), self.blocks, strict=True)]

    def _effects(self, elimination: Elimination, rows: np.ndarray) -> list[np.ndarray]:
        """``L M^-1 L' Z' rows``."""
        a, b = elimination.effects(*self.model.crossing.against(rows[:, None]))
        return [part[:, :, 0] for part in (a, *self.model.crossing.split(b))]

    @cached_property
    def _score(self) -> list[np.ndarray]:
        return self._sums(self.rows.s)

    @cached_property
    def _traces(self) -> list[np.ndarray]:
        return self.elimination.traces()

    @cached_property
    def gradient(self) -> np.ndarray:
        """Derivative of the criterion by psi, the mode following."""
        rows, elimination = self.rows, self.elimination
        leverage = self.model.crossing.quadratic(
            elimination.covariance[0], elimination.covariance_ab, elimination.y
        )
        # How the determinant moves with the mode, and (adjoint) how the mode moves with each parameter.
        pull = leverage * rows.dw
        exact = elimination
        if rows.observed is not rows.w:
            exact = Elimination(self.model.crossing, self.model.crossing.products(rows.observed), self.blocks)
        shift = self._rows(self._effects(exact, pull))
        rest = pull - rows.observed * shift
        adjoint = self._toward(rest)
        whole = rest - 2 * rows.s
        cuts = self._jacobian.T @ (rows.w_cut.T @ leverage + rows.s_cut.T @ shift - 2 * rows.cut)
        theta = [
            (side.T @ u + score.T @ v + 2 * trace @ block)[factor.free]
            for side, u, score, v, trace, block, factor in zip(
                self._sums(whole), self.u, self._score, adjoint, self._traces, self.blocks,
                self.model.crossing.factors, strict=True,
            )
        ]  # fmt: skip
        return np.concatenate([cuts, self.model.x.T @ whole, *theta])

    def hessian(self) -> np.ndarray:
        """The Hessian that the working linear model would have: exact enough to whiten the search.

        Fixed effects and cutpoints by Schur complement, the entries of L by average information.
        """
        *_, side, own = working(self.elimination, self._score)
        slopes = [trace - score.T @ score for trace, score in zip(self._traces, self._score, strict=True)]
        random = self.elimination.inner(side, side, own) + bend(self.model.crossing.factors, slopes)
        return linalg.block_diag(self.information(), random)

    def shares(self) -> tuple[np.ndarray, ...]:
        """For each factor, in the order given, (q, K + p, K + p): what the variance of each column adds to the covariance
        of cutpoints and fixed effects in the working linear model, half its derivative by the logarithm of the SD."""
        crossing = self.model.crossing
        a, b = self.elimination.projected(*self._side)
        spread = self.model.turning(self) @ np.linalg.inv(self.information() / 2)
        found = []
        for part, block in zip((a, *crossing.split(b)), self.blocks, strict=True):
            moved = block @ block.T @ part
            among = np.einsum("lix,liw->ixw", part, moved)
            found.append(spread @ (among + among.swapaxes(1, 2)) @ spread.T / 2)
        return tuple(found[k] for k in self.model.given)

    @cached_property
    def _columns(self) -> np.ndarray:
        """Cutpoints and fixed effects as columns of the working linear model, times its weights (n, K + p)."""
        return np.hstack([-self.rows.s_cut @ self._jacobian, self.rows.w[:, None] * self.model.x])

    @cached_property
    def _side(self) -> tuple[np.ndarray, np.ndarray]:
        return self.model.crossing.against(self._columns)

    def information(self) -> np.ndarray:
        """The part of :meth:`hessian` that belongs to cutpoints and fixed effects, (K + p, K + p)."""
        rows, columns, k = self.rows, self._columns, self.model.cuts
        plain = np.block(
            [
                [self._jacobian.T @ rows.information @ self._jacobian, columns[:, :k].T @ self.model.x],
                [self.model.x.T @ columns[:, :k], self.model.x.T @ columns[:, k:]],
            ]
        )
        return 2 * self.elimination.inner(self._side, self._side, plain)


def _square(u: Sequence[np.ndarray]) -> float:
    return sum(float((part**2).sum()) for part in u)
