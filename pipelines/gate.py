"""gate: a card for every stimulus from instruments that never guided, and the rule that sets pass."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from contrafact import seeds
from contrafact.counterfactual import card, gate, set_card
from contrafact.counterfactual.perceptual import Perceptual, open_perceptual
from contrafact.counterfactual.text import TextModel, open_text_model
from contrafact.images import decode, pack, worlds
from contrafact.predictors.predictor import Predictor, as_input
from contrafact.run.context import Context
from contrafact.stats.equivalence import tost_mean
from contrafact.store.records import CardRecord, GateRecord
from contrafact.study import schema

HELD_MARGIN = 0.15  # SD; the bound of the equivalence test of held covariates

BLOCK = 16
"""Images whose pictures are in memory at once; of the others there are numbers."""

CLOUD = 1_000
"""Treated pictures at most whose cloud of features is compared with that of real ones."""

ARMS = ("treated", "sham", "placebo")

Measures = dict[str, np.ndarray]
"""Arrays by the name of what they measure, their first axis the images."""


@dataclass(frozen=True)
class Instruments:
    """The judge's side: nothing of it has guided. ``reader`` in rendered worlds alone, the networks of other people
    where the study names them."""

    judge: Predictor
    probes: Predictor | None
    reader: Predictor | None
    nearness: card.Nearness
    perceptual: Perceptual | None
    clip: TextModel | None


def run(context: Context) -> dict[str, Any]:
    """Facts: quality of each direction, drawable or not, sets passed and failed, readings for simulated people."""
    study, upstream = context.study, context.upstream
    data = pack.load(context.files, upstream["ingest"])
    folders = {
        role: context.files.get_folder(sha, context.folder / role)
        for role, sha in upstream["predict"]["files"].items()
        if role in ("judge", "probe_judge", "reader")
    }
    judge = Predictor.load(folders["judge"])
    judge_sha = upstream["predict"]["files"]["judge"]
    probes = Predictor.load(folders["probe_judge"]) if "probe_judge" in folders else None
    features = _features(judge, data.images[data.split == "validation"])
    instruments = Instruments(
        judge=judge,
        probes=probes,
        reader=Predictor.load(folders["reader"]) if study.world is not None else None,
        nearness=card.Nearness.among(features),
        perceptual=open_perceptual(context.loaded.inputs["card.vgg"]) if "card.vgg" in context.loaded.inputs else None,
        clip=open_text_model(context.loaded.inputs["card.clip"]) if "card.clip" in context.loaded.inputs else None,
    )
    ids = {image.key: image.id for image in context.store.images(context.study_id, split="stimuli")}
    numbers = {direction.name: direction.id for direction in context.store.directions(context.study_id)}
    doses = np.array(study.doses.grid)
    zero, ends = int(np.flatnonzero(doses == 0)[0]), np.flatnonzero(doses != 0)

    facts: dict[str, Any] = {
        "directions": {},
        "held": {},
        "by_dose": [],
        "sets_passed": 0,
        "sets_failed": 0,
        "reasons": {},
        "drawable": {},
        "drawability": _drawability(context, judge, probes),
    }
    beyond = {(key, dose) for key, dose in upstream["generate"]["unsupported"]}
    readings: list[pd.DataFrame] = []
    truth: Measures | None = None  # of the first direction
    for name, direction in study.directions.items():
        edited = (key.split("/", 1) for key in upstream["generate"]["null_error"])
        images = sorted((image for own, image in edited if own == name), key=ids.__getitem__)
        n = len(images)
        blocks = [images[k : k + BLOCK] for k in range(0, n, BLOCK)]
        described = seeds.generator(study.seed, "cloud", name).permutation(n)[: CLOUD // len(ends)]
        cloud = {images[k] for k in described}
        rising = _rising(context, judge, data, images) if study.world is not None and truth is None else None
        parts, tables, seen, clouds = [], [], [], []
        for block in context.progress(blocks, len(blocks), f"cards {name}"):
            frame = _frame(context, numbers[name], {ids[key]: key for key in block})
            pictures = {arm: _cube(frame, block, doses, arm) for arm in ARMS if (frame["arm"] == arm).any()}
            source = data.images[_rows(data, block)]
            found = _measured(instruments, direction, pictures, source, doses)
            clouds.append(found["treated"].pop("features")[[image in cloud for image in block]])
            if "delivered" in frame:
                for arm in pictures:
                    again = _cube(frame, block, doses, arm, "delivered")
                    found[arm]["delivered"] = _reading(instruments, direction, again)
            parts.append(found)
            if instruments.reader is not None:
                tables.append(_read_by_respondents(context, instruments.reader, frame, data))
            if rising is not None:
                seen.append(_true_changes(context, instruments, data, block, pictures["treated"], rising))
        measured = {arm: _joined([part[arm] for part in parts]) for arm in parts[0]}
        truth = truth or (_joined(seen) if seen else None)

        effects = {
            arm: card.effect(values["judge"], values["logit"], doses) for arm, values in measured.items()
        }
        treated = measured["treated"]
        auc, detector = card.artefact_auc(treated["mark"][:, ends], treated["mark"][:, zero])
        leakage = {
            probe: treated[f"probe_{probe}"] - treated[f"probe_{probe}"][:, [zero]]
            for probe in (probes.names if probes else ())
        }
        held = {}
        for probe in direction.hold:
            quality = upstream["predict"]["quality"][f"probe_judge.{probe}"]
            usable = quality["value"] >= (0.75 if quality["metric"] == "auc" else 0.5)
            signed = leakage[probe][:, ends].mean(0)
            test = tost_mean((leakage[probe] @ doses) / (doses @ doses), HELD_MARGIN)
            held[probe] = {
                "estimable": bool(usable),
                "signed_max_sd": float(np.abs(signed).max()) if usable else float("nan"),
                "corrected_max_sd": (
                    set_card.corrected(float(np.abs(signed).max()), quality["value"])
                    if usable and quality["metric"] == "r2"
                    else float("nan")
                ),
                "absolute_sd": float(np.abs(leakage[probe][:, ends]).mean()) if usable else float("nan"),
                "probe_quality": quality,
                "equivalence": asdict(test),
                "margin_sd_per_dose": HELD_MARGIN,
            }
        slope, low, high = card.slope_interval(treated["judge"], doses)
        facts["held"][name] = held
        facts["drawable"][name] = bool(low > 0)
        facts["directions"][name] = {
            "effects": {arm: asdict(value) for arm, value in effects.items()},
            "slope": slope,
            "slope_low": low,
            "slope_high": high,
            "artefact_auc": auc,
            "l1": float(treated["l1"][:, ends].mean()),
            "ssim": float(treated["ssim"][:, ends].mean()),
            "images": n,
            "moves": {
                probe: float(value) for probe, value in zip(
                    leakage, _mean_slope(np.stack(list(leakage.values()), -1), doses) if leakage else (), strict=True
                )
            },
            **upstream["generate"]["axioms"][name],
            **_of_the_set(context, name, measured, np.concatenate(clouds), features),
        }
        if "delivered" in treated:
            slope, low, high = card.slope_interval(treated["delivered"], doses)
            facts["directions"][name]["delivered"] = {"slope": slope, "slope_low": low, "slope_high": high}
        facts["by_dose"] += [
            {
                "direction": name,
                "arm": arm,
                "dose": float(dose),
                "judge": float((values["judge"] - values["judge"][:, [zero]])[:, j].mean()),
            }
            for arm, values in measured.items()
            for j, dose in enumerate(doses)
        ]
        passed = _gated(context, facts, name, images, direction.hold, measured, leakage, ends, auc)
        place = {key: i for i, key in enumerate(images)}
        for block in blocks:
            at_image = {ids[key]: place[key] for key in block}
            _store_cards(context, numbers[name], at_image, doses, measured, detector, beyond, judge_sha)
        facts["sets_passed"] += int(sum(passed))
        facts["sets_failed"] += int(n - sum(passed))
        if tables:
            table = pd.concat(tables, ignore_index=True)
            readings.append(table.assign(passed=table["image"].map(dict(zip(images, passed, strict=True)))))

    first = next(iter(study.directions))
    worst = [abs(found["signed_max_sd"]) for found in facts["held"][first].values()]
    effect = facts["directions"][first]["effects"]["treated"]
    facts["quality"] = {
        "judge_flip_rate": effect["flip_rate"],
        "judge_spearman": effect["spearman"],
        "judge_slope": effect["slope"],
        "leakage_max_sd": max(worst) if worst else float("nan"),
        "null_max_error": upstream["generate"]["null_max_error"],
    }
    context.log_metrics({key: value for key, value in facts["quality"].items() if not np.isnan(value)})
    if instruments.reader is not None:
        assert truth is not None
        facts |= _respondents(context, instruments.reader, pd.concat(readings), truth)
    facts["stopped"] = _stopped(context, facts)
    return facts


def _frame(context: Context, direction_id: int, keys: dict[int, str]) -> pd.DataFrame:
    """One row a stimulus of the images ``keys`` (id to key) along a direction: ``picture`` at the model's size,
    ``delivered`` what people see made as small again."""
    size = context.study.images.size if context.study.images else schema.Images().size
    stimuli = context.store.stimuli(context.study_id, direction_id=direction_id, image_ids=list(keys))
    frame = pd.DataFrame(
        {
            "stimulus": [row.id for row in stimuli],
            "image": [keys[row.image_id] for row in stimuli],
            "direction": [row.set_key.split("/")[0] for row in stimuli],
            "arm": [row.arm for row in stimuli],
            "draw": [row.draw for row in stimuli],
            "dose": [row.dose for row in stimuli],
            "picture": [
                decode.from_png(context.files.get(row.edited_sha256 or row.pixels_sha256)) for row in stimuli
            ],
        }
    )
    if all(row.edited_sha256 for row in stimuli):
        shown = (decode.from_png(context.files.get(row.pixels_sha256)) for row in stimuli)
        frame["delivered"] = [decode.to_square(Image.fromarray(picture), size) for picture in shown]
    return frame


def _cube(
    frame: pd.DataFrame, images: list[str], doses: np.ndarray, arm: str, column: str = "picture"
) -> np.ndarray:
    """Pictures (n, d, h, w, 3) of an arm; its dose 0 is the null arm's."""
    found = frame[frame["arm"].isin([arm, "null"])].set_index(["image", "dose"])[column]
    return np.stack([np.stack([found[(image, dose)] for dose in doses]) for image in images])


