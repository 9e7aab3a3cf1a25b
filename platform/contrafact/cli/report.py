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
        workspace: Workspace = None,
        as_json: Json = False,
    ) -> None:
        """Says where the finished report of a study is; `contrafact run` makes it."""
        from contrafact import settings, study
        from contrafact.errors import UserError
        from contrafact.run.state import stages_of

        place = settings.read()
        loaded = study.load(file, data=place.data)
        last = stages_of(loaded, place)[-1]
        path = last.facts.get("report") if last.status == "done" else None
        if path is None or not Path(path).is_file():
            raise UserError(f"{file} has no finished report.", hint=f"Type: contrafact run {file}")
        if show:
            typer.launch(str(path))
        answer({"report": path, "next": "contrafact dashboard"}, as_json=as_json, text=path, then="contrafact dashboard")
