"""gate: a card for every stimulus from instruments that never guided, and the rule that sets pass."""

from __future__ import annotations

import io
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from contrafact import seeds
from contrafact.counterfactual import card, gate, set_card
from contrafact.counterfactual.perceptual import open_perceptual
from contrafact.counterfactual.text import open_text_model
from contrafact.images import decode, pack, worlds
from contrafact.predictors.predictor import Predictor, as_input
from contrafact.run.context import Context
from contrafact.stats.equivalence import tost_mean
from contrafact.store.records import CardRecord, GateRecord, StimulusRecord
from contrafact.study import schema

HELD_MARGIN = 0.15  # SD; the bound of the equivalence test of held covariates


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
    row_of = {key: k for k, key in enumerate(data.key)}
    keys = {image.id: image.key for image in context.store.images(context.study_id, split="stimuli")}
    names = {direction.id: direction.name for direction in context.store.directions(context.study_id)}
    doses = np.array(study.doses.grid)
    zero = int(np.flatnonzero(doses == 0)[0])
    real = data.images[data.split == "validation"]
    features = _features(judge, real)

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
    readings: list[pd.DataFrame] = []
    lead: tuple[list[str], np.ndarray] | None = None  # images and treated pictures of the first direction
    for name, direction in study.directions.items():
        stimuli = [row for row in context.store.stimuli(context.study_id) if names[row.direction_id] == name]
        frame = _frame(context, stimuli, keys)
        images = list(dict.fromkeys(frame["image"]))
        pictures = {
            arm: _cube(frame, images, doses, arm)
            for arm in ("treated", "sham", "placebo")
            if (frame["arm"] == arm).any()
        }
        lead = lead or (images, pictures["treated"])
        n, d = len(images), len(doses)
        source = data.images[[row_of[key] for key in images]]
        instrument, number = judge, 0  # the judge of what the direction aims at
        if direction.target != "outcome":
            assert probes is not None
            instrument, number = probes, probes.names.index(direction.target)
        measured: dict[str, dict[str, np.ndarray]] = {}
        for arm, cube in context.progress(list(pictures.items()), len(pictures), f"cards {name}"):
            flat = cube.reshape(n * d, *cube.shape[2:])
            base = np.repeat(source, d, axis=0)
            measured[arm] = {
                "judge": instrument.read(flat)[:, number].reshape(n, d),
                "logit": instrument.read(flat, raw=True)[:, number].reshape(n, d),
                "l1": card.l1(flat, base).reshape(n, d),
                "ssim": card.ssim(flat, base).reshape(n, d),
                "norm": np.sqrt(((flat.astype(float) - base) ** 2).mean((1, 2, 3))).reshape(n, d),
                "realism": card.realism(_features(judge, flat), features).reshape(n, d),
                "mark": card.mark(flat).reshape(n, d, -1),
                **(
                    {f"probe_{probe}": column for probe, column in _columns(probes, flat, n, d).items()}
                    if probes
                    else {}
                ),
            }
        delivered = {
            arm: instrument.read(cube.reshape(n * d, *cube.shape[2:]))[:, number].reshape(n, d)
            for arm in pictures
            if "delivered" in frame
            for cube in [_cube(frame, images, doses, arm, "delivered")]
        }
        effects = {
            arm: card.effect(values["judge"], values["logit"], doses) for arm, values in measured.items()
        }
        treated = measured["treated"]
        ends = np.flatnonzero(doses != 0)
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
            **_seen_apart(context, pictures["treated"][:, ends], source),
            **upstream["generate"]["axioms"][name],
            **_of_the_set(context, name, pictures, measured, source, judge, features),
        }
        if delivered:
            slope, low, high = card.slope_interval(delivered["treated"], doses)
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
        _store_cards(context, stimuli, keys, images, doses, measured, delivered, leakage, detector, ends, judge_sha)
        facts["sets_passed"] += int(sum(passed))
        facts["sets_failed"] += int(n - sum(passed))
        readings.append(frame.assign(passed=frame["image"].map(dict(zip(images, passed, strict=True)))))

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
    if study.world is not None:
        assert lead is not None
        reader = Predictor.load(folders["reader"])
        facts |= _read_by_respondents(context, reader, pd.concat(readings), *lead, data, judge)
    facts["stopped"] = _stopped(context, facts)
    return facts


