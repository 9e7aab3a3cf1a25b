"""Cells that a spreadsheet would run as formulas, made harmless and taken back."""

from __future__ import annotations

import math

FORMULA_STARTS = "=+-@\t\r\n＝＋－＠"


def guarded(cell: object) -> object:
    """Text that a spreadsheet would run as a formula, made harmless by a leading apostrophe."""
    if not isinstance(cell, str) or is_number(cell):
        return cell
    start = cell.lstrip("' ")[:1]  # an apostrophe of the text's own must not be taken for the guard
    return "'" + cell if start and start in FORMULA_STARTS else cell


def unguarded(cell: str) -> str:
    """The text as it was before ``guarded``."""
    return cell[1:] if cell[:1] == "'" and guarded(cell[1:]) == cell else cell


def is_number(text: str) -> bool:
    """Whether a cell is a plain finite number."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
