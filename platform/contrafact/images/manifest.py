"""The table that names a study's images: read, checked as a whole, and typed."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from contrafact.errors import Mistake, Mistakes, UserError, nearest
from contrafact.study.schema import ARMS, SPLITS, Images

IMAGE = "image"
BOX = ("box_left", "box_top", "box_width", "box_height")
STIMULI = (IMAGE, "stimulus", "direction", "arm", "dose", "file")
UNKNOWN = frozenset({"", "na", "n/a", "nan", "null", "none"})  # compared in lower case
TRUTH = {"false": 0.0, "true": 1.0}


@dataclass(frozen=True)
class Manifest:
    """One row an image, in the file's order.

    ``rows`` has ``key`` (the text in the column ``image``), ``unit_id``, ``outcome`` (float64), ``path`` and, where
    the study names a column of masks, ``mask`` (a path too);
    ``covariates`` the declared ones as float64, NaN where unknown; ``boxes`` (n, 4) left, top, width, height in
    pixels, or None; ``given_split`` unit to split for units whose role the file states; ``words`` covariate to
    the words that were read as 0 and 1.
    """

    rows: pd.DataFrame
    covariates: pd.DataFrame
    boxes: np.ndarray | None = None
    given_split: dict[str, str] = field(default_factory=dict)
    words: dict[str, dict[str, float]] = field(default_factory=dict)


def header(images: Images) -> list[str]:
    """The columns that a study asks of its manifest."""
    boxes = BOX if images.crop == "boxes" else ()
    masks = (images.mask,) if images.mask else ()
    return [IMAGE, images.unit_id, images.outcome.column, *images.covariates, *boxes, *masks]


def read(path: Path, folder: Path, images: Images) -> Manifest:
    """The labelled images of a study; raises Mistakes with everything that is wrong, by line and column."""
    table = _Table(path, header(images))
    table.require(header(images))
    rows = table.identified(folder, images.unit_id)
    outcome = table.outcome(images.outcome.column, images.outcome.kind)
    covariates, words = {}, {}
    for name, covariate in images.covariates.items():
        if covariate.kind == "binary":
            covariates[name], words[name] = table.binary(name)
        else:
            covariates[name] = table.numbers(name)
        table.require_variation(name, covariates[name])
    boxes = table.boxes() if images.crop == "boxes" else None
    given = table.given_split(rows["unit_id"])
    masks = table.paths(images.mask, folder, once=False) if images.mask and table.names(images.mask) else None
    table.finish()
    rows.insert(2, "outcome", outcome)
    if masks is not None:
        rows = rows.assign(mask=pd.Series(masks, index=rows.index, dtype=object))
    mapped = {name: levels for name, levels in words.items() if levels}
    return Manifest(rows, pd.DataFrame(covariates, index=rows.index), boxes, given, mapped)


def read_extra(path: Path, folder: Path, images: Images) -> Manifest:
    """Unlabelled images: `image`, the unit where it is known (else the image is its own), boxes where cropped."""
    wanted = [IMAGE, *(BOX if images.crop == "boxes" else ())]
    table = _Table(path, wanted)
    table.require(wanted)
    rows = table.identified(folder, images.unit_id if images.unit_id in table.columns else IMAGE)
    boxes = table.boxes() if images.crop == "boxes" else None
    table.finish()
    return Manifest(rows, pd.DataFrame(index=rows.index), boxes)


def read_stimuli(path: Path, folder: Path) -> pd.DataFrame:
    """Finished stimuli: ``stimulus``, ``image``, ``unit_id`` (the image where no such column is), ``direction``,
    ``arm``, ``dose`` (SD), ``draw`` (0 where no such column is) and ``path``, in the file's order."""
    table = _Table(path, list(STIMULI))
    table.require(list(STIMULI))
    unit = "unit_id" if "unit_id" in table.columns else IMAGE
    names = {name: table.names(name) for name in dict.fromkeys(["stimulus", IMAGE, unit, "direction", "file"])}
    names["arm"] = table.columns["arm"]  # where `null` is a word, not an empty cell
    for row, arm in enumerate(names["arm"]):
        if arm not in ARMS:
            table.wrong(row, "arm", repr(arm), ", ".join(ARMS), nearest(arm, ARMS))
    paths = table.paths("file", folder, once=False)
    dose = table.numbers("dose")
    draw = table.numbers("draw") if "draw" in table.columns else np.zeros(len(dose))
    for row in map(int, np.flatnonzero(np.isnan(dose))):
        if table.columns["dose"][row].lower() in UNKNOWN:
            table.wrong(row, "dose", "nothing", "the dose in SD")
    for row in map(int, np.flatnonzero((dose != 0) & np.isin(names["arm"], ("null", "raw")))):
        table.wrong(row, "dose", table.columns["dose"][row], f"0, because the arm is {names['arm'][row]}")
    for row in map(int, np.flatnonzero((draw < 0) | (draw % 1 != 0))):
        table.wrong(row, "draw", table.columns["draw"][row] or "nothing", "0, 1, 2 ...")
    table.once(["stimulus"])
    table.once([IMAGE, "direction", "arm", "dose", *(["draw"] if "draw" in table.columns else [])])
    table.finish()
    named = {name: names[name] for name in ("stimulus", IMAGE, "direction", "arm")}
    return pd.DataFrame(named | {"unit_id": names[unit], "dose": dose, "draw": draw.astype(int), "path": paths})


