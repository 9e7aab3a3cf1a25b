"""Reports and registrations as PDF, A4, laid out by matplotlib: the same words, tables and figures as elsewhere.

Text is set in matplotlib's own serif, so that a page looks the same on every machine; signs that this font lacks
(Chinese, for one) show as boxes. Files hold no date: the same content gives the same bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

import matplotlib as mpl
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure as Canvas
from matplotlib.font_manager import FontProperties, findfont
from matplotlib.ft2font import FT2Font
from matplotlib.image import imread
from matplotlib.lines import Line2D

from contrafact.readings.results import ReportReading, Strip, Table, statement_table
from contrafact.report.methods import methods

WIDTH, HEIGHT, MARGIN = 595.0, 842.0, 60.0  # points; A4
INNER = WIDTH - 2 * MARGIN
LEADING = 1.42
INK, GREY = "#1a1a1a", "#5a5a5a"
MEASURED = 50  # points at which widths are measured


def report_pdf(reading: ReportReading) -> bytes:
    """The report of a study; what the HTML shows, in the same order."""
    return _report(reading).bytes()


def _report(reading: ReportReading) -> _Document:
    study, page = reading.study, _Document(reading.study.title)
    page.heading(study.title, 18)
    if study.question:
        page.text(study.question, 11.5)
    if study.survey is not None and study.survey.respondents is not None:
        page.text("The respondents of this study are simulated. It shows what the method can find, and nothing about people.", italic=True)
    page.heading("The claim")
    for stopped in reading.stopped:
        page.text(f"The study stopped before its end. {stopped}", bold=True)
    for claim in reading.claims:
        primary = " (primary)" if claim.hypothesis.primary else ""
        page.text(f"{claim.hypothesis.id}{primary}: {claim.verdict}", 9, bold=True, after=0)
        page.text(claim.sentence, indent=10)
    for title, sentences in (
        ("Was the change seen?", reading.checked),
        ("The truth of this world", [reading.truth] if reading.truth else []),
        ("What would help", reading.advice),
    ):
        if sentences:
            page.heading(title, 11)
            for sentence in sentences:
                page.text(sentence)
    if reading.figures:
        page.heading("What the doses do", keep=280)
        for figure in reading.figures:
            page.picture(figure.png, figure.caption)
    if reading.strips:
        page.heading("The stimuli", keep=160)
        for strip in reading.strips:
            page.strip(strip)
    registered = [s for s in reading.statements if s.label == "registered"]
    exploratory = [s for s in reading.statements if s.label == "exploratory"]
    statements = [
        statement_table(rows, caption)
        for rows, caption in (
            (registered, "Registered statements"),
            (exploratory, "Exploratory: not registered, and not corrected for how many there are"),
        )
        if rows
    ]
    for title, tables in (
        ("Quality of stimuli and models", (*reading.quality, *reading.models)),
        ("What was counted, and left out", reading.counts),
        ("How reliable the ratings are", reading.reliability),
        ("Statements", statements),
    ):
        if tables:
            page.heading(title, keep=130)
            for table in tables:
                page.table(table)
    if reading.pitfalls:
        page.heading("What to keep in mind")
        for sentence in reading.pitfalls:
            page.text(f"\N{BULLET} {sentence}", indent=8)
    calls = reading.facts.get("analyse", {}).get("calls") or {}
    if reading.statements:
        page.heading("How each statement was made, and what to doubt", 11)
        for s in reading.statements:
            page.text(s.id, 8, bold=True, after=0)
            page.text(" ".join(f"{one[:1].upper()}{one[1:]}." for one in (s.method, *s.caveats)), 8, indent=10, after=1)
            if call := calls.get(s.id):
                page.text(call, 7, indent=10, mono=True)
    page.heading("Methods")
    for title, text in methods(study, reading.facts, reading.statements):
        page.text(title, 9.5, bold=True, after=0)
        page.text(text)
    for sentence in reading.absent:
        page.text(sentence, italic=True)
    if reading.provenance:
        page.heading("How this came to be")
        for name, value in reading.provenance:
            page.text(f"{name}: {value}", 7, mono=True, after=1)
    return page


def markdown_pdf(text: str) -> bytes:
    """A page of Markdown as :mod:`contrafact.report.preregistration` writes it: headings, bullets, paragraphs."""
    return _markdown(text).bytes()


def _markdown(text: str) -> _Document:
    first, *_ = text.splitlines()
    page = _Document(_plain(first.lstrip("# ")))
    for line in text.splitlines():
        if line.startswith("#"):
            mark, _, words = line.partition(" ")
            page.heading(_plain(words), 18 if len(mark) == 1 else 12.5)
        elif line.startswith("- "):
            page.text(f"\N{BULLET} {_plain(line[2:])}", indent=8)
        elif line.strip("-"):
            page.text(_plain(line))
    return page


def _plain(text: str) -> str:
    """Markdown's words without its marks, and escaped signs as they are."""
    text = re.sub(r"(?<!\\)(\*\*|`)", "", text)
    text = re.sub(r"\\([\\`*_\[\]#|])", r"\1", text)
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


