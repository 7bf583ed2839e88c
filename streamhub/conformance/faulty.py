"""Faults on purpose: the three protocols, wrapped so that a case can lose replies, fail, delay and pause calls.

    faults = Faults()
    backend = faulty(await harness.make(), faults)
    faults.lose_reply("append")             # the next append is stored, and its caller is not told
    faults.fail("renew", times=2)           # the next two renewals are not made
    pause = faults.pause("open")            # the next open waits
    await pause.reached.wait(); ...; pause.resume()
    faults.drop_hints = True                # notifications, of changes and cancel requests, are swallowed
    faults.late_hints = 3                   # each is yielded three hints late, and twice
    faults.break_feeds()                    # every feed fails, as when its connection is dropped
    faults.down = True                      # nothing answers, until it is False again

Calls are named as in the protocols: open append read describe keys delete sweep changes follow unfollow, acquire renew
release holders, request pending requests listen unlisten, connect ping.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from streamhub.errors import BackendUnavailableError, StreamHubError
from streamhub.protocols import Backend, CancelBus, ChangeFeed, LeaseManager, RequestFeed, StreamStore
from streamhub.types import (
    Append,
    Appended,
    CancelRequest,
    Change,
    Holder,
    Lease,
    Metadata,
    Page,
    Read,
    Retention,
    RunRef,
    Seen,
    StreamInfo,
)

T = TypeVar("T")


class Pause:
    """One paused call. ``reached`` is set when the call is there; it goes on after ``resume``."""

    def __init__(self) -> None:
        self.reached: asyncio.Event = asyncio.Event()
        self._resumed = asyncio.Event()

    def resume(self) -> None:
        """Let the call go on."""
        self._resumed.set()

    async def hold(self) -> None:
        """Wait here, as the paused call."""
        self.reached.set()
        await self._resumed.wait()


@dataclass
class _Fault:
    times: float
    when: Literal["before", "after"]
    act: Callable[[], Awaitable[None]]


@dataclass
class Faults:
    """What goes wrong, and when. One object may be shared by several wrapped parts.

    Attributes:
        drop_hints: feeds swallow everything they would yield.
        late_hints: how many hints behind a feed is: each is yielded when that many more have come, and then twice.
        down: every call raises ``BackendUnavailableError`` without being made, and feeds break.
        calls: how many calls of each name were begun, by name.
    """

    drop_hints: bool = False
    late_hints: int = 0
    down: bool = False
    calls: Counter[str] = field(default_factory=Counter[str])
    _planned: dict[str, list[_Fault]] = field(default_factory=dict[str, list[_Fault]])
    _breaker: asyncio.Event = field(default_factory=asyncio.Event)

    def fail(self, call: str, *, times: float = 1, error: Exception | None = None) -> None:
        """Let the next ``times`` such calls raise ``error`` (default: unavailable) without being made."""
        self._plan(call, times, "before", _raising(error or _unavailable(call)))

    def lose_reply(self, call: str, *, times: float = 1, error: Exception | None = None) -> None:
        """Let the next ``times`` such calls be made, and then raise ``error`` (default: unavailable)."""
        self._plan(call, times, "after", _raising(error or _unavailable(call)))

    def delay(self, call: str, seconds: float, *, times: float = 1) -> None:
        """Let the next ``times`` such calls be made ``seconds`` late."""
        self._plan(call, times, "before", lambda: asyncio.sleep(seconds))

    def pause(self, call: str, *, after: bool = False) -> Pause:
        """Hold the next such call before it is made, or ``after`` it was, until ``resume``."""
        pause = Pause()
        self._plan(call, 1, "after" if after else "before", pause.hold)
        return pause

    def clear(self) -> None:
        """Forget what is planned; calls that are paused already stay so."""
        self._planned.clear()

    def break_feeds(self) -> None:
        """Let every open feed raise ``BackendUnavailableError``; feeds opened later work."""
        self._breaker.set()
        self._breaker = asyncio.Event()

    @property
    def breaker(self) -> asyncio.Event:
        """Is set when the feeds open now are to break."""
        return self._breaker

    async def through(self, call: str, make: Callable[[], Awaitable[T]]) -> T:
        """Make one call, with what is planned for it."""
        self.calls[call] += 1
        fault = self._next(call)
        if fault is not None and fault.when == "before":
            await fault.act()
        if self.down:
            raise _unavailable(call)
        result = await make()
        if fault is not None and fault.when == "after":
            await fault.act()
        return result

    def _plan(
        self, call: str, times: float, when: Literal["before", "after"], act: Callable[[], Awaitable[None]]
    ) -> None:
        self._planned.setdefault(call, []).append(_Fault(times, when, act))

    def _next(self, call: str) -> _Fault | None:
        planned = self._planned.get(call)
        if not planned:
            return None
        fault = planned[0]
        fault.times -= 1
        if fault.times <= 0:
            planned.pop(0)
        return fault


def _unavailable(call: str) -> BackendUnavailableError:
    return BackendUnavailableError(f"fault injected into {call}")


def _raising(error: Exception) -> Callable[[], Awaitable[None]]:
    async def act() -> None:
        raise error

    return act


class _FaultyFeed(Generic[T]):
    """Yields what a feed yields, until it is broken; swallows it while hints are dropped."""

    def __init__(self, faults: Faults, hints: AsyncIterator[T]) -> None:
        self._faults = faults
        self._hints = hints
        self._breaker = faults.breaker
        self._late: deque[T] = deque()
        self._again: deque[T] = deque()

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        while True:
            if self._again:
                return self._again.popleft()
            hint = await self._next_unless_broken()
            if self._faults.drop_hints:
                continue
            if not self._faults.late_hints:
                return hint
            self._late.append(hint)
            if len(self._late) > self._faults.late_hints:
                self._again.append(self._late[0])
                return self._late.popleft()

    async def _next_unless_broken(self) -> T:
        coming = asyncio.ensure_future(anext(self._hints))
        broken = asyncio.ensure_future(self._breaker.wait())
        try:
            await asyncio.wait({coming, broken}, return_when=asyncio.FIRST_COMPLETED)
            if broken.done() or self._faults.down:
                raise _unavailable("feed")
            return coming.result()
        finally:
            coming.cancel()
            broken.cancel()
            await asyncio.gather(coming, broken, return_exceptions=True)


class FaultyChangeFeed:
    """A change feed with faults."""

    def __init__(self, inner: ChangeFeed, faults: Faults) -> None:
        self._inner = inner
        self._faults = faults

    async def follow(self, key: str) -> None:
        """See ``ChangeFeed.follow``."""
        await self._faults.through("follow", lambda: self._inner.follow(key))

    async def unfollow(self, key: str) -> None:
        """See ``ChangeFeed.unfollow``."""
        await self._faults.through("unfollow", lambda: self._inner.unfollow(key))

    def __aiter__(self) -> AsyncIterator[Change]:
        return _FaultyFeed(self._faults, aiter(self._inner))


class FaultyRequestFeed:
    """A feed of cancel requests with faults."""

    def __init__(self, inner: RequestFeed, faults: Faults) -> None:
        self._inner = inner
        self._faults = faults

    async def listen(self, ref: RunRef) -> None:
        """See ``RequestFeed.listen``."""
        await self._faults.through("listen", lambda: self._inner.listen(ref))

    async def unlisten(self, ref: RunRef) -> None:
        """See ``RequestFeed.unlisten``."""
        await self._faults.through("unlisten", lambda: self._inner.unlisten(ref))

    def __aiter__(self) -> AsyncIterator[CancelRequest | None]:
        return _FaultyFeed(self._faults, aiter(self._inner))


class FaultyStore:
    """A stream store with faults."""

    def __init__(self, inner: StreamStore, faults: Faults) -> None:
        self._inner = inner
        self._faults = faults
        self.groups_streams: bool = inner.groups_streams
        self.max_append_bytes: int = inner.max_append_bytes

    async def open(
        self,
        key: str,
        generation: int,
        *,
        owner: str,
        run: str,
        expect: Seen | None,
        resume: bool,
        attended: bool = True,
        metadata: Metadata | None = None,
        retention: Retention,
    ) -> StreamInfo:
        """See ``StreamStore.open``."""
        return await self._faults.through(
            "open",
            lambda: self._inner.open(
                key,
                generation,
                owner=owner,
                run=run,
                expect=expect,
                resume=resume,
                attended=attended,
                metadata=metadata,
                retention=retention,
            ),
        )

    async def append(self, batch: Sequence[Append]) -> Sequence[Appended | StreamHubError]:
        """See ``StreamStore.append``."""
        return await self._faults.through("append", lambda: self._inner.append(batch))

    async def read(self, reads: Sequence[Read]) -> Sequence[Page | StreamHubError]:
        """See ``StreamStore.read``."""
        return await self._faults.through("read", lambda: self._inner.read(reads))

    async def describe(self, keys: Sequence[str], *, touch: bool = False) -> Sequence[StreamInfo | None]:
        """See ``StreamStore.describe``."""
        return await self._faults.through("describe", lambda: self._inner.describe(keys, touch=touch))

    @contextlib.asynccontextmanager
    async def _changes(self) -> AsyncGenerator[ChangeFeed, None]:
        opening = self._inner.changes()
        feed = await self._faults.through("changes", opening.__aenter__)
        try:
            yield FaultyChangeFeed(feed, self._faults)
        finally:
            await opening.__aexit__(None, None, None)

    def changes(self) -> AbstractAsyncContextManager[ChangeFeed]:
        """See ``StreamStore.changes``."""
        return self._changes()

    async def keys(self, prefix: str = "") -> AsyncIterator[str]:
        """See ``StreamStore.keys``."""
        await self._faults.through("keys", _nothing)
        async for key in self._inner.keys(prefix):
            yield key

    async def delete(self, key: str) -> bool:
        """See ``StreamStore.delete``."""
        return await self._faults.through("delete", lambda: self._inner.delete(key))

    async def sweep(self, limit: int) -> int:
        """See ``StreamStore.sweep``."""
        return await self._faults.through("sweep", lambda: self._inner.sweep(limit))


class FaultyLeases:
    """A lease manager with faults."""

    def __init__(self, inner: LeaseManager, faults: Faults) -> None:
        self._inner = inner
        self._faults = faults
        self.min_ttl_seconds: float = inner.min_ttl_seconds
        self.default_ttl_seconds: float = inner.default_ttl_seconds

    async def acquire(
        self, key: str, *, owner: str, run: str, ttl_seconds: float, above: int = 0, void: int = 0
    ) -> Lease:
        """See ``LeaseManager.acquire``."""
        return await self._faults.through(
            "acquire",
            lambda: self._inner.acquire(key, owner=owner, run=run, ttl_seconds=ttl_seconds, above=above, void=void),
        )

    async def renew(self, leases: Sequence[Lease]) -> Sequence[bool]:
        """See ``LeaseManager.renew``."""
        return await self._faults.through("renew", lambda: self._inner.renew(leases))

    async def release(self, lease: Lease) -> None:
        """See ``LeaseManager.release``."""
        await self._faults.through("release", lambda: self._inner.release(lease))

    async def holders(self, keys: Sequence[str]) -> Sequence[Holder | None]:
        """See ``LeaseManager.holders``."""
        return await self._faults.through("holders", lambda: self._inner.holders(keys))


class FaultyCancels:
    """A cancel bus with faults."""

    def __init__(self, inner: CancelBus, faults: Faults) -> None:
        self._inner = inner
        self._faults = faults

    async def request(
        self, key: str, run: str, *, reason: str | None, requested_by: str | None, ttl_seconds: float
    ) -> bool:
        """See ``CancelBus.request``."""
        return await self._faults.through(
            "request",
            lambda: self._inner.request(key, run, reason=reason, requested_by=requested_by, ttl_seconds=ttl_seconds),
        )

    async def pending(self, runs: Sequence[RunRef]) -> Sequence[CancelRequest | None]:
        """See ``CancelBus.pending``."""
        return await self._faults.through("pending", lambda: self._inner.pending(runs))

    @contextlib.asynccontextmanager
    async def _requests(self) -> AsyncGenerator[RequestFeed, None]:
        opening = self._inner.requests()
        feed = await self._faults.through("requests", opening.__aenter__)
        try:
            yield FaultyRequestFeed(feed, self._faults)
        finally:
            await opening.__aexit__(None, None, None)

    def requests(self) -> AbstractAsyncContextManager[RequestFeed]:
        """See ``CancelBus.requests``."""
        return self._requests()


class FaultyBackend:
    """A backend whose parts share one ``Faults``."""

    def __init__(self, inner: Backend, faults: Faults) -> None:
        self._inner = inner
        self._faults = faults
        self._store = FaultyStore(inner.store, faults)
        self._leases = FaultyLeases(inner.leases, faults)
        self._cancels = FaultyCancels(inner.cancels, faults)

    @property
    def store(self) -> FaultyStore:
        """The streams."""
        return self._store

    @property
    def leases(self) -> FaultyLeases:
        """The leases."""
        return self._leases

    @property
    def cancels(self) -> FaultyCancels:
        """The cancel requests."""
        return self._cancels

    async def connect(self) -> None:
        """See ``Backend.connect``."""
        await self._faults.through("connect", self._inner.connect)

    async def ping(self) -> None:
        """See ``Backend.ping``."""
        await self._faults.through("ping", self._inner.ping)

    async def about(self) -> Mapping[str, str]:
        """See ``Backend.about``."""
        return await self._inner.about()

    async def aclose(self) -> None:
        """See ``Backend.aclose``."""
        await self._inner.aclose()


def faulty(backend: Backend, faults: Faults) -> FaultyBackend:
    """Wrap a connected backend; whoever made it still closes it."""
    return FaultyBackend(backend, faults)


async def _nothing() -> None:
    pass
