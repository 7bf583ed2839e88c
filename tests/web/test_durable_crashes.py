"""An instance that dies, or a backend that fails, loses and doubles nothing of Durable Streams."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import nats_servers
import postgres_servers
import pytest
import redis_servers
import servers
from durable_http import MODES, LostError, Reader, append, ask, claim, close, create, persist, reading, stored
from durable_pairs import Pair, paired
from places import DURABLE_KINDS, fresh_place
from web_server import until

pytestmark = pytest.mark.timeout(120)

PATH = "/stream"


@pytest.fixture(params=DURABLE_KINDS)
async def pair(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Pair]:
    """Instances of the test's own, of which the first may be killed."""
    async with fresh_place(request.param, tmp_path) as url, paired(url) as running:
        yield running


class Work:
    """Producers that begin at either instance and do not give up, while everybody reads."""

    def __init__(self, pair: Pair, producers: int, each: int) -> None:
        self.acknowledged = 0
        self._pair = pair
        self._producers = producers
        self._each = each

    async def produce(self, number: int) -> None:
        """Send one producer's messages, each until it is acknowledged."""
        ports = self._pair.ports if number % 2 else self._pair.ports[::-1]
        for seq in range(self._each):
            answer = await persist(ports, PATH, [number, seq], **claim(f"p{number}", 0, seq))
            assert answer.status in (200, 204), answer
            self.acknowledged += 1

    async def write(self, number: int) -> None:
        """Send messages that nothing tells apart from repetitions: each is to be stored by the one request for it."""
        for seq in range(self._each):
            answer = await append(self._pair.ports[number % 2], PATH, [number, seq])
            assert answer.status == 204, answer
            self.acknowledged += 1

    async def reached(self, part: float) -> None:
        """Wait until so much of all is acknowledged."""
        await until(lambda: self.acknowledged >= part * self._producers * self._each)

    def check(self, found: list[Any]) -> None:
        """Fail unless each message is there once, and each producer's in their order."""
        assert len(found) == self._producers * self._each
        for number in range(self._producers):
            assert [seq for name, seq in found if name == number] == list(range(self._each))

    async def readers(self, stack: AsyncExitStack) -> list[Reader]:
        """Read, from either instance first, in each way."""
        ways = [(ports, live) for ports in (self._pair.ports, self._pair.ports[::-1]) for live in MODES]
        return [await stack.enter_async_context(reading(*ports, path=PATH, live=live)) for ports, live in ways]


# --- an instance is killed


@pytest.mark.parametrize(("place", "status"), [("before append", 200), ("after append", 204)])
async def test_write_whose_answer_died_with_its_instance_is_stored_once(pair: Pair, place: str, status: int) -> None:
    victim, other = pair.ports
    await create(victim, PATH)
    async with reading(other, path=PATH, live="sse") as reader:
        await append(victim, PATH, "first", **claim("p", 0, 0))
        await append(other, PATH, "second", **claim("p", 0, 1))
        await pair.arm(0, f"kill {place}")
        with pytest.raises(LostError):
            await append(victim, PATH, "third", **claim("p", 0, 2))
        await pair.killed(0)

        again = await append(other, PATH, "third", **claim("p", 0, 2))
        assert (again.status, again.headers["producer-seq"]) == (status, "2")
        assert (await append(other, PATH, "third", **claim("p", 0, 2))).status == 204
        assert (await append(other, PATH, "last", **claim("p", 0, 3), Stream_Closed="true")).status == 200
        assert await reader.ended() == "closed"

    assert reader.seen == ["first", "second", "third", "last"]
    assert await stored(other, PATH) == reader.seen


@pytest.mark.parametrize(("place", "status"), [("before append", 200), ("after append", 204)])
async def test_closing_whose_answer_died_with_its_instance_happens_once(pair: Pair, place: str, status: int) -> None:
    victim, other = pair.ports
    await create(victim, PATH)
    await pair.arm(0, f"kill {place}")
    with pytest.raises(LostError):
        await append(victim, PATH, "last", **claim("p", 0, 0), Stream_Closed="true")
    await pair.killed(0)

    again = await append(other, PATH, "last", **claim("p", 0, 0), Stream_Closed="true")
    assert (again.status, again.closed) == (status, True)
    assert (await append(other, PATH, "more", **claim("p", 0, 1))).status == 409
    assert await stored(other, PATH) == ["last"]


