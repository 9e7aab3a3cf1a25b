"""``contrafact register``: freezes what will be tested, or amends it with a reason."""

from __future__ import annotations

from typing import Annotated

import typer

from contrafact.cli.output import Json, StudyFile, Workspace, answer


def register(app: typer.Typer) -> None:
    @app.command("register")
    def freeze(
        file: StudyFile,
        amend: Annotated[
            str | None, typer.Option(metavar="WHY", help="Register the changed study, and say why it changed.")
        ] = None,
        workspace: Workspace = None,
        as_json: Json = False,
    ) -> None:
        """Freezes study, models and stimuli before the first rating; shows what is frozen."""
        from contrafact import settings, study
        from contrafact.run.freeze import freeze

        place = settings.read()
        link = freeze(study.load(file, data=place.data), place, amend)
        plan = [one["method"] for one in link.payload["plan"]]
        then = f"contrafact run {file}"
        answer(
            {"registration": link.hash, "kind": link.kind, "at": str(link.at), "plan": plan, "next": then},
            as_json=as_json,
            text="\n".join([f"{link.kind.capitalize()} {link.hash[:12]} of {link.at}", *plan]),
            then=then,
        )
