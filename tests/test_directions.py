"""Every kind of direction: exact at dose 0, blind to the batch, holding what is held, deaf to what is no number."""

from collections.abc import Callable
from pathlib import Path as PathOf

import numpy as np
import pytest
import torch
from torch import Tensor

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
from contrafact.counterfactual.edit import edit, reading_change
from contrafact.counterfactual.latent import Latent, shifts
from contrafact.counterfactual.noise_aware import NoiseAware
from contrafact.counterfactual.slider import Adapter, Slider, learned
from contrafact.counterfactual.unit import scaled
from contrafact.diffusion.denoiser import PixelDenoiser, Prediction
from contrafact.diffusion.invert import Path, Step, invert, replay
from contrafact.diffusion.network import Spec, fresh
from contrafact.diffusion.schedule import cosine
from contrafact.predictors.networks import GuideNet, build

SIZE = 16
LADDER = cosine(100).timesteps(4, 0.6).flip(0).tolist()


def denoiser() -> PixelDenoiser:
    spec = Spec(SIZE, (16, 16), 2, "v", "cosine", 100, ("score", "held"), (0.0, 0.0), (1.0, 1.0))
    network = fresh(spec, seed=1)
    assert network.condition_mlp is not None
    with torch.no_grad():  # a fresh network ignores its condition: give it something to say
        for parameter in network.condition_mlp.parameters():
            parameter.mul_(3)
    return PixelDenoiser(network, cosine(100), "v")


def pictures(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed)).clamp(-1, 1) * 0.7


def left(x: Tensor) -> Tensor:
    return x[..., : SIZE // 2].mean((1, 2, 3)) * 10


def right(x: Tensor) -> Tensor:
    return x[..., SIZE // 2 :].mean((1, 2, 3)) * 10


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


def latent() -> Latent:
    model, x = denoiser(), pictures(24, seed=8)
    values = torch.stack([left(x), right(x)], 1)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    return Latent(model, shifts(model, x, torch.zeros(24, 2), values, LADDER, noise))


def slider() -> Slider:
    model = denoiser()
    adapter = Adapter(model, rank=2, seed=3)
    with torch.no_grad():  # a fresh adapter says nothing
        for up in adapter.up:
            up.weight.normal_(generator=torch.Generator().manual_seed(5))  # type: ignore[union-attr, operator]
    return Slider(model, adapter, 1)


KINDS: dict[str, Callable[[], Direction]] = {
    "condition": lambda: ConditionShift(1),
    "guidance": lambda: Guidance(left, [right]),
    "contrast": contrast,
    "smoothed": lambda: Guidance(smoothed(left, 0.1 * pictures(3, seed=7)), [right]),
    "noise_aware": noise_aware,
    "noise_aware value": lambda: noise_aware((), binary=False),
    "latent": latent,
    "slider": slider,
    "sum": lambda: Sum([(1.0, ConditionShift()), (-0.5, Guidance(left))]),
    "orthogonal": lambda: Sum([(1.0, Guidance(left, [right]))]),
}


def inverted(x: Tensor, model: PixelDenoiser) -> Path:
    return invert(model, x, torch.zeros(len(x), 2), depth=0.6, steps=4)


def followed(direction: Direction, x: Tensor, doses: Tensor, model: PixelDenoiser | None = None) -> Tensor:
    """(n, d, c, h, w), open loop."""
    model = model or denoiser()
    target = doses.repeat(len(x), 1)
    measure = reading_change([left])
    return edit(model, inverted(x, model), direction, target, target, measure, corrections=0).images


@pytest.mark.parametrize("kind", KINDS)
def test_dose_zero_is_the_source_and_a_dose_is_not(kind: str) -> None:
    x = pictures(2)
    made = followed(KINDS[kind](), x, torch.tensor([0.0, 0.5]))
    assert float((made[:, 0] - x).abs().max()) < 1e-5
    assert float((made[:, 1] - x).abs().max()) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_neither_batch_nor_order_matters(kind: str) -> None:
    x, direction, doses = pictures(3), KINDS[kind](), torch.tensor([-0.5, 0.0, 0.5])
    whole = followed(direction, x, doses)
    turned = followed(direction, x.flip(0), doses).flip(0)
    alone = torch.cat([followed(direction, x[k : k + 1], doses) for k in range(3)])
    assert float((whole - turned).abs().max()) * 127.5 < 1
    assert float((whole - alone).abs().max()) * 127.5 < 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), 1e6])
def test_what_is_no_dose_is_refused(kind: str, wrong: float) -> None:
    model = denoiser()
    path = inverted(pictures(1), model)
    with pytest.raises(ValueError, match="strengths must be finite"):
        KINDS[kind]().push(path, torch.arange(1), torch.tensor([wrong]))


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), 1e9])
def test_images_that_are_none_are_refused(wrong: float) -> None:
    x = pictures(1)
    x[0, 0, 0, 0] = wrong
    with pytest.raises(ValueError, match="finite numbers"):
        inverted(x, denoiser())


def test_holding_lowers_the_leakage_of_a_contrast() -> None:
    """The contrast's gradient also touches the right half; held, the right half's reading stays."""
    x, doses = pictures(8, seed=3), torch.tensor([0.0, 1.0])
    leaks = [
        (right(followed(contrast(hold), x, doses)[:, 1]) - right(x)).abs() for hold in ((), (right,))
    ]
    lower = leaks[0] - leaks[1]
    assert float(lower.mean()) > 2 * float(lower.std()) / len(x) ** 0.5


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

    unknown = values.clone()
    unknown[4:, 1] = torch.nan
    with pytest.raises(ValueError, match="known and vary, and has 4"):
        shifts(model, x, None, torch.cat([unknown, values[:, :1] ** 2], 1), ladder, torch.zeros_like(x))


def test_parts_of_a_sum_see_the_condition_that_the_whole_is_under() -> None:
    """A latent part adds what it adds, and does not take back the shift of the condition beside it."""
    model, x = denoiser(), pictures(2)
    path, index, one = inverted(x, model), torch.arange(2), torch.ones(2)
    still = Latent(model, torch.zeros_like(latent().shifts))
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
