"""Linear mixed models: the profiled criterion of lme4, minimised by average information.

The model is ``y = X b + Z u + e`` with ``u ~ N(0, s^2 L L')``, ``e ~ N(0, s^2 W^-1)`` (Laird & Ware 1982). The
criterion is that of Bates, Maechler, Bolker & Walker (2015, eq. 34 and 41), with fixed effects and residual variance
profiled out. Its gradient is analytic; steps use the average of observed and expected information (Gilmour,
Thompson & Cullis 1995) over the entries of L, with the curvature that comes from ``L L'`` added, so that a variance
that vanishes is reached like any other optimum.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import linalg, optimize

from contrafact.errors import UserError
from contrafact.stats.crossproducts import Crossing, Factor
from contrafact.stats.elimination import Elimination

VANISHED = 1e-4
"""A random SD below this share of the residual's (columns scaled to mean square 1) counts as zero, as in lme4."""

DECREMENT = 1e-10
"""The search ends where the next step promises to lower the criterion by less than this."""

STEPS = 200


@dataclass(frozen=True)
class LinearFit:
    """A fitted linear mixed model.

    Attributes:
        beta, cov: fixed effects (p,) and their covariance (p, p).
        sigma: residual SD.
        lambdas: for each factor, in the order given, the relative lower triangular factor (q, q) of the covariance.
        vanished: for each factor the number of every random column whose own variance, given the earlier ones,
            is zero.
        criterion: REML criterion or deviance, as lme4 prints it; ``loglik`` is minus half of it.
        gradient: largest absolute derivative of the criterion by an entry of L (columns scaled).
        information: half the Hessian of the criterion in the entries of L and log sigma^2 (k + 1, k + 1).
        sensitivity: derivative of ``cov`` by each of these (k + 1, p, p).
        effects: for each factor the predicted random effects (levels, q).
        effect_cov: for each factor the covariance (levels, q, q) of these given the data, fixed effects held
            (lme4's conditional variance).
    """

    beta: np.ndarray
    cov: np.ndarray
    sigma: float
    lambdas: tuple[np.ndarray, ...]
    vanished: tuple[tuple[int, ...], ...]
    criterion: float
    converged: bool
    gradient: float
    evaluations: int
    information: np.ndarray
    sensitivity: np.ndarray
    effects: tuple[np.ndarray, ...]
    effect_cov: tuple[np.ndarray, ...]

    def satterthwaite(self, weights: np.ndarray) -> float:
        """Degrees of freedom of a contrast (p,): ``2 v^2 / (g' H^-1 g)`` (Kuznetsova et al. 2017, eq. 4).

        Directions in which the criterion does not curve (a variance at zero) say nothing and are left out. NaN where
        nothing is left.
        """
        variance = float(weights @ self.cov @ weights)
        slope = np.einsum("i,kij,j->k", weights, self.sensitivity, weights)
        values, vectors = np.linalg.eigh(self.information)
        alive = values > 1e-8 * values.max()
        spread = float((((slope @ vectors)[alive]) ** 2 / values[alive]).sum())
        return 2 * variance**2 / spread if spread > 0 else math.nan


