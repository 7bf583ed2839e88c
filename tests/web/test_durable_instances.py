"""Two instances that serve Durable Streams on one backend behave as one server, on each backend."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from durable_http import MODES, Live, Reader, append, ask, claim, close, create, read, reading, stored
from durable_pairs import Pair, pair, path

from streamhub import Hub, ProducerCancelledError, Retention, StreamDeletedError
from streamhub.web.durable.offsets import write_offset

__all__ = ["pair", "path"]  # fixtures

pytestmark = pytest.mark.timeout(120)

TOLD_SECONDS = 10.0
"""Within which readers are told of what happens elsewhere: far below the 20 s of a long-poll."""


@pytest.fixture
async def hub(pair: Pair) -> AsyncIterator[Hub]:
    """A hub in the test's process, on the backend of the instances."""
    async with Hub.from_url(pair.url) as hub:
        yield hub


async def everybody(pair: Pair, stack: AsyncExitStack, path: str) -> list[Reader]:
    """Read a stream at each instance, in each way."""
    wanted = [(port, live) for port in pair.ports for live in MODES]
    return [await stack.enter_async_context(reading(port, path=path, live=live)) for port, live in wanted]


# --- write here, read there


@pytest.mark.parametrize("live", MODES)
async def test_what_is_stored_at_one_instance_is_read_live_at_the_other(pair: Pair, path: str, live: Live) -> None:
    here, there = pair.ports
    await create(here, path)
    async with reading(there, path=path, live=live) as reader:
        for number in range(10):
            assert (await append(here, path, number)).status == 204
            assert await reader.has(number + 1) == list(range(number + 1))
        for number in range(10, 60):
            await append(here, path, number)
        await close(here, path)
        assert await reader.ended() == "closed"

    assert reader.seen == list(range(60))
    assert await stored(there, path) == list(range(60))


async def test_stream_closed_at_one_instance_is_closed_at_the_other(pair: Pair, path: str) -> None:
    here, there = pair.ports
    await create(here, path)
    await append(there, path, "first", **claim("p", 0, 0))  # it now remembers the stream
    async with AsyncExitStack() as stack:
        readers = await everybody(pair, stack, path)
        await append(here, path, "last", **claim("q", 0, 0), Stream_Closed="true")
        assert {await reader.ended(TOLD_SECONDS) for reader in readers} == {"closed"}
        assert [reader.seen for reader in readers] == [["first", "last"]] * 4

    refused = await append(there, path, "late", **claim("p", 0, 1))
    assert (refused.status, refused.closed) == (409, True)
    repeated = await append(there, path, "last", **claim("q", 0, 0), Stream_Closed="true")
    assert (repeated.status, repeated.closed) == (204, True)
    assert (await close(there, path)).status == 204
    assert (await ask(there, "HEAD", path)).closed
    assert await stored(there, path) == ["first", "last"]


# --- one producer at both


async def test_producer_that_turns_from_instance_to_instance_is_one_producer(pair: Pair, path: str) -> None:
    await create(pair.ports[0], path)
    for seq in range(30):
        here, there = pair.ports if seq % 2 else reversed(pair.ports)
        stored_once = await append(here, path, seq, **claim("p", 0, seq))
        again = await append(there, path, seq, **claim("p", 0, seq))
        assert (stored_once.status, again.status) == (200, 204)
        assert again.headers["producer-seq"] == str(seq)
        assert again.offset == stored_once.offset
        gap = await append(there, path, "too early", **claim("p", 0, seq + 2))
        assert (gap.status, gap.headers["producer-expected-seq"]) == (409, str(seq + 1))

    assert await stored(pair.ports[1], path) == list(range(30))


