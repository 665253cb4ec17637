"""The project's only application."""