def _rows(data: pack.Dataset, images: Sequence[str]) -> list[int]:
    """Where the images of these keys stand among the study's."""
    row_of = {key: k for k, key in enumerate(data.key)}
    return [row_of[key] for key in images]


@torch.no_grad()
def _features(judge: Predictor, images: np.ndarray) -> np.ndarray:
    """The judge's own features (n, f): what comes before its head."""
    head = judge.heads[0]
    return np.concatenate(
        [head.features(as_input(images[k : k + 500])).numpy() for k in range(0, len(images), 500)]
    ).astype(float)


def _flat(cube: np.ndarray) -> np.ndarray:
    """Pictures (n * d, h, w, 3) of a cube (n, d, h, w, 3)."""
    return cube.reshape(-1, *cube.shape[2:])


def _reading(
    instruments: Instruments, direction: schema.Direction, cube: np.ndarray, *, raw: bool = False
) -> np.ndarray:
    """What the judge of the direction's target reads (n, d) in pictures (n, d, h, w, 3)."""
    instrument, number = instruments.judge, 0
    if direction.target != "outcome":
        assert instruments.probes is not None
        instrument, number = instruments.probes, instruments.probes.names.index(direction.target)
    return instrument.read(_flat(cube), raw=raw)[:, number].reshape(cube.shape[:2])


