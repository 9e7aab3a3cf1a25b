"""``contrafact verify``: is what was registered still what is there?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from contrafact.cli.output import Json, Workspace, answer

SHOWN = 20
"""Changes told to people, of each study; ``--json`` has them all."""


def register(app: typer.Typer) -> None:
    @app.command()
    def verify(
        file: Annotated[
            Path | None, typer.Argument(metavar="[FILE]", help="The study file; every study of the workspace without one.")
        ] = None,
        workspace: Workspace = None,
        as_json: Json = False,
    ) -> None:
        """Walks the registration chain and computes stimuli, answers, exclusions and plan again; names what changed."""
        from contrafact import settings, study
        from contrafact.run.verify import verify

        place = settings.read()
        found = verify(place, None if file is None else study.load(file, data=place.data))
        lines = [] if found else ["No study of this workspace is registered."]
        for one in found:
            counted = ", ".join(f"{number:,} {name}" for name, number in one.checked.items())
            if not one.changes:
                lines.append(f"{one.study}: whole. {counted}; last link {one.head}.")
                continue
            lines.append(f"{one.study}: changed. {one.changes[0][:1].upper()}{one.changes[0][1:]}.")
            lines += [f"  {change}" for change in one.changes[1:SHOWN]]
            if len(one.changes) > SHOWN:
                lines.append(f"  and {len(one.changes) - SHOWN} more")
        changed = any(one.changes for one in found)
        answer(
            {
                "whole": not changed,
                "studies": [
                    {
                        "study": one.study, "links": one.links, "head": one.head, "checked": dict(one.checked),
                        "changes": list(one.changes),
                    }
                    for one in found
                ],
            },
            as_json=as_json,
            text="\n".join(lines),
        )  # fmt: skip
        if changed:
            raise typer.Exit(2)
