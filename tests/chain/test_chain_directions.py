"""Every kind of direction, from the study file to its card, in one tiny chain."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contrafact import settings
from contrafact.images import decode
from contrafact.predictors.predictor import Predictor
from contrafact.store.files import Files

KINDS = """\
  noisy: {kind: noise_aware, hold: [skin], edit: {steps: 4, mask_quantile: 0.5}}
  bottleneck: {kind: latent, hold: [skin], edit: {steps: 4, mask_quantile: 0.5}}
  code: {kind: latent, space: encoder, hold: [skin], edit: {steps: 4, mask_quantile: 0.5}}
  slide: {kind: slider, hold: [skin], slider: {rank: 2, images_seen: 320}, edit: {steps: 4, mask_quantile: 0.5}}
doses:"""


def test_every_kind_is_edited_controlled_and_measured(
    predicted: Any, changed: Callable[..., Path], tmp_path: Path
) -> None:
    chain = predicted.copy(tmp_path / "kinds")
    told = chain.run(changed(("doses:", KINDS), ("images: 9}", "images: 4}")), "--until", "gate")
    assert [stage["name"] for stage in told.said["stages"] if stage["cached"]] == ["ingest", "predict"]
    files = Files(settings.read(chain.workspace).files_url)
    with chain.store() as store:
        study = store.study("tiny")
        table = store.stimuli_table(study.id)
        cards = {card.stimulus_id for card in store.cards(study.id)}
    assert set(table["stimulus"]) <= cards
    for name, rows in table.groupby("direction"):
        sources = rows[rows["arm"] == "null"].set_index("image")["pixels_sha256"]
        assert len(sources) == 4, name
        for arm in ("treated", "sham", "placebo"):
            made = rows[rows["arm"] == arm]
            assert len(made) == 4 * 2, (name, arm)
            moved = [
                np.abs(decode.from_png(files.get(row.pixels_sha256)).astype(int) - decode.from_png(files.get(sources[row.image])))
                for row in made.itertuples()
            ]
            assert np.mean(moved) > 0.05, (name, arm)


def test_doses_are_read_by_a_guide_that_gave_no_gradient(
    predicted: Any, changed: Callable[..., Path], tmp_path: Path
) -> None:
    """With a steering share, who learns to steer and who learns to read are other units' networks, up to the card."""
    chain = predicted.copy(tmp_path / "apart")
    plan = changed(("guide: {", "guide: {steering_share: 0.5, "), ("images: 9}", "images: 4}"))
    said = chain.run(plan, "--until", "gate").said
    assert said["stopped"] is None
    files = Files(settings.read(chain.workspace).files_url)
    with chain.store() as store:
        study = store.study("tiny")
        guides = {model.name: model for model in store.models(study.id) if model.role == "guide"}
        stimuli = store.stimuli(study.id)
    assert set(guides) == {"guide", "guide, steering, of photographs", "guide, steering"}
    assert {row.guide_sha256 for row in stimuli} == {guides["guide, steering"].files_sha256}
    reads, on, steers = (
        Predictor.load(files.get_folder(guides[name].files_sha256, tmp_path / name)) for name in sorted(guides)
    )
    treated = [row for row in stimuli if row.arm in ("treated", "null")]
    pictures = np.stack([decode.from_png(files.get(row.pixels_sha256)) for row in treated])
    dose = np.array([row.dose for row in treated])
    moved = [np.polyfit(dose, each.read(pictures)[:, 0], 1)[0] for each in (reads, on, steers)]
    # A gradient finds what its own network takes for the outcome: the network that was followed is moved furthest.
    assert moved[0] == pytest.approx(1, abs=0.25)
    assert min(moved[1:]) > 1.2 * moved[0]


ROUNDS = """\
  found: {kind: guidance, target: skin, audit: the second round leaves it out, edit: {steps: 4}}
  plain: {kind: guidance, edit: {steps: 4}}
  second: {kind: arithmetic, sum: {plain: 1}, orthogonal_to: [found], edit: {steps: 4}}
doses:"""


@pytest.mark.slow
def test_a_second_round_leaves_what_the_first_one_found(
    predicted: Any, changed: Callable[..., Path], tmp_path: Path
) -> None:
    """The outcome's direction, made orthogonal to a found one, moves the outcome still and the found reading less."""
    chain = predicted.copy(tmp_path / "rounds")
    said = chain.run(changed(("doses:", ROUNDS))).said
    assert said["stopped"] is None
    files = Files(settings.read(chain.workspace).files_url)
    with chain.store() as store:
        study = store.study("tiny")
        table = store.stimuli_table(study.id)
        (sha,) = [model.files_sha256 for model in store.models(study.id) if model.role == "probe_guide"]
    probe = Predictor.load(files.get_folder(sha, tmp_path / "probe"))
    moved, judged = {}, {}
    for name, rows in table[table["arm"] == "treated"].groupby("direction"):
        wide = rows.pivot(index="image", columns="dose", values="pixels_sha256")
        low, high = (
            probe.read(np.stack([decode.from_png(files.get(sha)) for sha in wide[dose]]))[:, 0] for dose in (-0.4, 0.4)
        )
        moved[name] = high - low
        judged[name] = float((rows["judge_dose"] * rows["dose"]).mean())
    assert moved["found"].mean() > 0.4
    assert np.abs(moved["second"]).mean() < np.abs(moved["plain"]).mean() / 2
    assert judged["second"] > 0
    assert set(table["direction"]) == {"outcome", "found", "plain", "second"}
    assert "second" in chain.report().read_text(encoding="utf-8")
