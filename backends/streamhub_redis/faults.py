"""What can go wrong with a server, said in streamhub's errors.

* The connection breaks, nothing is answered in time, or the server says that it cannot now (``READONLY``,
  ``CLUSTERDOWN``, ``OOM`` …; for the driver, ``LOADING`` is an error of the connection): ``BackendUnavailableError``.
  It may pass, so the core repeats the call for a while.
* The server will never allow it (``NOPERM``, ``WRONGTYPE``, wrong credentials …): ``ConfigError``.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager

from redis.exceptions import AuthenticationError, AuthorizationError, RedisError, ResponseError

from streamhub.errors import BackendUnavailableError, ConfigError, StreamHubError

_PASSING = {
    "READONLY": "it is a replica: name its master, unless a failover has just happened",
    "MASTERDOWN": "it is a replica without its master",
    "CLUSTERDOWN": "the cluster does not serve this slot now",
    "TRYAGAIN": "the slot is being moved",
    "MOVED": "the slot has been moved",
    "ASK": "the slot is being moved",
    "OOM": "it has reached maxmemory: raise it, or let streams live shorter",
    "MISCONF": "it cannot save its data: see its log",
    "NOREPLICAS": "it has too few replicas: see min-replicas-to-write",
    "BUSY": "another client's script keeps it busy",
    "NOSCRIPT": "it forgets scripts as soon as they are loaded",
    "UNBLOCKED": "it was made a replica meanwhile",
}
_LASTING = {
    "NOPERM": "give its user the permissions of docs/backends/redis.md",
    "WRONGTYPE": "the prefix is used by something else: choose another prefix",
    "CROSSSLOT": "use redis+cluster:// for a cluster",
}

# Refusals that have no word of their own.
_LASTING_TEXTS = {
    "DB index is out of range": "use a database that it has: see databases in its configuration",
}

# 6.2 says what went wrong inside a script somewhere in a longer text; 7.0 and later begin with it.
_INSIDE = re.compile(r"@user_script: ?\d+: -?(?P<code>[A-Z]{2,}) ")
_FORBIDDEN = ("ACL failure in script", "The user executing the script can't")


def code_of(exc: ResponseError) -> str:
    """Return the word that the server's refusal begins with, or hides in its text; empty if it has none."""
    code: str | None = getattr(exc, "status_code", None)
    if code and code != "ERR":
        return code
    text = str(exc)
    first = text.partition(" ")[0]
    if first in _PASSING or first in _LASTING:
        return first
    if any(phrase in text for phrase in _FORBIDDEN):
        return "NOPERM"
    inside = _INSIDE.search(text)
    return "" if inside is None else inside["code"]


def refusal(where: str, exc: ResponseError) -> StreamHubError:
    """Convert what the server answered instead of a result."""
    code = code_of(exc)
    advice = _LASTING.get(code) or _LASTING_TEXTS.get(str(exc))
    error: StreamHubError
    if code in _PASSING:
        error = BackendUnavailableError(f"{where} refused: {_PASSING[code]} ({exc})")
    elif advice is not None:
        error = ConfigError(f"{where} refused ({exc}): {advice}")
    else:
        error = StreamHubError(f"{where} refused: {exc}")
    error.__cause__ = exc
    return error


def unavailable(where: str, exc: BaseException) -> BackendUnavailableError:
    """Convert an error of the connection."""
    text = str(exc) or ("it does not answer in time" if isinstance(exc, TimeoutError) else type(exc).__name__)
    error = BackendUnavailableError(f"{where} is not available: {text}")
    error.__cause__ = exc
    return error


def _unauthorized(where: str, exc: AuthenticationError | AuthorizationError) -> ConfigError:
    if exc.status_code == "NOAUTH":
        error = ConfigError(f"{where} wants credentials ({exc}): put user and password into the URL")
    else:
        error = ConfigError(f"{where} refused the credentials ({exc}): correct user and password in the URL")
    error.__cause__ = exc
    return error


def convert(where: str, exc: Exception) -> StreamHubError:
    """Convert any error; one that is no driver's is a defect, and says so."""
    if isinstance(exc, StreamHubError):
        return exc
    if isinstance(exc, ResponseError):
        return refusal(where, exc)
    if isinstance(exc, (AuthenticationError, AuthorizationError)):
        return _unauthorized(where, exc)
    if isinstance(exc, (RedisError, OSError)):
        return unavailable(where, exc)
    error = StreamHubError(f"{where}: the backend failed: {exc!r}")
    error.__cause__ = exc
    return error


@contextmanager
def map_errors(where: str) -> Generator[None]:
    """Convert the driver's errors; no other error is touched."""
    try:
        yield
    except (RedisError, OSError) as exc:
        raise convert(where, exc) from exc
