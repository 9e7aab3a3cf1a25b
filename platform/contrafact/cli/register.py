"""``contrafact register``: freezes what will be tested, or amends it with a reason."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from contrafact.cli.output import Json, StudyFile, Workspace, answer

if TYPE_CHECKING:
    from contrafact.store.records import ChainRecord


def register(app: typer.Typer) -> None:
    @app.command("register")
    def freeze(
        file: StudyFile,
        amend: Annotated[
            str | None, typer.Option(metavar="WHY", help="Register the changed study, and say why it changed.")
        ] = None,
        export: Annotated[
            Path | None, typer.Option(metavar="DIR", help="Write it in the form of OSF and AsPredicted (Markdown and PDF) as well.")
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
        written = [] if export is None else _export(link, export)
        then = f"contrafact run {file}"
        answer(
            {
                "registration": link.hash, "kind": link.kind, "at": str(link.at), "plan": plan, "written": written,
                "next": then,
            },
            as_json=as_json,
            text="\n".join([f"{link.kind.capitalize()} {link.hash[:12]} of {link.at}", *plan, *written]),
            then=then,
        )  # fmt: skip


def _export(link: ChainRecord, folder: Path) -> list[str]:
    from contrafact.report.pdf import markdown_pdf
    from contrafact.report.preregistration import preregistrations

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    pages = preregistrations(link.payload, link.hash, f"{link.at:%Y-%m-%d %H:%M}")
    papers = {Path(name).with_suffix(".pdf").name: markdown_pdf(text) for name, text in pages.items()}
    for name, content in {**{name: text.encode() for name, text in pages.items()}, **papers}.items():
        draft = folder / f"{name}.draft"
        draft.write_bytes(content)
        written.append(str(draft.replace(folder / name)))
    return written
