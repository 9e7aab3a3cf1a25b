"""The stages of a study, each with a hash of everything that its result depends on.

A stage whose hash has succeeded before need not run again. The hash is taken over the sections of the study that
the stage reads, the hashes of its upstream stages, the content of its input files, and the source of
``pipelines/<stage>.py`` with every module it imports from the rooms that compute. Rooms that only keep, show or
carry out (store, tracking, run, study and the like) are left out: they do not change a result.
"""

from __future__ import annotations

import ast
import csv
import fnmatch
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import contrafact
from contrafact import bundle
from contrafact.study.load import LoadedStudy, content
from contrafact.study.schema import Predictor, Study

COMPUTING = (
    "seeds", "images", "predictors", "diffusion", "counterfactual", "survey", "stats", "readings", "report",
)  # fmt: skip


class _Stage(NamedTuple):
    upstream: tuple[str, ...]
    sections: tuple[str, ...]
    files: tuple[str, ...] = ()


# The seed stands with ingest: it reaches every later stage through the upstream hashes.
STAGES = {
    "ingest": _Stage((), ("seed", "world", "images"), ("images.manifest", "images.extra")),
    "predict": _Stage(("ingest",), ("predictors", "doses.support", "card.clip"), ("card.clip",)),
    "finetune": _Stage(
        ("predict",),
        ("model", "directions.*.kind", "directions.*.target", "directions.*.hold", "directions.*.slider"),
        ("model.start", "model.autoencoder"),
    ),
    "generate": _Stage(("predict", "finetune"), ("directions", "doses", "arms"), ("directions.*.text.model",)),
    "gate": _Stage(("generate",), ("gate", "card", "survey.respondents.reads"), ("card.clip", "card.vgg")),
    "field": _Stage(("gate",), ("review", "survey", "hypotheses"), ("survey.service.practice.folder",)),
    "analyse": _Stage(("field",), ("hypotheses", "analysis")),
    "report": _Stage(("analyse",), ("study", "title", "question")),
}
# A study of finished stimuli skips the models. Its ingest compares the hypotheses with what the manifest holds.
_OF_STIMULI = {
    "ingest": _Stage((), ("seed", "stimuli", "hypotheses"), ("stimuli.manifest",)),
    "field": STAGES["field"]._replace(upstream=("ingest",)),
    "analyse": STAGES["analyse"],
    "report": STAGES["report"],
}
STIMULI_STAGES = tuple(_OF_STIMULI)


@dataclass(frozen=True)
class PlannedStage:
    """``hash`` (64 hex digits) names the result; ``upstream`` the stages whose facts it is handed."""

    name: str
    upstream: tuple[str, ...]
    hash: str
    sections: tuple[str, ...]


def plan(loaded: LoadedStudy, *, pipelines: Path | None = None) -> tuple[PlannedStage, ...]:
    """The stages in order. ``pipelines`` is the folder of the stages' sources, by default the installed one.

    Every input file is read once, to hash it; a file that a manifest names and that is not there counts as such.
    """
    folder = pipelines or bundle.folder("pipelines")
    values = content(loaded.study)
    code = _Code()
    done: dict[str, PlannedStage] = {}
    for name, stage in (STAGES if loaded.study.stimuli is None else _OF_STIMULI).items():
        parts = {
            "stage": name,
            "study": {section: _pick(values, section.split(".")) for section in stage.sections},
            "upstream": {each: done[each].hash for each in stage.upstream},
            "files": {
                key: list(_content_hashes(loaded, key))
                for pattern in stage.files
                for key in fnmatch.filter(loaded.inputs, pattern)
            },
            "source": code.hashes(folder / f"{name}.py"),
        }
        # Not sorted: the order of directions and covariates is part of what a stage reads.
        digest = hashlib.sha256(json.dumps(parts, allow_nan=False).encode()).hexdigest()
        done[name] = PlannedStage(name, stage.upstream, digest, stage.sections)
    return tuple(done.values())


def _pick(value: Any, path: list[str]) -> Any:
    if not path or value is None:
        return value
    head, rest = path[0], path[1:]
    if head == "*":
        return {key: _pick(item, rest) for key, item in value.items()}
    return _pick(value[head], rest)


# --- content --------------------------------------------------------------------------------------------------


