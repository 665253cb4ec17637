"""dualpool: a connection pooler that PostgreSQL clients and MySQL clients connect to as if it were their database."""

__version__ = "0.1.0"
