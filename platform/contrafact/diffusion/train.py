"""Training that can be killed at any moment and still ends in the same weights.

Every random draw belongs to a step number, never to the state of a generator, so a step that is done again after a
restart is the same step.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from diffusers.training_utils import EMAModel
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from contrafact import seeds
from contrafact.diffusion import network
from contrafact.diffusion.denoiser import Denoiser, known
from contrafact.diffusion.network import Spec
from contrafact.diffusion.schedule import Schedule, schedule_of, scheduler
from contrafact.errors import UserError

REPORT_STEPS = 50
EMA_STEPS = 4  # the average is taken every fourth step: each one costs a tenth of a step on a CPU
_MOMENTS = ("exp_avg", "exp_avg_sq")


class DivergedError(UserError, ValueError):
    """Loss or gradient became NaN or infinite; ``checkpoint`` is the last good one, or None."""

    def __init__(self, step: int, checkpoint: Path | None) -> None:
        self.step = step
        self.checkpoint = checkpoint
        kept = f"the last good checkpoint is {checkpoint}" if checkpoint else "no checkpoint was written before"
        super().__init__(
            f"Training diverged: the loss or its gradient is not finite by step {step}; {kept}.",
            hint="Lower model.learning_rate, or set model.mixed_precision to off.",
        )


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained; the model itself is ``spec``.

    ``images_seen`` counts repeats. ``start`` is a model folder to fine-tune. ``ema_halflife_images``: after so many
    images a weight counts half in the average; early in training the average forgets faster. ``mixed_precision``
    "auto" is bfloat16 where the device computes it faster.
    """

    spec: Spec = field(default_factory=Spec)
    start: Path | None = None
    seed: int = 0
    images_seen: int = 110_000
    batch: int = 32
    learning_rate: float = 1e-3
    warmup_steps: int = 300
    condition_dropout: float = 0.1
    ema_halflife_images: float = 11_000
    clip_norm: float = 1.0
    augment: bool = False
    mixed_precision: str = "auto"
    checkpoint_images: int = 10_000
    device: str = "cpu"

    @property
    def steps(self) -> int:
        return math.ceil(self.images_seen / self.batch)


@dataclass(frozen=True)
class TrainResult:
    """``folder`` holds the averaged model, None where training was stopped before its end."""

    folder: Path | None
    history: tuple[dict[str, float], ...]
    images_seen: int


