"""The conditional U-Net and its folder.

A folder is diffusers' own layout with two small files beside it::

    unet/config.json, unet/diffusion_pytorch_model.safetensors     opened by UNet2DModel.from_pretrained
    scheduler/scheduler_config.json                                opened by any diffusers scheduler
    condition_mlp.safetensors                                      absent where there is no condition
    contrafact.json                                                the Spec
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler, UNet2DModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from contrafact.diffusion.schedule import Kind, Name, Schedule, kind_of, schedule_of, scheduler
from contrafact.errors import UserError


class ModelFolderError(UserError, ValueError):
    """A model folder that cannot be opened, or does not fit what is asked of it."""


@dataclass(frozen=True)
class Spec:
    """What a model is, apart from its weights.

    ``size`` in pixels; ``channels`` one number a level, multiples of 8; ``patch`` pixels a side are folded into
    channels. ``inputs`` are the channels of one item, 3 for pixels; for latents ``size`` is theirs. Condition k of the network is (raw value − mean_k)/sd_k.
    """

    size: int = 32
    channels: tuple[int, ...] = (64, 96, 128)
    patch: int = 2
    prediction: Kind = "v"
    schedule: Name = "cosine"
    timesteps: int = 1000
    conditions: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    sd: tuple[float, ...] = ()
    inputs: int = 3

    def __post_init__(self) -> None:
        if not len(self.conditions) == len(self.mean) == len(self.sd):
            raise ValueError("conditions, mean and sd must have the same length")
        if any(not sd > 0 for sd in self.sd):
            raise ValueError("the sd of a condition must be above 0")
        if self.size % (self.patch * 2 ** (len(self.channels) - 1)):
            raise ValueError(
                f"size {self.size} cannot be halved {len(self.channels) - 1} times after patches of {self.patch}: "
                "use fewer channels (levels), a smaller patch or a larger size"
            )
        if any(width % 8 for width in self.channels):
            raise ValueError("channels must be multiples of 8")


class ConditionMLP(nn.Module):
    """From (n, 2k), [condition × keep, keep], to the embedding (n, width) that is added to the time's."""

    def __init__(self, conditions: int, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(2 * conditions, width)
        self.last = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.silu(self.first(x)))


class ConditionalUNet(nn.Module):
    """diffusers' UNet2DModel on patches, its class embedding fed by a small network of the conditions.

    The condition enters as [condition × keep, keep], so that 0 and "not known" differ; a dropped condition is the
    unconditional model (Ho and Salimans 2022).
    """

    def __init__(self, spec: Spec, unet: UNet2DModel | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.unet = unet or UNet2DModel(
            sample_size=spec.size // spec.patch,
            in_channels=spec.inputs * spec.patch**2,
            out_channels=spec.inputs * spec.patch**2,
            block_out_channels=spec.channels,
            down_block_types=("DownBlock2D",) * len(spec.channels),
            up_block_types=("UpBlock2D",) * len(spec.channels),
            layers_per_block=1,
            norm_num_groups=8,
            add_attention=False,
            class_embed_type="identity" if spec.conditions else None,
        )
        self.condition_mlp: ConditionMLP | None = None
        if spec.conditions:
            width = self.unet.time_embedding.linear_2.out_features
            self.condition_mlp = ConditionMLP(len(spec.conditions), width)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None, keep: Tensor | None = None) -> Tensor:
        """The prediction (n, inputs, size, size) for x of the same shape, t long (n,).

        ``condition`` (n, k) standardised, ``keep`` (n, k) of 0 and 1; both None: unconditional.
        """
        embedding = None
        if self.condition_mlp is not None:
            if condition is None or keep is None:
                condition = keep = x.new_zeros(len(x), len(self.spec.conditions))
            embedding = self.condition_mlp(torch.cat([condition * keep, keep], dim=1))
        folded = F.pixel_unshuffle(x, self.spec.patch)
        out = self.unet(folded, t, class_labels=embedding, return_dict=False)[0]
        return F.pixel_shuffle(out, self.spec.patch)


