"""Losing a lease: a producer that has lost it, or cannot know, writes nothing more and is told."""

from __future__ import annotations

import asyncio
import time

import pytest

from streamhub import (
    LeaseLostError,
    StaleGenerationError,
)
from streamhub.conformance.contract import ContractTests
from streamhub.conformance.drive import (
    UNPOLLED,
    data_of,
    replay,
    send_all,
    soon,
    ttl_of,
    until,
)
from streamhub.conformance.faulty import Faults, faulty
from streamhub.conformance.harness import Harness
from streamhub.conformance.process import Peer
from streamhub.conformance.waiting import PATIENCE_SECONDS, SLACK
from streamhub.conformance.writer import Writer, described


class LosingTests(ContractTests):
    """L5 and L6 as users meet them."""

    async def test_a_paused_process_that_was_overtaken_is_refused_and_told(self, harness: Harness) -> None:
        """L5: A paused producer (SIGSTOP past the time-to-live) is refused when it wakes, and told."""
        hub = await harness.hub()
        key = harness.unique_key()
        async with harness.process() as peer:
            await soon(peer.call("produce", key, run="r1"))
            await soon(peer.call("send", key, b"before"))
            await soon(peer.call("flush", key))
            peer.stop()
            async with hub.produce(key, run="r1", unfinished="resume", wait=PATIENCE_SECONDS) as producer:
                await send_all(producer, [b"successor"])
                late = asyncio.create_task(_send_there(peer, key))
                peer.cont()
                with pytest.raises((StaleGenerationError, LeaseLostError)):
                    await soon(peer.call("outcome", key))
                with pytest.raises((StaleGenerationError, LeaseLostError)):
                    await soon(late)
                await producer.send(b"more")
        assert data_of(await replay(hub, key)) == [b"before", b"successor", b"more"]

    async def test_a_paused_producer_that_was_overtaken_is_refused_and_told(self, harness: Harness) -> None:
        """L5: A paused producer (… past the time-to-live) is refused when it wakes, and told."""
        faults, key = Faults(), harness.unique_key()
        paused, hub = await harness.hub(faulty(await harness.make(), faults)), await harness.hub()
        entered, go_on = asyncio.Event(), asyncio.Event()

        async def produce() -> None:
            async with paused.produce(key, run="r1") as producer:
                await send_all(producer, [b"before"])
                entered.set()
                await go_on.wait()
                await send_all(producer, [b"late"])

        victim = asyncio.create_task(produce())
        await soon(entered.wait())
        # Its append has passed every check of its own, and stands still before the store.
        held = faults.pause("append")
        faults.fail("renew", times=float("inf"))
        go_on.set()
        await soon(held.reached.wait())
        async with hub.produce(key, run="r1", unfinished="resume", wait=PATIENCE_SECONDS) as successor:
            await send_all(successor, [b"successor"])
            held.resume()
            with pytest.raises((StaleGenerationError, LeaseLostError)):
                await soon(victim)
            await successor.send(b"more")
        assert data_of(await replay(hub, key)) == [b"before", b"successor", b"more"]

    async def test_a_producer_that_is_fenced_off_is_told(self, harness: Harness) -> None:
        """L5: … is refused …, and told: by the store's fence alone, though its lease system still lets it."""
        backend, hub = await harness.make(), await harness.hub(**UNPOLLED)
        key = harness.unique_key()
        with pytest.raises(StaleGenerationError) as caught:
            async with asyncio.timeout(PATIENCE_SECONDS), hub.produce(key, run="r1") as producer:
                await send_all(producer, [b"a"])
                successor = Writer(backend.store, key, run="r1")
                await successor.open(resume=True)
                await producer.send(b"late")
                await asyncio.Event().wait()
        info = await described(backend.store, key)
        assert (info.state, info.tail) == ("open", 1)
        assert caught.value.current == info.generation

    async def test_a_producer_that_wakes_up_without_a_lease_writes_nothing_more(self, harness: Harness) -> None:
        """L5: A paused producer … is refused when it wakes: without a lease it writes nothing, overtaken or not."""
        backend, hub = await harness.make(), await harness.hub()
        key = harness.unique_key()
        with pytest.raises(LeaseLostError):
            async with asyncio.timeout(PATIENCE_SECONDS), hub.produce(key, run="r1") as producer:
                await send_all(producer, [b"a"])
                time.sleep(1.2 * ttl_of(hub))  # nothing else of this process runs either
                await send_all(producer, [b"late"])
        info = await described(backend.store, key)
        assert (info.state, info.tail, info.end) == ("open", 1, None)

    async def test_a_producer_without_a_lease_writes_nothing_more(self, harness: Harness) -> None:
        """L5: Without a lease it writes nothing more, not even an end."""
        faults, key = Faults(), harness.unique_key()
        backend = await harness.make()
        hub = await harness.hub(faulty(await harness.make(), faults))
        with pytest.raises(LeaseLostError):
            async with asyncio.timeout(PATIENCE_SECONDS), hub.produce(key, run="r1") as producer:
                await send_all(producer, [b"a"])
                faults.fail("renew", times=float("inf"))
                await asyncio.Event().wait()
        info = await described(backend.store, key)
        assert (info.state, info.tail, info.end) == ("open", 1, None)

    # --- renewals fail

    async def test_failed_renewals_do_not_stop_a_run_within_its_lease(self, harness: Harness) -> None:
        """L6: One failed renewal does not stop the run."""
        faults, key = Faults(), harness.unique_key()
        backend = await harness.make()
        hub = await harness.hub(faulty(backend, faults), lease_seconds=2 * harness.ttl_seconds(backend))
        async with hub.produce(key) as producer:
            for way in (faults.fail, faults.lose_reply, faults.fail):
                way("renew")
                renewals = faults.calls["renew"]
                await until(lambda seen=renewals: faults.calls["renew"] > seen + 1)
                await send_all(producer, [b"x"])
        assert data_of(await replay(hub, key)) == [b"x"] * 3

    async def test_a_lease_that_cannot_be_renewed_is_lost_at_the_producers_own_deadline(self, harness: Harness) -> None:
        """L6: Loss is declared only definitely or past the producer's own monotonic deadline."""
        faults, key = Faults(), harness.unique_key()
        backend = await harness.make()
        ttl = 2 * harness.ttl_seconds(backend)
        hub = await harness.hub(faulty(backend, faults), lease_seconds=ttl)
        entered = time.monotonic()
        faults.fail("renew", times=float("inf"))
        with pytest.raises(LeaseLostError) as caught:
            async with asyncio.timeout(PATIENCE_SECONDS), hub.produce(key):
                await asyncio.Event().wait()
        assert 0.9 * ttl <= time.monotonic() - entered <= SLACK * ttl
        info = await described(backend.store, key)
        assert (caught.value.key, caught.value.generation) == (key, info.generation)

    async def test_a_renewal_that_hangs_is_lost_at_the_producers_own_deadline(self, harness: Harness) -> None:
        """L6: Loss is declared … past the producer's own monotonic deadline, however long a renewal takes."""
        faults, key = Faults(), harness.unique_key()
        backend = await harness.make()
        ttl = harness.ttl_seconds(backend)
        hub = await harness.hub(faulty(backend, faults), lease_seconds=ttl)
        for _ in range(20):
            faults.pause("renew")
        with pytest.raises(LeaseLostError):
            async with asyncio.timeout(SLACK * ttl), hub.produce(key):
                await asyncio.Event().wait()

    async def test_a_definite_loss_stops_a_stalled_producer(self, harness: Harness) -> None:
        """L6: Loss is declared … definitely: a renewal that answers *lost* is acted on at once."""
        backend, hub = await harness.make(), await harness.hub(lease_seconds=3.0)
        key = harness.unique_key()
        begun = time.monotonic()
        with pytest.raises(LeaseLostError):
            async with asyncio.timeout(PATIENCE_SECONDS), hub.produce(key, run="r1") as producer:
                lease = await backend.leases.acquire(
                    key, owner="taker", run="r1", ttl_seconds=60.0, void=producer.generation
                )
                assert lease.generation > producer.generation
                await asyncio.Event().wait()
        assert time.monotonic() - begun < 3.0


async def _send_there(peer: Peer, key: str) -> None:
    await peer.call("send", key, b"late")
    await peer.call("flush", key)
