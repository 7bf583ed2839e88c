"""Ends: deliberate ones are clean, accidents are loud, and both are told apart by whoever reads, now or later."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import pytest

from streamhub import (
    BackendUnavailableError,
    DrainingError,
    End,
    Event,
    Hub,
    HubClosedError,
    LeaseLostError,
    OffsetTrimmedError,
    Producer,
    ProducerCancelledError,
    StreamAbandonedError,
    StreamDeletedError,
    StreamEndedError,
    StreamFailedError,
    StreamFailure,
    StreamHubError,
    StreamReplacedError,
)
from streamhub.conformance.drive import (
    PageLog,
    Reading,
    Stalled,
    collect,
    data_of,
    dismiss,
    leave_released,
    produce_all,
    read_end,
    reading,
    replay,
    send_all,
    soon,
    until,
    words,
)
from streamhub.conformance.faulty import Faults, faulty
from streamhub.conformance.harness import Harness
from streamhub.conformance.interruptions import InterruptionTests
from streamhub.conformance.waiting import PATIENCE_SECONDS, settle
from streamhub.conformance.writer import Writer, describe, described
from streamhub.protocols import StreamStore
from streamhub.types import COMPLETED, Metadata

SECRET = "password of the upstream"  # noqa: S105 - must not be published


class EndsTests(InterruptionTests):
    """T1 to T10."""

    async def test_live_and_late_subscribers_tell_the_ends_apart(self, harness: Harness) -> None:
        """T1: completed, failed, cancelled and abandoned are told apart by live and late subscribers alike."""
        here, there = await harness.hub(), await harness.hub(abandon_after_seconds=0.2)
        for way, end_so in _WAYS_TO_END.items():
            key = harness.unique_key()
            async with reading(there, key, wait=PATIENCE_SECONDS) as live:
                await settle()
                await end_so(harness, here, key)
                assert await _told(live) == way
            async with reading(here, key) as late, reading(there, key) as later:
                assert await _told(late) == await _told(later) == way

    async def test_strict_false_turns_every_stored_end_into_a_clean_finish(self, harness: Harness) -> None:
        """T1: `strict=False` turns every stored end into a clean finish; the end still says which."""
        here, there = await harness.hub(), await harness.hub(abandon_after_seconds=0.2)
        for way, end_so in _WAYS_TO_END.items():
            key = harness.unique_key()
            async with reading(there, key, wait=PATIENCE_SECONDS, strict=False) as live:
                await settle()
                await end_so(harness, here, key)
                assert await _told(live) == way
            if way != "abandoned":
                end = await read_end(there, key)
                assert end == live.end is not None

    async def test_a_published_failure_survives(self, harness: Harness) -> None:
        """T2: A failure's code and message survive."""
        here, there = await harness.hub(), await harness.hub()
        key, failure = harness.unique_key(), StreamFailure("overloaded — 再试; \0 'quoted'", code="rate_limit")
        async with reading(there, key, wait=PATIENCE_SECONDS) as live:
            with pytest.raises(StreamFailure):
                async with here.produce(key) as producer:
                    await producer.send(b"a")
                    raise failure
            with pytest.raises(StreamFailedError) as caught:
                await live.finished()
        assert caught.value.end == End(state="failed", code=failure.code, message=failure.message)
        assert caught.value.key == key
        assert await read_end(here, key) == caught.value.end

    async def test_the_text_of_an_arbitrary_exception_is_not_published(self, harness: Harness) -> None:
        """T2: … an arbitrary exception's text is not published."""
        backend, hub = await harness.make(), await harness.hub()
        key = harness.unique_key()
        with pytest.raises(KeyError):
            async with hub.produce(key) as producer:
                await producer.send(b"a")
                raise KeyError(SECRET)
        end = await read_end(hub, key)
        assert end is not None
        assert (end.state, end.code) == ("failed", "KeyError")
        assert end.message
        assert SECRET not in repr(await described(backend.store, key))

    async def test_the_first_end_wins(self, harness: Harness) -> None:
        """T3: The first end wins; the same append again is idempotent, another raises StreamEndedError."""
        backend, hub = await harness.make(), await harness.hub()
        key = harness.unique_key()
        writer = Writer(backend.store, key)
        await writer.open()
        first = writer.item(b"a", end=COMPLETED)
        stored = await writer.put(first)
        assert await writer.put(first) == stored
        for another in (writer.item(end=End(state="failed", code="x")), writer.item(b"b"), writer.item(end=COMPLETED)):
            with pytest.raises(StreamEndedError) as caught:
                await writer.put(another)
            assert caught.value.end == COMPLETED
        assert data_of(await replay(hub, key)) == [b"a"]
        assert await read_end(hub, key) == COMPLETED

    async def test_a_body_that_raises_fails_the_run_and_its_caller(self, harness: Harness) -> None:
        """T4: A source that raises gives failed, and the exception still reaches the producer's caller."""
        here, there = await harness.hub(), await harness.hub()
        key, error = harness.unique_key(), ValueError("mine")
        with pytest.raises(ValueError, match="mine") as caught:
            async with here.produce(key) as producer:
                for chunk in words(5):
                    await producer.send(chunk)
                raise error
        assert caught.value is error
        assert data_of(await replay(there, key, strict=False)) == words(5)
        assert await read_end(there, key) == End(state="failed", code="ValueError", message="the producer failed")

    async def test_a_started_source_that_raises_fails_the_run(self, harness: Harness) -> None:
        """T4: A source that raises gives failed; here one that the hub runs, at each of its steps."""
        here, there = await harness.hub(), await harness.hub()

        async def midway(_: Producer) -> AsyncIterator[str]:
            yield "a"
            raise ValueError(SECRET)

        async def by_itself(producer: Producer) -> None:
            await producer.send("a")
            raise ValueError(SECRET)

        def at_once(_: Producer) -> Awaitable[None]:
            raise ValueError(SECRET)

        for source, chunks in ((midway, [b"a"]), (by_itself, [b"a"]), (at_once, [])):
            key = harness.unique_key()
            await here.start(key, source)
            async with there.subscribe(key) as subscription:
                with pytest.raises(StreamFailedError) as caught:
                    await collect(subscription)
            assert caught.value.end.code == "ValueError"
            assert SECRET not in str(caught.value)
            assert data_of(await replay(there, key, strict=False)) == chunks

    async def test_a_failing_observer_changes_nothing(self, harness: Harness, caplog: pytest.LogCaptureFixture) -> None:
        """T6: A failing user hook or observer changes nothing."""
        seen: list[str] = []

        def observer(event: Event) -> None:
            seen.append(event.name)
            raise RuntimeError("the observer is broken")

        faults, key = Faults(), harness.unique_key()
        backend, other = await harness.make(), await harness.hub()
        hub = await harness.hub(faulty(await harness.make(), faults), observer=observer)
        with caplog.at_level(logging.CRITICAL + 1, logger="streamhub"):
            await leave_released(backend, key, words(2))
            async with reading(hub, key) as live:
                await live.has(2)
                await produce_all(hub, key, [b"c"], run="r1", unfinished="resume")
                assert data_of(await live.finished()) == [*words(2), b"c"]
            with pytest.raises(ProducerCancelledError):
                async with hub.produce(key, run="r2"):
                    faults.break_feeds()
                    await until(lambda: "reconnect" in seen)
                    await other.cancel(key, run="r2")
                    await soon(asyncio.Event().wait())
            with pytest.raises(LeaseLostError):
                async with hub.produce(key, run="r3"):
                    faults.fail("renew", times=float("inf"))
                    await soon(asyncio.Event().wait())
            faults.clear()
            await hub.drain()
        assert {"append", "subscribe", "takeover", "reconnect", "cancel", "lease_lost", "drain"} <= set(seen)

    async def test_an_end_whose_reply_was_lost_is_stored_once(self, harness: Harness) -> None:
        """T7: An end whose reply was lost can be retried."""
        faults = Faults()
        backend, reader = await harness.make(), await harness.hub()
        hub = await harness.hub(faulty(await harness.make(), faults))
        for plan in (faults.lose_reply, faults.fail):
            for times in (1, 3):
                for last in ([], [b"last"]):
                    key = harness.unique_key()
                    async with hub.produce(key) as producer:
                        await send_all(producer, [b"a"])
                        plan("append", times=times)
                        for chunk in last:
                            await producer.send(chunk)
                    assert data_of(await replay(reader, key)) == [b"a", *last]
                    info = await described(backend.store, key)
                    assert (info.state, info.tail, info.end) == ("ended", 1 + len(last), COMPLETED)

    async def test_an_end_that_cannot_be_stored_is_an_error(self, harness: Harness) -> None:
        """T7: An end whose reply was lost can be retried; when it never comes, the caller is told."""
        faults, key = Faults(), harness.unique_key()
        backend = await harness.make()
        hub = await harness.hub(faulty(backend, faults), outage_seconds=0.3)
        with pytest.raises(BackendUnavailableError):
            async with asyncio.timeout(PATIENCE_SECONDS), hub.produce(key) as producer:
                await send_all(producer, [b"a"])
                faults.fail("append", times=float("inf"))
        assert (await described(backend.store, key)).end is None

    async def test_final_metadata_is_stored_with_the_end(self, harness: Harness) -> None:
        """T8: Final metadata is stored atomically with the end."""
        backend, hub = await harness.make(), await harness.hub()
        log = PageLog((await harness.make()).store)
        reader = await harness.hub(store=log)
        final = {"usage": {"tokens": 42}, "text": "é😀"}
        for _ in range(15):
            key, log.pages[:] = harness.unique_key(), []
            async with reading(reader, key, wait=PATIENCE_SECONDS) as live:
                watching = asyncio.create_task(_watch(backend.store, key))
                async with hub.produce(key, metadata={"model": "m"}) as producer:
                    await send_all(producer, words(3))
                    await live.has(3)
                    producer.set_metadata(final)
                await live.finished()
                found = await soon(watching)
            found += [(page.end, page.metadata) for _, page in log.pages]
            assert all(metadata == ({"model": "m"} if end is None else final) for end, metadata in found)
            assert (await described(backend.store, key)).metadata == final

    async def test_a_subscription_never_finishes_cleanly_without_a_stored_end(self, harness: Harness) -> None:
        """T9: No clean finish without a stored end."""
        backend, hub = await harness.make(), await harness.hub(max_chunks=8, overflow="trim")
        for expected, cause in _ACCIDENTS.items():
            faults, key = Faults(), harness.unique_key()
            patience = 0.2 if expected is StreamAbandonedError else 60.0
            reader = await harness.hub(
                faulty(await harness.make(), faults), outage_seconds=0.2, abandon_after_seconds=patience
            )
            await leave_released(backend, key, words(4))
            async with reading(reader, key) as live:
                await live.has(4)
                await settle(20)
                await cause(hub, reader, faults, key)
                with pytest.raises(expected):
                    await live.finished()
                assert live.data[:4] == words(4)
                assert live.end is None

    async def test_a_run_that_is_handed_over_has_no_end(self, harness: Harness) -> None:
        """T9: No clean finish without a stored end: not when its producer hands it over either."""
        here, there = await harness.hub(on_interrupt="handover"), await harness.hub()
        stalled = Stalled(here, harness.unique_key(), chunks=words(9))
        await stalled.ready()
        async with reading(there, stalled.key) as live:
            await live.has(9)
            await dismiss(stalled.task)
            with pytest.raises(StreamAbandonedError):
                await live.finished()

    async def test_a_deletion_is_told_to_those_who_read(self, harness: Harness) -> None:
        """T10: Delete during reading raises StreamDeletedError."""
        here, there = await harness.hub(), await harness.hub(window_bytes=1)
        key, source = harness.unique_key(), words(3000)
        stalled = Stalled(here, key, chunks=source)
        await stalled.ready()
        behind = there.subscribe(key)
        assert data_of(await collect(behind, limit=1)) == source[:1]
        async with reading(there, key) as live, reading(here, key) as local:
            await live.has(len(source))
            await local.has(len(source))
            assert await there.delete(key)
            for reader in (live, local):
                with pytest.raises(StreamDeletedError) as caught:
                    await reader.finished()
                assert caught.value.key == key
        with pytest.raises(StreamDeletedError):
            await collect(behind)
        with pytest.raises(StreamDeletedError):
            await replay(here, key)
        await dismiss(stalled.task)

    async def test_a_deletion_stops_the_producer(self, harness: Harness) -> None:
        """T10: Delete … stops a running producer too: its next append is refused, and it is told."""
        here, there = await harness.hub(), await harness.hub()
        key = harness.unique_key()
        with pytest.raises(StreamDeletedError):
            async with asyncio.timeout(PATIENCE_SECONDS), here.produce(key) as producer:
                await send_all(producer, [b"a"])
                assert await there.delete(key)
                await producer.send(b"b")
                await asyncio.Event().wait()
        assert await there.info(key) is None
        with pytest.raises(StreamDeletedError):
            await replay(there, key)


