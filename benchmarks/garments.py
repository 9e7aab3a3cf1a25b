"""Garments that no model has seen, edited by a study's directions and read by networks and by a light meter.

    CONTRAFACT_DATA=DIR python benchmarks/garments.py STUDY.yaml [--workspace DIR] [--json FILE] [--sheet FILE]

Runs studies/clothing_tone.yaml or studies/clothing_sleeves.yaml up to generate, which a workspace does once, and reads
the stimuli at the model's size. A row is one direction's arm: ``slope`` is movement per SD of dose by the guide that
steers, the guide that reads doses, the judge and the probe of the held covariate; of a study of ``tone`` the mean luma
of the middle of the picture (``middle``) and of its frame (``frame``), in SD of the photographs', is measured too,
which no network has a part in. ``by_dose`` is the judge's movement at each dose, ``pixel_change`` the mean absolute
change of a pixel, of the range. Intervals resample garments (2,000 draws).

``--sheet`` draws the first eight garments, a row each, at every dose of every direction's treated arm.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from smiles import interval

from contrafact import seeds, settings, study
from contrafact.counterfactual.delivery import LUMA
from contrafact.images import decode, pack
from contrafact.predictors.predictor import Predictor
from contrafact.run.engine import run_study
from contrafact.store import open_store
from contrafact.store.files import Files

Read = Callable[[np.ndarray], np.ndarray]
"""(n, h, w, 3) 8-bit -> (n,) in SD of real photographs."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--workspace", type=Path, help="keeps the trained models; by default a folder that goes")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="eight garments at every dose of every direction")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        place = settings.read(asked.workspace or Path(scratch))
        place.workspace.mkdir(parents=True, exist_ok=True)
        loaded = study.load(asked.study, data=place.data)
        facts = run_study(loaded, place, until="generate").facts
        files = Files(place.files_url)
        with open_store(place.database_url, create=False) as store:
            record = store.study(loaded.study.study)
            assert record is not None
            names = {direction.id: direction.name for direction in store.directions(record.id)}
            stimuli = pd.DataFrame([asdict(stimulus) for stimulus in store.stimuli(record.id)])
        # At the model's size; where people see another, `pixels_sha256` is theirs.
        stimuli["pixels"] = stimuli["edited_sha256"].fillna(stimuli["pixels_sha256"])
        stimuli["direction"] = stimuli["direction_id"].map(names)
        readers = readers_of(loaded.study, facts, files, Path(scratch))
        rows, sheets = read(stimuli, files, readers, loaded.study.seed)
    text = json.dumps({"rows": rows}, indent=1)
    print(text)
    if asked.json:
        asked.json.write_text(text + "\n")
    if asked.sheet:
        asked.sheet.write_bytes(decode.png_bytes(np.concatenate(sheets, 1).repeat(2, 0).repeat(2, 1)))


def readers_of(plan: study.Study, facts: dict[str, Any], files: Files, folder: Path) -> dict[str, Read]:
    """Every network of the study, by name, and the light meter where the outcome is light."""
    where = {"steers": facts["finetune"]["guide"], **{role: facts["predict"]["files"][role] for role in ("guide", "judge")}}
    found: dict[str, Read] = {
        role: _column(Predictor.load(files.get_folder(sha, folder / role)), 0) for role, sha in where.items()
    }
    if "probe_judge" in facts["predict"]["files"]:
        probes = Predictor.load(files.get_folder(facts["predict"]["files"]["probe_judge"], folder / "probe_judge"))
        found |= {name: _column(probes, k) for k, name in enumerate(probes.names)}
    if plan.images is not None and plan.images.outcome.column == "tone":
        real = pack.load(files, facts["ingest"]).images
        found |= {part.__name__: _standard(part, real) for part in (middle, frame)}
    return found


def _column(predictor: Predictor, number: int) -> Read:
    return lambda pictures: predictor.read(pictures)[:, number]


def _standard(measure: Read, real: np.ndarray) -> Read:
    scale = measure(real).std()
    return lambda pictures: measure(pictures) / scale


def luma(pictures: np.ndarray) -> np.ndarray:
    """Rec. 601, (n, h, w), 0 to 255."""
    return pictures @ LUMA


def middle(pictures: np.ndarray) -> np.ndarray:
    """Mean luma of the middle two fifths, which is cloth."""
    side = pictures.shape[1]
    inner = slice(round(0.3 * side), round(0.7 * side))
    return luma(pictures[:, inner, inner]).mean((1, 2))


def frame(pictures: np.ndarray) -> np.ndarray:
    """Mean luma of the outermost twelfth, which is floor, wall and light."""
    side = pictures.shape[1]
    outer, edge = np.ones((side, side), bool), round(side / 12)
    outer[edge:-edge, edge:-edge] = False
    return luma(pictures)[:, outer].mean(1)


def read(stimuli: pd.DataFrame, files: Files, readers: dict[str, Read], seed: int) -> tuple[list[dict[str, Any]], list[np.ndarray]]:
    """A row for every direction's arm, and a sheet for every direction's treated one."""
    rows, sheets = [], []
    for direction, own in stimuli.groupby("direction", sort=False):
        null = own[own["arm"] == "null"].set_index("image_id")["pixels"]
        sources = {image: decode.from_png(files.get(sha)) for image, sha in null.items()}
        for arm in ("treated", "sham", "placebo"):
            table = own[own["arm"] == arm].pivot_table(index="image_id", columns="dose", values="pixels", aggfunc="first")
            if table.empty:
                continue
            pictures = np.stack([[decode.from_png(files.get(sha)) for sha in row] for row in table.to_numpy()])
            base = np.stack([sources[image] for image in table.index])
            doses = table.columns.to_numpy(float)
            n, d = pictures.shape[:2]
            draws = seeds.generator(seed, "garments").integers(0, n, (2000, n))
            moved = {
                name: reader(pictures.reshape(n * d, *pictures.shape[2:])).reshape(n, d) - reader(base)[:, None]
                for name, reader in readers.items()
            }
            rows.append(
                {
                    "direction": direction,
                    "arm": arm,
                    "garments": n,
                    "slope": {name: interval(values @ doses / (doses @ doses), draws) for name, values in moved.items()},
                    "by_dose": dict(zip(doses.tolist(), moved["judge"].mean(0).tolist(), strict=True)),
                    "pixel_change": float(np.abs(pictures - base[:, None].astype(float)).mean() / 255),
                }
            )
            if arm == "treated":
                columns = np.insert(pictures[:8], np.searchsorted(doses, 0), base[:8], axis=1)
                sheets.append(np.concatenate([np.concatenate(list(row), 1) for row in columns]))
    return rows, sheets


if __name__ == "__main__":
    main()
