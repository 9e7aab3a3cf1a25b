"""Many tests: adjusted p against the definitions, and the error that they promise to hold."""

from __future__ import annotations

import numpy as np
import pytest

from contrafact import seeds
from contrafact.stats.multiplicity import adjusted, max_t


def test_adjusted_p_of_a_worked_example() -> None:
    p = [0.01, 0.04, 0.03, 0.005]
    assert adjusted(p).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert adjusted(p, "bh").tolist() == pytest.approx([0.02, 0.04, 0.04, 0.02])
    assert adjusted(p, "k-fwer").tolist() == pytest.approx(adjusted(p).tolist())
    # Lehmann & Romano: constants k a/n up to the k-th, then k a/(n + k - i); n = 4, k = 2.
    assert adjusted(p, "k-fwer", 2).tolist() == pytest.approx([0.02, 0.045, 0.045, 0.01])
    unknown = adjusted([0.01, np.nan, 0.02])
    assert np.isnan(unknown[1]) and unknown[0] == pytest.approx(0.03)
    for method, k in (("hochberg", 1), ("holm", 2), ("k-fwer", 0)):
        with pytest.raises(ValueError, match="known are"):
            adjusted(p, method, k)


def test_k_fwer_lets_through_k_false_claims_as_seldom_as_it_says() -> None:
    rng = seeds.generator(1, "k-fwer")
    false = np.array([(adjusted(rng.random(30), "k-fwer", 3) <= 0.05).sum() for _ in range(2000)])
    assert (false >= 3).mean() < 0.06


def test_max_t_is_the_sign_test_of_one_feature_and_exact_where_it_can_be() -> None:
    effects = np.array([1.1, 0.4, 2.0, 0.7, 1.5, 0.2])[:, None]
    found = max_t(effects, seeds.generator(1))
    assert found.exact and found.flips == 32 and found.p[0] == pytest.approx(2 / 64)
    assert found.t[0] == pytest.approx(effects.mean() / (effects.std(ddof=1) / np.sqrt(6)))
    with pytest.raises(ValueError, match="at least 5 images"):
        max_t(effects[:4], seeds.generator(1))


def test_max_t_holds_the_joint_error_and_uses_the_correlation() -> None:
    rng = seeds.generator(2, "max-t")
    shared = lambda: 0.95 * rng.normal(size=(20, 1)) + 0.3 * rng.normal(size=(20, 12))
    least = np.array([max_t(shared(), rng, flips=199).p.min() for _ in range(400)])
    assert (least <= 0.05).mean() < 0.085
    effects = shared()
    effects[:, 0] += 1.2
    joint = max_t(effects, rng, flips=999)
    assert joint.p[0] < 0.01 and (joint.p >= joint.p[0]).all()
    # Twelve features that go together cost less than twelve independent ones.
    one = max_t(effects[:, 1:2], rng, flips=999).p[0]
    assert joint.p[1] < min(1.0, 12 * one) or one > 1 / 12