def _measured(
    instruments: Instruments,
    direction: schema.Direction,
    pictures: dict[str, np.ndarray],
    source: np.ndarray,
    doses: np.ndarray,
) -> dict[str, Measures]:
    """The measures of a block of images by arm; ``pictures`` (n, d, h, w, 3) by arm, ``source`` (n, h, w, 3).

    Of the treated arm also what the card of the whole set is made of, at the doses other than 0.
    """
    found: dict[str, Measures] = {}
    for arm, cube in pictures.items():
        n, d = cube.shape[:2]
        flat, base = _flat(cube), np.repeat(source, d, axis=0)
        features = _features(instruments.judge, flat)
        found[arm] = {
            "judge": _reading(instruments, direction, cube),
            "logit": _reading(instruments, direction, cube, raw=True),
            "l1": card.l1(flat, base).reshape(n, d),
            "ssim": card.ssim(flat, base).reshape(n, d),
            "norm": np.sqrt(((flat.astype(float) - base) ** 2).mean((1, 2, 3))).reshape(n, d),
            "realism": instruments.nearness.of(features).reshape(n, d),
            "mark": card.mark(flat).reshape(n, d, -1),
            **(
                {f"probe_{probe}": column for probe, column in _columns(instruments.probes, flat, n, d).items()}
                if instruments.probes
                else {}
            ),
        }
        if arm == "treated":
            ends = doses != 0
            some, unedited = _flat(cube[:, ends]), np.repeat(source, ends.sum(), axis=0)
            found[arm] |= {
                "features": features.reshape(n, d, -1)[:, ends],
                "mark_of_source": card.mark(source),
                "locality": set_card.locality(some, unedited).reshape(n, -1),
                **_seen_apart(instruments, some, unedited, n),
            }
    return found


