"""Every kind of direction on every denoiser: exact at dose 0, blind to the batch, on its way back where it came from,
bound by its region, holding what is held, deaf to what is no number. All weights are random."""

import functools
from collections.abc import Callable
from pathlib import Path as PathOf
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DModel
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from contrafact.counterfactual import arms
from contrafact.counterfactual.contrast import discriminant, sides
from contrafact.counterfactual.direction import (
    ConditionShift,
    Direction,
    Guidance,
    Sum,
    gradients,
    orthogonal,
    smoothed,
)
from contrafact.counterfactual.edit import edit, pixel_norm, reading_change
from contrafact.counterfactual.latent import Encoded, Latent, shifts, slope
from contrafact.counterfactual.noise_aware import NoiseAware
from contrafact.counterfactual.slider import Adapter, Slider, learned
from contrafact.counterfactual.unit import scaled
from contrafact.diffusion.denoiser import AnyUNet2D, Denoiser, PixelDenoiser, Prediction
from contrafact.diffusion.invert import Path, Step, invert, replay
from contrafact.diffusion.latents import Latents
from contrafact.diffusion.network import Spec, fresh
from contrafact.diffusion.schedule import Kind, Schedule, cosine
from contrafact.images.decode import to_uint8
from contrafact.predictors.networks import GuideNet, build

SIZE = 16
LADDER = cosine(100).timesteps(4, 0.6).flip(0).tolist()


def denoiser(prediction: Kind = "v", side: int = SIZE, channels: int = 3) -> PixelDenoiser:
    spec = Spec(
        side, (16, 16), 16 // side * 2, prediction, "cosine", 100, ("score", "held"), (0.0, 0.0), (1.0, 1.0), channels
    )
    network = fresh(spec, seed=1)
    assert network.condition_mlp is not None
    with torch.no_grad():  # a fresh network ignores its condition: give it something to say
        for parameter in network.condition_mlp.parameters():
            parameter.mul_(3)
    return PixelDenoiser(network, cosine(100), prediction)


