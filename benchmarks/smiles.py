"""An edited smile beside the same person's own: photographs of people whom no model has seen.

    CONTRAFACT_DATA=DIR python benchmarks/smiles.py [--workspace DIR] [--json FILE] [--sheet FILE]

Runs studies/london_smile.yaml up to finetune, which a workspace does once. Then the neutral photographs of the persons
whose pictures are the study's stimuli are edited to the study's doses by its own direction and by the other
methods of benchmarks/baselines.py (DiME left out, whose cost grows with the square of its steps), all with the same
guide, denoiser and targets, and read by the judge, which learned from other persons.

``real`` is what the person's own smile does: its movement by the guide and by the judge, in SD of each, and the share of
the one that the other sees (``transfer``): no edit of a true smile can be expected to keep more. ``slope`` is the judge's
movement per requested SD; ``nearness``, by dose, the distance in the judge's features from the edit to the person's
own smiling photograph over that of the neutral photograph (below 1 is nearer than no edit), ``nearest_share`` the share
of persons for whom the edit at the largest dose is nearer than the neutral photograph; ``pixel_change``, the mean
absolute change of a pixel, of the range. Intervals resample persons (2,000 draws).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import baselines
import numpy as np
import torch
from baselines import Bench, Counted
from torch import Tensor

from contrafact import seeds, settings, study
from contrafact.counterfactual.direction import Guidance
from contrafact.counterfactual.edit import edit, reading_change
from contrafact.diffusion.denoiser import open_denoiser
from contrafact.diffusion.invert import invert
from contrafact.images import decode, pack
from contrafact.predictors.predictor import Predictor, as_input
from contrafact.run.engine import run_study
from contrafact.store.files import Files

FILE = Path(__file__).parent.parent / "studies" / "london_smile.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, help="keeps the trained models; by default a folder that goes")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="neutral, every method at the largest dose, own smile")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        place = settings.read(asked.workspace or Path(scratch))
        place.workspace.mkdir(parents=True, exist_ok=True)
        loaded = study.load(FILE, data=place.data)
        facts = run_study(loaded, place, until="finetune").facts
        found, sheet = compared(loaded.study, facts, Files(place.files_url), Path(scratch))
    text = json.dumps(found, indent=1)
    print(text)
    if asked.json:
        asked.json.write_text(text + "\n")
    if asked.sheet:
        asked.sheet.write_bytes(decode.png_bytes(sheet))


def compared(plan: study.Study, facts: dict[str, Any], files: Files, folder: Path) -> tuple[dict[str, Any], np.ndarray]:
    """The figures, and a sheet: a column a person, a row a method."""
    folders = {**facts["predict"]["files"], "steering": facts["finetune"]["guide"], "denoiser": facts["finetune"]["denoiser"]}
    where = {role: files.get_folder(sha, folder / role) for role, sha in folders.items()}
    guide, steering, judge, probes = (Predictor.load(where[role]) for role in ("guide", "steering", "judge", "probe_guide"))
    data = pack.load(files, facts["ingest"])
    neutral, smiling = pairs(data)
    doses = np.array(plan.doses.grid, np.float32)
    source, target = as_input(data.images[neutral]), torch.from_numpy(np.tile(doses, (len(neutral), 1)))

    units = facts["finetune"]["conditions"]
    levels = {"score": guide.read(data.images[neutral])[:, 0]}
    columns = [
        ((levels[name] if name in levels else data.covariates[name].to_numpy(float)[neutral]) - unit["mean"]) / unit["sd"]
        for name, unit in units.items()
    ]
    condition = torch.tensor(np.stack(columns, 1), dtype=torch.float32)
    learnt = np.concatenate([data.images[data.split == "train"], data.extra])
    bench = Bench(Counted(open_denoiser(where["denoiser"])), guide, steering, learnt, plan.seed, plan.directions["smile"].edit)
    direction = plan.directions["smile"]
    held = [partial(_column, probes, probes.names.index(name)) for name in direction.hold]

    def core(bench: Bench, source: Tensor, condition: Tensor, target: Tensor) -> Tensor:
        own = bench.edit
        path = invert(bench.denoiser, source, condition, depth=own.depth, steps=own.steps)
        push = Guidance(lambda x: steering.score(x)[:, 0], held, own.trust_radius)
        measure = reading_change([bench.reads])
        return edit(
            bench.denoiser, path, push, target, target, measure, corrections=own.secant_steps, mask_quantile=own.mask_quantile
        ).images

    methods = {**baselines.METHODS, "core": core, "vae": baselines.VaeMorph(learnt, plan.seed)}
    del methods["dime"]
    own, real = data.images[neutral], data.images[smiling]
    rng = seeds.generator(plan.seed, "persons")
    draws = rng.integers(0, len(neutral), (2000, len(neutral)))
    movement = [reader.read(real)[:, 0] - reader.read(own)[:, 0] for reader in (guide, judge)]
    found: dict[str, Any] = {
        "persons": len(neutral),
        "real": {
            "guide": interval(movement[0], draws),
            "judge": interval(movement[1], draws),
            "transfer": ratio(movement[1], movement[0], draws),
        },
        "rows": [],
    }
    rows = [own]
    for name, method in methods.items():
        torch.manual_seed(0)
        edits = decode.to_uint8(method(bench, source, condition, target).detach().flatten(0, 1).numpy())
        edits = edits.reshape(len(neutral), len(doses), *own.shape[1:])
        found["rows"].append({"method": name, **measured(judge, guide, own, edits, real, doses, draws)})
        print(json.dumps(found["rows"][-1]), flush=True)
        rows.append(edits[:, -1])
    sheet = np.concatenate([np.concatenate(list(row), 1) for row in [*rows, real]])
    found["sheet"] = ["neutral", *methods, "own smile"]
    return found, sheet


def _column(predictor: Predictor, number: int, x: Tensor) -> Tensor:
    return predictor.score(x)[:, number]


def pairs(data: pack.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the neutral and of the smiling photograph of each person among the stimuli."""
    mine = data.split == "stimuli"
    rows = [
        (int(np.flatnonzero(own & (data.outcome == 0))[0]), int(np.flatnonzero(own & (data.outcome == 1))[0]))
        for own in (mine & (data.unit_id == unit) for unit in np.unique(data.unit_id[mine].astype(str)))
        if (own & (data.outcome == 0)).any() and (own & (data.outcome == 1)).any()
    ]
    return np.array([a for a, _ in rows]), np.array([b for _, b in rows])


