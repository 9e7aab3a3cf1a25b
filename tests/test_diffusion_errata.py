"""Known errors of teaching slides, each shown by numbers: which form is right."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from contrafact.diffusion.denoiser import Prediction, guided, scale_from_w, w_from_scale
from contrafact.diffusion.schedule import Kind, Schedule, cosine, linear

SCHEDULES = [cosine(1000), linear(1000)]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def kl(mean_1: Tensor, var_1: Tensor, mean_2: Tensor, var_2: Tensor) -> float:
    """KL of two isotropic Gaussians, nats."""
    ratio = var_1 / var_2
    d = mean_1.numel()
    return float(0.5 * (d * (ratio - 1 - ratio.log()) + (mean_1 - mean_2).square().sum() / var_2))


# 1. x_t is written with ᾱ_t; with α_t it never reaches noise.


def test_the_jump_to_t_uses_the_product_of_alphas() -> None:
    schedule = linear(1000)
    alphas = schedule.alphas_cumprod / torch.cat([torch.ones(1).double(), schedule.alphas_cumprod[:-1]])
    assert float(schedule.alphas_cumprod[-1]) == pytest.approx(4.0e-5, rel=0.02)
    assert float(alphas[-1]) == pytest.approx(0.98, abs=1e-3)
    # Walk x_s = √α_s·x_{s−1} + √β_s·ε_s: the signal's factor and the noise's variance after 500 steps.
    signal, variance = 1.0, 0.0
    for alpha in alphas[:500].tolist():
        signal, variance = signal * math.sqrt(alpha), variance * alpha + 1 - alpha
    jump = schedule.add_noise(torch.ones(1).double(), torch.zeros(1).double(), 499)
    assert signal == pytest.approx(float(jump), abs=1e-12)
    assert variance == pytest.approx(1 - float(jump) ** 2, abs=1e-12)
    assert abs(signal - math.sqrt(float(alphas[499]))) > 0.7


# 2. The weights of the bound belong to x̂_0 and to ε̂ as written in Schedule, not the other way round.


@pytest.mark.parametrize("schedule", SCHEDULES, ids=["cosine", "linear"])
@pytest.mark.parametrize("t", [1, 10, 500, 900])
def test_elbo_weights_equal_the_kl_computed_directly(schedule: Schedule, t: int) -> None:
    clean, noise, clean_hat = normal(48), normal(48, seed=1), normal(48, seed=2)
    x = schedule.add_noise(clean, noise, t)
    noise_hat = schedule.noise_from(clean_hat, x, t, "sample")
    variance = schedule.posterior_variance(t, t - 1)
    direct = kl(
        schedule.posterior_mean(clean, x, t, t - 1), variance, schedule.posterior_mean(clean_hat, x, t, t - 1), variance
    )
    by_clean = schedule.elbo_weight_clean(t) * (clean_hat - clean).square().sum()
    by_noise = schedule.elbo_weight_noise(t) * (noise_hat - noise).square().sum()
    assert float(by_clean) == pytest.approx(direct, rel=1e-8)
    assert float(by_noise) == pytest.approx(direct, rel=1e-8)
    # The slide puts the first weight on the noise: off by (1−ᾱ_t)/ᾱ_t.
    slide = float(schedule.elbo_weight_clean(t) * (noise_hat - noise).square().sum())
    a_t = float(schedule.alpha_bar(t))
    assert direct / slide == pytest.approx((1 - a_t) / a_t, rel=1e-8)


def test_elbo_weights_are_half_the_fall_of_the_signal_to_noise_ratio_and_undefined_at_0() -> None:
    schedule = cosine(100)
    snr = schedule.alphas_cumprod / (1 - schedule.alphas_cumprod)
    weights = schedule.elbo_weight_clean(torch.arange(100))
    assert torch.allclose(weights[1:], (snr[:-1] - snr[1:]) / 2, rtol=1e-8)
    assert weights[0].isnan() and schedule.elbo_weight_noise(0).isnan()


# 3. The noise of a step is scaled by the posterior's standard deviation, and the last step has none.


@pytest.mark.parametrize("schedule", SCHEDULES, ids=["cosine", "linear"])
def test_only_the_standard_deviation_keeps_the_marginal(schedule: Schedule) -> None:
    """For x_0 ~ N(0, 1) all x_t have variance 1; with the true ε̂ = E[ε|x_t] a step must keep x_{t−1} at it."""
    t = 600
    a_t, a_s = schedule.alpha_bar(t), schedule.alpha_bar(t - 1)
    x, z = normal(1_000_000), normal(1_000_000, seed=1)
    mean = schedule.posterior_mean(a_t.sqrt() * x, x, t, t - 1)
    variance = schedule.posterior_variance(t, t - 1)
    # Exact: p(x_{t−1}|x_t) of this data has variance (1−α_t)·1; beyond the posterior's there is that of x_0 given x_t.
    of_clean = a_s.sqrt() * (1 - a_t / a_s) / (1 - a_t)
    rest = of_clean.square() * (1 - a_t)
    assert float((variance + rest) / (1 - a_t / a_s)) == pytest.approx(1, rel=1e-9)
    spread = (mean + (variance + rest).sqrt() * z).var()
    assert float(spread) == pytest.approx(1, abs=4e-3)
    wrong = (mean + (variance + rest) * z).var()
    assert float(1 - wrong) == pytest.approx(float((1 - a_t / a_s) * a_t / a_s), abs=4e-3)
    assert float(schedule.posterior_variance(t, t - 1).sqrt()) > 2 * float(schedule.posterior_variance(t, t - 1))


@pytest.mark.parametrize("schedule", SCHEDULES, ids=["cosine", "linear"])
def test_the_last_step_adds_no_noise(schedule: Schedule) -> None:
    x, noise, z = normal(5), normal(5, seed=1), normal(5, seed=2)
    clean = schedule.clean_from(noise, x, 0, "epsilon")
    assert torch.equal(schedule.ancestral_step(noise, x, 0, -1, z), schedule.ancestral_step(noise, x, 0, -1, -z))
    assert torch.allclose(schedule.ancestral_step(noise, x, 0, -1, z), clean, atol=1e-12)
    assert torch.allclose(schedule.ddim_step(clean, noise, 0, -1, 1.0, z), clean, atol=1e-12)
    assert float(schedule.posterior_variance(0, -1)) == 0


# 4. The leading factor of the ancestral step is 1/√α_t, not 1/√ᾱ_t.


@pytest.mark.parametrize("schedule", SCHEDULES, ids=["cosine", "linear"])
@pytest.mark.parametrize(("t", "previous"), [(1, 0), (300, 299), (999, 998), (700, 400)])
def test_ancestral_step_with_the_true_noise_gives_the_posterior_mean(
    schedule: Schedule, t: int, previous: int
) -> None:
    clean, noise = normal(20), normal(20, seed=1)
    x = schedule.add_noise(clean, noise, t)
    mean = schedule.posterior_mean(clean, x, t, previous)
    step = schedule.ancestral_step(noise, x, t, previous, torch.zeros(20).double())
    assert torch.allclose(step, mean, atol=1e-6 if t == 999 else 1e-9)
    a_t, a_s = schedule.alpha_bar(t), schedule.alpha_bar(previous)
    slide = step * (a_t / a_s).sqrt() / a_t.sqrt()
    if previous > 0:
        assert not torch.allclose(slide, mean, atol=1e-3)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=["cosine", "linear"])
def test_eta_1_is_the_ancestral_step(schedule: Schedule) -> None:
    clean, noise, z = normal(20), normal(20, seed=1), normal(20, seed=2)
    x = schedule.add_noise(clean, noise, 600)
    ddim = schedule.ddim_step(clean, noise, 600, 580, 1.0, z)
    assert torch.allclose(ddim, schedule.ancestral_step(noise, x, 600, 580, z), atol=1e-10)


# 5. w is extra guidance; the scale of libraries is s = 1 + w.


class TwoAnswers:
    """A model that says 3 with and 1 without the condition, and counts."""

    shape = (1, 1, 1)
    alphas_cumprod = cosine(10).alphas_cumprod

    def __init__(self) -> None:
        self.calls = 0

    def predict(
        self, x: Tensor, t: Tensor, condition: Tensor | None = None, keep: Tensor | None = None
    ) -> Prediction:
        self.calls += 1
        noise = torch.full_like(x, 1.0 if condition is None else 3.0)
        return Prediction(Schedule(self.alphas_cumprod).clean_from(noise, x, t, "epsilon"), noise)


@pytest.mark.parametrize(("w", "expected", "calls"), [(0.0, 3.0, 1), (1.0, 5.0, 2), (0.5, 4.0, 2), (-1.0, 1.0, 2)])
def test_guidance_is_named_by_w_and_the_scale_is_one_more(w: float, expected: float, calls: int) -> None:
    model, x, t = TwoAnswers(), torch.zeros(2, 1, 1, 1), torch.tensor([4, 7])
    said = guided(model, x, t, torch.ones(2, 1), w)
    s = scale_from_w(w)
    assert torch.allclose(said.noise, torch.full_like(x, expected))
    assert torch.allclose(said.noise, torch.full_like(x, 1.0 + s * (3.0 - 1.0)))  # uncond + s·(cond − uncond)
    assert w_from_scale(s) == pytest.approx(w)
    assert model.calls == calls
    schedule = Schedule(model.alphas_cumprod)
    assert torch.allclose(schedule.add_noise(said.clean, said.noise, t), x, atol=1e-5)


# 9. A network may predict noise, image or velocity: the same statement in three forms.


@pytest.mark.parametrize("schedule", SCHEDULES, ids=["cosine", "linear"])
@pytest.mark.parametrize("kind", ["epsilon", "sample", "v"])
@pytest.mark.parametrize("t", [0, 300, 900])
def test_parameterisations_agree(schedule: Schedule, kind: Kind, t: int) -> None:
    clean, noise = normal(4, 3, 2, 2), normal(4, 3, 2, 2, seed=1)
    x = schedule.add_noise(clean, noise, t)
    said = schedule.target(clean, noise, t, kind)
    assert torch.allclose(schedule.clean_from(said, x, t, kind), clean, atol=1e-9)
    assert torch.allclose(schedule.noise_from(said, x, t, kind), noise, atol=1e-9)


def test_diffusers_reads_v_the_same_way() -> None:
    from diffusers import DDIMScheduler

    schedule = cosine(1000)
    theirs = DDIMScheduler(1000, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", clip_sample=False)
    clean, noise = normal(2, 3, 4, 4).float(), normal(2, 3, 4, 4, seed=1).float()
    t = torch.tensor([10, 700])
    v = schedule.target(clean, noise, t, "v")
    assert torch.allclose(v, theirs.get_velocity(clean, noise, t), atol=1e-5)
    assert torch.allclose(schedule.add_noise(clean, noise, t), theirs.add_noise(clean, noise, t), atol=1e-5)
    theirs.set_timesteps(50)
    x = schedule.add_noise(clean, noise, 700)
    said = schedule.target(clean, noise, 700, "v")
    stepped = theirs.step(said, 700, x).prev_sample
    assert torch.allclose(stepped, schedule.ddim_step(clean, noise, 700, 680), atol=1e-4)
