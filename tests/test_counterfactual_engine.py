"""The engine on small random networks and on instruments whose answers are known in closed form."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import UNet2DModel
from torch import Tensor

from contrafact.counterfactual import arms
from contrafact.counterfactual.direction import ConditionShift, Guidance, gradients
from contrafact.counterfactual.edit import edit, pixel_norm, reading_change, unsupported
from contrafact.counterfactual.mask import automatic_mask
from contrafact.diffusion.denoiser import AnyUNet2D, Denoiser, PixelDenoiser, Prediction
from contrafact.diffusion.invert import invert, replay
from contrafact.diffusion.network import Spec, fresh
from contrafact.diffusion.schedule import Schedule, cosine, linear

SIZE = 16
KINDS = ("direct", "edit_friendly")


def conditional(prediction: str = "v", channels: int = 3) -> PixelDenoiser:
    spec = Spec(
        SIZE,
        (16, 16),
        2,
        prediction,
        "cosine",
        100,
        ("score", "held"),
        (0.0, 0.0),
        (1.0, 1.0),  # type: ignore[arg-type]
    )
    network = fresh(spec, seed=1)
    with torch.no_grad():  # a fresh network ignores its condition: give it something to say
        for parameter in network.condition_mlp.parameters():
            parameter.mul_(3)
    return PixelDenoiser(network, cosine(100), prediction)  # type: ignore[arg-type]


def foreign(channels: int) -> AnyUNet2D:
    """A diffusers checkpoint of somebody else, of pixels (3) or latents (4)."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        unet = UNet2DModel(
            sample_size=SIZE, in_channels=channels, out_channels=channels, block_out_channels=(16, 16), norm_num_groups=8,
            down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2, layers_per_block=1,
        )  # fmt: skip
    return AnyUNet2D(unet, linear(100), "epsilon")


def pictures(n: int = 3, channels: int = 3, seed: int = 0) -> Tensor:
    return (
        torch.randn(n, channels, SIZE, SIZE, generator=torch.Generator().manual_seed(seed)).clamp(-1, 1) * 0.7
    )


def inverted(denoiser: Denoiser, x: Tensor, kind: str, steps: int = 6):
    condition = torch.zeros(len(x), 2) if isinstance(denoiser, PixelDenoiser) else None
    noise = torch.randn(steps, *x.shape, generator=torch.Generator().manual_seed(1))
    return invert(denoiser, x, condition, kind=kind, depth=0.6, steps=steps, noise=noise)