def train(
    images: np.ndarray | Tensor,
    conditions: np.ndarray | Tensor | None,
    config: TrainConfig,
    folder: Path,
    report: Callable[[dict[str, float]], None] = lambda facts: None,
    stop_after: int | None = None,
    weights: np.ndarray | Tensor | None = None,
) -> TrainResult:
    """Train, or go on training, in ``folder``; gives the folder of the averaged model.

    ``images``: uint8 (n, h, w, 3), or float32 (n, 3, h, w) in [-1, 1]. ``conditions``: float32 (n, k) standardised,
    NaN = not known, a row of NaN = an unlabelled image. ``weights`` (n,): how often an image is drawn, relative to
    the others. ``stop_after``: leave with a checkpoint once this many steps are done. ``report`` gets a line of the
    history every 50 steps: step, images, loss, grad_norm, lr, images_per_second.

    A folder with a checkpoint of the same images and settings is taken up; another one raises ValueError. A loss or
    gradient that is not finite raises DivergedError.
    """
    data = _pixels(images, config.spec.size, config.spec.inputs)
    labels = _labels(conditions, len(data), len(config.spec.conditions))
    cumulative = _cumulative(weights, len(data))
    device = torch.device(config.device)
    if config.mixed_precision not in ("auto", "off"):
        raise ValueError("mixed_precision must be auto or off")
    bfloat16 = config.mixed_precision == "auto" and _gains_from_bfloat16(device)

    if config.start is None:
        model = network.fresh(config.spec, seeds.integer(config.seed, "weights"))
    else:
        model = network.start_from(config.start, config.spec, seeds.integer(config.seed, "weights"))
    key = _fingerprint(config, model, data, labels, cumulative)
    model = model.to(device).train()
    data = data.to(device)
    parameters = list(model.parameters())
    optimiser = torch.optim.AdamW(parameters, lr=config.learning_rate, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    ema = EMAModel(
        parameters,
        decay=ema_decay(EMA_STEPS * config.batch, config.ema_halflife_images),
        use_ema_warmup=True,
        # The average reaches back a quarter of the way at most: 1 − decay = 4/(4 + number of averages).
        inv_gamma=4.0,
        power=1.0,
        foreach=True,
    )
    schedule = schedule_of(scheduler(config.spec.schedule, config.spec.timesteps, config.spec.prediction))
    # Sums since the last line of the history: loss, gradient norm, steps. They stay on the device until it is written.
    window = torch.zeros(3, dtype=torch.float64, device=device)

    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoint.safetensors"
    done = _take_up(checkpoint, key, model, optimiser, ema, window) if checkpoint.exists() else 0
    history = _history_until(folder / "history.jsonl", done)
    every = max(1, round(config.checkpoint_images / config.batch))
    last = config.steps if stop_after is None else min(config.steps, stop_after)
    since, clock = done, time.perf_counter()

    with (
        (folder / "history.jsonl").open("a") as lines,
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
    ):
        for step in range(done, last):
            draw = _draw(config, step, cumulative, len(data), schedule)
            items = draw.items.to(device)
            clean = _to_float(data[items])
            if config.augment:
                clean = _augment(clean, draw.augment.to(device))
            noise = draw.noise.to(device)
            x = schedule.add_noise(clean, noise, draw.t)
            target = schedule.target(clean, noise, draw.t, config.spec.prediction)
            condition, keep = known(labels[draw.items], draw.keep)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bfloat16):
                out = model(x, draw.t.to(device), condition.to(device), keep.to(device))
            loss = F.mse_loss(out.float(), target)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm)
            rate = learning_rate(config, step)
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.step()
            now = step + 1
            if now % EMA_STEPS == 0 or now == config.steps:
                ema.step(parameters)
            window += torch.stack([loss.detach(), norm, torch.ones_like(norm)])

            reporting = now % REPORT_STEPS == 0 or now == config.steps
            saving = now % every == 0 or now == last
            if (reporting or saving) and not bool(window.isfinite().all()):
                raise DivergedError(now, checkpoint if checkpoint.exists() else None)
            if reporting:
                total, norms, count = window.tolist()
                window.zero_()
                seconds = time.perf_counter() - clock
                facts = {
                    "step": now,
                    "images": now * config.batch,
                    "loss": total / count,
                    "grad_norm": norms / count,
                    "lr": rate,
                    "images_per_second": (now - since) * config.batch / seconds,
                }
                since, clock = now, time.perf_counter()
                history.append(facts)
                lines.write(json.dumps(facts) + "\n")
                lines.flush()
                report(facts)
            if saving:
                _save_checkpoint(checkpoint, key, now, model, optimiser, ema, window)

    if last < config.steps:
        return TrainResult(None, tuple(history), last * config.batch)
    ema.copy_to(parameters)
    final, fresh = folder / "model", folder / "model.part"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    network.save(model.cpu(), fresh)
    shutil.rmtree(final, ignore_errors=True)
    fresh.replace(final)
    return TrainResult(final, tuple(history), config.steps * config.batch)


def ema_decay(batch: int, halflife_images: float) -> float:
    """Decay of one average over ``batch`` images, so that decay^(halflife/batch) = 1/2."""
    return 0.5 ** (batch / halflife_images)


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, then a half cosine down to 2% at the last step."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    fall = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / max(1, config.steps - 1)))
    return config.learning_rate * warm * fall


