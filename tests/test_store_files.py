"""Files by content: what is put is what is got, under one name, whole or not at all."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from contrafact.errors import UserError
from contrafact.store.files import Files


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files((tmp_path / "kept files").as_uri())


def all_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_content_comes_back_under_its_hash(files: Files, tmp_path: Path) -> None:
    for content in (b"", b"picture", bytes(range(256)) * 999):
        assert files.put(content) == files.put(content) == hashlib.sha256(content).hexdigest()
        assert files.get(hashlib.sha256(content).hexdigest()) == content
    assert len(all_files(tmp_path)) == 3, "no drafts, nothing twice"


def test_a_folder_comes_back_as_it_was(files: Files, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "unet").mkdir(parents=True)
    (folder / "unet" / "weights").write_bytes(b"weights")
    (folder / "config.json").write_text("{}")
    digest = files.put_folder(folder)
    into = tmp_path / "back"
    into.mkdir()
    (into / "left over").write_text("from before")
    assert files.get_folder(digest, into) == into
    assert {path.relative_to(into).as_posix(): path.read_bytes() for path in all_files(into)} == {
        "unet/weights": b"weights",
        "config.json": b"{}",
    }
    assert files.put_folder(into) == digest
    (into / "config.json").write_text("{} ")
    assert files.put_folder(into) != digest


@pytest.mark.parametrize("name", ["", "abc", "../../../etc/passwd", "A" * 64, "g" * 64, "a" * 65])
def test_a_name_is_a_hash(files: Files, name: str) -> None:
    with pytest.raises(ValueError, match="64 hex digits"):
        files.get(name)


def test_damage_and_loss_are_told(files: Files, tmp_path: Path) -> None:
    digest = files.put(b"picture")
    all_files(tmp_path)[0].write_bytes(b"pictore")
    with pytest.raises(UserError, match="is damaged"):
        files.get(digest)
    with pytest.raises(UserError, match="is missing"):
        files.get("a" * 64)


def test_a_listing_cannot_leave_its_folder(files: Files, tmp_path: Path) -> None:
    listing = files.put(b'{"../outside": "%s"}' % files.put(b"x").encode())
    with pytest.raises(UserError, match="outside itself"):
        files.get_folder(listing, tmp_path / "into")
    assert not (tmp_path / "outside").exists() and not (tmp_path / "into").exists()


def test_a_place_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match="cannot be written"):
        Files((tmp_path / "file" / "in it").as_uri()).put(b"x")
    with pytest.raises(UserError, match="cannot be kept"):
        Files("gopher://x")


def test_memory_and_disk_are_the_same_to_fsspec() -> None:
    files = Files("memory://contrafact-test")
    assert files.get(files.put(b"picture")) == b"picture"