def left_half(x: Tensor) -> Tensor:
    return x[..., : SIZE // 2].mean((1, 2, 3)) * 10


def right_half(x: Tensor) -> Tensor:
    return x[..., SIZE // 2 :].mean((1, 2, 3)) * 10


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "make", [conditional, lambda: conditional("epsilon"), lambda: foreign(3), lambda: foreign(4)]
)
def test_an_unedited_replay_is_the_source(make, kind: str) -> None:
    denoiser = make()
    x = pictures(channels=denoiser.shape[0])
    path = inverted(denoiser, x, kind)
    again = replay(denoiser, path, torch.arange(3), path.condition)
    assert float((again - x).abs().max()) < 2e-5


def test_dose_zero_and_a_vanishing_dose_take_the_same_way() -> None:
    denoiser, x = conditional(), pictures()
    path = inverted(denoiser, x, "direct")
    doses = torch.tensor([[0.0, 1e-6]]).repeat(3, 1)
    made = edit(denoiser, path, ConditionShift(), doses, doses, reading_change([left_half]), corrections=0)
    assert float((made.images - x[:, None]).abs().max()) < 1e-4


def test_images_do_not_depend_on_the_batch() -> None:
    denoiser, x = conditional(), pictures(7)
    doses = torch.tensor([[-1.0, 0.0, 1.0]])

    def edited(rows: slice) -> Tensor:
        path = inverted(denoiser, x[rows], "direct")
        target = doses.repeat(len(x[rows]), 1)
        return edit(
            denoiser, path, ConditionShift(), target, target, reading_change([left_half]), corrections=1
        ).images

    whole = edited(slice(None))
    alone = torch.cat([edited(slice(k, k + 1)) for k in range(7)])
    assert float((whole - alone).abs().max()) * 127.5 < 1
    assert torch.equal(whole, edited(slice(None))), "the same batch is the same to the bit"


def test_gradients_are_those_of_the_reading() -> None:
    x = pictures(2)
    value, rows = gradients([left_half, lambda z: right_half(z) ** 2], x)
    assert value.shape == (2, 2) and rows.shape == (2, 2, 3 * SIZE * SIZE)
    step = 1e-3
    nudged = x.clone()
    nudged[0, 1, 4, 12] += step
    moved = (right_half(nudged) ** 2 - right_half(x) ** 2)[0] / step
    at = 1 * SIZE * SIZE + 4 * SIZE + 12
    assert float(rows[0, 1, at]) == pytest.approx(float(moved), rel=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_guidance_reaches_the_dose_and_holds_what_is_held(kind: str) -> None:
    """Two linear readings that overlap: the change that moves one and not the other is known to exist."""
    denoiser, x = foreign(3), pictures(4)
    path = inverted(denoiser, x, kind)
    target = torch.tensor([[-0.5, 0.0, 0.5]]).repeat(4, 1)

    def both(z: Tensor) -> Tensor:
        return left_half(z) + right_half(z)

    free = edit(denoiser, path, Guidance(both), target, target, reading_change([both]), corrections=3)
    held = edit(
        denoiser, path, Guidance(both, [right_half]), target, target, reading_change([both]), corrections=3
    )
    for made in (free, held):
        assert float((made.reached - target).abs().max()) < 0.05
    drift = reading_change([right_half])
    source = x.repeat_interleave(3, 0)
    assert float(drift(held.images.flatten(0, 1), source).abs().max()) < 0.05
    assert float(drift(free.images.flatten(0, 1), source).abs().max()) > 0.15


def test_a_step_never_leaves_the_trust_region() -> None:
    denoiser, x = foreign(3), pictures(2)
    path = inverted(denoiser, x, "direct")
    push = Guidance(left_half, trust_radius=0.02).push(path, torch.arange(2), torch.full((2,), 100.0))
    sizes = []

    def watched(step):
        change = push.change(step)
        sizes.append(change.pow(2).flatten(1).mean(1).sqrt())
        return change

    replay(denoiser, path, torch.arange(2), None, watched)
    assert float(torch.stack(sizes).max()) <= 0.02 + 1e-6


def test_a_dose_that_cannot_be_reached_is_flagged() -> None:
    """The reading saturates at 1: no strength brings it further."""
    denoiser, x = foreign(3), pictures(2)
    path = inverted(denoiser, x, "direct")
    target = torch.tensor([[-3.0, 0.0, 0.3]]).repeat(2, 1)
    saturating = reading_change([left_half])

    def measure(images: Tensor, sources: Tensor) -> Tensor:
        return saturating(images, sources).clamp(-1, 1)

    made = edit(denoiser, path, Guidance(left_half), target, target, measure, corrections=3)
    assert unsupported(made, target).tolist() == [[True, False, False]] * 2
    unread = replace(made, reached=torch.full_like(made.reached, torch.nan))
    assert unsupported(unread, target).tolist() == [[True, False, True]] * 2


def test_a_control_moves_the_picture_and_keeps_what_it_must_not_move() -> None:
    denoiser, x = conditional(), pictures(2)
    path = inverted(denoiser, x, "direct")
    noise = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3))
    moved = []
    for keep in ([], [left_half]):
        push = arms.sham(denoiser, path, noise, keep).push(path, torch.arange(2), torch.full((2,), 0.1))
        made = replay(denoiser, path, torch.arange(2), push.condition, push.change)
        moved.append((left_half(made) - left_half(x)).abs())
        assert float((made - x).abs().mean()) > 0.01
    assert float(moved[1].max()) < 0.2 * float(moved[0].max())