class LinearModel:
    """The cross-products of one table: everything that a criterion or another response needs of its rows.

    Args:
        y: response (n,), offset taken off.
        x: fixed effects (n, p), of full column rank.
        factors: at least one; their order is kept in the results.
        weights: positive prior weights (n,), the residual variance of a row being sigma^2 / weight.
    """

    def __init__(
        self, y: np.ndarray, x: np.ndarray, factors: Sequence[Factor], weights: np.ndarray | None = None
    ) -> None:
        self.n, self.p = x.shape
        root = np.ones(self.n) if weights is None else np.sqrt(weights)
        self._log_weights = 0.0 if weights is None else float(np.log(weights).sum())
        # Columns are turned and scaled once, and y freed of X: cross-products then lose no digits to far-off means.
        basis, self._turn = np.linalg.qr(x * root[:, None])
        self._basis = basis
        self._start_beta = basis.T @ (y * root)
        rest = y * root - basis @ self._start_beta
        rest -= basis @ (basis.T @ rest)
        self._unit = float(np.sqrt((rest**2).mean()))
        if not self._unit > 1e-10 * float(np.abs(y).max(initial=0.0)):
            raise UserError("The fixed effects explain every value exactly, so no variance is left to divide.")
        scaled = []
        self.scales = []
        for factor in factors:
            scale = np.sqrt((factor.z**2).mean(axis=0))
            self.scales.append(scale)
            scaled.append(
                Factor(factor.name, factor.labels, factor.codes, factor.z / scale * root[:, None], factor.terms, factor.free)
            )
        self.crossing = Crossing(scaled)
        self._order = [next(i for i, each in enumerate(scaled) if each is factor) for factor in self.crossing.factors]
        self.products = self.crossing.products()
        self._root = root
        self.respond(rest / self._unit)

    def respond(self, y: np.ndarray) -> None:
        """Another response (n,), in the units of the fit: already weighted, scaled, and free of X."""
        columns = np.hstack([self._basis, y[:, None]])
        self._plain = columns.T @ columns
        self._sides = self.crossing.against(columns)

    def lambdas(self, theta: np.ndarray) -> list[np.ndarray]:
        """Blocks of L from the free entries, in the order of the crossing's factors."""
        blocks, at = [], 0
        for factor in self.crossing.factors:
            block, k = np.zeros(factor.free.shape), int(factor.free.sum())
            block[factor.free] = theta[at : at + k]
            blocks.append(block)
            at += k
        return blocks

    def start(self) -> np.ndarray:
        """Variances by the method of moments, one column at a time; correlations zero."""
        total = float(self._plain[-1, -1]) / self.n
        diagonals = [self.products.aa, *self.crossing.blocks(self.products.bb)]
        parts = [self._sides[0], *self.crossing.split(self._sides[1])]
        found = []
        for gram, side in zip(diagonals, parts, strict=True):
            size = np.diagonal(gram, axis1=1, axis2=2)
            excess = (side[:, :, -1] ** 2).sum(axis=0) - total * size.sum(axis=0)
            found.append(np.maximum(excess / np.maximum((size**2).sum(axis=0), 1e-300), 1e-2 * total))
        left = max(total - sum(float(each.sum()) for each in found), 0.2 * total)
        theta = []
        for factor, variance in zip(self.crossing.factors, found, strict=True):
            theta.append(np.diag(np.sqrt(np.minimum(variance / left, 10.0)))[factor.free])
        return np.concatenate(theta)

    def fit(self, *, reml: bool = True, theta: np.ndarray | None = None) -> LinearFit:
        """Minimise the criterion, from ``theta`` or from moments."""
        evaluations = 0

        def at(theta: np.ndarray) -> _State:
            nonlocal evaluations
            evaluations += 1
            return _State(self, theta, reml)

        state, decrement = _minimise(at, self.start() if theta is None else theta)
        state, dead = self._settle(at, state)
        return self._result(at, state, dead, decrement, lambda: evaluations, reml)

    def profile(self, place: tuple[int, int] | None, rise: float) -> tuple[float, float]:
        """Ends of the likelihood interval of one SD: where the deviance, all else fitted anew, is ``rise`` above its least.

        ``place`` is a factor (in the order given) and its column, None the residual. The lower end is 0 where even a
        variance of zero lies within. Maximum likelihood; fixed effects are profiled out, and the residual SD is what
        the column's SD and its row of L leave (Bates et al. 2015, section 5.1, for the definition).
        """
        best, _ = _minimise(lambda theta: _State(self, theta, False), self.start())
        sigma, unit = math.sqrt(best.scale), self._unit
        mine = np.zeros(len(best.theta), dtype=bool)
        if place is not None:
            k = int(np.argsort(self._order)[place[0]])
            frees = [factor.free for factor in self.crossing.factors]
            start = sum(int(free.sum()) for free in frees[:k])
            mine[start + np.flatnonzero(np.nonzero(frees[k])[0] == place[1])] = True
            unit /= float(self.scales[place[0]][place[1]])
        size = 1.0 if place is None else float(np.linalg.norm(best.theta[mine]))

        def beyond(target: float) -> float:
            def deviance(theta: np.ndarray) -> float:
                state = _State(self, theta, False)
                own = 1.0 if place is None else max(float(np.linalg.norm(theta[mine])), 1e-8)
                ratio = state.scale * (own / target) ** 2
                return float(state.value + self.n * (ratio - 1 - math.log(ratio)))

            theta = best.theta.copy()
            if place is not None:
                theta[mine] = theta[mine] * target / (sigma * size) if size > 1e-6 else target / sigma / mine.sum()
            return float(optimize.minimize(deviance, theta, method="BFGS", options={"gtol": 1e-4}).fun) - best.value - rise

        def without(rest: np.ndarray) -> float:
            theta = np.zeros(len(mine))
            theta[~mine] = rest
            return _State(self, theta, False).value

        centre = max(sigma * size, 1e-2 * sigma)
        width = 1.3
        while beyond(centre * width) < 0:
            width *= 1.5
        high = float(optimize.brentq(beyond, centre, centre * width, xtol=1e-4 * centre))
        if place is not None:
            rest = best.theta[~mine]
            least = float(optimize.minimize(without, rest, method="BFGS").fun) if len(rest) else without(rest)
            if least - best.value < rise:
                return 0.0, high * unit
        low = 0.7 * centre
        while beyond(low) < 0:
            low *= 0.6
        return float(optimize.brentq(beyond, low, centre, xtol=1e-4 * centre)) * unit, high * unit

    def _settle(self, at: Callable[[np.ndarray], _State], state: _State) -> tuple[_State, list[tuple[int, ...]]]:
        """Set vanished columns of L to exactly zero and turn the signs so that the diagonal is not negative."""
        blocks, dead = self.lambdas(state.theta), []
        for block in blocks:
            block *= np.where(np.diag(block) < 0, -1.0, 1.0)
            gone = tuple(i for i in range(len(block)) if np.abs(block[i:, i]).max() < VANISHED)
            block[:, gone] = 0.0
            flat = tuple(i for i in range(len(block)) if block[i, i] < VANISHED)
            dead.append(flat)
        theta = np.concatenate([block[f.free] for block, f in zip(blocks, self.crossing.factors, strict=True)])
        return (state if np.array_equal(theta, state.theta) else at(theta)), dead

    def _result(
        self,
        at: Callable[[np.ndarray], _State],
        state: _State,
        dead: list[tuple[int, ...]],
        decrement: float,
        evaluations: Callable[[], int],
        reml: bool,
    ) -> LinearFit:
        turn = linalg.solve_triangular(self._turn, np.eye(self.p))
        beta = turn @ (self._start_beta + state.beta * self._unit)
        cov_units = state.scale * state.xx_inverse
        hessian, sensitivity = state.curvature(at)
        back = turn * self._unit
        order = np.argsort(self._order)
        lambdas, effects, spreads = [], [], []
        for k in order:
            scale = self.scales[self._order[k]]
            lambdas.append(self.lambdas(state.theta)[k] / scale[:, None])
            effects.append(state.effects[k] / scale * self._unit)
            spreads.append(
                state.elimination.covariance[k] * state.scale * self._unit**2 / np.outer(scale, scale)
            )
        jacobian = state.log_jacobian(self._turn if reml else None)
        gradient = float(np.abs(state.gradient).max(initial=0.0))
        return LinearFit(
            beta=beta,
            cov=back @ cov_units @ back.T,
            sigma=math.sqrt(state.scale) * self._unit,
            lambdas=tuple(lambdas),
            vanished=tuple(dead[k] for k in order),
            criterion=state.value + 2 * state.freedom * math.log(self._unit) + jacobian - self._log_weights,
            converged=bool(decrement < 1e-6 and gradient < 0.05),
            gradient=gradient,
            evaluations=evaluations(),
            information=hessian / 2,
            sensitivity=back @ sensitivity @ back.T,
            effects=tuple(effects),
            effect_cov=tuple(spreads),
        )