def foreign() -> AnyUNet2D:
    """Somebody else's unconditional model of pixels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        unet = UNet2DModel(
            sample_size=SIZE, block_out_channels=(16, 16), norm_num_groups=8, layers_per_block=1,
            down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
        )  # fmt: skip
    return AnyUNet2D(unet, cosine(100), "epsilon")


@functools.cache
def latents() -> Latents:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return Latents(
            AutoencoderKL(
                block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2, latent_channels=4,
                up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=4, sample_size=SIZE, scaling_factor=0.5,
            )
        )  # fmt: skip


MODELS: dict[str, Callable[[], Denoiser]] = {
    "v": denoiser,
    "epsilon": lambda: denoiser("epsilon"),
    "latents": lambda: denoiser(side=SIZE // 2, channels=4),
    "foreign": foreign,
}


def pictures(n: int, seed: int = 0, shape: tuple[int, int, int] = (3, SIZE, SIZE)) -> Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed)).clamp(-1, 1) * 0.7


def left(x: Tensor) -> Tensor:
    return x[..., : x.shape[-1] // 2].mean((1, 2, 3)) * 10


def right(x: Tensor) -> Tensor:
    return x[..., x.shape[-1] // 2 :].mean((1, 2, 3)) * 10


def contrast(hold: tuple[Callable[[Tensor], Tensor], ...] = ()) -> Guidance:
    """Bright against dark left halves, in the features of a random network."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        network = GuideNet(1, width=8).eval()
    images = pictures(60, seed=9)
    images = (images + torch.linspace(-0.5, 0.5, 60)[:, None, None, None] * (torch.arange(SIZE) < SIZE // 2)).clamp(-1, 1)
    side = sides(left(images).double(), None)
    return Guidance(discriminant(network.features, images, side, images), hold)


def noise_aware(hold: tuple[int, ...] = (1,), binary: bool = True) -> NoiseAware:
    """A random classifier of noisy images, with gradients large enough to see."""
    network = build("noise_aware", 2, seed=6).eval()
    return NoiseAware(lambda x: 50 * network(x), cosine(100), 0, hold, binary)


def latent(model: Denoiser) -> Latent:
    x = pictures(24, seed=8)
    values = torch.stack([left(x), right(x)], 1)
    source = x if model.shape[0] == 3 else latents().encode(x)
    noise = torch.randn(source.shape, generator=torch.Generator().manual_seed(2))
    return Latent(model, shifts(model, source, condition(model, 24), values, LADDER, noise))


def encoder(model: Denoiser, *hold: Callable[[Tensor], Tensor], target: Callable[[Tensor], Tensor] = left) -> Encoded:
    x = pictures(64, seed=8)
    codes = inverted(x, model).x[-2].flatten(1)
    values = torch.stack([target(x), *(reader(x) for reader in hold)], 1)
    return Encoded(Schedule(model.alphas_cumprod), 4 * slope(codes, values).view(model.shape))


def slider(model: Denoiser) -> Slider:
    adapter = Adapter(model, rank=2, seed=3)
    with torch.no_grad():  # a fresh adapter says nothing
        for up in adapter.up:
            up.weight.normal_(0, 0.05, generator=torch.Generator().manual_seed(5))  # type: ignore[union-attr, operator]
    return Slider(model, adapter, 1)


KINDS: dict[str, Callable[[Denoiser], Direction]] = {
    "condition": lambda model: ConditionShift(1),
    "guidance": lambda model: Guidance(left, [right]),
    "contrast": lambda model: contrast(),
    "smoothed": lambda model: Guidance(smoothed(left, 0.1 * pictures(3, seed=7)), [right]),
    "noise_aware": lambda model: noise_aware(),
    "noise_aware value": lambda model: noise_aware((), binary=False),
    "latent": latent,
    "encoder": lambda model: encoder(model, right),
    "slider": slider,
    "sum": lambda model: Sum([(1.0, ConditionShift()), (-0.5, Guidance(left))]),
    "orthogonal": lambda model: Sum([(1.0, Guidance(left, [right]))]),
}
OF_PIXELS = ("noise_aware", "noise_aware value", "slider")
OF_CONDITIONS = ("condition", "slider", "sum")
CASES = [
    (model, kind)
    for model in MODELS
    for kind in KINDS
    if not (model == "latents" and kind in OF_PIXELS or model == "foreign" and kind in OF_CONDITIONS)
]


def slow_but(*quick: str, cases: list[tuple[str, str]] = CASES) -> list[Any]:
    """The cases, those of models other than ``quick`` marked as slow: what they show is the same once more."""
    return [case if case[0] in quick else pytest.param(*case, marks=pytest.mark.slow) for case in cases]


def condition(model: Denoiser, n: int) -> Tensor | None:
    return torch.zeros(n, 2) if isinstance(model, PixelDenoiser) else None


def inverted(x: Tensor, model: Denoiser, known: Tensor | None = None, region: Tensor | None = None) -> Path:
    of_pixels = model.shape[0] == 3
    own = condition(model, len(x)) if known is None else known
    path = invert(model, x if of_pixels else latents().encode(x), own, depth=0.6, steps=4, region=region)
    return path if of_pixels else latents().seen(path, x)


def followed(
    direction: Direction, x: Tensor, doses: Tensor, model: Denoiser | None = None, region: Tensor | None = None
) -> Tensor:
    """(n, d, c, h, w), open loop."""
    model = model or denoiser()
    target = doses.repeat(len(x), 1)
    path = inverted(x, model, region=region)
    return edit(model, path, direction, target, target, reading_change([left]), corrections=0).images


@pytest.mark.parametrize("name, kind", CASES)
def test_dose_zero_is_the_source_and_a_dose_is_not(name: str, kind: str) -> None:
    model, x = MODELS[name](), pictures(2)
    made = followed(KINDS[kind](model), x, torch.tensor([0.0, 0.5]), model)
    assert float((made[:, 0] - x).abs().max()) < 1e-5
    assert np.array_equal(to_uint8(made[:, 0].numpy()), to_uint8(x.numpy()))
    assert float((made[:, 1] - x).abs().max()) > 1e-3


@pytest.mark.parametrize("name, kind", slow_but("v"))
def test_neither_batch_nor_order_matters(name: str, kind: str) -> None:
    model, x, doses = MODELS[name](), pictures(3), torch.tensor([-0.5, 0.0, 0.5])
    direction = KINDS[kind](model)
    whole = followed(direction, x, doses, model)
    turned = followed(direction, x.flip(0), doses.flip(0), model).flip(0, 1)
    alone = torch.cat([followed(direction, x[k : k + 1], doses, model) for k in range(3)])
    assert float((whole - turned).abs().max()) * 127.5 < 1
    assert float((whole - alone).abs().max()) * 127.5 < 1


RETURN = {"noise_aware": 0.7, "latents latent": 0.4}
"""Mean error of a picture that was edited and edited back, as a share of the edit's own mean change: at most .15, but
for a classifier's log p, whose way up and way down are not one another's reverse, and for the bottleneck of the random
network of latents, which answers a shift otherwise once the picture has moved."""


FAINT = {("latents", "latent"): 2e-4}
"""Smallest mean change of pixels that counts as an edit, where it is less than 1e-3: the random decoder answers the
random bottleneck with little."""


OF_LATENTS = [case for case in CASES if case not in [("latents", "contrast"), ("latents", "smoothed")]]


@pytest.mark.parametrize("name, kind", slow_but("v", "foreign", cases=OF_LATENTS))
def test_there_and_back_is_where_it_began(name: str, kind: str) -> None:
    """The way back begins from what the edit left (in latents: from these, since coding them anew is no edit), under
    the condition that it brought the image to."""
    model, index, dose = MODELS[name](), torch.arange(4), 0.2
    x, direction = pictures(4, 11, model.shape), KINDS[kind](model)

    def at(source: Tensor, strength: float, known: Tensor | None) -> tuple[Tensor, Tensor | None]:
        path, target = invert(model, source, known, depth=0.6, steps=4), torch.full((4, 1), strength)
        made = edit(model, path, direction, target, target, reading_change([left]), corrections=0)
        return made.images[:, 0], direction.push(path, index, target[:, 0]).condition

    there, brought = at(x, dose, condition(model, 4))
    back, _ = at(there, -dose, brought)
    missed, moved = (float((each - x).abs().mean()) for each in (back, there))
    assert moved > FAINT.get((name, kind), 1e-3)
    assert missed < RETURN.get(f"{name} {kind}", RETURN.get(kind, 0.15)) * moved


@settings(max_examples=4, deadline=None, derandomize=True)
@given(
    corner=st.tuples(*[st.integers(0, SIZE - 3)] * 2), sides_of=st.tuples(*[st.integers(2, SIZE - 1)] * 2),
    share=st.sampled_from([0.3, 1.0]), case=st.sampled_from(CASES), dose=st.sampled_from([-1.0, 0.5]),
)  # fmt: skip
def test_outside_of_any_region_pixels_are_the_photographs_own(
    corner: tuple[int, int], sides_of: tuple[int, int], share: float, case: tuple[str, str], dose: float
) -> None:
    model, region = MODELS[case[0]](), torch.zeros(2, 1, SIZE, SIZE)
    (top, left_edge), (height, width) = corner, sides_of
    region[0, :, top : top + height, left_edge : left_edge + width] = share
    x = torch.from_numpy(to_uint8(pictures(2).numpy())).permute(0, 3, 1, 2).float() / 127.5 - 1
    made = followed(KINDS[case[1]](model), x, torch.tensor([dose]), model, region)[:, 0]
    outside = (region == 0).expand_as(x)
    assert torch.equal(made[outside], x[outside])
    assert torch.equal(made[1], x[1]), "nothing may change where the region is empty"
    assert not torch.equal(made[0], x[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), 1e6])
def test_what_is_no_dose_is_refused(kind: str, wrong: float) -> None:
    model = denoiser()
    path = inverted(pictures(1), model)
    with pytest.raises(ValueError, match="strengths must be finite"):
        KINDS[kind](model).push(path, torch.arange(1), torch.tensor([wrong]))


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    wrong=st.sampled_from([float("nan"), float("inf")]) | st.floats(1001, 1e30),
    sign=st.sampled_from([-1, 1]),
    at=st.tuples(st.integers(0, 1), st.integers(0, 2), st.integers(0, SIZE - 1), st.integers(0, SIZE - 1)),
)
def test_images_that_are_none_are_refused(wrong: float, sign: int, at: tuple[int, ...]) -> None:
    x = pictures(2)
    x[at] = sign * wrong
    with pytest.raises(ValueError, match="finite numbers"):
        inverted(x, MODELS["foreign"]())
    with pytest.raises(ValueError, match="finite number, or NaN"):
        inverted(pictures(2), denoiser(), torch.full((2, 2), float("inf")))


