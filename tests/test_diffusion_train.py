"""Training: resumed equals uninterrupted, divergence stops, something is learned."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file

from contrafact.diffusion.denoiser import open_denoiser
from contrafact.diffusion.network import Spec
from contrafact.diffusion.sample import sample
from contrafact.diffusion.train import (
    DivergedError,
    TrainConfig,
    _augment,
    ema_decay,
    held_out_loss,
    learning_rate,
    train,
)

SPEC = Spec(size=8, channels=(8, 16), patch=2, conditions=("a", "b"), mean=(0.0, 0.0), sd=(1.0, 1.0))
TINY = TrainConfig(spec=SPEC, seed=3, images_seen=32, batch=4, warmup_steps=2, checkpoint_images=12)


def some_images(n: int = 12) -> tuple[np.ndarray, np.ndarray]:
    draws = np.random.default_rng(0)
    labels = draws.standard_normal((n, 2)).astype(np.float32)
    labels[::3, 1] = np.nan
    return draws.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8), labels


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return {
        **load_file(folder / "unet/diffusion_pytorch_model.safetensors"),
        **load_file(folder / "condition_mlp.safetensors"),
    }


@pytest.mark.parametrize("stop", [1, 4, 6])
@pytest.mark.parametrize("augment", [False, True])
def test_resumed_training_is_bit_identical(tmp_path: Path, stop: int, augment: bool) -> None:
    images, labels = some_images()
    config = replace(TINY, augment=augment)
    whole = train(images, labels, config, tmp_path / "whole")
    cut = train(images, labels, config, tmp_path / "cut", stop_after=stop)
    assert cut.folder is None and cut.images_seen == 4 * stop
    resumed = train(images, labels, config, tmp_path / "cut")
    assert whole.folder and resumed.folder and resumed.images_seen == 32
    first, second = weights_of(whole.folder), weights_of(resumed.folder)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    for a, b in zip(whole.history, resumed.history, strict=True):
        assert {**a, "images_per_second": 0} == {**b, "images_per_second": 0}


def test_killed_between_checkpoints_goes_on_from_the_last_one(tmp_path: Path) -> None:
    images, labels = some_images()
    config = replace(TINY, images_seen=60 * 4, checkpoint_images=200)

    def kill(facts: dict[str, float]) -> None:
        if facts["step"] == 60:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(images, labels, config, tmp_path / "cut", kill)
    with (tmp_path / "cut/history.jsonl").open("a") as lines:
        lines.write('{"step": 60, "im')
    resumed = train(images, labels, config, tmp_path / "cut")
    whole = train(images, labels, config, tmp_path / "whole")
    assert whole.folder and resumed.folder
    first, second = weights_of(whole.folder), weights_of(resumed.folder)
    assert all(torch.equal(first[name], second[name]) for name in first)
    lines_kept = [json.loads(line) for line in (tmp_path / "cut/history.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines_kept] == [50, 60] == [facts["step"] for facts in resumed.history]


def test_checkpoint_of_other_images_is_refused(tmp_path: Path) -> None:
    images, labels = some_images()
    train(images, labels, TINY, tmp_path, stop_after=2)
    with pytest.raises(ValueError, match="other images or settings"):
        train(255 - images, labels, TINY, tmp_path)


def test_divergence_stops_with_the_last_good_checkpoint(tmp_path: Path) -> None:
    images, labels = some_images()
    with pytest.raises(DivergedError, match="no checkpoint"):
        train(np.full((4, 3, 8, 8), np.nan, np.float32), labels[:4], TINY, tmp_path / "nan")
    wild = replace(TINY, learning_rate=1e30, warmup_steps=0, images_seen=400, checkpoint_images=4)
    with pytest.raises(DivergedError, match="learning_rate") as caught:
        train(images, labels, wild, tmp_path / "wild")
    assert caught.value.checkpoint == tmp_path / "wild/checkpoint.safetensors"
    good = load_file(caught.value.checkpoint)
    assert good["window"].isfinite().all()
    assert not (tmp_path / "wild/model").exists()


def test_average_halves_a_weight_after_its_half_life() -> None:
    weight = torch.nn.Parameter(torch.ones(1))
    decay = ema_decay(batch=32, halflife_images=3200)
    ema = EMAModel([weight], decay=decay, use_ema_warmup=True, inv_gamma=4.0, power=1.0)
    ema.optimization_step = 10_000  # past the warm-up
    with torch.no_grad():
        weight.zero_()
    for _ in range(100):
        ema.step([weight])
    assert float(ema.shadow_params[0]) == pytest.approx(0.5, abs=1e-5)


def test_learning_rate_warms_up_and_falls_to_two_percent() -> None:
    config = replace(TINY, images_seen=4000, learning_rate=1.0, warmup_steps=10)
    rates = [learning_rate(config, step) for step in range(config.steps)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[-1] == pytest.approx(0.02)
    assert np.argmax(rates) in (9, 10)
    assert all(a > b for a, b in pairwise(rates[10:]))


def test_weights_decide_which_images_are_drawn(tmp_path: Path) -> None:
    """Images of NaN with weight 0 are never seen."""
    images = np.zeros((6, 3, 8, 8), np.float32)
    images[3:] = np.nan
    labels = np.full((6, 2), np.nan, np.float32)
    assert train(images, labels, TINY, tmp_path, weights=np.array([1, 1, 1, 0, 0, 0])).folder


def test_augmentation_is_the_identity_at_zero_and_mirrors() -> None:
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    draw = torch.zeros(2, 7)
    draw[1, 0] = -1
    out = _augment(x, draw)
    assert torch.equal(out[0], (x[0] + 1) - 1)
    assert torch.equal(out[1], (x[1].flip(-1) + 1) - 1)
    draw[:, 1] = 1  # 1.28 pixels of 32: one whole pixel
    moved = _augment(x, draw)
    assert torch.allclose(moved[0, :, :, :-1], x[0, :, :, 1:], atol=1e-6)


def test_it_learns_two_colours_and_takes_the_condition(tmp_path: Path) -> None:
    """Red where the condition is 1, blue where it is −1: samples follow, and so does the held-out loss."""
    labels = np.where(np.arange(64) % 2, 1.0, -1.0).astype(np.float32)[:, None]
    images = np.zeros((64, 8, 8, 3), np.uint8)
    images[..., 0] = np.where(labels > 0, 220, 30)[:, :, None]
    images[..., 2] = np.where(labels > 0, 30, 220)[:, :, None]
    spec = Spec(size=8, channels=(16, 32), patch=2, conditions=("colour",), mean=(0.0,), sd=(1.0,))
    config = TrainConfig(
        spec=spec, images_seen=16 * 150, batch=16, warmup_steps=10, learning_rate=4e-3, ema_halflife_images=160
    )
    result = train(images, labels, config, tmp_path)
    assert result.folder and result.history[-1]["loss"] < 0.7 * result.history[0]["loss"]
    denoiser = open_denoiser(result.folder)
    noise = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    condition = torch.tensor([[1.0]] * 4 + [[-1.0]] * 4)
    drawn = sample(denoiser, noise, condition, steps=10)
    redness = (drawn[:, 0] - drawn[:, 2]).mean(dim=(1, 2))
    assert (redness[:4] > 0.8).all() and (redness[4:] < -0.8).all()
    right = held_out_loss(denoiser, images[:8], labels[:8], seed=1).mean()
    wrong = held_out_loss(denoiser, images[:8], -labels[:8], seed=1).mean()
    assert right < 0.5 * wrong and math.isfinite(float(right))
