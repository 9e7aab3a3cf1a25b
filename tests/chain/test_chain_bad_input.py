"""What a user can get wrong, through the real program: exit 2, one clear sentence with the mend, nothing half-written."""

from __future__ import annotations

import csv
import sqlite3
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contrafact.images import decode

PHOTOS = """\
study: tiny
title: Photographs of seconds
images:
  manifest: photos/images.csv
  outcome: {column: smiling, kind: binary}
  covariates: {age: {kind: continuous}, gender: {kind: binary, protected: true}}
  size: 16
directions: {smile: {kind: guidance, hold: [age]}}
model: {channels: [16, 16], patch: 4}
"""


@dataclass
class Album:
    """A study of 60 grey photographs of 60 people, to be spoilt."""

    folder: Path
    text: str = PHOTOS
    rows: list[dict[str, object]] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.folder / "photos").mkdir(parents=True)
        for k in range(60):
            name = f"{k:02d}.png"
            (self.folder / "photos" / name).write_bytes(decode.png_bytes(np.full((16, 16, 3), k, np.uint8)))
            self.rows.append(
                {"image": name, "unit_id": f"p{k}", "smiling": k % 2, "age": 20 + k, "gender": "fm"[k % 3 > 0]}
            )

    def picture(self, k: int) -> Path:
        return self.folder / "photos" / f"{k:02d}.png"

    def write(self) -> Path:
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        with (self.folder / "photos" / "images.csv").open("w", newline="") as stream:
            table = csv.DictWriter(stream, names, restval="")
            table.writeheader()
            table.writerows(self.rows)
        path = self.folder / "photos.yaml"
        path.write_text(self.text)
        return path


@pytest.fixture
def album(tmp_path: Path) -> Album:
    return Album(tmp_path / "album")


def nothing_written(chain: Any) -> None:
    """No report, and not a row of what the refused stage would have made."""
    assert not chain.report().exists()
    if not (chain.workspace / "store.db").exists():
        return
    with sqlite3.connect(chain.workspace / "store.db") as database:
        for table in ("image", "model", "stimulus", "registration", "batch", "rating", "statement"):
            assert database.execute(f"select count(*) from {table}").fetchone() == (0,), table
        states = database.execute("select stage, status from stage_run").fetchall()
    assert all(status == "failed" for _, status in states), states


# --- the study file ---------------------------------------------------------------------------------------------

SPOILT: dict[str, tuple[tuple[tuple[str, str], ...], tuple[str, ...]]] = {
    "unknown key": ((("doses:", "dosses:"),), ("variant.yaml:20: dosses", "Did you mean 'doses'")),
    "wrong type": ((("participants: 8", "participants: many"),), ("survey.participants", "'many'")),
    "protected attribute as a target": (
        (("    hold: [skin]\n", "    target: skin\n"),),
        ("directions.outcome.target", "'skin', a protected attribute", "audit"),
    ),
    "hypothesis on an arm that is off": (
        (("sham: true", "sham: false"),),
        ("hypotheses[0].arm", "treated-sham", "the sham arm is off"),
    ),
    "hypothesis on an arm that is none": (
        (("arm: treated-sham", "arm: shame"),),
        ("hypotheses[0].arm", "'shame'", "Did you mean 'sham'"),
    ),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_a_spoilt_study_file(kind: str, fresh: Any, changed: Callable[..., Path]) -> None:
    changes, words = SPOILT[kind]
    fresh.refused(changed(*changes), *words)
    assert not fresh.workspace.exists(), "a study that is not right leaves no trace"


def test_a_study_file_that_is_not_there(fresh: Any, tmp_path: Path) -> None:
    fresh.refused(tmp_path / "nowhere.yaml", "nowhere.yaml")
    assert not fresh.workspace.exists()


def test_a_manifest_that_is_not_there(fresh: Any, album: Album) -> None:
    study = album.write()
    (album.folder / "photos" / "images.csv").unlink()
    fresh.refused(study, "photos.yaml:4: images.manifest", "images.csv")
    assert not fresh.workspace.exists()


# --- photographs and their manifest -----------------------------------------------------------------------------


def test_a_picture_that_is_not_there(fresh: Any, album: Album) -> None:
    album.picture(7).unlink()
    fresh.refused(album.write(), "images.csv:9: image", "07.png", "no such file")
    nothing_written(fresh)


def test_a_picture_that_cannot_be_decoded(fresh: Any, album: Album) -> None:
    album.picture(7).write_bytes(b"not a picture at all")
    album.picture(9).write_bytes(album.picture(9).read_bytes()[:50])
    fresh.refused(album.write(), "2 images cannot be read", "07.png", "Save it as", "09.png", "cut off")
    nothing_written(fresh)


def test_a_decompression_bomb(fresh: Any, album: Album) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
    content = zlib.compress(bytes(1000))
    album.picture(7).write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")
    )
    fresh.refused(album.write(), "07.png", "pixels", "At most 50,000,000 are decoded")
    nothing_written(fresh)


def test_an_image_that_is_named_twice(fresh: Any, album: Album) -> None:
    album.rows[30]["image"] = "05.png"
    fresh.refused(album.write(), "images.csv:32: image", "'05.png' a second time", "line 7")
    nothing_written(fresh)


def test_an_outcome_with_one_level(fresh: Any, album: Album) -> None:
    for row in album.rows:
        row["smiling"] = 1
    fresh.refused(album.write(), "images.csv", "smiling", "the one level 1", "at least two levels")
    nothing_written(fresh)


def test_a_unit_in_two_splits(fresh: Any, album: Album) -> None:
    for row in album.rows[:2]:
        row["unit_id"] = "p0"
    album.rows[0]["split"], album.rows[1]["split"] = "train", "judge"
    fresh.refused(album.write(), "images.csv:3: split", "'p0'", "one split a unit")
    nothing_written(fresh)


def test_too_few_images_for_the_splits(fresh: Any, album: Album) -> None:
    del album.rows[12:]
    fresh.refused(album.write(), "too few images for the splits", "`train` holds", "needs 10", "images.splits")
    nothing_written(fresh)


# --- the database -----------------------------------------------------------------------------------------------


def test_a_database_that_another_process_locks(fresh: Any, album: Album) -> None:
    assert fresh.tell("db", "upgrade").code == 0
    lock = sqlite3.connect(fresh.workspace / "store.db", isolation_level=None)
    lock.execute("begin immediate")
    try:
        fresh.refused(album.write(), "store.db", "is locked by another process", "Wait for it")
    finally:
        lock.close()
    nothing_written(fresh)


def test_a_database_that_cannot_be_reached(fresh: Any, album: Album) -> None:
    address = "postgresql://ann:hush@127.0.0.1:1/nowhere"
    said = fresh.refused(
        album.write(), "127.0.0.1:1/nowhere cannot be reached", "Check CONTRAFACT_DATABASE_URL",
        CONTRAFACT_DATABASE_URL=address,
    )  # fmt: skip
    assert "hush" not in said
    assert not fresh.report().exists()


def test_a_database_from_a_later_version(fresh: Any, album: Album) -> None:
    assert fresh.tell("db", "upgrade").code == 0
    with sqlite3.connect(fresh.workspace / "store.db") as database:
        database.execute("update alembic_version set version_num = 'from_the_future'")
    fresh.refused(album.write(), "newer than this version of contrafact", "from_the_future", "Update contrafact")
    nothing_written(fresh)