# --- ways to end


async def _complete(harness: Harness, hub: Hub, key: str) -> None:
    del harness
    await produce_all(hub, key, [b"a"])


async def _fail(harness: Harness, hub: Hub, key: str) -> None:
    del harness
    with suppress(ValueError):
        async with hub.produce(key) as producer:
            await producer.send(b"a")
            raise ValueError


async def _cancel(harness: Harness, hub: Hub, key: str) -> None:
    del harness
    with suppress(ProducerCancelledError):
        async with hub.produce(key, run="r1") as producer:
            await producer.send(b"a")
            await hub.cancel(key, run="r1")
            await soon(asyncio.Event().wait())


async def _abandon(harness: Harness, hub: Hub, key: str) -> None:
    del hub
    await leave_released(await harness.make(), key, [b"a"])


_WAYS_TO_END: dict[str, Callable[[Harness, Hub, str], Awaitable[None]]] = {
    "completed": _complete,
    "failed": _fail,
    "cancelled": _cancel,
    "abandoned": _abandon,
}


async def _told(live: Reading) -> str:
    """Say how a reading ended, as its application learns it."""
    try:
        assert data_of(await live.finished()) == [b"a"]
    except StreamFailedError as exc:
        return exc.end.state
    except StreamAbandonedError:
        return "abandoned"
    assert live.end is not None
    return live.end.state


