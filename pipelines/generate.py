"""generate: for each image in support, every arm and dose of every direction, item by item."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path as File
from typing import Any

import numpy as np
import torch

from contrafact import seeds
from contrafact.counterfactual import arms, delivery, mask
from contrafact.counterfactual.contrast import discriminant, sides
from contrafact.counterfactual.direction import ConditionShift, Direction, Guidance, Reader, Sum, smoothed
from contrafact.counterfactual.edit import Edited, edit, reading_change, unsupported
from contrafact.counterfactual.latent import Encoded, Latent, complete, shifts, slope
from contrafact.counterfactual.noise_aware import NoiseAware
from contrafact.counterfactual.slider import Adapter, Slider
from contrafact.counterfactual.text import between_phrases, open_text_model
from contrafact.counterfactual.unit import scaled
from contrafact.diffusion.denoiser import Denoiser, open_denoiser, scale_from_w
from contrafact.diffusion.invert import Path, invert, replay
from contrafact.diffusion.latents import Latents, open_latents
from contrafact.diffusion.schedule import Schedule
from contrafact.errors import UserError
from contrafact.images import decode, pack
from contrafact.predictors.predictor import Predictor, Target, as_input
from contrafact.predictors.quality import Mapping
from contrafact.predictors.train import FitConfig, fit
from contrafact.run.context import Context
from contrafact.store.records import StimulusRecord
from contrafact.study import schema

FOREIGN_UNIT = (0.05, 20.0)
"""How far a strength may be corrected where a direction's own unit is not that of the target."""


LEARNED = 1_000
"""Images of the training split at most from which a latent direction is learned."""

AXIOMS = 8
"""Images at most of each direction on which null cycles and the way back are tried."""

DRAWN = 16
"""Validation images at most on which each condition is shifted, to see what the model can draw of it."""

NOISE_SHARE = 0.25
"""Depth, as a share of the schedule, to which pictures are covered with noise and drawn anew for their anomaly."""

CYCLES = 10
"""Null edits one after another."""

PILOT = 8
"""Validation images at most on which the unit of such a direction is found."""


