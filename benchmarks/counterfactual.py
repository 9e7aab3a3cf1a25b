"""The engine against other ways of drawing counterfactuals, on the same rendered faces, models and targets.

    python benchmarks/counterfactual.py [--quick] [--json FILE] [--workspace DIR] [--sheets DIR] [--seeds 1 2 3]
        [--world faces|products|unheld]

Runs benchmarks/counterfactual.yaml (a confounded world: the outcome depends on groom alone, skin is correlated and
held; the model is conditioned on the outcome score and on skin) up to finetune, once for each training seed;
``products`` is the same with bottles and a continuous outcome, ``unheld`` the same faces with nothing held. Then it
edits faces that nothing was trained on, within support, at -1.5 to 1.5 SD. Every figure is read by the judge, the
probes and the reader, which no method has seen; pictures are 8-bit, errors on the range [0, 1]. A row holds the worst
seed, and each seed under ``seeds``. The engine takes 1,000 faces (128 with ``--quick``), the others the first 128 of
them, DiME, whose cost grows with the square of its steps, the first 16. What a workspace holds already is not done
again.

The figures: ``judge_flip_rate``, of images whose own judge's score is within 1 SD, the share that the judge
calls otherwise at the end that points there; ``guide_judge_gap``, the guide's flip rate minus the judge's;
``planted_share``, the planted factor's movement over that of the re-rendered face that moves the judge as
much; ``unplanted_max_sd``, the largest mean movement of any other factor at +-1.5; ``leakage_max_sd``, the
held covariate's, by the judge's probe, ``leakage_equivalent`` its equivalence test at .15 SD a unit of dose,
``leakage_absolute_sd`` the mean size image by image; ``truth_distance``, L1 to that re-rendered face over the
unedited face's L1 to it; ``l1_per_sd``, ``truth_l1_per_sd`` and ``cpu_ms_per_sd``, L1 of an edit and of that
face, and processor time, over the judge's movement; ``judge_retained``, the squared correlation of the
judge's readings of photographs and of their dose 0; ``evaluations``, rows of the network for one image and
its five doses; ``sham_sd``, the judge's mean movement by the sham arm of 256 faces at +-1.5; ``edit_auc``, of
a detector trained on raw against sham pictures of other faces, read on treated against sham.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import baselines
import numpy as np
import torch
from baselines import Bench, Counted
from ruamel.yaml import YAML
from torch import Tensor

from contrafact import seeds, settings, study
from contrafact.counterfactual import arms, card
from contrafact.counterfactual.edit import Edited
from contrafact.diffusion.denoiser import open_denoiser
from contrafact.diffusion.invert import invert
from contrafact.images import decode, pack, worlds
from contrafact.predictors.predictor import Predictor, Target, as_input
from contrafact.predictors.quality import Mapping, auc
from contrafact.predictors.train import FitConfig, fit
from contrafact.run.engine import run_study
from contrafact.stats.equivalence import tost_mean
from contrafact.store.files import Files
from contrafact.study.schema import World

DOSES = np.array([-1.5, -0.75, 0.0, 0.75, 1.5])
ENDS, ZERO = DOSES != 0, 2
SHAMS = 256
"""Faces of the sham arm, whose bisection costs several edits of each."""
OTHERS = 16
"""Faces on a contact sheet."""

BETTER = {
    **dict.fromkeys(("judge_flip_rate", "spearman", "monotone_share", "leakage_equivalent", "judge_retained", "ssim"), "high"),
    **dict.fromkeys(("planted_share", "slope"), "one"),
    "edit_auc": "half",
}
"""Where a figure is best; the others are best low."""

WORLDS: dict[str, dict[str, Any]] = {
    "faces": {},
    "products": {
        "world": {"name": "products", "cause": "label", "nuisance": "backdrop"},
        "images": {"outcome": {"kind": "continuous"}, "covariates": {"backdrop": {}}},
        # Chosen by truth distance on bottles of another draw.
        "directions": {"outcome": {"hold": ["backdrop"], "edit": {"depth": 0.75, "steps": 5}}},
    },
    "unheld": {"directions": {"outcome": {"hold": []}}},
}
"""What each world changes in counterfactual.yaml."""


@dataclass
class Judges:
    """What measures, and has guided nothing; ``real`` are the judge's features of photographs."""

    judge: Predictor
    reader: Predictor
    probes: Predictor
    real: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument(
        "--workspace", type=Path, help="keeps the trained models; by default a folder that goes"
    )
    parser.add_argument("--sheets", type=Path, help="where contact sheets of the first seed go")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--methods", nargs="+", help="some of them alone")
    parser.add_argument("--world", choices=WORLDS, default="faces")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for seed in asked.seeds:
            place = asked.workspace or Path(scratch)
            n = 128 if asked.quick else 1_000
            for method, figures in one_seed(asked.world, seed, place, n, asked.sheets, asked.methods):
                found.setdefault(method, []).append(figures)
                print(json.dumps({"seed": seed, "method": method, **figures}), flush=True)
    rows = [{"method": method, **worst(each), "seeds": each} for method, each in found.items()]
    result = json.dumps({"rows": rows, "machine": machine()}, indent=1)
    print(result)
    if asked.json:
        asked.json.write_text(result + "\n")