class _State:
    """The criterion and its derivatives at one point."""

    def __init__(self, model: LinearModel, theta: np.ndarray, reml: bool) -> None:
        self.model, self.theta, self.reml = model, theta, reml
        self.blocks = model.lambdas(theta)
        self.elimination = Elimination(model.crossing, model.products, self.blocks)
        self.freedom = model.n - model.p if reml else model.n
        whole = self.elimination.inner(model._sides, model._sides, model._plain)
        xx, xy = whole[:-1, :-1], whole[:-1, -1]
        factor = linalg.cho_factor(xx, lower=True)
        self.xx_inverse = linalg.cho_solve(factor, np.eye(model.p))
        self.beta = self.xx_inverse @ xy
        squares = float(whole[-1, -1] - xy @ self.beta)
        self.scale = squares / self.freedom
        self.value = self.elimination.logdet + self.freedom * (1 + math.log(2 * math.pi * self.scale))
        if reml:
            self.value += 2 * float(np.log(np.diag(factor[0])).sum())

    def log_jacobian(self, turn: np.ndarray | None) -> float:
        """What REML's criterion owes to the turn of X's columns."""
        return 0.0 if turn is None else 2 * float(np.log(np.abs(np.diag(turn))).sum())

    @cached_property
    def _projected(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """``Z'V^-1 X`` and ``Z'V^-1 (y - X b)`` of each factor, (levels, q, p) and (levels, q)."""
        a, b = self.elimination.projected(*self.model._sides)
        parts = [a, *self.model.crossing.split(b)]
        return [part[:, :, :-1] for part in parts], [part[:, :, -1] - part[:, :, :-1] @ self.beta for part in parts]

    @property
    def effects(self) -> list[np.ndarray]:
        """Random effects (levels, q) of each factor."""
        return [rest @ block @ block.T for rest, block in zip(self._projected[1], self.blocks, strict=True)]

    @cached_property
    def _slopes(self) -> list[np.ndarray]:
        """Derivative of the criterion by the covariance ``L L'`` of each factor, (q, q)."""
        found = []
        for trace, x, rest in zip(self.elimination.traces(), *self._projected, strict=True):
            slope = trace - rest.T @ rest / self.scale
            if self.reml:
                slope = slope - np.tensordot(x @ self.xx_inverse, x, ((0, 2), (0, 2)))
            found.append(slope)
        return found

    @cached_property
    def gradient(self) -> np.ndarray:
        pairs = zip(self._slopes, self.blocks, self.model.crossing.factors, strict=True)
        return np.concatenate([(2 * slope @ block)[factor.free] for slope, block, factor in pairs])

    @cached_property
    def _quadratic(self) -> np.ndarray:
        """``(y - Xb)'V^-1 dV V^-1 (y - Xb)`` over the residual variance, for each free entry."""
        rests = self._projected[1]
        return np.array([np.einsum("li,ij,lj->", rests[k], d, rests[k]) for k, d in directions(self.model.crossing.factors, self.blocks)]) / self.scale

    def hessian(self) -> np.ndarray:
        """Average information of the profiled criterion, and the curvature that ``L L'`` itself adds."""
        model, crossing = self.model, self.model.crossing
        fixed = tuple(part[..., :-1] for part in model._sides)
        a, b, side, own = working(self.elimination, self._projected[1])
        with_x = np.einsum("lit,lix->tx", a, fixed[0]) + b.T @ fixed[1]
        among = self.elimination.inner(side, side, own)
        across = self.elimination.inner(side, (fixed[0], fixed[1]), with_x)
        average = (among - across @ self.xx_inverse @ across.T) / self.scale
        average -= np.outer(self._quadratic, self._quadratic) / self.freedom
        return average + bend(crossing.factors, self._slopes)

    def curvature(self, at: Callable[[np.ndarray], _State]) -> tuple[np.ndarray, np.ndarray]:
        """Hessian of the criterion in (theta, log sigma^2), and the derivative of the fixed effects' covariance.

        The profiled Hessian is a difference of analytic gradients; the residual variance is then put back.
        """
        k, p = len(self.theta), self.model.p
        profiled = np.empty((k, k))
        for i in range(k):
            step = np.zeros(k)
            step[i] = 1e-4 * max(abs(self.theta[i]), 0.05)
            profiled[i] = (at(self.theta + step).gradient - self.gradient) / step[i]
        profiled = (profiled + profiled.T) / 2
        hessian = np.empty((k + 1, k + 1))
        hessian[:k, :k] = profiled + np.outer(self._quadratic, self._quadratic) / self.freedom
        hessian[:k, k] = hessian[k, :k] = self._quadratic
        hessian[k, k] = self.freedom
        sensitivity = np.empty((k + 1, p, p))
        for t, (number, change) in enumerate(directions(self.model.crossing.factors, self.blocks)):
            x = self._projected[0][number]
            middle = np.tensordot(x, change @ x, ((0, 1), (0, 1)))
            sensitivity[t] = self.scale * self.xx_inverse @ middle @ self.xx_inverse
        sensitivity[k] = self.scale * self.xx_inverse
        return hessian, sensitivity


def directions(factors: Sequence[Factor], blocks: Sequence[np.ndarray]) -> list[tuple[int, np.ndarray]]:
    """For each free entry of L the number of its factor and the derivative (q, q) of ``L L'``."""
    found = []
    for k, (factor, block) in enumerate(zip(factors, blocks, strict=True)):
        for i, j in np.argwhere(factor.free):
            change = np.zeros(block.shape)
            change[i] = block[:, j]
            found.append((k, change + change.T))
    return found


def working(
    elimination: Elimination, rests: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray], np.ndarray]:
    """The working responses ``Z dV r`` of average information, one for each free entry of L.

    ``rests`` (levels, q) are ``r = Z'V^-1 (y - X b)`` of each factor. Gives the effects that make them, in parts
    (levels, q, k) and (m, k), their cross-products with Z in the same parts, and those among themselves (k, k).
    """
    crossing, products = elimination.crossing, elimination.products
    moves = directions(crossing.factors, elimination.lambdas)
    a, b = np.zeros((crossing.a.levels, crossing.q, len(moves))), np.zeros((crossing.m, len(moves)))
    for t, (k, change) in enumerate(moves):
        moved = rests[k] @ change
        if k == 0:
            a[:, :, t] = moved
        else:
            b[crossing.offsets[k - 1] : crossing.offsets[k], t] = moved.ravel()
    side = (products.aa @ a + elimination.times_ab(b), elimination.times_ba(a) + products.bb @ b)
    return a, b, side, np.einsum("lit,liu->tu", a, side[0]) + b.T @ side[1]


