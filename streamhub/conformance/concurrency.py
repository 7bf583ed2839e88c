"""Concurrency: streams do not touch each other, and whoever leaves, however rudely, leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import signal
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from typing import Any

import pytest

from streamhub import (
    Backend,
    Change,
    ChangeFeed,
    Chunk,
    End,
    Holder,
    Hub,
    HubClosedError,
    HubContextError,
    Producer,
    RequestFeed,
    StreamHubError,
    StreamNotFoundError,
    StreamStore,
)
from streamhub.conformance.contract import ContractTests
from streamhub.conformance.drive import (
    cancel_everywhere,
    collect,
    data_of,
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
from streamhub.conformance.faulty import Faults, FaultyCancels, FaultyChangeFeed, FaultyLeases, FaultyStore, faulty
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
    assert left == []


class _PlainFeeds(FaultyCancels):
    """A cancel bus whose feed is the backend's own, for the same reason."""

    def requests(self) -> AbstractAsyncContextManager[RequestFeed]:
        """See ``CancelBus.requests``."""
        return self._inner.requests()


@contextlib.asynccontextmanager
async def _watched(harness: Harness, **settings: Any) -> AsyncGenerator[_Watched]:
    backend, faults = await harness.make(), _Yielding()
    store = _FollowLog(backend.store, faults)
    hub = await harness.hub(
        backend,
        store=store,
        leases=FaultyLeases(backend.leases, faults),
        cancels=_PlainFeeds(backend.cancels, faults),
        **settings,
    )
    key = harness.unique_key("background")
    async with hub.produce(key) as producer, reading(hub, key) as live:
        await send_all(producer, [b"a"])
        await live.has(1)
        yield _Watched(hub, store)


