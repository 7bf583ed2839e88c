"""Keeping a lease: owned, lost and unknown are three answers."""

import asyncio
import time

import pytest

from streamhub import Hub, HubSettings, LeaseLostError, StaleGenerationError, StreamFailure, open_backend
from streamhub.conformance.faulty import Faults, faulty
from streamhub.keeper import HeldLease
from streamhub.types import Lease

SETTINGS = HubSettings(lease_seconds=0.6, poll_seconds=0.2)


def _hub(backend, **settings):
    return Hub(store=backend.store, leases=backend.leases, cancels=backend.cancels, settings=SETTINGS, **settings)


async def _renewals(faults, count):
    async with asyncio.timeout(10):
        while faults.calls["renew"] < count:
            await asyncio.sleep(0.01)


async def test_one_failed_renewal_does_not_stop_the_run():
    faults = Faults()
    async with open_backend("memory://keeper-1") as backend, _hub(faulty(backend, faults)) as hub:
        async with hub.produce("k") as producer:
            faults.fail("renew", times=1)
            await _renewals(faults, 3)
            await producer.send("a")
            await producer.flush()
        assert (await hub.info("k")).end.state == "completed"


async def test_a_lease_that_cannot_be_renewed_is_lost_at_its_own_deadline_and_no_end_is_written():
    faults, events = Faults(), []
    async with open_backend("memory://keeper-2") as backend:
        async with _hub(faulty(backend, faults), observer=events.append) as hub:
            started = time.monotonic()
            with pytest.raises(
                LeaseLostError, match=r"no renewal came through within 0\.6 s \(BackendUnavailableError"
            ):
                async with asyncio.timeout(10), hub.produce("k") as producer:
                    faults.fail("renew", times=float("inf"))
                    await producer.send("a")
                    await producer.flush()
                    await asyncio.sleep(60)
            assert time.monotonic() - started >= 0.5
            info = await hub.info("k")
            assert (info.state, info.end) == ("open", None)
            assert "lease_lost" in [event.name for event in events]


async def test_a_definite_loss_stops_the_run_at_once():
    async with open_backend("memory://keeper-3") as backend, _hub(backend) as hub:
        with pytest.raises(LeaseLostError, match=r"is lost: another may have taken over$"):
            async with asyncio.timeout(10), hub.produce("k"):
                holder = (await backend.leases.holders(["k"]))[0]
                # Another's acquire may void this generation: then the next renewal is told so.
                await backend.leases.acquire("k", owner="o", run="x", ttl_seconds=5, void=holder.generation)
                await asyncio.sleep(60)


async def test_a_renewal_that_never_answers_is_given_up_and_repeated():
    faults = Faults()
    async with open_backend("memory://keeper-4") as backend, _hub(faulty(backend, faults)) as hub:
        async with asyncio.timeout(10), hub.produce("k") as producer:
            faults.pause("renew")
            await _renewals(faults, 3)
            await producer.send("a")
        assert (await hub.info("k")).end.state == "completed"


def test_the_deadline_counts_from_the_sending_of_the_renewal():
    held = HeldLease(Lease("k", 7, "o", "r", 10.0), time.monotonic() - 9.9)
    held.check()
    held.renewed(time.monotonic() - 10.1)
    with pytest.raises(LeaseLostError):
        held.check()
    held.renewed(time.monotonic())
    with pytest.raises(LeaseLostError):  # lost is lost: its producer has been told
        held.check()


@pytest.mark.parametrize("size", [1, 5_000])
async def test_what_waits_to_be_stored_is_bounded_however_small_the_chunks_are(size):
    """A million chunks of one byte would keep a store busy for longer than a lease lasts."""
    faults, most = Faults(), SETTINGS.max_buffer_bytes // (size + 48) + 1
    async with open_backend("memory://keeper-4") as backend, _hub(faulty(backend, faults)) as hub:
        async with hub.produce("k") as producer:
            held, sent = faults.pause("append"), 0

            async def send_forever():
                nonlocal sent
                while True:
                    await producer.send(b"x" * size)
                    sent += 1

            sending = asyncio.create_task(send_forever())
            await held.reached.wait()
            for _ in range(most):
                await asyncio.sleep(0)
            # The chunk that found the buffer full waits in its call.
            assert sent == most - 1
            sending.cancel()
            held.resume()


async def test_what_leaves_the_block_says_that_its_end_was_not_stored():
    faults = Faults()
    async with open_backend("memory://keeper-5") as backend, _hub(faulty(backend, faults)) as hub:
        with pytest.raises(StreamFailure) as caught:
            async with hub.produce("k"):
                faults.fail("append", error=StaleGenerationError("k", generation=1, current=2))
                raise StreamFailure("no", code="model_failed")
        assert "was not stored" in caught.value.__notes__[0]
