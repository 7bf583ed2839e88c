"""How a connection to the server in charge is made: directly, or by asking Sentinels who is master now."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from redis.exceptions import ConnectionError as DriverConnectionError
from redis.exceptions import RedisError

from streamhub_redis.options import RedisOptions
from streamhub_redis.resp import pack
from streamhub_redis.target import Target
from streamhub_redis.wire import Wire, elements, socket_wire, tcp_wire

Dial: TypeAlias = Callable[[], Awaitable[Wire]]
"""Opens a connection; raises the driver's errors."""


def dialler(target: Target, options: RedisOptions) -> Dial:
    """Return what connects to the server that a URL names (not for a cluster)."""
    if target.kind == "socket":
        return lambda: _opened(socket_wire(target, options))
    if target.kind == "sentinel":
        return Sentinels(target, options).dial
    host, port = target.hosts[0]
    return node_dialler(host, port, target, options)


def node_dialler(host: str, port: int, target: Target, options: RedisOptions) -> Dial:
    """Return what connects to one host."""
    return lambda: _opened(
        tcp_wire(
            host,
            port,
            options,
            tls=target.tls or options.tls,
            db=target.db,
            username=target.username,
            password=target.password,
        )
    )


async def _opened(wire: Wire) -> Wire:
    try:
        await wire.open()
    except BaseException:
        await wire.drop()
        raise
    return wire


class Sentinels:
    """Asks Sentinels for a master's address, before every connection: it may have changed."""

    def __init__(self, target: Target, options: RedisOptions) -> None:
        self._target = target
        self._options = options
        self._hosts = list(target.hosts)

    async def dial(self) -> Wire:
        """Connect to the master that a Sentinel names, if it says itself that it is one."""
        # Why each did not answer is left out: the reasons differ, and say little.
        error: Exception = DriverConnectionError(f"no sentinel that answers knows a master {self._target.service!r}")
        for place, (host, port) in enumerate(list(self._hosts)):
            try:
                address = await self._ask(host, port)
            except (RedisError, OSError):
                continue
            if address is None:
                continue
            try:
                wire = await self._connect(*address)
            except (RedisError, OSError) as exc:
                error = exc
                continue
            # The one that knew is asked first from now on.
            self._hosts.insert(0, self._hosts.pop(place))
            return wire
        raise error

    async def _ask(self, host: str, port: int) -> tuple[str, int] | None:
        options = self._options
        wire = tcp_wire(
            host,
            port,
            options,
            tls=options.tls,
            username=options.sentinel_username,
            password=options.sentinel_password,
        )
        try:
            await wire.open()
            command = pack(b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", self._target.service.encode())
            address = elements(await wire.call(command))
        finally:
            await wire.drop()
        return (address[0].decode(), int(address[1])) if address else None

    async def _connect(self, host: str, port: int) -> Wire:
        wire = await node_dialler(host, port, self._target, self._options)()
        try:
            role = elements(await wire.call(pack(b"ROLE")))
        except BaseException:
            await wire.drop()
            raise
        # A user who may not ask goes on: a replica refuses the first write, and that too ends the connection.
        if role and role[0] != b"master":
            await wire.drop()
            raise DriverConnectionError(f"{host}:{port} is not the master that a sentinel says it is")
        return wire
