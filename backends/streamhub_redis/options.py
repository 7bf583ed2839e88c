"""Options of the URLs that name a Redis server."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from streamhub.errors import ConfigError
from streamhub.inputs import check_seconds

CertReqs: TypeAlias = Literal["required", "optional", "none"]

# No braces: the hash tag is the key's. No glob characters: SCAN and ACL patterns are made of it.
_PREFIX = re.compile(r"[A-Za-z0-9_.:/-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisOptions:
    """Options of a ``redis://``, ``rediss://``, ``unix://``, ``redis+sentinel://`` or ``redis+cluster://`` URL.

    Attributes:
        prefix: what every key and channel begins with; hubs with another prefix share nothing.
        db: the database, where the URL's path does not name it.
        wait_replicas: how many replicas must have what is acknowledged (``WAIT``); fewer is an unknown outcome.
        wait_seconds: how long a call waits for them.
        max_push_bytes: a larger append is hinted without its data; 0 never sends data along.
        client_name: name of the connections in ``CLIENT LIST``.
        timeout_seconds: how long the server may neither take anything nor say anything while a call waits for it.
        connect_seconds: how long a connection may take.
        ping_seconds: a listening connection idle for so long is tested; twice as long, and it is given up.
        tls: encrypt the connections to Sentinel's master or a cluster's nodes; ``rediss://`` always does.
        ssl_ca_certs: a file of the certificates to trust, instead of the system's.
        ssl_certfile: the client's certificate.
        ssl_keyfile: its private key.
        ssl_check_hostname: whether the server's certificate must name the host.
        ssl_cert_reqs: ``required``, ``optional`` or ``none``.
        sentinel_username: for the Sentinels themselves.
        sentinel_password: for the Sentinels themselves.
    """

    prefix: str = "streamhub"
    db: int | None = None
    wait_replicas: int = 0
    wait_seconds: float = 1.0
    max_push_bytes: int = 64 * 1024
    client_name: str | None = None
    timeout_seconds: float = 5.0
    connect_seconds: float = 5.0
    ping_seconds: float = 5.0
    tls: bool = False
    ssl_ca_certs: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_check_hostname: bool = True
    ssl_cert_reqs: CertReqs = "required"
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not _PREFIX.fullmatch(self.prefix):
            raise ConfigError(f"prefix={self.prefix!r}: use 1 to 64 of the characters A-Z a-z 0-9 _ . : / -")
        for name in ("wait_seconds", "timeout_seconds", "connect_seconds", "ping_seconds"):
            check_seconds(getattr(self, name), name)
        for name in ("wait_replicas", "max_push_bytes"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}={getattr(self, name)!r}: use 0 or more")
        if self.wait_replicas and self.wait_seconds >= self.timeout_seconds:
            raise ConfigError(
                f"wait_seconds={self.wait_seconds:g}: use less than timeout_seconds={self.timeout_seconds:g}"
            )
        if self.client_name is not None and (not self.client_name.isascii() or " " in self.client_name):
            raise ConfigError(f"client_name={self.client_name!r}: use ASCII without spaces")

    def check_files(self) -> None:
        """See that the files of certificates and keys can be read, so that no server is blamed for it.

        Raises:
            ConfigError: one cannot.
        """
        for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
            path: str | None = getattr(self, name)
            try:
                if path is not None:
                    Path(path).open("rb").close()
            except OSError as exc:
                raise ConfigError(f"{name}={path!r} cannot be read: {exc.strerror}") from exc
