"""``contrafact status``: where studies stand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from contrafact.cli.output import Json, Workspace, answer, table


def register(app: typer.Typer) -> None:
    @app.command()
    def status(
        file: Annotated[
            Path | None, typer.Argument(metavar="[FILE]", help="The study file; all studies where it is left out.")
        ] = None,
        workspace: Workspace = None,
        as_json: Json = False,
    ) -> None:
        """Shows which stages of a study are done, and the next command."""
        if file is None:
            _all(as_json)
        else:
            _one(file, as_json)


def _one(file: Path, as_json: bool) -> None:
    from contrafact import settings, study
    from contrafact.run.state import stages_of

    place = settings.read()
    loaded = study.load(file, data=place.data)
    stages = stages_of(loaded, place)
    stopped = next((stage.facts["stopped"] for stage in stages if stage.facts.get("stopped")), None)
    done = stages[-1].status == "done"
    then = f"contrafact {'report' if done else 'run'} {file}"
    answer(
        {
            "study": loaded.study.study,
            "stages": [{"stage": each.name, "status": each.status, "hash": each.hash} for each in stages],
            "stopped": stopped,
            "next": then,
        },
        as_json=as_json,
        text="\n".join(
            filter(None, [table(("stage", "state"), [(each.name, each.status) for each in stages]), stopped])
        ),
        then=then,
    )


def _all(as_json: bool) -> None:
    from contrafact import settings
    from contrafact.run.state import studies

    known = studies(settings.read())
    then = "contrafact status FILE" if known else "contrafact demo"
    answer(
        {"studies": [{"study": slug, "title": title} for slug, title in known], "next": then},
        as_json=as_json,
        text=table(("study", "title"), known) if known else "No study has been run in this workspace.",
        then=then,
    )
