"""How a connection to the server in charge is made: directly, or by asking Sentinels who is master now."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import NamedTuple, TypeAlias

from redis.exceptions import AuthenticationError, AuthorizationError, RedisError, ResponseError
from redis.exceptions import ConnectionError as DriverConnectionError

from streamhub.errors import ConfigError
from streamhub_redis.options import RedisOptions
from streamhub_redis.resp import pack
from streamhub_redis.target import Target
from streamhub_redis.wire import Wire, elements, socket_wire, tcp_wire

Dial: TypeAlias = Callable[[], Awaitable[Wire]]
"""Opens a connection; raises the driver's errors, and ConfigError where all Sentinels refuse the credentials."""

_GRACE_SECONDS = 0.5
"""How long the other Sentinels are waited for, once one has answered."""


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


class _Master(NamedTuple):
    """What a Sentinel knows of the master: the newest configuration is the greatest."""

    epoch: int
    host: str
    port: int


class Sentinels:
    """Asks Sentinels for a master's address, before every connection: it may have changed."""

    def __init__(self, target: Target, options: RedisOptions) -> None:
        self._target = target
        self._options = options

    async def dial(self) -> Wire:
        """Connect to the master of the newest configuration that a Sentinel knows, if it says itself that it is one.

        All are asked: one that has not heard of a failover names the old master, and that may run again, and take
        itself for the master until it is told otherwise. What it acknowledged meanwhile would be lost.
        """
        answers, failures = await self._answers()
        if not answers:
            raise self._unfound(failures)
        newest = max(answers)
        return await self._connect(newest.host, newest.port)

    async def _answers(self) -> tuple[list[_Master], dict[str, Exception]]:
        """Return what Sentinels know, and why those at other addresses do not say it."""
        clock = asyncio.get_running_loop().time
        answers: list[_Master] = []
        failures: dict[str, Exception] = {}

        async def ask(host: str, port: int) -> None:
            try:
                answers.append(await self._ask(host, port))
            except (RedisError, OSError) as exc:
                failures[f"{host}:{port}"] = exc
                return
            if limit.when() is None:
                limit.reschedule(clock() + _GRACE_SECONDS)

        with suppress(TimeoutError):
            async with asyncio.timeout(None) as limit:
                await asyncio.gather(*(ask(*host) for host in self._target.hosts))
        return answers, failures

    def _unfound(self, failures: dict[str, Exception]) -> Exception:
        reasons = ", ".join(f"{address} ({exc})" for address, exc in failures.items())
        if all(isinstance(exc, (AuthenticationError, AuthorizationError)) for exc in failures.values()):
            return ConfigError(
                f"the sentinels refused the credentials: {reasons}: correct sentinel_username and sentinel_password"
            )
        return DriverConnectionError(f"no sentinel names a master {self._target.service!r}: {reasons}")

    async def _ask(self, host: str, port: int) -> _Master:
        options, service = self._options, self._target.service.encode()
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
            facts = elements(await wire.call(pack(b"SENTINEL", b"MASTER", service))) or []
            # Afterwards: the address may be newer than the epoch says, but not older. Nor do the facts tell a replica
            # that is just being made the master.
            reply = await wire.call(pack(b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", service))
        finally:
            await wire.drop()
        if isinstance(reply, ResponseError):
            raise reply
        address = elements(reply)
        if not address:
            raise DriverConnectionError("it knows none of this name")
        # A user who may not ask for the facts gets no epoch: any Sentinel is believed then.
        known = dict(zip(facts[::2], facts[1::2], strict=True))
        return _Master(int(known.get(b"config-epoch", 0)), address[0].decode(), int(address[1]))

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