class _Table:
    """A manifest as text cells, and the mistakes found in it so far."""

    def __init__(self, path: Path, wanted: list[str]) -> None:
        self.path = path
        self.mistakes: list[Mistake] = []
        if path.is_dir():
            raise UserError(
                f"{path} is a folder, not a manifest.",
                hint=f"Write a CSV file that begins with the line: {','.join(wanted)}",
            )
        if not path.exists():
            raise UserError(f"The manifest {path} does not exist.", hint="Mend `images.manifest` in the study file.")
        read = _parquet if path.suffix.lower() in (".parquet", ".pq") else _csv
        names, self.lines, cells = read(path)
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise UserError(f"{path}: the column '{twice[0]}' stands there twice.", hint="Rename or remove one.")
        self.columns = {name: [row[k] for row in cells] for k, name in enumerate(names)}
        if not cells:
            raise UserError(f"{path} names no image.", hint="Write one line for each image below the header.")

    def wrong(self, row: int, column: str, found: str, allowed: str, near: str | None = None) -> None:
        self.mistakes.append(Mistake(str(self.path), self.lines[row], column, found, allowed, near))

    def finish(self) -> None:
        if self.mistakes:
            raise Mistakes(sorted(self.mistakes, key=lambda mistake: mistake.line))

    def require(self, names: list[str]) -> None:
        for name in names:
            if name not in self.columns:
                known = ", ".join(self.columns)
                self.mistakes.append(
                    Mistake(str(self.path), 1, name, "no such column", f"a column of that name (there are: {known})",
                            nearest(name, self.columns))
                )
        self.finish()  # nothing more can be said about columns that are not there

    def identified(self, folder: Path, unit_column: str) -> pd.DataFrame:
        """``key``, ``unit_id`` and ``path``; each picture once, inside the folder, and there."""
        key, unit = self.names(IMAGE), self.names(unit_column)
        return pd.DataFrame({"key": key, "unit_id": unit, "path": self.paths(IMAGE, folder, once=True)})

    def names(self, column: str) -> list[str]:
        """A name in every row, none of which a spreadsheet would carry out."""
        for row, text in enumerate(self.columns[column]):
            if text.lower() in UNKNOWN:
                self.wrong(row, column, "nothing", "a name")
            elif text[0] in "=+@\t" or (text[0] == "-" and not text[1:].isdigit()):
                self.wrong(row, column, f"{text!r}, which begins like a spreadsheet formula", "a plain name")
        return self.columns[column]

    def paths(self, column: str, folder: Path, *, once: bool) -> list[Path | None]:
        """Files inside the folder; an empty cell is told by ``names``."""
        root = folder.resolve()
        seen: dict[Path, int] = {}
        paths = []
        for row, text in enumerate(self.columns[column]):
            path = _resolved(root, text)
            paths.append(path)
            if path is None or not path.is_relative_to(root):
                self.wrong(row, column, f"{text!r}, which leads out of the folder", f"a path inside {folder}")
                continue
            if once and seen.setdefault(path, row) != row:
                first = self.lines[seen[path]]
                self.wrong(row, column, f"{text!r} a second time", f"each image once (line {first})")
            elif text.lower() not in UNKNOWN and not path.is_file():
                self.wrong(row, column, f"{text!r}, but no such file", f"a file in {folder}")
        return paths

    def once(self, columns: list[str]) -> None:
        """No two rows alike in all of ``columns``."""
        seen: dict[tuple[str, ...], int] = {}
        for row, cells in enumerate(zip(*(self.columns[name] for name in columns), strict=True)):
            if seen.setdefault(cells, row) != row:
                line = self.lines[seen[cells]]
                self.wrong(row, ", ".join(columns), f"{', '.join(cells)} a second time", f"once (line {line})")

    def numbers(self, column: str) -> np.ndarray:
        """Finite numbers as float64, NaN for an empty or unknown cell."""
        values = np.full(len(self.lines), np.nan)
        for row, text in enumerate(self.columns[column]):
            if text.lower() in UNKNOWN:
                continue
            number = _number(text)
            if number is None:
                self.wrong(row, column, repr(text), "a finite number, or nothing where it is unknown")
            else:
                values[row] = number
        return values

    def outcome(self, column: str, kind: str) -> np.ndarray:
        texts = self.columns[column]
        if kind == "binary":
            self.columns[column] = [str(TRUTH.get(text.lower(), text)) for text in texts]
        before = len(self.mistakes)
        values = self.numbers(column)
        for row in np.flatnonzero(np.isnan(values)):
            if texts[row].lower() in UNKNOWN:
                self.wrong(int(row), column, "nothing", "an outcome; unlabelled images belong in `images.extra`")
        if kind == "binary":
            for row in np.flatnonzero(~np.isnan(values) & ~np.isin(values, (0, 1))):
                self.wrong(int(row), column, repr(texts[row]), "0 or 1 (or `kind: continuous` in the study file)")
        if len(self.mistakes) == before:
            self.require_variation(column, values)
        return values

    def binary(self, column: str) -> tuple[np.ndarray, dict[str, float]]:
        """0, 1 or NaN, and the two words that were read so, in sorted order, where the file has words."""
        texts = self.columns[column]
        known = [text for text in texts if text.lower() not in UNKNOWN]
        numbers = {text: TRUTH.get(text.lower(), _number(text)) for text in known}
        if set(numbers.values()) <= {0.0, 1.0}:
            coded, words = {text: float(number or 0) for text, number in numbers.items()}, {}
        else:
            levels = sorted(set(known))
            if len(levels) > 2:
                row = next(row for row, text in enumerate(texts) if text == levels[2])
                told = ", ".join(map(repr, levels[:5])) + (" ..." if len(levels) > 5 else "")
                self.wrong(row, column, f"{len(levels)} levels ({told})", "0 and 1, or two words")
                return np.full(len(texts), np.nan), {}
            coded = words = {level: float(code) for code, level in enumerate(levels)}
        return np.array([coded.get(text, np.nan) for text in texts], float), words

    def require_variation(self, column: str, values: np.ndarray) -> None:
        levels = np.unique(values[~np.isnan(values)])
        if len(levels) < 2 and not any(mistake.path == column for mistake in self.mistakes):
            found = f"the one level {levels[0]:g} in every row" if len(levels) else "nothing in any row"
            self.wrong(0, column, found, "a column with at least two levels")

    def boxes(self) -> np.ndarray:
        boxes = np.stack([self.numbers(column) for column in BOX], 1)
        for row, (left, top, width, height) in enumerate(boxes):
            if np.isnan(boxes[row]).any():
                continue  # told by `numbers` where it is no number; an empty box is a miss
            if min(left, top) < 0 or min(width, height) < 1:
                self.wrong(row, BOX[0], f"the box {left:g}, {top:g}, {width:g}, {height:g}", "a box inside the image")
        return boxes

    def given_split(self, unit_id: pd.Series) -> dict[str, str]:
        """Unit to split where the file says so; a unit stands in one."""
        given: dict[str, str] = {}
        first: dict[str, int] = {}
        for row, (unit, text) in enumerate(zip(unit_id, self.columns.get("split", []), strict=False)):
            if text.lower() in UNKNOWN:
                continue
            if text not in SPLITS:
                self.wrong(row, "split", repr(text), ", ".join(SPLITS), nearest(text, SPLITS))
            elif given.setdefault(unit, text) != text:
                told = f"unit {unit!r} in `{text}` and (line {self.lines[first[unit]]}) in `{given[unit]}`"
                self.wrong(row, "split", told, "one split a unit")
            first.setdefault(unit, row)
        return given


