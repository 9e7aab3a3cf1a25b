"""finetune: the conditional diffusion model of the study, the guide once more on denoised images, and what single
kinds of direction learn from that model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from contrafact import seeds
from contrafact.counterfactual import slider
from contrafact.counterfactual.noise_aware import noisy
from contrafact.diffusion.denoiser import AnyUNet2D, Denoiser, PixelDenoiser, open_denoiser
from contrafact.diffusion.latents import Latents, open_latents
from contrafact.diffusion.network import Spec
from contrafact.diffusion.sample import sample
from contrafact.diffusion.schedule import Schedule
from contrafact.diffusion.train import TrainConfig, train
from contrafact.errors import UserError
from contrafact.images import decode, pack, splits
from contrafact.predictors.predictor import Predictor, as_input
from contrafact.predictors.quality import auc, r2
from contrafact.predictors.train import FitConfig, calibrate, fit, targets_of
from contrafact.run.context import Context
from contrafact.store.records import ModelRecord
from contrafact.study import schema

DENOISED = 1_000  # images at least from which the steering guide learns


def run(context: Context) -> dict[str, Any]:
    """Facts: files of the denoiser and of the guide that steers, last loss, names and units of the conditions."""
    study = context.study
    data = pack.load(context.files, context.upstream["ingest"])
    guide = Predictor.load(
        context.files.get_folder(context.upstream["predict"]["files"]["guide"], context.folder / "guide_in")
    )
    chosen = data.split == "train"
    latents = open_latents(context.loaded.inputs["model.autoencoder"]) if study.model.autoencoder else None
    names = ("score", *conditioned(study)) if study.model.images_seen else ()
    raw = np.empty((int(chosen.sum()), 0))
    if names:
        score = guide.read(data.images[chosen])[:, 0]
        raw = np.stack([score, *(data.covariates[name].to_numpy(float)[chosen] for name in names[1:])], 1)
    mean, sd = np.nanmean(raw, 0), np.nanstd(raw, 0)
    sd[sd == 0] = 1.0
    conditions = ((raw - mean) / sd).astype(np.float32)
    if study.model.images_seen:
        folder, loss = _trained(context, data, latents, conditions, names, mean, sd)
    else:
        folder, loss = _as_it_is(context, data, latents), float("nan")
    own_error = float("nan")
    if latents is not None:
        latents.save(folder / "vae")
        own_error = float(latents.error(as_input(data.images[data.split == "validation"])).mean())
        context.log_metrics({"autoencoder_error": own_error})
    denoiser = open_denoiser(folder)
    context.log_artifact(_samples(context, denoiser, latents, len(names)), "samples")
    context.log_artifact(folder, "denoiser")
    steering = _on_denoised(context, denoiser, latents, data, conditions)
    seen = study.model.images_seen
    files = {"denoiser": context.files.put_folder(folder), "guide": context.files.put_folder(steering)}
    models = [
        ModelRecord("denoiser", "denoiser", files["denoiser"], {"loss": loss, "images_seen": seen}),
        ModelRecord("guide", "guide, steering", files["guide"]),
    ]
    if any(direction.kind == "noise_aware" for direction in study.directions.values()):
        files["noise_aware"] = context.files.put_folder(_noise_aware(context, denoiser, data))
        models.append(ModelRecord("guide", "guide, noise-aware", files["noise_aware"]))
    sliders = {}
    for name, direction in study.directions.items():
        if direction.kind == "slider":
            adapter = _slider(context, name, denoiser, data.images[chosen], conditions, names)
            sliders[name] = context.files.put_folder(adapter)
            models.append(ModelRecord("slider", name, sliders[name]))
    context.store.put_models(context.study_id, context.stage_run_id, models)
    return {
        **files,
        "conditions": {
            name: {"mean": float(m), "sd": float(s)} for name, m, s in zip(names, mean, sd, strict=True)
        },
        "images_seen": seen,
        "loss": loss,
        "autoencoder_error": own_error,
        "sliders": sliders,
    }


def _as_it_is(context: Context, data: pack.Dataset, latents: Latents | None) -> Path:
    """The folder of somebody else's model, which is not trained here."""
    given, folder = context.loaded.inputs["model.start"], context.folder / "foreign"
    found = open_denoiser(given)
    where = f"{context.loaded.path}: model.start"
    if not isinstance(found, AnyUNet2D):
        raise UserError(f"{where}: this model has conditions of another study.", hint="Train it on: images_seen above 0.")
    wanted = tuple(as_input(_items(data.images[:1], latents)).shape[1:])
    if found.shape != wanted:
        raise UserError(
            f"{where}: the model draws {' x '.join(map(str, found.shape))} (channels, height, width), "
            f"the study needs {' x '.join(map(str, wanted))}.",
            hint="Set images.size and model.autoencoder to what the model was trained on.",
        )
    found.unet.save_pretrained(folder / "unet", safe_serialization=True)
    (folder / "scheduler").mkdir(exist_ok=True)
    settings = given / "scheduler" / "scheduler_config.json"
    (folder / "scheduler" / settings.name).write_bytes(settings.read_bytes())
    return folder


