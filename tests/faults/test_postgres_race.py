"""Fencing under load on PostgreSQL, and the proof that the race is lost without any one of its conditions."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable

import pytest
import servers
from postgres_race import Found, Race
from postgres_support import PostgresHarness
from streamhub_postgres import PostgresBackend

PRODUCERS, STREAMS = 6, 4
SECONDS = 4.0 * float(os.environ.get("STREAMHUB_FAULT_ROUNDS", "1"))
MUTANT_SECONDS = 12.0


@pytest.fixture
async def harness() -> AsyncIterator[PostgresHarness]:
    async with PostgresHarness(servers.postgres_server("18"), options="notify=off") as harness:
        yield harness


async def race(
    harness: PostgresHarness, *, rivals: bool, seconds: float, mutate: Callable[[PostgresBackend], None] | None = None
) -> Found:
    found = Found()
    backends = [await harness.connect() for _ in range(PRODUCERS)]
    if mutate is not None:
        for backend in backends:
            mutate(backend)
    try:
        # In rounds, so that what is read afterwards stays small, and a mutant is found early.
        loop = asyncio.get_running_loop()
        deadline, seed = loop.time() + seconds, 0
        while loop.time() < deadline and not found.wrong:
            seed += 100
            keys = [harness.unique_key() for _ in range(STREAMS)]
            running = Race(keys, found, seed=seed)
            await running.run([backend.store for backend in backends], rivals=rivals, seconds=1.0)
            await running.judge(backends[0].store)
    finally:
        for backend in backends:
            await backend.aclose()
    return found


@pytest.mark.parametrize("rivals", [False, True], ids=["takeovers", "rivals"])
async def test_nothing_acknowledged_is_lost_or_doubled(harness: PostgresHarness, rivals: bool) -> None:
    found = await race(harness, rivals=rivals, seconds=SECONDS)
    print(dict(found.counts))
    assert found.wrong == []
    assert found.counts["takeovers"] > 50
    assert found.counts["acknowledged"] > 200
    assert found.counts["StaleGenerationError"] > 10
    if rivals:
        assert found.counts["OffsetConflictError"] > 10


# --- each condition is needed


def appends(old: str, new: str) -> Callable[[PostgresBackend], None]:
    def mutate(backend: PostgresBackend) -> None:
        appender = backend.store._appender
        assert old in appender._append, "the statement has changed: write the mutant anew"
        appender._append = appender._append.replace(old, new)

    return mutate


def opens(old: str, new: str) -> Callable[[PostgresBackend], None]:
    def mutate(backend: PostgresBackend) -> None:
        queries = backend.store._queries
        assert old in queries["reopen"], "the statement has changed: write the mutant anew"
        queries["reopen"] = queries["reopen"].replace(old, new)

    return mutate


def both(*mutations: Callable[[PostgresBackend], None]) -> Callable[[PostgresBackend], None]:
    def mutate(backend: PostgresBackend) -> None:
        for mutation in mutations:
            mutation(backend)

    return mutate


# Judging by what the statement saw at its beginning, as a check before the write does, instead of by the locked row.
SEEN = "(SELECT x.{column} FROM {table} AS x WHERE x.key = s.key)"


def seen_before(column: str, table: str = "{table}") -> str:
    return SEEN.replace("{column}", column).replace("{table}", table)


def stale_view(old: str, column: str, rest: str) -> Callable[[PostgresBackend], None]:
    def mutate(backend: PostgresBackend) -> None:
        table = f'"{backend._session.options.schema}".stream'
        appends(old, f"{seen_before(column, table)} {rest}")(backend)

    return mutate


def opens_at_the_tail_it_saw(backend: PostgresBackend) -> None:
    table = f'"{backend._session.options.schema}".stream'
    opens("s.tail + 1 ELSE 1 END", f"{seen_before('tail', table)} + 1 ELSE 1 END")(backend)
    opens("THEN s.tail ELSE 0 END", f"THEN {seen_before('tail', table)} ELSE 0 END")(backend)


FURTHER = "JOIN stored AS s ON s.place = m.place\n"
NO_CONFLICT = appends(FURTHER, f"{FURTHER}    ON CONFLICT DO NOTHING\n")
GENERATION, TAIL = "s.generation = i.generation", "s.tail = i.before"
FOUND = "s.generation = $14 AND s.owner = $15"

# The mutation, and whether rivals of one generation have to meet.
MUTANTS = {
    "append of any generation": (appends(f"{GENERATION} AND ", ""), False),
    "append of the generation that was seen": (stale_view(GENERATION, "generation", "= i.generation"), False),
    "append at any tail": (both(appends(f"AND {TAIL} ", ""), NO_CONFLICT), True),
    "append at the tail that was seen": (both(stale_view(TAIL, "tail", "= i.before"), NO_CONFLICT), True),
    "open at the tail that was seen": (both(opens_at_the_tail_it_saw, NO_CONFLICT), False),
    "open whatever was found": (opens(FOUND, "$14::bigint > 0 AND $15::text <> ''"), False),
}


@pytest.mark.parametrize("name", MUTANTS)
async def test_race_is_lost_without(harness: PostgresHarness, name: str) -> None:
    mutate, rivals = MUTANTS[name]
    found = await race(harness, rivals=rivals, seconds=MUTANT_SECONDS, mutate=mutate)
    print(found.wrong[0], dict(found.counts))
    assert found.wrong, f"nothing was lost: {dict(found.counts)}"
    # It was lost by what the condition prevents, not because the statement does not work.
    assert found.counts["acknowledged"] > 20
