"""One server process: a connection for writing and one for reading, its scripts, and its replicas."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Literal, NamedTuple, TypeAlias

from redis.exceptions import ResponseError

from streamhub.errors import BackendUnavailableError
from streamhub_redis.dialling import Dial
from streamhub_redis.faults import code_of
from streamhub_redis.options import RedisOptions
from streamhub_redis.pipeline import Pipeline
from streamhub_redis.resp import pack
from streamhub_redis.scripts import APPEND, Script
from streamhub_redis.wire import Reply, Wire

Lane: TypeAlias = Literal["write", "read"]
"""Which connection a call takes: large pages do not keep appends, leases and cancels waiting."""

_ASKING = pack(b"ASKING")
_PING = pack(b"PING")

_UNTOLD, _TOLD = 1, 2  # what ``append.lua`` returns of what it stored: whether somebody listens

# How often a script is loaded for one call: more means that the server drops it again at once.
_LOADS = 2


class Request(NamedTuple):
    """One command.

    Attributes:
        route: a key that says which node of a cluster it is for.
        command: packed.
        script: what it runs, to be loaded if the server does not have it.
    """

    route: bytes
    command: bytes
    script: Script | None = None


class Node:
    """A server and the connections to it.

    Args:
        dial: opens a connection.
        options: of the backend.
        where: what messages call the server.
        explain: makes a caller's answer of a refusal that remains; None to give it as it is.
    """

    def __init__(
        self,
        dial: Dial,
        options: RedisOptions,
        *,
        where: str,
        explain: Callable[[ResponseError], Reply] | None = None,
    ) -> None:
        self.where = where
        self._explain = explain
        self._dial = dial
        self._address = ""  # to which the newest connection leads
        self._replicas = options.wait_replicas
        self._heard = True  # by somebody, what was appended last
        self._pipelines: dict[Lane, Pipeline] = {"write": self._pipeline(options), "read": self._pipeline(options)}

    def _pipeline(self, options: RedisOptions) -> Pipeline:
        return Pipeline(
            self.listener,
            where=self.where,
            timeout_seconds=options.timeout_seconds,
            # 0 ms would be for ever.
            confirmation=pack(b"WAIT", b"%d" % self._replicas, b"%d" % math.ceil(options.wait_seconds * 1000)),
            on_demoted=self._leave,
        )

    def _leave(self) -> None:
        for pipeline in self._pipelines.values():
            pipeline.leave()

    def reopen(self) -> None:
        """Take calls again after ``aclose``."""
        for pipeline in self._pipelines.values():
            pipeline.reopen()

    async def command(self, *args: bytes, lane: Lane = "read") -> Reply:
        """Run one command."""
        return (await self._pipelines[lane].run([pack(*args)]))[0]

    async def run(
        self, requests: Sequence[Request], *, lane: Lane, storing: bool = False, asking: bool = False
    ) -> list[Reply]:
        """Run requests in order; their replies are raw, and so are refusals unless ``explain`` was given.

        Args:
            requests: what to run.
            lane: over which connection.
            storing: they store and publish: a reply that too few replicas confirm is replaced by
                ``BackendUnavailableError`` (by the refusal, if the user may not wait), and subscribers are told first.
            asking: say that the slot is being moved here.
        """
        if not requests:
            return []
        replies = await self._send(requests, lane=lane, storing=storing, asking=asking)
        for reply in replies:
            if isinstance(reply, ResponseError):
                await self._settle(requests, replies, lane=lane, storing=storing, asking=asking)
                break
        if storing and requests[0].script is APPEND and (_TOLD in replies or _UNTOLD in replies):
            self._heard = _TOLD in replies  # else nothing tells: refused, or not confirmed
        return replies

    async def _settle(
        self, requests: Sequence[Request], replies: list[Reply], *, lane: Lane, storing: bool, asking: bool
    ) -> None:
        """Run again what the server had not got the script for, and explain the refusals that remain."""
        loads = 0
        while loads < _LOADS and (places := _forgotten(replies)):
            loads += 1
            again = [requests[place] for place in places]
            await self.load({request.script for request in again if request.script is not None}, lane=lane)
            answered = await self._send(again, lane=lane, storing=storing, asking=asking)
            for place, reply in zip(places, answered, strict=True):
                replies[place] = reply
        if self._explain is not None:
            for place, reply in enumerate(replies):
                if isinstance(reply, ResponseError):
                    replies[place] = self._explain(reply)

    async def load(self, scripts: Collection[Script], *, lane: Lane = "write") -> list[Reply]:
        """Let the server keep scripts."""
        return await self._pipelines[lane].run([script.load for script in scripts])

    def _send(self, requests: Sequence[Request], *, lane: Lane, storing: bool, asking: bool) -> Awaitable[list[Reply]]:
        commands = [request.command for request in requests]
        if asking or (storing and (self._heard or self._replicas)):
            return self._send_with_more(commands, lane=lane, storing=storing, asking=asking)
        return self._pipelines[lane].run(commands)

    async def _send_with_more(self, commands: list[bytes], *, lane: Lane, storing: bool, asking: bool) -> list[Reply]:
        if asking:
            commands = [part for command in commands for part in (_ASKING, command)]
        tells = storing and self._heard
        if tells:
            # A server answers its clients in the reverse order of their first replies. One reply before the scripts' is
            # all it takes for those who listen to be told before this process is: a fifth of their latency.
            commands.insert(0, _PING)
        waiting = storing and self._replicas > 0
        replies = await self._pipelines[lane].run(commands, confirmed=waiting)
        confirmed = replies.pop() if waiting else None
        if tells:
            del replies[0]
        if asking:
            replies = replies[1::2]
        return self._confirm(replies, confirmed) if waiting else replies

    def _confirm(self, replies: list[Reply], confirmed: Reply) -> list[Reply]:
        if isinstance(confirmed, int) and confirmed >= self._replicas:
            return replies
        return [reply if isinstance(reply, ResponseError) else self._unconfirmed(confirmed) for reply in replies]

    def _unconfirmed(self, confirmed: Reply) -> Reply:
        if isinstance(confirmed, ResponseError):
            if code_of(confirmed) == "NOPERM":
                return confirmed
            # It was made a replica meanwhile: the outcome is unknown.
            return BackendUnavailableError(f"{self.where} stored it, but does not wait for replicas ({confirmed})")
        return BackendUnavailableError(
            f"{self.where} stored it, but {confirmed} of wait_replicas={self._replicas} replicas confirmed it in time"
        )

    async def listener(self) -> Wire:
        """Open a connection of its own; raises the driver's errors."""
        wire = await self._dial()
        if wire.address != self._address:
            # There is another master: reading from the old one would not show what was written to it.
            self._address = wire.address
            self._leave()
        return wire

    async def aclose(self) -> None:
        """Close the shared connections."""
        for pipeline in self._pipelines.values():
            await pipeline.aclose()


def _forgotten(replies: Sequence[Reply]) -> list[int]:
    """Say which replies are that the server has not got the script."""
    places: list[int] = []
    for place, reply in enumerate(replies):
        if isinstance(reply, ResponseError) and code_of(reply) == "NOSCRIPT":
            places.append(place)
    return places
