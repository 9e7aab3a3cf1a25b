"""Text: from one phrase to another, as an open_clip model sees pictures (Radford et al. 2021).

The reading of a picture is its embedding along the difference of the two phrases' embeddings, the direction of
StyleGAN-NADA (Gal et al. 2022, equation 2) and Asyrp. Its gradient at the clean estimate is followed like any guide's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional as F

from contrafact.counterfactual.direction import Reader
from contrafact.errors import UserError


@dataclass(frozen=True)
class TextModel:
    """An open_clip model and what it wants to see: ``size`` in pixels, channel ``mean`` and ``sd`` for range [0, 1]."""

    model: Any
    tokenizer: Any
    size: tuple[int, int]
    mean: Tensor
    sd: Tensor

    def pictures(self, x: Tensor) -> Tensor:
        """Unit embeddings (m, e) of pictures (m, 3, h, w) in [-1, 1]; differentiable."""
        seen = F.interpolate((x + 1) / 2, self.size, mode="bicubic", align_corners=False)
        return F.normalize(self.model.encode_image((seen - self.mean) / self.sd), dim=-1)

    def phrases(self, words: Sequence[str]) -> Tensor:
        """Unit embeddings (p, e) of phrases."""
        return F.normalize(self.model.encode_text(self.tokenizer(list(words))), dim=-1)


def open_text_model(folder: Path) -> TextModel:
    """The open_clip model of a folder as hubs keep them: ``open_clip_config.json`` and one safetensors file.

    Nothing is downloaded. UserError where the folder holds no such model, or one whose tokenizer lies elsewhere.
    """
    # Here, since the library takes seconds to import and most studies name no such model.
    import open_clip
    from open_clip.factory import load_checkpoint

    try:
        config = json.loads((folder / "open_clip_config.json").read_text(encoding="utf-8"))["model_cfg"]
        elsewhere = [key for key in ("hf_model_name", "hf_tokenizer_name") if config.get("text_cfg", {}).get(key)]
        if elsewhere:
            raise UserError(
                f"{folder}: its text side is not open_clip's own ({', '.join(elsewhere)}).",
                hint="Name a model with open_clip's tokenizer, such as ViT-B-32.",
            )
        name, (weights,) = f"local-dir:{folder}", sorted(folder.glob("*.safetensors"))
        model = open_clip.create_model(name, load_weights=False, pretrained_text=False)
        load_checkpoint(model, str(weights))
        tokenizer, wanted = open_clip.get_tokenizer(name), open_clip.get_model_preprocess_cfg(model)
    except UserError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"{folder}: not a folder of an open_clip model ({error}).",
            hint="It holds open_clip_config.json and the weights as one .safetensors file.",
        ) from error
    size = wanted["size"]
    return TextModel(
        model.eval().requires_grad_(False),
        tokenizer,
        (size, size) if isinstance(size, int) else tuple(size),
        torch.tensor(wanted["mean"])[:, None, None],
        torch.tensor(wanted["std"])[:, None, None],
    )


@torch.no_grad()
def between_phrases(model: TextModel, start: str, end: str, reference: Tensor) -> Reader:
    """A reading in SD over ``reference`` (r, c, h, w) that rises from the phrase ``start`` to the phrase ``end``.

    ValueError where the model does not tell the phrases apart.
    """
    first, second = model.phrases([start, end])
    if float((second - first).norm()) < 1e-4:
        raise ValueError(f"the model does not tell {start!r} from {end!r}")
    towards = F.normalize(second - first, dim=0)
    known = torch.cat([model.pictures(part) for part in reference.split(100)]) @ towards
    centre, spread = float(known.mean()), float(known.std().clamp(min=1e-12))
    return lambda x: (model.pictures(x) @ towards - centre) / spread