class _Document:
    """Pages that are filled from the top; lengths are points."""

    def __init__(self, title: str) -> None:
        self.title, self.at = title, 0.0
        self.pages: list[Canvas] = []
        self.turn()

    def turn(self) -> None:
        self.pages.append(Canvas(figsize=(WIDTH / 72, HEIGHT / 72)))
        self.at = HEIGHT - MARGIN

    def room(self, height: float) -> None:
        """Go to the next page where less than ``height`` is left on this one."""
        if self.at - height < MARGIN:
            self.turn()

    def heading(self, text: str, size: float = 13, keep: float = 60) -> None:
        """``keep`` is what must still fit below on the same page."""
        self.room(keep)
        if self.at < HEIGHT - MARGIN:
            self.at -= 0.9 * size
        self.text(text, size, bold=True, after=3)

    def text(
        self, text: str, size: float = 9.5, *, bold: bool = False, italic: bool = False, mono: bool = False,
        indent: float = 0.0, after: float = 5.0,
    ) -> None:  # fmt: skip
        for line in _lines(text, INNER - indent, size, bold, mono):
            self.room(size * LEADING)
            self.at -= size * LEADING
            self._put(MARGIN + indent, self.at, line, size, bold, italic, mono)
        self.at -= after

    def picture(self, png: bytes, caption: str) -> None:
        pixels = imread(io.BytesIO(png), format="png")
        high, wide = pixels.shape[:2]
        width = min(INNER, 0.27 * wide)  # of 200 dots an inch, 3/4 of the size on screen
        height = width * high / wide
        self.room(height + 3 * 8 * LEADING)
        self.at -= height
        axes = self.pages[-1].add_axes((MARGIN / WIDTH, self.at / HEIGHT, width / WIDTH, height / HEIGHT))
        axes.imshow(pixels, aspect="auto", interpolation="none")
        axes.set_axis_off()
        self.at -= 2
        self.text(caption, 8, italic=True, after=9)

    def strip(self, strip: Strip) -> None:
        side = min(52.0, (INNER - 46) / max(len(strip.columns), 1) - 3)
        self.room(side + 5 * 8 * LEADING)
        self.text(strip.caption, 8, bold=True, after=10)
        for k, column in enumerate(strip.columns):
            self._put(MARGIN + 46 + k * (side + 3), self.at, column, 7)
        for name, cells in strip.rows:
            self.room(side + 4)
            self.at -= side + 4
            self._put(MARGIN, self.at + side / 2, name[:12], 7)
            for k, cell in enumerate(cells):
                if cell.png is not None:
                    place = ((MARGIN + 46 + k * (side + 3)) / WIDTH, self.at / HEIGHT, side / WIDTH, side / HEIGHT)
                    axes = self.pages[-1].add_axes(place)
                    axes.imshow(imread(io.BytesIO(cell.png), format="png"))
                    axes.set_axis_off()
        self.at -= 10

    def table(self, table: Table, size: float = 7.2) -> None:
        widths = _widths([table.columns, *table.rows], size)
        step, gap = size * 1.3, 6.0

        def row(cells: Sequence[str], bold: bool = False) -> None:
            wrapped = [list(_lines(cell, width, size, bold)) for cell, width in zip(cells, widths, strict=True)]
            height = step * max(map(len, wrapped)) + 3
            if self.at - height < MARGIN and not bold:
                self.turn()
                row(table.columns, bold=True)
            x = MARGIN
            for lines, width in zip(wrapped, widths, strict=True):
                for k, line in enumerate(lines):
                    self._put(x, self.at - step * (k + 1) + 1.5, line, size, bold)
                x += width + gap
            self.at -= height
            ends = [MARGIN / WIDTH, (MARGIN + INNER) / WIDTH]
            self.pages[-1].add_artist(
                Line2D(ends, [self.at / HEIGHT] * 2, color="#767676" if bold else "#dddddd", linewidth=0.8 if bold else 0.4)
            )

        self.room(6 * step)
        self.text(table.caption, 8.5, bold=True, after=2)
        row(table.columns, bold=True)
        for cells in table.rows:
            row(cells)
        self.at -= 12

    def _put(
        self, x: float, y: float, text: str, size: float, bold: bool = False, italic: bool = False, mono: bool = False
    ) -> None:
        self.pages[-1].text(
            x / WIDTH, y / HEIGHT, text, fontsize=size, family=_family(mono), weight="bold" if bold else "normal",
            style="italic" if italic else "normal", color=INK, parse_math=False,
        )  # fmt: skip

    def bytes(self) -> bytes:
        target = io.BytesIO()
        with mpl.rc_context({"pdf.fonttype": 42}), PdfPages(target, metadata={"Title": self.title, "CreationDate": None}) as file:
            for number, page in enumerate(self.pages, 1):
                page.text(0.5, 0.6 * MARGIN / HEIGHT, f"{number} / {len(self.pages)}", ha="center", fontsize=7.5, color=GREY, family=_family(False))
                file.savefig(page)
        return target.getvalue()


