"""One connection of the driver's, with only what is used here: commands go out as bytes, replies come back in order."""

from __future__ import annotations

import asyncio
from typing import Any, TypeAlias, cast

from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as DriverConnectionError
from redis.exceptions import ResponseError

from streamhub_redis.options import RedisOptions
from streamhub_redis.target import Target

Reply: TypeAlias = Any
"""What a server answers: bytes, int, a list of replies, None; a refused command's reply is its ``ResponseError``."""


def elements(reply: Reply) -> list[Any] | None:
    """Return the elements of a reply that is an array; None if it is something else."""
    return cast("list[Any]", reply) if isinstance(reply, list) else None


class Wire:
    """A connection that is used until its first error, and never opened again.

    The driver's own retries and reconnects are off: they would repeat what must not be repeated unseen, and lose
    subscriptions without a word. So are its time limits, which cost a task and a timer for every command: those who
    use a wire set limits for all they send together. Only tasks of this package's own use one.
    """

    def __init__(self, connection: Connection | UnixDomainSocketConnection, options: RedisOptions) -> None:
        self._connection = connection
        self._options = options
        host, port = getattr(connection, "host", ""), getattr(connection, "port", 0)
        self.address: str = f"{host}:{port}"

    async def open(self) -> None:
        """Connect and authenticate."""
        try:
            async with asyncio.timeout(self._options.connect_seconds):
                await self._connection.connect()
        except TimeoutError as exc:
            # A server that does not speak TLS waits for the rest of what it takes for a command.
            hint = "; does this port speak TLS?" if isinstance(self._connection, SSLConnection) else ""
            raise TimeoutError(f"no connection within {self._options.connect_seconds:g} s{hint}") from exc

    async def send(self, commands: list[bytes]) -> None:
        """Send packed commands."""
        if not self._connection.is_connected:
            raise DriverConnectionError("the connection was closed")
        await self._connection.send_packed_command(commands, check_health=False)

    async def listen(self, seconds: float) -> Reply:
        """Return the next message, None if none arrives within ``seconds``."""
        try:
            return cast("Reply", await self._connection.read_response(timeout=seconds))
        except ResponseError as exc:
            return exc

    async def call(self, command: bytes) -> Reply:
        """Send one command and return its reply."""
        async with asyncio.timeout(self._options.timeout_seconds):
            await self.send([command])
            try:
                return cast("Reply", await self._connection.read_response())
            except ResponseError as exc:
                return exc

    def hand_over(self, protocol: asyncio.Protocol) -> asyncio.Transport:
        """Let a protocol have all that arrives from now on. Nothing is awaited; ``drop`` remains to be called."""
        reader: asyncio.StreamReader | None = getattr(self._connection, "_reader", None)  # the driver's own
        writer: asyncio.StreamWriter | None = getattr(self._connection, "_writer", None)
        if reader is None or writer is None or reader.at_eof() or writer.is_closing():
            raise DriverConnectionError("the connection was closed")
        transport = cast("asyncio.Transport", writer.transport)
        transport.set_protocol(protocol)
        return transport

    async def drop(self) -> None:
        """Close the connection without waiting for the other side."""
        await self._connection.disconnect(nowait=True)


def tcp_wire(
    host: str,
    port: int,
    options: RedisOptions,
    *,
    tls: bool,
    db: int = 0,
    username: str | None = None,
    password: str | None = None,
) -> Wire:
    """Make a connection to a host, not opened yet."""
    common = _common(options, db=db, username=username, password=password)
    if not tls:
        return Wire(Connection(host=host, port=port, **common), options)
    return Wire(
        SSLConnection(
            host=host,
            port=port,
            ssl_ca_certs=options.ssl_ca_certs,
            ssl_certfile=options.ssl_certfile,
            ssl_keyfile=options.ssl_keyfile,
            ssl_check_hostname=options.ssl_check_hostname and options.ssl_cert_reqs != "none",
            ssl_cert_reqs=options.ssl_cert_reqs,
            **common,
        ),
        options,
    )


def socket_wire(target: Target, options: RedisOptions) -> Wire:
    """Make a connection to a socket in the file system, not opened yet."""
    common = _common(options, db=target.db, username=target.username, password=target.password)
    return Wire(UnixDomainSocketConnection(path=target.path, **common), options)


def _common(options: RedisOptions, *, db: int, username: str | None, password: str | None) -> dict[str, Any]:
    return {
        "db": db,
        "username": username,
        "password": password,
        "client_name": options.client_name,
        "socket_timeout": None,
        "socket_connect_timeout": options.connect_seconds,
        "retry": Retry(NoBackoff(), 0),
        # RESP2: what a subscribed connection may do and say is the same on every version.
        "protocol": 2,
        "driver_info": None,
    }
