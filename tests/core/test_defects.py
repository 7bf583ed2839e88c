"""A backend that raises what no backend may raise: nobody is left waiting, and the log says what happened."""

import asyncio
import logging

import pytest

from streamhub import BackendUnavailableError, Hub, HubSettings, StreamFailure, StreamHubError, open_backend
from streamhub.conformance.faulty import Faults, faulty

DEFECT = RuntimeError("a defect")


@pytest.fixture
async def faults():
    return Faults()


@pytest.fixture
async def hub(request, faults):
    settings = HubSettings(lease_seconds=0.6, poll_seconds=0.1)
    async with open_backend(f"memory://defects-{request.node.name}") as backend:
        broken = faulty(backend, faults)
        async with Hub(store=broken.store, leases=broken.leases, cancels=broken.cancels, settings=settings) as hub:
            yield hub


async def test_a_producer_is_told_of_a_defect_in_append(hub, faults, caplog):
    with pytest.raises(StreamHubError, match="failed with RuntimeError"):
        async with asyncio.timeout(10), hub.produce("k") as producer:
            faults.fail("append", error=DEFECT)
            await producer.send("a")
            await producer.flush()
    assert "append raised" in caplog.text


async def test_a_defect_that_one_append_meets_leaves_the_others_of_its_batch_alone(hub, monkeypatch):
    append = hub.store.append

    async def refuse(batch):
        if any(b"poison" in item.chunks for item in batch):
            raise DEFECT
        return await append(batch)

    async with hub.produce("good") as good:
        monkeypatch.setattr(hub.store, "append", refuse)
        with pytest.raises(StreamHubError, match="failed with RuntimeError"):
            async with hub.produce("bad") as bad:
                await good.send("a")
                await bad.send("poison")
                await bad.flush()
        await good.flush()
    assert (await hub.info("good")).end.state == "completed"


@pytest.mark.parametrize("scheme", ["memory", "sqlite"])
async def test_a_failure_with_text_that_cannot_be_stored_still_ends_its_run(scheme, tmp_path):
    url = "memory://defects-text" if scheme == "memory" else f"sqlite:///{tmp_path}/s.db"
    async with Hub.from_url(url) as hub:
        with pytest.raises(StreamFailure):
            async with hub.produce("k"):
                raise StreamFailure("\ud800" + "x" * 5000, "\udfff")
        end = (await hub.info("k")).end
        assert (end.state, end.code, end.message[:2], len(end.message)) == ("failed", "?", "?x", 4096)


async def test_a_subscriber_is_told_of_a_defect_in_read(hub, faults, caplog):
    async with hub.produce("k") as producer:
        await producer.send("a")
    faults.fail("read", error=DEFECT)
    with pytest.raises(StreamHubError, match="failed with RuntimeError"):
        async with asyncio.timeout(10), hub.subscribe("k"):
            pass
    assert "read raised" in caplog.text


async def test_a_defect_in_the_change_feed_is_as_a_broken_connection(hub, faults, caplog):
    faults.fail("changes", error=DEFECT)
    async with asyncio.timeout(10), hub.produce("k") as producer, hub.subscribe("k") as subscription:
        await producer.send("a")
        assert (await anext(subscription)).text == "a"
    assert "change feed raised" in caplog.text


async def test_a_change_feed_that_stays_away_is_told_of_once(hub, faults, caplog):
    faults.fail("changes", times=3, error=BackendUnavailableError("no permission"))
    async with asyncio.timeout(10), hub.produce("k") as producer, hub.subscribe("k") as subscription:
        await producer.send("a")
        assert (await anext(subscription)).text == "a"
    assert faults.calls["changes"] == 4
    told = [record for record in caplog.records if "change feed" in record.getMessage()]
    assert [(record.levelname, record.getMessage()) for record in told] == [
        ("WARNING", "the change feed is not connected, and tries again: no permission")
    ]


async def test_a_defect_in_renew_is_an_unknown_outcome(hub, faults, caplog):
    async with asyncio.timeout(10), hub.produce("k") as producer:
        faults.fail("renew", error=DEFECT)
        while faults.calls["renew"] < 3:
            await asyncio.sleep(0.01)
        await producer.send("a")
        await producer.flush()
    assert "renew raised" in caplog.text


async def test_a_defect_in_the_poll_does_not_end_it(hub, faults, caplog):
    faults.drop_hints = True
    async with asyncio.timeout(10), hub.produce("k") as producer, hub.subscribe("k") as subscription:
        received = asyncio.create_task(anext(subscription))
        faults.fail("holders", times=2, error=DEFECT)
        while faults.calls["holders"] < 3:
            await asyncio.sleep(0.01)
        await producer.send("a")
        assert (await received).text == "a"
    assert "a poll raised" in caplog.text


async def test_a_dead_backend_is_ridden_out_then_told(request, caplog):
    caplog.set_level(logging.ERROR)
    faults = Faults()
    settings = HubSettings(outage_seconds=0.5, poll_seconds=0.1)
    async with open_backend(f"memory://defects-{request.node.name}") as backend:
        broken = faulty(backend, faults)
        hub = Hub(store=broken.store, leases=broken.leases, cancels=broken.cancels, settings=settings)
        async with hub, asyncio.timeout(10):
            async with hub.produce("k", on_interrupt="handover") as producer:
                await producer.send("a")
                await producer.flush()
                subscription = hub.subscribe("k")
                assert (await anext(subscription)).text == "a"
                faults.down = True
                with pytest.raises(BackendUnavailableError):
                    await anext(subscription)
                faults.down = False
                assert [chunk.text for chunk in [await anext(hub.subscribe("k"))]] == ["a"]