def fresh(spec: Spec, seed: int) -> ConditionalUNet:
    """A network with random weights that depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ConditionalUNet(spec)


def save(network: ConditionalUNet, folder: Path) -> None:
    """Write the model folder; weights as safetensors only."""
    spec = network.spec
    network.unet.save_pretrained(folder / "unet", safe_serialization=True)
    scheduler(spec.schedule, spec.timesteps, spec.prediction).save_pretrained(folder / "scheduler")
    if network.condition_mlp is not None:
        tensors = {name: tensor.contiguous() for name, tensor in network.condition_mlp.state_dict().items()}
        save_file(tensors, folder / "condition_mlp.safetensors")
    (folder / "contrafact.json").write_text(json.dumps(asdict(spec), indent=2) + "\n")


def load(folder: Path) -> ConditionalUNet:
    """A network written by :func:`save`, float32, ready to predict; ModelFolderError where it is none."""
    try:
        facts: dict[str, Any] = json.loads((folder / "contrafact.json").read_text())
        facts |= {key: tuple(value) for key, value in facts.items() if isinstance(value, list)}
        spec = Spec(**facts)
        unet = open_unet(folder / "unet")
        _must_fit(folder, unet, spec)
        network = ConditionalUNet(spec, unet)
        if network.condition_mlp is not None:
            network.condition_mlp.load_state_dict(load_file(folder / "condition_mlp.safetensors"))
    except ModelFolderError:
        raise
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        raise ModelFolderError(f"{folder}: not a model folder of contrafact ({error}).") from error
    return network.eval()


def open_unet(folder: Path) -> UNet2DModel:
    """A diffusers UNet2DModel from a local folder, float32; anything but safetensors is refused."""
    if not (folder / "config.json").is_file():
        raise ModelFolderError(f"{folder}: no config.json.", hint="Name a diffusers model folder.")
    if not list(folder.glob("*.safetensors")):
        raise ModelFolderError(
            f"{folder}: no safetensors weights; other formats may run code and are refused.",
            hint="Save the model again with save_pretrained(..., safe_serialization=True).",
        )
    try:
        return UNet2DModel.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, torch_dtype=torch.float32
        )
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        raise ModelFolderError(f"{folder}: not a UNet2DModel ({error}).") from error


def open_scheduler(folder: Path) -> tuple[Schedule, Kind]:
    """Schedule and prediction kind of a diffusers model folder that has ``scheduler/``."""
    try:
        theirs = DDPMScheduler.from_pretrained(folder / "scheduler", local_files_only=True)
        return schedule_of(theirs), kind_of(theirs)
    except (OSError, ValueError) as error:
        raise ModelFolderError(f"{folder}: no scheduler that fits ({error}).") from error


def unet_folder(folder: Path) -> Path:
    """Where a diffusers folder keeps its U-Net: pipelines in ``unet/``, single models at the top."""
    return folder / "unet" if (folder / "unet").is_dir() else folder


def start_from(folder: Path, spec: Spec, seed: int) -> ConditionalUNet:
    """A network for ``spec`` that begins as the model in ``folder``: one of ours, or any unconditional UNet2DModel.

    At the start it computes what the old model computes: conditions of the same name keep their inputs (rescaled to
    the new mean and sd), new ones begin with zero weights. Raises ModelFolderError where size, patch, channels,
    schedule or prediction differ.
    """
    ours = (folder / "contrafact.json").is_file()
    old = load(folder) if ours else None
    unet = old.unet if old else open_unet(unet_folder(folder))
    _must_fit(folder, unet, spec)
    if spec.conditions and unet.class_embedding is None:
        weights = unet.state_dict()
        unet = UNet2DModel.from_config({**unet.config, "class_embed_type": "identity"})
        unet.load_state_dict(weights)
    if unet.class_embedding is not None and unet.config.class_embed_type != "identity":
        raise ModelFolderError(f"{folder}: a model with class labels cannot be fine-tuned on conditions.")
    if unet.class_embedding is not None and not spec.conditions:
        raise ModelFolderError(f"{folder}: a conditional model cannot be fine-tuned without conditions.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ConditionalUNet(spec, unet)
    if network.condition_mlp is not None:
        _take_over(network.condition_mlp, spec, old.condition_mlp if old else None, old.spec if old else spec)
    return network


@torch.no_grad()
def _take_over(new: ConditionMLP, spec: Spec, old: ConditionMLP | None, before: Spec) -> None:
    if old is None:
        new.last.weight.zero_()
        new.last.bias.zero_()
        return
    new.last.load_state_dict(old.last.state_dict())
    new.first.bias.copy_(old.first.bias)
    new.first.weight.zero_()
    k, k_before = len(spec.conditions), len(before.conditions)
    for i, name in enumerate(spec.conditions):
        if name in before.conditions:
            j = before.conditions.index(name)
            # raw = mean + sd·c, so the old input is c_old = (mean − mean_old)/sd_old + (sd/sd_old)·c.
            slope = old.first.weight[:, j]
            shift = (spec.mean[i] - before.mean[j]) / before.sd[j]
            new.first.weight[:, i] = slope * (spec.sd[i] / before.sd[j])
            new.first.weight[:, k + i] = old.first.weight[:, k_before + j] + slope * shift


def _must_fit(folder: Path, unet: UNet2DModel, spec: Spec) -> None:
    schedule, kind = open_scheduler(folder)
    wanted = schedule_of(scheduler(spec.schedule, spec.timesteps, spec.prediction))
    config = unet.config
    pairs: Sequence[tuple[str, object, object]] = (
        ("channels", tuple(config.block_out_channels), spec.channels),
        ("input channels times patch²", (config.in_channels, config.out_channels), (spec.inputs * spec.patch**2,) * 2),
        ("side after patches in pixels", config.sample_size, spec.size // spec.patch),
        ("prediction", kind, spec.prediction),
        ("timesteps", len(schedule), len(wanted)),
    )
    wrong = [f"{what}: {found} in the folder, {asked} asked" for what, found, asked in pairs if found != asked]
    if len(schedule) == len(wanted) and not torch.allclose(schedule.alphas_cumprod, wanted.alphas_cumprod):
        wrong.append(f"another noise schedule in the folder, {spec.schedule} asked")
    if wrong:
        raise ModelFolderError(f"{folder} does not fit: {'; '.join(wrong)}.", hint="Set the model section to match.")