def _family(mono: bool) -> str:
    return "DejaVu Sans Mono" if mono else "DejaVu Serif"


@lru_cache(maxsize=4)
def _font(bold: bool, mono: bool) -> FT2Font:
    font = FT2Font(findfont(FontProperties(family=_family(mono), weight="bold" if bold else "normal")))
    font.set_size(MEASURED, 72)
    return font


@lru_cache(maxsize=20_000)
def _length(text: str, bold: bool, mono: bool) -> float:
    font = _font(bold, mono)
    font.set_text(text)
    return float(font.get_width_height()[0] / 64 / MEASURED)


def _lines(text: str, width: float, size: float, bold: bool = False, mono: bool = False) -> Iterator[str]:
    """``text`` in lines of at most ``width``; a word that is longer is broken where it must be."""

    def long(words: str) -> bool:
        return _length(words, bold, mono) * size > width

    line = ""
    for word in " ".join(text.split()).split(" "):
        tried = f"{line} {word}" if line else word
        if not long(tried):
            line = tried
            continue
        if line:
            yield line
        while len(word) > 1 and long(word):
            cut = next(k for k in range(len(word) - 1, 0, -1) if k == 1 or not long(word[:k]))
            joint = max(word.rfind(mark, 0, cut) + 1 for mark in "-/_|")
            cut = joint or cut
            yield word[:cut]
            word = word[cut:]
        line = word
    yield line


def _widths(rows: Sequence[Sequence[str]], size: float, gap: float = 6.0) -> list[float]:
    """Widths of columns: what they need where all fit, else the widest give way first, but for the words of their head."""
    needed = [max(_length(row[k], True, False) for row in rows) * size + 1 for k in range(len(rows[0]))]
    least = [max(_length(word, True, False) for word in name.split() or [""]) * size + 1 for name in rows[0]]
    free = INNER - gap * (len(needed) - 1)
    if sum(needed) <= free:
        return needed
    low, high = 0.0, INNER
    for _ in range(40):
        level = (low + high) / 2
        widths = [max(floor, min(one, level)) for floor, one in zip(least, needed, strict=True)]
        low, high = (level, high) if sum(widths) <= free else (low, level)
    return widths