async def test_writers_at_both_instances_store_each_message_once_and_in_their_order(pair: Pair, path: str) -> None:
    writers, each = 12, 20
    await create(pair.ports[0], path)

    async def write(name: str) -> None:
        for seq in range(each):
            port = random.choice(pair.ports)
            tries = pair.ports if seq % 3 == 0 else [port, port] if seq % 3 == 1 else [port]
            answers = await asyncio.gather(
                *(append(port, path, [name, seq], **claim(name, 0, seq)) for port in tries),
            )
            assert sorted(answer.status for answer in answers) == [200, 204][: len(tries)]

    async with AsyncExitStack() as stack:
        readers = await everybody(pair, stack, path)
        await asyncio.gather(*(write(f"p{number}") for number in range(writers)))
        await close(pair.ports[0], path)
        for reader in readers:
            assert await reader.ended() == "closed"

    found = await stored(pair.ports[1], path)
    assert all(reader.seen == found for reader in readers)
    assert len(found) == writers * each
    for number in range(writers):
        assert [seq for name, seq in found if name == f"p{number}"] == list(range(each))


async def test_zombie_is_refused_at_both_instances(pair: Pair, path: str) -> None:
    here, there = pair.ports
    await create(here, path)
    for port in (here, there):
        await append(port, path, "old", **claim("p", 0, 0))
    assert (await append(here, path, "new", **claim("p", 1, 0))).status == 200

    for port in (there, here):
        refused = await append(port, path, "zombie", **claim("p", 0, 1))
        assert (refused.status, refused.headers["producer-epoch"]) == (403, "1")
    assert (await append(there, path, "newer", **claim("p", 1, 1))).status == 200
    assert await stored(here, path) == ["old", "new", "newer"]


async def test_instance_that_remembers_an_older_state_refuses_nothing_for_it(pair: Pair, path: str) -> None:
    here, there = pair.ports
    await create(here, path)
    for port, given in (
        (here, claim("p", 0, 0)),
        (there, claim("p", 0, 1)),
        (there, claim("p", 0, 2)),
        (here, claim("p", 0, 3)),  # it remembers that 1 comes next
        (there, claim("p", 1, 0)),
        (here, claim("p", 1, 1)),  # it remembers that a new epoch begins at 0
    ):
        last = await append(port, path, "of p", **given)
        assert last.status == 200
    assert (await append(there, path, "expecting", Stream_Expected_Offset=last.offset)).status == 204
    assert (await append(here, path, "ordered", Stream_Seq="9")).status == 204

    await ask(there, "DELETE", path)
    await ask(there, "PUT", path, Content_Type="text/plain")
    answer = await ask(here, "POST", path, b"text", Content_Type="text/plain", Stream_Seq="1")  # and a 9 before it
    assert answer.status == 204
    assert (await read(there, path)).body == b"text"


async def test_of_writes_that_expect_the_same_offset_one_is_stored(pair: Pair, path: str) -> None:
    offset = (await create(pair.ports[0], path)).offset
    for number in range(15):
        answers = await asyncio.gather(
            *(append(port, path, number, Stream_Expected_Offset=offset) for port in pair.ports * 2)
        )
        assert sorted(answer.status for answer in answers) == [204, 409, 409, 409]
        (offset,) = {answer.offset for answer in answers}

    assert await stored(pair.ports[1], path) == list(range(15))


async def test_order_that_a_writer_states_holds_at_both_instances(pair: Pair, path: str) -> None:
    await create(pair.ports[0], path)
    for number in range(0, 20, 2):
        here, there = pair.ports if number % 4 else reversed(pair.ports)
        assert (await append(here, path, number, Stream_Seq=f"{number:03}")).status == 204
        assert (await append(there, path, "again", Stream_Seq=f"{number:03}")).status == 409
        assert (await append(there, path, "before", Stream_Seq=f"{number - 1:03}")).status == 409

    assert await stored(pair.ports[1], path) == list(range(0, 20, 2))


