"""From a URL's scheme to a backend, through the entry points of the group ``streamhub.backends``."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import cast

from streamhub.errors import (
    BackendNotFoundError,
    BackendNotInstalledError,
    ConfigError,
    UnknownOptionError,
    nearest,
)
from streamhub.options import query_options, without_options
from streamhub.protocols import Backend
from streamhub.settings import HubSettings

GROUP = "streamhub.backends"

# Drivers of the backends in this distribution: what is missing, and what installs it.
_EXTRAS = {"redis": "redis", "nats": "nats", "asyncpg": "postgres"}


def schemes() -> list[str]:
    """Return the URL schemes of the installed backends."""
    return sorted({entry.name for entry in entry_points(group=GROUP)})


def open_url(url: str) -> tuple[Backend, dict[str, str]]:
    """Make the backend a URL names, not connected yet, and return the hub's own settings from its query.

    Raises:
        BackendNotFoundError: no backend has this scheme.
        BackendNotInstalledError: the backend's driver is missing.
        ConfigError: the URL, or an option, is wrong.
    """
    if not isinstance(url, str):  # pyright: ignore[reportUnnecessaryIsInstance] - users are not type-checked
        raise TypeError(f"url must be str, not {type(url).__name__}")
    scheme, separator, _ = url.partition("://")
    if not separator:
        known = ", ".join(f"{name}://" for name in schemes())
        # Not shown: without its parts one cannot tell whether it holds a password.
        raise ConfigError(f"not a backend URL, it has no '://': begin with one of {known}")
    factory = _load(scheme)
    settings = {name: text for name, text in query_options(url).items() if name in HubSettings.names()}
    try:
        return factory(without_options(url, settings)), settings
    except UnknownOptionError as exc:
        known = HubSettings.names().union(exc.known)
        raise UnknownOptionError(exc.option, scheme=exc.scheme, known=known) from None


def setup_sql(scheme: str, schema: str, *, since: int = 0) -> str:
    """Return the SQL that brings a backend's schema from a version (0: nothing) to the one that it needs.

    A backend that keeps its data in SQL tables may offer this: as ``setup_sql(schema, *, since=0)`` of the object that
    its entry point names.

    Raises:
        BackendNotFoundError: no backend has this scheme.
        BackendNotInstalledError: the backend's driver is missing.
        ConfigError: it has no such SQL, or not for this schema or version.
    """
    script: Callable[..., str] | None = getattr(_load(scheme), "setup_sql", None)
    if script is None:
        raise ConfigError(f"{scheme}:// needs no SQL to be run before it is used")
    return script(schema, since=since)


def _load(scheme: str) -> Callable[[str], Backend]:
    found = [entry for entry in entry_points(group=GROUP) if entry.name == scheme]
    if not found:
        known = schemes()
        raise BackendNotFoundError(
            f"no backend for scheme {scheme!r}{nearest(scheme, known)} known: {', '.join(known)}"
        )
    return _import(found[0])


def _import(entry: EntryPoint) -> Callable[[str], Backend]:
    try:
        return cast("Callable[[str], Backend]", entry.load())
    except ImportError as exc:
        missing = (exc.name or "").partition(".")[0]
        if missing in _EXTRAS:
            problem = f"needs {missing!r}; install it with: pip install 'streamhub-py[{_EXTRAS[missing]}]'"
        else:
            problem = f"cannot be imported from {entry.value!r}: {exc}"
        raise BackendNotInstalledError(f"{entry.name}:// {problem}") from exc
