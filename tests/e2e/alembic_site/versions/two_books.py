"""books"""

import sqlalchemy as sa
from alembic import op

revision = "two"
down_revision = "one"


def upgrade() -> None:
    op.create_table(
        "alembic_book",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("author_id", sa.Integer, sa.ForeignKey("alembic_author.id", name="alembic_book_author"), nullable=False),
        sa.Column("title", sa.String(200)),
        sa.Column("price", sa.Numeric(10, 2)),
        sa.Column("data", sa.JSON),
        sa.Column("printed", sa.DateTime),
    )
    op.create_index("alembic_book_title", "alembic_book", ["title"])


def downgrade() -> None:
    op.drop_table("alembic_book")
