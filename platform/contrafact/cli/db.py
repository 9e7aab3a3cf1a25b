"""``contrafact db``: the schema of the store."""

from __future__ import annotations

import typer

from contrafact.cli.output import Json, Workspace, answer, masked


def register(app: typer.Typer) -> None:
    db = typer.Typer(help="The database: its version, and bringing it up to date.", no_args_is_help=True)
    app.add_typer(db, name="db")

    @db.command()
    def status(workspace: Workspace = None, as_json: Json = False) -> None:
        """Whether the database fits this version of the program."""
        from contrafact import settings
        from contrafact.store import upgrade

        address = settings.read().database_url
        state = upgrade.status(address)
        then = "contrafact status" if state.current == state.newest else "contrafact db upgrade"
        answer(
            {"database": masked(address), "current": state.current, "newest": state.newest, "next": then},
            as_json=as_json,
            text=f"{masked(address)}: schema {state.current or 'none'}, newest {state.newest}",
            then=then,
        )

    @db.command("upgrade")
    def bring_up(workspace: Workspace = None, as_json: Json = False) -> None:
        """Creates the database where there is none, and brings an older one up to date."""
        from contrafact import settings
        from contrafact.store import upgrade

        address = settings.read().database_url
        upgrade.upgrade(address)
        current = upgrade.status(address).current
        then = "contrafact status"
        answer(
            {"database": masked(address), "current": current, "next": then},
            as_json=as_json,
            text=f"{masked(address)}: schema {current}",
            then=then,
        )