def _resolved(root: Path, key: str) -> Path | None:
    try:
        return (root / key).resolve()
    except (OSError, ValueError, RuntimeError):  # a null byte, a name too long, a loop of links
        return None


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if np.isfinite(number) and "_" not in text else None


def _csv(path: Path) -> tuple[list[str], list[int], list[list[str]]]:
    """Names, line of each row, cells without outer blanks."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            names = [name.strip() for name in next(reader, [])]
            lines, rows = [], []
            for row in reader:
                if not any(row):
                    continue
                if len(row) != len(names):
                    raise UserError(
                        f"{path}:{reader.line_num}: the line has {len(row)} cells, the header has {len(names)}.",
                        hint="Put quotes around cells that hold commas.",
                    )
                lines.append(reader.line_num)
                rows.append([cell.strip() for cell in row])
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text.", hint="Save it as CSV UTF-8.") from None
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: this is not CSV ({error}).", hint="Save it as CSV again.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).", hint="Mend the path or the permission.") from None
    if len(names) == 1 and (";" in names[0] or "\t" in names[0]):
        raise UserError(f"{path}: the cells are not separated by commas.", hint="Save it as CSV with commas.")
    return names, lines, rows


def _parquet(path: Path) -> tuple[list[str], list[int], list[list[str]]]:
    """As ``_csv``; the first row is line 2, as it would be in a CSV file."""
    try:
        table = pq.read_table(path)
        columns = [table.column(k).cast(pa.string()).to_pylist() for k in range(table.num_columns)]
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read as Parquet ({error}).", hint="Write it again.") from None
    cells = [["" if cell is None else cell.strip() for cell in row] for row in zip(*columns, strict=True)]
    return table.column_names, list(range(2, len(cells) + 2)), cells