def _digest(path: Path) -> str | None:
    try:
        if not path.is_file():  # never wait on a pipe or a device
            return None
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (OSError, ValueError):
        return None


def _content_hashes(loaded: LoadedStudy, key: str) -> Iterator[tuple[str, str | None]]:
    """(name, sha256) of an input: a folder's files, or a manifest and the files that it names."""
    path = loaded.inputs[key]
    if path.is_dir():
        for file in sorted(each for each in path.rglob("*") if each.is_file()):
            yield file.relative_to(path).as_posix(), _digest(file)
        return
    if path.suffix == ".safetensors":
        yield path.name, _digest(path)
        return
    yield "manifest", _digest(path)
    images = loaded.study.images
    aside = key == "images.extra" and not (images and images.folder)
    folder = path.parent if aside else loaded.inputs[f"{key.split('.')[0]}.folder"]
    for name in _column(path, "file" if key == "stimuli.manifest" else "image"):
        yield name, _digest(folder / name)
    if key == "images.manifest" and images and images.mask:
        for name in _column(path, images.mask):
            yield name, _digest(folder / name)


def _column(manifest: Path, name: str) -> list[str]:
    """The text of one column of a manifest; nothing where it cannot be read, which ingest tells."""
    if manifest.suffix.lower() == ".parquet":
        from pyarrow import ArrowException, parquet

        try:
            return [
                str(value) for value in parquet.read_table(manifest, columns=[name]).column(0).to_pylist()
            ]
        except (ArrowException, OSError, IndexError):
            return []
    try:
        with manifest.open(encoding="utf-8-sig", newline="") as stream:
            rows = [[cell.strip() for cell in row] for row in csv.reader(stream)]
        column = rows[0].index(name)
        return [row[column] for row in rows[1:] if len(row) > column and row[column]]
    except (OSError, ValueError, IndexError, csv.Error):
        return []


class _Code:
    """Sources and their imports, each file read once."""

    def __init__(self) -> None:
        self.root = Path(contrafact.__file__).parent
        self.known: dict[Path, tuple[str, tuple[Path, ...]]] = {}

    def hashes(self, stage: Path) -> dict[str, str]:
        """sha256 of the stage's file and of every computing module that it reaches by imports."""
        reached: dict[Path, str] = {}
        waiting = [stage]
        while waiting:
            file = waiting.pop()
            if file not in reached:
                if file not in self.known:
                    raw = file.read_bytes()
                    imports = tuple(self._imports(raw)) if file.suffix == ".py" else ()
                    self.known[file] = hashlib.sha256(raw).hexdigest(), imports
                reached[file], imports = self.known[file]
                waiting.extend(imports)
        return {
            file.name if file == stage else str(file.relative_to(self.root)): reached[file]
            for file in sorted(reached)
        }

    def _imports(self, source: bytes) -> Iterator[Path]:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            else:
                continue
            for module in modules:
                yield from self._files(module.split("."))

    def _files(self, module: list[str]) -> Iterator[Path]:
        if module[0] != "contrafact" or len(module) < 2 or module[1] not in COMPUTING:
            return
        for depth in range(2, len(module) + 1):
            place = self.root.joinpath(*module[1:depth])
            if place.with_suffix(".py").is_file():
                yield place.with_suffix(".py")
            elif (place / "__init__.py").is_file():
                yield place / "__init__.py"
                # A package's page templates and tables are part of its source.
                yield from (
                    each for each in place.rglob("*") if each.suffix not in (".py", ".pyc") and each.is_file()
                )


# --- expectation ----------------------------------------------------------------------------------------------

# Rates of a 2-core machine without accelerator, images of 32 px with patches of 2, channels 64, 96, 128. They
# fall with the number of pixels and with the square of the channels. Set by the demo on an otherwise idle machine;
# they hold within a factor of 1.6 for photographs at 64 px. What goes with training and editing (guides for clean
# estimates, bisection of controls, secant steps) is in the rates.
RENDERED = 1_800.0  # images/s
DECODED = 60.0  # photographs/s, read, cropped and resized
PREDICTOR_STEPS = 2_400.0  # images/s through one predictor in training
TRAINED = 160.0  # images/s through the diffusion model in training
EDITED = 4.8  # stimuli/s at 10 steps
CARDS = 200.0  # stimuli/s read by judge and probes
ANSWERS = 5_000.0  # simulated answers/s
FIT_SECONDS = 2.0  # one mixed model
REPORT_SECONDS = 10.0

