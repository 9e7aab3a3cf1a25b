"""From a study file to a frozen study, or to every mistake in it at once."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from contrafact.errors import Mistake, Mistakes, nearest
from contrafact.study import rules
from contrafact.study.schema import Practice, Study, at_once
from contrafact.study.source import Finding, Loc, Source, dotted, read, shown

TABLES = (".csv", ".parquet")
PICTURES = (".png", ".jpg", ".jpeg", ".webp")
PRACTICE: Loc = ("survey", "service", "practice", "folder")
STIMULI_COLUMNS = ("stimulus", "image", "direction", "arm", "dose", "file")


@dataclass(frozen=True)
class LoadedStudy:
    """A study and the file it came from.

    ``sha256`` is that of the canonical content: comments, the order of keys and defaults written out leave it as
    it is. ``inputs`` are the absolute paths of ``images.manifest``, ``images.folder``, ``images.extra``,
    ``stimuli.manifest``, ``stimuli.folder``, ``model.start`` and ``survey.service.practice.folder``, as far as the study
    has them; a folder that is not given is that of its manifest. ``lines`` maps ``directions.smile.hold[1]`` to its line.
    """

    study: Study
    path: Path
    text: str
    sha256: str
    lines: Mapping[str, int]
    inputs: Mapping[str, Path]


def canonical(value: object) -> str:
    """JSON with sorted keys and without spaces: equal content gives equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def content(study: Study) -> dict[str, Any]:
    """The whole content of a study as plain JSON values, defaults written out."""
    return study.model_dump(mode="json")


def load(path: Path | str, *, data: Path | None = None) -> LoadedStudy:
    """The frozen study in ``path``; relative paths in it are resolved against its folder.

    ``data`` stands for ``$CONTRAFACT_DATA``. Raises UserError where the file cannot be read and Mistakes (a
    UserError) with all mistakes otherwise.
    """
    path = Path(path)
    source = read(path)
    study, findings = _validated(source.values)
    broken = rules.broken(source.values)
    inputs, missing = _inputs(source.values, path.resolve().parent, data)
    told = {finding.loc for finding in broken}
    mistakes = _merged(source, [*broken, *(one for one in missing if one.loc not in told)], findings)
    if mistakes or study is None:
        raise Mistakes([_mistake(path, source, finding) for finding in mistakes])
    digest = hashlib.sha256(canonical(content(study)).encode()).hexdigest()
    lines = {dotted(loc): line for loc, line in source.lines.items() if loc}
    return LoadedStudy(study, path, source.text, digest, MappingProxyType(lines), MappingProxyType(inputs))


def _merged(source: Source, broken: list[Finding], schema: list[Finding]) -> list[Finding]:
    """One finding a place, in the order of lines.

    What YAML itself breaks hides what follows from it; a broken rule says more than the schema's word on the
    same key.
    """
    yaml = [finding.loc for finding in source.findings if finding.line is None]
    told = {finding.loc for finding in broken}
    rest = [*broken, *(finding for finding in schema if finding.loc not in told)]
    kept = [*source.findings, *(one for one in rest if not any(one.loc[: len(loc)] == loc for loc in yaml))]
    return sorted(kept, key=lambda finding: finding.line or source.line(finding.loc))


def _mistake(path: Path, source: Source, finding: Finding) -> Mistake:
    line = finding.line or source.line(finding.loc)
    return Mistake(str(path), line, dotted(finding.loc), finding.found, finding.allowed, finding.nearest)


# --- what the schema says -------------------------------------------------------------------------------------


def _validated(values: dict[str, Any]) -> tuple[Study | None, list[Finding]]:
    try:
        # JSON's strict mode takes lists for tuples and 1 for 1.0, but neither "1" nor true for 1.
        return Study.model_validate_json(json.dumps(values), strict=True), []
    except ValidationError as error:
        words = _Words()
        return None, [words.finding(one) for one in error.errors(include_url=False)]


