"""Rows read once: what a mixed model needs of a table is the cross-products of its random columns.

Notation of Bates, Maechler, Bolker & Walker (2015): ``Z`` has one column for each level of a factor and each
random column on it. The factor with most columns is called A here and the others, side by side, B: A is what the
elimination takes out level by level, so its products are kept in small blocks, and B's in one dense matrix.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from contrafact.errors import UserError

MAX_DENSE = 12_000
"""Columns of all factors but the largest; a dense matrix of twice as many would need 5 GB, and there are four."""

CHUNK = 4_000_000
"""Numbers in one batch of outer products: 32 MB."""

SMALL = 200_000
"""Up to this many numbers a matrix is kept dense: making a sparse one would take longer than using it."""

CROWDED = 0.2
"""Above this share of filled cells one dense product is faster than many small ones (measured, one core)."""


@dataclass(frozen=True)
class Factor:
    """A grouping factor with all random columns on it.

    ``codes`` (n,) numbers the ``labels`` (levels,), ``z`` (n, q) holds the columns, named ``terms`` (q,), and
    ``free`` (q, q) marks the entries of the lower triangular factor of their covariance that are estimated.
    """

    name: str
    labels: np.ndarray
    codes: np.ndarray
    z: np.ndarray
    terms: tuple[str, ...]
    free: np.ndarray

    @property
    def levels(self) -> int:
        return len(self.labels)

    @property
    def columns(self) -> int:
        return self.levels * self.z.shape[1]


@dataclass(frozen=True)
class Products:
    """``Z'WZ`` for row weights W: ``aa`` (levels, q, q) of A with itself, ``ab`` (entries, q) of A with the columns of
    B that a level meets, ``bb`` (m, m) of B with itself."""

    aa: np.ndarray
    ab: np.ndarray
    bb: np.ndarray


class Crossing:
    """Which levels meet which: fixed for a table, whatever the weights.

    ``factors`` come with A first. The entries of A'B are numbered by level of A; ``start`` (levels + 1,) says where
    each level begins and ``column`` (entries,) which of the m columns of B an entry belongs to.

    Raises:
        UserError: more than ``MAX_DENSE`` columns besides the largest factor.
    """

    def __init__(self, factors: Sequence[Factor]) -> None:
        self.factors = sorted(factors, key=lambda factor: -factor.columns)
        self.a, self.b = self.factors[0], self.factors[1:]
        self.q = self.a.z.shape[1]
        self.offsets = np.cumsum([0, *(factor.columns for factor in self.b)])
        self.m = int(self.offsets[-1])
        if self.m > MAX_DENSE:
            names = ", ".join(f"'{factor.name}' ({factor.levels} levels)" for factor in self.b)
            raise UserError(
                f"The random effects besides '{self.a.name}' have {self.m} columns; at most {MAX_DENSE} are solved.",
                hint=f"Drop a slope or a term among {names}.",
            )
        # The pairs of levels that occur together, for each factor of B: (row -> cell), level of A, first column.
        self._cells, found = [], []
        for factor, offset in zip(self.b, self.offsets, strict=False):
            keys, inverse = np.unique(
                self.a.codes.astype(np.int64) * factor.levels + factor.codes, return_inverse=True
            )
            self._cells.append(inverse)
            level, other = np.divmod(keys, factor.levels)
            width = factor.z.shape[1]
            found.append((np.repeat(level, width), (other[:, None] * width + np.arange(width) + offset).ravel()))
        level = np.concatenate([np.empty(0, np.int64), *(each for each, _ in found)])
        column = np.concatenate([np.empty(0, np.int64), *(each for _, each in found)])
        order = np.argsort(level, kind="stable")
        self._order, self.column = order, column[order]
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        sizes = np.cumsum([0, *(len(each) for each, _ in found)])
        self._places = [place[at : at + len(each)] for at, (each, _) in zip(sizes, found, strict=False)]
        self.start = np.concatenate([[0], np.cumsum(np.bincount(level, minlength=self.a.levels))])
        self.crowded = len(column) > CROWDED * self.a.levels * self.m

    def products(self, weights: np.ndarray | None = None) -> Products:
        """The cross-products of the random columns, each row counted ``weights`` (n,) times."""
        pieces = [
            _paired(cell, int(cell.max()) + 1, self.a.z, factor.z, weights).transpose(0, 2, 1).reshape(-1, self.q)
            for cell, factor in zip(self._cells, self.b, strict=True)
        ]
        ab = np.concatenate([np.empty((0, self.q)), *pieces])[self._order]
        bb = np.zeros((self.m, self.m))
        for k, (one, at) in enumerate(zip(self.b, self.offsets, strict=False)):
            for other, to in zip(self.b[k:], self.offsets[k:], strict=False):
                if one is other:
                    block = _paired(one.codes, one.levels, one.z, one.z, weights)
                    self._diagonal(bb, k)[:] = block
                    continue
                cell = one.codes.astype(np.int64) * other.levels + other.codes
                block = _paired(cell, one.levels * other.levels, one.z, other.z, weights)
                block = block.reshape(one.levels, other.levels, *block.shape[1:]).transpose(0, 2, 1, 3)
                block = block.reshape(one.columns, other.columns)
                bb[at : at + one.columns, to : to + other.columns] = block
                bb[to : to + other.columns, at : at + one.columns] = block.T
        return Products(_paired(self.a.codes, self.a.levels, self.a.z, self.a.z, weights), ab, bb)

    def against(self, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``Z'columns`` for ``columns`` (n, k): the part of A (levels, q, k) and that of B (m, k)."""
        parts = [_paired(factor.codes, factor.levels, factor.z, columns, None) for factor in self.factors]
        flat = [part.reshape(-1, columns.shape[1]) for part in parts[1:]]
        return parts[0], np.concatenate([np.empty((0, columns.shape[1])), *flat])

    def rows(self, effects: Sequence[np.ndarray]) -> np.ndarray:
        """``Z u`` (n,) for effects (levels, q) of each factor."""
        pairs = zip(self.factors, effects, strict=True)
        return sum((np.einsum("nq,nq->n", f.z, u[f.codes]) for f, u in pairs), np.zeros(len(self.a.codes)))

    def quadratic(self, a: np.ndarray, entries: np.ndarray, b: np.ndarray) -> np.ndarray:
        """``z' C z`` (n,) of each row z of Z for a symmetric C: ``a`` (levels, q, q) its diagonal blocks of A,
        ``entries`` (entries, q) its part between A and B, ``b`` (m, m) all of B."""
        found = np.einsum("ni,nij,nj->n", self.a.z, a[self.a.codes], self.a.z)
        starts = [factor.codes * factor.z.shape[1] + at for factor, at in zip(self.b, self.offsets, strict=False)]
        for k, (one, at) in enumerate(zip(self.b, starts, strict=True)):
            width = one.z.shape[1]
            for i in range(width):
                entry = entries[self._places[k][self._cells[k] * width + i]]
                found += 2 * one.z[:, i] * np.einsum("nq,nq->n", self.a.z, entry)
            for other, to in zip(self.b[k:], starts[k:], strict=True):
                twice = 1 if one is other else 2
                for i in range(width):
                    for j in range(other.z.shape[1]):
                        found += twice * one.z[:, i] * other.z[:, j] * b[at + i, to + j]
        return found

    def whole_ab(self, products: Products) -> Sequence[sparse.csr_array | np.ndarray]:
        """``A'B`` as q matrices (levels, m), one for each random column of A; dense where they are small and filled."""
        shape = (self.a.levels, self.m)
        if self.crowded and self.a.levels * self.m <= SMALL:
            level = np.repeat(np.arange(self.a.levels), np.diff(self.start))
            dense = np.zeros((self.q, *shape))
            dense[:, level, self.column] = products.ab.T
            return list(dense)
        return [sparse.csr_array((products.ab[:, i], self.column, self.start), shape=shape) for i in range(self.q)]

    def chunks(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Batches of levels of A that meet about as many columns: ``level`` (k,), ``entry`` and ``column`` (k, c).

        Levels with fewer columns than the widest of their batch are filled up with an entry and a column one past
        the last, which hold zeros.
        """
        degree = np.diff(self.start)
        order = np.argsort(degree, kind="stable")
        order = order[degree[order] > 0]
        column = np.append(self.column, self.m)
        while len(order):
            # From the widest down, so that the width of a batch is known when it is cut.
            width = int(degree[order[-1]])
            size = max(1, CHUNK // (self.q * self.m if self.crowded else width**2))
            level, order = order[-size:], order[:-size]
            place = np.arange(width)
            entry = np.where(place < degree[level][:, None], self.start[level][:, None] + place, len(self.column))
            yield level, entry, column[entry]

    def blocks(self, matrix: np.ndarray) -> list[np.ndarray]:
        """The diagonal blocks (levels, q, q) of a matrix (m, m) over B, one array for each factor of B; views."""
        return [self._diagonal(matrix, k) for k in range(len(self.b))]

    def _diagonal(self, matrix: np.ndarray, k: int) -> np.ndarray:
        factor, at, q = self.b[k], self.offsets[k], self.b[k].z.shape[1]
        row, column = matrix.strides
        return np.lib.stride_tricks.as_strided(
            matrix[at:, at:], (factor.levels, q, q), (q * (row + column), row, column)
        )

    def split(self, part: np.ndarray) -> list[np.ndarray]:
        """A part of B (m, k) as one array (levels, q, k) for each factor of B."""
        return [
            part[at : at + factor.columns].reshape(factor.levels, factor.z.shape[1], -1)
            for factor, at in zip(self.b, self.offsets, strict=False)
        ]


def _paired(
    codes: np.ndarray, levels: int, one: np.ndarray, other: np.ndarray, weights: np.ndarray | None
) -> np.ndarray:
    """Sums (levels, q1, q2) of the products of columns ``one`` (n, q1) and ``other`` (n, q2) within each code."""
    found = np.empty((levels, one.shape[1], other.shape[1]))
    for i in range(one.shape[1]):
        left = one[:, i] if weights is None else one[:, i] * weights
        for j in range(other.shape[1]):
            if one is other and j < i:
                found[:, i, j] = found[:, j, i]
            else:
                found[:, i, j] = np.bincount(codes, left * other[:, j], minlength=levels)
    return found
