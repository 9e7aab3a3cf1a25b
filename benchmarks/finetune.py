"""Is it worth starting from a model of unlabelled images? 500 labelled ones, equal compute, two starts.

    python benchmarks/finetune.py [--seed 1] [--base-images-seen 60000] [--images-seen 40000]

A base model learns 20,000 unlabelled rendered faces. A study then has 500 labelled faces of its own. Two
conditional models see the same number of the study's images: one starts from the base, one from scratch. Both are
measured on held-out loss (the error of v on faces that neither saw) and on the card of their edits, by a judge and
probes that were trained elsewhere and never guided. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from contrafact import seeds
from contrafact.counterfactual import card
from contrafact.counterfactual.direction import ConditionShift
from contrafact.counterfactual.edit import edit, reading_change
from contrafact.diffusion.denoiser import open_denoiser
from contrafact.diffusion.invert import invert
from contrafact.diffusion.network import Spec
from contrafact.diffusion.train import TrainConfig, held_out_loss, train
from contrafact.images import decode, worlds
from contrafact.predictors.predictor import Predictor, Target, as_input
from contrafact.predictors.train import FitConfig, fit, targets_of
from contrafact.study.schema import World

SIZE, BASE, STUDY, HELD_OUT, EDITED = 32, 20_000, 500, 400, 48
DOSES = np.array([-1.5, -0.75, 0, 0.75, 1.5])


def predictor(
    family: str, targets: list[Target], images: np.ndarray, values: np.ndarray, seed: int, epochs: int
) -> Predictor:
    """Fitted, and put into SD units over the images it was fitted on."""
    made = fit(Predictor(family, targets, [seed]), images, values, FitConfig(epochs=epochs), seed)
    raw = made.read(images, raw=True)
    made.centre.copy_(torch.from_numpy(raw.mean(0)))
    made.spread.copy_(torch.from_numpy(raw.std(0)))
    return made


@torch.no_grad()
def features(judge: Predictor, images: np.ndarray) -> np.ndarray:
    """The judge's own features (n, f)."""
    return torch.cat([judge.features(as_input(images[k : k + 500])) for k in range(0, len(images), 500)]).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--base-images-seen", type=int, default=60_000)
    parser.add_argument("--images-seen", type=int, default=40_000)
    asked = parser.parse_args()
    began, seed = time.perf_counter(), asked.seed

    unlabelled = worlds.render(worlds.sample(World(images=BASE), seeds.integer(seed, "base")).factors, SIZE)
    own = worlds.sample(World(kind="confounded", images=STUDY + HELD_OUT), seeds.integer(seed, "study"))
    images, skin, outcome = worlds.render(own.factors, SIZE), own.factors[:, 1], own.outcome
    study, held = slice(0, STUDY), slice(STUDY, None)
    other = worlds.sample(World(kind="confounded", images=6_000), seeds.integer(seed, "judge"))
    other_images = worlds.render(other.factors, SIZE)

    guide = predictor("guide", [Target("outcome", "binary")], images[study], outcome[study, None], 1, 25)
    judge = predictor("judge", [Target("outcome", "binary")], other_images, other.outcome[:, None], 2, 5)
    reader = predictor(
        "judge", targets_of(own.names, ["continuous"] * 9, other.factors), other_images, other.factors, 3, 6
    )

    real = features(judge, images[held])

    raw = np.stack([guide.read(images)[:, 0], skin], 1)
    mean, sd = raw[study].mean(0), raw[study].std(0)
    conditions = ((raw - mean) / sd).astype(np.float32)
    spec = {"size": SIZE, "channels": (48, 64, 96)}
    labelled = Spec(
        **spec, conditions=("score", "skin"), mean=tuple(map(float, mean)), sd=tuple(map(float, sd))
    )

    result: dict[str, Any] = {
        "seed": seed,
        "images_seen": asked.images_seen,
        "base_images_seen": asked.base_images_seen,
    }
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        base = train(
            unlabelled,
            None,
            TrainConfig(Spec(**spec), seed=seed, images_seen=asked.base_images_seen),
            place / "base",
        )
        for name, start in (("fine_tuned", base.folder), ("from_scratch", None)):
            config = TrainConfig(
                labelled, start=start, seed=seed, images_seen=asked.images_seen, warmup_steps=100
            )
            folder = train(images[study], conditions[study], config, place / name).folder
            assert folder is not None
            denoiser = open_denoiser(folder)
            losses = held_out_loss(denoiser, images[held], conditions[held], seed)

            level = guide.read(images[held])[:, 0]
            chosen = np.flatnonzero(np.abs(level) < 1)[:EDITED] + STUDY
            source = as_input(images[chosen])
            path = invert(denoiser, source, torch.from_numpy(conditions[chosen]), depth=0.85)
            target = torch.from_numpy(np.tile(DOSES.astype(np.float32), (len(chosen), 1)))
            made = edit(
                denoiser, path, ConditionShift(), target, target, reading_change([lambda x: guide.score(x)[:, 0]]),
                corrections=2, mask_quantile=0.9,
            )  # fmt: skip
            flat = decode.to_uint8(made.images.flatten(0, 1).numpy())
            shape = (len(chosen), len(DOSES))
            scores, logit = (
                judge.read(flat)[:, 0].reshape(shape),
                judge.read(flat, raw=True)[:, 0].reshape(shape),
            )
            read = reader.read(flat).reshape(*shape, -1)
            slopes = np.einsum("ndk,d->k", read - read[:, [2]], DOSES) / (DOSES @ DOSES) / len(chosen)
            found = card.effect(scores, logit, DOSES)
            truth = worlds.counterfactuals(
                own.factors[chosen], "groom", scores - scores[:, [2]], lambda x: judge.read(x)[:, 0], SIZE
            )
            edits, ends = flat.reshape(truth.shape).astype(float), DOSES != 0
            off = np.abs(edits - truth)[:, ends].mean() / np.abs(edits[:, [2]] - truth[:, ends]).mean()
            result[name] = {
                "held_out_loss": float(losses.mean()),
                "held_out_loss_se": float(losses.std() / np.sqrt(len(losses))),
                "judge_slope": found.slope,
                "judge_mae": found.mae,
                "judge_flip_rate": found.flip_rate,
                "cause_slope": float(slopes[0]),
                "largest_other_slope": float(np.abs(slopes[1:]).max()),
                "held_slope": float(slopes[1]),
                "truth_distance": float(off),
                "realism_sd": float(card.realism(features(judge, flat), real).mean()),
            }
    print(json.dumps(result | {"seconds": round(time.perf_counter() - began)}, indent=1))


if __name__ == "__main__":
    main()
