"""The ingest stage with the real store, files and tracker: worlds, photographs, finished stimuli."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from contrafact import images, settings, study
from contrafact.errors import UserError
from contrafact.images import pack, worlds
from contrafact.run.context import Context
from contrafact.store import open_store
from contrafact.store.files import Files
from contrafact.tracking import Tracker

STAGE = Path(__file__).parents[1] / "pipelines" / "ingest.py"

HEAD = """
study: small
title: A small study
seed: 3
"""
TAIL = """
directions: {up: {edit: {steps: 2}}}
"""
WORLD = """
world: {kind: confounded, images: 300}
images: {size: 16, covariates: {skin: {}}}
"""
PHOTOS = """
images:
  manifest: photos/images.csv
  unit_id: person
  outcome: {column: smiling}
  covariates: {age: {}, gender: {kind: binary}}
  size: 16
  splits: {train: 0.3, judge: 0.3, validation: 0.2, stimuli: 0.15, lockbox: 0.05}
"""


class Bench:
    """A workspace in which studies can be ingested."""

    def __init__(self, folder: Path, tracker: Tracker, stage: Any) -> None:
        self.folder = folder
        self.settings = settings.read(folder / "workspace")
        self.settings.workspace.mkdir()
        self.store = open_store(self.settings.database_url)
        self.files = Files(self.settings.files_url)
        self.tracker, self.stage = tracker, stage

    def context(self, text: str, tail: str = TAIL, data: Path | None = None) -> Context:
        path = self.folder / "study.yaml"
        path.write_text(HEAD + text + tail)
        loaded = study.load(path, data=data)
        study_id = self.store.add_study(loaded.study.study, loaded.study.title, loaded.text, loaded.sha256)
        tracking = self.tracker.start("ingest")
        run_id = self.store.start_run(study_id, tracking)
        stage_run = self.store.start_stage(run_id, "ingest", "0" * 64, mlflow_run_id=tracking, code_version="test")
        work = self.folder / "work"
        work.mkdir(exist_ok=True)
        return Context(
            loaded=loaded, study_id=study_id, stage_run_id=stage_run, store=self.store, files=self.files,
            folder=work, upstream={}, settings=self.settings, tracker=self.tracker, tracking_run=tracking,
        )

    def photos(self, people: int = 60) -> pd.DataFrame:
        """Two pictures each, the manifest as it was written."""
        folder = self.folder / "photos"
        folder.mkdir(exist_ok=True)
        rng = np.random.default_rng(1)
        rows = []
        for k in range(people):
            for smiling in (0, 1):
                name = f"p{k:02d}_{smiling}.png"
                Image.fromarray(rng.integers(0, 255, (24, 20, 3), dtype=np.uint8)).save(folder / name)
                age = None if k == 5 else 20 + k
                rows.append((name, f"p{k:02d}", smiling, age, "female" if k % 2 else "male"))
        table = pd.DataFrame(rows, columns=["image", "person", "smiling", "age", "gender"])
        table.to_csv(folder / "images.csv", index=False)
        return table


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Tracker:
    """One for all: laying out MLflow's database takes seconds."""
    return Tracker(f"sqlite:///{tmp_path_factory.mktemp('tracking') / 'mlflow.db'}")


