"""Where and of what kind a change may be: bounds that hold to the bit, on small random networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from contrafact.counterfactual import mask
from contrafact.counterfactual.direction import ConditionShift, Direction, Guidance, Sum
from contrafact.counterfactual.edit import edit, reading_change
from contrafact.diffusion.denoiser import PixelDenoiser, Prediction
from contrafact.diffusion.invert import Path, invert
from contrafact.diffusion.network import Spec, fresh
from contrafact.diffusion.schedule import Schedule, cosine
from contrafact.images.decode import shrunk, to_uint8
from contrafact.study.schema import Edit

SIZE, STEPS = 16, 4
DOSES = torch.tensor([-0.5, 0.0, 0.5])


def denoiser() -> PixelDenoiser:
    network = fresh(Spec(SIZE, (16, 16), 2, "v", "cosine", 100, ("score",), (0.0,), (1.0,)), seed=1)
    assert network.condition_mlp is not None
    with torch.no_grad():  # a fresh network ignores its condition: give it something to say
        for parameter in network.condition_mlp.parameters():
            parameter.mul_(3)
    return PixelDenoiser(network, cosine(100), "v")


def pictures(n: int, seed: int = 0) -> Tensor:
    """Of 8 bits, as photographs are."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (n, 3, SIZE, SIZE)).astype(np.float32)) / 127.5 - 1


