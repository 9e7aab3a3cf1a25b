"""What the engine costs beside the networks that it asks, how much memory it takes, and how fast it is in batches.

    python benchmarks/engine.py [--quick] [--part overhead memory throughput] [--workspace DIR] [--json FILE]

``overhead``: inversion, five doses and the sham arm of 8 faces with networks of the demo's size and random weights
(their speed does not depend on what they have learned). Every evaluation of the U-Net and of a reader, forwards and
gradients, is written down and made once more on its own, at the same batch sizes; ``ratio`` is processor time of the
engine over that of these bare calls, medians of repetitions taken in turn.

``memory``: `contrafact run` where 100, 1,000 and 10,000 images of one study are to be edited and gated, 16 px, the
smallest network and three steps, since growth is what is measured; each stage in a process of its own, and what comes
before in another, kept in DIR. ``loaded_mb`` is the resident size of the process before the first picture was made or
read, with the study's images (768 bytes each) in memory, ``peak_mb`` the largest from then on (Linux).

``throughput``: images a minute of processor time, by batch size: inversion and five doses of a condition shift, two
corrections of each, with networks of the demo's size.

``--quick``: fewer repetitions, 100 and 1,000 images.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from contrafact import seeds, settings, study
from contrafact.counterfactual import arms
from contrafact.counterfactual.direction import ConditionShift, Direction, Guidance, Reader
from contrafact.counterfactual.edit import Edited, edit, reading_change
from contrafact.diffusion.denoiser import PixelDenoiser, Prediction
from contrafact.diffusion.invert import Path as Inverted
from contrafact.diffusion.invert import invert
from contrafact.diffusion.network import Spec, fresh
from contrafact.diffusion.schedule import cosine
from contrafact.images import decode, worlds
from contrafact.predictors.predictor import Predictor, Target, as_input
from contrafact.run.engine import run_study
from contrafact.study.schema import World

DOSES = torch.tensor([-1.5, -0.75, 0.0, 0.75, 1.5])
SIZE, STEPS, DEPTH, QUANTILE = 32, 10, 0.65, 0.75
SMALL = """
study: memory
title: Memory of the engine
images:
  manifest: faces/images.csv
  size: 16
  splits: {{train: {share}, judge: {share}, validation: {share}, lockbox: 0, stimuli: {stimuli}}}
model: {{channels: [16, 16], patch: 4, images_seen: 1536, batch: 32, warmup_steps: 10}}
predictors:
  guide: {{heads: 1, epochs: 20, batch: 32, denoised_share: 0}}
  judge: {{epochs: 20, batch: 32, denoised_share: 0}}
  bootstrap: 50
directions:
  outcome: {{kind: guidance, edit: {{steps: 3, secant_steps: 0, batch: 50}}}}
