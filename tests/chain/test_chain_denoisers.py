"""The same chain on latents, and on a checkpoint that somebody else has trained; their weights are random."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DModel

pytestmark = [pytest.mark.timeout(1200), pytest.mark.slow]

MODEL = "model: {channels: [16, 16], patch: 4, images_seen: 1536, batch: 32,"


def save_autoencoder(folder: Path) -> None:
    torch.manual_seed(7)
    AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2, latent_channels=4,
        up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=4, sample_size=16, scaling_factor=0.5,
    ).save_pretrained(folder)  # fmt: skip


def save_foreign(folder: Path) -> None:
    torch.manual_seed(2)
    UNet2DModel(
        sample_size=16, block_out_channels=(16, 16), norm_num_groups=8, layers_per_block=1,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
    ).save_pretrained(folder / "unet")  # fmt: skip
    DDPMScheduler(num_train_timesteps=100).save_pretrained(folder / "scheduler")


@pytest.mark.parametrize("which", ["latent", "foreign"])
def test_the_chain_runs_unchanged(
    which: str, predicted: Any, changed: Callable[..., Path], tmp_path: Path
) -> None:
    model = "model: {channels: [16, 16], patch: 1, images_seen: 320, batch: 32, autoencoder: vae,"
    if which == "latent":
        save_autoencoder(tmp_path / "vae")
    else:
        save_foreign(tmp_path / "foreign")
        model = "model: {start: foreign, images_seen: 0,"
    chain = predicted.copy(tmp_path / "workspace")
    fewer = ("sham: true, placebo: 3, images: 9", "sham: true, placebo: 2, images: 3")
    more = ("doses: {grid", "  code: {kind: latent, space: encoder, hold: [skin], edit: {steps: 4}}\ndoses: {grid")
    told = chain.run(changed((MODEL, model), fewer, more), "--until", "gate")
    assert [stage["name"] for stage in told.said["stages"] if stage["cached"]] == ["ingest", "predict"]
    with chain.store() as store:
        study_id = store.study("tiny").id
        table = store.stimuli_table(study_id)
        source = {one.key: one.pixels_sha256 for one in store.images(study_id, split="stimuli")}
    null = table[table["arm"] == "null"]
    assert len(null) and all(row.pixels_sha256 == source[row.image] for row in null.itertuples())
    treated = table[table["arm"] == "treated"]
    assert all(row.pixels_sha256 != source[row.image] for row in treated.itertuples())
    assert set(table["arm"]) == {"null", "treated", "sham", "placebo"}
