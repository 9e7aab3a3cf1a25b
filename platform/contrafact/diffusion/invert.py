"""Exact inversion and replay: an unedited replay returns the source image, whatever the network.

Two ways up, one way down. *Direct* inversion runs DDIM backwards (Song, Meng & Ermon 2021, equation 13) and keeps,
for each step down, what the deterministic step misses (Ju et al. 2024, "Direct Inversion"). *Edit-friendly*
inversion draws each noise level independently (Huberman-Spiegelglas et al. 2024, equation 6) and keeps the noise
that the ancestral step would have needed. In both the path ``x`` and the residuals are stored, so a replay under
the same condition retraces the path and a replay under another condition differs by the condition alone.

Shapes: ``n`` source images, ``m`` edited rows (images x doses), ``K`` steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from contrafact.diffusion.denoiser import Denoiser, Prediction, guided
from contrafact.diffusion.schedule import Schedule

LARGEST = 1e3
"""Largest value of a source; pixels stay in [-1, 1], latents within a few tens."""


@dataclass(frozen=True)
class Path:
    """One batch of inverted images.

    ``x`` (K+1, n, c, h, w), ``x[0]`` the source; ``clean`` and ``residual`` (K, n, c, h, w) belong to the step down
    from ``x[k + 1]`` to ``x[k]``; ``timesteps`` (K+1) with -1 for the source; ``condition`` (n, k) or None.
    """

    x: Tensor
    clean: Tensor
    residual: Tensor
    timesteps: tuple[int, ...]
    condition: Tensor | None
    eta: float
    w: float


@dataclass(frozen=True)
class Step:
    """What a push may look at: step number, rows' images, clean estimates now and on the unedited path.

    ``x`` (m, c, h, w) is the noisy image that ``clean`` was estimated from, ``t`` its time.
    """

    number: int
    index: Tensor
    clean: Tensor
    reference: Tensor
    x: Tensor
    t: int


def _step_mean(schedule: Schedule, prediction: Prediction, t: int, s: int, eta: float) -> Tensor:
    """Mean of the DDIM step from ``t`` down to ``s``; what it misses is the residual."""
    still = torch.zeros_like(prediction.clean) if eta else None
    return schedule.ddim_step(prediction.clean, prediction.noise, t, s, eta, still)


def _predict(denoiser: Denoiser, x: Tensor, t: int, condition: Tensor | None, w: float) -> Prediction:
    return guided(denoiser, x, torch.full((len(x),), max(t, 0), dtype=torch.long), condition, w)


@torch.no_grad()
def invert(
    denoiser: Denoiser,
    source: Tensor,
    condition: Tensor | None,
    *,
    kind: str = "direct",
    depth: float = 0.65,
    steps: int = 10,
    w: float = 0.0,
    noise: Tensor | None = None,
) -> Path:
    """Invert ``source`` (n, c, h, w).

    ``noise`` (K, n, c, h, w) standard normal, needed by ``edit_friendly`` alone; ``w`` is the extra guidance of
    Ho & Salimans 2022 (0 is plain conditional). Costs K+1 network evaluations (K for ``edit_friendly``).
    """
    if kind not in ("direct", "edit_friendly"):
        raise ValueError(f"unknown inversion {kind!r}; known: direct, edit_friendly")
    if not bool(torch.isfinite(source).all()) or float(source.abs().max()) > LARGEST:
        raise ValueError(f"images to invert must be finite numbers of at most {LARGEST:g} in size")
    if condition is not None and bool(condition.isinf().any()):
        raise ValueError("a condition must be a finite number, or NaN where it is not known")
    schedule = Schedule(denoiser.alphas_cumprod)
    ladder = (-1, *schedule.timesteps(steps, depth).flip(0).tolist())
    eta = 0.0 if kind == "direct" else 1.0
    if kind == "edit_friendly" and noise is None:
        raise ValueError("edit_friendly inversion needs `noise`")
    x, clean, residual = [source], [], []
    below = _predict(denoiser, source, -1, condition, w) if kind == "direct" else None
    for k in range(1, len(ladder)):
        if below is not None:
            up = schedule.add_noise(below.clean, below.noise, ladder[k])
        else:
            assert noise is not None
            up = schedule.add_noise(source, noise[k - 1], ladder[k])
        prediction = _predict(denoiser, up, ladder[k], condition, w)
        residual.append(x[-1] - _step_mean(schedule, prediction, ladder[k], ladder[k - 1], eta))
        clean.append(prediction.clean)
        x.append(up)
        below = prediction if below is not None else None
    return Path(torch.stack(x), torch.stack(clean), torch.stack(residual), ladder, condition, eta, w)


@torch.no_grad()
def replay(
    denoiser: Denoiser,
    path: Path,
    index: Tensor,
    condition: Tensor | None,
    change: Callable[[Step], Tensor] | None = None,
) -> Tensor:
    """Walk down the path for ``m`` rows; row ``j`` is an edit of image ``index[j]`` under ``condition[j]``.

    ``change`` gives a change of the clean estimate (m, c, h, w), added with the coefficient ``sqrt(alphas_cumprod)``
    of the level below: a change inside the step's mean alone would mostly be cancelled by the residual (the
    asymmetry of Kwon, Jeong & Uh 2023). One network evaluation a step (two where ``w`` is not 0).
    """
    schedule = Schedule(denoiser.alphas_cumprod)
    x = path.x[-1][index]
    for k in range(len(path.timesteps) - 1, 0, -1):
        t, s = path.timesteps[k], path.timesteps[k - 1]
        noisy, prediction = x, _predict(denoiser, x, t, condition, path.w)
        x = _step_mean(schedule, prediction, t, s, path.eta) + path.residual[k - 1][index]
        if change is not None:
            step = Step(k, index, prediction.clean, path.clean[k - 1][index], noisy, t)
            x = x + float(schedule.alpha_bar(s).sqrt()) * change(step)
    return x