class _Words:
    """The schema in plain words, taken from its own JSON schema, so that the two cannot drift apart."""

    def __init__(self) -> None:
        self.root = Study.model_json_schema()

    def finding(self, error: Any) -> Finding:
        kind, loc, value = error["type"], tuple(error["loc"]), error["input"]
        if loc and loc[-1] == "[key]":
            names = self._place(loc[:-2])
            form = {"type": "string", **names.get("propertyNames", {})}
            if patterns := names.get("patternProperties"):
                form["pattern"] = next(iter(patterns))
            return Finding(loc[:-1], f"the name {shown(loc[-2])}", self._describe(form))
        if kind == "extra_forbidden":
            known = tuple(self._place(loc[:-1]).get("properties", ()))
            return Finding(loc, "an unknown key", ", ".join(known), nearest(str(loc[-1]), known))
        if kind == "value_error":
            return Finding(loc, shown(value), str(error["ctx"]["error"]))
        place = self._place(loc)
        if kind == "missing":
            return Finding(loc, "nothing", self._describe(place))
        choices = [str(choice) for choice in place.get("enum", ())]
        near = nearest(value, choices) if isinstance(value, str) else None
        if isinstance(value, bool) and shown(value) in choices:
            return Finding(loc, shown(value), f'{self._describe(place)} (in quotes: "{shown(value)}")')
        return Finding(loc, shown(value), self._describe(place), near)

    def _place(self, loc: Loc) -> dict[str, Any]:
        place = self._resolved(self.root)
        for part in loc:
            patterns, others = place.get("patternProperties"), place.get("additionalProperties")
            if isinstance(part, int):
                fixed = place.get("prefixItems")
                place = fixed[part] if fixed and part < len(fixed) else place.get("items", {})
            elif patterns:
                place = next(iter(patterns.values()))
            elif isinstance(others, dict):
                place = others
            else:
                place = place.get("properties", {}).get(part, {})
            place = self._resolved(place)
        return place

    def _resolved(self, place: dict[str, Any]) -> dict[str, Any]:
        for option in place.get("anyOf", ()):
            if option.get("type") != "null":
                place = {**option, **{key: text for key, text in place.items() if key == "description"}}
        if "$ref" in place:
            return dict(self.root["$defs"][place["$ref"].rsplit("/", 1)[-1]])
        return place

    def _describe(self, place: dict[str, Any]) -> str:
        place = self._resolved(place)
        if "properties" in place:
            return f"a mapping with the keys {', '.join(place['properties'])}"
        if "patternProperties" in place:
            return "a mapping from names to settings"
        note = f" ({place['description']})" if "description" in place else ""
        if "const" in place:
            return shown(place["const"])
        if "enum" in place:
            return ", ".join(str(choice) for choice in place["enum"])
        return {
            "boolean": lambda: "true or false",
            "integer": lambda: "a whole number" + _bounds(place),
            "number": lambda: "a number" + _bounds(place),
            "string": lambda: "text" + _form(place),
            "array": lambda: self._list(place),
        }.get(place.get("type", ""), lambda: "another value")() + note

    def _list(self, place: dict[str, Any]) -> str:
        fixed = place.get("prefixItems")
        if fixed:
            return f"a list of {len(fixed)}, each {self._describe(fixed[0])}"
        many = f"a list of {place['minItems']} or more" if "minItems" in place else "a list"
        return f"{many}, each {self._describe(place.get('items', {}))}"


def _bounds(place: dict[str, Any]) -> str:
    words = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
    }
    if "minimum" in place and "maximum" in place:
        return f" from {place['minimum']:g} to {place['maximum']:g}"
    found = [f"{word} {place[key]:.10g}" for key, word in words.items() if key in place]
    return " " + " and ".join(found) if found else ""


def _form(place: dict[str, Any]) -> str:
    if "pattern" in place:
        return f" of the form {place['pattern']}"
    if "minLength" in place and "maxLength" in place:
        return f" of {place['minLength']} to {place['maxLength']} characters"
    return f" of at most {place['maxLength']} characters" if "maxLength" in place else ""


# --- what lies on disk ----------------------------------------------------------------------------------------


def _inputs(raw: rules.Raw, base: Path, data: Path | None) -> tuple[dict[str, Path], list[Finding]]:
    """The paths that the study names, and a finding for each that is not there."""
    paths: dict[str, Path] = {}
    findings: list[Finding] = []
    contested = sum(raw.get(name) is not None for name in rules.SOURCES) > 1
    keys: list[Loc] = [("images", "manifest"), ("images", "extra"), ("images", "folder")]
    directions = raw.get("directions")
    texts = [("directions", name, "text", "model") for name in (directions if isinstance(directions, dict) else ())]
    models: list[Loc] = [("model", "start"), ("model", "autoencoder"), ("card", "clip"), ("card", "vgg")]
    for loc in [*keys, ("stimuli", "manifest"), ("stimuli", "folder"), *models, *texts, PRACTICE]:
        value: Any = raw
        for part in loc:
            value = value.get(part) if isinstance(value, dict) else None
        if not isinstance(value, str) or (loc == ("model", "start") and value == "scratch"):
            continue
        path, finding = _resolved_path(loc, value, base, data)
        if finding is not None:
            findings.append(finding)
        elif path is not None:
            paths[dotted(loc)] = path
            if loc[-1] in ("manifest", "extra") and not contested:
                findings += _columns(raw, loc, path)
            elif loc[-1] in ("model", "clip"):
                findings += _text_model(loc, path)
            elif loc == PRACTICE:
                findings += _practice(raw["survey"], path)
    for name in ("images", "stimuli"):
        if f"{name}.manifest" in paths:
            paths.setdefault(f"{name}.folder", paths[f"{name}.manifest"].parent)
    return paths, findings