class ConcurrencyTests(ContractTests):
    """K1 to K9."""

    async def test_a_hundred_streams_are_isolated(self, harness: Harness) -> None:
        """K1: 100 streams × 5 subscribers are isolated."""
        here, there = await harness.hub(), await harness.hub()
        keys = [harness.unique_key() for _ in range(100)]
        async with asyncio.timeout(2 * PATIENCE_SECONDS), asyncio.TaskGroup() as group:
            readers = [
                (key, group.create_task(replay((here, there)[number % 2], key, wait=PATIENCE_SECONDS)))
                for key in keys
                for number in range(5)
            ]
            for number, key in enumerate(keys):
                group.create_task(produce_all((here, there)[number % 2], key, words(10, key)))
        for key, reader in readers:
            assert data_of(reader.result()) == words(10, key)

    async def test_concurrent_sends_keep_call_order(self, harness: Harness) -> None:
        """K2: Concurrent sends of one producer keep call order."""
        for buffer in (1, 100, 1_000_000):
            hub = await harness.hub(max_buffer_bytes=buffer)
            key, source = harness.unique_key(), words(100)
            async with hub.produce(key) as producer:
                offsets = await soon(asyncio.gather(*(producer.send(chunk) for chunk in source)))
            assert [offset.index for offset in offsets] == list(range(1, 101))
            chunks = await replay(hub, key)
            assert data_of(chunks) == source
            assert [chunk.offset for chunk in chunks] == offsets

    async def test_streams_with_a_common_prefix_never_mix(self, harness: Harness) -> None:
        """K3: Streams with a common prefix never mix."""
        here, there = await harness.hub(), await harness.hub()
        stem = harness.unique_key()
        keys = [stem + tail for tail in ("", ":", ":b", ":b:c", "/b", ".b", "*", "b", "%", "_", "?", " ", "\\", "é")]
        async with AsyncExitStack() as stack:
            live = [await stack.enter_async_context(reading(there, key, wait=PATIENCE_SECONDS)) for key in keys]
            producers = [await stack.enter_async_context(here.produce(key, run="r1")) for key in keys]
            for key, producer in zip(keys, producers, strict=True):
                await send_all(producer, words(3, key))
            for key, reader in zip(keys, live, strict=True):
                assert data_of(await reader.has(3)) == words(3, key)
            assert await _keys(there, stem) == set(keys)
            for key in keys:
                assert await _keys(there, key) == {other for other in keys if other.startswith(key)}
        assert await there.delete(keys[1])
        for key in keys[2:]:
            assert data_of(await replay(there, key)) == words(3, key)
        assert await _keys(there, stem) == {*keys} - {keys[1]}

    async def test_a_subscriber_cancelled_at_any_await_leaves_nothing(self, harness: Harness) -> None:
        """K4: A subscriber cancelled at any await leaves no task, connection or waiter."""
        async with _watched(harness) as watched:
            hub, ended, live = watched.hub, harness.unique_key("ended"), harness.unique_key("live")
            await produce_all(hub, ended, words(3))
            talking = asyncio.create_task(_talk(await harness.make(), live))
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
        async with _watched(harness) as watched:
            hub, ended, live = watched.hub, harness.unique_key("ended"), harness.unique_key("live")
            await produce_all(hub, ended, words(3))
            await leave_unfinished(await harness.make(), live, words(3), lease_seconds=600.0)
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
        async with _watched(harness, lease_seconds=600.0) as watched:
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
        async with _watched(harness, lease_seconds=600.0) as watched:
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
        async with _watched(harness, lease_seconds=600.0) as watched:
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
        async with _watched(harness) as watched:
            keys = [harness.unique_key() for _ in range(10)]
            for key in keys:
                await leave_unfinished(await harness.make(), key, words(2), lease_seconds=600.0)
            for _ in range(20):
                async with asyncio.TaskGroup() as group:
                    for key in keys * 5:
                        group.create_task(soon(replay_some(watched.hub, key, 1)))
            await watched.assert_nothing_more()

    async def test_connections_grow_per_process(self, harness: Harness) -> None:
        """K6: Connections grow per process, not per subscriber."""
        faults = Faults()
        hub, backend = await harness.hub(faulty(await harness.make(), faults)), await harness.make()
        keys = [harness.unique_key() for _ in range(25)]
        for key in keys:
            await leave_unfinished(backend, key, words(1), lease_seconds=600.0)
        async with AsyncExitStack() as stack:
            live = [await stack.enter_async_context(reading(hub, key)) for key in keys * 8]
            for reader in live:
                await reader.has(1)
            for _ in range(10):
                await stack.enter_async_context(hub.produce(harness.unique_key()))
            assert faults.calls["changes"] == 1
            assert faults.calls["requests"] == 1
            assert faults.calls["follow"] < len(live), "readers of one stream share its hints"

    async def test_another_event_loop_is_refused(self, harness: Harness) -> None:
        """K7: A second event loop, or a fork: clear error."""
        hub = await harness.hub()
        key = harness.unique_key()
        for use in _USES:
            with pytest.raises(HubContextError, match="loop"):
                await asyncio.to_thread(asyncio.run, _bounded(use(hub, key)))
        await produce_all(hub, key, [b"a"])
        assert data_of(await replay(hub, key)) == [b"a"]

    async def test_a_fork_is_refused(self, harness: Harness) -> None:
        """K7: A second event loop, or a fork: clear error."""
        hub = await harness.hub()
        key = harness.unique_key()
        assert await _in_a_fork(lambda: _use_all(hub, key)) == " ".join(["HubContextError"] * len(_USES))
        # What the parent has goes on.
        await produce_all(hub, key, [b"a"])
        assert data_of(await replay(hub, key)) == [b"a"]

    async def test_closing_the_hub_ends_its_subscribers(self, harness: Harness) -> None:
        """K8: Closing the hub ends subscribers with HubClosedError."""
        hub, backend = await harness.hub(), await harness.make()
        key = harness.unique_key()
        await leave_unfinished(backend, key, words(50), lease_seconds=600.0)
        begun, unopened, batched = hub.subscribe(key), hub.subscribe(key), hub.subscribe(key)
        await collect(begun, limit=10)
        batches = aiter(batched.batches())
        await soon(anext(batches))
        async with reading(hub, key) as live, reading(hub, harness.unique_key(), wait=60.0) as waiting:
            await live.has(50)
            await settle()
            await soon(hub.aclose())
            for reader in (live, waiting):
                with pytest.raises(HubClosedError):
                    await reader.finished()
        for subscription in (begun, unopened, begun):
            with pytest.raises(HubClosedError):
                await soon(anext(subscription))
        with pytest.raises(HubClosedError):
            await soon(anext(batches))
        with pytest.raises(HubClosedError):
            hub.subscribe(key)

    async def test_lists_of_keys_agree_with_reality_after_churn(self, harness: Harness) -> None:
        """K9: keys(state=…) agrees with reality after churn."""
        here, there, backend = await harness.hub(), await harness.hub(), await harness.make()
        dice = random.Random(9)
        states: dict[str, str] = {harness.unique_key(): "none" for _ in range(24)}
        async with AsyncExitStack() as producing:
            for key in [dice.choice(list(states)) for _ in range(80)]:
                states[key] = await _churn(dice, states[key], key, here, backend, producing)
            for state in ("live", "orphaned", "ended"):
                expected = {key for key, found in states.items() if found == state}
                assert await _keys(there, harness.prefix, state=state) == expected, state
            stored = {key for key, state in states.items() if state in {"live", "orphaned", "ended"}}
            assert await _keys(there, harness.prefix) == stored
            assert {key async for key in there.orphans(harness.prefix)} == {
                key for key, state in states.items() if state == "orphaned"
            }
            for key in states:
                assert (await there.info(key) is not None) == (key in stored)
        assert set(states.values()) >= {"live", "orphaned", "ended", "deleted"}


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


