"""Options of the URLs that name NATS servers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

from streamhub.errors import ConfigError
from streamhub.inputs import check_count, check_seconds

Storage: TypeAlias = Literal["file", "memory"]

_GREATEST = 2**63 - 1

# One token of a subject, and the end of a JetStream stream's name.
_NAMESPACE = re.compile(r"[A-Za-z0-9_-]{1,32}")
_SUBJECT = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class NatsOptions:
    """Options of a ``nats://``, ``tls://``, ``ws://`` or ``wss://`` URL.

    Attributes:
        namespace: names the JetStream streams and begins every subject; hubs with another namespace share nothing.
        replicas: how many servers keep a copy; None takes what exists, and creates with 1.
        storage: ``file`` or ``memory``; None takes what exists, and creates with ``file``.
        storage_bytes: what the chunks of a namespace may take when it is created; None for no limit of its own.
        create: whether missing JetStream streams are created.
        domain: the JetStream domain, where it is not the server's own.
        min_lease_seconds: the shortest lease that is allowed; None: 0.5 s, with replicas 20 s.
        timeout_seconds: how long a call waits for an answer.
        connect_seconds: how long a connection may take.
        ping_seconds: a connection idle for so long is tested; twice as long, and it is given up.
        client_name: begins the names of the connections that the server lists.
        inbox: what the subjects of answers begin with.
        creds: a file with a user's JWT and seed.
        nkey: a file with a user's seed.
        tls_first: encrypt before the server's first word.
        ssl_ca_certs: a file of the certificates to trust, instead of the system's.
        ssl_certfile: the client's certificate.
        ssl_keyfile: its private key.
        ssl_check_hostname: whether the server's certificate must name the host.
    """

    namespace: str = "streamhub"
    replicas: int | None = None
    storage: Storage | None = None
    storage_bytes: int | None = None
    create: bool = True
    domain: str | None = None
    min_lease_seconds: float | None = None
    timeout_seconds: float = 5.0
    connect_seconds: float = 5.0
    ping_seconds: float = 5.0
    client_name: str = "streamhub"
    inbox: str = "_INBOX"
    creds: str | None = None
    nkey: str | None = None
    tls_first: bool = False
    ssl_ca_certs: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_check_hostname: bool = True

    def __post_init__(self) -> None:
        if not _NAMESPACE.fullmatch(self.namespace):
            raise ConfigError(f"namespace={self.namespace!r}: use 1 to 32 of the characters A-Z a-z 0-9 _ -")
        if self.replicas is not None and self.replicas not in range(1, 6):
            raise ConfigError(f"replicas={self.replicas!r}: use 1 to 5, better 1, 3 or 5")
        if self.storage_bytes is not None:
            check_count(self.storage_bytes, "storage_bytes")
            if self.storage_bytes > _GREATEST:
                raise ConfigError(f"storage_bytes={self.storage_bytes}: use at most {_GREATEST}")
        for name in ("timeout_seconds", "connect_seconds", "ping_seconds"):
            check_seconds(getattr(self, name), name)
        if self.min_lease_seconds is not None:
            check_seconds(self.min_lease_seconds, "min_lease_seconds")
        for name, value in (("inbox", self.inbox), ("domain", self.domain)):
            if value is not None and not _SUBJECT.fullmatch(value):
                raise ConfigError(f"{name}={value!r}: use words of A-Z a-z 0-9 _ - with dots between")
        if self.creds is not None and self.nkey is not None:
            raise ConfigError("creds and nkey are both given: leave one out")

    @property
    def encrypted(self) -> bool:
        """Whether an option says that connections are encrypted, whatever the scheme is."""
        return self.tls_first or any((self.ssl_ca_certs, self.ssl_certfile, self.ssl_keyfile))
