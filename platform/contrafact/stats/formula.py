"""From a formula in lme4's notation to the matrices of a mixed model.

``y ~ a * b + offset(o) + (1 + x | participant) + (1 | image)``: the fixed part is formulaic's, the random brackets
and offsets are taken out before. Names are R's: ``(Intercept)``, ``condsmile``, ``x:condsmile``, ``I(x^2)``;
the nested groups ``lab/participant`` stand for ``lab`` and ``participant:lab``. Categories are treatment coded
with sorted levels, unless a column is a pandas categorical or ``levels`` declares them, reference first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import formulaic
import numpy as np
import pandas as pd
from formulaic.errors import FormulaicError

from contrafact.errors import UserError, nearest
from contrafact.stats.crossproducts import Factor

FUNCTIONS = frozenset(
    ("C", "I", "Q", "abs", "bs", "cc", "center", "cr", "cs", "exp", "exp10", "exp2", "factor", "log", "log10", "log2",
     "poly", "scale", "sqrt", "standardize")
)  # fmt: skip
"""What a formula may call. A formula is evaluated as Python, so nothing else is let through."""

INTERCEPT = "(Intercept)"
MAX_LENGTH = 2_000
LARGEST = 1e100
"""Numbers beyond it, or all below its inverse, lose their squares."""


@dataclass(frozen=True)
class Bar:
    """One random bracket: columns ``terms`` of formula ``left`` for each level of ``group`` (names joined by ':')."""

    left: str
    group: str


@dataclass(frozen=True)
class Formula:
    """A formula taken apart. ``fixed`` is the right-hand side without random brackets and offsets."""

    text: str
    response: str
    fixed: str
    bars: tuple[Bar, ...]
    offsets: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column of the table that the formula names."""
        pieces = [self.response, self.fixed, *self.offsets, *(bar.left for bar in self.bars)]
        found = [name for piece in pieces for name in _names(piece)]
        return tuple(dict.fromkeys([*found, *(name for bar in self.bars for name in bar.group.split(":"))]))


@dataclass(frozen=True)
class Design:
    """The rows of a table as a model sees them.

    Attributes:
        y: response (n,) as the table has it; numbers, or anything sortable for categories.
        x: fixed effects (n, p) named ``terms``; ``kept`` are the rows of the table they were made from.
        factors: one for each grouping factor; brackets on the same factor are side by side in it.
        offset: (n,), 0 where there is none; ``weights`` (n,) or None.
        dropped: rows left out because a column used was missing.
    """

    formula: Formula
    y: pd.Series
    x: np.ndarray
    terms: tuple[str, ...]
    factors: tuple[Factor, ...]
    offset: np.ndarray
    weights: np.ndarray | None
    kept: pd.DataFrame
    dropped: int
    _spec: Any

    def grid(self, names: Sequence[str]) -> tuple[list[tuple[str, ...]], np.ndarray]:
        """The combinations of the categories ``names`` and the mean row of X (cells, p) of each.

        Other categories count each level alike, numbers are at their mean (the reference grid of R's emmeans).

        Raises:
            UserError: a name is not a category of the fixed part.
        """
        used = _names(self.formula.fixed)
        categories = {name: list(self.kept[name].cat.categories) for name in used if _is_category(self.kept[name])}
        for name in names:
            if name not in categories:
                known = ", ".join(f"'{each}'" for each in categories) or "none"
                raise UserError(f"'{name}' is not a category of the fixed effects; there are: {known}.")
        rows = pd.DataFrame([dict(zip(categories, cell, strict=True)) for cell in product(*categories.values())])
        for name in used:
            if name in categories:
                rows[name] = pd.Categorical(rows[name], categories=categories[name])
            else:
                rows[name] = float(self.kept[name].mean())
        if rows.empty:
            rows = pd.DataFrame({name: [float(self.kept[name].mean())] for name in used} or {"_": [0.0]})
        x = self._spec.get_model_matrix(rows).to_numpy(float)
        if not names:
            return [()], x.mean(axis=0, keepdims=True)
        cells = list(product(*(categories[name] for name in names)))
        keys = list(zip(*(rows[name].astype(str) for name in names), strict=True))
        mean = [x[[key == tuple(map(str, cell)) for key in keys]].mean(axis=0) for cell in cells]
        return [tuple(map(str, cell)) for cell in cells], np.array(mean)


