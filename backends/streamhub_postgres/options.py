"""Options of a ``postgresql://`` URL: those of this backend, and the usual ones of libpq."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from typing import Literal, TypeAlias

from streamhub.errors import ConfigError
from streamhub.inputs import check_seconds

Setup: TypeAlias = Literal["auto", "never"]
Notify: TypeAlias = Literal["auto", "on", "off"]
Durability: TypeAlias = Literal["full", "relaxed"]

_SCHEMA = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")

MAX_PUSH_BYTES = 1500
"""Two of them, and the numbers that go with them, fit into the 8 000 bytes of one notification."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresOptions:
    """Options of a ``postgresql://`` URL.

    Attributes:
        schema: where the tables are; letters, digits and underscores.
        setup: ``auto`` makes or upgrades the schema when it is missing or old, ``never`` refuses to.
        notify: ``auto`` listens unless a pooler is in between, ``on`` always tries, ``off`` neither listens nor
            notifies: all processes of one schema should agree, for nobody is woken by one that does not notify.
        durability: ``relaxed`` acknowledges appends before they are flushed (``synchronous_commit = off``).
        push_bytes: the largest record that rides in its notification, so that no reader has to read it; 0 for none.
        timeout_seconds: how long the server may take for one statement.
        connect_seconds: how long connecting may take.
        probe_seconds: how often the listening connection is tested by a notification of its own.
        listen_host, listen_port: where to listen, if not where everything else goes: past a pooler.
        host, port, user, password, dbname, passfile, service, servicefile, target_session_attrs, connect_timeout,
        application_name, options: as in libpq.
        sslmode, sslcert, sslkey, sslpassword, sslrootcert, sslcrl, sslnegotiation, ssl_min_protocol_version,
        ssl_max_protocol_version, channel_binding, krbsrvname, gsslib: as in libpq.
    """

    schema: str = "streamhub"
    setup: Setup = "auto"
    notify: Notify = "auto"
    durability: Durability = "full"
    push_bytes: int = 512
    timeout_seconds: float = 10.0
    connect_seconds: float = 5.0
    probe_seconds: float = 15.0
    listen_host: str | None = None
    listen_port: int | None = None
    host: str | None = None
    port: str | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    dbname: str | None = None
    passfile: str | None = None
    service: str | None = None
    servicefile: str | None = None
    target_session_attrs: str = "read-write"
    connect_timeout: float | None = None
    application_name: str = "streamhub"
    options: str | None = None
    sslmode: str | None = None
    sslcert: str | None = None
    sslkey: str | None = None
    sslpassword: str | None = field(default=None, repr=False)
    sslrootcert: str | None = None
    sslcrl: str | None = None
    sslnegotiation: str | None = None
    ssl_min_protocol_version: str | None = None
    ssl_max_protocol_version: str | None = None
    channel_binding: Literal["disable", "prefer"] | None = None
    krbsrvname: str | None = None
    gsslib: str | None = None

    def __post_init__(self) -> None:
        if not _SCHEMA.fullmatch(self.schema):
            raise ConfigError(
                f"schema={self.schema!r}: use up to 63 letters, digits and underscores, a digit not first"
            )
        for name in ("timeout_seconds", "connect_seconds", "probe_seconds"):
            check_seconds(getattr(self, name), name)
        if self.connect_timeout is not None:
            check_seconds(self.connect_timeout, "connect_timeout")
        if not 0 <= self.push_bytes <= MAX_PUSH_BYTES:
            raise ConfigError(f"push_bytes={self.push_bytes!r}: use 0 to {MAX_PUSH_BYTES}")
        if self.listen_port is not None and not 0 < self.listen_port < 65536:
            raise ConfigError(f"listen_port={self.listen_port!r}: use 1 to 65535")

    @property
    def notifies(self) -> bool:
        """Whether this process listens, and notifies others."""
        return self.notify != "off"

    @property
    def connect_limit_seconds(self) -> float:
        """How long connecting may take, by whichever name it was given."""
        return self.connect_seconds if self.connect_timeout is None else self.connect_timeout


# What the driver is given in its own URL; it knows these names.
DRIVER_OPTIONS = frozenset(
    {
        "host",
        "port",
        "user",
        "password",
        "dbname",
        "passfile",
        "service",
        "servicefile",
        "sslmode",
        "sslcert",
        "sslkey",
        "sslpassword",
        "sslrootcert",
        "sslcrl",
        "sslnegotiation",
        "ssl_min_protocol_version",
        "ssl_max_protocol_version",
        "krbsrvname",
        "gsslib",
    }
)

OWN_OPTIONS = frozenset(option.name for option in fields(PostgresOptions)) - DRIVER_OPTIONS