@pytest.mark.parametrize(
    ("place", "status", "closed"),
    [
        ("before acquire", 201, False),
        ("after open", 201, True),
        ("after append", 200, True),
    ],
)
async def test_creation_whose_instance_died_is_finished_by_the_next_one(
    pair: Pair, place: str, status: int, closed: bool
) -> None:
    victim, other = pair.ports
    given = {"Stream_TTL": "600", **({"Stream_Closed": "true"} if closed else {})}
    await pair.arm(0, f"kill {place}")
    with pytest.raises(LostError):
        await create(victim, PATH, "first", "second", **given)
    await pair.killed(0)

    if status == 201:
        assert (await ask(other, "GET", PATH)).status == 404
        assert (await append(other, PATH, "too early")).status == 404
    answers = await asyncio.gather(*(create(other, PATH, "first", "second", **given) for _ in range(3)))
    assert sorted(answer.status for answer in answers) == [200, 200, status]
    assert await stored(other, PATH) == ["first", "second"]
    assert (await append(other, PATH, "more")).status == (409 if closed else 204)


@pytest.mark.parametrize("how", ["killed", "terminated"])
async def test_instance_that_goes_under_load_loses_and_doubles_nothing(pair: Pair, how: str) -> None:
    work = Work(pair, producers=12, each=20)
    await create(pair.ports[0], PATH)
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        readers = await work.readers(stack)
        producing = [tasks.create_task(work.produce(number)) for number in range(12)]
        await work.reached(0.3)
        assert work.acknowledged < 12 * 20
        if how == "killed":
            with suppress(LostError):  # it may spring before its own answer is out
                await pair.arm(0, "kill after append")  # a batch of many producers, as likely as not
            await pair.killed(0)
        else:
            await pair.terminated(0)
        await asyncio.gather(*producing)
        await close(pair.ports[1], PATH)
        assert {await reader.ended() for reader in readers} == {"closed"}

    found = await stored(pair.ports[1], PATH)
    work.check(found)
    assert all(reader.seen == found for reader in readers)


# --- the backend fails


@contextmanager
def backend_of_its_own(kind: str) -> Iterator[tuple[Any, str]]:
    """Run a server that keeps what it stored, inside the block; yield it with its URL."""
    with ExitStack() as stack:
        if kind == "redis":
            kept = ("appendonly yes", "appendfsync everysec")
            server: Any = stack.enter_context(redis_servers.started(servers.redis_binary("8.2"), config=kept))
        elif kind == "postgresql":
            server = stack.enter_context(postgres_servers.started(servers.postgres_binaries("18")))
        else:
            server = stack.enter_context(nats_servers.started(servers.nats_binary("2.15")))
        yield server, server.url


CRASH = {"redis": signal.SIGKILL, "postgresql": signal.SIGQUIT, "nats": signal.SIGKILL}
FROZEN_SECONDS = 1.0
"""Twice as long as a call waits for its answer: what was sent is done once the server goes on, and was sent again."""


async def crash(kind: str, server: Any) -> None:
    await asyncio.to_thread(server.stop, CRASH[kind])
    await asyncio.to_thread(server.start)


async def stand_still(kind: str, server: Any) -> None:
    server.freeze()
    await asyncio.sleep(FROZEN_SECONDS)
    server.thaw()


@pytest.mark.parametrize("outage_seconds", [30, 0.1], ids=["ridden out", "told"])
@pytest.mark.parametrize("fault", [crash, stand_still])
@pytest.mark.parametrize("kind", CRASH)
async def test_backend_that_fails_under_load_loses_and_doubles_nothing(
    kind: str, fault: Callable[[str, Any], Awaitable[None]], outage_seconds: float
) -> None:
    with backend_of_its_own(kind) as (server, url):
        async with paired(f"{url}?timeout_seconds={FROZEN_SECONDS / 2}&outage_seconds={outage_seconds}") as pair:
            work = Work(pair, producers=8, each=40)
            await create(pair.ports[0], PATH)

            async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
                readers = await work.readers(stack)
                plain = range(0, 8, 2) if outage_seconds > FROZEN_SECONDS else ()
                producing = [
                    tasks.create_task(work.write(number) if number in plain else work.produce(number))
                    for number in range(8)
                ]
                for part in (0.2, 0.5):
                    await work.reached(part)
                    before = work.acknowledged
                    await fault(kind, server)
                    assert before < 8 * 40
                await asyncio.gather(*producing)
                await close(pair.ports[1], PATH)
                assert {await reader.ended() for reader in readers} == {"closed"}

            found = await stored(pair.ports[1], PATH)
            work.check(found)
            assert all(reader.seen == found for reader in readers)