def held_out_loss(
    denoiser: Denoiser,
    images: np.ndarray | Tensor,
    conditions: np.ndarray | Tensor | None,
    seed: int,
    repeats: int = 4,
    batch: int = 64,
) -> Tensor:
    """Mean squared error of v = √ᾱ_t·ε − √(1−ᾱ_t)·x_0 for each image: float64 (n,), over ``repeats`` timesteps.

    Timesteps and noise depend on the seed and the image's place alone, so models meet the same task whatever they
    predict.
    """
    schedule = Schedule(denoiser.alphas_cumprod)
    data = _pixels(images, denoiser.shape[-1], denoiser.shape[0])
    labels = None if conditions is None else torch.as_tensor(np.asarray(conditions), dtype=torch.float32)
    losses = torch.zeros(len(data), dtype=torch.float64)
    for repeat in range(repeats):
        for part in torch.arange(len(data)).split(batch):
            clean = _to_float(data[part])
            streams = [seeds.generator(seed, "held out", int(i), repeat) for i in part]
            # One timestep from each of `repeats` equal strata of the schedule.
            t = torch.tensor([int((repeat + stream.random()) / repeats * len(schedule)) for stream in streams])
            noise = torch.stack([torch.from_numpy(s.standard_normal(clean.shape[1:], np.float32)) for s in streams])
            x = schedule.add_noise(clean, noise, t)
            said = denoiser.predict(x, t, None if labels is None else labels[part])
            error = schedule.target(said.clean - clean, said.noise - noise, t, "v")
            losses[part] += error.double().pow(2).mean(dim=(1, 2, 3)) / repeats
    return losses


# -- the draws of a step ----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Draw:
    items: Tensor
    t: Tensor
    noise: Tensor
    keep: Tensor
    augment: Tensor


def _draw(config: TrainConfig, step: int, cumulative: Tensor | None, n: int, schedule: Schedule) -> _Draw:
    stream = torch.Generator().manual_seed(seeds.integer(config.seed, "step", step))
    if cumulative is None:
        items = torch.randint(n, (config.batch,), generator=stream)
    else:
        places = torch.rand(config.batch, generator=stream, dtype=torch.float64)
        items = torch.searchsorted(cumulative, places, right=True).clamp(max=n - 1)
    size = config.spec.size
    return _Draw(
        items=items,
        t=torch.randint(len(schedule), (config.batch,), generator=stream),
        noise=torch.randn(config.batch, config.spec.inputs, size, size, generator=stream),
        keep=(torch.rand(config.batch, generator=stream) >= config.condition_dropout).float(),
        augment=torch.rand(config.batch, 7, generator=stream) * 2 - 1 if config.augment else items,
    )


def _augment(x: Tensor, draw: Tensor) -> Tensor:
    """Mirror half of the images, shift by up to 4% of the side, tint mildly; ``draw`` (n, 7) uniform in [-1, 1]."""
    n, side = len(x), x.shape[-1]
    theta = torch.zeros(n, 2, 3, device=x.device)
    theta[:, 0, 0] = torch.where(draw[:, 0] < 0, -1.0, 1.0)
    theta[:, 1, 1] = 1.0
    # Whole pixels, so that nothing is blurred; the grid spans 2 units for `side` pixels.
    theta[:, :, 2] = (draw[:, 1:3] * 0.04 * side).round() * (2 / side)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    moved = F.grid_sample(x, grid, mode="nearest", padding_mode="border", align_corners=False)
    gain = 1 + 0.05 * draw[:, 3:4] + 0.03 * draw[:, 4:7]
    return ((moved + 1) * gain[:, :, None, None] - 1).clamp(-1, 1)


# -- what goes in -----------------------------------------------------------------------------------------------


def _pixels(images: np.ndarray | Tensor, size: int, inputs: int) -> Tensor:
    """(n, inputs, size, size), uint8 as it came or float32: pixels in [-1, 1], or latents."""
    data = torch.as_tensor(images)
    if data.dtype == torch.uint8 and data.ndim == 4:
        data = data.permute(0, 3, 1, 2).contiguous()
    elif not data.is_floating_point():
        raise ValueError("images must be uint8 (n, h, w, 3) or float (n, 3, h, w) in [-1, 1]")
    else:
        data = data.float()
    if data.ndim != 4 or tuple(data.shape[1:]) != (inputs, size, size) or not len(data):
        raise ValueError(f"images give {tuple(data.shape)} where (n, {inputs}, {size}, {size}) is needed")
    return data


