"""The schema: up, down and up again with rows in place, the same as the models, and clear words where it does not fit."""

from __future__ import annotations

import sqlite3
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text

from contrafact import settings
from contrafact.errors import UserError
from contrafact.store import open_store, upgrade
from contrafact.store.database import connect
from contrafact.store.models import Base
from contrafact.store.records import ImageRecord

HASH = "a" * 64


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'a folder' / 'store.db'}"


@pytest.fixture
def postgres(server: str) -> str:
    with connect(server).begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    return server


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


def test_up_down_and_up_again_with_rows(url: str) -> None:
    for _ in range(2):
        with open_store(url) as store:
            study = store.add_study("a", "A", "study: a", HASH)
            stage = store.start_stage(store.start_run(study), "ingest", HASH)
            store.put_images(study, stage, [ImageRecord("x", "u", "train", HASH, 32, 32, covariates={"age": 3.0})])
            store.append_registration(study, "registration", {"content": {}})
            assert store.images(study)[0].covariates == {"age": 3.0}
            store.verify_chain(study)
            assert store.ratings_table(study).empty, "the view is there"
        command.downgrade(upgrade.config(url), "base")
        engine = connect(url)
        assert inspect(engine).get_table_names() == ["alembic_version"] and inspect(engine).get_view_names() == []
        engine.dispose()


def test_the_migrations_make_what_the_models_say(url: str) -> None:
    upgrade.upgrade(url)
    engine = connect(url)
    with engine.connect() as connection:
        made = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(made, Base.metadata) == []
    engine.dispose()


def test_a_revision_stands_on_its_own() -> None:
    for revision in Path(upgrade.bundle.folder("migrations"), "versions").glob("*.py"):
        assert "contrafact" not in revision.read_text(encoding="utf-8"), "models change, history does not"


def test_what_is_append_only_is_so_on_every_database(url: str) -> None:
    with open_store(url) as store:
        study = store.add_study("a", "A", "study: a", HASH)
        store.append_registration(study, "registration", {"content": {}})
        store.add_audit(study, "Ann", "verdict", {})
    engine = connect(url)
    for change in ("UPDATE registration SET kind = 'x'", "DELETE FROM registration", "DELETE FROM audit"):
        with engine.connect() as connection, pytest.raises(Exception, match="append-only"):
            connection.execute(text(change))
    engine.dispose()


def test_the_database_is_made_only_where_that_is_asked(sqlite: str) -> None:
    file = Path(sqlite.removeprefix("sqlite:///"))
    assert upgrade.status(sqlite).current is None
    with pytest.raises(UserError, match="no store yet"):
        open_store(sqlite, create=False)
    assert not file.exists() and not file.parent.exists()
    upgrade.upgrade(sqlite)
    open_store(sqlite, create=False).close()
    with sqlite3.connect(file) as raw:
        assert raw.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    state = upgrade.status(sqlite)
    assert state.current == state.newest and state.fits


def test_a_newer_and_an_older_database_are_told_apart(sqlite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    upgrade.upgrade(sqlite)
    with sqlite3.connect(sqlite.removeprefix("sqlite:///")) as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    for opening in (open_store, upgrade.upgrade):
        with pytest.raises(UserError, match="newer than this version of contrafact"):
            opening(sqlite)
    with sqlite3.connect(sqlite.removeprefix("sqlite:///")) as raw:
        raw.execute("UPDATE alembic_version SET version_num = '0001'")
    monkeypatch.setattr(upgrade.ScriptDirectory, "get_current_head", lambda self: "0002")
    with pytest.raises(UserError, match="contrafact db upgrade"):
        open_store(sqlite)


def test_what_is_no_database_is_one_sentence(tmp_path: Path) -> None:
    text_file = tmp_path / "store.db"
    text_file.write_text("this is no database, but it is long enough to be taken for one" * 20)
    cases = {
        f"sqlite:///{text_file}": "is not a database",
        "sqlite://": "needs a file",
        "oracle-of-delphi://x": "not the address of a database",
        "postgresql://reader:secret@127.0.0.1:9/none": "cannot be reached",
        f"sqlite:///{tmp_path}": "cannot be reached",
    }
    for url, sentence in cases.items():
        with pytest.raises(UserError, match=sentence) as caught:
            open_store(url)
        assert "secret" not in str(caught.value)


def test_alembic_finds_the_store_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTRAFACT_WORKSPACE", str(tmp_path))
    made = upgrade.config("unused")
    del made.attributes["url"]
    command.upgrade(made, "head")
    assert upgrade.status(settings.read().database_url).fits


@pytest.mark.postgres
def test_the_ledger_moves_once_on_postgresql(postgres: str) -> None:
    """Many at once claim the same bonuses; one alone gets them. Webhooks that come twice at once are taken once."""
    with open_store(postgres) as store:
        study = store.add_study("a", "A", "study: a", HASH)
        store.plan_payments(study, "thanks", "GBP", {f"{n:064x}": 100 for n in range(3)})
        wanted, together, moved = [f"{n:064x}" for n in range(3)], threading.Barrier(8), []

        def claim() -> None:
            with open_store(postgres) as own:
                together.wait()
                moved.append(own.move_payments(study, "thanks", wanted, "planned", "paying", "bulk"))

        threads = [threading.Thread(target=claim) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(moved) == [0] * 7 + [3]
        assert {payment.state for payment in store.payments(study)} == {"paying"}
        assert store.put_submission(study, HASH, HASH, "ACTIVE", datetime.now(UTC), event="e")
        assert not store.put_submission(study, HASH, HASH, "APPROVED", datetime.now(UTC), event="e")