def _frame(context: Context, stimuli: list[StimulusRecord], keys: dict[int, str]) -> pd.DataFrame:
    """One row a stimulus: ``picture`` at the model's size, ``delivered`` what people see made as small again."""
    size = context.study.images.size if context.study.images else schema.Images().size
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


@torch.no_grad()
def _features(judge: Predictor, images: np.ndarray) -> np.ndarray:
    """The judge's own features (n, f): what comes before its head."""
    head = judge.heads[0]
    return np.concatenate(
        [head.features(as_input(images[k : k + 500])).numpy() for k in range(0, len(images), 500)]
    ).astype(float)


def _of_the_set(
    context: Context,
    name: str,
    pictures: dict[str, np.ndarray],
    measured: dict[str, dict[str, np.ndarray]],
    source: np.ndarray,
    judge: Predictor,
    real: np.ndarray,
) -> dict[str, float]:
    """The card of the whole set of treated pictures; ``real`` are the judge's features of validation images."""
    doses = np.array(context.study.doses.grid)
    zero, ends = int(np.flatnonzero(doses == 0)[0]), np.flatnonzero(doses != 0)
    treated, values = pictures["treated"][:, ends], measured["treated"]
    flat = treated.reshape(-1, *treated.shape[2:])
    rng = seeds.generator(context.study.seed, "set card", name)
    marks = {arm: found["mark"][:, ends] for arm, found in measured.items()}
    return {
        **asdict(set_card.likeness(_features(judge, flat), real, rng)),
        "edit_auc": (
            set_card.edit_auc(card.mark(source), marks["sham"], marks["treated"]) if "sham" in marks else float("nan")
        ),
        "locality": float(np.nanmean(set_card.locality(flat, np.repeat(source, len(ends), axis=0)))),
        "minimality": set_card.minimality(values["l1"][:, ends], (values["judge"] - values["judge"][:, [zero]])[:, ends]),
    }


