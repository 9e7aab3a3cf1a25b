"""``contrafact fit``: a mixed model of any table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from contrafact.cli.output import Json, answer
from contrafact.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


def register(app: typer.Typer) -> None:
    @app.command()
    def fit(
        table: Annotated[Path, typer.Argument(metavar="TABLE", help="Ratings as CSV or Parquet, one row a rating.")],
        formula: Annotated[
            str, typer.Option("--formula", "-f", help="For example: value ~ dose + (1 + dose | person) + (1 | image)")
        ],
        family: Annotated[str, typer.Option("--family", help="gaussian, binary, ordinal or poisson.")] = "gaussian",
        link: Annotated[str | None, typer.Option("--link", help="logit or probit, for binary and ordinal.")] = None,
        ml: Annotated[bool, typer.Option("--ml", help="Maximum likelihood instead of REML (gaussian).")] = False,
        weights: Annotated[str | None, typer.Option("--weights", metavar="COLUMN", help="Prior weights; trials of a share.")] = None,
        levels: Annotated[
            list[str] | None,
            typer.Option("--levels", metavar="COLUMN=A,B,C", help="Order of a category, its reference first."),
        ] = None,
        level: Annotated[float, typer.Option("--level", help="Confidence level of intervals.")] = 0.95,
        as_json: Json = False,
    ) -> None:
        """Fits a mixed model with crossed or nested random effects to any table, in lme4's notation."""
        from contrafact import stats

        found = stats.fit(
            _read(table), formula, family=family, link=link, reml=not ml, weights=weights,
            levels=dict(map(_declared, levels or [])), level=level,
        )  # fmt: skip
        answer(found.facts(), as_json=as_json, text=found.summary())


def _read(path: Path) -> pd.DataFrame:
    import pandas as pd

    if not path.is_file():
        raise UserError(f"There is no file {path}.")
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            return pd.read_parquet(path)
        # "null" and "None" are words here: an arm may be called so.
        return pd.read_csv(path, keep_default_na=False, na_values=["", "NA", "NaN", "nan"])
    except (ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read as a table: {str(error).splitlines()[0]}") from error


def _declared(text: str) -> tuple[str, list[str]]:
    column, mark, names = text.partition("=")
    if not mark or not column or not names:
        raise UserError(f"--levels '{text}' must be a column, '=', and its levels joined by commas.")
    return column, names.split(",")
