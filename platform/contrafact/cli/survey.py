"""``contrafact survey export | import | serve | expire | simulate | ask``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contrafact.cli.output import Json, StudyFile, Workspace, answer, working

if TYPE_CHECKING:
    import pandas as pd

    from contrafact.settings import Settings
    from contrafact.store import Store
    from contrafact.study import LoadedStudy
    from contrafact.survey.formats import Fate


def register(app: typer.Typer) -> None:
    verbs = typer.Typer(help="A batch of trials out as files, answers in, and simulated respondents.", no_args_is_help=True)
    app.add_typer(verbs, name="survey")

    @verbs.command()
    def export(
        file: StudyFile,
        to: Annotated[Path, typer.Option(metavar="DIR", help="A new folder, or a new .zip file.")],
        format: Annotated[str, typer.Option(help="csv, qualtrics, jspsych, surveyjs or label_studio.")] = "csv",
        pictures: Annotated[
            str, typer.Option(metavar="URL", help="Where the folder of pictures will be found; ends in a slash.")
        ] = "",
        workspace: Workspace = None,
        as_json: Json = False,
    ) -> None:
        """Writes the batch that the study's field stage made: trials, pictures, a template for answers."""
        from contrafact.store.files import Files
        from contrafact.survey import fielding

        with _opened(file) as (loaded, store, study_id, settings):
            files = Files(settings.files_url)
            lost = fielding.export_batch(
                store, files.get, study_id, loaded.study, to, format=format, pictures=pictures
            )
        then = f"contrafact survey import {file} answers.csv"
        told = "\n".join([f"The batch is in {to}.", *(f"  not carried over: {sentence}" for sentence in lost)])
        result = {"batch": str(to), "format": format, "not_carried_over": lost, "next": then}
        answer(result, as_json=as_json, text=told, then=then)

    @verbs.command(name="import")
    def import_(
        files: Annotated[
            list[Path],
            typer.Argument(metavar="[STUDY] FILE...", help="The study file, if there is one, and files of answers."),
        ],
        format: Annotated[str, typer.Option(help="auto, or the name of a format (docs/formats.md).")] = "auto",
        columns: Annotated[
            Path | None, typer.Option(metavar="YAML", help="Which columns say what, for tables of other tools.")
        ] = None,
        correct: Annotated[
            bool, typer.Option("--correct", help="Answers that differ take the place of those imported before.")
        ] = False,
        to: Annotated[
            Path | None, typer.Option(metavar="FILE", help="Write the one long table (.csv or .parquet); no study.")
        ] = None,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Check every row and write nothing.")] = False,
        workspace: Workspace = None,
        as_json: Json = False,
    ) -> None:
        """Takes in answers of any panel or survey tool, all rows or none, and tells the fate of every row."""
        from contrafact.errors import UserError
        from contrafact.survey import fielding
        from contrafact.survey.formats import load_mapping

        studies = [file for file in files if file.suffix.lower() in (".yaml", ".yml")]
        answers = [file for file in files if file not in studies]
        if len(studies) > 1 or not answers:
            raise UserError("Name one study file at most, and at least one file of answers.")
        mapping = load_mapping(columns) if columns else None
        if studies:
            if to:
                raise UserError("The long table is for files without a study.", hint="Leave out --to, or the study.")
            with _opened(studies[0]) as (loaded, store, study_id, _):
                fates = fielding.import_answers(
                    store, study_id, loaded.study, answers, dry_run=dry_run, format=format, columns=mapping, correct=correct
                )
            then = f"contrafact survey import {studies[0]} ..." if dry_run else f"contrafact run {studies[0]}"
        else:
            fates = fielding.read_alone(answers, None if dry_run else to, format=format, columns=mapping)
            then = f"contrafact survey import STUDY {answers[0]}"
        total = _total(fates)
        result = {**total, "files": {name: fate.facts() for name, fate in fates.items()}, "dry_run": dry_run, "next": then}
        told = [_told(name, fate, dry_run or not studies) for name, fate in fates.items()]
        answer(result, as_json=as_json, text="\n".join(told), then=then)

    @verbs.command()
    def serve(
        file: StudyFile,
        host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is every network.")] = "127.0.0.1",
        port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8600,
        workspace: Workspace = None,
        as_json: Json = False,
    ) -> None:
        """Serves the study's pages to people until as many have finished as the study asks for."""
        import socket
        import sys
        import threading

        import uvicorn

        from contrafact.errors import UserError
        from contrafact.service.app import build
        from contrafact.service.field import Field
        from contrafact.store.files import Files
        from contrafact.survey import fielding

        with _opened(file) as (loaded, store, study_id, settings):
            study = loaded.study
            if study.survey is None or study.survey.service is None:
                raise UserError(f"{file} does not say what people meet.", hint="Add `service:` under `survey:`.")
            batch = str(fielding.trials_of(store, study_id, study)["batch"].iloc[0])
            app = build(store, Files(settings.files_url), study_id, study, batch, loaded.inputs.get("survey.service.practice.folder"))
            with socket.socket() as listening:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    listening.bind((host, port))
                except OSError as error:
                    raise UserError(f"Port {port} of {host} cannot be used: {error.strerror}.", hint="Name another with --port.") from error
                listening.listen(1024)
                shown = "localhost" if host in ("127.0.0.1", "0.0.0.0") else host
                address = f"http://{shown}:{port}"
                then = f"contrafact run {file}"
                answer(
                    {"address": address, "batch": batch, "next": then},
                    as_json=as_json,
                    text=f"The survey is at {address} (Ctrl-C ends it); opened without a participant's id it is a preview.",
                    then=then,
                )
                sys.stdout.flush()
                # No access log: links carry the ids of people.
                settings_of_server = uvicorn.Config(app, access_log=False, log_level="warning", server_header=False)
                server = uvicorn.Server(settings_of_server)
                field = Field(store, study_id, batch, study.survey.participants)
                threading.Thread(target=field.watch, args=(server,), daemon=True).start()
                server.run(sockets=[listening])
            if field.ended:
                answer(
                    {"batch": batch, "participants": field.done(), "ended": True, "next": then},
                    as_json=as_json,
                    text=f"The field is closed: {field.done()} participants have finished, as many as the study asks for.",
                    then=then,
                )

    @verbs.command()
    def expire(
        file: StudyFile,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Count and delete nothing.")] = False,
        workspace: Workspace = None,
        as_json: Json = False,
    ) -> None:
        """Deletes the panel's ids whose retention is over; answers, keyed hashes and the chain stay."""
        with _opened(file) as (_, store, study_id, __):
            over, left, day = store.expire(study_id, dry_run=dry_run)
        then = f"contrafact verify {file}"
        on = day.date().isoformat() if day else None
        told = f"{over} ids of the panel {'would be' if dry_run else 'are'} deleted; {left} stay" + (f", the first until {on}." if on else ".")
        result = {"expired": over, "left": left, "next_day": on, "dry_run": dry_run, "next": then}
        answer(result, as_json=as_json, text=told, then=then)

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

    @verbs.command()
    def ask(
        file: StudyFile,
        model: Annotated[str, typer.Option(help="Name of a model respondent under `survey.models`.")],
        to: Annotated[Path, typer.Option(metavar="DIR", help="A new folder for answers and validity.")],
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Show cost and one request; ask nothing.")] = False,
        workspace: Workspace = None,
        as_json: Json = False,
    ) -> None:
        """Asks a vision model what people are asked, and sets its answers beside theirs; they are never pooled."""
        import dataclasses
        import json
        import math
        import os

        import pandas as pd

        from contrafact.errors import UserError, nearest
        from contrafact.store.files import Files
        from contrafact.survey import fielding, models
        from contrafact.survey.validity import validity

        if to.exists():
            raise UserError(f"{to} exists already.", hint="Name a new folder with --to.")
        with _opened(file) as (loaded, store, study_id, settings):
            survey = loaded.study.survey
            who = survey.models.get(model) if survey else None
            if survey is None or who is None:
                known = list(survey.models) if survey else []
                near = nearest(model, known)
                hint = f"Did you mean '{near}'?" if near else "Add it under `survey.models`."
                raise UserError(f"{file} names no model respondent '{model}'.", hint=hint)
            trials, files = fielding.trials_of(store, study_id, loaded.study), Files(settings.files_url)
            originals = {image.key: image.shown_sha256 for image in store.images(study_id)}
            pictures = models.pictures_to_ask(trials, store.stimuli_table(study_id), originals)
            cost = models.estimate(loaded.study, who, len(pictures))
            money = "not estimable" if math.isnan(cost.money) else f"{cost.money:.2f}"
            said = dataclasses.asdict(cost) | {"money": None if math.isnan(cost.money) else cost.money}
            text = f"{len(pictures)} pictures, {cost.requests} requests, cost {money}, at least {cost.minutes:.1f} minutes"
            if dry_run:
                first = next(models.to_ask(pictures, survey.questions, who.repeats))
                request = models.body(loaded.study, who, first, b"")
                then = f"contrafact survey ask {file} --model {model} --to {to}"
                result = {"estimate": said, "request": request, "next": then}
                answer(result, as_json=as_json, text=f"{text}\n{json.dumps(request, indent=1, ensure_ascii=False)}", then=then)
                return
            key = os.environ.get(who.key) if who.key else None
            if who.key and not key:
                raise UserError(f"{who.key} is not set.", hint=f"It holds the key of the model respondent '{model}'.")
            endpoint = models.Endpoint(who, key, settings.workspace / "models" / "answers.db")
            try:
                total = len(pictures) * len(survey.questions) * len(models.ORDERS) * who.repeats
                with working(as_json=as_json) as progress:
                    asking = models.answers(loaded.study, who, pictures, files.get, endpoint)
                    table = pd.DataFrame(progress(asking, total, model))
            finally:
                endpoint.close()
            people = _people(store.ratings_table(study_id))
            reports = [validity(table, people, pictures, q.name, q.scale).facts() for q in survey.questions]
            to.mkdir(parents=True)
            table.assign(respondent=model).to_parquet(to / "answers.parquet", index=False)
            (to / "validity.json").write_text(json.dumps({"model": who.model, "questions": reports}, indent=1), encoding="utf-8")
        used = {"requests": endpoint.requests, "tokens_in": endpoint.tokens_in, "tokens_out": endpoint.tokens_out}
        then = f"contrafact report {file}"
        lines = [f"{text}; {used['requests']} were sent, the others were known.", *(_validity(report) for report in reports)]
        made = {"answers": str(to / "answers.parquet"), "estimate": said, "used": used, "validity": reports, "next": then}
        answer(made, as_json=as_json, text="\n".join(lines), then=then)


