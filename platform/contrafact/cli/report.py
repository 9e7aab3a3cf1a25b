"""``contrafact report``: where the report of a study is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from contrafact.cli.output import Json, StudyFile, Workspace, answer


def register(app: typer.Typer) -> None:
    @app.command()
    def report(
        file: StudyFile,
        show: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
        tables: Annotated[
            Path | None, typer.Option("--tables", metavar="DIR", help="Write the tables as CSV and LaTeX, with the ratings.")
        ] = None,
        workspace: Workspace = None,
        as_json: Json = False,
    ) -> None:
        """Says where the finished report of a study is, HTML and PDF; `contrafact run` makes it."""
        from contrafact import settings, study
        from contrafact.errors import UserError
        from contrafact.run.state import stages_of

        place = settings.read()
        loaded = study.load(file, data=place.data)
        stages = stages_of(loaded, place)
        last = stages[-1]
        path = last.facts.get("report") if last.status == "done" else None
        if path is None or not Path(path).is_file():
            raise UserError(f"{file} has no finished report.", hint=f"Type: contrafact run {file}")
        if show:
            typer.launch(str(path))
        written: list[str] = []
        if tables is not None:
            from contrafact.report import write_tables
            from contrafact.store.files import Files

            facts = next(stage.facts for stage in stages if stage.name == "analyse")
            if not facts.get("statements"):
                raise UserError(f"{file} stopped before its analysis, so there are no tables.")
            written = write_tables(facts, Files(place.files_url), tables)
        answer(
            {"report": path, "pdf": last.facts.get("pdf"), "tables": written, "next": "contrafact dashboard"}, as_json=as_json,
            text="\n".join([str(path), *filter(None, [last.facts.get("pdf")]), *(str(tables / name) for name in written if tables)]), then="contrafact dashboard",
        )  # fmt: skip
