"""A study file is loaded frozen, or every mistake in it is told with its line."""

from __future__ import annotations

import io
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from contrafact import study
from contrafact.errors import Mistakes, UserError
from contrafact.images.worlds import FACTORS
from contrafact.study.source import MAX_BYTES

BROKEN = Path(__file__).parent / "broken_studies"
TEMPLATES = Path(__file__).parents[1] / "studies" / "templates"

SOUND = """\
study: sound
title: A sound study
world: {kind: confounded, images: 2000}
directions:
  up:
    hold:
      - skin
      - brow
images: {covariates: {skin: {}, brow: {}}}
"""


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "study.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)
    return path


def told(path: Path, data: Path | None = None) -> list[str]:
    """The mistakes without the folder that the file happens to lie in."""
    with pytest.raises(Mistakes) as caught:
        study.load(path, data=data)
    return [
        str(mistake).replace(f"{path.parent}{os.sep}", "").replace(str(path.parent), "HERE")
        for mistake in caught.value.mistakes
    ]


@pytest.mark.parametrize("path", sorted(BROKEN.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_mistake_of_a_broken_study_is_told(path: Path) -> None:
    expected = path.with_suffix(".txt").read_text(encoding="utf-8").splitlines()
    assert told(path) == expected


def test_a_sound_study_is_frozen_and_knows_its_lines(tmp_path: Path) -> None:
    loaded = study.load(written(tmp_path, SOUND))
    assert loaded.study.directions["up"].hold == ("skin", "brow")
    assert loaded.lines["directions.up.hold[1]"] == 8
    assert loaded.study.arms.placebo == 12
    with pytest.raises(ValueError, match="frozen"):
        loaded.study.seed = 2  # type: ignore[misc]


def test_the_hash_is_that_of_the_content(tmp_path: Path) -> None:
    first = study.load(written(tmp_path, SOUND)).sha256
    retold = "# a comment\nseed: 1\n" + SOUND.replace("2000", "2_000")
    assert study.load(written(tmp_path, retold)).sha256 == first
    assert study.load(written(tmp_path, SOUND + "seed: 2\n")).sha256 != first


def test_paths_are_seen_from_the_file_and_from_the_data_folder(tmp_path: Path) -> None:
    data, here = tmp_path / r"da\ta", tmp_path / "here"
    data.mkdir()
    (here / "base").mkdir(parents=True)
    (data / "images.csv").write_text("image,unit_id,outcome\na.png,1,0\n")
    text = (
        "study: photos\ntitle: Photographs\nimages: {manifest: $CONTRAFACT_DATA/images.csv}\n"
        "model: {start: base}\ndirections: {up: {}}\n"
    )
    path = written(here, text)
    inputs = study.load(path, data=data).inputs
    assert inputs["images.manifest"] == data / "images.csv"
    assert inputs["images.folder"] == data
    assert inputs["model.start"] == here / "base"
    (message,) = told(path)
    assert "images.manifest: found '$CONTRAFACT_DATA/images.csv', but no CONTRAFACT_DATA;" in message


@pytest.mark.parametrize("target", ["missing.yaml", "."])
def test_what_is_no_file_is_one_sentence(tmp_path: Path, target: str) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        study.load(tmp_path / target)


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="1024 KiB"):
        study.load(written(tmp_path, b"#" * (MAX_BYTES + 1)))


# --- nothing but UserError ------------------------------------------------------------------------------------

KEYS = st.sampled_from(
    [*study.Study.model_fields, "hold", "target", "name", "kind", "grid", "<<", "cause", "H 1"]
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), KEYS, st.sampled_from(FACTORS)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
LINES = st.sampled_from(
    "\n".join(file.read_text(encoding="utf-8") for file in sorted(TEMPLATES.glob("*.yaml"))).splitlines()
)
PIECES = st.sampled_from(
    [
        "&a ",
        "*a",
        "!!int ",
        "? ",
        "- ",
        "{",
        "}",
        "[",
        "]",
        ": ",
        "'",
        '"',
        "|\n",
        "%YAML 1.1\n---\n",
        "\t",
        "\u2028",
        "\x85",
        "\ud800",
        "...",
    ]
)
FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def loads_or_tells(path: Path) -> None:
    try:
        study.load(path)
    except UserError as error:
        assert str(error).strip()


@FUZZ
@given(st.binary(max_size=200) | st.text(max_size=200) | st.lists(LINES | PIECES, max_size=30).map("\n".join))
def test_any_text_is_loaded_or_told(tmp_path: Path, text: str | bytes) -> None:
    loads_or_tells(written(tmp_path, text))


def dumped(values: object) -> str:
    stream = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.representer.ignore_aliases = lambda _: True
    yaml.dump(values, stream)
    return stream.getvalue()


@FUZZ
@given(st.dictionaries(st.sampled_from(list(study.Study.model_fields)), VALUES, max_size=8))
def test_any_values_are_loaded_or_told(tmp_path: Path, values: dict[str, object]) -> None:
    loads_or_tells(written(tmp_path, dumped(values)))


@FUZZ
@given(st.sampled_from(["faces_world", "products_world", "photographs", "own_stimuli"]), st.data())
def test_a_study_with_some_values_exchanged_is_loaded_or_told(
    tmp_path: Path, template: str, data: st.DataObject
) -> None:
    values = YAML(typ="safe", pure=True).load((TEMPLATES / f"{template}.yaml").read_text(encoding="utf-8"))
    for _ in range(data.draw(st.integers(1, 4))):
        place: Any = values
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = data.draw(st.sampled_from(keys))
            if not (isinstance(place[key], (dict, list)) and place[key]) or data.draw(st.booleans()):
                break
            place = place[key]
        place[key] = data.draw(VALUES)
    loads_or_tells(written(tmp_path, dumped(values)))


# --- instant --------------------------------------------------------------------------------------------------


def test_a_check_is_instant_and_loads_nothing_heavy(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom contrafact.study import load\n"
        f"load({str(written(tmp_path, SOUND))!r})\n"
        "print(*sorted({'torch', 'pandas', 'sqlalchemy', 'mlflow', 'streamlit', 'diffusers', 'numpy'} & set(sys.modules)))"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "platform")},
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stdout.strip() == ""
    # Processor time, because a busy machine stretches the time on the wall.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0
