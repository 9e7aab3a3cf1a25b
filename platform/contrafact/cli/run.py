"""``contrafact run``: the stages of a study, or what they would take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contrafact.cli.output import Json, StudyFile, Workspace, answer, duration, size, table, working

if TYPE_CHECKING:
    from contrafact.run.engine import RunResult, StageResult
    from contrafact.settings import Settings
    from contrafact.study import LoadedStudy


def register(app: typer.Typer) -> None:
    @app.command()
    def run(
        file: StudyFile,
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="Show the stages, what is cached, time, disk and pay; do nothing.")
        ] = False,
        until: Annotated[
            str | None, typer.Option(metavar="STAGE", help="The last stage to run.")
        ] = None,
        workspace: Workspace = None,
        as_json: Json = False,
    ) -> None:
        """Runs a study; finished stages are not done again, a killed one goes on."""
        from contrafact import settings, study

        place = settings.read()
        loaded = study.load(file, data=place.data)
        if dry_run:
            _forecast(loaded, place, as_json)
            return
        result = carry_out(loaded, place, until=until, as_json=as_json)
        report = result.facts.get("report", {}).get("report")
        then = next_step(file, result)
        answer(
            {
                "study": loaded.study.study,
                "stages": [vars(stage) for stage in result.stages],
                "stopped": result.stopped,
                "report": report,
                "next": then,
            },
            as_json=as_json,
            text="\n".join(filter(None, [result.stopped, f"Report: {report}" if report else ""])),
            then=then,
        )


def carry_out(loaded: LoadedStudy, place: Settings, *, until: str | None = None, as_json: bool) -> RunResult:
    """The engine with bars, and a line with the wall time after each stage."""
    from contrafact.run.engine import run_study

    def told(stage: StageResult) -> None:
        if not as_json:
            print(f"{stage.name:10}{'cached' if stage.cached else duration(stage.seconds)}", flush=True)

    with working(as_json=as_json) as progress:
        return run_study(loaded, place, progress=progress, until=until, finished=told)


def next_step(file: Path, result: RunResult) -> str:
    """What a person types after a run."""
    if "report" in result.facts:
        return f"contrafact report {file}"
    last = result.stages[-1].name
    return f"contrafact dashboard (review the stimuli), then contrafact register {file}" if last == "gate" else (
        f"contrafact run {file}"
    )


def _forecast(loaded: LoadedStudy, place: Settings, as_json: bool) -> None:
    from contrafact import study
    from contrafact.run.state import stages_of
    from contrafact.study import advice

    likely = {each.stage: each for each in study.expected(loaded)}
    stages: list[dict[str, Any]] = []
    for state in stages_of(loaded, place):
        forecast = likely[state.name]
        cached = state.status == "done"
        stages.append(
            {
                "stage": state.name,
                "hash": state.hash,
                "cached": cached,
                "seconds": 0.0 if cached else forecast.seconds,
                "bytes": 0 if cached else forecast.bytes,
                "money": 0.0 if cached else forecast.money,
            }
        )
    currency = next(iter(likely.values())).currency
    total = {key: sum(stage[key] for stage in stages) for key in ("seconds", "bytes", "money")}
    rows = [
        (each["stage"], "cached" if each["cached"] else "to do", *_amounts(each, currency)) for each in stages
    ]
    then = f"contrafact run {loaded.path}"
    warnings = advice.warnings(loaded.study)
    answer(
        {
            "study": loaded.study.study, "stages": stages, **total, "currency": currency, "warnings": warnings, "next": then,
        },
        as_json=as_json,
        text=table(("stage", "state", "time", "disk", "pay"), [*rows, ("total", "", *_amounts(total, currency))])
        + "\nTime is for 2 cores and good to a factor of two; hours in which people answer are not in it."
        + "".join(f"\n  mind: {one}" for one in warnings),
        then=then,
    )  # fmt: skip


def _amounts(stage: dict[str, Any], currency: str) -> tuple[str, str, str]:
    return duration(stage["seconds"]), size(stage["bytes"]), f"{stage['money']:.2f} {currency}" if stage["money"] else "-"