def parse(text: str) -> Formula:
    """Take a formula apart.

    Raises:
        UserError: it has no response, no random bracket, unbalanced brackets, or calls what it may not.
    """
    text = " ".join(str(text).split())
    if len(text) > MAX_LENGTH:
        raise UserError(f"The formula has {len(text)} characters; at most {MAX_LENGTH} are read.")
    _refuse_code(text)
    sides = text.split("~")
    if len(sides) != 2 or not sides[0].strip() or not sides[1].strip():
        raise UserError(
            f"The formula '{text}' needs one '~' between the response and its terms.",
            hint="For example: value ~ dose + (1 + dose | participant) + (1 | image)",
        )
    fixed, bars, offsets = [], [], []
    for piece in _summands(sides[1], text):
        inside = piece[1:-1] if piece.startswith("(") and _closes(piece) == len(piece) - 1 else ""
        if "|" in inside:
            bars += _bars(inside, text)
        elif re.fullmatch(r"offset\s*\(.*\)", piece):
            offsets.append(piece[piece.index("(") + 1 : -1].strip())
        elif "|" in piece:
            raise UserError(f"In '{text}' the random part '{piece}' must stand in brackets of its own, joined by '+'.")
        else:
            fixed.append(piece)
    if not bars:
        raise UserError(
            f"The formula '{text}' has no random effect.",
            hint="Say who repeats, for example: + (1 | participant) + (1 | image)",
        )
    return Formula(text, _python(sides[0].strip()), _python(" + ".join(fixed) or "1"), tuple(bars), tuple(map(_python, offsets)))


def design(
    table: pd.DataFrame,
    formula: Formula,
    *,
    weights: str | None = None,
    levels: Mapping[str, Sequence[object]] | None = None,
) -> Design:
    """The matrices of ``formula`` on ``table``; rows with a missing value in a column used are left out and counted.

    Raises:
        UserError: unknown columns, infinite values, nothing left, weights that are not positive, fixed effects that
            cannot be told apart, or a random bracket that says the same twice.
    """
    used = [*formula.columns, *([weights] if weights else [])]
    for name in used:
        if name not in table.columns:
            near = nearest(name, map(str, table.columns))
            raise UserError(
                f"The table has no column '{name}'.",
                hint=f"Did you mean '{near}'?" if near else f"It has: {', '.join(map(str, table.columns[:20]))}.",
            )
    rows = table[list(dict.fromkeys(used))]
    whole = len(rows)
    rows = rows.dropna().reset_index(drop=True)
    if rows.empty:
        raise UserError(f"No row of {whole} has a value in every column that '{formula.text}' names.")
    if twice := rows.columns[rows.columns.duplicated()].tolist():
        raise UserError(f"The table has two columns '{twice[0]}'; rename one.")
    for name in rows.columns:
        if pd.api.types.is_numeric_dtype(rows[name]):
            values = np.abs(rows[name].to_numpy(float))
            if not np.isfinite(values).all():
                raise UserError(f"Column '{name}' holds an infinite value; mend it or leave that row empty.")
            if values.max() > LARGEST or 0 < values.max() < 1 / LARGEST:
                raise UserError(f"Column '{name}' goes up to {values.max():.0e}, beyond what can be squared; change its unit.")
    for name in (levels or {}):
        if name not in rows.columns:
            raise UserError(f"Levels are declared for '{name}', which the formula does not use.")
    rows = rows.assign(**{name: _category(rows[name], (levels or {}).get(name)) for name in rows.columns})

    matrix = _matrix(formula.fixed, rows, formula.text)
    x, terms = matrix.to_numpy(float), tuple(map(_renamed, matrix.columns))
    _finite(x, terms)
    _independent(x, terms, rows)
    offset = np.zeros(len(rows))
    for piece in formula.offsets:
        value = _matrix(f"0 + {piece}", rows, formula.text).to_numpy(float)
        _finite(value, (f"offset({piece})",))
        offset += value.sum(axis=1)
    if formula.response in rows:
        response = rows[formula.response]
    else:
        value = _matrix(f"0 + {formula.response}", rows, formula.text)
        _finite(value.to_numpy(float), (formula.response,))
        response = value.iloc[:, 0]
    mass = None
    if weights:
        mass = rows[weights].to_numpy(float)
        if not (mass > 0).all():
            raise UserError(f"The weights in '{weights}' must be above zero.")
    return Design(
        formula, response, x, terms, _factors(formula, rows), offset, mass, rows, whole - len(rows), matrix.model_spec
    )


