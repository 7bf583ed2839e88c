"""What a URL names: servers, a database and a schema in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit

from streamhub.errors import ConfigError
from streamhub.options import parse_options, query_options, without_options
from streamhub_postgres.options import DRIVER_OPTIONS, OWN_OPTIONS, PostgresOptions

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
    # In the first part, the driver would take what is behind the first one for a host, and ask the network for it.
    if parts.netloc.count("@") > 1 or any("@" in text for text in (parts.path, *options_given)):
        # Not shown: the name of a database, or of an option, is hardly what it is.
        raise ConfigError(
            f"a postgresql URL has one '@', after user and password (in them, write %40, %2F and %3F): {_EXAMPLE}"
        )
    options = parse_options(PostgresOptions, options_given, scheme=parts.scheme)
    if options.target_session_attrs not in _SESSIONS:
        known = ", ".join(_SESSIONS)
        raise ConfigError(f"target_session_attrs={options.target_session_attrs!r}: use one of {known}")
    for name in sorted(DRIVER_OPTIONS):
        if options_given.get(name) == "":
            raise ConfigError(f"option {name!r} is empty: give it a value, or leave it out")
    hosts = _hosts(parts, options)
    database = unquote(parts.path.removeprefix("/")) or options.dbname
    where = f"postgresql at {hosts or 'the default host'}" + (f"/{database}" if database else "")
    return Target(url=without_options(url, OWN_OPTIONS), where=where), options


def _hosts(parts: SplitResult, options: PostgresOptions) -> str:
    named = parts.netloc.rpartition("@")[2]
    hosts = named.split(",") if named else []
    if not all(hosts) and len(hosts) > 1:
        raise ConfigError(f"a postgresql URL has a host before and after each ',': {_EXAMPLE}")
    if not all(_is_port(port) for host in hosts if (port := _port(host))):
        raise ConfigError(f"a postgresql URL has numbers as ports, up to 65535: {_EXAMPLE}")
    ports = [] if options.port is None else options.port.split(",")
    if not all(map(_is_port, ports)):
        raise ConfigError(f"port={options.port!r}: use numbers up to 65535")
    if named:
        return named
    if options.host is None:
        return f"port {options.port}" if ports else ""
    hosts = options.host.split(",")
    if len(ports) > 1 and len(ports) != len(hosts):
        raise ConfigError(f"port={options.port!r}: use one for all hosts, or one for each")
    if not ports:
        return options.host
    return ",".join(f"{host}:{port}" for host, port in zip(hosts, ports * (len(hosts) // len(ports)), strict=True))


def _is_port(text: str) -> bool:
    return text.isdecimal() and 0 < int(text) < 65536


def _port(host: str) -> str:
    rest = host.rpartition("]")[2] if host.startswith("[") else host
    return rest.partition(":")[2]
