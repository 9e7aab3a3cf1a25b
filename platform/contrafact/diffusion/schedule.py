"""The noise schedule and every closed form that follows from it.

Notation as in the papers: α_t = 1 − β_t, ᾱ_t = ∏_{s≤t} α_s, x_t = √ᾱ_t·x_0 + √(1−ᾱ_t)·ε.

A timestep is an index 0 … T−1 as in diffusers, one less than the papers' t. Index −1 is the clean image, ᾱ = 1.
Sources: Ho, Jain, Abbeel 2020 (DDPM), Song, Meng, Ermon 2021 (DDIM), Nichol and Dhariwal 2021 (cosine),
Salimans and Ho 2022 (v), Kingma et al. 2021 (the bound written with the signal-to-noise ratio).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from diffusers import DDIMScheduler
from torch import Tensor

Kind = Literal["v", "epsilon", "sample"]
Name = Literal["cosine", "linear"]

_BETAS = {"cosine": "squaredcos_cap_v2", "linear": "linear"}
_KINDS = {"v": "v_prediction", "epsilon": "epsilon", "sample": "sample"}


def scheduler(name: Name, timesteps: int, kind: Kind) -> DDIMScheduler:
    """The diffusers scheduler that a model folder carries; clean estimates are never clipped."""
    return DDIMScheduler(
        num_train_timesteps=timesteps,
        beta_schedule=_BETAS[name],
        prediction_type=_KINDS[kind],
        clip_sample=False,
        timestep_spacing="trailing",
    )


def kind_of(scheduler: Any) -> Kind:
    """What the network of this diffusers scheduler predicts; ValueError where it is none of ours."""
    for kind, theirs in _KINDS.items():
        if scheduler.config.prediction_type == theirs:
            return kind  # type: ignore[return-value]
    raise ValueError(f"prediction type '{scheduler.config.prediction_type}' is none of {', '.join(_KINDS.values())}")


def schedule_of(scheduler: Any) -> Schedule:
    """The schedule of a diffusers scheduler, products taken in float64."""
    return Schedule(torch.cumprod(1 - scheduler.betas.double(), dim=0))


def cosine(timesteps: int) -> Schedule:
    """Squared cosine (Nichol and Dhariwal 2021, eq. 17), β capped at 0.999."""
    return schedule_of(scheduler("cosine", timesteps, "v"))


def linear(timesteps: int) -> Schedule:
    """β from 1e-4 to 0.02 (Ho et al. 2020, section 4); meant for T = 1000."""
    return schedule_of(scheduler("linear", timesteps, "v"))


@dataclass(frozen=True, eq=False)
class Schedule:
    """ᾱ_t for t = 0 … T−1: float64 of shape (T,), falling, within (0, 1).

    Wherever ``t`` or ``previous`` is asked for: an int, or a long tensor of shape (n,), one for each item of x.
    Coefficients are float64 and are rounded once, to the type of x.
    """

    alphas_cumprod: Tensor

    def __post_init__(self) -> None:
        values = self.alphas_cumprod
        if values.ndim != 1 or values.dtype != torch.float64:
            raise ValueError("alphas_cumprod must be a float64 tensor of shape (T,)")
        if not bool(((values > 0) & (values < 1)).all()) or not bool((values.diff() < 0).all()):
            raise ValueError("alphas_cumprod must fall strictly within (0, 1)")

    def __len__(self) -> int:
        return len(self.alphas_cumprod)

    def alpha_bar(self, t: Tensor | int) -> Tensor:
        """ᾱ_t in float64, of the shape of ``t``; 1 at t = −1."""
        index = torch.as_tensor(t, dtype=torch.long)
        if bool((index < -1).any()) or bool((index >= len(self)).any()):
            raise ValueError(f"timestep out of range: allowed are -1 to {len(self) - 1}")
        values = torch.cat([self.alphas_cumprod.new_ones(1), self.alphas_cumprod])
        return values[(index + 1).to(values.device)]

    def timesteps(self, steps: int, depth: float = 1.0) -> Tensor:
        """``steps`` falling timesteps, long (steps,), evenly spread over the lower ``depth`` (0, 1] of the schedule.

        The first is round(depth·T) − 1; the step after the last leads to the clean image ("trailing" spacing, Lin
        et al. 2024, table 2).
        """
        top = round(depth * len(self))
        if not 1 <= steps <= top <= len(self):
            raise ValueError(f"{steps} steps do not fit into depth {depth:g} of {len(self)} timesteps")
        return (torch.arange(steps, 0, -1, dtype=torch.float64) * top / steps).round().long() - 1

    # -- forward ------------------------------------------------------------------------------------------------

    def add_noise(self, clean: Tensor, noise: Tensor, t: Tensor | int) -> Tensor:
        """x_t = √ᾱ_t·x_0 + √(1−ᾱ_t)·ε."""
        signal, spread = self._scales(t, clean)
        return signal * clean + spread * noise

    def target(self, clean: Tensor, noise: Tensor, t: Tensor | int, kind: Kind) -> Tensor:
        """What a network of this kind should say: ε, x_0, or v = √ᾱ_t·ε − √(1−ᾱ_t)·x_0."""
        if kind == "epsilon":
            return noise
        if kind == "sample":
            return clean
        signal, spread = self._scales(t, clean)
        return signal * noise - spread * clean

    # -- from a prediction to (x̂_0, ε̂) ---------------------------------------------------------------------------

    def clean_from(self, prediction: Tensor, x: Tensor, t: Tensor | int, kind: Kind) -> Tensor:
        """x̂_0; with ε̂ it satisfies x_t = √ᾱ_t·x̂_0 + √(1−ᾱ_t)·ε̂."""
        if kind == "sample":
            return prediction
        signal, spread = self._scales(t, x)
        if kind == "epsilon":
            return (x - spread * prediction) / signal
        return signal * x - spread * prediction

    def noise_from(self, prediction: Tensor, x: Tensor, t: Tensor | int, kind: Kind) -> Tensor:
        """ε̂; with x̂_0 it satisfies x_t = √ᾱ_t·x̂_0 + √(1−ᾱ_t)·ε̂."""
        if kind == "epsilon":
            return prediction
        signal, spread = self._scales(t, x)
        if kind == "sample":
            return (x - signal * prediction) / spread
        return signal * prediction + spread * x

    # -- backward -----------------------------------------------------------------------------------------------

    def posterior_mean(self, clean: Tensor, x: Tensor, t: Tensor | int, previous: Tensor | int) -> Tensor:
        """Mean of q(x_s | x_t, x_0) for s = ``previous`` < t (DDPM eq. 7, with α_t read as ᾱ_t/ᾱ_s).

        [√α_t(1−ᾱ_s)·x_t + √ᾱ_s(1−α_t)·x_0] / (1−ᾱ_t).
        """
        a_t, a_s = self.alpha_bar(t), self.alpha_bar(previous)
        alpha = a_t / a_s
        of_x = alpha.sqrt() * (1 - a_s) / (1 - a_t)
        of_clean = a_s.sqrt() * (1 - alpha) / (1 - a_t)
        return _shaped(of_x, x) * x + _shaped(of_clean, x) * clean

    def posterior_variance(self, t: Tensor | int, previous: Tensor | int) -> Tensor:
        """Variance of q(x_s | x_t, x_0), float64: (1−α_t)(1−ᾱ_s)/(1−ᾱ_t); 0 where s is the clean image."""
        a_t, a_s = self.alpha_bar(t), self.alpha_bar(previous)
        return (1 - a_t / a_s) * (1 - a_s) / (1 - a_t)

    def ancestral_step(self, noise: Tensor, x: Tensor, t: Tensor | int, previous: Tensor | int, z: Tensor) -> Tensor:
        """(x_t − (1−α_t)/√(1−ᾱ_t)·ε̂)/√α_t + σ_t·z with σ_t the posterior's standard deviation (DDPM algorithm 2).

        σ_t is 0 on the step to the clean image, so z has no part in it.
        """
        a_t, a_s = self.alpha_bar(t), self.alpha_bar(previous)
        alpha = a_t / a_s
        mean = (x - _shaped((1 - alpha) / (1 - a_t).sqrt(), x) * noise) / _shaped(alpha.sqrt(), x)
        return mean + _shaped(self.posterior_variance(t, previous).sqrt(), x) * z

    def ddim_step(
        self,
        clean: Tensor,
        noise: Tensor,
        t: Tensor | int,
        previous: Tensor | int,
        eta: float = 0.0,
        z: Tensor | None = None,
    ) -> Tensor:
        """√ᾱ_s·x̂_0 + √(1−ᾱ_s−σ²)·ε̂ + σ·z with σ = η·posterior sd (DDIM eq. 12 and 16); η = 1 is the ancestral step."""
        a_s = self.alpha_bar(previous)
        variance = eta**2 * self.posterior_variance(t, previous)
        step = _shaped(a_s.sqrt(), clean) * clean + _shaped((1 - a_s - variance).clamp(min=0).sqrt(), clean) * noise
        if eta == 0:
            return step
        if z is None:
            raise ValueError("eta above 0 needs the noise z")
        return step + _shaped(variance.sqrt(), clean) * z

    # -- the bound ----------------------------------------------------------------------------------------------

    def elbo_weight_clean(self, t: Tensor | int) -> Tensor:
        """Weight of ‖x̂_0 − x_0‖² in KL(q(x_{t−1}|x_t,x_0) ‖ p_θ): (1/2σ_q²)·(1−α_t)²·ᾱ_{t−1}/(1−ᾱ_t)², in nats.

        NaN at t = 0, where the bound has a reconstruction term instead of a KL.
        """
        alpha, a_t, a_s, variance = self._one_step(t)
        return (1 - alpha) ** 2 * a_s / (1 - a_t) ** 2 / (2 * variance)

    def elbo_weight_noise(self, t: Tensor | int) -> Tensor:
        """Weight of ‖ε̂ − ε‖² in the same KL: (1/2σ_q²)·(1−α_t)²/(α_t(1−ᾱ_t)), in nats; NaN at t = 0."""
        alpha, a_t, _, variance = self._one_step(t)
        return (1 - alpha) ** 2 / (alpha * (1 - a_t)) / (2 * variance)

    def _one_step(self, t: Tensor | int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        index = torch.as_tensor(t, dtype=torch.long)
        a_t, a_s = self.alpha_bar(index), self.alpha_bar(index - 1)
        variance = self.posterior_variance(index, index - 1)
        return a_t / a_s, a_t, a_s, variance.where(index.to(variance.device) > 0, torch.nan)

    def _scales(self, t: Tensor | int, like: Tensor) -> tuple[Tensor, Tensor]:
        a_t = self.alpha_bar(t)
        return _shaped(a_t.sqrt(), like), _shaped((1 - a_t).sqrt(), like)


def _shaped(coefficient: Tensor, like: Tensor) -> Tensor:
    """A coefficient for each item of (n, …), or one for all."""
    rounded = coefficient.to(device=like.device, dtype=like.dtype)
    return rounded.reshape(-1, *[1] * (like.ndim - 1)) if rounded.ndim else rounded