def _resolved_path(loc: Loc, text: str, base: Path, data: Path | None) -> tuple[Path | None, Finding | None]:
    for variable in re.findall(r"\$\{?(\w+)\}?", text):
        if variable != "CONTRAFACT_DATA":
            return None, Finding(loc, f"the variable ${variable}", "a path, or one under $CONTRAFACT_DATA")
        if data is None:
            allowed = "the environment variable CONTRAFACT_DATA set to the folder of the data"
            return None, Finding(loc, f"{shown(text)}, but no CONTRAFACT_DATA", allowed)
    endings = {"manifest": TABLES, "extra": TABLES, "vgg": (".safetensors",)}.get(str(loc[-1]))
    wanted_file = endings is not None
    try:
        # A function, because a backslash in the folder's name must stay a backslash.
        expanded = re.sub(r"\$\{?CONTRAFACT_DATA\}?", lambda _: str(data), text)
        path = (base / expanded).resolve()
        there = path.is_file() if wanted_file else path.is_dir()
    except (OSError, ValueError, RuntimeError):
        there = False
        path = base
    if endings is not None and Path(text).suffix.lower() not in endings:
        return None, Finding(loc, shown(text), f"a file that ends in {' or '.join(endings)}")
    if not there:
        kind = "file" if wanted_file else "folder"
        return None, Finding(
            loc, f"{shown(text)}, where no such {kind} is", f"a {kind} that exists (seen from {base})"
        )
    return path, None


def practice_files(folder: Path) -> list[Path]:
    """The pictures of a folder for practice, by their names."""
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in PICTURES)


def _practice(survey: rules.Raw, folder: Path) -> list[Finding]:
    """Whether a folder has the pictures that the practice trials show."""
    trials = survey["service"]["practice"].get("trials", Practice.model_fields["trials"].default)
    if type(trials) is not int:
        return []
    wanted, there = trials * at_once(survey.get("design"), survey.get("set_size")), len(practice_files(folder))
    allowed = f"{wanted} pictures at least ({', '.join(PICTURES)}): each practice trial shows its own"
    return [] if there >= wanted else [Finding(PRACTICE, f"{folder.name}, with {there} pictures", allowed)]


def _text_model(loc: Loc, folder: Path) -> list[Finding]:
    """Whether a folder holds the two files of an open_clip model; whether they fit is seen when it is opened."""
    weights = len(list(folder.glob("*.safetensors")))
    if (folder / "open_clip_config.json").is_file() and weights == 1:
        return []
    here = f"{'a' if (folder / 'open_clip_config.json').is_file() else 'no'} open_clip_config.json"
    found = f"{folder.name}, with {here} and {weights or 'no'} .safetensors"
    return [Finding(loc, found, "a folder with open_clip_config.json and the weights as one .safetensors file")]


def _columns(raw: rules.Raw, loc: Loc, manifest: Path) -> list[Finding]:
    """Columns that a CSV manifest lacks; a Parquet file is looked into when it is read as a whole."""
    if manifest.suffix.lower() != ".csv":
        return []
    try:
        with manifest.open(encoding="utf-8-sig", newline="") as stream:
            header = [name.strip() for name in next(csv.reader([stream.readline(65_536)]), [])]
    except (OSError, ValueError, csv.Error):
        return [Finding(loc, f"{manifest.name}, which is not CSV in UTF-8", "a CSV file with a header")]
    if loc == ("stimuli", "manifest"):
        wanted: list[tuple[Loc, str]] = [(loc, name) for name in STIMULI_COLUMNS]
    elif loc == ("images", "extra"):
        wanted = [(loc, "image")]
    else:
        images = raw["images"]
        outcome = images.get("outcome") if isinstance(images.get("outcome"), dict) else {}
        wanted = [
            (loc, "image"),
            (("images", "unit_id"), images.get("unit_id", "unit_id")),
            (("images", "outcome", "column"), outcome.get("column", "outcome")),
        ]
        covariates = images.get("covariates")
        if isinstance(covariates, dict):
            wanted += [(("images", "covariates", name), name) for name in covariates]
        if images.get("crop") == "boxes":
            boxes = ("box_left", "box_top", "box_width", "box_height")
            wanted += [(("images", "crop"), name) for name in boxes]
    missing: dict[Loc, list[str]] = {}
    for place, name in wanted:
        if isinstance(name, str) and name not in header:
            missing.setdefault(place, []).append(name)
    return [
        Finding(
            place,
            f"no column {', '.join(map(repr, names))} in {manifest.name}",
            f"its columns: {', '.join(header)}",
            nearest(names[0], header),
        )
        for place, names in missing.items()
    ]
