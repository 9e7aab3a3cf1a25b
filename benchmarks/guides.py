"""What makes a guide robust: an ensemble, training on denoised images, a smoothed gradient. Each on and off.

    python benchmarks/guides.py WORKSPACE... [--images 32] [--draws 4] [--json FILE]

Takes the models of finished `contrafact demo` runs, one workspace a training seed, and edits the same held-out images by
plain guidance, the held covariates held, with each kind of guide; nothing is masked and nothing corrected, so that what
is seen is the gradient. Judge and its probes, which no guide has met, measure. Prints one JSON object.

``judge_share`` is the judge's dose slope over the guide's own: what of an edit is more than a quirk of the guide;
``judge_mae`` how far the judge is from the dose asked for, SD, a mean over images and doses.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import sys
import tempfile
import time
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from contrafact import seeds, settings
from contrafact.counterfactual import card
from contrafact.counterfactual.direction import Guidance, smoothed
from contrafact.counterfactual.edit import edit, reading_change
from contrafact.diffusion.denoiser import open_denoiser
from contrafact.diffusion.invert import invert
from contrafact.images import decode, pack
from contrafact.predictors.predictor import Predictor, as_input
from contrafact.store import open_store
from contrafact.store.files import Files

DOSES = np.array([-1.5, 0.0, 1.5])
ENDS = DOSES != 0


def of_heads(predictor: Predictor, heads: int, validation: np.ndarray) -> Predictor:
    """The first networks of an ensemble alone, in SD over the validation images."""
    made = copy.deepcopy(predictor)
    made.heads = made.heads[:heads]
    raw = torch.from_numpy(made.read(validation, raw=True)).float()
    made.centre, made.spread = raw.mean(0), raw.std(0)
    return made


def reading(predictor: Predictor, number: int, x: Tensor) -> Tensor:
    return predictor.score(x)[:, number]


def compared(workspace: Path, images: int, draws: int) -> list[dict[str, Any]]:
    """A row for each kind of guide, on the models of one workspace."""
    at = settings.read(workspace)
    files = Files(at.files_url)
    with open_store(at.database_url, create=False) as store:
        study = store.study("demo")
        assert study is not None, f"{workspace}: no demo was run here"
        facts: dict[str, Any] = {row.stage: row.facts for row in store.stage_runs(study.id) if row.status == "done"}
    data = pack.load(files, facts["ingest"])
    hashes = {**facts["predict"]["files"], "steering": facts["finetune"]["guide"], "denoiser": facts["finetune"]["denoiser"]}
    with tempfile.TemporaryDirectory() as scratch:
        opened = {
            name: files.get_folder(hashes[name], Path(scratch) / name)
            for name in ("guide", "judge", "probe_guide", "probe_judge", "steering", "denoiser")
        }
        denoiser = open_denoiser(opened["denoiser"])
        guides = {"photographs": Predictor.load(opened["guide"]), "denoised": Predictor.load(opened["steering"])}
        judge, probes, probes_judge = (Predictor.load(opened[name]) for name in ("judge", "probe_guide", "probe_judge"))
    validation = data.images[data.split == "validation"]

    shown = np.flatnonzero(data.split == "stimuli")
    level = guides["photographs"].read(data.images[shown])[:, 0]
    chosen = np.flatnonzero(np.abs(level) < 1)[:images]
    rows = shown[chosen]
    values = {"score": level[chosen], **{name: data.covariates[name].to_numpy(float)[rows] for name in data.covariates}}
    units = facts["finetune"]["conditions"]
    conditions = np.stack([(values[name] - unit["mean"]) / unit["sd"] for name, unit in units.items()], 1)
    source = as_input(data.images[rows])
    path = invert(denoiser, source, torch.from_numpy(conditions.astype(np.float32)), depth=0.65, steps=10)
    target = torch.from_numpy(np.tile(DOSES.astype(np.float32), (len(rows), 1)))
    size = data.images.shape[1]
    noise = 0.1 * torch.from_numpy(seeds.normal((draws, 3, size, size), 1, "smoothing"))

    found = []
    for heads, trained_on, smooth in product((1, len(guides["denoised"].heads)), guides, (False, True)):
        guide = of_heads(guides[trained_on], heads, validation)
        readers = [partial(reading, guide, 0), *(partial(reading, probes, k) for k in range(len(probes.names)))]
        followed = [smoothed(readers[0], noise) if smooth else readers[0], *readers[1:]]
        began = time.process_time()
        made = edit(
            denoiser, path, Guidance(followed[0], followed[1:]), target, target, reading_change(readers[:1]),
            corrections=0,
        )  # fmt: skip
        spent = time.process_time() - began
        flat, shape = decode.to_uint8(made.images.flatten(0, 1).numpy()), (len(rows), len(DOSES))
        read, logit = (
            {
                name: instrument.read(flat, raw=raw)[:, 0].reshape(shape)
                for name, instrument in (("guide", guide), ("judge", judge))
            }
            for raw in (False, True)
        )
        effect = {name: card.effect(read[name], logit[name], DOSES) for name in read}
        slope, low, high = card.slope_interval(read["judge"], DOSES)
        probed = probes_judge.read(flat).reshape(*shape, -1)
        leak = (probed - probed[:, [1]])[:, ENDS]
        edited = flat.reshape(*shape, *flat.shape[1:])[:, ENDS].reshape(-1, *flat.shape[1:])
        found.append(
            {
                "workspace": workspace.name,
                "images": len(rows),
                "heads": heads,
                "trained_on": trained_on,
                "smooth_draws": draws if smooth else 0,
                "guide_slope": effect["guide"].slope,
                "judge_slope": slope,
                "judge_slope_low": low,
                "judge_slope_high": high,
                "judge_share": slope / effect["guide"].slope,
                "judge_mae": effect["judge"].mae,
                "guide_flip_rate": effect["guide"].flip_rate,
                "judge_flip_rate": effect["judge"].flip_rate,
                "held_absolute_sd": float(np.abs(leak).mean((0, 1)).max()),
                "l1_a_judge_sd": float(card.l1(edited, np.repeat(data.images[rows], 2, 0)).mean() / (1.5 * slope)),
                "cpu_seconds_an_image": spent / len(rows),
            }
        )
        print(json.dumps(found[-1]), file=sys.stderr, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspaces", type=Path, nargs="+")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for workspace in asked.workspaces for row in compared(workspace, asked.images, asked.draws)]
    text = json.dumps({"rows": rows, "machine": platform.machine(), "threads": 1}, indent=1)
    if asked.json:
        asked.json.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
