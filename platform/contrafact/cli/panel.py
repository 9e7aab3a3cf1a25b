"""``contrafact panel link | draft | reconcile | approve | screen-out | bonus | listen``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contrafact.cli.output import Json, StudyFile, Workspace, answer, table
from contrafact.cli.survey import _opened

if TYPE_CHECKING:
    from contrafact.panels.prolific import Prolific
    from contrafact.settings import Settings

DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be sent, and send nothing that changes anything.")]


def register(app: typer.Typer) -> None:
    verbs = typer.Typer(help="People from a panel: drafts, approvals, bonuses.", no_args_is_help=True)
    app.add_typer(verbs, name="panel")

    @verbs.command()
    def link(
        file: StudyFile,
        people: Annotated[Path | None, typer.Option(metavar="FILE", help="Ids, one a line: makes a signed link for each.")] = None,
        to: Annotated[Path | None, typer.Option(metavar="CSV", help="A new file for the signed links.")] = None,
        workspace: Workspace = None,
        as_json: Json = False,
    ) -> None:
        """The link to paste into the panel, and where people go when they have finished; or a signed link for each person."""
        import pandas as pd

        from contrafact.errors import UserError
        from contrafact.panels.links import PROVIDERS, entry_link, signed_links
        from contrafact.study import load
        from contrafact.survey.formats.outgoing import write_csv

        study = load(file).study
        if study.survey is None or study.survey.panel is None:
            raise UserError(f"{file} names no panel.", hint="Add `panel:` under `survey:`.")
        panel = study.survey.panel
        provider = PROVIDERS[panel.provider]
        entry = entry_link(provider, panel.address)
        then = f"contrafact survey serve {file}"
        if people is not None or to is not None:
            if people is None or to is None or not panel.signed:
                raise UserError("Signed links need --people, --to, and `signed: true` under `survey.panel`.")
            if to.exists():
                raise UserError(f"{to} exists already.", hint="Name a new file with --to.")
            try:
                ids = people.read_text(encoding="utf-8-sig").split()
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(f"{people} cannot be read: {error}.") from error
            with _opened(file) as (_, store, study_id, __):
                links = signed_links(provider, panel.address, store.salt(study_id), ids)
            write_csv(to, pd.DataFrame({"participant": list(links), "link": list(links.values())}))
            answer({"links": str(to), "people": len(links), "next": then}, as_json=as_json, text=f"{len(links)} links are in {to}.", then=then)
            return
        result = {"provider": panel.provider, "link": entry, "parameters": dict(provider.entry), "done": provider.done, "next": then}
        text = f"Link for the panel: {entry}\nAt the end: {provider.done or 'the code is shown'}"
        answer(result, as_json=as_json, text=text, then=then)

    @verbs.command()
    def draft(file: StudyFile, dry_run: DryRun = False, workspace: Workspace = None, as_json: Json = False) -> None:
        """Makes the draft at Prolific; publishing it, and paying, is done there by a person."""
        import json

        from contrafact.panels import fielded, prolific
        from contrafact.study import advice

        with _opened(file) as (loaded, store, study_id, settings):
            request = fielded.draft_request(store, study_id, loaded.study)
            told = advice.warnings(loaded.study)
            if dry_run:
                requests = [request.facts(settings.prolific_url or prolific.ADDRESS)]
                then = f"contrafact panel draft {file}"
                text = "\n".join([json.dumps(requests, indent=1, ensure_ascii=False), *told])
                answer({"requests": requests, "warnings": told, "next": then}, as_json=as_json, text=text, then=then)
                return
            with _prolific(settings) as panel:
                made = panel.draft(request)
        then = f"contrafact panel reconcile {file}"
        result = {"id": made["id"], "status": made.get("status"), "warnings": told, "next": then}
        text = "\n".join([f"The draft is at Prolific ({made.get('status', 'state not told')}). Publish it there.", *told])
        answer(result, as_json=as_json, text=text, then=then)

    @verbs.command()
    def reconcile(file: StudyFile, workspace: Workspace = None, as_json: Json = False) -> None:
        """Asks Prolific for all submissions and sets them beside the answers."""
        from contrafact.panels import fielded

        with _opened(file) as (loaded, store, study_id, settings), _prolific(settings) as panel:
            found = fielded.reconcile(store, panel, study_id, fielded.published(store, panel, study_id, loaded.study))
        then = f"contrafact panel approve {file} --dry-run"
        rows: list[tuple[str, Any]] = [*found["statuses"].items(), ("whole lists without a submission", found["lists_without_submission"]),
                ("submissions without a whole list", found["submissions_without_list"])]  # fmt: skip
        answer({**found, "next": then}, as_json=as_json, text=table(("status", "n"), rows), then=then)

    @verbs.command()
    def approve(file: StudyFile, dry_run: DryRun = False, workspace: Workspace = None, as_json: Json = False) -> None:
        """Approves who gave a whole list and the right code; the others wait for a person. Nobody is rejected."""
        from contrafact.panels import fielded

        with _opened(file) as (loaded, store, study_id, settings), _prolific(settings) as panel:
            panel_study = fielded.published(store, panel, study_id, loaded.study)
            good, others = fielded.to_approve(store, panel, study_id, panel_study)
            if good and not dry_run:
                panel.approve(panel_study, good)
                store.add_audit(study_id, "panel", "approval", {"submissions": len(good)})
        then = f"contrafact panel reconcile {file}"
        word = "would be approved" if dry_run else "approved"
        result = {"approved": len(good), "for_a_person": others, "dry_run": dry_run, "next": then}
        answer(result, as_json=as_json, text=f"{len(good)} {word}, {others} wait for a person.", then=then)

    @verbs.command(name="screen-out")
    def screen_out(
        file: StudyFile,
        submissions: Annotated[
            list[str] | None,
            typer.Argument(metavar="[SUBMISSION...]", help="Ids; without any, whom the screening questions turned away."),
        ] = None,
        amount: Annotated[float, typer.Option(min=0.1, max=50, help="What each gets, in major units.")] = 0.1,
        workspace: Workspace = None,
        as_json: Json = False,
    ) -> None:
        """Screens people out with a small payment; their places are given to others."""
        from contrafact.panels import fielded

        with _opened(file) as (loaded, store, study_id, settings), _prolific(settings) as panel:
            panel_study = fielded.published(store, panel, study_id, loaded.study)
            chosen = submissions or fielded.to_screen_out(store, panel, study_id, panel_study)
            if chosen:
                panel.screen_out(panel_study, chosen, amount)
                store.add_audit(study_id, "panel", "screen-out", {"submissions": len(chosen), "amount": amount})
        then = f"contrafact panel reconcile {file}"
        answer({"screened_out": len(chosen), "next": then}, as_json=as_json, text=f"{len(chosen)} screened out.", then=then)

    @verbs.command()
    def bonus(
        file: StudyFile,
        bonuses: Annotated[
            Path | None, typer.Argument(metavar="[BONUSES]", help="CSV with submission and amount; without it what right guesses earned.")
        ] = None,
        reason: Annotated[
            str | None, typer.Option(help="With a file: one payment for each submission and reason, ever.")
        ] = None,
        total: Annotated[
            str | None, typer.Option(metavar="AMOUNT", help="The sum, as shown without this option; then it is paid.")
        ] = None,
        workspace: Workspace = None,
        as_json: Json = False,
    ) -> None:
        """Pays bonuses, once: the same file again pays nothing. Without --total it only shows the sum."""
        import re

        from contrafact.errors import UserError
        from contrafact.panels import fielded, ledger

        if (bonuses is None) != (reason is None):
            raise UserError("A file of bonuses has a reason, and right guesses have their own.", hint="Name both, or neither.")
        if reason is not None and (reason == fielded.EARNED or not re.fullmatch(r"[a-z0-9_-]{1,48}", reason)):
            raise UserError(f"A reason is a word of small letters, digits, - and _, other than {fielded.EARNED}.")
        given = fielded.read_bonuses(bonuses) if bonuses else None
        with _opened(file) as (loaded, store, study_id, settings):
            assert loaded.study.survey is not None
            currency = loaded.study.survey.pay.currency
            amounts = given
            if amounts is None:
                with _prolific(settings) as panel:
                    panel_study = fielded.published(store, panel, study_id, loaded.study)
                    amounts = fielded.earned(store, panel, study_id, loaded.study, panel_study)
            whole = f"{sum(amounts.values()) / 100:.2f}"
            if total is None:
                named = f"{bonuses} --reason {reason} " if bonuses else ""
                then = f"contrafact panel bonus {file} {named}--total {whole}"
                said = {"bonuses": len(amounts), "total": whole, "currency": currency, "paid": 0, "next": then}
                answer(said, as_json=as_json, text=f"{len(amounts)} bonuses, {whole} {currency} in all. Nothing was paid.", then=then)
                return
            if total != whole:
                what = bonuses or "What right guesses earned"
                raise UserError(f"{what} adds up to {whole} {currency}, not {total[:20]}.", hint="Nothing was paid.")
            reason = reason or fielded.EARNED
            with _prolific(settings) as panel:
                panel_study = fielded.published(store, panel, study_id, loaded.study)
                ledger.plan(store, study_id, reason, currency, amounts)
                done = ledger.pay(store, panel, study_id, panel_study, reason)
            store.add_audit(study_id, "panel", "bonus", {"reason": reason, **done})
        then = f"contrafact panel reconcile {file}"
        text = f"{done['paid']} paid under '{reason}', {done['unknown']} sent and not confirmed, {done['open']} not sent."
        answer({"total": whole, "currency": currency, **done, "next": then}, as_json=as_json, text=text, then=then)

    @verbs.command()
    def listen(
        file: StudyFile,
        host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
        port: Annotated[int, typer.Option(min=1, max=65535)] = 8502,
        workspace: Workspace = None,
        as_json: Json = False,
    ) -> None:
        """Takes in Prolific's webhooks at /webhooks/prolific, until it is stopped."""
        import sys

        import uvicorn

        from contrafact.errors import UserError
        from contrafact.panels import webhooks

        with _opened(file) as (_, store, study_id, settings):
            if not settings.prolific_secret:
                raise UserError("CONTRAFACT_PROLIFIC_SECRET is not set.", hint="It is the secret that signs the webhooks.")
            application = webhooks.application(store, study_id, settings.prolific_secret.encode())
            address = f"http://{host}:{port}/webhooks/prolific"
            answer({"address": address}, as_json=as_json, text=f"Listening at {address}.")
            sys.stdout.flush()
            uvicorn.run(application, host=host, port=port, log_level="warning", access_log=False)


@contextmanager
def _prolific(settings: Settings) -> Iterator[Prolific]:
    from contrafact.errors import UserError
    from contrafact.panels import prolific

    if not settings.prolific_token:
        raise UserError("CONTRAFACT_PROLIFIC_TOKEN is not set.", hint="Make a token in Prolific's settings.")
    panel = prolific.Prolific(settings.prolific_token, settings.prolific_url or prolific.ADDRESS)
    try:
        yield panel
    finally:
        panel.close()
