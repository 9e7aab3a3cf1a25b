"""Every kind of direction: exact at dose 0, blind to the batch, holding what is held, deaf to what is no number."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from contrafact.counterfactual.contrast import discriminant, sides
from contrafact.counterfactual.direction import ConditionShift, Direction, Guidance, Sum, orthogonal
from contrafact.counterfactual.edit import edit, reading_change
from contrafact.counterfactual.noise_aware import NoiseAware
from contrafact.counterfactual.unit import scaled
from contrafact.diffusion.denoiser import PixelDenoiser
from contrafact.diffusion.invert import Path, invert, replay
from contrafact.diffusion.network import Spec, fresh
from contrafact.diffusion.schedule import cosine
from contrafact.predictors.networks import GuideNet, build

SIZE = 16


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


KINDS: dict[str, Callable[[], Direction]] = {
    "condition": lambda: ConditionShift(1),
    "guidance": lambda: Guidance(left, [right]),
    "contrast": contrast,
    "noise_aware": noise_aware,
    "noise_aware value": lambda: noise_aware((), binary=False),
    "sum": lambda: Sum([(1.0, ConditionShift()), (-0.5, Guidance(left))]),
    "orthogonal": lambda: Sum([(1.0, Guidance(left, [right]))]),
}


def inverted(x: Tensor, model: PixelDenoiser) -> Path:
    return invert(model, x, torch.zeros(len(x), 2), depth=0.6, steps=4)


def followed(direction: Direction, x: Tensor, doses: Tensor) -> Tensor:
    """(n, d, c, h, w), open loop."""
    model = denoiser()
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