def _joined(parts: Sequence[Measures]) -> Measures:
    """The measures of all blocks, one after another."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _of_the_set(
    context: Context, name: str, measured: dict[str, Measures], cloud: np.ndarray, real: np.ndarray
) -> dict[str, float]:
    """The card of the whole set of treated pictures; ``cloud`` (m, d, f) and ``real`` (n, f) are the judge's features
    of some of them and of validation images."""
    doses = np.array(context.study.doses.grid)
    zero, ends = int(np.flatnonzero(doses == 0)[0]), np.flatnonzero(doses != 0)
    values = measured["treated"]
    rng = seeds.generator(context.study.seed, "set card", name)
    marks = {arm: found["mark"][:, ends] for arm, found in measured.items()}
    return {
        **asdict(set_card.likeness(cloud.reshape(-1, cloud.shape[-1]), real, rng)),
        "edit_auc": (
            set_card.edit_auc(values["mark_of_source"], marks["sham"], marks["treated"])
            if "sham" in marks
            else float("nan")
        ),
        "locality": float(pd.Series(values["locality"].ravel()).mean()),  # of pictures that moved; NaN where none did
        "minimality": set_card.minimality(values["l1"][:, ends], (values["judge"] - values["judge"][:, [zero]])[:, ends]),
        **{
            seen: float(values[seen].mean()) if seen in values else float("nan")
            for seen in ("lpips", "clip_similarity")
        },
    }


def _seen_apart(instruments: Instruments, edited: np.ndarray, unedited: np.ndarray, n: int) -> Measures:
    """Perceptual distances and open_clip cosines (n, d) of edited pictures (n * d, h, w, 3) and their sources, by the
    networks that the study names."""
    found = {}
    if instruments.perceptual is not None:
        found["lpips"] = instruments.perceptual.distance(as_input(edited), as_input(unedited)).reshape(n, -1)
    if instruments.clip is not None:
        with torch.no_grad():
            one, other = (instruments.clip.pictures(as_input(each)) for each in (edited, unedited))
        found["clip_similarity"] = (one * other).sum(1).numpy().reshape(n, -1)
    return found


def _drawability(context: Context, judge: Predictor, probes: Predictor | None) -> dict[str, dict[str, float]]:
    """What a shift of each condition by an SD moves the judge's side by, in SD of its reading, with a 95% interval."""
    found = {}
    for name, sha in context.upstream["generate"]["drawn"].items():
        pictures = np.load(io.BytesIO(context.files.get(sha)), allow_pickle=False)
        instrument, number = judge, 0
        if name != "score":
            assert probes is not None
            instrument, number = probes, probes.names.index(name)
        reading = instrument.read(pictures.reshape(-1, *pictures.shape[2:]))[:, number].reshape(len(pictures), 3)
        slope, low, high = card.slope_interval(reading, np.array([-1.0, 0.0, 1.0]))
        found["outcome" if name == "score" else name] = {"slope": slope, "low": low, "high": high}
    return found


def _columns(probes: Predictor, flat: np.ndarray, n: int, d: int) -> dict[str, np.ndarray]:
    read = probes.read(flat)
    return {name: read[:, k].reshape(n, d) for k, name in enumerate(probes.names)}


