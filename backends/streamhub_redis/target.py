"""What a URL names: one server, a master that Sentinels know, or a cluster."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias
from urllib.parse import SplitResult, unquote, urlsplit

from streamhub.errors import ConfigError
from streamhub.options import parse_options, query_options
from streamhub_redis.options import RedisOptions

Kind: TypeAlias = Literal["server", "socket", "sentinel", "cluster"]

_KINDS: dict[str, Kind] = {
    "redis": "server",
    "rediss": "server",
    "unix": "socket",
    "redis+sentinel": "sentinel",
    "redis+cluster": "cluster",
}
_EXAMPLES = {
    "server": "redis://[user:password@]host[:6379][/db]",
    "socket": "unix:///path/to/redis.sock?db=0",
    "sentinel": "redis+sentinel://[user:password@]host:26379,host:26379/service[/db]",
    "cluster": "redis+cluster://[user:password@]host:6379,host:6379",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The parts of a URL but its query.

    Attributes:
        hosts: the server, the Sentinels, or some of the cluster's nodes.
        path: of a socket.
        service: the master's name among the Sentinels.
        tls: whether the URL itself asks for encryption.
    """

    kind: Kind
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    service: str = ""
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False

    @property
    def where(self) -> str:
        """What messages call it."""
        if self.kind == "socket":
            return f"redis at {self.path!r}"
        hosts = ",".join(f"{host}:{port}" for host, port in self.hosts)
        if self.kind == "sentinel":
            return f"redis {self.service!r} of the sentinels {hosts}"
        return f"redis cluster {hosts}" if self.kind == "cluster" else f"redis at {hosts}"


def parse_url(url: str) -> tuple[Target, RedisOptions]:
    """Read a URL.

    Raises:
        ConfigError: it is not of one of the forms, or an option is wrong. Its text shows no part of the URL that may
            hold a password.
    """
    parts = urlsplit(url)
    kind = _KINDS.get(parts.scheme)
    if kind is None:
        raise ConfigError(f"{parts.scheme}:// is not a redis URL: use one of {', '.join(_EXAMPLES.values())}")
    options = parse_options(RedisOptions, query_options(url), scheme=parts.scheme)
    if parts.fragment:
        raise _wrong(kind, "has no fragment (write '#' as %23)")
    username, password = _credentials(parts)
    target = Target(
        kind=kind,
        hosts=() if kind == "socket" else _hosts(parts, kind),
        path=unquote(parts.path) if kind == "socket" else "",
        service=_service(parts) if kind == "sentinel" else "",
        db=_database(parts, kind, options),
        username=username,
        password=password,
        tls=parts.scheme == "rediss",
    )
    if kind == "socket" and len(target.path) < 2:
        raise _wrong(kind, "names a path")
    return target, options


def _wrong(kind: Kind, what: str) -> ConfigError:
    return ConfigError(f"a URL of this form {what}: {_EXAMPLES[kind]}")


def _credentials(parts: SplitResult) -> tuple[str | None, str | None]:
    userinfo = parts.netloc.rpartition("@")[0]
    username, _, password = userinfo.partition(":")
    return unquote(username) or None, unquote(password) or None


def _hosts(parts: SplitResult, kind: Kind) -> tuple[tuple[str, int], ...]:
    default = 26379 if kind == "sentinel" else 6379
    hosts = tuple(_host(text, default, kind) for text in parts.netloc.rpartition("@")[2].split(","))
    if len(hosts) > 1 and kind == "server":
        raise _wrong(kind, "names one host")
    return hosts


def _host(text: str, default: int, kind: Kind) -> tuple[str, int]:
    one = urlsplit(f"//{text}")
    try:
        host, port = one.hostname, one.port
    except ValueError:  # not shown: it may quote a part of the password
        raise _wrong(kind, "has numbers as ports, and a password's / written as %2F") from None
    if not host:
        if kind != "server" or text:
            raise _wrong(kind, "names hosts")
        host = "localhost"
    return host, default if port is None else port


def _service(parts: SplitResult) -> str:
    service = unquote(parts.path.removeprefix("/").partition("/")[0])
    if not service:
        raise _wrong("sentinel", "names the service")
    return service


def _database(parts: SplitResult, kind: Kind, options: RedisOptions) -> int:
    path = "" if kind == "socket" else parts.path.removeprefix("/")
    if kind == "sentinel":
        path = path.partition("/")[2]
    text = path.removesuffix("/")
    if text and not text.isdecimal():
        raise _wrong(kind, "has the database's number at its end")
    if text and options.db is not None and int(text) != options.db:
        raise ConfigError(f"the URL names database {text} and db={options.db}: leave one out")
    db = int(text) if text else options.db or 0
    if db < 0 or (db and kind == "cluster"):
        raise ConfigError(f"database {db}: a cluster has database 0 only" if db > 0 else f"db={db}: use 0 or more")
    return db