def _seen_apart(context: Context, treated: np.ndarray, source: np.ndarray) -> dict[str, float]:
    """Mean perceptual distance and open_clip cosine of treated pictures (n, d, h, w, 3) and their sources; NaN for a
    network that the study does not name."""
    edited, unedited = treated.reshape(-1, *treated.shape[2:]), np.repeat(source, treated.shape[1], axis=0)
    found = {"lpips": float("nan"), "clip_similarity": float("nan")}
    named = context.loaded.inputs
    if "card.vgg" in named:
        distances = open_perceptual(named["card.vgg"]).distance(as_input(edited), as_input(unedited))
        found["lpips"] = float(distances.mean())
    if "card.clip" in named:
        model = open_text_model(named["card.clip"])
        with torch.no_grad():
            one, other = (
                torch.cat([model.pictures(as_input(part)) for part in np.array_split(each, -(-len(each) // 100))])
                for each in (edited, unedited)
            )
        found["clip_similarity"] = float((one * other).sum(1).mean())
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
    measured: dict[str, dict[str, np.ndarray]],
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
    stimuli: list[StimulusRecord],
    keys: dict[int, str],
    images: list[str],
    doses: np.ndarray,
    measured: dict[str, dict[str, np.ndarray]],
    delivered: dict[str, np.ndarray],
    leakage: dict[str, np.ndarray],
    detector: np.ndarray,
    ends: np.ndarray,
    judge_sha: str,
) -> None:
    at_image, at_dose = (
        {key: i for i, key in enumerate(images)},
        {float(dose): j for j, dose in enumerate(doses)},
    )
    zero = at_dose[0.0]
    beyond = {(key, dose) for key, dose in context.upstream["generate"]["unsupported"]}
    rows = []
    for stimulus in stimuli:
        arm = "treated" if stimulus.arm == "null" else stimulus.arm
        i, j, values = at_image[keys[stimulus.image_id]], at_dose[stimulus.dose], measured[arm]
        probes = {
            key.removeprefix("probe_"): value for key, value in values.items() if key.startswith("probe_")
        }
        rows.append(
            CardRecord(
                stimulus_id=stimulus.id,
                judge_sha256=judge_sha,
                judge_dose=float(values["judge"][i, j] - values["judge"][i, zero]),
                delivered_dose=float(delivered[arm][i, j] - delivered[arm][i, zero]) if delivered else float("nan"),
                leakage={probe: float(value[i, j] - value[i, zero]) for probe, value in probes.items()},
                l1=float(values["l1"][i, j]),
                ssim=float(values["ssim"][i, j]),
                realism=float(values["realism"][i, j]),
                artefact=float(detector[i, list(ends).index(j)])
                if arm == "treated" and j in ends
                else float("nan"),
                flags=["unsupported"] if arm == "treated" and (stimulus.set_key, stimulus.dose) in beyond else [],
            )
        )
    context.store.put_cards(context.study_id, context.stage_run_id, rows)


def _read_by_respondents(
    context: Context,
    reader: Predictor,
    frame: pd.DataFrame,
    images: list[str],
    treated: np.ndarray,
    data: pack.Dataset,
    judge: Predictor,
) -> dict[str, Any]:
    """What simulated people see in the pixels, and would see in the re-rendered truth.

    ``frame`` holds every stimulus; ``treated`` (n, d, h, w, 3) the first direction's edits of ``images``.
    """
    study = context.study
    assert study.world is not None
    respondents = study.survey.respondents if study.survey else None
    column = reader.names.index(respondents.reads if respondents else study.world.cause)
    row_of = {key: k for k, key in enumerate(data.key)}
    pictures = np.stack(list(frame["picture"]))
    base = data.images[[row_of[key] for key in frame["image"]]]
    distance = np.sqrt(((pictures.astype(float) - base) ** 2).mean((1, 2, 3)))
    table = frame[["stimulus", "image", "direction", "arm", "draw", "dose", "passed"]].assign(
        reading=reader.read(pictures)[:, column],
        mark=distance / max(distance[frame["arm"] == "treated"].std(), 1e-9),
    )

    doses = np.array(study.doses.grid)
    n, d = treated.shape[:2]
    own = data.factors.loc[[row_of[key] for key in images]].to_numpy(float)
    size, flat = treated.shape[2], treated.reshape(n * d, *treated.shape[2:])
    judged = judge.read(flat)[:, 0].reshape(n, d)
    truth = worlds.counterfactuals(
        own,
        study.world.cause,
        judged - judged[:, doses == 0],
        lambda x: judge.read(x)[:, 0],
        size,
        study.world.name,
    )
    seen = reader.read(truth.reshape(flat.shape))[:, column].reshape(n, d)
    read = reader.read(flat).reshape(n, d, -1)
    ends = doses != 0
    unedited = treated[:, doses == 0].astype(float)
    off = np.abs(treated[:, ends] - truth[:, ends].astype(float)).mean()
    wide = pd.DataFrame({"image": np.repeat(images, d), "dose": np.tile(doses, n), "reading": seen.ravel()})
    return {
        "readings": context.files.put(_parquet(table)),
        "truth_readings": context.files.put(_parquet(wide)),
        "factor_slopes": dict(zip(reader.names, map(float, _mean_slope(read, doses)), strict=True)),
        "truth_factor_slope": float(_mean_slope(seen[:, :, None], doses)[0]),
        "truth_distance": float(off / np.abs(unedited - truth[:, ends]).mean()),
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