@pytest.fixture(scope="module")
def stage() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("contrafact_ingest_stage", STAGE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look their module up by name
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def bench(tmp_path: Path, tracker: Tracker, stage: ModuleType) -> Iterator[Bench]:
    bench = Bench(tmp_path, tracker, stage)
    yield bench
    bench.store.close()


def test_a_world_becomes_pixels_rows_and_the_truth(bench: Bench) -> None:
    context = bench.context(WORLD)
    facts = bench.stage.run(context)
    data = pack.load(bench.files, facts, lockbox=True)
    drawn = worlds.sample(context.study.world, context.study.seed)
    assert np.array_equal(data.images, worlds.render(drawn.factors, 16))
    np.testing.assert_array_equal(data.factors[list(worlds.FACTORS)], drawn.factors)
    np.testing.assert_array_equal(data.covariates["skin"], data.factors["skin"])
    assert np.array_equal(data.outcome, drawn.outcome)
    assert list(data.covariates) == ["skin"] and len(data.extra) == 0
    assert facts["images"] == facts["units"] == 300 == sum(facts["by_split"].values())

    rows = {image.key: image for image in context.store.images(context.study_id)}
    assert len(rows) == 300 - facts["by_split"]["lockbox"]
    for k in np.flatnonzero(data.split != "lockbox")[:100]:
        row = rows[data.key[k]]
        assert (row.split, row.outcome) == (data.split[k], data.outcome[k])
        assert row.covariates == {"skin": data.factors["skin"][k]}
        if row.split == "stimuli":
            assert np.array_equal(images.from_png(bench.files.get(row.pixels_sha256)), data.images[k])
        else:
            with pytest.raises(UserError, match="missing"):
                bench.files.get(row.pixels_sha256)


def test_the_lockbox_stays_shut(bench: Bench) -> None:
    facts = bench.stage.run(bench.context(WORLD))
    shut, opened = pack.load(bench.files, facts), pack.load(bench.files, facts, lockbox=True)
    assert "lockbox" not in shut.split and (opened.split == "lockbox").sum() == facts["by_split"]["lockbox"] > 0
    left = opened.split != "lockbox"
    assert np.array_equal(shut.images, opened.images[left]) and shut.factors.index.equals(pd.RangeIndex(left.sum()))


def test_doing_it_again_changes_nothing(bench: Bench) -> None:
    context = bench.context(WORLD)
    first = bench.stage.run(context)
    rows = context.store.images(context.study_id)
    assert bench.stage.run(context) == first
    assert context.store.images(context.study_id) == rows


def test_photographs(bench: Bench) -> None:
    table = bench.photos()
    context = bench.context(PHOTOS)
    facts = bench.stage.run(context)
    data = pack.load(bench.files, facts, lockbox=True)
    assert data.key.tolist() == table["image"].tolist() and data.images.shape == (120, 16, 16, 3)
    assert facts["units"] == 60 and facts["words"] == {"gender": {"female": 0.0, "male": 1.0}}
    assert np.isnan(data.covariates["age"][10]) and data.covariates["gender"][0] == 1
    assert all(len(set(data.split[data.unit_id == unit])) == 1 for unit in data.unit_id)
    row = next(image for image in context.store.images(context.study_id) if image.split == "train")
    assert (row.width, row.height) == (20, 24) and row.source_sha256 is not None
    assert facts["contact_sheet"] is None and facts["missed"] == []


def test_adding_images_moves_nobody(bench: Bench) -> None:
    bench.photos(60)
    before = pack.load(bench.files, bench.stage.run(bench.context(PHOTOS)), lockbox=True)
    bench.photos(70)
    after = pack.load(bench.files, bench.stage.run(bench.context(PHOTOS)), lockbox=True)
    assert len(after.key) == 140 and np.array_equal(after.split[:120], before.split)
    assert np.array_equal(after.images[:120], before.images)


def test_every_unreadable_file_is_named_and_nothing_is_written(bench: Bench) -> None:
    bench.photos()
    (bench.folder / "photos" / "p03_0.png").write_text("no picture")
    (bench.folder / "photos" / "p07_1.png").write_bytes((bench.folder / "photos" / "p07_0.png").read_bytes()[:200])
    context = bench.context(PHOTOS)
    with pytest.raises(UserError, match=r"(?s)2 images cannot be read.*p03_0\.png.*p07_1\.png"):
        bench.stage.run(context)
    assert context.store.images(context.study_id) == [] and not Path(bench.settings.workspace / "files").exists()


def test_one_picture_in_two_units_is_left_out_and_told(bench: Bench) -> None:
    bench.photos()
    folder = bench.folder / "photos"
    (folder / "p08_1.png").write_bytes((folder / "p01_0.png").read_bytes())
    facts = bench.stage.run(bench.context(PHOTOS))
    assert facts["missed"] == [{"image": "p08_1.png", "reason": "the same file as p01_0.png, of another unit"}]
    assert facts["images"] == 119


def test_boxes_cut_and_misses_stand_on_the_sheet(bench: Bench) -> None:
    table = bench.photos()
    table = table.assign(box_left=2, box_top=4, box_width=16, box_height=16)
    table.loc[3, "box_left"] = None
    table.loc[6, "box_top"] = 20
    table.to_csv(bench.folder / "photos" / "images.csv", index=False)
    facts = bench.stage.run(bench.context(PHOTOS + "  crop: boxes\n"))
    assert [one["image"] for one in facts["missed"]] == ["p01_1.png", "p03_0.png"]
    assert "no box" in facts["missed"][0]["reason"] and "outside" in facts["missed"][1]["reason"]
    data = pack.load(bench.files, facts, lockbox=True)
    whole = np.asarray(Image.open(bench.folder / "photos" / "p00_0.png"))
    assert np.array_equal(data.images[0], whole[4:20, 2:18]), "a box of the study's size is taken pixel by pixel"
    assert images.from_png(bench.files.get(facts["contact_sheet"])).shape[2] == 3


def test_extra_images_leave_out_who_must_not_be_seen(bench: Bench) -> None:
    bench.photos()
    folder = bench.folder / "photos"
    fresh = np.random.default_rng(2).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(fresh).save(folder / "fresh.png")
    data = pack.load(bench.files, bench.stage.run(bench.context(PHOTOS)), lockbox=True)
    extra = pd.DataFrame({"image": ["fresh.png", *data.key]})
    extra.to_csv(folder / "extra.csv", index=False)
    facts = bench.stage.run(bench.context(PHOTOS + "  extra: photos/extra.csv\n"))
    train = int((data.split == "train").sum())
    assert facts["extra_images"] == 1 + train and len(facts["extra_missed"]) == 120 - train
    found = pack.load(bench.files, facts).extra
    assert np.array_equal(found[0], fresh) and np.array_equal(found[1:], data.images[data.split == "train"])


def test_too_few_images_for_the_splits(bench: Bench) -> None:
    bench.photos(8)
    context = bench.context(PHOTOS)
    with pytest.raises(UserError, match="too few images for the splits"):
        bench.stage.run(context)
    assert context.store.images(context.study_id) == []


FINISHED = """
stimuli: {manifest: photos/stimuli.csv}
survey:
  questions: [{name: warm, text: How warm is it?}]
hypotheses:
  - {id: H1, claim: Warmer is warmer., direction: warm, question: warm, arm: treated-sham, primary: true}
"""


def finished(bench: Bench, arms: tuple[str, ...] = ("treated", "sham")) -> None:
    bench.photos(4)
    rows = []
    for k in range(2):
        for arm in ("null", *arms):
            for dose in (-1, 1) if arm != "null" else (0,):
                name = f"p{len(rows) % 4:02d}_{k}.png"
                rows.append((f"s{len(rows)}", f"scene{k}", "warm", arm, dose, name))
    columns = ["stimulus", "image", "direction", "arm", "dose", "file"]
    pd.DataFrame(rows, columns=columns).to_csv(bench.folder / "photos" / "stimuli.csv", index=False)


def test_finished_stimuli_are_kept_as_they_are(bench: Bench) -> None:
    finished(bench)
    context = bench.context(FINISHED, tail="")
    facts = bench.stage.run(context)
    assert facts == {"images": 2, "units": 2, "stimuli": 10}
    table = context.store.stimuli_table(context.study_id)
    assert table["set_key"].value_counts().to_dict() == {"warm/scene0": 5, "warm/scene1": 5}
    for row in table.itertuples():
        assert images.from_png(bench.files.get(row.pixels_sha256)).shape == (24, 20, 3)
    null = table[table["arm"] == "null"].set_index("image")["pixels_sha256"].to_dict()
    own = {image.key: image.pixels_sha256 for image in context.store.images(context.study_id)}
    assert own == null, "an image without a raw stimulus is shown by its dose 0"


def test_a_hypothesis_on_an_arm_that_no_stimulus_has(bench: Bench) -> None:
    finished(bench, arms=("treated",))
    context = bench.context(FINISHED, tail="")
    with pytest.raises(UserError, match="H1 asks for the arm sham of the direction warm"):
        bench.stage.run(context)
    assert context.store.stimuli_table(context.study_id).empty


def test_real_faces_end_to_end(bench: Bench) -> None:
    data = Path(os.environ.get("CONTRAFACT_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (data / "london" / "images.csv").exists():
        pytest.skip("the London faces are not here")
    table = pd.read_csv(data / "london" / "images.csv", dtype={"person_id": str}).iloc[:24]
    split = ["train"] * 5 + ["judge"] * 4 + ["validation"] * 2 + ["stimuli"]
    table["split"] = [name for name in split for _ in range(2)]
    table.to_csv(bench.folder / "few.csv", index=False)
    text = """
images:
  manifest: few.csv
  folder: $CONTRAFACT_DATA/london
  unit_id: person_id
  outcome: {column: smiling}
  covariates: {age: {}, gender: {kind: binary, protected: true}}
  size: 64
  crop: face
"""
    context = bench.context(text, data=data)
    least = dict.fromkeys(bench.stage.splits.MINIMUM_UNITS, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench.stage.splits, "MINIMUM_UNITS", least)
        facts = bench.stage.run(context)
    assert facts["missed"] == [] and facts["images"] == 24 and facts["contact_sheet"]
    assert facts["by_split"] == {"train": 10, "judge": 8, "validation": 4, "stimuli": 2, "lockbox": 0}


def test_masks_are_cut_with_their_pictures(bench: Bench) -> None:
    table = bench.photos()
    folder = bench.folder / "photos"
    white = np.zeros((24, 20, 3), np.uint8)
    white[12:] = 255
    Image.fromarray(white).save(folder / "mask.png")
    table.assign(mask="mask.png").to_csv(folder / "images.csv", index=False)
    text = PHOTOS.replace("  size: 16\n", "  size: 16\n  mask: mask\n  delivery: 32\n")
    tail = "\ndirections: {up: {edit: {steps: 2, mask: manifest}}}\n"
    context = bench.context(text, tail)
    facts = bench.stage.run(context)
    assert set(facts["masks"]) == {one.key for one in bench.store.images(context.study_id, split="stimuli")}
    (sha,) = set(facts["masks"].values())
    cut = images.decode.from_png(bench.files.get(sha))
    assert cut.shape == (32, 32, 3) and not cut[:16].any() and (cut[16:] == 255).all()

    Image.fromarray(white[:20]).save(folder / "mask.png")
    with pytest.raises(UserError, match=r"mask.png has 20 x 20 pixels, its picture p\d\d_\d.png 20 x 24"):
        bench.stage.run(bench.context(text, tail))
    Image.fromarray(white * 0).save(folder / "mask.png")
    with pytest.raises(UserError, match="black in the whole crop"):
        bench.stage.run(bench.context(text, tail))
    with pytest.raises(UserError, match="images.mask"):
        bench.context(PHOTOS, tail)
