"""The door: any exported file becomes numbered records, or is refused with its row and column.

Files are read in pieces, so memory does not grow with them. Tables (CSV in any form that spreadsheets write) and
JSON (one list, several lists, an object, or one object a line) may be packed with gzip.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from contrafact.errors import UserError

MAX_BYTES = 20_000_000_000  # unpacked; far above any survey, far below any disk
MAX_CELL = 16_000_000  # characters of one cell, or of one JSON record
PIECE = 1 << 20
END = "END OF FILE"  # Gorilla's last line
_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[\s,\x1e]*")


def plain(name: object) -> str:
    """A column's name without case, blanks and signs: ``Participant id`` and ``participant_id`` are one."""
    return re.sub(r"[\W_]+", "", str(name)).lower()


@dataclass(frozen=True)
class Record:
    """``row`` counts as a spreadsheet does (a table's header is 1) or, in JSON, from 1; ``run`` numbers the lists of a
    file that holds several."""

    row: int
    cells: dict[str, Any]
    run: int = 0


@dataclass
class Source:
    """One file. ``header`` is empty for JSON; ``top`` holds the first rows of a table or the first object."""

    path: Path
    encoding: str = "utf-8"
    separator: str = ","
    is_json: bool = False
    skip: int = 0
    header: list[str] = field(default_factory=list)
    top: list[list[str]] = field(default_factory=list)
    first: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def names(self) -> set[str]:
        """The names of the columns, or of the first object's keys, as ``plain`` has them."""
        return {plain(name) for name in (self.first if self.is_json else self.header)}

    def refuse(self, what: str, hint: str = "") -> UserError:
        return UserError(f"{self.path}{what}", hint=hint)

    def open(self) -> IO[str]:
        """The text from its beginning, without a byte order mark, line ends as they are."""
        return io.TextIOWrapper(_bytes(self.path), encoding=self.encoding, newline="")

    def lines(self, start: int = 1) -> Iterator[tuple[int, list[str]]]:
        """The rows below ``start`` header rows, each as long as the header; blank rows are passed over.

        Raises UserError where a row is longer than the header, or is no CSV.
        """
        short = 0
        width = len(self.header)
        for number, cells in self._raw():
            if number <= start or not any(cells) or cells[0].strip() == END:
                continue
            if len(cells) != width:
                if any(cell.strip() for cell in cells[width:]):
                    raise self.refuse(
                        f", row {number}, column {width + 1}: the row has {len(cells)} cells where the header has {width}.",
                        "A text with a separator in it must stand in quotes.",
                    )
                if len(cells) < width:
                    short += 1
                    if short == 1:
                        self.warnings.append(
                            f"row {number}, column {len(cells) + 1} and after: cells are missing and read as empty"
                        )
                cells = (cells + [""] * (width - len(cells)))[:width]
            yield number, cells
        if short > 1:
            self.warnings.append(f"rows that are shorter than the header: {short}")

    def records(self) -> Iterator[Record]:
        """Every row of a table, or every object of a JSON file."""
        if self.is_json:
            yield from self._objects()
        else:
            for number, cells in self.lines():
                yield Record(number, dict(zip(self.header, cells, strict=True)))

    def _raw(self) -> Iterator[tuple[int, list[str]]]:
        csv.field_size_limit(MAX_CELL)
        with self.open() as stream:
            for _ in range(self.skip):
                stream.readline()
            reader = csv.reader(stream, delimiter=self.separator, strict=True)
            number = 0
            try:
                for number, cells in enumerate(reader, start=1):
                    yield number, cells
            except csv.Error as error:
                raise self.refuse(f", row {number + 1}: not a CSV row ({error}).") from error
            except (OSError, EOFError, zlib.error) as error:
                raise self.refuse(f", row {number + 1}: the packed file is damaged ({error}).") from error

    def _objects(self) -> Iterator[Record]:
        number = 0
        for run, value in self._values():
            for item in _flat(value):
                number += 1
                if not isinstance(item, dict):
                    raise self.refuse(f", record {number}: {type(item).__name__} stands where an object should.")
                yield Record(number, item, run)

    def _values(self) -> Iterator[tuple[int, Any]]:
        """The file's values one by one, with the number of the list they stand in; an outer list is taken apart."""
        text, at, whole, run, done = "", 0, False, 0, 0
        with self.open() as stream:
            listed: bool | None = None
            while True:
                at = _SPACE.match(text, at).end()  # type: ignore[union-attr]
                if listed and text[at : at + 1] == "]":
                    listed, at, run = None, at + 1, run + 1
                    continue
                if listed is None and text[at : at + 1] == "[":
                    listed, at = True, at + 1
                    continue
                try:
                    if at >= len(text):
                        raise ValueError
                    value, end = _DECODER.raw_decode(text, at)
                    if end == len(text) and not whole:
                        raise ValueError
                except (ValueError, RecursionError) as error:
                    if whole:
                        if at >= len(text) and not listed:
                            return
                        raise self.refuse(f", record {done + 1}: not JSON; the file may have been cut off.") from error
                    if len(text) - at > MAX_CELL * 4:
                        raise self.refuse(f": one record has more than {MAX_CELL * 4 / 1e6:.0f} million characters.") from error
                    piece = _piece(stream, self)
                    text, at, whole = text[at:] + piece, 0, not piece
                    continue
                at, done = end, done + 1
                run += isinstance(value, list)
                yield run, value


