"""A manifest is read whole or refused with every mistake, each at its line and column."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contrafact.errors import Mistakes, UserError
from contrafact.images import manifest
from contrafact.study.schema import Images

ASKED = Images.model_validate({
    "manifest": "m.csv",
    "unit_id": "person",
    "outcome": {"column": "smiling"},
    "covariates": {"age": {}, "gender": {"kind": "binary"}},
})
GOOD = [
    ["image", "person", "smiling", "age", "gender"],
    ["a.png", "001", "0", "24.5", "male"],
    ["b.png", "001", "1", "", "male"],
    ["c.png", "002", "0", "31", "female"],
    ["d.png", "002", "1", "31", ""],
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in "abcd":
        (tmp_path / f"{name}.png").write_bytes(b"")
    return tmp_path


def written(folder: Path, rows: list[list[str]], **how: Any) -> Path:
    path = folder / "m.csv"
    path.write_text("\n".join(",".join(row) for row in rows) + "\n", **how)
    return path


def changed(row: int, column: int, text: str) -> list[list[str]]:
    rows = [list(cells) for cells in GOOD]
    rows[row][column] = text
    return rows


def check(found: manifest.Manifest, folder: Path) -> None:
    assert found.rows["key"].tolist() == ["a.png", "b.png", "c.png", "d.png"]
    assert found.rows["unit_id"].tolist() == ["001", "001", "002", "002"], "leading zeros are part of a name"
    assert found.rows["outcome"].tolist() == [0, 1, 0, 1]
    assert found.rows["path"].tolist() == [folder.resolve() / f"{name}.png" for name in "abcd"]
    np.testing.assert_array_equal(found.covariates["age"], [24.5, np.nan, 31, 31])
    np.testing.assert_array_equal(found.covariates["gender"], [1, 1, 0, np.nan])
    assert found.words == {"gender": {"female": 0.0, "male": 1.0}}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_good_csv_is_typed(folder: Path, encoding: str) -> None:
    check(manifest.read(written(folder, GOOD, encoding=encoding), folder, ASKED), folder)


def test_a_good_parquet_is_typed(folder: Path) -> None:
    table = pd.DataFrame(GOOD[1:], columns=GOOD[0])
    table["age"] = [24.5, None, 31, 31]
    table["smiling"] = [False, True, False, True]
    table["gender"] = table["gender"].replace("", None)
    table.to_parquet(folder / "m.parquet")
    check(manifest.read(folder / "m.parquet", folder, ASKED), folder)


@pytest.mark.parametrize(
    ("row", "column", "text", "words"),
    [
        (0, 2, "smilin", "m.csv:1: smiling: found no such column.*Did you mean 'smilin'"),
        (0, 0, "file", "m.csv:1: image: found no such column"),
        (3, 0, "a.png", "m.csv:4: image: found 'a.png' a second time; allowed: each image once .line 2"),
        (3, 0, "./a.png", "m.csv:4: image: found './a.png' a second time"),
        (2, 0, "../a.png", "m.csv:3: image: found '../a.png', which leads out of the folder"),
        (2, 0, "/etc/hostname", "m.csv:3: image: found '/etc/hostname', which leads out"),
        (2, 0, "gone.png", "m.csv:3: image: found 'gone.png', but no such file"),
        (2, 0, "", "m.csv:3: image: found nothing"),
        (2, 1, "NA", "m.csv:3: person: found nothing"),
        (2, 1, "=HYPERLINK(1)", "m.csv:3: person: found .*spreadsheet formula"),
        (1, 2, "2", "m.csv:2: smiling: found '2'; allowed: 0 or 1"),
        (1, 2, "often", "m.csv:2: smiling: found 'often'"),
        (1, 2, "", "m.csv:2: smiling: found nothing; allowed: an outcome; unlabelled images belong in `images.extra`"),
        (1, 3, "old", "m.csv:2: age: found 'old'; allowed: a finite number"),
        (1, 3, "inf", "m.csv:2: age: found 'inf'"),
        (4, 4, "other", "m.csv:5: gender: found 3 levels"),
    ],
)
def test_each_mistake_has_its_line_and_column(folder: Path, row: int, column: int, text: str, words: str) -> None:
    with pytest.raises(Mistakes, match=words) as told:
        manifest.read(written(folder, changed(row, column, text)), folder, ASKED)
    assert len(told.value.mistakes) == 1, "one mistake is told once"


def test_all_mistakes_are_told_at_once(folder: Path) -> None:
    rows = changed(1, 3, "old")
    rows[3][0], rows[4][0] = "x.png", "y.png"
    with pytest.raises(Mistakes) as told:
        manifest.read(written(folder, rows), folder, ASKED)
    assert [(mistake.line, mistake.path) for mistake in told.value.mistakes] == [(2, "age"), (4, "image"), (5, "image")]


def test_one_level_is_refused(folder: Path) -> None:
    rows = [GOOD[0], *([*row[:2], "1", *row[3:]] for row in GOOD[1:])]
    with pytest.raises(Mistakes, match="smiling: found the one level 1 in every row"):
        manifest.read(written(folder, rows), folder, ASKED)
    rows = [GOOD[0], *([*row[:4], "male"] for row in GOOD[1:])]
    with pytest.raises(Mistakes, match="gender: found the one level"):
        manifest.read(written(folder, rows), folder, ASKED)


def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "secret.png"
    outside.write_bytes(b"")
    (folder / "a.png").unlink()
    (folder / "a.png").symlink_to(outside)
    with pytest.raises(Mistakes, match="'a.png', which leads out"):
        manifest.read(written(folder, GOOD), folder, ASKED)


def test_splits_by_unit(folder: Path) -> None:
    rows = [[*row, split] for row, split in zip(GOOD, ["split", "train", "", "judge", "judge"], strict=True)]
    assert manifest.read(written(folder, rows), folder, ASKED).given_split == {"001": "train", "002": "judge"}
    rows[2][-1] = "judge"
    with pytest.raises(Mistakes, match="m.csv:3: split: found unit '001' in `judge` and .line 2. in `train`"):
        manifest.read(written(folder, rows), folder, ASKED)
    rows[2][-1] = "trian"
    with pytest.raises(Mistakes, match="m.csv:3: split: found 'trian'.*Did you mean 'train'"):
        manifest.read(written(folder, rows), folder, ASKED)


def test_boxes(folder: Path) -> None:
    asked = ASKED.model_copy(update={"crop": "boxes"})
    boxes = [list(manifest.BOX), ["1", "2", "30", "40"], ["", "", "", ""], ["0", "0", "9", "9"], ["0", "0", "9", "9"]]
    rows = [a + b for a, b in zip(GOOD, boxes, strict=True)]
    found = manifest.read(written(folder, rows), folder, asked).boxes
    assert found is not None and found[0].tolist() == [1, 2, 30, 40] and np.isnan(found[1]).all()
    rows[3][-1] = "0"
    with pytest.raises(Mistakes, match="m.csv:4: box_left: found the box 0, 0, 9, 0"):
        manifest.read(written(folder, rows), folder, asked)


def test_extra_images_need_no_outcome(folder: Path) -> None:
    found = manifest.read_extra(written(folder, [["image"], ["a.png"], ["b.png"]]), folder, ASKED)
    assert found.rows["unit_id"].tolist() == ["a.png", "b.png"]


STIMULI = [
    ["stimulus", "image", "direction", "arm", "dose", "file"],
    ["s1", "x", "warm", "null", "0", "a.png"],
    ["s2", "x", "warm", "treated", "1", "b.png"],
    ["s3", "x", "warm", "sham", "1", "b.png"],
]


def test_finished_stimuli(folder: Path) -> None:
    found = manifest.read_stimuli(written(folder, STIMULI), folder)
    assert found["arm"].tolist() == ["null", "treated", "sham"] and found["dose"].tolist() == [0, 1, 1]
    assert found["unit_id"].tolist() == ["x"] * 3 and found["draw"].tolist() == [0] * 3
    assert found["path"].iloc[1] == found["path"].iloc[2] == folder.resolve() / "b.png"


@pytest.mark.parametrize(
    ("row", "column", "text", "words"),
    [
        (2, 0, "s1", "m.csv:3: stimulus: found s1 a second time; allowed: once .line 2"),
        (3, 3, "treated", "m.csv:4: image, direction, arm, dose: found x, warm, treated, 1 a second time"),
        (2, 3, "treted", "m.csv:3: arm: found 'treted'.*Did you mean 'treated'"),
        (2, 4, "", "m.csv:3: dose: found nothing"),
        (2, 4, "much", "m.csv:3: dose: found 'much'"),
        (1, 4, "1", "m.csv:2: dose: found 1; allowed: 0, because the arm is null"),
        (2, 5, "gone.png", "m.csv:3: file: found 'gone.png', but no such file"),
    ],
)
def test_mistakes_in_finished_stimuli(folder: Path, row: int, column: int, text: str, words: str) -> None:
    rows = [list(cells) for cells in STIMULI]
    rows[row][column] = text
    with pytest.raises(Mistakes, match=words) as told:
        manifest.read_stimuli(written(folder, rows), folder)
    assert len(told.value.mistakes) == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "image: found no such column|names no image"),
        (b"image,person,smiling,age,gender\n", "names no image"),
        (b"image,person\n'a,b\n\"x", "is not CSV|cells"),
        (b"image,person,image\na,b,c\n", "'image' stands there twice"),
        (b"image;person;smiling\na;b;c\n", "not separated by commas"),
        (b"image,person\na.png,1,2\n", "m.csv:2: the line has 3 cells, the header has 2"),
        ("image,person\nä.png,1\n".encode("latin-1"), "not UTF-8"),
    ],
)
def test_what_is_no_table_is_said_so(folder: Path, content: bytes, words: str) -> None:
    (folder / "m.csv").write_bytes(content)
    with pytest.raises(UserError, match=words):
        manifest.read(folder / "m.csv", folder, ASKED)


def test_a_folder_or_a_missing_file_or_no_parquet(folder: Path) -> None:
    with pytest.raises(UserError, match="is a folder.*begins with the line: image,person,smiling,age,gender"):
        manifest.read(folder, folder, ASKED)
    with pytest.raises(UserError, match="does not exist"):
        manifest.read(folder / "gone.csv", folder, ASKED)
    (folder / "m.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        manifest.read(folder / "m.parquet", folder, ASKED)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.text(max_size=6), min_size=5, max_size=5), min_size=1, max_size=4))
def test_whatever_stands_in_the_cells_only_user_errors_are_raised(
    tmp_path_factory: pytest.TempPathFactory, cells: list[list[str]]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    path = folder / "any.parquet"
    try:
        pd.DataFrame(cells, columns=GOOD[0]).to_parquet(path)
    except UnicodeEncodeError:
        return  # lone surrogates are no text to Parquet either
    with pytest.raises(UserError):
        manifest.read(path, folder, ASKED)
