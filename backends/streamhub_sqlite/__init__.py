"""streamhub on one SQLite file, shared by the processes of one host: ``sqlite:///relative.db``, ``sqlite:////abs.db``."""

from streamhub_sqlite.backend import SqliteBackend
from streamhub_sqlite.options import SqliteOptions

__all__ = ["SqliteBackend", "SqliteOptions"]