def _to_float(pixels: Tensor) -> Tensor:
    return pixels.float() / 127.5 - 1 if pixels.dtype == torch.uint8 else pixels


def _labels(conditions: np.ndarray | Tensor | None, n: int, k: int) -> Tensor:
    if conditions is None:
        return torch.full((n, k), torch.nan)
    labels = torch.as_tensor(conditions).float()
    if tuple(labels.shape) != (n, k):
        raise ValueError(f"conditions give {tuple(labels.shape)} where ({n}, {k}) is needed")
    if bool(labels.isinf().any()):
        raise ValueError("conditions must be finite, or NaN where not known")
    return labels


def _cumulative(weights: np.ndarray | Tensor | None, n: int) -> Tensor | None:
    if weights is None:
        return None
    values = torch.as_tensor(weights).double()
    if tuple(values.shape) != (n,) or not bool((values >= 0).all()) or not bool(values.sum() > 0):
        raise ValueError(f"weights must be {n} numbers of 0 or more, not all 0")
    return values.cumsum(0) / values.sum()


def _fingerprint(
    config: TrainConfig, model: nn.Module, data: Tensor, labels: Tensor, cumulative: Tensor | None
) -> str:
    """What decides the weights at the end: settings, first weights (not the folder they came from), data."""
    settings = asdict(config)
    del settings["start"], settings["checkpoint_images"], settings["device"]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for tensor in (*model.state_dict().values(), data, labels, cumulative):
        if tensor is not None:
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _gains_from_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and bool(torch.cpu.get_capabilities().get("avx512_bf16"))


# -- checkpoints ------------------------------------------------------------------------------------------------


def _save_checkpoint(
    path: Path,
    key: str,
    step: int,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    ema: EMAModel,
    window: Tensor,
) -> None:
    """One file, written beside its place and moved there: a kill leaves the old one or the new one."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"ema.{i}": tensor for i, tensor in enumerate(ema.shadow_params)}
    for i, state in optimiser.state_dict()["state"].items():
        tensors |= {f"adam.{i}.{moment}": state[moment] for moment in _MOMENTS}
    tensors["window"] = window
    part = path.with_suffix(".part")
    save_file({name: t.contiguous() for name, t in tensors.items()}, part, {"step": str(step), "key": key})
    with part.open("rb") as written:
        os.fsync(written.fileno())
    part.replace(path)


def _take_up(
    path: Path, key: str, model: nn.Module, optimiser: torch.optim.Optimizer, ema: EMAModel, window: Tensor
) -> int:
    """Put everything back as it was; gives the number of steps that are done."""
    with safe_open(path, framework="pt") as file:
        facts = file.metadata()
        if facts.get("key") != key:
            raise ValueError(f"{path} belongs to other images or settings: remove it, or train in another folder")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    step = int(facts["step"])
    model.load_state_dict({name: tensors[f"model.{name}"] for name in model.state_dict()})
    count = len(list(model.parameters()))
    state = {
        i: {"step": torch.tensor(float(step)), **{moment: tensors[f"adam.{i}.{moment}"] for moment in _MOMENTS}}
        for i in range(count)
    }
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    for i, shadow in enumerate(ema.shadow_params):
        shadow.copy_(tensors[f"ema.{i}"])
    ema.optimization_step = step // EMA_STEPS
    window.copy_(tensors["window"])
    return step


def _history_until(path: Path, step: int) -> list[dict[str, float]]:
    """The lines up to this step; later ones, of steps that will be done again, leave the file."""
    kept: list[dict[str, float]] = []
    for line in path.read_text().splitlines() if path.exists() else []:
        if not line.endswith("}") or (facts := json.loads(line))["step"] > step:
            break
        kept.append(facts)
    path.write_text("".join(json.dumps(facts) + "\n" for facts in kept))
    return kept