HELD = [(name, kind) for name in MODELS for kind in ("guidance", "contrast", "smoothed", "encoder")]
HELD.remove(("latents", "encoder"))  # an autoencoder of random weights decodes nothing that is linear in its latents


@pytest.mark.parametrize("name, kind", slow_but("v", cases=HELD))
def test_holding_lowers_the_mean_leakage(name: str, kind: str) -> None:
    """What is followed also moves the right half; held, the right half's reading stays: 95% interval over images."""
    model, x, doses = MODELS[name](), pictures(10, seed=3), torch.tensor([-0.5, 0.5])
    reader: Callable[[Tensor], Tensor] = contrast().guide if kind == "contrast" else (lambda x: left(x) + right(x))
    if kind == "smoothed":
        reader = smoothed(reader, 0.1 * pictures(3, seed=7))

    def leak(hold: list[Callable[[Tensor], Tensor]]) -> Tensor:
        follow = encoder(model, *hold, target=reader) if kind == "encoder" else Guidance(reader, hold)
        made = followed(follow, x, doses, model)
        return (right(made.flatten(0, 1)).view(10, 2) - right(x)[:, None]).abs().mean(1)

    low, _ = stats.ttest_rel(leak([]).numpy(), leak([right]).numpy()).confidence_interval(0.95)
    assert low > 0