def test_a_control_follows_the_denoiser_not_the_noise() -> None:
    """An ideal denoiser of pictures of one grey can only answer with another grey, whatever the noise looks like."""

    class Grey:
        shape, alphas_cumprod = (3, SIZE, SIZE), cosine(50).alphas_cumprod

        def predict(self, x: Tensor, t: Tensor, condition: object = None, keep: object = None) -> Prediction:
            scale = Schedule(self.alphas_cumprod).alpha_bar(int(t[0]))
            clean = x.mean((1, 2, 3), keepdim=True).expand_as(x) / float(scale.sqrt())
            return Prediction(clean, (x - float(scale.sqrt()) * clean) / float((1 - scale).sqrt()))

    path = inverted(Grey(), torch.full((2, 3, SIZE, SIZE), 0.2), "direct")
    noise = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3))
    fields = arms.followed(Grey(), path, lambda clean: noise)
    assert torch.allclose(fields.abs(), torch.ones_like(fields), atol=1e-4)


def test_controls_are_matched_to_the_treated_pixel_norm() -> None:
    denoiser, x = conditional(), pictures(4)
    path = inverted(denoiser, x, "direct")
    doses = torch.tensor([-1.0, 0.0, 1.0])
    target = doses.repeat(4, 1)
    treated = edit(
        denoiser, path, Guidance(left_half), target, target, reading_change([left_half]), corrections=1
    )
    noise = torch.randn(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(5))
    sham = arms.matched(denoiser, path, arms.sham(denoiser, path, noise, [left_half]), treated, doses)
    permuted = lambda z: torch.stack([right_half(z), left_half(z) - right_half(z)], 1)
    placebo = arms.matched(
        denoiser,
        path,
        arms.placebo(denoiser, path, permuted, torch.tensor([0, 1, 0, 1]), []),
        treated,
        doses,
    )
    source = x.repeat_interleave(3, 0)
    norm = pixel_norm(treated.images.flatten(0, 1), source).view(4, 3)[:, [0, 2]]
    for control in (sham, placebo):
        ratio = pixel_norm(control.images.flatten(0, 1), source).view(4, 3)[:, [0, 2]] / norm
        assert float(ratio.min()) > 0.9 and float(ratio.max()) < 1.1
        assert float((control.images[:, 1] - x).abs().max()) < 1e-4
    assert float((sham.images[:, 0] - placebo.images[:, 0]).abs().max()) > 0.01


def test_the_mask_keeps_large_changes_and_drops_small_ones() -> None:
    change = torch.full((1, 2, 3, SIZE, SIZE), 0.001)
    change[..., 4:8, 4:8] = 0.2
    mask = automatic_mask(change, 0.85)
    assert mask.shape == (1, 1, 1, SIZE, SIZE)
    assert float(mask[..., 5:7, 5:7].min()) == 1 and float(mask[..., 12:, 12:].max()) == 0


def test_unknown_inversion_and_missing_noise_are_refused() -> None:
    with pytest.raises(ValueError, match="direct, edit_friendly"):
        invert(foreign(3), pictures(), None, kind="magic")
    with pytest.raises(ValueError, match="noise"):
        invert(foreign(3), pictures(), None, kind="edit_friendly")
    with pytest.raises(ValueError, match="conditional"):
        path = inverted(foreign(3), pictures(), "direct")
        ConditionShift().push(path, torch.arange(3), torch.ones(3))


def test_numpy_is_not_needed_to_be_random() -> None:
    """Edits draw nothing: NumPy's and torch's global generators stand where they stood."""
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    denoiser, x = conditional(), pictures(1)
    inverted(denoiser, x, "direct")
    assert np.array_equal(before[0], np.random.get_state()[1]) and torch.equal(
        before[1], torch.get_rng_state()
    )
