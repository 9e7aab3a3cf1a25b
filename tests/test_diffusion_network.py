"""The model folder: diffusers opens it, other weights are refused, fine-tuning starts where the old model stood."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel
from torch import Tensor

from contrafact.diffusion.denoiser import AnyUNet2D, PixelDenoiser, open_denoiser
from contrafact.diffusion.network import (
    ModelFolderError,
    Spec,
    fresh,
    load,
    open_scheduler,
    open_unet,
    save,
    start_from,
)
from contrafact.diffusion.schedule import cosine, scheduler

SPEC = Spec(size=8, channels=(8, 16), patch=2, conditions=("a", "b"), mean=(0.0, 1.0), sd=(1.0, 2.0))


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def foreign(folder: Path, channels: int = 3) -> UNet2DModel:
    unet = UNet2DModel(
        sample_size=8,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        attention_head_dim=8,
    )
    unet.save_pretrained(folder / "unet")
    scheduler("linear", 1000, "epsilon").save_pretrained(folder / "scheduler")
    return unet.eval()


def test_folder_round_trip_and_diffusers_opens_it(tmp_path: Path) -> None:
    model = fresh(SPEC, 4).eval()
    save(model, tmp_path)
    again = load(tmp_path)
    assert again.spec == SPEC
    x, t, c = draw(3, 3, 8, 8), torch.tensor([0, 50, 999]), draw(3, 2)
    keep = torch.ones(3, 2)
    assert torch.equal(model(x, t, c, keep), again(x, t, c, keep))
    theirs = UNet2DModel.from_pretrained(tmp_path / "unet")
    assert theirs.config.in_channels == 12 and theirs.config.sample_size == 4
    assert all(torch.equal(a, b) for a, b in zip(theirs.parameters(), model.unet.parameters(), strict=True))
    config = DDPMScheduler.from_pretrained(tmp_path / "scheduler")
    assert config.config.prediction_type == "v_prediction"
    assert torch.allclose(config.alphas_cumprod.double(), cosine(1000).alphas_cumprod, rtol=1e-3, atol=1e-7)
    schedule, kind = open_scheduler(tmp_path)
    assert kind == "v" and torch.equal(schedule.alphas_cumprod, cosine(1000).alphas_cumprod)


def test_same_seed_same_weights_and_global_state_untouched() -> None:
    before = torch.random.get_rng_state()
    a, b, c = fresh(SPEC, 1), fresh(SPEC, 1), fresh(SPEC, 2)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(a.unet.conv_in.weight, b.unet.conv_in.weight)
    assert not torch.equal(a.unet.conv_in.weight, c.unet.conv_in.weight)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    model = fresh(SPEC, 4)
    save(model, tmp_path)
    (tmp_path / "unet/diffusion_pytorch_model.safetensors").unlink()
    torch.save(model.unet.state_dict(), tmp_path / "unet/diffusion_pytorch_model.bin")
    with pytest.raises(ValueError, match="safetensors"):
        load(tmp_path)
    with pytest.raises(ModelFolderError, match="no config"):
        open_unet(tmp_path / "nowhere")


def test_damaged_folder_is_one_sentence(tmp_path: Path) -> None:
    save(fresh(SPEC, 4), tmp_path)
    facts = json.loads((tmp_path / "contrafact.json").read_text())
    (tmp_path / "contrafact.json").write_text(json.dumps({**facts, "channels": [8, 24]}))
    with pytest.raises(ModelFolderError, match="channels: .8, 16. in the folder, .8, 24. asked"):
        load(tmp_path)
    (tmp_path / "contrafact.json").write_text(json.dumps(facts))
    (tmp_path / "condition_mlp.safetensors").write_bytes(b"not tensors")
    with pytest.raises(ModelFolderError, match="not a model folder"):
        load(tmp_path)
    (tmp_path / "unet/diffusion_pytorch_model.safetensors").write_bytes(b"not tensors")
    with pytest.raises(ModelFolderError, match="not a UNet2DModel"):
        load(tmp_path)


def test_missing_and_dropped_conditions_are_the_same_and_known_ones_matter() -> None:
    model = PixelDenoiser(fresh(SPEC, 4), cosine(1000), "v")
    x, t, c = draw(2, 3, 8, 8), torch.tensor([100, 800]), draw(2, 2)
    none = model.predict(x, t)
    assert torch.equal(none.clean, model.predict(x, t, c, torch.zeros(2)).clean)
    assert torch.equal(none.clean, model.predict(x, t, torch.full((2, 2), torch.nan)).clean)
    assert not torch.allclose(none.clean, model.predict(x, t, c).clean)
    half = c.clone()
    half[:, 1] = torch.nan
    assert torch.equal(model.predict(x, t, half).noise, model.predict(x, t, c, torch.tensor([[1.0, 0.0]] * 2)).noise)
    zero = model.predict(x, t, torch.zeros(2, 2))
    assert not torch.allclose(none.clean, zero.clean), "a condition of 0 is not a missing one"
    both = model.predict(x, t, c)
    assert both.clean.dtype == both.noise.dtype == torch.float32 and not both.clean.requires_grad
    assert torch.allclose(model.schedule.add_noise(both.clean, both.noise, t), x, atol=1e-5)


def test_fine_tuning_starts_where_the_old_model_stood(tmp_path: Path) -> None:
    """Conditions of one name keep their meaning in raw units, though order, mean and sd are new."""
    save(fresh(SPEC, 4), tmp_path)
    old = load(tmp_path)
    spec = replace(SPEC, conditions=("new", "b", "a"), mean=(5.0, 3.0, -0.5), sd=(1.0, 1.5, 2.0))
    new = start_from(tmp_path, spec, 9).eval()
    x, t = draw(4, 3, 8, 8), torch.tensor([5, 100, 500, 900])
    raw_a, raw_b = draw(4, 1, seed=1), draw(4, 1, seed=2)
    before = old(x, t, torch.cat([raw_a, (raw_b - 1) / 2], 1), torch.ones(4, 2))
    condition = torch.cat([draw(4, 1, seed=3), (raw_b - 3) / 1.5, (raw_a + 0.5) / 2], 1)
    assert torch.allclose(before, new(x, t, condition, torch.ones(4, 3)), atol=1e-5)
    assert torch.allclose(old(x, t), new(x, t), atol=1e-6)
    new(x, t, condition, torch.ones(4, 3)).square().mean().backward()
    assert new.condition_mlp and float(new.condition_mlp.first.weight.grad[:, 0].abs().sum()) > 0


def test_fine_tuning_from_a_plain_diffusers_folder(tmp_path: Path) -> None:
    unet = foreign(tmp_path)
    spec = replace(SPEC, patch=1, prediction="epsilon", schedule="linear")
    model = start_from(tmp_path, spec, 1).eval()
    x, t = draw(2, 3, 8, 8), torch.tensor([3, 600])
    said = model(x, t, draw(2, 2), torch.ones(2, 2))
    assert torch.allclose(said, unet(x, t).sample, atol=1e-5)
    said.square().mean().backward()
    assert model.condition_mlp and float(model.condition_mlp.last.weight.grad.abs().sum()) > 0
    save(model, tmp_path / "tuned")
    assert torch.equal(load(tmp_path / "tuned")(x, t), model(x, t))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"patch": 2}, "side after patches"),
        ({"size": 16}, "side after patches"),
        ({"channels": (16, 16)}, "channels"),
        ({"prediction": "v"}, "prediction: epsilon in the folder, v asked"),
        ({"schedule": "cosine"}, "another noise schedule"),
        ({"timesteps": 500}, "timesteps: 1000 in the folder, 500 asked"),
    ],
)
def test_a_start_that_does_not_fit_says_why(tmp_path: Path, change: dict, word: str) -> None:
    foreign(tmp_path)
    spec = replace(replace(SPEC, patch=1, prediction="epsilon", schedule="linear"), **change)
    with pytest.raises(ValueError, match=word):
        start_from(tmp_path, spec, 1)


def test_any_unconditional_model_of_any_channels_fits_the_contract(tmp_path: Path) -> None:
    foreign(tmp_path, channels=4)
    model = open_denoiser(tmp_path)
    assert isinstance(model, AnyUNet2D) and model.shape == (4, 8, 8)
    x, t = draw(2, 4, 8, 8), torch.tensor([10, 500])
    said = model.predict(x, t)
    assert torch.allclose(model.schedule.add_noise(said.clean, said.noise, t), x, atol=1e-5)
    with pytest.raises(ValueError, match="no condition"):
        model.predict(x, t, torch.zeros(2, 1))


@pytest.mark.parametrize(
    ("change", "word"),
    [({"sd": (1.0, 0.0)}, "above 0"), ({"mean": ()}, "same length"), ({"size": 6}, "halved"), ({"channels": (9, 16)}, "8")],
)
def test_impossible_specs_are_refused(change: dict, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        replace(SPEC, **change)