def bend(factors: Sequence[Factor], slopes: Sequence[np.ndarray]) -> np.ndarray:
    """What the curvature of ``L L'`` adds to a Hessian in the entries of L, ``slopes`` being the derivative by it."""
    blocks = []
    for slope, factor in zip(slopes, factors, strict=True):
        row, column = np.argwhere(factor.free).T
        blocks.append(2 * slope[row[:, None], row] * (column[:, None] == column))
    return linalg.block_diag(*blocks)


def _minimise(at: Callable[[np.ndarray], _State], theta: np.ndarray) -> tuple[_State, float]:
    """Newton steps with the curvature's absolute value, halved until the criterion falls.

    A saddle (a column of L at zero that would rather not be) has no gradient; it is left along the direction of
    negative curvature.
    """
    state, decrement = at(theta), math.inf
    for _ in range(STEPS):
        values, vectors = np.linalg.eigh(state.hessian())
        along = vectors.T @ state.gradient
        size = np.maximum(np.abs(values), 1e-6 * max(float(np.abs(values).max()), 1e-6))
        decrement = float((along**2 / size).sum())
        if decrement < DECREMENT:
            if values[0] > -1e-2 or len(values) == 0:
                break
            step = vectors[:, 0] * 0.1
        else:
            step = -vectors @ (along / size)
            step *= min(1.0, max(1.0, float(np.linalg.norm(state.theta))) / float(np.linalg.norm(step)))
        for _ in range(30):
            tried = at(state.theta + step)
            if tried.value <= state.value + 1e-12 * abs(state.value):
                break
            step = step / 2
        else:
            break
        state = tried
    return state, decrement
