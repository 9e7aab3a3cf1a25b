"""A direction between two phrases, on a tiny random open_clip model as hubs would keep it."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from contrafact import study
from contrafact.counterfactual.direction import gradients
from contrafact.counterfactual.text import between_phrases, open_text_model
from contrafact.errors import Mistakes, UserError

CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
STUDY = """\
study: words
title: From one phrase to another
world: {kind: confounded}
directions:
  words: {kind: text, text: {model: clip, start: a dark face, end: a bright face}}
"""


def hub_folder(folder: Path, config: dict | None = None) -> Path:
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config or CONFIG, "preprocess_cfg": {}}))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    weights = {name: tensor.clone().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    return folder


def pictures(n: int) -> torch.Tensor:
    return torch.randn(n, 3, 16, 16, generator=torch.Generator().manual_seed(2)).clamp(-1, 1)


def test_the_reading_is_in_sd_has_a_gradient_and_turns_with_the_phrases(tmp_path: Path) -> None:
    folder = hub_folder(tmp_path / "clip")
    model, x = open_text_model(folder), pictures(150)
    reader = between_phrases(model, "a dark face", "a bright face", x)
    value, rows = gradients([reader], x)
    assert float(value.mean()) == pytest.approx(0, abs=1e-4) and float(value.std()) == pytest.approx(1, rel=1e-3)
    step = 0.01 * rows[:1, 0].view(1, 3, 16, 16) / rows[:1, 0].norm()
    slope = float(reader(x[:1] + step) - reader(x[:1] - step)) / 0.02
    assert slope == pytest.approx(float(rows[0, 0].norm()), rel=0.05)
    turned = between_phrases(open_text_model(folder), "a bright face", "a dark face", x)
    assert torch.allclose(turned(x), -reader(x), atol=1e-3)
    with pytest.raises(ValueError, match="does not tell 'a face' from 'a face'"):
        between_phrases(model, "a face", "a face", x)


def test_a_folder_that_is_no_model_is_one_sentence(tmp_path: Path) -> None:
    elsewhere = {**CONFIG, "text_cfg": {**CONFIG["text_cfg"], "hf_tokenizer_name": "bert"}}
    folder = hub_folder(tmp_path / "clip")
    config = folder / "open_clip_config.json"
    for text in ("{", "{}", json.dumps({"model_cfg": {**CONFIG, "embed_dim": 8}}), json.dumps({"model_cfg": {"a": 1}})):
        config.write_text(text)
        with pytest.raises(UserError, match="not a folder of an open_clip model"):
            open_text_model(folder)
    config.write_text(json.dumps({"model_cfg": elsewhere}))
    with pytest.raises(UserError, match="not open_clip's own"):
        open_text_model(folder)


def test_a_study_tells_that_the_weights_are_not_there(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(STUDY)
    with pytest.raises(Mistakes) as caught:
        study.load(path)
    assert "directions.words.text.model: found 'clip', where no such folder is" in str(caught.value.mistakes[0])
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "open_clip_model.bin").write_bytes(b"a pickle")
    with pytest.raises(Mistakes) as caught:
        study.load(path)
    (told,) = map(str, caught.value.mistakes)
    assert "no open_clip_config.json and no .safetensors" in told and "study.yaml:5" in told

    (tmp_path / "clip" / "open_clip_model.bin").unlink()
    (tmp_path / "clip").rmdir()
    folder = hub_folder(tmp_path / "clip")
    before = {stage.name: stage.hash for stage in study.plan(study.load(path))}
    (folder / "open_clip_config.json").write_text("{}")
    after = {stage.name: stage.hash for stage in study.plan(study.load(path))}
    assert next(name for name in before if before[name] != after[name]) == "generate", "the model is part of the study"