def _gated(
    context: Context,
    facts: dict[str, Any],
    name: str,
    images: list[str],
    hold: tuple[str, ...],
    measured: dict[str, Measures],
    leakage: dict[str, np.ndarray],
    ends: np.ndarray,
    auc: float,
) -> list[bool]:
    rule = context.study.gate
    limits = gate.Limits(rule.null_error, rule.leakage_sd, rule.norm_ratio, rule.realism)
    treated = measured["treated"]
    controls = [arm for arm in measured if arm != "treated"]
    rows, passed = [], []
    for i, image in enumerate(images):
        ratios = [measured[arm]["norm"][i, ends] / treated["norm"][i, ends] for arm in controls]
        found = gate.reasons(
            gate.SetMeasures(
                null_error=context.upstream["generate"]["null_error"][f"{name}/{image}"],
                leakage={probe: leakage[probe][i, ends] for probe in hold},
                norm_ratio=np.concatenate(ratios) if ratios else np.empty(0),
                realism=np.concatenate([values["realism"][i] for values in measured.values()]),
            ),
            limits,
        )
        if auc > rule.artefact_auc:
            found = (*found, "artefact_auc")
        for reason in found:
            facts["reasons"][reason] = facts["reasons"].get(reason, 0) + 1
        passed.append(not found)
        rows.append(GateRecord(set_key=f"{name}/{image}", passed=not found, reasons=list(found)))
    context.store.put_gate_decisions(context.study_id, context.stage_run_id, rows)
    return passed


def _store_cards(
    context: Context,
    direction_id: int,
    at_image: dict[int, int],
    doses: np.ndarray,
    measured: dict[str, Measures],
    detector: np.ndarray,
    beyond: set[tuple[str, float]],
    judge_sha: str,
) -> None:
    """The cards of a block: ``at_image`` says where its images stand in ``measured``, ``detector`` (n, ends) is the
    artefact score, ``beyond`` the doses that were not reached."""
    at_dose = {float(dose): j for j, dose in enumerate(doses)}
    zero, ends = at_dose[0.0], list(np.flatnonzero(doses != 0))
    rows = []
    for stimulus in context.store.stimuli(context.study_id, direction_id=direction_id, image_ids=list(at_image)):
        arm = "treated" if stimulus.arm == "null" else stimulus.arm
        i, j, values = at_image[stimulus.image_id], at_dose[stimulus.dose], measured[arm]
        probes = {
            key.removeprefix("probe_"): value for key, value in values.items() if key.startswith("probe_")
        }
        delivered = values.get("delivered")
        rows.append(
            CardRecord(
                stimulus_id=stimulus.id,
                judge_sha256=judge_sha,
                judge_dose=float(values["judge"][i, j] - values["judge"][i, zero]),
                delivered_dose=float("nan") if delivered is None else float(delivered[i, j] - delivered[i, zero]),
                leakage={probe: float(value[i, j] - value[i, zero]) for probe, value in probes.items()},
                l1=float(values["l1"][i, j]),
                ssim=float(values["ssim"][i, j]),
                realism=float(values["realism"][i, j]),
                artefact=float(detector[i, ends.index(j)])
                if arm == "treated" and j in ends
                else float("nan"),
                flags=["unsupported"] if arm == "treated" and (stimulus.set_key, stimulus.dose) in beyond else [],
            )
        )
    context.store.put_cards(context.study_id, context.stage_run_id, rows)


def _cause(context: Context, names: Sequence[str]) -> int:
    """The factor that respondents look at, among those of a reader."""
    world, survey = context.study.world, context.study.survey
    assert world is not None
    return list(names).index(survey.respondents.reads if survey else world.cause)


def _read_by_respondents(
    context: Context, reader: Predictor, frame: pd.DataFrame, data: pack.Dataset
) -> pd.DataFrame:
    """What simulated people see in the pixels of a block's stimuli, and how far those are from the photographs."""
    pictures = np.stack(list(frame["picture"]))
    base = data.images[_rows(data, list(frame["image"]))]
    return frame[["stimulus", "image", "direction", "arm", "draw", "dose"]].assign(
        reading=reader.read(pictures)[:, _cause(context, reader.names)],
        distance=np.sqrt(((pictures.astype(float) - base) ** 2).mean((1, 2, 3))),
    )


def _rising(context: Context, judge: Predictor, data: pack.Dataset, images: list[str]) -> bool:
    """Whether the judge's reading rises with the planted cause, on re-rendered pictures."""
    world, some = context.study.world, images[: 2 * BLOCK]
    assert world is not None
    own = data.factors.loc[_rows(data, some)].to_numpy(float)
    return worlds.rises(own, world.cause, lambda x: judge.read(x)[:, 0], data.images.shape[1], world.name)


