"""Rows that a migration writes, and a column that is filled before it is required."""

import sqlalchemy as sa
from alembic import op

revision = "three"
down_revision = "two"


def upgrade() -> None:
    author = sa.table("alembic_author", sa.column("id", sa.Integer), sa.column("name", sa.String), sa.column("is_alive", sa.Boolean))
    op.bulk_insert(author, [{"id": n, "name": f"author {n}"} for n in range(1, 101)])
    op.add_column("alembic_author", sa.Column("is_alive", sa.Boolean))
    op.execute(author.update().values(is_alive=author.c.id > 50))
    op.alter_column("alembic_author", "is_alive", existing_type=sa.Boolean, nullable=False)


def downgrade() -> None:
    op.drop_column("alembic_author", "is_alive")
    op.execute(sa.text("DELETE FROM alembic_author"))
