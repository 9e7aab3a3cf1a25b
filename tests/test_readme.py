"""The README tells the truth: its verbs exist, its code imports, its pictures are there, its YAML is the schema's."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.main import get_command

from contrafact.cli import app
from contrafact.study.schema import Direction, Images

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)
    assert found, f"the README has no {language} block"
    return found.group(1)


@pytest.mark.parametrize("verb", sorted(get_command(app).commands))  # type: ignore[attr-defined]
def test_every_verb_is_in_the_readme(verb: str) -> None:
    assert re.search(rf"`contrafact {verb}\b|`{verb}`", TEXT), f"contrafact {verb} is missing from README.md"


def test_the_python_block_is_about_twelve_lines_whose_names_exist() -> None:
    code = block("python")
    compile(code, "README.md", "exec")
    assert 8 <= len([line for line in code.splitlines() if line.strip()]) <= 14
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module:
            module = import_module(node.module)
            for name in node.names:
                assert hasattr(module, name.name) or import_module(f"{node.module}.{name.name}")


def test_the_yaml_block_passes_the_schema() -> None:
    content = YAML(typ="safe").load(block("yaml"))
    Images.model_validate(content["images"])
    for direction in content["directions"].values():
        Direction.model_validate(direction)


@pytest.mark.parametrize("target", re.findall(r"\]\(((?!http)[^)]+)\)", TEXT))
def test_what_the_readme_points_at_is_there(target: str) -> None:
    assert (ROOT / target).exists()