PREDICTOR_BYTES = 4_000_000  # one trained head
BYTES_PER_PARAMETER = 16  # weights, their average, two moments of the optimiser, 4 bytes each
PARAMETERS_PER_SQUARE = 118  # parameters of the network over the sum of squared channels


@dataclass(frozen=True)
class Expected:
    """What a stage is likely to take: seconds on 2 cores, bytes on disk, and money for a panel.

    Time in which people answer or review is not counted. ``currency`` belongs to ``money``.
    """

    stage: str
    seconds: float
    bytes: int
    money: float
    currency: str


def expected(loaded: LoadedStudy) -> tuple[Expected, ...]:
    """A rough forecast for every stage, from measured rates; good to a factor of two."""
    study = loaded.study
    size = study.images.size if study.images else 32
    delivered = (study.images.delivery or 0) if study.images else 0
    area = (size / 32) ** 2
    images = _count_images(loaded)
    stimuli = _count_stimuli(loaded)
    squares = sum(width**2 for width in study.model.channels)
    network = area * (2 / study.model.patch) ** 2 * squares / (64**2 + 96**2 + 128**2)
    steps = max((direction.edit.steps for direction in study.directions.values()), default=10)
    survey = study.survey
    answers = survey.participants * survey.trials_per_participant * len(survey.questions) if survey else 0
    simulated = bool(survey and survey.respondents)
    decoded = images / RENDERED * area if study.world else images / DECODED
    passes, heads = _predictor_passes(study, images)
    forecasts: dict[str, tuple[float, float]] = {
        "ingest": (decoded, images * size * size * 3),
        "predict": (passes / PREDICTOR_STEPS * area, heads * PREDICTOR_BYTES),
        "finetune": (
            study.model.images_seen / TRAINED * network,
            squares * PARAMETERS_PER_SQUARE * BYTES_PER_PARAMETER,
        ),
        "generate": (stimuli / EDITED * network * steps / 10, stimuli * (size**2 + delivered**2) * 2),
        "gate": (stimuli / CARDS * area, stimuli * 1_000),
        "field": (answers / ANSWERS if simulated else 0.0, answers * 200),
        "analyse": (len(study.hypotheses) * FIT_SECONDS, len(study.hypotheses) * 2_000),
        "report": (REPORT_SECONDS, 2_000_000),
    }
    currency = survey.pay.currency if survey else "GBP"
    return tuple(
        Expected(name, *_rounded(*forecasts[name]), _money(study) if name == "field" else 0.0, currency)
        for name in (STAGES if study.stimuli is None else STIMULI_STAGES)
    )


def _rounded(seconds: float, size: float) -> tuple[float, int]:
    return round(seconds, 1), int(size)


def _money(study: Study) -> float:
    """Pay and the panel's fee; simulated respondents cost nothing."""
    if study.survey is None or study.survey.respondents is not None:
        return 0.0
    pay = study.survey.pay
    return round(study.survey.participants * pay.minutes / 60 * pay.hourly * (1 + pay.fee_share), 2)


def _count_images(loaded: LoadedStudy) -> int:
    if loaded.study.world:
        return loaded.study.world.images
    named = {"images.manifest": "image", "images.extra": "image", "stimuli.manifest": "file"}
    return sum(len(_column(loaded.inputs[key], name)) for key, name in named.items() if key in loaded.inputs)


def _count_stimuli(loaded: LoadedStudy) -> int:
    study = loaded.study
    if study.stimuli:
        return _count_images(loaded)
    arms = 1 + study.arms.sham + (study.arms.placebo > 0)
    return study.arms.images * len(study.doses.grid) * arms * len(study.directions)


def _predictor_passes(study: Study, images: int) -> tuple[float, int]:
    """Images shown to predictors in training, and the number of trained heads."""
    splits = study.images.splits if study.images else None
    shares = (splits.train, splits.judge) if splits else (0.4, 0.32)
    held = any(direction.hold for direction in study.directions.values())
    parts = study.predictors
    trained: list[tuple[Predictor, float]] = [(parts.guide, shares[0]), (parts.judge, shares[1])]
    trained += [(parts.probe, share) for share in shares if held]
    return sum(one.heads * one.epochs * share * images for one, share in trained), sum(
        one.heads for one, _ in trained
    )
