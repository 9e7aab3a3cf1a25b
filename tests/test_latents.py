"""The engine unchanged in the latents of an autoencoder, and models as somebody else left them; all weights random."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DModel
from torch import Tensor

from contrafact.counterfactual import arms
from contrafact.counterfactual.direction import ConditionShift, Direction, Guidance, Sum
from contrafact.counterfactual.edit import Edited, edit, pixel_norm, reading_change
from contrafact.diffusion.denoiser import AnyUNet2D, PixelDenoiser, open_denoiser
from contrafact.diffusion.invert import Path as Inverted
from contrafact.diffusion.invert import invert, replay
from contrafact.diffusion.latents import Latents, open_latents
from contrafact.diffusion.network import ModelFolderError, Spec, fresh
from contrafact.diffusion.schedule import cosine, linear
from contrafact.diffusion.train import TrainConfig, train
from contrafact.images.decode import to_uint8

SIZE, STEPS = 16, 3
DOSES = torch.tensor([-0.5, 0.0, 0.5])


def autoencoder() -> AutoencoderKL:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return AutoencoderKL(
            block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2, latent_channels=4,
            up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=4, sample_size=SIZE, scaling_factor=0.5,
        )  # fmt: skip


def conditional() -> PixelDenoiser:
    """Of latents: 4 channels of 8 x 8."""
    spec = Spec(8, (16, 16), 1, "v", "cosine", 60, ("score",), (0.0,), (1.0,), inputs=4)
    network = fresh(spec, seed=1)
    assert network.condition_mlp is not None
    with torch.no_grad():  # a fresh network ignores its condition: give it something to say
        for parameter in network.condition_mlp.parameters():
            parameter.mul_(3)
    return PixelDenoiser(network, cosine(60), "v")


def pictures(n: int = 2) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (n, 3, SIZE, SIZE)).astype(np.float32)) / 127.5 - 1


def left(x: Tensor) -> Tensor:
    assert x.shape[1:] == (3, SIZE, SIZE), "readers see pixels"
    return x[..., : SIZE // 2].mean((1, 2, 3)) * 10


def path_of(kind: str = "direct", region: Tensor | None = None) -> Inverted:
    latents, x = Latents(autoencoder()), pictures()
    z = latents.encode(x)
    noise = torch.randn(STEPS, *z.shape, generator=torch.Generator().manual_seed(1))
    condition = torch.zeros(len(x), 1)
    path = invert(conditional(), z, condition, kind=kind, depth=0.6, steps=STEPS, noise=noise, region=region)
    return latents.seen(path, x)


def followed(path: Inverted, direction: Direction, corrections: int = 1, scale: float = 1.0) -> Edited:
    target = scale * DOSES.repeat(2, 1)
    measure = reading_change([left])
    return edit(
        conditional(), path, direction, target, target, measure, corrections=corrections, bounds=(0.02, 50.0)
    )


@pytest.mark.parametrize("kind", ["direct", "edit_friendly"])
@pytest.mark.parametrize(
    "direction",
    [ConditionShift(), Guidance(left), Sum([(1.0, Guidance(left)), (1.0, ConditionShift())])],
    ids=["condition", "guidance", "sum"],
)
def test_dose_zero_is_exact_in_latents_and_in_pixels(kind: str, direction: Direction) -> None:
    path, x = path_of(kind), pictures()
    again = replay(conditional(), path, torch.arange(2), path.condition)
    assert float((again - path.x[0]).abs().max()) < 2e-5
    made = followed(path, direction)
    assert np.array_equal(to_uint8(made.images[:, 1].numpy()), to_uint8(x.numpy()))
    assert float((made.images[:, 2] - x).abs().max()) > 1e-3
    assert float(Latents(autoencoder()).error(x).min()) > 0.01, "which the autoencoder alone could not do"


def test_guidance_reaches_its_dose_through_the_decoder() -> None:
    latents, x, target = Latents(autoencoder()), pictures() * 0.7, 0.2 * DOSES.repeat(2, 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        unet = UNet2DModel(
            sample_size=8, in_channels=4, out_channels=4, block_out_channels=(16, 16), norm_num_groups=8,
            layers_per_block=1, down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
        )  # fmt: skip
    denoiser = AnyUNet2D(unet, linear(100), "epsilon")
    path = latents.seen(invert(denoiser, latents.encode(x), None, depth=0.6, steps=STEPS), x)
    made = edit(denoiser, path, Guidance(left), target, target, reading_change([left]), corrections=3)
    assert float((made.reached - target).abs().max()) < 0.02


def test_outside_of_a_region_pixels_are_the_photographs_own() -> None:
    region = torch.zeros(2, 1, SIZE, SIZE)
    region[..., 3:9, 5:12] = 1
    x = pictures()
    for kind in ("direct", "noised"):
        made = followed(path_of(kind, region), Guidance(left)).images
        outside = (region == 0).expand_as(x)
        assert torch.equal(made[:, 2][outside], x[outside])
        assert not torch.equal(made[:, 2], x)


def test_controls_are_matched_in_pixels() -> None:
    path = path_of()
    treated = followed(path, Guidance(left), scale=0.2)
    noise = torch.randn(path.x[0].shape, generator=torch.Generator().manual_seed(3))
    permuted = lambda x: torch.stack([left(x), x.mean((1, 2, 3))], 1)
    for control in (
        arms.sham(conditional(), path, noise, [left]),
        arms.placebo(conditional(), path, permuted, torch.tensor([0, 1]), []),
    ):
        made = arms.matched(conditional(), path, control, treated, DOSES)
        norms = [pixel_norm(each.images[:, 2], pictures()) for each in (made, treated)]
        assert torch.allclose(norms[0], norms[1], rtol=0.15), norms


def test_latents_can_be_trained_on(tmp_path: Path) -> None:
    latents = Latents(autoencoder())
    z = latents.encode(pictures(8))
    config = TrainConfig(
        spec=Spec(8, (8, 8), 1, timesteps=20, inputs=4), images_seen=16, batch=4, mixed_precision="off"
    )
    folder = train(z, None, config, tmp_path).folder
    assert folder is not None
    latents.save(folder / "vae")
    assert open_denoiser(folder).shape == (4, 8, 8)
    assert torch.equal(open_latents(folder).encode(pictures()), latents.encode(pictures()))


def test_a_foreign_checkpoint_of_pixels_is_exact_at_dose_zero(tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        UNet2DModel(
            sample_size=SIZE, block_out_channels=(16, 16), norm_num_groups=8, layers_per_block=1,
            down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
        ).save_pretrained(tmp_path / "unet")  # fmt: skip
    DDPMScheduler(num_train_timesteps=50).save_pretrained(tmp_path / "scheduler")
    denoiser, x = open_denoiser(tmp_path), pictures()
    path = invert(denoiser, x, None, steps=STEPS)
    target = DOSES.repeat(2, 1)
    made = edit(denoiser, path, Guidance(left), target, target, reading_change([left]), corrections=3)
    assert float((made.images[:, 1] - x).abs().max()) < 2e-5
    assert float((made.reached - DOSES).abs().max()) < 0.05


def test_a_folder_that_is_no_autoencoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match="no autoencoder"):
        open_latents(tmp_path)
    (tmp_path / "config.json").write_text("{")
    (tmp_path / "diffusion_pytorch_model.safetensors").write_bytes(b"none")
    with pytest.raises(ModelFolderError, match="not an AutoencoderKL"):
        open_latents(tmp_path)