def _items(images: np.ndarray, latents: Latents | None) -> torch.Tensor | np.ndarray:
    """What the model sees of 8-bit images: these, or their latents (n, c, h, w)."""
    return images if latents is None else latents.encode(as_input(images))


def _trained(
    context: Context,
    data: pack.Dataset,
    latents: Latents | None,
    conditions: np.ndarray,
    names: tuple[str, ...],
    mean: np.ndarray,
    sd: np.ndarray,
) -> tuple[Path, float]:
    """Folder of the trained model, and its last loss."""
    study = context.study
    images = data.images[data.split == "train"]
    if len(data.extra):
        images = np.concatenate([images, data.extra])
        conditions = np.concatenate([conditions, np.full((len(data.extra), len(names)), np.nan, np.float32)])

    model, items = study.model, _items(images, latents)
    units = tuple(map(float, mean)), tuple(map(float, sd))
    size, inputs = (items.shape[1], 3) if latents is None else (items.shape[2], items.shape[1])
    try:
        spec = Spec(
            size, model.channels, model.patch, model.prediction, model.schedule, model.timesteps, names, *units, inputs
        )
    except ValueError as error:
        raise UserError(f"{context.loaded.path}: model.channels: {error}.", hint="The side is that of the latents.") from None
    config = TrainConfig(
        spec=spec,
        start=None if model.start == "scratch" else context.loaded.inputs["model.start"],
        seed=seeds.integer(study.seed, "finetune"),
        images_seen=model.images_seen,
        batch=model.batch,
        learning_rate=model.learning_rate,
        warmup_steps=model.warmup_steps,
        condition_dropout=model.condition_dropout,
        ema_halflife_images=model.ema_halflife_images,
        clip_norm=model.clip_norm,
        augment=model.augment,
        mixed_precision=model.mixed_precision,
        checkpoint_images=model.checkpoint_images,
        device="cuda" if torch.cuda.is_available() else "cpu",
    )
    context.log_params({**model.model_dump(), "conditions": names, "device": config.device})
    bar = iter(context.progress(range(config.steps), config.steps, "finetune"))
    shown = 0

    def report(line: dict[str, float]) -> None:
        nonlocal shown
        context.log_metrics(
            {key: value for key, value in line.items() if key != "step"}, step=int(line["step"])
        )
        while shown < line["step"]:
            next(bar, None)
            shown += 1

    result = train(items, conditions, config, context.folder / "train", report)
    assert result.folder is not None
    return result.folder, float(np.mean([line["loss"] for line in result.history[-10:]]))


def conditioned(study: schema.Study) -> tuple[str, ...]:
    """Covariates that any direction holds, then those that a condition shift or a slider aims at: conditions beside the
    score."""
    held = [name for direction in study.directions.values() for name in direction.hold]
    aimed = [
        direction.target
        for direction in study.directions.values()
        if direction.kind in ("condition", "slider") and direction.target != "outcome"
    ]
    return tuple(dict.fromkeys([*held, *aimed]))


def _samples(context: Context, denoiser: Denoiser, latents: Latents | None, conditions: int) -> Path:
    """A sheet of samples: scores from -2 to 2 SD in columns (where there are any), rows with the same noise."""
    condition = None
    if conditions:
        condition = torch.zeros(20, conditions)
        condition[:, 0] = torch.from_numpy(np.tile(np.linspace(-2, 2, 5), 4))
    noise = torch.from_numpy(
        seeds.normal((4, *denoiser.shape), context.study.seed, "samples")
    ).repeat_interleave(5, 0)
    drawn = sample(denoiser, noise, condition, steps=min(25, len(denoiser.alphas_cumprod)))
    pictures = decode.to_uint8((drawn if latents is None else latents.decode(drawn)).numpy())
    rows = [np.concatenate(list(pictures[k : k + 5]), axis=1) for k in range(0, 20, 5)]
    path = context.folder / "samples.png"
    path.write_bytes(decode.png_bytes(np.concatenate(rows)))
    return path