async def test_what_is_acknowledged_at_one_instance_is_read_at_once_at_the_other(pair: Pair, path: str) -> None:
    before = (await create(pair.ports[0], path)).offset
    for number in range(20):
        here, there = pair.ports if number % 2 else reversed(pair.ports)
        after = (await append(here, path, number)).offset
        found = await read(there, path, before)
        assert (found.messages, found.offset) == ([number], after)
        nothing = await read(there, path, after)
        assert (nothing.status, nothing.messages, nothing.offset) == (200, [], after)
        before = after


async def test_thousand_producers_at_once_store_each_message_once_and_in_their_order(pair: Pair, path: str) -> None:
    producers = 1000
    await create(pair.ports[0], path)

    async def produce(number: int) -> None:
        for seq in range(2):
            answer = await append(pair.ports[number % 2], path, [number, seq], **claim(f"producer-{number}", 0, seq))
            assert answer.status == 200, answer

    async with asyncio.TaskGroup() as tasks:
        for number in range(producers):
            tasks.create_task(produce(number))

    found = await stored(pair.ports[1], path)
    assert Counter(map(tuple, found)) == Counter(itertools.product(range(producers), range(2)))
    places = {(number, seq): place for place, (number, seq) in enumerate(found)}
    assert all(places[number, 0] < places[number, 1] for number in range(producers))


# --- creation


@pytest.mark.parametrize("body", [(), ("first", "second")])
async def test_one_of_many_creations_creates_and_the_others_find_the_stream(
    pair: Pair, path: str, body: tuple[str, ...]
) -> None:
    for number in range(8):
        name = f"{path}-{number}"
        answers = await asyncio.gather(*(create(port, name, *body) for port in pair.ports * 3))
        assert sorted(answer.status for answer in answers) == [200] * 5 + [201]
        for port in pair.ports:
            assert await stored(port, name) == list(body)


async def test_one_of_two_creations_that_differ_is_refused(pair: Pair, path: str) -> None:
    for number in range(8):
        name = f"{path}-{number}"
        answers = await asyncio.gather(
            *(create(port, name, "first", Stream_TTL=ttl) for port, ttl in zip(pair.ports, ("600", "700"), strict=True))
        )
        assert sorted(answer.status for answer in answers) == [201, 409]
        assert await stored(pair.ports[0], name) == ["first"]


# --- what is gone


async def test_offset_that_was_trimmed_is_gone_at_both(pair: Pair, path: str, hub: Hub) -> None:
    kept = Retention(max_chunks=5, overflow="trim")
    async with hub.produce(path[1:], metadata={"content_type": "application/json"}, retention=kept) as producer:
        offsets = []
        for number in range(20):
            offsets.append(await producer.send(json.dumps(number)))
            await producer.flush()

    for port in pair.ports:
        assert await stored(port, path) == list(range(15, 20))
        for live in ({}, {"live": "long-poll"}, {"live": "sse"}):
            assert (await read(port, path, write_offset(offsets[3]), **live)).status == 410
        assert (await read(port, path, write_offset(offsets[17]))).messages == [18, 19]


async def test_offset_of_a_stream_that_was_created_anew_is_gone_at_both(pair: Pair, path: str) -> None:
    here, there = pair.ports
    await create(here, path)
    for seq, port in enumerate((here, there)):
        offset = (await append(port, path, "old", **claim("p", 0, seq))).offset
    assert (await ask(here, "DELETE", path)).status == 204
    for port in pair.ports:
        assert (await read(port, path, offset)).status == 404
        assert (await append(port, path, "lost", **claim("p", 0, 2))).status == 404
    assert (await create(here, path)).status == 201

    for port in pair.ports:
        for live in ({}, {"live": "long-poll"}, {"live": "sse"}):
            assert (await read(port, path, offset, **live)).status == 410
    gap = await append(there, path, "of the old one", **claim("p", 0, 2))
    assert (gap.status, gap.headers["producer-expected-seq"]) == (409, "0")
    assert (await append(there, path, "new", **claim("p", 0, 0))).status == 200
    assert await stored(here, path) == ["new"]


