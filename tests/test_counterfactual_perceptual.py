"""A perceptual distance on random weights: what holds of it whatever the network has learned."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models.vgg import cfgs, make_layers

from contrafact import study
from contrafact.counterfactual.perceptual import TAPS, Perceptual, open_perceptual
from contrafact.errors import Mistakes, UserError

STUDY = """\
study: seen
title: As a network sees them
world: {kind: confounded}
card: {vgg: vgg.safetensors}
directions: {up: {}}
"""


def network() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return make_layers(cfgs["D"])


def pictures(n: int, side: int = 32) -> torch.Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_a_distance_is_nought_for_equals_symmetric_and_grows() -> None:
    seen, x = Perceptual(network()), pictures(2)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    near, far = (seen.distance(x, (x + size * noise).clamp(-1, 1)) for size in (0.05, 0.5))
    assert seen.distance(x, x).tolist() == [0.0, 0.0]
    assert (near > 0).all() and (far > near).all()
    assert seen.distance(x + 0.05 * noise, x)[0] == pytest.approx(seen.distance(x, x + 0.05 * noise)[0], rel=1e-4)
    assert seen.distance(x, (x + 0.5 * noise).clamp(-1, 1), batch=1) == pytest.approx(far, rel=1e-4)


def test_it_is_the_published_sum_over_the_blocks() -> None:
    """Zhang et al. 2018, equation 1, written out, every weight 1."""
    layers, (x, y) = network(), pictures(2, 64).split(1)
    mean, sd = (torch.tensor(each)[:, None, None] for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    total = 0.0
    for tap in TAPS:
        assert isinstance(layers[tap - 1], nn.ReLU) and (tap == 30 or isinstance(layers[tap], nn.MaxPool2d))
        with torch.no_grad():
            one, other = (layers[:tap](((z + 1) / 2 - mean) / sd)[0].flatten(1) for z in (x, y))
        # |a/|a| - b/|b||² = 2 - 2 cos(a, b), at each place; twice the norm of nothing is nothing
        alike = nn.functional.cosine_similarity(one, other, dim=0, eps=1e-10)
        there = (one.norm(dim=0) > 0).float() + (other.norm(dim=0) > 0).float()
        total += float((there - 2 * alike).mean())
    assert float(Perceptual(layers).distance(x, y)[0]) == pytest.approx(total, rel=1e-3)


def test_weights_are_opened_by_their_names(tmp_path: Path) -> None:
    layers, file = network(), tmp_path / "vgg.safetensors"
    save_file({f"features.{name}": value.contiguous() for name, value in layers.state_dict().items()}, file)
    x, y = pictures(2), pictures(2).flip(3)
    assert open_perceptual(file).distance(x, y) == pytest.approx(Perceptual(layers).distance(x, y))
    save_file({"features.0.weight": torch.zeros(2)}, file)
    with pytest.raises(UserError, match="not the weights of a VGG-16"):
        open_perceptual(file)
    file.write_bytes(b"a pickle")
    with pytest.raises(UserError, match="not the weights of a VGG-16"):
        open_perceptual(file)


def test_a_study_tells_that_the_weights_are_not_there(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(STUDY)
    with pytest.raises(Mistakes) as caught:
        study.load(path)
    assert "card.vgg: found 'vgg.safetensors', where no such file is" in str(caught.value.mistakes[0])
    path.write_text(STUDY.replace("vgg.safetensors", "vgg.pth"))
    with pytest.raises(Mistakes) as caught:
        study.load(path)
    assert "a file that ends in .safetensors" in str(caught.value.mistakes[0])
    path.write_text(STUDY)
    (tmp_path / "vgg.safetensors").write_bytes(b"1")
    before = {stage.name: stage.hash for stage in study.plan(study.load(path))}
    (tmp_path / "vgg.safetensors").write_bytes(b"2")
    after = {stage.name: stage.hash for stage in study.plan(study.load(path))}
    assert next(name for name in before if before[name] != after[name]) == "gate", "the weights are part of the study"
