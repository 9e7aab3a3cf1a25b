"""Exact inversion and replay: an unedited replay returns the source image, whatever the network.

Two ways up, one way down. *Direct* inversion runs DDIM backwards (Song, Meng & Ermon 2021, equation 13) and keeps,
for each step down, what the deterministic step misses (Ju et al. 2024, "Direct Inversion"). *Edit-friendly*
inversion draws each noise level independently (Huberman-Spiegelglas et al. 2024, equation 6) and keeps the noise
that the ancestral step would have needed. In both the path ``x`` and the residuals are stored, so a replay under
the same condition retraces the path and a replay under another condition differs by the condition alone.

*Noised* is no inversion: the source is covered with noise up to the depth and drawn anew under its own condition
(Meng et al. 2022, "SDEdit"; within a region, inpainting after Lugmayr et al. 2022, "RePaint", without resampling).
The path then leads to the picture drawn anew, ``x[0]``, and a replay returns that one exactly.

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
    ``region`` (n, 1, H, W) in [0, 1] is where pictures may change; None is everywhere. A path of latents has
    ``decode``, from latents to pixels, and ``pixels`` (n, 3, H, W), the photographs that edits change.
    """

    x: Tensor
    clean: Tensor
    residual: Tensor
    timesteps: tuple[int, ...]
    condition: Tensor | None
    eta: float
    w: float
    region: Tensor | None = None
    pixels: Tensor | None = None
    decode: Callable[[Tensor], Tensor] | None = None

    @property
    def sources(self) -> Tensor:
        """The pictures that edits change."""
        return self.x[0] if self.pixels is None else self.pixels

    def changes(self, rows: Tensor, index: Tensor) -> Tensor:
        """What replayed ``rows`` (m, ...) change of the pictures ``index`` (m,)."""
        if self.decode is None:
            return rows - self.x[0][index]
        change = self.decode(rows) - self.decode(self.x[0])[index]
        return change if self.region is None else change * self.region[index]

    def reading(self, reader: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """A reader of pictures as a reader of what this path is made of."""
        decode = self.decode
        return reader if decode is None else lambda x: reader(decode(x))

    def free(self, index: Tensor) -> Tensor | None:
        """Where rows may leave the path, (m, 1, h, w) at its own size: a latent is free where any of its pixels is."""
        return None if self.region is None else _at_size(self.region[index], self.x)


@dataclass(frozen=True)
class Step:
    """What a push may look at: step number, rows' images, clean estimates now and on the unedited path.

    ``x`` (m, c, h, w) is the noisy image that ``clean`` was estimated from, ``t`` its time, ``condition`` (m, k) or
    None what it was estimated under.
    """

    number: int
    index: Tensor
    clean: Tensor
    reference: Tensor
    x: Tensor
    t: int
    condition: Tensor | None


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
    region: Tensor | None = None,
) -> Path:
    """Invert ``source`` (n, c, h, w).

    ``noise`` (K, n, c, h, w) standard normal, needed by ``edit_friendly`` and ``noised`` (its last); ``w`` is the
    extra guidance of Ho & Salimans 2022 (0 is plain conditional). ``region`` (n, 1, h, w) in [0, 1] bounds replays,
    and what ``noised`` draws anew. Costs K network evaluations, one more for ``direct``. ValueError for values that
    are not finite or out of bounds.
    """
    if kind not in ("direct", "edit_friendly", "noised"):
        raise ValueError(f"unknown inversion {kind!r}; known: direct, edit_friendly, noised")
    if region is not None and not bool(((region >= 0) & (region <= 1)).all()):
        raise ValueError("a region must have numbers from 0 to 1")
    if not bool(torch.isfinite(source).all()) or float(source.abs().max()) > LARGEST:
        raise ValueError(f"images to invert must be finite numbers of at most {LARGEST:g} in size")
    if condition is not None and bool(condition.isinf().any()):
        raise ValueError("a condition must be a finite number, or NaN where it is not known")
    schedule = Schedule(denoiser.alphas_cumprod)
    ladder = (-1, *schedule.timesteps(steps, depth).flip(0).tolist())
    eta = 1.0 if kind == "edit_friendly" else 0.0
    if kind != "direct" and noise is None:
        raise ValueError(f"{kind} inversion needs `noise`")
    if kind == "noised":
        assert noise is not None
        return _drawn_anew(denoiser, source, condition, ladder, w, noise[-1], region)
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
    return Path(torch.stack(x), torch.stack(clean), torch.stack(residual), ladder, condition, eta, w, region)


def _drawn_anew(
    denoiser: Denoiser,
    source: Tensor,
    condition: Tensor | None,
    ladder: tuple[int, ...],
    w: float,
    noise: Tensor,
    region: Tensor | None,
) -> Path:
    """The deterministic path down from the noised source; outside the region it is the source's own."""
    schedule = Schedule(denoiser.alphas_cumprod)
    x, clean, residual = [schedule.add_noise(source, noise, ladder[-1])], [], []
    limit = source.abs().amax((1, 2, 3), keepdim=True).clamp(min=1)
    for k in range(len(ladder) - 1, 0, -1):
        prediction = _predict(denoiser, x[-1], ladder[k], condition, w)
        mean = _step_mean(schedule, prediction, ladder[k], ladder[k - 1], 0.0)
        own = schedule.add_noise(source, noise, ladder[k - 1]) if k > 1 else source
        below = mean if k > 1 else mean.clamp(-limit, limit)  # the range of pixels, or that of these latents
        below = below if region is None else _within(_at_size(region, source), k, below, own)
        residual.append(below - mean)
        clean.append(prediction.clean)
        x.append(below)
    stacks = [torch.stack(each[::-1]) for each in (x, clean, residual)]
    return Path(stacks[0], stacks[1], stacks[2], ladder, condition, 0.0, w, region)


def _at_size(region: Tensor, items: Tensor) -> Tensor:
    if region.shape[-2:] == items.shape[-2:]:
        return region
    return (torch.nn.functional.adaptive_max_pool2d(region, items.shape[-2:]) > 0).to(region)


def _within(region: Tensor, k: int, inside: Tensor, outside: Tensor) -> Tensor:
    """``outside`` where the region is 0, to the bit. On the way down it is hard, or its soft edge would count at
    every step anew; the last step has it as it is."""
    share = region if k == 1 else (region > 0).to(inside)
    return torch.where(share > 0, outside + share * (inside - outside), outside)


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
    x, free = path.x[-1][index], path.free(index)
    for k in range(len(path.timesteps) - 1, 0, -1):
        t, s = path.timesteps[k], path.timesteps[k - 1]
        noisy, prediction = x, _predict(denoiser, x, t, condition, path.w)
        x = _step_mean(schedule, prediction, t, s, path.eta) + path.residual[k - 1][index]
        if change is not None:
            step = Step(k, index, prediction.clean, path.clean[k - 1][index], noisy, t, condition)
            x = x + float(schedule.alpha_bar(s).sqrt()) * change(step)
        if free is not None:
            x = _within(free, k, x, path.x[k - 1][index])
    return x
