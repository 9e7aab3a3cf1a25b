"""How Alembic reaches the database: one connection, one transaction for all steps."""

from typing import Any, Literal

from alembic import context
from sqlalchemy import TypeDecorator, text

from contrafact import settings
from contrafact.store.database import connect
from contrafact.store.models import Base


def frozen(kind: str, item: Any, _: Any) -> str | Literal[False]:
    """Revisions spell out SQLAlchemy's own types: they must not change with the models."""
    return f"sa.{item.impl!r}" if kind == "type" and isinstance(item, TypeDecorator) else False


engine = connect(context.config.attributes.get("url") or settings.read().database_url)
with engine.connect().execution_options(write=True) as connection:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        transactional_ddl=True,
        render_as_batch=connection.dialect.name == "sqlite",
        render_item=frozen,
    )
    with context.begin_transaction():
        if connection.dialect.name == "postgresql":
            # Two processes that start on an empty database would both create it.
            connection.execute(text("SELECT pg_advisory_xact_lock(7190426)"))
        context.run_migrations()
engine.dispose()
