"""Leaving: whoever leaves, however rudely, leaves no task, no follow and no lease behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any

from streamhub import (
    Backend,
    Change,
    ChangeFeed,
    Chunk,
    End,
    Holder,
    Hub,
    Producer,
    RequestFeed,
    StreamHubError,
    StreamNotFoundError,
    StreamStore,
)
from streamhub.conformance.contract import ContractTests
from streamhub.conformance.drive import (
    cancel_everywhere,
    dismiss,
    leave_released,
    leave_unfinished,
    live_tasks,
    produce_all,
    reading,
    replay,
    send_all,
    soon,
    until,
    words,
)
from streamhub.conformance.faulty import Faults, FaultyCancels, FaultyChangeFeed, FaultyLeases, FaultyStore
from streamhub.conformance.harness import Harness
from streamhub.conformance.waiting import PATIENCE_SECONDS, eventually, settle
from streamhub.conformance.writer import describe, read_all
from streamhub.settings import OnInterrupt


class _FollowLog(FaultyStore):
    """A store that knows which keys are followed through it."""

    def __init__(self, inner: StreamStore, faults: Faults) -> None:
        super().__init__(inner, faults)
        self.followed: set[str] = set()

    def changes(self) -> AbstractAsyncContextManager[ChangeFeed]:
        """See ``StreamStore.changes``."""
        return self._logged()

    @contextlib.asynccontextmanager
    async def _logged(self) -> AsyncGenerator[ChangeFeed]:
        async with self._inner.changes() as feed:
            yield _LoggedFeed(feed, self._faults, self.followed)


class _LoggedFeed(FaultyChangeFeed):
    def __init__(self, inner: ChangeFeed, faults: Faults, followed: set[str]) -> None:
        super().__init__(inner, faults)
        self._followed = followed

    async def follow(self, key: str) -> None:
        """See ``ChangeFeed.follow``."""
        self._followed.add(key)  # a call that is cancelled may have happened
        await super().follow(key)

    async def unfollow(self, key: str) -> None:
        """See ``ChangeFeed.unfollow``."""
        await super().unfollow(key)
        self._followed.discard(key)

    def __aiter__(self) -> AsyncIterator[Change]:
        return aiter(self._inner)  # a faulty iteration has tasks of its own


class _Yielding(Faults):
    """Lets the event loop turn before and after every call, so that it can be cancelled there."""

    async def through(self, call: str, make: Callable[[], Awaitable[Any]]) -> Any:
        """See ``Faults.through``."""
        await asyncio.sleep(0)
        result = await super().through(call, make)
        await asyncio.sleep(0)
        return result


class _Watched:
    """A hub in which something else goes on all the time, and what there is of tasks and follows because of that."""

    def __init__(self, hub: Hub, store: _FollowLog) -> None:
        self.hub = hub
        self._store = store
        self._tasks = live_tasks()
        self._followed = set(store.followed)

    def add(self, *tasks: asyncio.Task[Any]) -> None:
        """Let these tasks be there, too."""
        self._tasks.update(tasks)

    async def assert_nothing_more(self) -> None:
        """Wait until nothing is there but what was noted, or fail."""
        gc.collect()
        await _only(self._tasks)
        with suppress(TimeoutError):
            await until(lambda: self._store.followed == self._followed, 5.0)
        assert self._store.followed == self._followed


async def _only(expected: set[asyncio.Task[Any]]) -> None:
    """Wait until there are no tasks but the expected ones, or fail."""
    with suppress(TimeoutError):
        await until(lambda: live_tasks() <= expected, 5.0)
    left = [f"{task.get_name()}: {task.get_coro()}" for task in live_tasks() - expected]
    assert left == [], left


class _PlainFeeds(FaultyCancels):
    """A cancel bus whose feed is the backend's own, for the same reason."""

    def requests(self) -> AbstractAsyncContextManager[RequestFeed]:
        """See ``CancelBus.requests``."""
        return self._inner.requests()