def _factors(formula: Formula, rows: pd.DataFrame) -> tuple[Factor, ...]:
    found: list[Factor] = []
    for group in dict.fromkeys(bar.group for bar in formula.bars):
        codes, labels = _grouped(rows, group.split(":"))
        columns: list[np.ndarray] = []
        terms: list[str] = []
        sizes: list[int] = []
        for bar in formula.bars:
            if bar.group == group:
                matrix = _matrix(bar.left, rows, formula.text)
                names = tuple(map(_renamed, matrix.columns))
                z = matrix.to_numpy(float)
                _finite(z, names)
                columns.append(z)
                terms += names
                sizes.append(len(names))
        if twice := [name for name in terms if terms.count(name) > 1]:
            raise UserError(f"'{twice[0]}' stands twice in the random effects of '{group}'.")
        z = np.hstack(columns)
        for name, column in zip(terms, z.T, strict=True):
            if name != INTERCEPT and INTERCEPT in terms and np.ptp(column) == 0:
                raise UserError(f"'{name}' has one value only, so '{group}' cannot differ in it; drop that slope.")
            if not column.any():
                raise UserError(f"'{name}' is zero in every row, so '{group}' cannot differ in it; drop that slope.")
        free = np.zeros((len(terms), len(terms)), dtype=bool)
        for at, size in zip(np.cumsum([0, *sizes]), sizes, strict=False):
            free[at : at + size, at : at + size] = np.tril(np.ones((size, size), dtype=bool))
        found.append(Factor(group, labels, codes, z, tuple(terms), free))
    return tuple(found)


