"""``contrafact survey export | import | simulate``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contrafact.cli.output import Json, StudyFile, Workspace, answer

if TYPE_CHECKING:
    from contrafact.settings import Settings
    from contrafact.store import Store
    from contrafact.study import LoadedStudy


def register(app: typer.Typer) -> None:
    verbs = typer.Typer(help="A batch of trials out as files, answers in, and simulated respondents.", no_args_is_help=True)
    app.add_typer(verbs, name="survey")

    @verbs.command()
    def export(
        file: StudyFile,
        to: Annotated[Path, typer.Option(metavar="DIR", help="A new folder, or a new .zip file.")],
        workspace: Workspace = None,
        as_json: Json = False,
    ) -> None:
        """Writes the batch that the study's field stage made: trials, pictures, a template for answers."""
        from contrafact.store.files import Files
        from contrafact.survey import fielding

        with _opened(file) as (loaded, store, study_id, settings):
            files = Files(settings.files_url)
            fielding.export_batch(store, files.get, study_id, loaded.study, to)
        then = f"contrafact survey import {file} answers.csv"
        answer({"batch": str(to), "next": then}, as_json=as_json, text=f"The batch is in {to}.", then=then)

    @verbs.command(name="import")
    def import_(
        file: StudyFile,
        answers: Annotated[list[Path], typer.Argument(metavar="ANSWERS...", help="Files of answers (CSV).")],
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Check every row and write nothing.")] = False,
        workspace: Workspace = None,
        as_json: Json = False,
    ) -> None:
        """Takes in answers, all rows or none; a file that was imported before adds nothing."""
        from contrafact.survey import fielding

        with _opened(file) as (loaded, store, study_id, _):
            fates = fielding.import_answers(store, study_id, loaded.study, answers, dry_run=dry_run)
        told = [
            f"{name}: {fate.rows} rows, {fate.accepted} {'would be ' if dry_run else ''}taken in, {fate.duplicates} there "
            f"already, {fate.unanswered} unanswered, {fate.unmatched} of no assignment here"
            for name, fate in fates.items()
        ]
        then = f"contrafact survey import {file} ..." if dry_run else f"contrafact run {file}"
        result = {"files": {name: fate.facts() for name, fate in fates.items()}, "dry_run": dry_run, "next": then}
        answer(result, as_json=as_json, text="\n".join(told), then=then)

    @verbs.command()
    def simulate(
        file: StudyFile,
        to: Annotated[Path, typer.Option(metavar="FILE", help="Where the answers are written.")] = Path("answers.csv"),
        replication: Annotated[int, typer.Option(min=0, help="Which people: 0 are those of the run itself.")] = 0,
        workspace: Workspace = None,
        as_json: Json = False,
    ) -> None:
        """Simulated people answer the study's batch; their answers are written as a file and not imported."""
        import io

        import pandas as pd

        from contrafact.errors import UserError
        from contrafact.store.files import Files
        from contrafact.study import plan
        from contrafact.survey import batch, fielding

        with _opened(file) as (loaded, store, study_id, settings):
            survey = loaded.study.survey
            if survey is None or survey.respondents is None:
                raise UserError(f"{file} has no simulated people.", hint="Add `respondents:` under `survey:`.")
            gate = {stage.name: stage.hash for stage in plan(loaded)}.get("gate", "")
            facts: Any = store.find_finished_stage(study_id, "gate", gate) or {}
            if "readings" not in facts:
                raise UserError(f"{file} has no readings of its stimuli yet.", hint=f"contrafact run {file}")
            readings = pd.read_parquet(io.BytesIO(Files(settings.files_url).get(facts["readings"])))
            trials = fielding.trials_of(store, study_id, loaded.study)
            rows = fielding.simulated_answers(trials, readings, loaded.study, replication)
        if to.exists():
            raise UserError(f"{to} exists already.", hint="Name a new file with --to.")
        batch.write_csv(to, rows)
        then = f"contrafact survey import {file} {to} --dry-run"
        people = int(rows["participant"].nunique())
        answer(
            {"answers": str(to), "rows": len(rows), "participants": people, "replication": replication, "next": then},
            as_json=as_json,
            text=f"{people} simulated people gave {len(rows)} answers, in {to}.",
            then=then,
        )


@contextmanager
def _opened(file: Path) -> Iterator[tuple[LoadedStudy, Store, int, Settings]]:
    """The study file with its row in the store; UserError where it never ran or is not the registered one."""
    from contrafact import settings as environment
    from contrafact.errors import UserError
    from contrafact.store import open_store
    from contrafact.study import load, refuse_changes

    settings = environment.read()
    loaded = load(file, data=settings.data)
    with open_store(settings.database_url) as store:
        row = store.study(loaded.study.study)
        if row is None:
            raise UserError(f"The study '{loaded.study.study}' never ran here.", hint=f"contrafact run {file}")
        frozen = [link for link in store.chain(row.id) if "content" in link.payload]
        if frozen:
            refuse_changes(frozen[-1].payload, loaded)
        yield loaded, store, row.id, settings
