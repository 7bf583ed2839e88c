"""What a URL names: servers of one NATS system, and who connects."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit

from streamhub.errors import ConfigError
from streamhub.options import parse_options, query_options
from streamhub_nats.options import NatsOptions

_PORTS = {"nats": 4222, "tls": 4222, "ws": 80, "wss": 443}

_EXAMPLE = "nats://[user:password@|token@]host[:4222][,host…]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The parts of a URL but its query. A user without a password is a token."""

    scheme: str
    hosts: tuple[str, ...]
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)

    @property
    def where(self) -> str:
        """What messages call it."""
        return f"nats at {','.join(self.hosts)}"

    @property
    def over_websocket(self) -> bool:
        """Whether connections are WebSockets."""
        return self.scheme in ("ws", "wss")


def parse_url(url: str) -> tuple[Target, NatsOptions]:
    """Read a URL.

    Raises:
        ConfigError: it is not of the form, or an option is wrong. Its text shows no part of the URL that may hold a
            password.
    """
    query = query_options(url)
    parts = urlsplit(url)
    if parts.scheme not in _PORTS:
        raise ConfigError(f"{parts.scheme}:// is not a nats URL: use {_EXAMPLE}, or tls://, ws://, wss://")
    options = parse_options(NatsOptions, query, scheme=parts.scheme)
    if parts.fragment:
        raise _wrong(parts, "has no fragment (write '#' as %23)")
    if parts.path not in ("", "/"):
        raise _wrong(parts, "has no path (the namespace is an option)")
    userinfo, _, hosts = parts.netloc.rpartition("@")
    username, colon, password = userinfo.partition(":")
    target = Target(
        scheme=parts.scheme,
        hosts=tuple(_host(text, parts) for text in hosts.split(",")),
        username=unquote(username) if colon else None,
        password=unquote(password) if colon else None,
        token=None if colon else unquote(username) or None,
    )
    if userinfo and (options.creds or options.nkey):
        raise ConfigError("the URL names a user or token, and creds or nkey as well: leave one out")
    return target, options


def _wrong(parts: SplitResult, what: str) -> ConfigError:
    return ConfigError(f"a {parts.scheme}:// URL {what}: {_EXAMPLE.replace('nats', parts.scheme, 1)}")


def _host(text: str, parts: SplitResult) -> str:
    try:
        one = urlsplit(f"//{text}")
        host, port = one.hostname, one.port
    except ValueError:  # not shown: it may quote a part of the password
        raise _wrong(parts, "has numbers as ports, and a password's / written as %2F") from None
    if not host and "," in parts.netloc:
        raise _wrong(parts, "names hosts")
    host = host or "localhost"
    return f"{f'[{host}]' if ':' in host else host}:{_PORTS[parts.scheme] if port is None else port}"