def _on_denoised(
    context: Context,
    denoiser: Denoiser,
    latents: Latents | None,
    data: pack.Dataset,
    conditions: np.ndarray,
) -> Path:
    """The guide that steers, trained on with images noised up to .7 of the schedule and denoised in one step.

    A guide that only knows photographs is easily fooled on the soft clean estimates that it steers. Its calibration
    and units are frozen anew on the validation images, or one SD of dose would not be one SD any more.
    """
    folder = context.folder / "guide_denoised"
    config, files = context.study.predictors.guide, context.upstream["predict"]["files"]
    if folder.exists():
        return folder
    guide = Predictor.load(context.files.get_folder(files.get("steering", files["guide"]), context.folder / "steering_in"))
    if config.denoised_share > 0:
        validation = data.split == "validation"
        train = (data.split == "train") & splits.steers(data.unit_id, config.steering_share, context.study.seed)
        conditions = conditions[train[data.split == "train"]]
        # Few photographs are noised several times over, or the guide would learn these very noises by heart.
        draws = -(-DENOISED // int(train.sum()))
        images = np.concatenate([data.images[train]] * draws)
        outcome, known = np.tile(data.outcome[train], draws)[:, None], np.tile(conditions, (draws, 1))
        schedule = Schedule(denoiser.alphas_cumprod)
        rng = seeds.generator(context.study.seed, "denoised")
        denoised = np.empty_like(images)
        for k in context.progress(range(0, len(images), 250), -(-len(images) // 250), "denoised images"):
            x = as_input(_items(images[k : k + 250], latents))
            t = torch.from_numpy(rng.integers(0, int(0.7 * len(schedule)), len(x)))
            noise = torch.from_numpy(rng.standard_normal(x.shape, dtype=np.float32))
            condition = torch.from_numpy(known[k : k + 250]) if known.shape[1] else None
            clean = denoiser.predict(schedule.add_noise(x, noise, t), t, condition).clean
            clean = clean if latents is None else latents.decode(clean)
            denoised[k : k + 250] = decode.to_uint8(clean.clamp(-1, 1).numpy())
        epochs = max(1, config.epochs // (2 * draws))
        settings = FitConfig(epochs, config.batch, config.learning_rate / 4, config.denoised_share, config.augment)
        seed = seeds.integer(context.study.seed, "guide_denoised")
        fit(guide, images, outcome, settings, seed, denoised=denoised)
        calibrate(guide, data.images[validation], data.outcome[validation][:, None])
    guide.save(folder)
    return folder


def _slider(
    context: Context,
    name: str,
    denoiser: Denoiser,
    images: np.ndarray,
    conditions: np.ndarray,
    names: tuple[str, ...],
) -> Path:
    """The adapter of one direction, trained on the values of its target and told every other condition."""
    folder, direction = context.folder / f"slider_{name}", context.study.directions[name]
    if folder.exists():
        return folder
    assert isinstance(denoiser, PixelDenoiser)
    told = "score" if direction.target == "outcome" else direction.target
    settings = direction.slider or schema.Slider()
    adapter = slider.learned(
        denoiser,
        images,
        conditions,
        conditions[:, names.index(told)],
        column=names.index(told),
        **settings.model_dump(),
        seed=seeds.integer(context.study.seed, "slider", name),
        report=lambda step, loss: context.log_metrics({f"{name}/loss": loss}, step=step),
    )
    draft = folder.with_name(folder.name + ".draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    adapter.save(draft / "adapter.safetensors")
    draft.rename(folder)
    context.log_artifact(folder, folder.name)
    return folder


def _noise_aware(context: Context, denoiser: Denoiser, data: pack.Dataset) -> Path:
    """A classifier of outcome and covariates on images at any noise level, with its quality at four of them."""
    folder, study = context.folder / "noise_aware", context.study
    outcome = study.images.outcome if study.images else schema.Outcome()
    covariates = study.images.covariates if study.images else {}
    kinds = [outcome.kind, *(covariate.kind for covariate in covariates.values())]
    values = np.column_stack([data.outcome, data.covariates[list(covariates)].to_numpy(float)])
    schedule = Schedule(denoiser.alphas_cumprod)
    if not folder.exists():
        chosen = data.split == "train"
        targets = targets_of(["outcome", *covariates], kinds, values[chosen])
        seed = seeds.integer(study.seed, "noise_aware")

        def seen(x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
            t = torch.from_numpy(rng.integers(0, len(schedule), len(x)))
            noise = torch.from_numpy(rng.standard_normal(x.shape, dtype=np.float32))
            return noisy(schedule.add_noise(x, noise, t), t, schedule)

        settings = study.predictors.guide
        config = FitConfig(settings.epochs, settings.batch, settings.learning_rate, augment=settings.augment)
        classifier = Predictor("noise_aware", targets, [seed])
        fit(classifier, data.images[chosen], values[chosen], config, seed, seen=seen).save(folder)
    classifier = Predictor.load(folder)
    validation = data.split == "validation"
    x = as_input(data.images[validation])
    noise = torch.from_numpy(seeds.normal(tuple(x.shape), study.seed, "noise_aware", "quality"))
    for t in (int(share * (len(schedule) - 1)) for share in (0, 0.25, 0.5, 0.75)):
        reading = classifier.read(noisy(schedule.add_noise(x, noise, t), t, schedule))
        for k, target in enumerate(classifier.targets):
            measure = auc if target.kind == "binary" else r2
            known = ~np.isnan(values[validation, k])
            found = measure(reading[known, k], values[validation, k][known])
            context.log_metrics({f"noise_aware/{target.name}/{measure.__name__}": found}, step=t)
    context.log_artifact(folder, "noise_aware")
    return folder