async def _keys(hub: Hub, prefix: str, **options: Any) -> set[str]:
    found = [key async for key in hub.keys(prefix, **options)]
    assert len(found) == len(set(found)), "each once"
    return set(found)


async def _churn(
    dice: random.Random, state: str, key: str, hub: Hub, backend: Backend, producing: AsyncExitStack
) -> str:
    """Do something that is possible with a stream in this state; return its new state."""
    if state == "live":
        return state
    action = dice.choice(("produce", "produce", "leave", "delete", "live"))
    if action == "delete":
        assert await hub.delete(key) == (state in {"orphaned", "ended"})
        return "deleted" if state != "none" else "none"
    run = f"run {dice.random()}"
    if action == "leave":
        if state == "orphaned":
            return state
        await leave_released(backend, key, words(1), run=run)
        return "orphaned"
    if action == "produce":
        await produce_all(hub, key, words(1), run=run, unfinished="replace")
        return "ended"
    await producing.enter_async_context(hub.produce(key, run=run, unfinished="replace"))
    return "live"


# --- other loops, other processes


async def _produce(hub: Hub, key: str) -> None:
    async with hub.produce(key) as producer:
        await producer.send(b"from elsewhere")


async def _never(producer: Producer) -> None:
    raise AssertionError(f"the source of {producer.key!r} was called")


_USES: list[Callable[[Hub, str], Coroutine[Any, Any, object]]] = [
    _produce,
    lambda hub, key: hub.start(key, _never),
    _read_plainly,
    lambda hub, key: hub.cancel(key),
    lambda hub, key: hub.info(key),
    lambda hub, key: hub.delete(key),
    lambda hub, key: _keys(hub, key),
    lambda hub, _: hub.ping(),
    lambda hub, _: hub.drain(),
    lambda hub, _: hub.aclose(),
]


async def _use_all(hub: Hub, key: str) -> str:
    outcomes: list[str] = []
    for use in _USES:
        try:
            await _bounded(use(hub, key))
            outcomes.append("nothing")
        except Exception as exc:  # noqa: BLE001 - named to the parent, which judges
            outcomes.append(type(exc).__name__)
    return " ".join(outcomes)


async def _bounded(use: Coroutine[Any, Any, object]) -> object:
    return await soon(use, 5.0)


async def _in_a_fork(work: Callable[[], Coroutine[Any, Any, str]]) -> str:
    """Run work in an event loop of a forked process; return what it returns."""
    receiving, sending = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # about threads: the child uses none of the parent's
        child = os.fork()
    if child == 0:
        try:
            os.write(sending, asyncio.run(work()).encode())
        finally:
            os._exit(0)
    os.close(sending)
    try:
        with open(receiving, "rb") as answer:
            return (await soon(asyncio.to_thread(answer.read))).decode()
    finally:
        os.kill(child, signal.SIGKILL)
        await asyncio.to_thread(os.waitpid, child, 0)
