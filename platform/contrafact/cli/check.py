"""``contrafact check``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from contrafact.cli.output import Json, StudyFile, answer

if TYPE_CHECKING:
    from contrafact.study import Study


def register(app: typer.Typer) -> None:
    @app.command()
    def check(file: StudyFile, as_json: Json = False) -> None:
        """All mistakes of a study file at once, each with its line and what is allowed."""
        from contrafact import settings
        from contrafact.study import advice, load

        loaded = load(file, data=settings.read().data)
        then = f"contrafact run {file} --dry-run"
        warnings = advice.warnings(loaded.study)
        answer(
            {
                "file": str(file),
                "study": loaded.study.study,
                "sha256": loaded.sha256,
                "mistakes": [],
                "warnings": warnings,
                "next": then,
            },
            as_json=as_json,
            text="\n".join([f"{file} is sound: {_described(loaded.study)}.", *(f"  mind: {one}" for one in warnings)]),
            then=then,
        )


def _described(study: Study) -> str:
    if study.world:
        source = f"a rendered world ({study.world.name}, {study.world.kind}) of {study.world.images} images"
    elif study.stimuli:
        source = "finished stimuli"
    else:
        source = "images of a manifest"
    parts = [source]
    if study.directions:
        parts.append(_counted(len(study.directions), "direction"))
    if study.survey:
        who = "simulated respondents" if study.survey.respondents else "participants"
        parts.append(f"{study.survey.participants} {who}")
    if study.hypotheses:
        parts.append(_counted(len(study.hypotheses), "hypothesis", "hypotheses"))
    return ", ".join(parts)


def _counted(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