@pytest.mark.parametrize(
    "name", ["v", *(pytest.param(name, marks=pytest.mark.slow) for name in MODELS if name != "v")]
)
def test_a_sham_is_orthogonal_to_guide_and_held(name: str) -> None:
    """At the treated arm's own pixel norm the readings of guide and held stay, which a loose sham moves."""
    far = 0.1 if name == "latents" else 0.5  # a decoder of random weights answers with far larger changes
    model, x, doses = MODELS[name](), pictures(6, seed=5), torch.tensor([-far, 0.0, far])
    path, target, n = inverted(x, model), doses.repeat(6, 1), len(x)
    treated = edit(model, path, Guidance(left, [right]), target, target, reading_change([left]), corrections=2)
    noise = torch.randn(path.x[0].shape, generator=torch.Generator().manual_seed(3))
    moved = {}
    for keep in ((), (left, right)):
        sham = arms.matched(model, path, arms.sham(model, path, noise, keep), treated, doses)
        flat, source = sham.images.flatten(0, 1), x.repeat_interleave(3, 0)
        norms = [pixel_norm(each, source).view(n, 3)[:, ::2] for each in (flat, treated.images.flatten(0, 1))]
        assert float((norms[0] / norms[1] - 1).abs().max()) < 0.1
        moved[keep] = torch.stack([(reader(flat) - reader(source)).abs().view(n, 3) for reader in (left, right)])
    assert float(moved[left, right].mean()) < 0.4 * float(moved[()].mean())
    assert float(moved[left, right][0, :, ::2].mean()) < 0.2 * float(treated.reached.abs()[:, ::2].mean())