def open_source(path: Path) -> Source:
    """Finds out encoding, separator and header. Raises UserError where the file is empty, no text, or cannot be read."""
    source = Source(path)
    try:
        _find_encoding(source)
        with source.open() as stream:
            start = stream.read(PIECE)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise source.refuse(f" is a damaged gzip file ({error}).") from error
    except OSError as error:
        raise source.refuse(f" cannot be read: {error.strerror or error}.") from error
    if not start.strip():
        raise source.refuse(" is empty.")
    if start.lstrip()[0] in "[{":
        source.is_json = True
        for record in source._objects():
            source.first = record.cells
            break
        return source
    if match := re.match(r"\s*sep=(.)\r?\n", start):  # Excel's own first line
        source.skip, source.separator = start[: match.end()].count("\n"), match[1]
    else:
        line = re.sub(r'"[^"]*"', "", start.split("\n", 1)[0])
        source.separator = max(",;\t|", key=line.count)
    for number, cells in source._raw():
        if number == 1:
            source.header = _header(source, cells)
        else:
            source.top.append(cells)
        if number == 3:
            break
    return source


def _header(source: Source, cells: list[str]) -> list[str]:
    """Names of the columns: unnamed ones are numbered, repeated ones too, with a warning."""
    while cells and not cells[-1].strip():
        cells = cells[:-1]
    header: list[str] = []
    for place, cell in enumerate(cells, start=1):
        name = cell.strip() or f"column {place}"
        if name in header:
            again = f"{name}.{sum(1 for known in header if known == name or known.startswith(name + '.')) + 1}"
            source.warnings.append(f"row 1, column {place}: '{name[:40]}' stands there twice; this one is read as '{again[:44]}'")
            name = again
        header.append(name)
    return header


def _flat(value: Any) -> Iterator[Any]:
    """The objects of a value: a list's, or those of the one list that an envelope such as {"data": [...]} holds."""
    if isinstance(value, list):
        for item in value:
            yield from _flat(item)
    elif isinstance(value, dict):
        inner = [v for k, v in value.items() if plain(k) in ("data", "trials", "results", "responses", "tasks")]
        if len(inner) == 1 and len(value) <= 4 and isinstance(inner[0], list) and any(isinstance(v, dict) for v in inner[0]):
            yield from _flat(inner[0])
        else:
            yield value
    else:
        yield value


def _bytes(path: Path) -> IO[bytes]:
    with path.open("rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
    return gzip.open(path) if packed else path.open("rb")  # type: ignore[return-value]


def _piece(stream: IO[str], source: Source) -> str:
    try:
        return stream.read(PIECE)
    except (OSError, EOFError, zlib.error) as error:
        raise source.refuse(f": the packed file is damaged ({error}).") from error


def _find_encoding(source: Source) -> None:
    """UTF-8, UTF-16 (with or without its mark), else Windows-1252; the whole file is looked at, once."""
    with _bytes(source.path) as stream:
        start = stream.read(4096)
        if start[:4] == b"PK\x03\x04":
            raise source.refuse(" is a zip archive, or a spreadsheet's own file.", "Unpack it, or save it as CSV UTF-8.")
        if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
            source.encoding = "utf-16"
        elif start[:3] == codecs.BOM_UTF8:
            source.encoding = "utf-8-sig"
        elif start[1::2].count(0) > len(start) // 4:
            source.encoding = "utf-16-le"
        elif start[::2].count(0) > len(start) // 4:
            source.encoding = "utf-16-be"
        decoder = codecs.getincrementaldecoder(source.encoding)()
        piece, seen, rows, column = start, 0, 1, 1
        while True:
            try:
                text = decoder.decode(piece, final=not piece)
            except UnicodeDecodeError as error:
                before = piece[: max(error.start, 0)]
                row, place = rows + before.count(b"\n"), len(before.rsplit(b"\n", 1)[-1]) + (0 if b"\n" in before else column - 1)
                where = f"line {row}, byte {place + 1}"
                break
            if not piece:
                return
            rows += text.count("\n")
            column = len(text.rsplit("\n", 1)[-1]) + (1 if "\n" in text else column)
            seen += len(piece)
            if seen > MAX_BYTES:
                raise source.refuse(f" holds more than {MAX_BYTES / 1e9:.0f} GB.")
            piece = stream.read(PIECE)
    if source.encoding == "utf-8" and not re.search(rb"[\x00-\x08\x0e-\x1f\x81\x8d\x8f\x90\x9d]", start + piece):
        source.encoding = "cp1252"
        source.warnings.append(f"{where}: not UTF-8; the file is read as Windows-1252, so look at letters with accents")
        return
    raise source.refuse(f", {where}: not text in UTF-8, UTF-16 or Windows-1252.", "Save it as CSV UTF-8.")