async def test_creating_writing_reading_and_deleting_at_once_end_in_what_the_protocol_knows(
    pair: Pair, path: str
) -> None:
    found: dict[str, Counter[int]] = {"PUT": Counter(), "POST": Counter(), "GET": Counter(), "DELETE": Counter()}

    async def repeat(method: str, port: int, body: bytes = b"") -> None:
        for _ in range(25):
            found[method][(await ask(port, method, path, body)).status] += 1

    async with asyncio.TaskGroup() as tasks:
        for port in pair.ports:
            tasks.create_task(repeat("PUT", port, b'["first"]'))
            tasks.create_task(repeat("POST", port, b"1"))
            tasks.create_task(repeat("GET", port))
            tasks.create_task(repeat("DELETE", port))

    assert set(found["PUT"]) <= {200, 201}
    assert set(found["POST"]) <= {204, 404}
    assert set(found["GET"]) <= {200, 404}
    assert set(found["DELETE"]) <= {204, 404}


@pytest.mark.parametrize("live", MODES)
@pytest.mark.parametrize("anew", [False, True])
async def test_reader_is_told_that_the_stream_was_deleted_elsewhere(
    pair: Pair, path: str, live: Live, anew: bool
) -> None:
    here, there = pair.ports
    await create(here, path, "first")
    async with reading(there, path=path, live=live) as reader:
        await reader.has(1)
        await pair.waits(1, path)
        await ask(here, "DELETE", path)
        if anew:
            await create(here, path, "another first", "another second")
        told = await reader.ended(TOLD_SECONDS)

    assert told in (("404", "410") if anew else ("404",))
    assert reader.seen == ["first"]


# --- cancel


async def test_stream_written_at_one_instance_is_cancelled_at_the_other(pair: Pair, path: str) -> None:
    here, there = pair.ports
    await create(here, path, Stream_TTL="600")
    await append(here, path, "said", **claim("p", 0, 0))
    async with AsyncExitStack() as stack:
        readers = await everybody(pair, stack, path)
        for reader in readers:
            await reader.has(1)
        told = await ask(there, "POST", f"{path}/cancel", json.dumps({"reason": "user"}).encode())
        assert (told.status, json.loads(told.body)["state"]) == (200, "cancelled")
        for reader in readers:
            assert await reader.ended(TOLD_SECONDS) == "closed"
            assert (reader.seen, reader.ending) == (["said"], "cancelled")

    for port in pair.ports:
        refused = await append(port, path, "more", **claim("p", 0, 1))
        assert (refused.status, refused.closed) == (409, True)
        head = await ask(port, "HEAD", path)
        assert (head.headers["content-type"], head.headers["stream-ttl"]) == ("application/json", "600")
        assert head.headers["streamhub-end"] == "cancelled"


async def test_run_of_a_producer_of_the_library_is_cancelled_over_http(pair: Pair, path: str, hub: Hub) -> None:
    async with AsyncExitStack() as stack:
        with pytest.raises(ProducerCancelledError) as caught:
            async with hub.produce(path[1:], metadata={"content_type": "application/json"}) as producer:
                await producer.send(json.dumps("said"))
                await producer.flush()
                assert (await append(pair.ports[0], path, "not yours")).status == 409
                readers = await everybody(pair, stack, path)
                for reader in readers:
                    await reader.has(1)
                asking = ask(pair.ports[1], "POST", f"{path}/cancel", json.dumps({"reason": "user"}).encode())
                task = asyncio.create_task(asking)  # it is answered once the producer has stored the end
                async with asyncio.timeout(TOLD_SECONDS):
                    await asyncio.get_running_loop().create_future()
        assert caught.value.reason == "user"
        assert json.loads((await task).body)["state"] == "cancelled"
        for reader in readers:
            assert await reader.ended(TOLD_SECONDS) == "closed"
            assert (reader.seen, reader.ending) == (["said"], "cancelled")


