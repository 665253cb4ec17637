"""authors"""

import sqlalchemy as sa
from alembic import op

revision = "one"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "alembic_author",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(50), nullable=False),
    )
    op.create_unique_constraint("alembic_author_name", "alembic_author", ["name"])


def downgrade() -> None:
    op.drop_table("alembic_author")