def left(x: Tensor) -> Tensor:
    return x[..., : SIZE // 2].mean((1, 2, 3)) * 10


def inverted(x: Tensor, kind: str = "direct", region: Tensor | None = None, depth: float = 0.6) -> Path:
    noise = torch.randn(STEPS, *x.shape, generator=torch.Generator().manual_seed(1))
    condition = torch.zeros(len(x), 1)
    return invert(denoiser(), x, condition, kind=kind, depth=depth, steps=STEPS, noise=noise, region=region)


def followed(path: Path, direction: Direction | None = None, style: mask.Style | None = None) -> Tensor:
    target = DOSES.repeat(path.x.shape[1], 1)
    follow = direction or Sum([(1.0, Guidance(left)), (1.0, ConditionShift())])
    return edit(
        denoiser(), path, follow, target, target, reading_change([left]), corrections=1, style=style
    ).images


@pytest.mark.parametrize("kind", ["direct", "edit_friendly", "noised"])
@pytest.mark.parametrize("direction", [ConditionShift(), Guidance(left)], ids=["condition", "guidance"])
def test_outside_of_a_region_a_picture_is_its_source_to_the_bit(kind: str, direction: Direction) -> None:
    x = pictures(3)
    region = torch.zeros(3, 1, SIZE, SIZE)
    region[0, :, 4:12, 3:9], region[1, :, :8], region[2, :, 5:7, 5:7] = 1, 0.5, 1
    path = inverted(x, kind, region)
    made = followed(path, direction)
    outside = (region == 0).expand(3, 3, SIZE, SIZE)
    before, after = to_uint8(x.numpy()), to_uint8(made[:, 2].numpy())
    for j in range(len(DOSES)):
        assert torch.equal(made[:, j][outside], x[outside])
    at = outside.permute(0, 2, 3, 1).numpy()
    assert np.array_equal(before[at], after[at])
    assert float((made[:, 2] - path.x[0]).abs().amax((1, 2, 3)).min()) > 1e-3
    assert float((made[:, 1] - path.x[0]).abs().max()) < 1e-5, "dose 0 is where the path leads"


def test_a_region_of_everything_is_no_region() -> None:
    x = pictures(2)
    free, bounded = (followed(inverted(x, region=region)) for region in (None, torch.ones(2, 1, SIZE, SIZE)))
    assert torch.allclose(free, bounded, atol=1e-5)


def test_drawn_anew_from_deeper_noise_is_further_away() -> None:
    x = pictures(4)
    away = [float((inverted(x, "noised", depth=depth).x[0] - x).abs().mean()) for depth in (0.05, 0.3, 0.9)]
    assert 1e-3 < away[0] < away[1] < away[2]


def test_inpainting_draws_the_region_anew_and_nothing_else() -> None:
    x = pictures(2)
    region = torch.zeros(2, 1, SIZE, SIZE)
    region[..., 4:10, 4:10] = 1
    drawn = inverted(x, "noised", region, depth=0.9).x[0]
    inside = region.bool().expand_as(x)
    assert torch.equal(drawn[~inside], x[~inside])
    assert float((drawn - x)[inside].abs().mean()) > 0.1


def test_saliency_is_where_the_reader_looks() -> None:
    region = mask.saliency(lambda x: (x[..., 4:8, 4:8] ** 2).mean((1, 2, 3)), pictures(2), 0.9)
    assert region.shape == (2, 1, SIZE, SIZE)
    assert float(region[..., 5:7, 5:7].min()) == 1 and float(region[..., 12:, :].max()) == 0


def test_conditional_differences_are_where_the_condition_is_drawn() -> None:
    class Painter:
        """A model whose clean estimate is the source, brighter in one corner where the condition is higher."""

        shape, alphas_cumprod = (3, SIZE, SIZE), cosine(50).alphas_cumprod

        def predict(self, x: Tensor, t: Tensor, condition: Tensor | None = None, keep: object = None) -> Prediction:
            assert condition is not None
            clean = torch.zeros_like(x)
            clean[..., :6, :6] = condition[:, :1, None, None] * 0.1
            ab = Schedule(self.alphas_cumprod).alpha_bar(int(t[0]))
            return Prediction(clean, (x - float(ab.sqrt()) * clean) / float((1 - ab).sqrt()))

    path = invert(Painter(), pictures(2), torch.zeros(2, 1), steps=3)
    region = mask.conditional_difference(Painter(), path, 0, 0.8)
    assert float(region[..., 1:5, 1:5].min()) == 1 and float(region[..., 10:, 10:].max()) == 0
    free = invert(denoiser(), pictures(2), None, steps=3)
    with pytest.raises(ValueError, match="conditional"):
        mask.conditional_difference(denoiser(), free, 0, 0.8)


def test_colour_keeps_a_colour_map_and_nothing_of_a_shape() -> None:
    x = pictures(2)
    matrix = torch.tensor([[0.1, -0.05, 0.0], [0.02, 0.1, 0.0], [0.0, 0.0, -0.1]])
    tint = torch.einsum("ij,njhw->nihw", matrix, x) + 0.07
    shape = torch.zeros_like(x)
    shape[..., 6:10, 6:10] = 0.5
    colour = mask.style("colour")
    kept = colour(torch.stack([tint, torch.zeros_like(x), shape], 1), x, None)
    assert torch.allclose(kept[:, 0], tint, atol=1e-5)
    assert torch.equal(kept[:, 1], torch.zeros_like(x))
    assert float(kept[:, 2].pow(2).mean()) < 0.2 * float(shape.pow(2).mean())
    region = torch.zeros(2, 1, SIZE, SIZE)
    region[..., :8] = 1
    within = colour(torch.stack([tint + (1 - region)], 1), x, region)
    assert torch.allclose(within[:, 0], tint * region, atol=1e-5), "what is outside has no say"


def test_light_keeps_shading_and_no_edge() -> None:
    flat, edge = torch.full((1, 1, 3, SIZE, SIZE), 0.3), torch.zeros(1, 1, 3, SIZE, SIZE)
    edge[..., ::2] = 0.3
    light = mask.style("light")
    assert torch.allclose(light(flat, flat[:, 0], None), flat, atol=1e-6)
    assert float(light(edge, edge[:, 0], None).diff(dim=-1).abs().max()) < 0.05


@pytest.mark.parametrize("kind", ["colour", "light"])
def test_a_style_is_exact_at_dose_zero_and_moves_the_reading(kind: str) -> None:
    x = pictures(2)
    made = followed(inverted(x), Guidance(left), mask.style(kind))  # type: ignore[arg-type]
    assert float((made[:, 1] - x).abs().max()) < 1e-5
    assert bool((left(made[:, 2]) > left(x)).all()) and bool((left(made[:, 0]) < left(x)).all())


def test_boxes_are_of_the_same_place_at_every_size() -> None:
    small, large = (mask.box((0.25, 0.5, 0.5, 0.25), size) for size in (16, 128))
    assert small[8:12, 4:12].all() and small.sum() == 32
    assert np.array_equal(shrunk(large, 16), small)


def test_what_is_no_region_and_what_is_no_noise_are_refused() -> None:
    with pytest.raises(ValueError, match="0 to 1"):
        inverted(pictures(1), region=torch.full((1, 1, SIZE, SIZE), torch.nan))
    with pytest.raises(ValueError, match="noised inversion needs"):
        invert(denoiser(), pictures(1), torch.zeros(1, 1), kind="noised")


@pytest.mark.parametrize(
    "edits, word",
    [
        ({"mask": [0.5, 0.5, 0.6, 0.2]}, "inside the image"),
        ({"mask": [0.5, 0.5, 0.0, 0.2]}, "inside the image"),
        ({"mask": [0, 0, 1, 1], "mask_quantile": 0.5}, "automatic mask"),
        ({"style": "colour", "mask_quantile": 0.5}, "automatic mask"),
    ],
)
def test_a_mask_that_cannot_be_is_refused(edits: dict[str, object], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Edit.model_validate(edits)
    assert Edit().change_quantile == 0.75 and Edit(style="colour").change_quantile == 0
