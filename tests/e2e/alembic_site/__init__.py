"""A project with Alembic's migrations, for tests."""
