"""Alembic's environment. As many projects do it, a lock of the session's lets one `alembic upgrade` at a time do its work."""

import sqlalchemy as sa
from alembic import context

from tests.e2e.alembic_site.models import metadata

LOCK = {"postgresql": "SELECT pg_advisory_lock(20260101)", "mysql": "SELECT GET_LOCK('alembic', 60)"}

engine = sa.create_engine(context.config.get_main_option("sqlalchemy.url") or "", poolclass=sa.pool.NullPool)
with engine.connect() as connection:
    connection.execute(sa.text(LOCK[connection.dialect.name]))
    connection.commit()
    wanted = context.config.attributes.get("metadata", metadata)
    context.configure(connection=connection, target_metadata=wanted, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()
