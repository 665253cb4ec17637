"""What the migrations lead to."""

from sqlalchemy import JSON, Boolean, Column, DateTime, ForeignKey, Index, Integer, MetaData, Numeric, String, Table, UniqueConstraint

metadata = MetaData()
author = Table(
    "alembic_author",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(50), nullable=False),
    Column("is_alive", Boolean, nullable=False),
    UniqueConstraint("name", name="alembic_author_name"),
)
book = Table(
    "alembic_book",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("author_id", Integer, ForeignKey("alembic_author.id", name="alembic_book_author"), nullable=False),
    Column("title", String(200)),
    Column("price", Numeric(10, 2)),
    Column("data", JSON),
    Column("printed", DateTime),
    Index("alembic_book_title", "title"),
)
