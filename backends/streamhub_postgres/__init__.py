"""streamhub on PostgreSQL 13 or newer, also behind PgBouncer: ``postgresql://``, ``postgres://``."""

from streamhub_postgres.backend import PostgresBackend
from streamhub_postgres.options import PostgresOptions

__all__ = ["PostgresBackend", "PostgresOptions"]