@contextlib.asynccontextmanager
async def _watched(harness: Harness) -> AsyncGenerator[_Watched]:
    backend, faults = await harness.make(), _Yielding()
    store = _FollowLog(backend.store, faults)
    hub = await harness.hub(
        backend,
        store=store,
        leases=FaultyLeases(backend.leases, faults),
        cancels=_PlainFeeds(backend.cancels, faults),
        lease_seconds=600.0,
    )
    key = harness.unique_key("background")
    async with hub.produce(key) as producer, reading(hub, key) as live:
        await send_all(producer, [b"a"])
        await live.has(1)
        yield _Watched(hub, store)


class LeavingTests(ContractTests):
    """K4 and K5."""

    async def test_a_subscriber_cancelled_at_any_await_leaves_nothing(self, harness: Harness) -> None:
        """K4: A subscriber cancelled at any await leaves no task, connection or waiter."""
        elsewhere = await harness.make()  # before the tasks are counted: a connection may have some of its own
        async with _watched(harness) as watched:
            hub, ended, live = watched.hub, harness.unique_key("ended"), harness.unique_key("live")
            await produce_all(hub, ended, words(3))
            talking = asyncio.create_task(_talk(elsewhere, live))
            await replay_some(hub, live, 1, wait=PATIENCE_SECONDS)
            watched.add(talking)
            for scenario in (
                lambda: replay(hub, ended),
                lambda: replay(hub, ended, "latest"),
                lambda: replay_some(hub, live, 2, after="latest"),
                lambda: _read_plainly(hub, ended),
                lambda: _wait_in_vain(hub, harness.unique_key("nowhere")),
            ):
                for late in (False, True):
                    assert await cancel_everywhere(scenario, watched.assert_nothing_more, late=late) > 1
            await dismiss(talking)

    async def test_a_subscriber_that_breaks_off_leaves_nothing(self, harness: Harness) -> None:
        """K4: … leaves no task, connection or waiter; so does one left by `break`."""
        elsewhere = await harness.make()
        async with _watched(harness) as watched:
            hub, ended, live = watched.hub, harness.unique_key("ended"), harness.unique_key("live")
            await produce_all(hub, ended, words(3))
            await leave_unfinished(elsewhere, live, words(3), lease_seconds=600.0)
            for key in (ended, live):
                for _ in range(3):
                    async for _ in hub.subscribe(key):
                        break
                    async for _ in hub.subscribe(key).batches():
                        break
                await watched.assert_nothing_more()
                subscription = hub.subscribe(key)
                await soon(anext(subscription))
                await subscription.aclose()
                await subscription.aclose()
                await watched.assert_nothing_more()

    async def test_a_producer_cancelled_at_any_await_leaves_nothing(self, harness: Harness) -> None:
        """K4: … so does a producer: every acknowledged chunk is stored once, and its lease is given back."""
        backend = await harness.make()
        async with _watched(harness) as watched:
            acknowledged, keys, handover = [0], [""], False

            async def scenario(on_interrupt: OnInterrupt) -> None:
                keys.append(harness.unique_key())
                acknowledged.append(0)
                async with watched.hub.produce(keys[-1], run="r1", on_interrupt=on_interrupt) as producer:
                    for chunk in words(2):
                        await producer.send(chunk)
                    acknowledged[-1] = (await producer.flush()).index
                    await producer.send(words(3)[-1])
                acknowledged[-1] = 3

            async def check() -> None:
                await _assert_released(backend, keys[-1])
                await watched.assert_nothing_more()
                info = await describe(backend.store, keys[-1])
                if info is None:
                    assert acknowledged[-1] == 0
                    return
                assert info.end is not None or handover
                stored = await read_all(backend.store, keys[-1])
                assert stored == words(len(stored))
                assert len(stored) >= acknowledged[-1]

            for late in (False, True):
                handover = False
                assert await cancel_everywhere(lambda: scenario("fail"), check, late=late) > 2
                handover = True
                assert await cancel_everywhere(lambda: scenario("handover"), check, late=late) > 2

    async def test_a_start_cancelled_at_any_await_leaves_nothing_half_done(self, harness: Harness) -> None:
        """K4: … so does a call of `start`: its run is produced, or it is not begun."""
        backend = await harness.make()
        async with _watched(harness) as watched:
            keys = [""]

            async def source(producer: Producer) -> None:
                await send_all(producer, words(3))

            async def scenario() -> None:
                keys.append(harness.unique_key())
                await watched.hub.start(keys[-1], source, run="r1")

            async def check() -> None:
                await watched.assert_nothing_more()
                await _assert_released(backend, keys[-1])
                if await describe(backend.store, keys[-1]) is not None:
                    assert await read_all(backend.store, keys[-1]) == words(3)

            for late in (False, True):
                assert await cancel_everywhere(scenario, check, late=late) > 0

    async def test_a_cancel_cancelled_at_any_await_leaves_nothing_half_done(self, harness: Harness) -> None:
        """K4: … so does a call of `cancel`: asked again, it gives its answer."""
        backend = await harness.make()
        async with _watched(harness) as watched:
            keys = [""]

            async def given() -> None:
                keys.append(harness.unique_key())
                await leave_released(backend, keys[-1], words(2))

            async def scenario() -> None:
                await watched.hub.cancel(keys[-1], run="r1", wait=PATIENCE_SECONDS)

            async def check() -> None:
                await watched.assert_nothing_more()
                await _assert_released(backend, keys[-1])
                result = await soon(watched.hub.cancel(keys[-1], run="r1", wait=PATIENCE_SECONDS))
                assert result.end == End(state="cancelled")
                assert await read_all(backend.store, keys[-1]) == words(2)

            for late in (False, True):
                assert await cancel_everywhere(scenario, check, given=given, late=late) > 2

    async def test_closing_cancelled_at_any_await_leaves_nothing(self, harness: Harness) -> None:
        """K4: … so does a hub whose closing is cancelled."""
        backend, before = await harness.make(), live_tasks()
        hubs: list[Hub] = []
        left: list[asyncio.Task[Any]] = []

        async def given() -> None:
            hub = await harness.hub(backend, store=_FollowLog(backend.store, _Yielding()))
            key, entered = harness.unique_key(), asyncio.Event()
            hubs.append(hub)
            left[:] = [asyncio.create_task(_produce_forever(hub, key, entered))]
            await entered.wait()
            left.append(asyncio.create_task(replay(hub, key)))
            await settle()

        async def scenario() -> None:
            await hubs[-1].aclose()

        async def check() -> None:
            # Producers are interrupted and subscribers told, though nobody waits for it.
            _, pending = await asyncio.wait(left, timeout=5.0)
            assert pending == set()
            for task in left:
                assert task.cancelled() or task.exception() is None or isinstance(task.exception(), StreamHubError)
            await _only(before)

        assert await cancel_everywhere(scenario, check, given=given) > 0

    async def test_a_thousand_attachments_leave_nothing(self, harness: Harness) -> None:
        """K5: 1 000 attach/detach leave all counts at zero."""
        elsewhere = [await harness.make() for _ in range(10)]
        async with _watched(harness) as watched:
            keys = [harness.unique_key() for _ in elsewhere]
            for key, backend in zip(keys, elsewhere, strict=True):
                await leave_unfinished(backend, key, words(2), lease_seconds=600.0)
            for _ in range(20):
                async with asyncio.TaskGroup() as group:
                    for key in keys * 5:
                        group.create_task(soon(replay_some(watched.hub, key, 1)))
            await watched.assert_nothing_more()


# --- scenarios


async def replay_some(hub: Hub, key: str, limit: int, **options: Any) -> list[Chunk]:
    """Read the first chunks of a stream, and leave."""
    async with hub.subscribe(key, **options) as subscription:
        return [await anext(subscription) for _ in range(limit)]


async def _read_plainly(hub: Hub, key: str) -> list[Chunk]:
    return [chunk async for chunk in hub.subscribe(key)]


async def _wait_in_vain(hub: Hub, key: str) -> None:
    with suppress(StreamNotFoundError):
        await replay(hub, key, wait=0.02)


async def _talk(backend: Backend, key: str) -> None:
    _, writer = await leave_unfinished(backend, key, lease_seconds=600.0)
    while True:
        await writer.append(b"x")
        await asyncio.sleep(0.002)


async def _produce_forever(hub: Hub, key: str, entered: asyncio.Event) -> None:
    async with hub.produce(key) as producer:
        await producer.send(b"a")
        entered.set()
        await asyncio.Event().wait()


async def _assert_released(backend: Backend, key: str) -> None:
    async def holders() -> Sequence[Holder | None]:
        return await backend.leases.holders([key])

    await eventually(holders, lambda found: found == [None])
