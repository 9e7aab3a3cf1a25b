"""A stage is done again exactly when something that it reads has changed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from contrafact import bundle, study
from contrafact.study.plan import _OF_STIMULI, STAGES, STIMULI_STAGES, _Code

WORLD = """\
study: planned
title: A planned study
world: {kind: confounded, images: 2000}
images: {covariates: {skin: {}, brow: {}}}
directions:
  up: {hold: [skin, brow]}
survey:
  participants: 30
  questions:
    - {name: trust, text: How trustworthy?}
  respondents: {reads: groom}
hypotheses:
  - {id: H1, claim: It raises trust., direction: up, question: trust, primary: true}
"""
PHOTOS = """\
study: photos
title: Photographs
images: {manifest: images.csv, size: 64}
directions: {up: {}}
survey:
  participants: 100
  questions:
    - {name: trust, text: How trustworthy?}
  pay: {hourly: 12, minutes: 10, fee_share: 0.25, currency: EUR}
"""
STIMULI = """\
study: finished
title: Finished stimuli
stimuli: {manifest: stimuli.csv}
survey:
  questions:
    - {name: trust, text: How trustworthy?}
hypotheses:
  - {id: H1, claim: It raises trust., direction: up, question: trust, primary: true}
"""


@pytest.fixture
def pipelines(tmp_path: Path) -> Path:
    """Stages whose sources may be changed without harm."""
    folder = tmp_path / "pipelines"
    folder.mkdir()
    for name in STAGES:
        (folder / f"{name}.py").write_text(f'"""{name}."""\n')
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "images.csv").write_text("image,unit_id,outcome\na.png,1,0\nb.png,2,1\n")
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(name.encode())
    path = tmp_path / "photos.yaml"
    path.write_text(PHOTOS)
    return path


def hashes(path: Path, pipelines: Path, text: str | None = None) -> dict[str, str]:
    if text is not None:
        path.write_text(text)
    return {stage.name: stage.hash for stage in study.plan(study.load(path), pipelines=pipelines)}


def first_changed(before: dict[str, str], after: dict[str, str]) -> str | None:
    """The first stage to be done again; every later one that follows from it must change too."""
    changed = [name for name in before if before[name] != after[name]]
    for name in changed:
        followers = [other for other, stage in STAGES.items() if name in stage.upstream]
        assert set(followers) <= set(changed)
    return changed[0] if changed else None


EDITS = {
    "comment": ("study: planned", "# why not\nstudy: planned", None),
    "default_written_out": ("title:", "seed: 1\ntitle:", None),
    "seed": ("title:", "seed: 2\ntitle:", "ingest"),
    "images": ("images: 2000", "images: 3000", "ingest"),
    "size": ("images: {cov", "images: {size: 64, cov", "ingest"),
    "guide": ("directions:", "predictors: {guide: {heads: 2}}\ndirections:", "predict"),
    "hold": ("hold: [skin, brow]", "hold: [skin]", "finetune"),
    "order_of_hold": ("hold: [skin, brow]", "hold: [brow, skin]", "finetune"),
    "support": ("directions:", "doses: {support: [0.01, 0.99]}\ndirections:", "predict"),
    "model": ("directions:", "model: {images_seen: 9}\ndirections:", "finetune"),
    "depth": ("hold: [skin, brow]", "hold: [skin, brow], edit: {depth: 0.5}", "generate"),
    "grid": ("directions:", "doses: {grid: [-1, 0, 1]}\ndirections:", "generate"),
    "placebo": ("directions:", "arms: {placebo: 3}\ndirections:", "generate"),
    "gate": ("directions:", "gate: {realism: 3}\ndirections:", "gate"),
    "reads": ("reads: groom", "reads: skin", "gate"),
    "slope": ("reads: groom", "reads: groom, slope: 3", "field"),
    "question_text": ("How trustworthy?", "How honest?", "field"),
    "review": ("directions:", "review: {required: true}\ndirections:", "field"),
    "alpha": ("primary: true", "primary: true, alpha: 0.01", "field"),
    "title": ("A planned study", "Another title", "report"),
}


@pytest.mark.parametrize(("old", "new", "expected"), EDITS.values(), ids=EDITS.keys())
def test_a_change_reaches_the_stages_that_read_it(
    tmp_path: Path, pipelines: Path, old: str, new: str, expected: str | None
) -> None:
    path = tmp_path / "study.yaml"
    assert old in WORLD
    before = hashes(path, pipelines, WORLD)
    assert list(before) == list(STAGES)
    assert first_changed(before, hashes(path, pipelines, WORLD.replace(old, new))) == expected


def test_a_change_of_one_branch_leaves_the_other(tmp_path: Path, pipelines: Path) -> None:
    path = tmp_path / "study.yaml"
    before = hashes(path, pipelines, WORLD)
    after = hashes(path, pipelines, WORLD + "model: {images_seen: 9}\n")
    assert after["predict"] == before["predict"]
    (pipelines / "gate.py").write_text("changed = True\n")
    assert first_changed(after, hashes(path, pipelines)) == "gate"


def test_the_content_of_images_counts_not_their_place(photos: Path, pipelines: Path, tmp_path: Path) -> None:
    before = hashes(photos, pipelines)
    (photos.parent / "b.png").write_bytes(b"other pixels")
    changed = hashes(photos, pipelines)
    assert first_changed(before, changed) == "ingest"
    (photos.parent / "b.png").unlink()
    assert hashes(photos, pipelines)["ingest"] not in (before["ingest"], changed["ingest"])
    (photos.parent / "b.png").write_bytes(b"b.png")
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in ("images.csv", "a.png", "b.png", "photos.yaml"):
        (photos.parent / name).rename(moved / name)
    assert hashes(moved / "photos.yaml", pipelines) == before


def test_a_parquet_manifest_names_its_images_too(photos: Path, pipelines: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pandas.read_csv(photos.parent / "images.csv").to_parquet(photos.parent / "images.parquet")
    before = hashes(photos, pipelines, PHOTOS.replace("images.csv", "images.parquet"))
    (photos.parent / "a.png").write_bytes(b"other pixels")
    assert first_changed(before, hashes(photos, pipelines)) == "ingest"


def test_a_model_to_start_from_counts_by_its_files(tmp_path: Path, pipelines: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "weights").write_bytes(b"1")
    path = tmp_path / "study.yaml"
    before = hashes(path, pipelines, WORLD + "model: {start: base}\n")
    (tmp_path / "base" / "weights").write_bytes(b"2")
    assert first_changed(before, hashes(path, pipelines)) == "finetune"


def test_finished_stimuli_skip_the_models(tmp_path: Path, pipelines: Path) -> None:
    (tmp_path / "stimuli.csv").write_text("stimulus,image,direction,arm,dose,file\ns,i,up,treated,1,s.png\n")
    path = tmp_path / "study.yaml"
    path.write_text(STIMULI)
    stages = study.plan(study.load(path), pipelines=pipelines)
    assert [(stage.name, stage.upstream) for stage in stages] == [
        ("ingest", ()),
        ("field", ("ingest",)),
        ("analyse", ("field",)),
        ("report", ("analyse",)),
    ]
    before = {stage.name: stage.hash for stage in stages}
    (tmp_path / "s.png").write_bytes(b"pixels")
    after = hashes(path, pipelines)
    assert all(after[name] != before[name] for name in before)
    retold = hashes(path, pipelines, STIMULI.replace("direction: up", "direction: down"))
    assert retold["ingest"] != after["ingest"]


def test_the_source_of_a_stage_is_its_file_and_what_it_imports(tmp_path: Path) -> None:
    stage = tmp_path / "predict.py"
    stage.write_text(
        "from contrafact.images import worlds\nfrom contrafact import seeds, settings\nimport json\n"
    )
    reached = set(_Code().hashes(stage))
    assert {"predict.py", "images/__init__.py", "images/worlds.py", "seeds.py"} <= reached
    assert not [
        name for name in reached if name.split("/")[0] in ("study", "store", "settings.py", "errors.py")
    ]
    assert not [name for name in reached if name.split("/")[0] in ("diffusion", "stats")]


def test_stages_read_no_section_that_their_hash_leaves_out() -> None:
    # A stage may read what its upstream has hashed: the seed and the images reach all of them through ingest.
    def covered(name: str) -> set[str]:
        stages = [plan[name] for plan in (STAGES, _OF_STIMULI) if name in plan]
        own = {section.split(".")[0] for stage in stages for section in stage.sections}
        return own.union(*(covered(above) for stage in stages for above in stage.upstream))

    sections = set(study.Study.model_fields)
    for file in bundle.folder("pipelines").glob("[a-z]*.py"):
        read = set(re.findall(r"\bstudy\.(\w+)", file.read_text(encoding="utf-8"))) & sections
        # The slug is a label of the study as a whole: another slug is another study.
        assert read - {"study"} <= covered(file.stem), file.stem


# --- expectation ----------------------------------------------------------------------------------------------


def test_the_forecast_of_a_rendered_study(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(WORLD)
    forecast = {one.stage: one for one in study.expected(study.load(path))}
    assert list(forecast) == list(STAGES)
    assert forecast["finetune"].seconds == pytest.approx(110_000 / 160, abs=0.1)
    assert sum(one.money for one in forecast.values()) == 0
    path.write_text(WORLD.replace("images: {cov", "images: {size: 64, cov"))
    assert study.expected(study.load(path))[2].seconds == pytest.approx(4 * 110_000 / 160)


def test_people_are_paid_and_the_panel_takes_its_fee(photos: Path) -> None:
    forecast = {one.stage: one for one in study.expected(study.load(photos))}
    assert forecast["field"].money == pytest.approx(100 * 10 / 60 * 12 * 1.25)
    assert forecast["field"].currency == "EUR"
    assert forecast["field"].seconds == 0


def test_finished_stimuli_are_forecast_by_their_number(tmp_path: Path) -> None:
    (tmp_path / "stimuli.csv").write_text("stimulus,image,direction,arm,dose,file\ns,i,up,treated,1,s.png\n")
    path = tmp_path / "study.yaml"
    path.write_text(STIMULI)
    forecast = study.expected(study.load(path))
    assert tuple(one.stage for one in forecast) == STIMULI_STAGES
    assert forecast[0].seconds < 1
