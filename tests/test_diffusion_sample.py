"""Schedules hit their ends; a sampler with the ideal denoiser gives back the data."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from contrafact.diffusion.denoiser import PixelDenoiser, Prediction
from contrafact.diffusion.network import Spec, fresh
from contrafact.diffusion.sample import item_draws, sample
from contrafact.diffusion.schedule import Schedule, cosine, linear


@pytest.mark.parametrize("schedule", [cosine(1000), linear(1000), cosine(50)])
def test_schedules_fall_from_image_to_noise(schedule: Schedule) -> None:
    assert float(schedule.alphas_cumprod[0]) > 0.99
    assert float(schedule.alphas_cumprod[-1]) < 1e-3
    assert (schedule.alphas_cumprod.diff() < 0).all()
    assert float(schedule.alpha_bar(-1)) == 1
    with pytest.raises(ValueError, match="out of range"):
        schedule.alpha_bar(len(schedule))


def test_a_rising_schedule_is_refused() -> None:
    with pytest.raises(ValueError, match="fall"):
        Schedule(torch.tensor([0.5, 0.6], dtype=torch.float64))


@pytest.mark.parametrize(("steps", "depth", "first"), [(10, 1.0, 999), (10, 0.65, 649), (1000, 1.0, 999), (1, 0.5, 499)])
def test_timesteps_are_spread_over_the_depth(steps: int, depth: float, first: int) -> None:
    times = cosine(1000).timesteps(steps, depth)
    assert len(times) == steps == len(set(times.tolist()))
    assert int(times[0]) == first
    gaps = -torch.cat([times, torch.tensor([-1])]).diff()
    assert int(gaps.max() - gaps.min()) <= 1
    with pytest.raises(ValueError, match="do not fit"):
        cosine(1000).timesteps(600, 0.5)


class IdealGaussian:
    """For x_0 ~ N(mean, sd²) the best clean estimate is known: E[x_0|x_t]."""

    shape = (1, 1, 1)

    def __init__(self, schedule: Schedule, mean: float, sd: float) -> None:
        self.alphas_cumprod = schedule.alphas_cumprod
        self.mean, self.sd = mean, sd

    def predict(
        self, x: Tensor, t: Tensor, condition: Tensor | None = None, keep: Tensor | None = None
    ) -> Prediction:
        schedule = Schedule(self.alphas_cumprod)
        a = schedule.alpha_bar(t).to(x.dtype).reshape(-1, 1, 1, 1)
        gain = a.sqrt() * self.sd**2 / (a * self.sd**2 + 1 - a)
        clean = self.mean + gain * (x - a.sqrt() * self.mean)
        return Prediction(clean, schedule.noise_from(clean, x, t, "sample"))


@pytest.mark.parametrize("schedule", [cosine(200), linear(1000)], ids=["cosine", "linear"])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_ideal_denoiser_gives_back_mean_and_spread(schedule: Schedule, eta: float) -> None:
    n = 4000
    stream = torch.Generator().manual_seed(5)
    noise = torch.randn(n, 1, 1, 1, generator=stream)
    out = sample(
        IdealGaussian(schedule, 0.7, 0.4),
        noise,
        steps=200,
        eta=eta,
        draws=lambda step: torch.randn(n, 1, 1, 1, generator=torch.Generator().manual_seed(step)),
    )
    # 4 standard errors of 4000 draws, and 1% for the finite number of steps.
    assert float(out.mean()) == pytest.approx(0.7, abs=4 * 0.4 / n**0.5 + 0.004)
    assert float(out.std()) == pytest.approx(0.4, rel=4 / (2 * n) ** 0.5 + 0.01)


def tiny() -> PixelDenoiser:
    spec = Spec(size=8, channels=(8, 16), patch=2, conditions=("a",), mean=(0.0,), sd=(1.0,))
    return PixelDenoiser(fresh(spec, 1), cosine(100), "v")


def test_image_k_is_the_same_in_any_batch_and_ddim_is_deterministic() -> None:
    model, items = tiny(), list(range(7))
    condition = torch.linspace(-1, 1, 7)[:, None]

    def run(part: list[int]) -> Tensor:
        draws = item_draws(model.shape, 11, part)
        return sample(model, draws(0), condition[part], w=1.0, steps=5, eta=0.5, draws=draws)

    whole = run(items)
    assert torch.equal(whole, run(items))
    assert not torch.allclose(whole[0], whole[1], atol=0.1)
    for part in ([0], [3, 4], [6, 1]):
        assert float((run(part) - whole[part]).abs().max()) < 2 / 255 / 100
    still = sample(model, item_draws(model.shape, 11, items)(0), condition, steps=5)
    assert torch.equal(still, sample(model, item_draws(model.shape, 11, items)(0), condition, steps=5))


def test_eta_needs_draws_and_clip_bounds_the_image() -> None:
    model = tiny()
    noise = item_draws(model.shape, 2, [0, 1])(0)
    with pytest.raises(ValueError, match="draws"):
        sample(model, noise, eta=1.0)
    epsilon = PixelDenoiser(model.network, cosine(100), "epsilon")
    assert float(sample(epsilon, noise, steps=5).abs().max()) > 1.5
    assert float(sample(epsilon, noise, steps=5, clip=1.0).abs().max()) <= 1