# --- accidents: what a hub that writes, the hub that reads, its faults and the key can come to


async def _nobody_comes(hub: Hub, reader: Hub, faults: Faults, key: str) -> None:
    del hub, reader, faults, key


async def _delete(hub: Hub, reader: Hub, faults: Faults, key: str) -> None:
    del reader, faults
    await hub.delete(key)


async def _replace(hub: Hub, reader: Hub, faults: Faults, key: str) -> None:
    del reader, faults
    await produce_all(hub, key, words(8), run="r2", unfinished="replace")


async def _trim(hub: Hub, reader: Hub, faults: Faults, key: str) -> None:
    del reader
    faults.drop_hints, held = True, faults.pause("read")
    await produce_all(hub, key, words(20), run="r1", unfinished="resume", flush_each=True)
    held.resume()


async def _break(hub: Hub, reader: Hub, faults: Faults, key: str) -> None:
    del hub, reader, key
    faults.down = True
    faults.break_feeds()


async def _close(hub: Hub, reader: Hub, faults: Faults, key: str) -> None:
    del hub, faults, key
    await reader.aclose()


async def _drain(hub: Hub, reader: Hub, faults: Faults, key: str) -> None:
    del hub, faults, key
    await reader.drain()


_ACCIDENTS: dict[type[StreamHubError], Callable[[Hub, Hub, Faults, str], Awaitable[None]]] = {
    StreamAbandonedError: _nobody_comes,
    StreamDeletedError: _delete,
    StreamReplacedError: _replace,
    OffsetTrimmedError: _trim,
    BackendUnavailableError: _break,
    HubClosedError: _close,
    DrainingError: _drain,
}


async def _watch(store: StreamStore, key: str) -> list[tuple[End | None, Metadata]]:
    """Describe a stream as often as possible until it has ended; return every end and metadata seen."""
    found: list[tuple[End | None, Metadata]] = []
    while not found or found[-1][0] is None:
        if (info := await describe(store, key)) is not None:
            found.append((info.end, info.metadata))
        await asyncio.sleep(0)
    return found
