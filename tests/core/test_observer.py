"""What an observer is told of readers, and what a hub tells of itself."""

from __future__ import annotations

import uuid

from streamhub import Event, Hub


async def test_reader_of_what_is_stored_is_told_as_replay_and_a_live_one_is_not() -> None:
    events: list[Event] = []
    async with Hub.from_url(f"memory://{uuid.uuid4().hex}", observer=events.append) as hub:
        async with hub.produce("k") as producer:
            await producer.send("a")
            await producer.send("bc")
            await producer.flush()
            subscription = hub.subscribe("k")
            async with subscription:
                assert (await anext(subscription)).text == "a"
                assert (await anext(subscription)).text == "bc"
                assert (hub.producers, hub.subscribers) == (1, 1)
                await producer.send("live")
                assert (await anext(subscription)).text == "live"
            assert (hub.producers, hub.subscribers) == (1, 0)
        assert (hub.producers, hub.draining) == (0, False)
        await hub.drain()
        assert hub.draining

    of_reader = [event for event in events if event.name in ("subscribe", "first_chunk", "replay")]
    assert [event.name for event in of_reader] == ["subscribe", "first_chunk", "replay"]
    assert {event.key for event in of_reader} == {"k"}
    assert 0 < of_reader[1].seconds < 20
    assert (of_reader[2].count, of_reader[2].size_bytes) == (2, 3)


async def test_first_chunk_of_a_reader_that_came_first_is_told_once() -> None:
    events: list[Event] = []
    async with Hub.from_url(f"memory://{uuid.uuid4().hex}", observer=events.append) as hub:
        async with hub.produce("k") as producer, hub.subscribe("k") as subscription:
            for text in ("a", "b"):
                await producer.send(text)
                assert (await anext(subscription)).text == text

    assert [event.name for event in events].count("first_chunk") == 1