@dataclass(frozen=True)
class Instruments:
    """What reads and draws pictures on the guide's side.

    ``guide`` reads photographs, ``steering`` clean estimates, ``noise_aware`` noisy images; ``conditions`` are those
    of the denoiser, each with its mean and SD; ``sliders`` its adapters by direction; ``latents`` what it works on,
    where that is not pixels.
    """

    data: pack.Dataset
    guide: Predictor
    steering: Predictor
    probes: Predictor | None
    denoiser: Denoiser
    conditions: dict[str, dict[str, float]]
    noise_aware: Predictor | None
    sliders: dict[str, Adapter]
    latents: Latents | None

    def reads(self, target: str) -> Reader:
        """The reading of photographs that a dose of ``target`` is counted in."""
        return (lambda x: self.guide.score(x)[:, 0]) if target == "outcome" else self.steers(target)

    def steers(self, target: str) -> Reader:
        """The reading of clean estimates whose gradient steers, or is held."""
        if target == "outcome":
            return lambda x: self.steering.score(x)[:, 0]
        assert self.probes is not None
        probes, number = self.probes, self.probes.names.index(target)
        return lambda x: probes.score(x)[:, number]

    def column(self, target: str) -> int:
        """The condition of the denoiser that tells ``target``."""
        return list(self.conditions).index("score" if target == "outcome" else target)

    def level(self, name: str, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """The images' own values (n,) of the outcome's score or of a covariate, NaN where unknown."""
        if name in ("outcome", "score"):
            return self.guide.read(self.data.images[rows])[:, 0]
        return self.data.covariates[name].to_numpy(float)[rows]

    def condition(self, rows: Sequence[int] | np.ndarray, images: np.ndarray | None = None) -> torch.Tensor | None:
        """Standardised conditions (n, k) of the denoiser: the images' own, NaN where unknown; None where it has none.

        ``images`` are what the score is read of in place of the photographs.
        """
        if not self.conditions:
            return None
        levels = {name: self.level(name, rows) for name in self.conditions}
        if images is not None:
            levels["score"] = self.guide.read(images)[:, 0]
        columns = [(levels[name] - unit["mean"]) / unit["sd"] for name, unit in self.conditions.items()]
        return torch.tensor(np.stack(columns, 1), dtype=torch.float32)


def run(context: Context) -> dict[str, Any]:
    """Facts: counts of stimuli, of images in and out of support, the largest dose 0 error of each image."""
    study, upstream = context.study, context.upstream
    data = pack.load(context.files, upstream["ingest"])
    opened = {
        name: context.files.get_folder(sha, context.folder / name)
        for name, sha in {
            **upstream["predict"]["files"],
            "steering": upstream["finetune"]["guide"],
            **{name: upstream["finetune"][name] for name in ("denoiser", "noise_aware") if name in upstream["finetune"]},
        }.items()
        if name in ("guide", "steering", "probe_guide", "denoiser", "noise_aware")
    }
    # One guide reads photographs: levels, conditions and reached doses. The other, trained on with denoised images,
    # steers on clean estimates.
    guide, steering = Predictor.load(opened["guide"]), Predictor.load(opened["steering"])
    denoiser = open_denoiser(opened["denoiser"])
    probes = Predictor.load(opened["probe_guide"]) if "probe_guide" in opened else None
    conditions = upstream["finetune"]["conditions"]
    doses = np.array(study.doses.grid)
    permuted = _permuted_guide(context, data) if study.arms.placebo else None

    shown = np.flatnonzero(data.split == "stimuli")
    order = seeds.generator(study.seed, "stimuli").permutation(len(shown))
    facts: dict[str, Any] = {"stimuli": 0, "null_error": {}, "unsupported": [], "axioms": {}}
    noise_aware = Predictor.load(opened["noise_aware"]) if "noise_aware" in opened else None
    sliders = {
        name: Adapter.load(context.files.get_folder(sha, context.folder / f"slider_{name}") / "adapter.safetensors", denoiser)
        for name, sha in upstream["finetune"]["sliders"].items()
    }
    latents = open_latents(opened["denoiser"]) if study.model.autoencoder else None
    instruments = Instruments(data, guide, steering, probes, denoiser, conditions, noise_aware, sliders, latents)
    context.log_params({"doses": study.doses.grid, **study.arms.model_dump()})
    facts["drawn"] = _once(context.folder / "drawn.json", lambda: _drawn(context, instruments))
    records = {image.key: image for image in context.store.images(context.study_id, split="stimuli")}
    for name, direction in study.directions.items():
        direction_id = context.store.put_direction(
            context.study_id,
            name=name,
            kind=direction.kind,
            target=direction.target,
            hold=list(direction.hold),
            spec=direction.model_dump(mode="json"),
        )
        if direction.target == "outcome":
            level = guide.read(data.images[shown])[:, 0]
            low, high = upstream["predict"]["support"]
            reach = Mapping(**upstream["predict"]["mapping"]).reach(level, doses)
        else:
            assert probes is not None
            number = probes.names.index(direction.target)
            level = probes.read(data.images[shown])[:, number]
            real = probes.read(data.images[data.split == "validation"])[:, number]
            low, high = (float(np.quantile(real, share)) for share in study.doses.support)
            reach = np.tile(doses, (len(level), 1))
        inside = (level + reach.min(1) >= low) & (level + reach.max(1) <= high)
        asked = {int(row): reach[k] for k, row in enumerate(shown)}
        chosen = [int(shown[k]) for k in order if inside[k]][: study.arms.images]
        if not chosen:
            raise UserError(
                f"{context.loaded.path}: doses.grid: none of the {len(shown)} stimuli images has room for the whole "
                f"grid ({doses.min():g} to {doses.max():g} SD) of direction {name} between the quantiles "
                f"{study.doses.support[0]:g} and {study.doses.support[1]:g} of real scores (doses.support).",
                hint="Use smaller doses, or bring more images.",
            )
        if "images" not in facts:  # what is counted in the report is the first direction's
            facts |= {
                "in_support": int(inside.sum()),
                "out_of_support": int((~inside).sum()),
                "images": len(chosen),
            }
        context.log_params(
            {
                f"{name}/in_support": int(inside.sum()),
                f"{name}/guidance_weight": direction.edit.w,
                f"{name}/guidance_scale": scale_from_w(direction.edit.w),
            }
        )
        # Learned or scaled only where a block is still to be edited.
        follow = functools.cache(functools.partial(_follow, context, name, instruments, direction.edit))
        blocks = [chosen[k : k + direction.edit.batch] for k in range(0, len(chosen), direction.edit.batch)]
        for number, block in enumerate(context.progress(blocks, len(blocks), f"generate {name}")):
            wanted = np.stack([asked[k] for k in block])
            originals = [records[str(data.key[k])].delivered_sha256 for k in block]
            make = functools.partial(
                _block, context, name, instruments, permuted, follow, block, wanted, originals, first=number == 0
            )
            made = _once(context.folder / f"{name}-{number}.json", make)
            rows = [
                StimulusRecord(image_id=records[key].id, direction_id=direction_id, set_key=f"{name}/{key}", **row)
                for key, row in made["stimuli"]
            ]
            context.store.put_stimuli(context.study_id, context.stage_run_id, rows)
            facts["stimuli"] += len(rows)
            facts["unsupported"] += made["unsupported"]
            facts["null_error"] |= made["null_error"]
            facts["axioms"] |= made["axioms"]
    facts["doses_not_reached"] = len(facts["unsupported"])
    facts["null_max_error"] = max(facts["null_error"].values())
    return facts


def _once(file: File, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What ``make`` gives, written as ``file``: a run that was killed takes up what it had made."""
    if not file.exists():
        draft = file.with_suffix(".draft")
        draft.write_text(json.dumps(make()), encoding="utf-8")
        draft.replace(file)
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def _block(
    context: Context,
    name: str,
    instruments: Instruments,
    permuted: Predictor | None,
    following: Callable[[], Direction],
    rows: list[int],
    reach: np.ndarray,
    originals: list[str | None],
    *,
    first: bool,
) -> dict[str, Any]:
    """Every arm and dose of direction ``name`` for the images of ``rows``, their pictures in the files.

    ``stimuli`` are pairs of an image's key and the fields of its record, ``null_error`` and ``unsupported`` by set;
    ``axioms`` are tried on the ``first`` block. ``reach`` (n, d) is what the guide is to move by; ``originals`` are
    hashes of the photographs at the size that people see, where that is another.
    """
    study, direction, data = context.study, context.study.directions[name], instruments.data
    doses, keys, pixels = np.array(study.doses.grid), [str(data.key[k]) for k in rows], data.images[rows]
    zero = list(doses).index(0.0)
    regions, follow = _regions(context, direction.edit, keys), following()
    results = _edits(study, direction, follow, instruments, permuted, rows, reach, regions)
    treated, sources = results["treated"][1], as_input(pixels)
    made: dict[str, Any] = {"stimuli": [], "unsupported": [], "null_error": {}, "axioms": {}}
    if first:
        some = treated.images[:AXIOMS], None if regions is None else regions[:AXIOMS]
        made["axioms"][name] = {
            **_axioms(study, direction, follow, instruments, rows[:AXIOMS], reach, *some),
            "anomaly": _anomaly(study, instruments, rows[:AXIOMS], some[0], zero),
        }
    beyond = unsupported(treated, torch.from_numpy(reach))
    for i, key in enumerate(keys):
        made["unsupported"] += [[f"{name}/{key}", float(doses[j])] for j in beyond[i].nonzero()[:, 0].tolist()]
        made["null_error"][f"{name}/{key}"] = float((treated.images[i, zero] - sources[i]).abs().max()) / 2
        original = None if originals[i] is None else decode.from_png(context.files.get(originals[i]))
        for arm, (draw, edited) in results.items():
            pictures = decode.to_uint8(edited.images[i].numpy())
            for j, dose in enumerate(doses):
                if dose == 0 and arm != "treated":
                    continue  # the null arm belongs to all
                small = context.files.put(decode.png_bytes(pictures[j]))
                shown = small
                if original is not None:
                    change = (edited.images[i, j] - sources[i]).permute(1, 2, 0).numpy() * 127.5
                    within = None if regions is None else regions[i]
                    shown = context.files.put(decode.png_bytes(delivery.deliver(original, change, within=within)))
                row = {
                    "arm": "null" if dose == 0 else arm,
                    "draw": int(draw[i]) if dose != 0 else 0,
                    "dose": float(dose),
                    "strength": float(edited.strength[i, j]),
                    "seed": seeds.integer(study.seed, "image", key),
                    "in_support": True,
                    "pixels_sha256": shown,
                    "edited_sha256": small if original is not None else None,
                    "denoiser_sha256": context.upstream["finetune"]["denoiser"],
                    "guide_sha256": context.upstream["finetune"]["guide"],
                }
                made["stimuli"].append([key, row])
    return made


def _follow(
    context: Context,
    name: str,
    instruments: Instruments,
    options: schema.Edit,
    away: Sequence[Reader] = (),
    hold: Sequence[str] = (),
) -> Direction:
    """The direction ``name`` on paths of ``options``; ``away`` are readings that stay besides what it holds itself."""
    direction = context.study.directions[name]
    kept = list(dict.fromkeys((*direction.hold, *hold)))
    match direction.kind:
        case "condition":
            return ConditionShift(instruments.column(direction.target))
        case "arithmetic":
            others = [_reading(context, other, instruments) for other in direction.orthogonal_to]
            return Sum(
                [
                    (weight, _follow(context, part, instruments, options, others, direction.hold))
                    for part, weight in direction.sum.items()
                ]
            )
        case "noise_aware":
            follow: Direction = _noise_aware(instruments, direction.target, kept)
        case "latent":
            follow = _latent(context, name, instruments, options, kept)
        case "slider":
            follow = Slider(instruments.denoiser, instruments.sliders[name], instruments.column(direction.target))
        case _:
            held = [instruments.steers(each) for each in kept]
            return Guidance(_reading(context, name, instruments), [*held, *away], direction.edit.trust_radius)

    # These count their strength in something else than SD of the target: the unit is found on validation images.
    rows = np.flatnonzero(instruments.data.split == "validation")[:PILOT]
    path = _inverted(context.study, options, instruments, rows)
    found = scaled(instruments.denoiser, path, follow, reading_change([instruments.reads(direction.target)]))
    context.log_params({f"{name}/unit": found.unit})
    return found


def _noise_aware(instruments: Instruments, target: str, kept: Sequence[str]) -> NoiseAware:
    classifier = instruments.noise_aware
    assert classifier is not None
    number, *held = map(classifier.names.index, (target, *kept))
    binary = classifier.targets[number].kind == "binary"
    schedule = Schedule(instruments.denoiser.alphas_cumprod)
    return NoiseAware(classifier.raw, schedule, number, tuple(held), binary)


def _latent(
    context: Context, name: str, instruments: Instruments, options: schema.Edit, kept: Sequence[str]
) -> Latent | Encoded:
    """Slopes of bottleneck or code on images of the training split, the same for every image that is edited."""
    study, data, denoiser = context.study, instruments.data, instruments.denoiser
    direction, schedule = study.directions[name], Schedule(instruments.denoiser.alphas_cumprod)
    rows = np.flatnonzero(data.split == "train")[:LEARNED]
    values = torch.from_numpy(np.stack([instruments.level(each, rows) for each in (direction.target, *kept)], 1))
    try:
        if direction.space == "encoder":
            known = complete(values)
            parts = np.split(rows[known.numpy()], range(100, len(known), 100))
            codes = [_inverted(study, options, instruments, part).x[-2].flatten(1).clone() for part in parts]
            return Encoded(schedule, slope(torch.cat(codes), values[known]).view(denoiser.shape))
        source = as_input(data.images[rows])
        noise = torch.stack(
            [torch.from_numpy(seeds.normal(denoiser.shape, study.seed, "latent", str(key))) for key in data.key[rows]]
        )
        found = shifts(
            denoiser,
            source if instruments.latents is None else instruments.latents.encode(source),
            instruments.condition(rows),
            values,
            schedule.timesteps(options.steps, options.depth).flip(0).tolist(),
            noise,
        )
    except ValueError as error:
        raise UserError(
            f"{context.loaded.path}: directions.{name}: {error}.",
            hint="Aim at, and hold, covariates that are known for most images of the training split.",
        ) from error
    return Latent(denoiser, found)


def _reading(context: Context, name: str, instruments: Instruments) -> Reader:
    """The reading that a guidance, text or contrast direction follows."""
    direction, data = context.study.directions[name], instruments.data
    if direction.kind == "guidance":
        reader, draws = instruments.steers(direction.target), direction.edit.smooth_draws
        if not draws:
            return reader
        drawn = seeds.normal((draws, 3, *data.images.shape[1:3]), context.study.seed, "smooth", name)
        return smoothed(reader, direction.edit.smooth_sd * torch.from_numpy(drawn))
    validation = as_input(data.images[data.split == "validation"])
    if direction.kind == "text":
        assert direction.text is not None
        model = open_text_model(context.loaded.inputs[f"directions.{name}.text.model"])
        try:
            return between_phrases(model, direction.text.start, direction.text.end, validation)
        except ValueError as error:
            raise UserError(
                f"{context.loaded.path}: directions.{name}.text: {error}.", hint="Use phrases that differ more."
            ) from error
    train = data.split == "train"
    values = data.outcome if direction.target == "outcome" else data.covariates[direction.target].to_numpy(float)
    side = sides(torch.from_numpy(values[train].astype(float)), direction.between)
    try:
        return discriminant(
            instruments.steering.features,
            as_input(data.images[train]),
            side,
            validation,
        )
    except ValueError as error:
        raise UserError(
            f"{context.loaded.path}: directions.{name}.between: {error}.",
            hint="Choose levels that images of the training split have.",
        ) from error


def _inverted(
    study: schema.Study,
    options: schema.Edit,
    instruments: Instruments,
    rows: Sequence[int] | np.ndarray,
    region: torch.Tensor | None = None,
    images: np.ndarray | None = None,
) -> Path:
    """The images of ``rows``, or what became of them, on their way up, as the direction asks; the noise of a path belongs to the image."""
    data, denoiser, noise = instruments.data, instruments.denoiser, None
    if options.inversion != "direct":
        shape = (options.steps, *denoiser.shape)
        keys = [str(data.key[k]) for k in rows]
        noise = torch.stack(
            [torch.from_numpy(seeds.normal(shape, study.seed, "inversion", key)) for key in keys], 1
        )
    latents, source = instruments.latents, as_input(data.images[rows] if images is None else images)
    path = invert(
        denoiser,
        source if latents is None else latents.encode(source),
        instruments.condition(rows, images),
        kind=options.inversion,
        depth=options.depth,
        steps=options.steps,
        w=options.w,
        noise=noise,
        region=region,
    )
    return path if latents is None else latents.seen(path, source)


def _regions(context: Context, options: schema.Edit, keys: list[str]) -> np.ndarray | None:
    """(n, side, side) True where the study lets pictures change, at the size that people see; None is everywhere."""
    images = context.study.images or schema.Images()
    if isinstance(options.mask, tuple):
        return np.stack([mask.box(options.mask, images.delivery or images.size)] * len(keys))
    if options.mask == "manifest":
        hashes = context.upstream["ingest"]["masks"]
        return np.stack([decode.from_png(context.files.get(hashes[key]))[..., 0] >= 128 for key in keys])
    return None


def _bounded(
    study: schema.Study,
    direction: schema.Direction,
    instruments: Instruments,
    rows: list[int],
    regions: np.ndarray | None,
    images: np.ndarray | None = None,
) -> Path:
    """The paths of the images of ``rows``, or of what became of them, with the region that edits must stay in."""
    options, region = direction.edit, None
    pixels = instruments.data.images[rows] if images is None else images
    if regions is not None:
        region = torch.from_numpy(np.stack([decode.shrunk(each, pixels.shape[1]) for each in regions]))[:, None].float()
    elif options.mask == "saliency":
        region = mask.saliency(instruments.steers(direction.target), as_input(pixels), options.mask_quantile)
    elif options.mask == "conditions":
        free = _inverted(study, options, instruments, rows, images=images)
        column = instruments.column(direction.target)
        region = mask.conditional_difference(instruments.denoiser, free, column, options.mask_quantile)
    return _inverted(study, options, instruments, rows, region, images)


def _axioms(
    study: schema.Study,
    direction: schema.Direction,
    follow: Direction,
    instruments: Instruments,
    rows: list[int],
    reach: np.ndarray,
    treated: torch.Tensor,
    regions: np.ndarray | None,
) -> dict[str, float]:
    """Composition and reversibility (Monteiro et al. 2023, section 3.2) of pictures saved with 8 bits.

    Composition: mean absolute error (range 0 to 1) after ten null edits of one another. Reversibility: the same after
    an edit to the largest dose of ``treated`` (n, d, c, h, w) and the edit back, begun from the edited picture alone.
    """
    denoiser, options, index = instruments.denoiser, direction.edit, torch.arange(len(rows))
    pixels = again = instruments.data.images[rows]
    for _ in range(CYCLES):
        path = _bounded(study, direction, instruments, rows, regions, again)
        with torch.no_grad():
            change = path.changes(replay(denoiser, path, index, path.condition), index)
        again = decode.to_uint8((path.sources + change).numpy())
    last = int(np.abs(study.doses.grid).argmax())
    there = decode.to_uint8(treated[:, last].numpy())
    back = torch.from_numpy(-reach[: len(rows), [last]].astype(np.float32))
    made = edit(
        denoiser,
        _bounded(study, direction, instruments, rows, regions, there),
        follow,
        back,
        back,
        reading_change([instruments.reads(direction.target)]),
        corrections=options.secant_steps,
        mask_quantile=options.change_quantile,
        style=mask.style(options.style) if options.style else None,
        bounds=_bounds(direction),
    )
    returned = decode.to_uint8(made.images[:, 0].numpy())
    return {
        "composition": float(np.abs(again.astype(float) - pixels).mean() / 255),
        "reversibility": float(np.abs(returned.astype(float) - pixels).mean() / 255),
    }


def _anomaly(
    study: schema.Study, instruments: Instruments, rows: list[int], treated: torch.Tensor, zero: int
) -> float:
    """How much worse the model draws edited pictures anew than their unedited ones: a ratio, 1 is no worse.

    Error of one step back from the noise of a partial noising (Wyatt et al. 2022, "AnoDDPM"), mean over the doses of
    ``treated`` (n, d, c, h, w) over that of dose ``zero``; all doses of an image share the noise, and no condition is
    told, since an edited picture is not what its image's says.
    """
    denoiser, latents, (n, d) = instruments.denoiser, instruments.latents, treated.shape[:2]
    x = treated.flatten(0, 1) if latents is None else latents.encode(treated.flatten(0, 1))
    drawn = [seeds.normal(denoiser.shape, study.seed, "anomaly", str(instruments.data.key[row])) for row in rows]
    noise = torch.from_numpy(np.stack(drawn)).repeat_interleave(d, 0)
    schedule = Schedule(denoiser.alphas_cumprod)
    t = int(NOISE_SHARE * (len(schedule) - 1))
    clean = denoiser.predict(schedule.add_noise(x, noise, t), torch.full((n * d,), t)).clean
    error = (clean - x).pow(2).flatten(1).mean(1).view(n, d).double()
    ends = [j for j in range(d) if j != zero]
    return float(error[:, ends].mean() / error[:, zero].mean())


def _drawn(context: Context, instruments: Instruments) -> dict[str, str]:
    """Hashes of arrays (n, 3, h, w, 3) by condition: validation images with it an SD lower, as it is, and higher.

    They are for the judge's side to read: what the model cannot draw, no shift of it can move.
    """
    data = instruments.data
    rows = np.flatnonzero(data.split == "validation")[:DRAWN]
    strengths, found = torch.tensor([-1.0, 0.0, 1.0]).repeat(len(rows), 1), {}
    for column, name in enumerate(instruments.conditions):
        # Where an image's own condition is not known there is nothing to shift.
        own = instruments.condition(rows)
        known = rows if own is None else rows[~own[:, column].isnan().numpy()]
        if not len(known):
            continue
        path = _inverted(context.study, schema.Edit(), instruments, known)
        wanted = strengths[: len(known)]
        made = edit(
            instruments.denoiser, path, ConditionShift(column), wanted, wanted,
            reading_change([instruments.reads("outcome")]), corrections=0,
        )  # fmt: skip
        pictures = decode.to_uint8(made.images.flatten(0, 1).numpy())
        found[name] = context.files.put(pack.array_bytes(pictures.reshape(len(known), 3, *pictures.shape[1:])))
    return found


def _bounds(direction: schema.Direction) -> tuple[float, float]:
    return (0.4, 2.5) if direction.kind in ("condition", "guidance") else FOREIGN_UNIT


def _edits(
    study: schema.Study,
    direction: schema.Direction,
    follow: Direction,
    instruments: Instruments,
    permuted: Predictor | None,
    rows: list[int],
    reach: np.ndarray,
    regions: np.ndarray | None,
) -> dict[str, tuple[np.ndarray, Edited]]:
    """Draw numbers and edits of every arm for a batch of images; ``reach`` (n, d) is what the guide is to move by."""
    options, denoiser = direction.edit, instruments.denoiser
    keys = [str(instruments.data.key[k]) for k in rows]
    read, steer = instruments.reads(direction.target), instruments.steers(direction.target)
    hold = [instruments.steers(held) for held in direction.hold]
    path = _bounded(study, direction, instruments, rows, regions)
    style = mask.style(options.style) if options.style else None
    target = torch.from_numpy(reach.astype(np.float32))
    treated = edit(
        denoiser,
        path,
        follow,
        target,
        target,
        reading_change([read]),
        corrections=options.secant_steps,
        mask_quantile=options.change_quantile,
        style=style,
        bounds=_bounds(direction),
    )
    numbers = np.array([seeds.integer(study.seed, "draw", key) for key in keys])
    results = {"treated": (np.zeros(len(keys), int), treated)}
    signs = torch.from_numpy(np.array(study.doses.grid, np.float32))
    if study.arms.sham:
        pictures = torch.stack(
            [torch.from_numpy(seeds.normal(denoiser.shape, study.seed, "sham", key)) for key in keys]
        )
        away = arms.sham(denoiser, path, pictures, [steer, *hold])
        results["sham"] = (
            numbers % 2**31,
            arms.matched(denoiser, path, away, treated, signs, style=style),
        )
    if permuted is not None:
        draw = numbers % study.arms.placebo
        along = arms.placebo(denoiser, path, permuted.raw, torch.from_numpy(draw), hold)
        results["placebo"] = (
            draw,
            arms.matched(denoiser, path, along, treated, signs, style=style),
        )
    return results


def _permuted_guide(context: Context, data: pack.Dataset) -> Predictor:
    """One network of the guide's family with an output for every permutation of the labels."""
    study, folder = context.study, context.folder / "placebo"
    if not folder.exists():
        chosen = data.split == "train"
        labels = data.outcome[chosen]
        count = study.arms.placebo
        rng = seeds.generator(study.seed, "placebo")
        values = np.stack([labels[rng.permutation(len(labels))] for _ in range(count)], 1)
        kind = study.images.outcome.kind if study.images else "binary"
        if kind == "continuous":
            values = (values - values.mean(0)) / values.std(0)
        guide = Predictor(
            "guide",
            [Target(f"permutation_{k}", kind) for k in range(count)],
            [seeds.integer(study.seed, "placebo")],
        )
        settings = study.predictors.guide
        fit(
            guide,
            data.images[chosen],
            values,
            FitConfig(settings.epochs, settings.batch, settings.learning_rate),
            seeds.integer(study.seed, "placebo", "fit"),
        )
        guide.save(folder)
    return Predictor.load(folder)