def _true_changes(
    context: Context,
    instruments: Instruments,
    data: pack.Dataset,
    images: list[str],
    treated: np.ndarray,
    rising: bool,
) -> Measures:
    """The re-rendered truth of a block of ``images``: what the reader sees in it (n, d), in the edits (n, d, k), and how far these,
    and the unedited pictures, are from it (n,)."""
    world, judge, reader = context.study.world, instruments.judge, instruments.reader
    assert world is not None and reader is not None
    doses, (n, d) = np.array(context.study.doses.grid), treated.shape[:2]
    own = data.factors.loc[_rows(data, images)].to_numpy(float)
    judged = judge.read(_flat(treated))[:, 0].reshape(n, d)
    truth = worlds.counterfactuals(
        own,
        world.cause,
        judged - judged[:, doses == 0],
        lambda x: judge.read(x)[:, 0],
        treated.shape[2],
        world.name,
        rising,
    )
    ends, unedited = doses != 0, treated[:, doses == 0].astype(float)
    return {
        "image": np.array(images, object),
        "seen": reader.read(_flat(truth))[:, _cause(context, reader.names)].reshape(n, d),
        "read": reader.read(_flat(treated)).reshape(n, d, -1),
        "off": np.abs(treated[:, ends] - truth[:, ends].astype(float)).mean((1, 2, 3, 4)),
        "away": np.abs(unedited - truth[:, ends]).mean((1, 2, 3, 4)),
    }


def _respondents(context: Context, reader: Predictor, table: pd.DataFrame, truth: Measures) -> dict[str, Any]:
    """What simulated people see in every stimulus, and would see in the re-rendered truth of the first direction."""
    doses, d = np.array(context.study.doses.grid), len(context.study.doses.grid)
    spread = max(table.loc[table["arm"] == "treated", "distance"].to_numpy().std(), 1e-9)
    table = table.assign(mark=table["distance"] / spread).drop(columns="distance")
    n = len(truth["seen"])
    wide = pd.DataFrame(
        {"image": np.repeat(truth["image"], d), "dose": np.tile(doses, n), "reading": truth["seen"].ravel()}
    )
    slopes = _mean_slope(truth["read"], doses)
    return {
        "readings": context.files.put(_parquet(table)),
        "truth_readings": context.files.put(_parquet(wide)),
        "factor_slopes": dict(zip(reader.names, map(float, slopes), strict=True)),
        "truth_factor_slope": float(_mean_slope(truth["seen"][:, :, None], doses)[0]),
        "truth_distance": float(truth["off"].mean() / truth["away"].mean()),
    }


def _mean_slope(reading: np.ndarray, doses: np.ndarray) -> np.ndarray:
    """Mean over images of the dose slope through dose 0, (k,), of readings (n, d, k)."""
    change = reading - reading[:, doses == 0]
    return np.einsum("ndk,d->k", change, doses) / (doses @ doses) / len(reading)


def _parquet(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue()


def _stopped(context: Context, facts: dict[str, Any]) -> str | None:
    for name, drawable in facts["drawable"].items():
        if not drawable:
            found = facts["directions"][name]
            return (
                f"Direction {name} is not drawable: the judge's slope on the edited images is {found['slope']:.2f} "
                f"[{found['slope_low']:.2f}, {found['slope_high']:.2f}] per requested SD, which includes zero. Longer training, more images, "
                "a closer crop or guidance instead of a condition shift would help."
            )
    limit = context.study.gate.artefact_auc
    marked = {name: found["artefact_auc"] for name, found in facts["directions"].items() if found["artefact_auc"] > limit}
    if marked and len(marked) == len(facts["directions"]):
        said = " and ".join(f"{name} with an AUC of {auc:.2f}" for name, auc in marked.items())
        return (
            f"Editing leaves a mark by which treated pictures are told from dose 0, direction {said} (the study allows "
            f"{limit:g}): people could answer to it. Smaller doses, a soft mask or longer training would help; "
            "gate.artefact_auc: 1 lets all pass."
        )
    if facts["sets_passed"] == 0:
        return f"No matched set passes the gate: {', '.join(f'{reason} ({count})' for reason, count in facts['reasons'].items())}."
    return None