def machine() -> dict[str, Any]:
    return {"processor": platform.machine(), "threads": torch.get_num_threads(), "torch": torch.__version__}


def worst(each: list[dict[str, float]]) -> dict[str, float]:
    """The least favourable seed, figure by figure."""
    distance: dict[str, Callable[[float], float]] = {
        "high": lambda x: -x, "one": lambda x: abs(x - 1), "half": lambda x: abs(x - 0.5), "low": lambda x: x
    }  # fmt: skip
    return {key: max((row[key] for row in each), key=distance[BETTER.get(key, "low")]) for key in each[0]}


def one_seed(
    world: str, seed: int, workspace: Path, n: int, sheets: Path | None, only: list[str] | None
) -> Any:
    """(method, figures) after figures, core first."""
    name = f"counterfactual_{seed}" if world == "faces" else f"counterfactual_{world}_{seed}"
    plan = YAML(typ="safe").load(Path(__file__).parent / "counterfactual.yaml")
    file = workspace / f"{name}.yaml"
    workspace.mkdir(parents=True, exist_ok=True)
    YAML(typ="safe").dump(_merged(plan, {**WORLDS[world], "study": name, "seed": seed}), file)
    loaded, place = study.load(file), settings.read(workspace)
    facts = run_study(loaded, place, until="finetune").facts
    files, models = Files(place.files_url), workspace / name.replace("counterfactual", "models")
    folders = {
        **facts["predict"]["files"],
        "steering": facts["finetune"]["guide"],
        "denoiser": facts["finetune"]["denoiser"],
    }
    where = {role: files.get_folder(sha, models / role) for role, sha in folders.items()}
    guide, steering, judge, reader, probes = (
        Predictor.load(where[role]) for role in ("guide", "steering", "judge", "reader", "probe_judge")
    )
    data = pack.load(files, facts["ingest"])
    assert loaded.study.world is not None
    scene = loaded.study.world.model_copy(update={"images": 12 * n})
    sample = worlds.sample(
        scene, seeds.integer(seed, "benchmark"), "continuous" if world == "products" else "binary"
    )
    faces = worlds.render(sample.factors, data.images.shape[1], scene.name)

    level, mapping = guide.read(faces)[:, 0], Mapping(**facts["predict"]["mapping"])
    reach = mapping.reach(level, DOSES)
    low, high = facts["predict"]["support"]
    inside = np.flatnonzero((level + reach.min(1) >= low) & (level + reach.max(1) <= high))[:n]
    if len(inside) < n:
        raise SystemExit(f"only {len(inside)} of {len(faces)} faces are within support")
    units = facts["finetune"]["conditions"]
    columns = {
        "score": level,
        **{name: sample.factors[:, sample.names.index(name)] for name in units if name != "score"},
    }
    condition = np.stack([(columns[name] - unit["mean"]) / unit["sd"] for name, unit in units.items()], 1)

    pictures, factors = faces[inside], sample.factors[inside]
    source = as_input(pictures)
    conditions = torch.from_numpy(condition[inside].astype(np.float32))
    targets = torch.from_numpy(reach[inside].astype(np.float32))
    validation = data.images[data.split == "validation"]
    judges = Judges(judge, reader, probes, _features(judge, validation))
    learnt = data.images[np.isin(data.split, ["train", "finetune"])]
    own = loaded.study.directions["outcome"].edit
    bench = Bench(Counted(open_denoiser(where["denoiser"])), guide, steering, learnt, seed, own)
    methods = dict(baselines.METHODS)
    methods["vae"] = baselines.VaeMorph(learnt, seed)
    kept = models / f"figures_{n}.json"
    done: dict[str, dict[str, float]] = json.loads(kept.read_text()) if kept.exists() else {}
    for name, method in methods.items():
        if only and name not in only:
            continue
        if name in done:
            yield name, done[name]
            continue
        count = n if name == "core" else 16 if name == "dime" else min(n, 128)
        bench.denoiser.rows, began = 0, time.process_time()
        edits = _batched(method, bench, source[:count], conditions[:count], targets[:count])
        cpu, rows = time.process_time() - began, bench.denoiser.rows
        flat = decode.to_uint8(edits.flatten(0, 1).numpy()).reshape(count, len(DOSES), *pictures.shape[1:])
        np.save(models / f"first_{name}.npy", flat[:OTHERS])
        figures = measured(pictures[:count], flat, factors[:count], judges, guide, scene)
        figures["null_max_error"] = float((edits[:, ZERO] - source[:count]).abs().max()) / 2
        figures["cpu_ms_per_sd"] = 1000 * cpu / (count * ENDS.sum()) / max(figures["judge_movement_sd"], 1e-9)
        figures["evaluations"] = rows / count
        if name == "core":
            figures |= null_path(bench, source[:8], conditions[:8])
            few = slice(0, SHAMS)
            figures |= controls(
                bench, source[few], conditions[few], edits[few], flat[few], pictures[few], judges, steering, where, seed
            )
        done[name] = figures
        draft = kept.with_suffix(".draft")
        draft.write_text(json.dumps(done))
        draft.rename(kept)
        yield name, figures
    if sheets and seed == 1:
        shown = {name: np.load(models / f"first_{name}.npy") for name in methods if name in done}
        contact_sheets(sheets, pictures, shown)


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes``, key by key; covariates are replaced whole."""
    out = dict(base)
    for key, value in changes.items():
        deep = isinstance(value, dict) and isinstance(base.get(key), dict) and key != "covariates"
        out[key] = _merged(base[key], value) if deep else value
    return out


def _batched(
    method: baselines.Method, bench: Bench, source: Tensor, condition: Tensor, target: Tensor
) -> Tensor:
    parts = [slice(k, k + 32) for k in range(0, len(source), 32)]
    return torch.cat([method(bench, source[part], condition[part], target[part]).detach() for part in parts])


@torch.no_grad()
def _features(judge: Predictor, images: np.ndarray) -> np.ndarray:
    parts = [judge.features(as_input(images[k : k + 500])).numpy() for k in range(0, len(images), 500)]
    return np.concatenate(parts).astype(float)


def measured(
    source: np.ndarray, edits: np.ndarray, factors: np.ndarray, judges: Judges, guide: Predictor, scene: World
) -> dict[str, float]:
    """Figures of edits (n, d, h, w, 3) of ``source`` (n, h, w, 3); movements are counted from the photograph."""
    n, d = edits.shape[:2]
    flat = edits.reshape(n * d, *edits.shape[2:])

    def moved(predictor: Predictor, column: int = 0) -> tuple[np.ndarray, np.ndarray]:
        own = predictor.read(source)[:, column]
        return predictor.read(flat)[:, column].reshape(n, d) - own[:, None], own

    def flips(predictor: Predictor, near: np.ndarray) -> float:
        own = predictor.read(source, raw=True)[:, 0]
        ends = predictor.read(flat, raw=True)[:, 0].reshape(n, d)[:, [0, -1]]
        away = np.where(own > 0, ends[:, 0], ends[:, 1])
        return float((np.sign(away) != np.sign(own))[near].mean())

    judge, own = moved(judges.judge)
    near = np.abs(own) < 1
    logit = np.zeros((n, d))
    effect = card.effect(judge + own[:, None], logit, DOSES)
    judge_flips, guide_flips = flips(judges.judge, near), flips(guide, near)
    held, _ = moved(judges.probes)
    read = judges.reader.read(flat).reshape(n, d, -1) - judges.reader.read(source)[:, None]
    truth = worlds.counterfactuals(
        factors, scene.cause, judge, lambda x: judges.judge.read(x)[:, 0], source.shape[1], scene.name
    )
    true = (
        judges.reader.read(truth.reshape(flat.shape)).reshape(n, d, -1) - judges.reader.read(source)[:, None]
    )
    cause = judges.reader.names.index(scene.cause)
    others = np.delete(read[:, [0, -1]].mean(0), cause, axis=1)
    base = source[:, None].astype(float)
    l1 = np.abs(edits - base)[:, ENDS].mean() / 255
    movement = float(np.abs(judge[:, ENDS]).mean())
    absence = tost_mean((held @ DOSES) / (DOSES @ DOSES), 0.15)
    signed = held[:, [0, -1]].mean(0)
    return {
        "images": float(n),
        "judge_flip_rate": judge_flips,
        "guide_judge_gap": guide_flips - judge_flips,
        "planted_share": float((read[:, :, cause] @ DOSES).mean() / (true[:, :, cause] @ DOSES).mean()),
        "unplanted_max_sd": float(np.abs(others).max()),
        "leakage_max_sd": float(np.abs(signed).max()),
        "leakage_equivalent": float(absence.equivalent),
        "leakage_absolute_sd": float(np.abs(held[:, ENDS]).mean()),
        "spearman": effect.spearman,
        "monotone_share": effect.monotone,
        "slope": effect.slope,
        "symmetry": effect.symmetry,
        "truth_distance": float(
            np.abs(edits - truth.astype(float))[:, ENDS].mean() / np.abs(base - truth)[:, ENDS].mean()
        ),
        "l1": float(l1),
        "l1_per_sd": float(l1 / movement),
        "truth_l1_per_sd": float(np.abs(truth - base)[:, ENDS].mean() / 255 / movement),
        "ssim": float(card.ssim(flat, np.repeat(source, d, 0)).mean()),
        "realism_sd": float(card.realism(_features(judges.judge, flat), judges.real).mean()),
        "judge_movement_sd": movement,
        "judge_retained": float(np.corrcoef(judge[:, ZERO] + own, own)[0, 1] ** 2),
    }


def null_path(bench: Bench, source: Tensor, condition: Tensor) -> dict[str, float]:
    """Dose 1e-6 through the same code as any dose: it may move no pixel by more than a dose of nothing."""
    target = torch.full((len(source), 1), 1e-6)
    return {
        "tiny_dose_error": float(
            (baselines.core(bench, source, condition, target)[:, 0] - source).abs().max()
        )
        / 2
    }


def controls(
    bench: Bench,
    source: Tensor,
    condition: Tensor,
    edits: Tensor,
    treated: np.ndarray,
    pictures: np.ndarray,
    judges: Judges,
    steering: Predictor,
    where: dict[str, Path],
    seed: int,
) -> dict[str, float]:
    """The sham arm of the same faces, and what a detector of edits makes of it."""
    probes = Predictor.load(where["probe_guide"])
    keep = [lambda x: steering.score(x)[:, 0], lambda x: probes.score(x)[:, 0]]
    signs, shams = torch.from_numpy(DOSES.astype(np.float32)), []
    for k in range(0, len(source), 32):
        part = slice(k, k + 32)
        path = invert(bench.denoiser, source[part], condition[part], depth=bench.edit.depth, steps=bench.edit.steps)
        noise = torch.stack(
            [
                torch.from_numpy(seeds.normal(bench.denoiser.shape, seed, "sham", i))
                for i in range(k, k + len(path.x[0]))
            ]
        )
        size = torch.zeros(edits[part].shape[:2])
        own = Edited(edits[part], size, size)
        away = arms.sham(bench.denoiser, path, noise, keep)
        shams.append(arms.matched(bench.denoiser, path, away, own, signs).images)
    sham = decode.to_uint8(torch.cat(shams).flatten(0, 1).numpy()).reshape(treated.shape)
    n, d = treated.shape[:2]
    moved = judges.judge.read(sham.reshape(n * d, *sham.shape[2:]))[:, 0].reshape(n, d)
    moved -= judges.judge.read(pictures)[:, [0]]
    norms = [
        np.sqrt(((x - pictures[:, None].astype(float)) ** 2).mean((2, 3, 4)))[:, ENDS]
        for x in (sham, treated)
    ]
    return {
        "sham_sd": float(np.abs(moved[:, [0, -1]].mean(0)).max()),
        "sham_absolute_sd": float(np.abs(moved[:, ENDS]).mean()),
        "sham_norm_within_tenth": float((np.abs(norms[0] / norms[1] - 1) <= 0.1).mean()),
        "edit_auc": detector_auc(pictures, sham[:, ENDS], treated[:, ENDS], seed),
    }


def detector_auc(raw: np.ndarray, sham: np.ndarray, treated: np.ndarray, seed: int) -> float:
    """A network trained to tell raw from sham pictures of one half of the faces, on the other half's treated and sham."""
    half, doses = len(raw) // 2, sham.shape[1]
    images = np.concatenate([np.repeat(raw[:half], doses, 0), sham[:half].reshape(-1, *raw.shape[1:])])
    label = np.repeat([0.0, 1.0], half * doses)[:, None]
    detector = Predictor("judge", [Target("edited", "binary")], [seeds.integer(seed, "detector")])
    fit(
        detector,
        images,
        label,
        FitConfig(epochs=max(4, 40_000 // len(images))),
        seeds.integer(seed, "detector"),
    )
    scores = [detector.read(x[half:].reshape(-1, *raw.shape[1:]), raw=True)[:, 0] for x in (sham, treated)]
    return auc(np.concatenate(scores), np.repeat([0.0, 1.0], [len(each) for each in scores]))


def contact_sheets(folder: Path, pictures: np.ndarray, first: dict[str, np.ndarray]) -> None:
    """The same 16 faces: unedited, then by every method, at each end of the doses."""
    folder.mkdir(parents=True, exist_ok=True)
    for column, name in ((0, "down"), (-1, "up")):
        rows = [pictures[:OTHERS], *(edits[:, column] for edits in first.values())]
        sheet = np.concatenate([np.concatenate(list(row), 1) for row in rows])
        (folder / f"counterfactual_{name}.png").write_bytes(decode.png_bytes(sheet.repeat(2, 0).repeat(2, 1)))
    print(json.dumps({"rows of the sheets": ["unedited", *first]}))


if __name__ == "__main__":
    main()