# --- both sides of the library


async def test_what_a_producer_of_the_library_sends_is_read_live_at_both(pair: Pair, path: str, hub: Hub) -> None:
    async with AsyncExitStack() as stack:
        async with hub.produce(path[1:], metadata={"content_type": "application/json"}) as producer:
            await producer.send(json.dumps(0))
            await producer.flush()
            readers = await everybody(pair, stack, path)
            for number in range(1, 10):
                await producer.send(json.dumps(number))
                for reader in readers:
                    assert await reader.has(number + 1) == list(range(number + 1))
            for number in range(10, 200):
                await producer.send(json.dumps(number))
        for reader in readers:
            assert await reader.ended() == "closed"
            assert (reader.seen, reader.ending) == (list(range(200)), None)
    assert (await append(pair.ports[0], path, "late")).status == 409


async def test_what_is_appended_over_http_is_read_live_by_a_subscriber(pair: Pair, path: str, hub: Hub) -> None:
    here, there = pair.ports
    await create(here, path, "first", {"second": [1, 2]})
    async with hub.subscribe(path[1:]) as subscription:
        chunks = aiter(subscription)
        assert [(await anext(chunks)).json() for _ in range(2)] == ["first", {"second": [1, 2]}]
        for number in range(10):
            answer = await append((here, there)[number % 2], path, number)
            async with asyncio.timeout(TOLD_SECONDS):
                chunk = await anext(chunks)
            assert (chunk.json(), write_offset(chunk.offset)) == (number, answer.offset)
        await close(there, path)
        async with asyncio.timeout(TOLD_SECONDS):
            assert [chunk async for chunk in chunks] == []
        assert subscription.end is not None
        assert subscription.end.state == "completed"


async def test_bytes_appended_over_http_are_the_chunks_of_a_subscriber(pair: Pair, path: str, hub: Hub) -> None:
    kind = {"Content_Type": "application/octet-stream"}
    await ask(pair.ports[0], "PUT", path, **kind)
    pieces = [bytes(range(256)), b"\r\n\r\n", b"\0" * 100_000]
    for piece, port in zip(pieces, itertools.cycle(pair.ports)):
        await ask(port, "POST", path, piece, **kind)
    await close(pair.ports[1], path)

    assert [chunk.data async for chunk in hub.subscribe(path[1:])] == pieces
    for port in pair.ports:
        assert (await read(port, path)).body == b"".join(pieces)


async def test_stream_that_a_producer_of_the_library_replaces_is_gone_for_its_readers(
    pair: Pair, path: str, hub: Hub
) -> None:
    here, there = pair.ports
    await create(here, path)
    offset = (await append(here, path, "first", **claim("p", 0, 0))).offset
    async with AsyncExitStack() as stack:
        readers = await everybody(pair, stack, path)
        for number in range(2):
            await pair.waits(number, path, 2)
        given = {"content_type": "application/json"}
        async with hub.produce(path[1:], unfinished="replace", metadata=given) as producer:
            await producer.send(json.dumps("another first"))
            await producer.flush()
            assert {await reader.ended(TOLD_SECONDS) for reader in readers} == {"410"}
            assert [reader.seen for reader in readers] == [["first"]] * 4
            for port in pair.ports:
                assert (await append(port, path, "not yours", **claim("p", 0, 1))).status == 409
                assert (await read(port, path, offset)).status == 410
    assert await stored(there, path) == ["another first"]


async def test_producer_of_the_library_is_told_that_its_stream_was_deleted_over_http(
    pair: Pair, path: str, hub: Hub
) -> None:
    with pytest.raises(StreamDeletedError):
        async with hub.produce(path[1:]) as producer:
            await producer.send("first")
            await producer.flush()
            assert (await ask(pair.ports[0], "DELETE", path)).status == 204
            await producer.send("second")
            await producer.flush()
    for port in pair.ports:
        assert (await read(port, path)).status == 404
