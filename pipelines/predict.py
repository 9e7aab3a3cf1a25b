"""predict: guide, judge and probes, each with its interval on images that none of them saw."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from contrafact import seeds
from contrafact.counterfactual.text import open_text_model
from contrafact.images import duplicates, pack, splits, worlds
from contrafact.predictors.predictor import Predictor, Target, as_input
from contrafact.predictors.quality import expected_calibration_error, mapping, quality
from contrafact.predictors.train import FitConfig, calibrate, fit, targets_of
from contrafact.run.context import Context
from contrafact.store.records import ModelRecord
from contrafact.study import schema

NAMES = {"steering": "steering guide"}
READER_IMAGES = 9_000  # rendered for the reader alone; no model of the study sees them


def run(context: Context) -> dict[str, Any]:
    """Facts: the files of every predictor, its quality, the frozen guide-to-judge curve, ``stopped`` or None."""
    study = context.study
    data = pack.load(context.files, context.upstream["ingest"])
    outcome = study.images.outcome if study.images else schema.Outcome()
    covariates = study.images.covariates if study.images else {}
    validation = data.split == "validation"
    facts: dict[str, Any] = {"files": {}, "quality": {}, "stopped": None}
    context.log_params(study.predictors.model_dump())

    def trained(
        role: str,
        family: str,
        heads: int,
        targets: list[Target],
        values: np.ndarray,
        chosen: np.ndarray,
        config: schema.Predictor,
    ) -> Predictor:
        """Fit, calibrate and measure one predictor; a finished one is taken from the work folder."""
        folder = context.folder / role
        numbers = [seeds.integer(study.seed, "predictor", role, head) for head in range(heads)]
        if not folder.exists():
            predictor = Predictor(family, targets, numbers)
            settings = FitConfig(config.epochs, config.batch, config.learning_rate, augment=config.augment)
            fit(predictor, data.images[chosen], values[chosen], settings, seeds.integer(study.seed, role))
            calibrate(predictor, data.images[validation], values[validation])
            predictor.save(folder)
        predictor = Predictor.load(folder)
        reading = predictor.read(data.images[validation])
        for k, target in enumerate(targets):
            found = quality(
                reading[:, k],
                values[validation, k],
                target.kind,
                data.unit_id[validation],
                study.predictors.bootstrap,
                study.seed,
            )
            facts["quality"][f"{role}.{target.name}"] = asdict(found)
            context.log_metrics({f"{role}/{target.name}/{found.metric}": found.value})
        facts["files"][role] = context.files.put_folder(folder)
        context.log_artifact(folder, role)
        return predictor

    wanted = data.outcome[:, None]
    target = targets_of([outcome.column], [outcome.kind], wanted)
    train, judged = data.split == "train", data.split == "judge"
    apart = study.predictors.guide.steering_share < 1
    steers = splits.steers(data.unit_id, study.predictors.guide.steering_share, study.seed)
    if apart:
        binary = outcome.kind == "binary"
        splits.require_parts(steers[train], data.unit_id[train], data.outcome[train], binary=binary)
    count = 2 + apart + 2 * bool(covariates) + (study.world is not None)
    steps = iter(context.progress(range(count), count, "predictors"))
    next(steps)
    config = study.predictors.guide
    guide = trained("guide", "guide", config.heads, target, wanted, train & ~steers if apart else train, config)
    if apart:
        next(steps)
        trained("steering", "guide", config.heads, target, wanted, train & steers, config)
    next(steps)
    judge = trained(
        "judge", "judge", study.predictors.judge.heads, target, wanted, judged, study.predictors.judge
    )
    if covariates:
        known = data.covariates[list(covariates)].to_numpy(dtype=float)
        kinds = [covariate.kind for covariate in covariates.values()]
        targets = targets_of(list(covariates), kinds, known)
        for role, family, chosen in (("probe_guide", "guide", train), ("probe_judge", "judge", judged)):
            next(steps)
            trained(role, family, study.predictors.probe.heads, targets, known, chosen, study.predictors.probe)
    if study.world is not None:
        next(steps)
        facts["files"]["reader"] = context.files.put_folder(_reader(context))
    next(steps, None)  # the bar is full when the last one is done

    readings = guide.read(data.images[validation])[:, 0], judge.read(data.images[validation])[:, 0]
    facts["support"] = [float(np.quantile(readings[0], share)) for share in study.doses.support]
    if outcome.kind == "binary":
        facts["calibration"] = {
            role: {
                "temperature": float(predictor.temperature[0]),
                "ece": expected_calibration_error(
                    predictor.read(data.images[validation], raw=True)[:, 0], data.outcome[validation]
                ),
            }
            for role, predictor in (("guide", guide), ("judge", judge))
        }
    context.store.put_models(
        context.study_id,
        context.stage_run_id,
        [
            ModelRecord(
                role="guide" if role == "steering" else role,  # type: ignore[arg-type]
                name="guide, steering, of photographs" if role == "steering" else role,
                files_sha256=sha256,
                quality={key: value for key, value in facts["quality"].items() if key.startswith(f"{role}.")},
            )
            for role, sha256 in facts["files"].items()
        ],
    )
    facts["guide"], facts["judge"] = (
        facts["quality"][f"{role}.{outcome.column}"] for role in ("guide", "judge")
    )
    facts["probes"] = {
        key.removeprefix("probe_judge."): value
        for key, value in facts["quality"].items()
        if key.startswith("probe_judge.")
    }
    facts["near_duplicates"] = _near_duplicates(context, data, judge)
    facts["stopped"] = _at_chance(facts["quality"], outcome.column)
    if facts["stopped"] is None:
        try:
            facts["mapping"] = asdict(mapping(*readings))
        except ValueError as error:
            facts["stopped"] = (
                f"A dose has no unit: {error}. More images, a better crop or another outcome would help."
            )
    return facts


@torch.no_grad()
def _near_duplicates(context: Context, data: pack.Dataset, judge: Predictor) -> list[dict[str, str]]:
    """Pairs of photographs in two splits that are nearly the same, as the judge's features or the study's open_clip
    model see them. The lockbox stays closed and is not compared; a rendered world draws no picture twice."""
    if context.study.world is not None:
        return []
    folder = context.loaded.inputs.get("card.clip")
    seen = judge.features if folder is None else open_text_model(folder).pictures
    images = duplicates.softened(data.images)
    parts = [seen(as_input(images[k : k + 250])).numpy() for k in range(0, len(images), 250)]
    pairs = duplicates.across(np.concatenate(parts), images, data.split)
    context.log_metrics({"near_duplicates": len(pairs)})
    return [
        {"image": data.key[i], "split": data.split[i], "other": data.key[j], "other_split": data.split[j]} for i, j in pairs
    ]


def _reader(context: Context) -> Path:
    """A regressor of every factor of the world, from images of its own: it reads for the simulated respondents."""
    study, folder = context.study, context.folder / "reader"
    assert study.world is not None
    if not folder.exists():
        size = study.images.size if study.images else schema.Images().size
        seed = seeds.integer(study.seed, "reader")
        own = worlds.sample(study.world.model_copy(update={"kind": "true", "images": READER_IMAGES + 1_000}), seed)
        pictures = worlds.render(own.factors, size, study.world.name)
        fresh = slice(READER_IMAGES, None)
        reader = Predictor(
            "judge", targets_of(own.names, ["continuous"] * len(own.names), own.factors), [seed]
        )
        fit(reader, pictures[:READER_IMAGES], own.factors[:READER_IMAGES], FitConfig(epochs=6), seed)
        # The reader's unit is the factor's own SD: respondents see faces, not validation images.
        reading = reader.read(pictures[fresh], raw=True)
        for k in range(len(own.names)):
            slope, level = np.polyfit(own.factors[fresh, k], reading[:, k], 1)
            reader.centre[k], reader.spread[k] = float(level), float(slope)
        reader.save(folder)
    return folder


def _at_chance(qualities: dict[str, dict[str, Any]], outcome: str) -> str | None:
    for role in ("guide", "steering", "judge"):
        if (key := f"{role}.{outcome}") not in qualities:
            continue  # no guide that only steers
        found = qualities[key]
        chance = 0.5 if found["metric"] == "auc" else 0.0
        if not found["low"] > chance:
            return (
                f"The {NAMES.get(role, role)}'s {found['metric'].upper()} on the validation images is {found['value']:.2f} "
                f"[{found['low']:.2f}, {found['high']:.2f}], an interval that includes chance ({chance:g}): "
                "there is no direction to follow. More images, a better crop or another outcome would help."
            )
    return None
