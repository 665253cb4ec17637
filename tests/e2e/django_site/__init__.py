"""A small Django project, whose database is what the environment says: DJANGO_DATABASE is a JSON object for `DATABASES["default"]`."""
