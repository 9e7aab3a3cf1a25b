"""One evaluation of a mixed model's covariance: the largest factor is eliminated, the rest is one dense matrix.

With ``V = W^-1 + Z L L' Z'`` (relative to the residual variance; ``L`` block diagonal, one lower triangular block a
factor) everything a likelihood, its derivatives and its predictions need comes from the Cholesky factor of
``M = L'Z'WZL + I`` (Bates et al. 2015, section 3). M is never formed: its part of factor A is inverted level by
level, and what that leaves of the other factors, the Schur complement S, is factored by LAPACK. The cost depends
on levels and on the pairs of levels that meet, never on rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from scipy import linalg

from contrafact.stats.crossproducts import Crossing, Products


class Elimination:
    """The factored covariance at the blocks ``lambdas``, one (q, q) lower triangular array for each factor.

    Shapes: n_a levels of A with q columns, m columns of B. In the names ``a`` is a part of A, ``b`` one of B.

    Attributes:
        logdet: log of the determinant of M.
        p: (n_a, q, q), ``L (L'A'WAL + I)^-1 L'`` of each level of A.
    """

    def __init__(self, crossing: Crossing, products: Products, lambdas: Sequence[np.ndarray]) -> None:
        self.crossing, self.products = crossing, products
        self.lambdas = [np.asarray(block) for block in lambdas]
        first, identity = self.lambdas[0], np.eye(crossing.q)
        m_a = first.T @ products.aa @ first + identity
        self._half = first @ np.linalg.cholesky(np.linalg.inv(m_a))
        self.p = self._half @ self._half.swapaxes(1, 2)
        self._keep = identity - products.aa @ self.p  # A'V_a^-1 = keep A'W, V_a the covariance of A alone
        self._ab = crossing.whole_ab(products)
        self.logdet = 2 * float(np.log(np.diagonal(np.linalg.cholesky(m_a), axis1=1, axis2=2)).sum())
        if crossing.m:
            self._rest = products.bb - self._pairs()
            s = self._right(self._right(self._rest, self.lambdas[1:]).T, self.lambdas[1:])
            s[np.diag_indices_from(s)] += 1.0
            self._factor = linalg.cholesky(s, lower=True, overwrite_a=True, check_finite=False)
            self.logdet += 2 * float(np.log(np.diagonal(self._factor)).sum())

    def _pairs(self) -> np.ndarray:
        """``B'WA p A'WB`` (m, m)."""
        m, found = self.crossing.m, np.zeros((self.crossing.m + 1, self.crossing.m + 1))
        filled = np.append(self.products.ab, np.zeros((1, self.crossing.q)), axis=0)
        for level, entry, column in self.crossing.chunks():
            half = filled[entry] @ self._half[level]
            if self.crossing.crowded:
                rows = self._spread(half, column)
                found[:m, :m] += rows.T @ rows
            else:
                outer = half @ half.swapaxes(1, 2)
                place = column[:, :, None] * (m + 1) + column[:, None, :]
                found += np.bincount(place.ravel(), outer.ravel(), (m + 1) ** 2).reshape(m + 1, m + 1)
        return found[:m, :m]

    def _spread(self, values: np.ndarray, column: np.ndarray) -> np.ndarray:
        """Entries (k, c, q) at their places in dense rows (k * q, m)."""
        found = np.zeros((len(values), values.shape[2], self.crossing.m + 1))
        np.put_along_axis(found, np.broadcast_to(column[:, None], values.swapaxes(1, 2).shape), values.swapaxes(1, 2), 2)
        return found[:, :, :-1].reshape(-1, self.crossing.m)

    def _right(self, matrix: np.ndarray, blocks: Sequence[np.ndarray]) -> np.ndarray:
        """``matrix`` (r, m) times the block diagonal matrix of ``blocks``."""
        found = np.empty(matrix.shape)
        for factor, at, block in zip(self.crossing.b, self.crossing.offsets, blocks, strict=False):
            part = matrix[:, at : at + factor.columns].reshape(len(matrix), factor.levels, -1)
            found[:, at : at + factor.columns] = (part @ block).reshape(len(matrix), -1)
        return found

    @cached_property
    def y(self) -> np.ndarray:
        """``L_b S^-1 L_b'`` (m, m): the covariance of B's effects given the data, over the residual variance."""
        if not self.crossing.m:
            return np.zeros((0, 0))
        inverse, _ = linalg.lapack.dpotri(self._factor, lower=1)
        inverse = np.tril(inverse)
        inverse += np.tril(inverse, -1).T
        blocks = [block.T for block in self.lambdas[1:]]
        return self._right(self._right(inverse, blocks).T, blocks)

    def times_ab(self, part: np.ndarray) -> np.ndarray:
        """``A'WB part`` (n_a, q, k) for ``part`` (m, k)."""
        return np.stack([each @ part for each in self._ab], axis=1)

    def times_ba(self, part: np.ndarray) -> np.ndarray:
        """``B'WA part`` (m, k) for ``part`` (n_a, q, k)."""
        return sum((each.T @ part[:, i] for i, each in enumerate(self._ab)), np.zeros((self.crossing.m, part.shape[2])))

    def _complement(self, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What is left of right-hand sides on B after A is eliminated, and ``y`` times that; both (m, k)."""
        left = b - self.times_ba(self.p @ a)
        if not self.crossing.m:
            return left, left
        blocks = self.lambdas[1:]
        half = self._right(left.T, blocks).T
        solved = linalg.cho_solve((self._factor, True), half, check_finite=False)
        return left, self._right(solved.T, [block.T for block in blocks]).T

    def inner(
        self, one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray], plain: np.ndarray
    ) -> np.ndarray:
        """``F'V^-1 G`` (k, l) from ``Z'WF``, ``Z'WG`` (each the parts of A and of B) and ``F'WG``."""
        left, _ = self._complement(*one)
        _, solved = self._complement(*other)
        return plain - np.tensordot(one[0], self.p @ other[0], ((0, 1), (0, 1))) - left.T @ solved

    def projected(self, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``Z'V^-1 F`` from ``Z'WF``: the parts (n_a, q, k) and (m, k)."""
        left, solved = self._complement(a, b)
        found = self._keep @ (a - self.times_ab(solved))
        return found, left - self._rest @ solved if self.crossing.m else left

    def effects(self, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``L M^-1 L' r`` for right-hand sides ``r`` in two parts: the solution on the scale of the effects."""
        _, solved = self._complement(a, b)
        return self.p @ (a - self.times_ab(solved)), solved

    @cached_property
    def _gathered(self) -> tuple[np.ndarray, np.ndarray]:
        """``A'WB y`` at the entries (entries, q) and ``A'WB y B'WA`` of each level (n_a, q, q)."""
        crossing, filled = self.crossing, np.append(self.products.ab, np.zeros((1, self.crossing.q)), axis=0)
        at_entries = np.zeros((len(crossing.column) + 1, crossing.q))
        squares = np.zeros_like(self.products.aa)
        padded = np.pad(self.y, (0, 1))
        for level, entry, column in crossing.chunks():
            one = filled[entry].swapaxes(1, 2)
            if crossing.crowded:
                rows = (self._spread(filled[entry], column) @ self.y).reshape(len(level), crossing.q, -1)
                product = np.take_along_axis(
                    np.pad(rows, ((0, 0), (0, 0), (0, 1))), np.broadcast_to(column[:, None], one.shape), 2
                )
            else:
                place = column[:, :, None] * len(padded) + column[:, None, :]
                product = one @ padded.ravel().take(place)
            squares[level] = product @ one.swapaxes(1, 2)
            at_entries[entry] = product.swapaxes(1, 2)
        return at_entries[:-1], squares

    @property
    def covariance_ab(self) -> np.ndarray:
        """``L M^-1 L'`` between A and B at the entries (entries, q), as ``A'WB`` numbers them."""
        level = np.repeat(np.arange(self.crossing.a.levels), np.diff(self.crossing.start))
        return -np.einsum("eij,ej->ei", self.p[level], self._gathered[0])

    @cached_property
    def covariance(self) -> list[np.ndarray]:
        """Diagonal blocks of ``L M^-1 L'`` (levels, q, q) of each factor: the effects' covariance given the data,
        over the residual variance, the fixed effects held."""
        return [self.p + self.p @ self._gathered[1] @ self.p, *self.crossing.blocks(self.y)]

    def traces(self) -> list[np.ndarray]:
        """The sum over levels of the diagonal blocks of ``Z'V^-1 Z``, (q, q) for each factor."""
        found = [(self._keep @ self.products.aa - self._keep @ self._gathered[1] @ self._keep.swapaxes(1, 2)).sum(axis=0)]
        if self.crossing.m:
            half = linalg.solve_triangular(
                self._factor, self._right(self._rest, self.lambdas[1:]).T, lower=True, check_finite=False
            )
            for whole, at, factor in zip(
                self.crossing.blocks(self._rest), self.crossing.offsets, self.crossing.b, strict=False
            ):
                part = half[:, at : at + factor.columns].reshape(len(half), factor.levels, -1)
                flat = part.reshape(-1, part.shape[2])
                found.append(whole.sum(axis=0) - flat.T @ flat)
        return found
