"""A YAML text becomes plain values and the line of every key.

The tree of nodes is walked here, not by a YAML constructor: every node knows its line, nothing can be built but
text, numbers, truth values, lists and mappings, and all duplicate keys are told, not the first alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from contrafact.errors import Mistake, Mistakes, UserError

MAX_BYTES = 2**20
MAX_DEPTH = 12  # the schema itself is five levels deep

ONE_DOCUMENT = f"one YAML document, at most {MAX_DEPTH} levels deep"

Loc = tuple[str | int, ...]

_PLAIN = {f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "map", "seq")}
_DATE = "tag:yaml.org,2002:timestamp"


class Finding(NamedTuple):
    """A mistake; its line is that of ``loc`` where ``line`` does not say another."""

    loc: Loc
    found: str
    allowed: str
    nearest: str | None = None
    line: int | None = None


@dataclass(frozen=True)
class Source:
    """``values``: what the file says; ``lines``: line of each key, from 1; ``findings``: what YAML itself breaks."""

    text: str
    values: dict[str, Any]
    lines: Mapping[Loc, int]
    findings: tuple[Finding, ...]

    def line(self, loc: Loc) -> int:
        """The line of a key, or of the closest key above it where it is absent."""
        while loc and loc not in self.lines:
            loc = loc[:-1]
        return self.lines.get(loc, 1)


def dotted(loc: Loc) -> str:
    """``("directions", "smile", "hold", 1)`` as people write it: ``directions.smile.hold[1]``."""
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "(file)"


def shown(value: object) -> str:
    """A value as it stands in a message, on one line and not too long."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        text = "{" + ", ".join(f"{key}: {shown(item)}" for key, item in list(value.items())[:9]) + "}"
    elif isinstance(value, (list, tuple)):
        text = "[" + ", ".join(shown(item) for item in value[:9]) + "]"
    else:
        text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 90 else text[:87] + "..."


def read(path: Path) -> Source:
    """The values of a study file with their lines.

    Raises UserError where the file cannot be read, and Mistakes where it is no YAML mapping.
    """
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no such file"
        raise UserError(f"{path}: cannot be read ({reason}).", hint="Name a study file.") from error
    if len(raw) > MAX_BYTES:
        raise UserError(f"{path}: larger than {MAX_BYTES // 1024} KiB, too large for a study file.")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise _refusal(path, line, "bytes that are not UTF-8", "text in UTF-8") from error
    walk = _Walk(_compose(path, text))
    values = walk.value(walk.root, ()) if walk.root else {}
    if not isinstance(values, dict):
        raise _refusal(path, 1, shown(values), "a mapping of the keys of a study")
    return Source(text, values, walk.lines, tuple(walk.findings))


def _refusal(path: Path, line: int, found: str, allowed: str) -> Mistakes:
    return Mistakes([Mistake(str(path), line, "(file)", found, allowed)])


def _compose(path: Path, text: str) -> Node | None:
    yaml = YAML(typ="safe", pure=True)
    yaml.max_depth = MAX_DEPTH
    try:
        return yaml.compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = (
            str(error.problem or error.context or "")
            .split(",")[0]
            .removeprefix("but ")
            .removeprefix("found ")
        )
        raise _refusal(path, mark.line + 1 if mark else 1, problem, ONE_DOCUMENT) from error
    except YAMLError as error:
        raise _refusal(path, 1, str(error).splitlines()[0], ONE_DOCUMENT) from error


class _Walk:
    """One pass over the nodes of a document."""

    def __init__(self, root: Node | None) -> None:
        self.root = root
        self.lines: dict[Loc, int] = {}
        self.findings: list[Finding] = []
        self._construct = YAML(typ="safe", pure=True).constructor.construct_object

    def value(self, node: Node, loc: Loc) -> Any:
        self.lines.setdefault(loc, node.start_mark.line + 1)
        if node.anchor is not None:
            # Without anchors no file can grow while it is read, and each key has one line of its own.
            return self._refuse(
                loc, f"the YAML anchor or alias '{node.anchor}'", "values written out in full"
            )
        if isinstance(node, MappingNode):
            plain: Any = self._mapping(node, loc)
        elif isinstance(node, SequenceNode):
            plain = [self.value(item, (*loc, index)) for index, item in enumerate(node.value)]
        elif isinstance(node, ScalarNode):
            return self._scalar(node, loc)
        if node.tag not in _PLAIN:
            self._refuse(loc, f"the YAML tag '{node.tag}'", "plain text, numbers, lists and mappings")
        return plain

    def _mapping(self, node: MappingNode, loc: Loc) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, ScalarNode) or key_node.anchor is not None or key_node.value == "<<":
                self.lines.setdefault((*loc, "?"), line)
                self._refuse((*loc, "?"), "a key that is a list, a mapping or a merge", "plain words as keys")
                continue
            key = _printable(key_node.value)
            here = (*loc, key)
            if key in values:
                again = f"the key a second time (first in line {self.lines[here]})"
                self.findings.append(Finding(here, again, "each key once", line=line))
                continue
            self.lines[here] = line
            values[key] = self.value(value_node, here)
        return values

    def _scalar(self, node: ScalarNode, loc: Loc) -> str | int | float | bool | None:
        if node.tag == _DATE:
            return str(node.value)
        if node.tag not in _PLAIN:
            return self._refuse(loc, f"the YAML tag '{node.tag}'", "plain text, numbers, lists and mappings")
        try:
            value = self._construct(node)
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError
            if isinstance(value, str):
                value.encode()
        except (YAMLError, ValueError, ArithmeticError, LookupError):  # `!!int` and `!!bool maybe`, too
            return self._refuse(loc, shown(_printable(node.value)), "finite numbers and valid text")
        return value

    def _refuse(self, loc: Loc, found: str, allowed: str) -> Any:
        self.findings.append(Finding(loc, found, allowed))
        return None


def _printable(text: str) -> str:
    return str(text).encode("utf-8", "replace").decode()
