"""The elimination and the search against dense textbook algebra on the rows themselves."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from contrafact import seeds
from contrafact.stats import crossproducts
from contrafact.stats.crossproducts import Crossing, Factor
from contrafact.stats.elimination import Elimination
from contrafact.stats.linear import LinearModel, _State


def factors(rng: np.random.Generator, n: int = 300, slopes: bool = True) -> list[Factor]:
    """Three factors: correlated slopes on the largest, independent ones on the second, an intercept on the third."""
    x, full = rng.normal(size=(n, 2)), np.tril(np.ones((2, 2), dtype=bool))
    made = []
    for name, levels, z, free in (
        ("small", 5, np.ones((n, 1)), np.eye(1, dtype=bool)),
        ("person", 25, np.column_stack([np.ones(n), x[:, 0]]), full),
        ("image", 12, np.column_stack([np.ones(n), x[:, 1]]), np.eye(2, dtype=bool)),
    ):
        codes = np.concatenate([np.arange(levels), rng.integers(0, levels, n - levels)])
        made.append(Factor(name, np.arange(levels), codes, z, ("(Intercept)", "x")[: z.shape[1]], free))
    return made


def indicator(factor: Factor) -> np.ndarray:
    found = np.zeros((len(factor.codes), factor.columns))
    for j in range(factor.z.shape[1]):
        found[np.arange(len(factor.codes)), factor.codes * factor.z.shape[1] + j] = factor.z[:, j]
    return found


def lambdas(rng: np.random.Generator, crossing: Crossing) -> list[np.ndarray]:
    found = []
    for factor in crossing.factors:
        block = rng.normal(size=factor.free.shape) * factor.free
        np.fill_diagonal(block, rng.uniform(0.3, 1.5, len(block)))
        found.append(block)
    return found


@pytest.mark.parametrize("crowded", [True, False])
def test_every_product_is_that_of_the_dense_matrices(crowded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = seeds.generator(21, "elimination")
    monkeypatch.setattr(crossproducts, "CROWDED", 0.0 if crowded else 1.1)
    monkeypatch.setattr(crossproducts, "CHUNK", 2_000)  # several batches even here
    crossing = Crossing(factors(rng))
    assert crossing.crowded is crowded and crossing.a.name == "person"
    weights = rng.uniform(0.5, 2.0, 300)
    blocks = lambdas(rng, crossing)
    found = Elimination(crossing, crossing.products(weights), blocks)
    z = np.hstack([indicator(factor) for factor in crossing.factors])
    spread = [np.kron(np.eye(f.levels), block) for f, block in zip(crossing.factors, blocks, strict=True)]
    whole = np.zeros((z.shape[1], z.shape[1]))
    edges = np.cumsum([0, *(len(each) for each in spread)])
    for at, each in zip(edges, spread, strict=False):
        whole[at : at + len(each), at : at + len(each)] = each
    m = whole.T @ z.T @ (weights[:, None] * z) @ whole + np.eye(len(whole))
    assert found.logdet == pytest.approx(np.linalg.slogdet(m)[1])
    v_inverse = np.linalg.inv(np.diag(1 / weights) + z @ whole @ whole.T @ z.T)
    columns = rng.normal(size=(300, 3))
    sides = crossing.against(columns * weights[:, None])
    plain = columns.T @ (weights[:, None] * columns)
    assert found.inner(sides, sides, plain) == pytest.approx(columns.T @ v_inverse @ columns)
    a, b = found.projected(*sides)
    assert np.vstack([a.reshape(-1, 3), b]) == pytest.approx(z.T @ v_inverse @ columns)
    inverse = whole @ np.linalg.inv(m) @ whole.T
    a, b = found.effects(*crossing.against(columns))
    assert np.vstack([a.reshape(-1, 3), b]) == pytest.approx(inverse @ z.T @ columns)
    projected = z.T @ v_inverse @ z
    for at, factor, trace, cov in zip(edges, crossing.factors, found.traces(), found.covariance, strict=False):
        q = factor.z.shape[1]
        places = [slice(at + k * q, at + (k + 1) * q) for k in range(factor.levels)]
        assert trace == pytest.approx(sum(projected[s, s] for s in places))
        assert cov == pytest.approx(np.array([inverse[s, s] for s in places]))
    edge = crossing.a.columns
    level = np.repeat(np.arange(crossing.a.levels), np.diff(crossing.start))
    for i in range(2):
        assert found.covariance_ab[:, i] == pytest.approx(inverse[level * 2 + i, edge + crossing.column])


@pytest.mark.parametrize("reml", [True, False])
def test_criterion_gradient_and_information_are_those_of_the_normal_density(reml: bool) -> None:
    rng = seeds.generator(22, "criterion")
    made, n = factors(rng), 300
    x = np.column_stack([np.ones(n), rng.normal(50, 2, (n, 2))])
    y, weights = 1000 + x @ [1, 2, -3] + rng.normal(0, 5, n), rng.uniform(0.5, 2, n)
    model = LinearModel(y, x, made, weights)
    theta = np.concatenate([b[f.free] for b, f in zip(lambdas(rng, model.crossing), model.crossing.factors, strict=True)])
    state = _State(model, theta, reml)

    def dense(theta: np.ndarray) -> float:
        scale = {f.name: s for f, s in zip(made, model.scales, strict=True)}
        v = np.diag(1 / weights)
        for factor, block in zip(model.crossing.factors, model.lambdas(theta), strict=True):
            z = indicator(next(f for f in made if f.name == factor.name))
            block = block / scale[factor.name][:, None]
            v += z @ np.kron(np.eye(factor.levels), block @ block.T) @ z.T
        inverse = np.linalg.inv(v)
        xx = x.T @ inverse @ x
        rest = y - x @ np.linalg.solve(xx, x.T @ inverse @ y)
        free = n - 3 if reml else n
        value = np.linalg.slogdet(v)[1] + free * (1 + np.log(2 * np.pi * (rest @ inverse @ rest) / free))
        return float(value + np.linalg.slogdet(xx)[1] if reml else value)

    found = model._result(lambda t: _State(model, t, reml), state, [()] * 3, 0.0, lambda: 1, reml)
    assert found.criterion == pytest.approx(dense(theta), abs=1e-7)
    assert state.gradient == pytest.approx(approx_fprime(theta, dense, 1e-6), abs=2e-3)

    best = model.fit(reml=reml)
    assert best.converged and best.gradient < 1e-4 and best.evaluations < 40
    order = [[f.name for f in made].index(f.name) for f in model.crossing.factors]
    at_best = np.concatenate([(best.lambdas[k] * model.scales[k][:, None])[made[k].free] for k in order])
    assert best.criterion == pytest.approx(dense(at_best), abs=1e-7)
    for _ in range(20):
        assert dense(at_best + rng.normal(0, 0.05, len(at_best))) > best.criterion
