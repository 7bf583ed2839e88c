"""What one instance decides while the other stands still in the middle of its work, on each backend."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest
from durable_http import Answer, append, ask, claim, close, create, stored
from durable_pairs import Pair, pair, path

__all__ = ["pair", "path"]  # fixtures

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(autouse=True)
def thawed(pair: Pair) -> Iterator[None]:
    """Let no instance stand still for the next test."""
    yield
    for number in range(2):
        pair.thaw(number)


# --- creating


async def test_creation_that_is_overtaken_while_it_takes_over_stores_nothing_twice(pair: Pair, path: str) -> None:
    here, there = pair.ports
    async with asyncio.TaskGroup() as tasks:
        await pair.arm(0, "stop after open")
        first = tasks.create_task(create(here, path, "first"))
        await pair.stopped(0)
        await pair.arm(1, "stop before acquire")
        second = tasks.create_task(create(there, path, "first"))
        await pair.stopped(1)  # it has seen a creation that is not finished
        pair.thaw(0)
        assert (await first).status == 201
        appended = await append(here, path, "more", **claim("p", 0, 0))
        assert appended.status == 200
        pair.thaw(1)
        assert (await second).status == 200

    assert await stored(here, path) == ["first", "more"]
    again = await append(there, path, "more", **claim("p", 0, 0))
    assert (again.status, again.headers["producer-seq"]) == (204, "0")


async def test_creation_without_content_takes_over_one_with_content(pair: Pair, path: str) -> None:
    here, there = pair.ports
    await pair.arm(0, "stop after open")
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(create(here, path, "first"))
        await pair.stopped(0)
        assert (await create(there, path)).status == 201
        assert (await append(there, path, "other")).status == 204
        pair.thaw(0)
        assert (await first).status == 200
    assert await stored(here, path) == ["other"]


async def test_creation_that_was_taken_over_changes_nothing_when_it_goes_on(pair: Pair, path: str) -> None:
    here, there = pair.ports
    async with asyncio.TaskGroup() as tasks:
        await pair.arm(0, "stop after open")
        first = tasks.create_task(create(here, path, "first"))
        await pair.stopped(0)
        assert (await ask(there, "HEAD", path)).status == 404
        assert (await append(there, path, "too early")).status == 404
        assert (await create(there, path, "first")).status == 201  # once the lease of the other has run out
        appended = await append(there, path, "more", **claim("p", 0, 0))
        assert appended.status == 200
        pair.thaw(0)
        assert (await first).status == 200

    for port in pair.ports:
        assert await stored(port, path) == ["first", "more"]
        assert (await append(port, path, "more", **claim("p", 0, 0))).status == 204


# --- writing


async def held(pair: Pair, path: str, place: str, meanwhile: Callable[[], Awaitable[object]]) -> Answer:
    """Let the second write of producer p at the first instance stand still there, while something else happens."""
    await create(pair.ports[0], path)
    await append(pair.ports[0], path, "first", **claim("p", 0, 0))
    await pair.arm(0, f"stop {place}")
    async with asyncio.TaskGroup() as tasks:
        writing = tasks.create_task(append(pair.ports[0], path, "held", **claim("p", 0, 1)))
        await pair.stopped(0)
        await meanwhile()
        pair.thaw(0)
    return writing.result()


@pytest.mark.parametrize(("place", "status"), [("before append", 204), ("after append", 200)])
async def test_write_that_was_repeated_elsewhere_is_stored_once(pair: Pair, path: str, place: str, status: int) -> None:
    async def repeat() -> None:
        again = await append(pair.ports[1], path, "held", **claim("p", 0, 1))
        assert again.status == (200 if status == 204 else 204)
        assert (await append(pair.ports[1], path, "next", **claim("p", 0, 2))).status == 200

    assert (await held(pair, path, place, repeat)).status == status
    assert await stored(pair.ports[1], path) == ["first", "held", "next"]


async def test_write_goes_behind_what_others_wrote(pair: Pair, path: str) -> None:
    async def write() -> None:
        for name in ("one", "two"):
            assert (await append(pair.ports[1], path, name)).status == 204

    answer = await held(pair, path, "before append", write)
    assert answer.status == 200
    assert await stored(pair.ports[1], path) == ["first", "one", "two", "held"]
    assert answer.offset == (await ask(pair.ports[1], "HEAD", path)).offset


async def test_write_of_what_has_become_a_zombie_is_refused(pair: Pair, path: str) -> None:
    async def succeed() -> None:
        assert (await append(pair.ports[1], path, "successor", **claim("p", 1, 0))).status == 200

    refused = await held(pair, path, "before append", succeed)
    assert (refused.status, refused.headers["producer-epoch"]) == (403, "1")
    assert await stored(pair.ports[1], path) == ["first", "successor"]


@pytest.mark.parametrize("how", ["closed", "cancelled"])
async def test_write_to_what_has_been_closed_is_refused(pair: Pair, path: str, how: str) -> None:
    async def end() -> None:
        if how == "closed":
            assert (await close(pair.ports[1], path)).status == 204
        else:
            assert (await ask(pair.ports[1], "POST", f"{path}/cancel")).status == 200

    refused = await held(pair, path, "before append", end)
    assert (refused.status, refused.closed) == (409, True)
    assert await stored(pair.ports[1], path) == ["first"]


@pytest.mark.parametrize("anew", [False, True])
async def test_write_to_what_has_been_deleted_does_not_reach_its_successor(pair: Pair, path: str, anew: bool) -> None:
    async def delete() -> None:
        assert (await ask(pair.ports[1], "DELETE", path)).status == 204
        if anew:
            assert (await create(pair.ports[1], path, "anew")).status == 201

    refused = await held(pair, path, "before append", delete)
    assert refused.status == (409 if anew else 404)
    if anew:
        assert refused.headers["producer-expected-seq"] == "0"
        assert await stored(pair.ports[1], path) == ["anew"]