def _validity(report: Mapping[str, Any]) -> str:
    """One question's report on one line."""
    numbers = [(name, value) for name, value in report.items() if name not in ("question", "label", "pictures")]
    told = ", ".join(f"{name.replace('_', ' ')} {'not estimable' if value is None else f'{value:.2f}'}" for name, value in numbers)
    return f"{report['question']}: {report['label']}, {report['pictures']} pictures: {told}"


def _people(ratings: pd.DataFrame) -> pd.DataFrame:
    """Ratings of people whom no rule leaves out."""
    people = ratings[~ratings["simulated"] & ~ratings["excluded"]]
    return people.assign(stimulus=people["stimulus"].astype(str))[["stimulus", "question", "value"]]


def _total(fates: Mapping[str, Fate]) -> dict[str, object]:
    """The fate of all files together; people of several files are counted once a file."""
    facts = [fate.facts() for fate in fates.values()]
    total: dict[str, object] = {}
    for name, first in facts[0].items():
        values: list[Any] = [fact[name] for fact in facts]
        if name == "format":
            total[name] = first if len(set(values)) == 1 else "several"
        elif isinstance(first, list):
            total[name] = list(dict.fromkeys(item for value in values for item in value))
        else:
            total[name] = sum(values)
    return total


def _told(name: str, fate: Fate, only_read: bool) -> str:
    """The fate of one file as a person reads it: what is zero is not told."""
    parts = [f"{fate.accepted} {'are good' if only_read else 'taken in'}"]
    parts += [
        f"{count} {word}"
        for count, word in (
            (fate.duplicates, "there already"), (fate.corrected, "corrected"), (fate.previews, "previews"),
            (fate.unfinished, "unfinished"), (fate.unanswered, "unanswered"), (fate.unmatched, "of no assignment here"),
            (fate.invalid, "that cannot be taken in"), (fate.excluded, "of people whom the frozen rules leave out"),
        )
        if count
    ]  # fmt: skip
    lines = [f"{name}: {fate.format}, {fate.rows} rows of {fate.participants} people: {', '.join(parts)}"]
    if fate.dropped_columns:
        lines.append(f"  dropped at the door: {', '.join(fate.dropped_columns)}")
    lines += [f"  {sentence}" for sentence in (*fate.warnings, *fate.problems[:10])]
    return "\n".join(lines)


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