def test_a_contrast_reads_what_sets_the_sets_apart() -> None:
    images = pictures(40, seed=5)
    reader = contrast().guide
    assert float(reader(images + 0.0).std()) > 0
    brighter = images.clone()
    brighter[..., : SIZE // 2] = (brighter[..., : SIZE // 2] + 0.3).clamp(-1, 1)
    assert float((reader(brighter) - reader(images)).mean()) > 0.3


def test_sides_are_thirds_levels_or_the_two_values() -> None:
    nan = float("nan")
    assert sides(torch.tensor([0.0, 1, 0, nan]), None).tolist() == [-1, 1, -1, 0]
    assert sides(torch.arange(9).double(), None).tolist() == [-1] * 3 + [0] * 3 + [1] * 3
    assert sides(torch.tensor([1.0, 2, 3, 7]), (1, 3)).tolist() == [-1, 0, 1, 1]
    with pytest.raises(ValueError, match="two images on each side, and has 0 and 0"):
        discriminant(lambda x: x.flatten(1), pictures(4), torch.zeros(4), pictures(4))


def test_a_sum_is_the_sum_of_its_parts() -> None:
    model, x = denoiser(), pictures(2)
    path, index, strength = inverted(x, model), torch.arange(2), torch.tensor([0.5, -1.0])
    both = Sum([(1.0, ConditionShift(0)), (-2.0, ConditionShift(1))]).push(path, index, strength)
    assert both.condition is not None and both.change is None
    assert both.condition.tolist() == [[0.5, -1.0], [-1.0, 2.0]]
    alone = Guidance(left).push(path, index, strength)
    again = Sum([(1.0, Guidance(left))]).push(path, index, strength)
    made = [replay(model, path, index, push.condition, push.change) for push in (alone, again)]
    assert torch.equal(*made)


def test_a_noise_aware_classifier_is_followed_as_published() -> None:
    """Both estimates of a step move by the gradient of log p: Dhariwal and Nichol 2021, algorithm 2."""
    model, x, direction = denoiser(), pictures(2), noise_aware(())
    path, schedule = inverted(x, model), cosine(100)
    push = direction.push(path, torch.arange(2), torch.tensor([2.0, -2.0]))
    made = replay(model, path, torch.arange(2), push.condition, push.change)

    noisy_x = path.x[-1]
    for k in range(len(path.timesteps) - 1, 0, -1):
        t, s = path.timesteps[k], path.timesteps[k - 1]
        said = model.predict(noisy_x, torch.full((2,), t), path.condition)
        leaf = noisy_x.clone().requires_grad_(True)
        level = float((1 - schedule.alpha_bar(t)).sqrt())
        logit = direction.classifier(torch.cat([leaf, torch.full_like(leaf[:, :1], level)], 1))[:, 0]
        probability = torch.stack([torch.sigmoid(logit[0]), 1 - torch.sigmoid(logit[1])])
        (gradient,) = torch.autograd.grad(probability.log().sum(), leaf)
        noise = said.noise - level * 2.0 * gradient
        clean = (noisy_x - level * noise) / float(schedule.alpha_bar(t).sqrt())
        noisy_x = schedule.ddim_step(clean, noise, t, s) + path.residual[k - 1]
    assert float((made - noisy_x).abs().max()) < 1e-4
    assert float((made - x).abs().max()) > 1e-3


def test_what_is_held_has_no_part_in_a_noise_aware_gradient() -> None:
    rows = torch.randn(3, 4, 50, generator=torch.Generator().manual_seed(1))
    left_over = orthogonal(rows[:, 0], rows[:, 1:])
    assert float((rows[:, 1:] @ left_over[..., None]).abs().max()) < 1e-3 * float(rows.pow(2).sum(-1).max())
    assert torch.equal(orthogonal(rows[:, 0], rows[:, :0]), rows[:, 0])


def test_a_direction_of_a_foreign_unit_is_counted_in_what_it_moves() -> None:
    """The shift of a condition by a tenth of what it is: the unit found is ten times as large."""
    model, x = denoiser(), pictures(6)
    path = inverted(x, model)

    def measure(images: Tensor, sources: Tensor) -> Tensor:
        return 400 * (left(images) - left(sources)) * sign

    sign = 1.0
    plain = edit(model, path, ConditionShift(), torch.ones(6, 1), torch.ones(6, 1), measure, corrections=0)
    sign = float(plain.reached.mean().sign())
    one = scaled(model, path, ConditionShift(), measure)
    tenth = scaled(model, path, Sum([(0.1, ConditionShift())]), measure)
    assert tenth.unit == pytest.approx(10 * one.unit, rel=0.5)
    moved = [
        edit(model, path, one, dose.repeat(6, 1), dose.repeat(6, 1), measure, corrections=0).reached.mean()
        for dose in (torch.tensor([1.0]), torch.tensor([-1.0]))
    ]
    assert float(moved[0] - moved[1]) / 2 == pytest.approx(1, rel=0.5)


def test_a_latent_direction_is_the_partial_slope_and_orthogonal_to_what_is_held() -> None:
    """A bottleneck that is linear in two values: the shift is the first one's slope without the second one's."""

    class Linear(torch.nn.Module):
        """A network whose bottleneck is a linear map of the picture, and whose clean estimate reads it."""

        def __init__(self) -> None:
            super().__init__()
            self.mid_block = torch.nn.Linear(12, 5, bias=False)

    class Reading:
        unet, shape, alphas_cumprod = Linear(), (3, 2, 2), cosine(100).alphas_cumprod

        @torch.no_grad()
        def predict(
            self, x: Tensor, t: Tensor, condition: Tensor | None = None, keep: Tensor | None = None
        ) -> Prediction:
            return Prediction(x + self.unet.mid_block(x.flatten(1)).sum(1)[:, None, None, None], x)

    model, ladder = Reading(), (9, 19)
    values = torch.randn(200, 2, generator=torch.Generator().manual_seed(3))
    values[:, 1] = 0.6 * values[:, 0] + 0.8 * values[:, 1]
    values = (values - values.mean(0)) / values.std(0)
    axes = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(4))
    x = torch.einsum("nv,vchw->nchw", values, axes)
    found = shifts(model, x, None, values, ladder, torch.zeros_like(x))
    slopes = model.unet.mid_block(axes.flatten(1)).detach() * float(cosine(100).alpha_bar(9).sqrt())
    wanted = slopes[0] - slopes[1] * (slopes[0] @ slopes[1]) / slopes[1].pow(2).sum()
    assert torch.allclose(found[0], wanted, atol=1e-3)
    assert abs(float(found[1] @ slopes[1])) < 1e-3

    path = invert(model, x[:2], None, depth=0.2, steps=2)
    step_change = Latent(model, found).push(path, torch.arange(2), torch.tensor([0.0, 2.0])).change
    assert step_change is not None
    moved = step_change(Step(1, torch.arange(2), path.clean[0], path.clean[0], path.x[1], 9, None))
    assert float(moved[0].abs().max()) < 1e-6
    assert torch.allclose(moved[1], torch.full_like(moved[1], 2 * float(found[0].sum())), atol=1e-4)

    codes = torch.einsum("nv,vp->np", values, axes.flatten(1))
    assert torch.allclose(slope(codes, values) @ axes[1].flatten(), torch.zeros(1), atol=1e-4)
    encoded = Encoded(Schedule(model.alphas_cumprod), torch.ones(3, 2, 2))
    index, change = torch.arange(2), encoded.push(path, torch.arange(2), torch.tensor([0.0, 2.0])).change
    assert change is not None
    below = replay(model, path, index, None, lambda step: change(step) if step.number == 2 else torch.zeros_like(step.clean))
    again = replay(model, path, index, None)
    assert torch.equal(below[0], again[0]) and not torch.equal(below[1], again[1])
    deep, last = (change(Step(k, index, path.clean[0], path.clean[0], path.x[1], 9, None)) for k in (2, 1))
    assert torch.allclose(deep[1] * float(cosine(100).alpha_bar(path.timesteps[1]).sqrt()), torch.full((3, 2, 2), 2.0))
    assert not last.any() and not deep[0].any(), "the code is moved once"

    unknown = values.clone()
    unknown[4:, 1] = torch.nan
    with pytest.raises(ValueError, match="known and vary, and has 4"):
        shifts(model, x, None, torch.cat([unknown, values[:, :1] ** 2], 1), ladder, torch.zeros_like(x))


