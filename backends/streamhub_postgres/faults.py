"""What can go wrong with a server, said in streamhub's errors.

* The connection breaks, nothing is answered in time, or the server says that it cannot now (it shuts down, is a
  standby, has too many connections, waits for a lock, cancelled the statement …): ``BackendUnavailableError``. It may
  pass, so the core repeats the call for a while.
* The server will never allow it (credentials, missing rights, a missing schema …): ``ConfigError``.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from streamhub.errors import BackendUnavailableError, ConfigError, StreamHubError
from streamhub_postgres.driver import ClientConfigurationError, InterfaceError, InternalClientError, PostgresError

# SQLSTATE, or its class, and what is said about it.
_PASSING = {
    "08": "the connection is lost",
    "25006": "it is read-only: after a failover the new primary is looked for",
    "25P02": "a transaction was left broken",
    "40": "it undid the statement",
    "53": "it is short of resources",
    "54000": "a limit of the server's is reached, perhaps that of its queue of notifications",
    "55P03": "somebody holds a lock for too long",
    "57": "it was told to stop the statement or the connection, or is starting or stopping",
    "58": "its system has failed",
}
_LASTING = {
    "28": "correct user and password in the URL, or pg_hba.conf",
    "3D000": "make the database first, or correct its name in the URL",
    "3F000": "the schema is gone: make it again (streamhub sql, or setup=auto)",
    "42P01": "a table is gone: make the schema again (streamhub sql, or setup=auto)",
    "42501": "give its role the rights of docs/backends/postgresql.md",
}

# Undone by the server as a whole: the statement may be sent again at once.
_UNDONE = ("40001", "40P01")

# The server, or a pooler, has forgotten a prepared statement, or its tables have changed since: prepare it again.
_FORGOTTEN = ("26000", "0A000", "42P05")

# After these the connection is of no more use, though it may still be there.
_FATAL = ("08", "25006", "25P02", "57P01", "57P02", "57P03", "57P05")


def code_of(exc: BaseException) -> str:
    """Return the SQLSTATE of a driver's error; empty if it has none."""
    code = getattr(exc, "sqlstate", None)
    return code if isinstance(code, str) else ""


def is_undone(exc: BaseException) -> bool:
    """Say whether the server undid the statement in favour of another one."""
    return code_of(exc) in _UNDONE


def is_forgotten(exc: BaseException) -> bool:
    """Say whether a prepared statement is not valid any more; it was not executed."""
    return code_of(exc) in _FORGOTTEN


def is_full(exc: BaseException) -> bool:
    """Say whether the server's queue of notifications may be full."""
    return code_of(exc) == "54000"


def is_unsent(exc: BaseException) -> bool:
    """Say whether the connection had ended before the statement was sent: the driver learns of that late."""
    if isinstance(exc, PostgresError):
        return False
    return type(exc) is InternalClientError or (isinstance(exc, InterfaceError) and "closed" in str(exc))


def is_fatal(exc: BaseException) -> bool:
    """Say whether the connection is of no more use."""
    if isinstance(exc, PostgresError):
        return code_of(exc).startswith(_FATAL)
    return not isinstance(exc, StreamHubError)


def _told(table: dict[str, str], code: str) -> str | None:
    return table.get(code) or table.get(code[:2])


def convert(where: str, exc: BaseException) -> StreamHubError:
    """Convert any error of the driver's; its text is the server's, and holds no password."""
    if isinstance(exc, StreamHubError):
        return exc
    code, error = code_of(exc), None
    if lasting := _told(_LASTING, code):
        error = ConfigError(f"{where} refused ({exc}): {lasting}")
    elif passing := _told(_PASSING, code):
        error = BackendUnavailableError(f"{where} is not available: {passing} ({exc})")
    elif isinstance(exc, ClientConfigurationError):
        # Not shown: it may quote a part of the URL.
        error = ConfigError(f"{where}: the driver refuses the URL, its options, or a file that they name")
    elif isinstance(exc, (InterfaceError, InternalClientError, OSError)):
        text = str(exc) or ("it does not answer in time" if isinstance(exc, TimeoutError) else type(exc).__name__)
        error = BackendUnavailableError(f"{where} is not available: {text}")
    elif isinstance(exc, PostgresError):
        error = StreamHubError(f"{where} refused: {exc}")
    else:
        error = StreamHubError(f"{where}: the backend failed: {exc!r}")
    error.__cause__ = exc
    return error


@contextmanager
def map_errors(where: str) -> Generator[None]:
    """Convert the driver's errors; no other error is touched."""
    try:
        yield
    except (PostgresError, InterfaceError, InternalClientError, ClientConfigurationError, OSError) as exc:
        if isinstance(exc, StreamHubError):
            raise
        raise convert(where, exc) from exc