def _grouped(rows: pd.DataFrame, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Codes (n,) and labels of the combinations of columns that occur, in sorted order."""
    if len(names) == 1:
        codes, labels = pd.factorize(np.asarray(rows[names[0]]), sort=True)
        return codes, np.asarray(labels).astype(str)
    parts = [pd.factorize(np.asarray(rows[name]), sort=True) for name in names]
    key = np.zeros(len(rows), dtype=np.int64)
    for codes, labels in parts:
        key = key * len(labels) + codes
    codes, keys = pd.factorize(key, sort=True)
    first = np.zeros(len(keys), dtype=np.int64)
    first[codes[::-1]] = np.arange(len(rows))[::-1]
    return codes, np.array([":".join(str(labels[c[i]]) for c, labels in parts) for i in first])


def _bars(inside: str, text: str) -> list[Bar]:
    left, mark, right = re.split(r"(\|\|?)", inside, maxsplit=1)
    left, right = left.strip() or "1", right.strip()
    if "|" in right or not right:
        raise UserError(f"In '{text}' the bracket '({inside})' needs one '|' with terms before and a group after it.")
    groups: list[str] = []
    for part in right.split("+"):
        nested: list[str] = []
        for k, name in enumerate(re.split(r"/", part)):
            names = [each.strip().strip("`") for each in name.split(":")]
            if not all(names) or any(re.search(r"[()*~^|]", each) for each in names):
                raise UserError(f"In '{text}' the group '{right}' must be columns joined by ':' or '/'.")
            nested = [*names, *nested] if k else names
            groups.append(":".join(nested))
    lefts = [_python(left)]
    if mark == "||":
        terms = [str(term) for term in _terms(_python(left), text)]
        lefts = ["1" if term == "1" else f"0 + {term}" for term in terms]
    return [Bar(each, group) for group in groups for each in lefts]


def _summands(side: str, text: str) -> list[str]:
    """Pieces between the plus signs that stand outside all brackets."""
    pieces, depth, start = [], 0, 0
    for place, sign in enumerate(side):
        depth += (sign == "(") - (sign == ")")
        if depth < 0:
            break
        if sign == "+" and depth == 0:
            pieces.append(side[start:place].strip())
            start = place + 1
    if depth != 0:
        raise UserError(f"The brackets in '{text}' do not close.")
    pieces.append(side[start:].strip())
    if not all(pieces):
        raise UserError(f"A term is missing beside a '+' in '{text}'.")
    return pieces


def _closes(piece: str) -> int:
    depth = 0
    for place, sign in enumerate(piece):
        depth += (sign == "(") - (sign == ")")
        if depth == 0:
            return place
    return -1


def _refuse_code(text: str) -> None:
    plain = re.sub(r"`[^`]*`", "x", text)
    called = [name for name in re.findall(r"([A-Za-z_][\w.]*)\s*\(", plain) if name not in FUNCTIONS | {"offset"}]
    if called:
        raise UserError(
            f"The formula calls '{called[0]}', which is not one of its functions.",
            hint=f"It may call: {', '.join(sorted(FUNCTIONS | {'offset'}))}.",
        )
    if re.search(r"[A-Za-z_)\]'\"]\s*\.\s*[A-Za-z_]|__|[)\]}'\"]\s*\(|[;{}@\\]|\blambda\b|\bfor\b", plain):
        raise UserError(
            f"The formula '{text}' is more than terms and functions.",
            hint="Put a column name with dots or other signs between backticks.",
        )


def _python(piece: str) -> str:
    """R's power and factor as formulaic has them."""
    return re.sub(r"\bfactor\s*\(", "C(", piece.replace("^", "**"))


def _names(piece: str) -> list[str]:
    """The columns that a piece of a formula names: its words that are not called, given a value or quoted, in sorted order."""
    quoted = re.findall(r"`([^`]*)`", piece)
    plain = re.sub(r"`[^`]*`|'[^']*'|\"[^\"]*\"", " 0 ", piece)
    words = re.findall(r"(?<![\w.])([^\W\d]\w*)(?!\s*\(|\w|\s*=(?!=))", plain)
    return sorted({*quoted, *words} - {"True", "False", "None"})


def _renamed(name: object) -> str:
    """A column of formulaic by R's name for it."""
    name = re.sub(r"\[(?:T\.)?([^\]]*)\]", r"\1", str(name))
    return INTERCEPT if name == "Intercept" else re.sub(r"\s*\*\*\s*", "^", name)


def _terms(piece: str, text: str) -> Any:
    try:
        return formulaic.Formula(piece)
    except FormulaicError as error:
        raise UserError(f"'{piece}' in the formula '{text}' cannot be read: {_told(error)}") from error


def _matrix(piece: str, rows: pd.DataFrame, text: str) -> Any:
    try:
        return formulaic.model_matrix(
            piece, rows, context={"sqrt": np.sqrt, "abs": np.abs}, na_action="ignore", output="pandas"
        )
    except (FormulaicError, ValueError, TypeError) as error:
        raise UserError(f"'{piece}' in the formula '{text}' cannot be computed: {_told(error)}") from error


def _told(error: Exception) -> str:
    return re.sub(r"\x1b\[[0-9;]*m|[⧛⧚]", "", str(error)).split("\n")[0]


def _is_category(column: pd.Series) -> bool:
    return isinstance(column.dtype, pd.CategoricalDtype)


def _category(column: pd.Series, declared: Sequence[object] | None) -> pd.Series:
    """Text, booleans and declared columns as categories; levels that no row has are left out."""
    if declared is not None:
        order = [str(level) for level in declared]
        if missing := set(column.astype(str)) - set(order):
            raise UserError(f"'{min(missing)}' in column '{column.name}' is not among its declared levels.")
        found = pd.Series(pd.Categorical(column.astype(str), categories=order), index=column.index)
    elif _is_category(column):
        found = column
    elif pd.api.types.is_bool_dtype(column) or not pd.api.types.is_numeric_dtype(column):
        text = column.astype(str)
        found = pd.Series(pd.Categorical(text, categories=sorted(text.unique())), index=column.index)
    else:
        return column
    return found.cat.remove_unused_categories()


def _finite(values: np.ndarray, names: Sequence[str]) -> None:
    bad = ~np.isfinite(values.reshape(len(values), -1)).all(axis=0)
    if bad.any():
        raise UserError(f"'{names[int(bad.argmax())]}' is not a finite number in every row; mend the values it is made of.")


def _independent(x: np.ndarray, terms: Sequence[str], rows: pd.DataFrame) -> None:
    """Refuse columns that are sums of others: their coefficients would be arbitrary."""
    if not x.shape[1]:
        return
    scale = np.sqrt((x**2).sum(axis=0))
    for name, column, size in zip(terms, x.T, scale, strict=True):
        if size == 0:
            raise UserError(f"'{name}' is zero in every row; drop it.")
        if name != INTERCEPT and INTERCEPT in terms and np.ptp(column) <= 1e-12 * size:
            raise UserError(f"'{name}' has one value only, so it cannot explain anything; drop it.")
    triangle = np.abs(np.diag(np.linalg.qr(x / scale, mode="r")))
    if (tied := np.flatnonzero(triangle < 1e-8)).size or len(x) < x.shape[1]:
        name = terms[int(tied[0])] if tied.size else terms[-1]
        raise UserError(f"'{name}' is a sum of the other fixed effects in these {len(rows)} rows; drop one of them.")