def measured(
    judge: Predictor, guide: Predictor, own: np.ndarray, edits: np.ndarray, real: np.ndarray, doses: np.ndarray, draws: np.ndarray
) -> dict[str, Any]:
    """Figures of edits (n, d, h, w, 3) of ``own``, beside ``real``, all (n, h, w, 3)."""
    n, d = edits.shape[:2]
    flat = edits.reshape(n * d, *edits.shape[2:])
    moved = judge.read(flat)[:, 0].reshape(n, d) - judge.read(own)[:, [0]]
    reached = guide.read(flat)[:, 0].reshape(n, d) - guide.read(own)[:, [0]]
    at = {name: features(judge, images) for name, images in (("own", own), ("real", real), ("edit", flat))}
    apart = np.linalg.norm(at["edit"].reshape(n, d, -1) - at["real"][:, None], axis=2)
    before = np.linalg.norm(at["own"] - at["real"], axis=1)
    used = doses != 0
    return {
        "guide_slope": interval(reached[:, used] @ doses[used] / (doses[used] @ doses[used]), draws),
        "slope": interval(moved[:, used] @ doses[used] / (doses[used] @ doses[used]), draws),
        "nearness": [ratio(apart[:, k], before, draws) for k in range(d)],
        "nearest_share": float((apart[:, -1] < before).mean()),
        "pixel_change": float(np.abs(edits - own[:, None].astype(float))[:, used].mean() / 255),
    }


@torch.no_grad()
def features(judge: Predictor, images: np.ndarray) -> np.ndarray:
    return judge.features(as_input(images)).numpy().astype(float)


def interval(values: np.ndarray, draws: np.ndarray) -> list[float]:
    """Mean over persons with its 95% bootstrap interval."""
    return [float(x) for x in (values.mean(), *np.quantile(values[draws].mean(1), (0.025, 0.975)))]


def ratio(above: np.ndarray, below: np.ndarray, draws: np.ndarray) -> list[float]:
    """Ratio of means over persons with its 95% bootstrap interval."""
    found = above[draws].mean(1) / below[draws].mean(1)
    return [float(x) for x in (above.mean() / below.mean(), *np.quantile(found, (0.025, 0.975)))]


if __name__ == "__main__":
    main()