def test_parts_of_a_sum_see_the_condition_that_the_whole_is_under() -> None:
    """A latent part adds what it adds, and does not take back the shift of the condition beside it."""
    model, x = denoiser(), pictures(2)
    path, index, one = inverted(x, model), torch.arange(2), torch.ones(2)
    still = Latent(model, torch.zeros_like(latent(model).shifts))
    both = Sum([(1.0, ConditionShift(1)), (1.0, still)]).push(path, index, one)
    alone = ConditionShift(1).push(path, index, one)
    made = [replay(model, path, index, push.condition, push.change) for push in (both, alone)]
    assert float((made[0] - made[1]).abs().max()) < 1e-5


def test_a_slider_learns_the_factor_and_comes_back_from_disk(tmp_path: PathOf) -> None:
    """Dark and light left halves: trained, the adapter draws them apart; a fresh one and scale 0 do nothing."""
    model, n = denoiser(), 64
    values = np.linspace(-1, 1, n)
    shade = np.repeat((values * 60)[:, None, None, None], SIZE // 2, 2)
    images = np.full((n, SIZE, SIZE, 3), 128.0) + np.random.default_rng(1).normal(0, 5, (n, SIZE, SIZE, 3))
    images[:, :, : SIZE // 2] += shade
    losses: list[float] = []
    conditions = np.stack([np.zeros(n), values], 1)
    adapter = learned(
        model, images.clip(0, 255).astype(np.uint8), conditions, values, column=1, rank=4, images_seen=800, batch=8,
        learning_rate=5e-3, seed=2, report=lambda step, loss: losses.append(loss),
    )  # fmt: skip
    assert len(losses) == 2 and losses[1] < losses[0]
    adapter.save(tmp_path / "adapter.safetensors")
    again = Adapter.load(tmp_path / "adapter.safetensors", model)
    x = torch.from_numpy(images[28:36]).permute(0, 3, 1, 2).float() / 127.5 - 1
    doses = torch.tensor([-1.0, 0.0, 1.0])

    def reading(one: Adapter) -> Tensor:
        return left(followed(Slider(model, one, 1), x, doses, model).flatten(0, 1)).view(8, 3)

    found = reading(adapter)
    assert torch.equal(found, reading(again))
    assert float((found[:, 2] - found[:, 0]).mean()) > 0.3
    assert float((found[:, 1] - left(x)).abs().max()) < 1e-3
    assert float((reading(Adapter(model)) - left(x)[:, None]).abs().max()) < 1e-3
    with pytest.raises(ValueError, match="known and differ, and has 0"):
        learned(model, images.astype(np.uint8), conditions, np.full(n, np.nan), column=1, rank=4, images_seen=16,
                batch=16, learning_rate=1e-3, seed=2)  # fmt: skip


def test_a_smoothed_reading_has_the_mean_gradient() -> None:
    """A reading full of ripples: on average over noise the ripples cancel and the slope is left."""

    def rippled(x: Tensor) -> Tensor:
        return left(x) + 0.3 * torch.sin(200 * x).sum((1, 2, 3))

    x, noise = pictures(3), torch.randn(256, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(6))
    _, rough = gradients([rippled], x)
    _, smooth = gradients([smoothed(rippled, 0.1 * noise)], x)
    _, true = gradients([left], x)
    misses = [float((rows - true).norm()) for rows in (rough, smooth)]
    assert misses[1] < 0.15 * misses[0]
    one = gradients([rippled], x + 0.1 * noise[:1])[1] + gradients([rippled], x + 0.1 * noise[1:2])[1]
    assert torch.allclose(gradients([smoothed(rippled, 0.1 * noise[:2])], x)[1], one / 2, atol=1e-3)
