"""Concurrency: streams do not touch each other, and whoever leaves, however rudely, leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import warnings
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

import pytest

from streamhub import (
    Backend,
    Chunk,
    Hub,
    HubClosedError,
    HubContextError,
)
from streamhub.conformance.drive import (
    collect,
    data_of,
    leave_released,
    leave_unfinished,
    never,
    produce_all,
    reading,
    replay,
    send_all,
    soon,
    words,
)
from streamhub.conformance.faulty import Faults, faulty
from streamhub.conformance.harness import Harness
from streamhub.conformance.leaving import LeavingTests
from streamhub.conformance.waiting import PATIENCE_SECONDS, settle


class ConcurrencyTests(LeavingTests):
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


async def _read(hub: Hub, key: str) -> list[Chunk]:
    return [chunk async for chunk in hub.subscribe(key)]


async def _produce(hub: Hub, key: str) -> None:
    async with hub.produce(key) as producer:
        await producer.send(b"from elsewhere")


_USES: list[Callable[[Hub, str], Coroutine[Any, Any, object]]] = [
    _produce,
    lambda hub, key: hub.start(key, never),
    _read,
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