doses: {{grid: [-0.1, 0, 0.1], support: [0, 1]}}
arms: {{sham: false, placebo: 0, images: {edited}}}
"""
OTHERS = 400
"""Images of each split that models learn from, whatever the number that is edited."""


@dataclass
class Calls:
    """Evaluations that were asked for: what was evaluated, how many rows, and with a gradient or not."""

    made: list[tuple[str, int, bool]] = field(default_factory=list)


class Recorded:
    """A denoiser that writes down what it is asked."""

    def __init__(self, denoiser: PixelDenoiser, calls: Calls) -> None:
        self.denoiser, self.calls = denoiser, calls
        self.shape, self.alphas_cumprod = denoiser.shape, denoiser.alphas_cumprod

    def predict(
        self, x: Tensor, t: Tensor, condition: Tensor | None = None, keep: Tensor | None = None
    ) -> Prediction:
        self.calls.made.append(("denoiser", len(x), False))
        return self.denoiser.predict(x, t, condition, keep)


@dataclass
class Bench:
    """Networks of the demo's size with random weights: U-Net, guide of three heads, guide's probe of one covariate."""

    denoiser: PixelDenoiser
    guide: Predictor
    probe: Predictor

    @classmethod
    def fresh(cls) -> Bench:
        spec = Spec(SIZE, (48, 64, 96), 2, "v", "cosine", 1000, ("score", "skin"), (0.0, 0.0), (1.0, 1.0))
        heads = [Predictor("guide", [Target(name, "continuous")], list(range(n))) for name, n in (("y", 3), ("skin", 1))]
        return cls(PixelDenoiser(fresh(spec, seed=1), cosine(1000), "v"), *(head.eval() for head in heads))

    def reader(self, name: str, calls: Calls | None = None) -> Reader:
        predictor = self.guide if name == "guide" else self.probe

        def read(x: Tensor) -> Tensor:
            if calls is not None:
                calls.made.append((name, len(x), torch.is_grad_enabled()))
            return predictor.score(x)[:, 0]

        return read

    def edited(self, kind: str, faces: Tensor, calls: Calls | None = None) -> None:
        """Inversion and five doses of ``faces``, and the sham arm where ``kind`` says so."""
        denoiser: Any = self.denoiser if calls is None else Recorded(self.denoiser, calls)
        guide, probe = self.reader("guide", calls), self.reader("skin", calls)
        path = invert(denoiser, faces, torch.zeros(len(faces), 2), depth=DEPTH, steps=STEPS)
        target = DOSES.repeat(len(faces), 1)
        direction: Direction = ConditionShift() if kind == "condition" else Guidance(guide, [probe])
        made = edit(
            denoiser, path, direction, target, target, reading_change([guide]), corrections=2, mask_quantile=QUANTILE
        )
        if kind == "guidance and sham":
            self._sham(denoiser, path, made, [guide, probe])

    def _sham(self, denoiser: Any, path: Inverted, made: Edited, keep: list[Reader]) -> None:
        noise = torch.from_numpy(seeds.normal(tuple(path.x[0].shape), 1, "engine", "sham"))
        away = arms.sham(denoiser, path, noise, keep)
        arms.matched(denoiser, path, away, made, DOSES)

    def bare(self, calls: Calls) -> None:
        """The same evaluations, and nothing else."""
        rows = torch.zeros(max(n for _, n, _ in calls.made), 3, SIZE, SIZE)
        condition, times = torch.zeros(len(rows), 2), torch.full((len(rows),), 500)
        for name, n, with_gradient in calls.made:
            x = rows[:n]
            if name == "denoiser":
                self.denoiser.predict(x, times[:n], condition[:n])
            elif with_gradient:
                leaf = x.clone().requires_grad_(True)
                torch.autograd.grad(self.reader(name)(leaf).sum(), leaf)
            else:
                with torch.no_grad():
                    self.reader(name)(x)


def faces(n: int) -> Tensor:
    own = worlds.sample(World(kind="true", images=max(n, 200)), 1)
    return as_input(worlds.render(own.factors[:n], SIZE, "faces"))


def spent(work: Callable[[], None]) -> float:
    """Seconds of processor time."""
    began = time.process_time()
    work()
    return time.process_time() - began


def overhead(quick: bool) -> list[dict[str, Any]]:
    bench, some, rows = Bench.fresh(), faces(8), []
    for kind in ("condition", "guidance", "guidance and sham"):
        calls = Calls()
        bench.edited(kind, some, calls)  # also warms up
        pairs = [
            (spent(lambda: bench.edited(kind, some)), spent(lambda: bench.bare(calls)))  # noqa: B023
            for _ in range(2 if quick else 3)
        ]
        engine, bare = (statistics.median(column) for column in zip(*pairs, strict=True))
        evaluations = sum(n for name, n, _ in calls.made if name == "denoiser") / len(some)
        rows.append(
            {"kind": kind, "images": len(some), "engine_s": engine, "bare_s": bare, "ratio": engine / bare,
             "unet_evaluations_an_image": evaluations, "calls": len(calls.made)}
        )  # fmt: skip
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def throughput(quick: bool) -> list[dict[str, Any]]:
    bench, rows = Bench.fresh(), []
    total = 16
    some = faces(total)
    bench.edited("condition", some[:1])
    for batch in (1, 4, 16) if quick else (1, 2, 4, 8, 16):
        began = time.process_time()
        for part in some.split(batch):
            bench.edited("condition", part)
        rows.append({"batch": batch, "images_a_minute": 60 * total / (time.process_time() - began)})
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def photographs(folder: Path, n: int) -> None:
    """Rendered faces as files of 16 px with a manifest, as a study of photographs has them."""
    folder.mkdir(parents=True, exist_ok=True)
    own = worlds.sample(World(kind="true", images=n, effect=4), 1)
    names = [f"{k:05d}.png" for k in range(n)]
    for name, picture in zip(names, worlds.render(own.factors, 16), strict=True):
        (folder / name).write_bytes(decode.png_bytes(picture))
    table = pd.DataFrame({"image": names, "unit_id": names, "outcome": np.asarray(own.outcome, int)})
    table.to_csv(folder / "images.csv", index=False)


def memory(quick: bool, folder: Path) -> list[dict[str, Any]]:
    rows, counts = [], (100, 1_000) if quick else (100, 1_000, 10_000)
    # A few images more than are edited, for those that lie outside of what the validation images support.
    images = 3 * OTHERS + round(1.1 * counts[-1])
    photographs(folder / "faces", images)
    file, share = folder / "memory.yaml", OTHERS / images
    for count in counts:
        file.write_text(SMALL.format(share=share, stimuli=1 - 3 * share, edited=count))
        for until in ("finetune", "generate", "gate"):
            words = [sys.executable, __file__, "--child", str(file), until]
            found = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
            if until != "finetune":
                rows.append({"images": count, "stage": until, **json.loads(found.stdout.splitlines()[-1])})
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def child(file: Path, until: str) -> None:
    """One process that runs a study up to a stage and says how large it became."""
    torch.set_num_threads(1)
    loaded: list[float] = []

    def progress(items: Any, total: int | None = None, label: str = "") -> Any:
        if label.startswith(("generate ", "cards ")):
            loaded.append(resident("VmRSS"))
            Path("/proc/self/clear_refs").write_text("5")  # what was largest while models loaded is forgotten
        yield from items

    began = time.process_time()
    result = run_study(study.load(file), settings.read(file.parent / "workspace"), until=until, progress=progress)
    said = {
        "stimuli": result.facts["generate"]["stimuli"] if "generate" in result.facts else None,
        "loaded_mb": loaded[0] if loaded else None,
        "peak_mb": resident("VmHWM"),
        "cpu_s": time.process_time() - began,
    }
    print(json.dumps(said))


def resident(which: str) -> float:
    """Resident size of this process in MB, as Linux tells it: ``VmRSS`` now, ``VmHWM`` the largest."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(which))


PARTS = ("overhead", "memory", "throughput")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--part", choices=PARTS, nargs="+", default=PARTS)
    parser.add_argument("--workspace", type=Path, help="keeps the study of `memory`; by default a folder that goes")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        return child(Path(asked.child[0]), asked.child[1])
    torch.set_num_threads(1)
    said: dict[str, Any] = {}
    if "overhead" in asked.part:
        said["overhead"] = overhead(asked.quick)
    if "memory" in asked.part:
        with tempfile.TemporaryDirectory() as scratch:
            said["memory"] = memory(asked.quick, asked.workspace or Path(scratch))
    if "throughput" in asked.part:
        said["throughput"] = throughput(asked.quick)
    said["machine"] = {"processor": platform.machine(), "threads": 1, "torch": torch.__version__}
    text = json.dumps(said, indent=1)
    if asked.json:
        asked.json.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
