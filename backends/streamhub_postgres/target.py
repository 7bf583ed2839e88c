"""What a URL names: servers, a database and a schema in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit

from streamhub.errors import ConfigError
from streamhub.options import parse_options, query_options, without_options
from streamhub_postgres.options import OWN_OPTIONS, PostgresOptions

_SCHEMES = ("postgresql", "postgres")
_EXAMPLE = "postgresql://[user:password@]host[:5432][,host…]/database"
_SESSIONS = ("any", "primary", "standby", "prefer-standby", "read-write", "read-only")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where to connect.

    Attributes:
        url: what the driver is given; it may hold a password.
        where: what messages call it.
    """

    url: str = field(repr=False)
    where: str


def parse_url(url: str) -> tuple[Target, PostgresOptions]:
    """Read a URL.

    Raises:
        ConfigError: it is not of this form, or an option is wrong. Its text shows no part of the URL that may hold a
            password.
    """
    options_given = query_options(url)
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES:
        raise ConfigError(f"{parts.scheme}:// is not a postgresql URL: use {_EXAMPLE}")
    if parts.fragment:
        raise ConfigError(f"a postgresql URL has no fragment (write '#' as %23): {_EXAMPLE}")
    if any("@" in text for text in (parts.path, *options_given)):
        # Not shown: the name of a database, or of an option, is hardly what it is.
        raise ConfigError(
            f"a postgresql URL has '@' after its user only (write %40, and in a password %2F and %3F): {_EXAMPLE}"
        )
    options = parse_options(PostgresOptions, options_given, scheme=parts.scheme)
    if options.target_session_attrs not in _SESSIONS:
        known = ", ".join(_SESSIONS)
        raise ConfigError(f"target_session_attrs={options.target_session_attrs!r}: use one of {known}")
    hosts = _hosts(parts, options)
    database = options.dbname or unquote(parts.path.removeprefix("/"))
    where = f"postgresql at {hosts or 'the default host'}" + (f"/{database}" if database else "")
    return Target(url=without_options(url, OWN_OPTIONS), where=where), options


def _hosts(parts: SplitResult, options: PostgresOptions) -> str:
    named = parts.netloc.rpartition("@")[2]
    for host in named.split(","):
        port = _port(host)
        if port and not port.isdecimal():
            raise ConfigError(f"a postgresql URL has numbers as ports: {_EXAMPLE}")
    if options.port is not None and not all(port.isdecimal() for port in options.port.split(",")):
        raise ConfigError(f"port={options.port!r}: use numbers")
    if named:
        return named
    return ",".join(filter(None, (options.host, options.port)))


def _port(host: str) -> str:
    rest = host.rpartition("]")[2] if host.startswith("[") else host
    return rest.partition(":")[2]
