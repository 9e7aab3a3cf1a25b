"""``contrafact fit``: a mixed model of any table."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contrafact.cli.output import Json, answer
from contrafact.cli.output import table as tabled
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
        contrast: Annotated[
            list[str] | None,
            typer.Option("--contrast", metavar="TERM=W,...", help="Weights of coefficients: dose=1,dose:armsham=1. Repeatable."),
        ] = None,
        means: Annotated[
            list[str] | None,
            typer.Option("--means", metavar="COLUMN,...", help="Marginal means of categories, and their differences."),
        ] = None,
        against: Annotated[
            str | None, typer.Option("--against", metavar="FORMULA", help="Likelihood-ratio test against this smaller model.")
        ] = None,
        profile: Annotated[bool, typer.Option("--profile", help="Likelihood intervals, of SDs too.")] = False,
        bootstrap: Annotated[
            int, typer.Option("--bootstrap", metavar="N", min=0, max=100_000, help="Intervals from N parametric draws.")
        ] = 0,
        seed: Annotated[int, typer.Option("--seed", help="Of the bootstrap.")] = 1,
        as_json: Json = False,
    ) -> None:
        """Fits a mixed model with crossed or nested random effects to any table, in lme4's notation."""
        from contrafact import stats

        rows, how = read_table(table), dict(map(_declared, levels or []))
        found = stats.fit(
            rows, formula, family=family, link=link, reml=not ml, weights=weights, levels=how, level=level,
        )  # fmt: skip
        more: dict[str, Any] = {}
        if contrast:
            more["contrasts"] = [found.contrast(_weights(one), one).facts() for one in contrast]
        if means:
            names = [one.split(",") for one in means]
            more["means"] = [one.facts() for each in names for one in found.means(*each)]
            more["differences"] = [one.facts() for each in names for one in found.differences(*each)]
        if against:
            smaller = stats.fit(
                rows, against, family=family, link=link, reml=not ml, weights=weights, levels=how, level=level,
            )  # fmt: skip
            more["likelihood_ratio"] = asdict(stats.likelihood_ratio(smaller, found))
        if profile:
            ends = {term: found.profile(term) for term in found.profiled}
            more["profile"] = [{"term": term, "low": low, "high": high} for term, (low, high) in ends.items()]
        if bootstrap:
            drawn = found.bootstrap(bootstrap, seed)
            more["bootstrap"] = [
                {str(key): None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()} for row in drawn.to_dict("records")
            ]
        answer({**found.facts(), **more}, as_json=as_json, text="\n".join([found.summary(), *map(_told, more.items())]))


def _weights(text: str) -> dict[str, float]:
    found = {}
    for piece in text.split(","):
        term, mark, weight = piece.rpartition("=")
        try:
            found[term.strip()] = float(weight)
        except ValueError:
            mark = ""
        if not mark or not term.strip():
            raise UserError(f"--contrast '{text}' must be terms with weights, such as dose=1,dose:armsham=-1.")
    return found


def _told(item: tuple[str, Any]) -> str:
    """A table of what was asked for besides the fit."""
    title, found = item
    rows = found if isinstance(found, list) else [found]
    shown = [{key: f"{v:.4g}" if isinstance(v, float) else "" if v is None else v for key, v in row.items()} for row in rows]
    return f"\n{title.replace('_', ' ').capitalize()}\n" + tabled(list(shown[0]), [tuple(row.values()) for row in shown])


def read_table(path: Path) -> pd.DataFrame:
    """CSV or Parquet; UserError for what is not a table."""
    import pandas as pd

    if not path.is_file():
        raise UserError(f"There is no file {path}.")
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            return pd.read_parquet(path)
        # pandas would number the second of two columns of one name and go on.
        names = pd.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False).iloc[0]
        if len(twice := names[names.duplicated()]):
            raise UserError(f"{path} has two columns '{twice.iloc[0]}'; rename one.")
        # "null" and "None" are words here: an arm may be called so.
        return pd.read_csv(path, keep_default_na=False, na_values=["", "NA", "NaN", "nan"])
    except (ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read as a table: {str(error).splitlines()[0]}") from error


def _declared(text: str) -> tuple[str, list[str]]:
    column, mark, names = text.partition("=")
    if not mark or not column or not names:
        raise UserError(f"--levels '{text}' must be a column, '=', and its levels joined by commas.")
    return column, names.split(",")
