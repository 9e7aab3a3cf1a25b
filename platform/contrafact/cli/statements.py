"""``contrafact statements``: the analysis that a study plans, of any table of answers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from contrafact.cli.fit import read_table
from contrafact.cli.output import Json, answer
from contrafact.cli.output import table as tabled
from contrafact.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from contrafact.study import Study

NEEDED = ("direction", "question", "participant", "image", "arm", "dose", "value")
NUMBERS = ("dose", "value", "draw", "position", "place", "times", "chosen")


def register(app: typer.Typer) -> None:
    @app.command()
    def statements(
        file: Annotated[Path, typer.Argument(metavar="PLAN", help="The study file, or a plan.json of `report --tables`.")],
        table: Annotated[
            Path, typer.Argument(metavar="TABLE", help=f"Answers as CSV or Parquet, one row a rating: {', '.join(NEEDED)}.")
        ],
        covariates: Annotated[
            Path | None, typer.Option(metavar="TABLE", help="For analysis.heterogeneity: a row an image, a column a covariate.")
        ] = None,
        id: Annotated[list[str] | None, typer.Option("--id", help="These statements alone. Repeatable.")] = None,
        as_json: Json = False,
    ) -> None:
        """Tests the claims of a study on a table of answers, without its workspace."""
        from contrafact.survey import analysis

        study = _plan(file)
        if study.survey is None:
            raise UserError(f"{file} has no survey, so it claims nothing about answers.", hint="Add survey: and hypotheses:.")
        about = None
        if study.analysis.heterogeneity:
            if covariates is None:
                raise UserError(f"{file} asks for heterogeneity by {', '.join(study.analysis.heterogeneity)}: give --covariates TABLE.")
            about = _with_columns(covariates, ("image", *study.analysis.heterogeneity)).set_index("image")
        found = analysis.statements(study, _answers(table, study), about)
        if absent := set(id or ()) - {statement.id for statement in found}:
            raise UserError(f"There is no statement '{min(absent)}'.", hint=f"There are: {', '.join(s.id for s in found)}.")
        shown = [statement for statement in found if not id or statement.id in id]
        rows = [
            (s.id, *map(_short, (s.estimate, s.low, s.high, s.p)), {True: "yes", False: "no", None: ""}[s.verdict]) for s in shown
        ]
        text = tabled(("statement", "estimate", "low", "high", "p", "holds"), rows)
        answer({"statements": [s.facts() for s in shown]}, as_json=as_json, text=text)


def _short(value: float) -> str:
    return "not estimable" if math.isnan(value) else f"{value:.4g}"


def _plan(file: Path) -> Study:
    """A study file, checked; or the content of one as it is frozen, whose pictures need not be here."""
    from pydantic import ValidationError

    from contrafact import settings, study

    if file.suffix != ".json":
        return study.load(file, data=settings.read().data).study
    try:
        return study.Study.model_validate_json(file.read_bytes())
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}.") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{file} is no plan: {'.'.join(map(str, first['loc']))}: {first['msg']}.") from None


def _with_columns(file: Path, needed: tuple[str, ...]) -> pd.DataFrame:
    rows = read_table(file)
    if absent := [name for name in needed if name not in rows]:
        raise UserError(f"{file} has no column '{absent[0]}'; it has {', '.join(map(str, rows.columns))}.")
    return rows


def _answers(file: Path, study: Study) -> pd.DataFrame:
    import pandas as pd

    from contrafact.stats.dose import ARMS
    from contrafact.survey.design import UNCHANGED

    rows = _with_columns(file, NEEDED)
    for name in NUMBERS:
        if name in rows and not pd.api.types.is_numeric_dtype(rows[name]):
            raise UserError(f"{file}: column '{name}' holds words; it must hold numbers.")
    questions = {question.name for question in study.survey.questions} if study.survey else set()
    arms = {*UNCHANGED, *ARMS}
    for name, known in (("direction", set(study.directions)), ("question", questions), ("arm", arms)):
        if strange := set(rows[name].dropna().astype(str)) - known:
            raise UserError(f"{file}: {name} '{min(strange)}' is not one of the plan; there are {', '.join(sorted(known))}.")
    return rows.assign(draw=rows.get("draw", 0), excluded=rows.get("excluded", False))
