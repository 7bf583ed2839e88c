"""Random interleavings of everything a process can do to a backend, against a model of plain dicts.

``STREAMHUB_MODEL_TIMES=10`` runs ten times as many random programs, other ones each time; without it a few are run,
always the same.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from model_systems import MARKS, SYSTEMS, System, run_model
from stream_model import Model, OpenCall, check, check_info

from streamhub.errors import StreamHubError
from streamhub.protocols import Backend
from streamhub.types import (
    COMPLETED,
    Append,
    Appended,
    CancelRequest,
    Change,
    End,
    Holder,
    Lease,
    Page,
    Read,
    Retention,
    RunRef,
    Seen,
    StreamInfo,
)

T = TypeVar("T")

# Durations are whole seconds, and every step of the clock adds a millisecond: no moment is ever a deadline.
RETENTIONS = (
    Retention(unfinished_seconds=30, ended_seconds=20, fence_seconds=40),
    Retention(unfinished_seconds=10, ended_seconds=25, fence_seconds=15),
    Retention(unfinished_seconds=25, ended_seconds=20, fence_seconds=20, max_bytes=12),
    Retention(unfinished_seconds=25, ended_seconds=20, fence_seconds=20, max_chunks=4),
    Retention(unfinished_seconds=20, ended_seconds=10, fence_seconds=20, max_bytes=8, overflow="trim"),
    Retention(unfinished_seconds=20, ended_seconds=10, fence_seconds=20, max_chunks=3, overflow="trim"),
)
ENDS = (
    COMPLETED,
    End(state="failed", code="Boom", message="it broke"),
    End(state="cancelled", reason="why", requested_by="who"),
)
RUNS = ("r1", "r2")

connections = st.integers(0, 1)
keys = st.sampled_from(("a", "ab"))
runs = st.sampled_from(RUNS)
picks = st.integers(0, 30)
booleans = st.booleans()
ttls = st.sampled_from((5.0, 9.0))
metadata = st.sampled_from((None, None, {}, {"n": 1}, {"n": 2, "list": [None, "é"]}))
retentions = st.sampled_from(RETENTIONS)
payloads = st.lists(st.sampled_from((b"", b"x", b"two", "é€😀".encode(), bytes(range(11)))), max_size=5).map(tuple)
maybe_ends = st.sampled_from((*[None] * 9, *ENDS))
seldom = st.sampled_from((False, False, True))


class ProtocolMachine(RuleBasedStateMachine):
    """Two processes that call the protocols in any order: leases are held, lost, stolen; answers are lost, retried."""

    def __init__(self, system: System) -> None:
        super().__init__()
        self.system = system
        self.prefix = f"{next(system.examples)}/"
        self.model = Model()
        self.model.now = system.now
        self.numbers = itertools.count(1)
        self.turn = itertools.cycle((0, 1))
        self.leases: list[tuple[Lease, dict[str, Any]]] = []
        self.opens: list[tuple[OpenCall, StreamInfo]] = []
        self.appends: list[Append] = []
        self.stored: list[Append] = []
        self.doubtful_sweeps = 0
        self.hints: list[Change] = []
        self.stack = AsyncExitStack()
        system.run(self.follow())

    async def follow(self) -> None:
        feed = await self.stack.enter_async_context(self.backend(1).store.changes())
        for key in self.both:
            await feed.follow(key)

        async def collect() -> None:
            async for change in feed:
                self.hints.append(change)

        collecting = asyncio.ensure_future(collect())
        self.stack.callback(collecting.cancel)

    @property
    def both(self) -> list[str]:
        return [self.prefix + "a", self.prefix + "ab"]

    def backend(self, connection: int) -> Backend:
        return self.system.backends[connection]

    def call(self, work: Coroutine[Any, Any, T]) -> T | StreamHubError:
        async def call() -> T | StreamHubError:
            try:
                return await work
            except StreamHubError as exc:
                return exc

        return self.system.run(call())

    def unique(self, what: str) -> str:
        return f"{what}{next(self.numbers)}"

    # Time.

    @rule(seconds=st.sampled_from((1, 2, 4, 6, 6, 12, 23, 35)))
    def advance(self, seconds: int) -> None:
        self.system.advance(seconds)
        self.model.now = self.system.now

    # Leases.

    def acquire_with(self, connection: int, key: str, options: dict[str, Any]) -> Lease | None:
        found = self.call(self.backend(connection).leases.acquire(key, **options))
        expected = self.model.acquire(
            key, **{name: options[name] for name in ("owner", "ttl_seconds", "above", "void")}
        )
        if not isinstance(expected, int):
            check(found, expected)
            return None
        assert isinstance(found, Lease), found
        assert found.generation > expected
        given = found.key, found.owner, found.run, found.ttl_seconds
        assert given == (key, options["owner"], options["run"], options["ttl_seconds"])
        self.model.acquired(found)
        self.leases.append((found, options))
        return found

    @rule(connection=connections, key=keys, run=runs, ttl=ttls, above=booleans, void=booleans)
    def acquire(self, connection: int, key: str, run: str, ttl: float, above: bool, void: bool) -> None:
        self.acquire_anew(connection, self.prefix + key, run, ttl, above=above, void=void)

    def acquire_anew(self, connection: int, key: str, run: str, ttl: float, *, above: bool, void: bool) -> Lease | None:
        seen = self.model.seen(key)
        generation = 0 if seen is None else seen.generation
        options = {
            "owner": self.unique("owner"),
            "run": run,
            "ttl_seconds": ttl,
            "above": generation + 3 if above else 0,
            "void": generation if void else 0,
        }
        return self.acquire_with(connection, key, options)

    @rule(connection=connections, pick=picks)
    def retry_acquire(self, connection: int, pick: int) -> None:
        if self.leases:
            lease, options = self.leases[-1 - pick % len(self.leases)]
            self.acquire_with(connection, lease.key, options)

    @rule(connection=connections, some=st.lists(picks, min_size=1, max_size=3))
    def renew(self, connection: int, some: list[int]) -> None:
        leases = {id(lease): lease for pick in some for lease, _ in self.leases[-1 - pick :][:1]}
        found = self.call(self.backend(connection).leases.renew(list(leases.values())))
        check(found, [self.model.renew(lease) for lease in leases.values()])

    @rule(connection=connections, pick=picks)
    def release(self, connection: int, pick: int) -> None:
        if self.leases:
            lease, _ = self.leases[-1 - pick % len(self.leases)]
            check(self.call(self.backend(connection).leases.release(lease)), None)
            self.model.release(lease)

    # Opens.

    def open_with(self, connection: int, call: OpenCall) -> None:
        found = self.call(self.backend(connection).store.open(call.key, call.generation, **call.arguments))
        before = self.model.seen(call.key)
        expected = self.model.open(call)
        check(found, expected)
        if isinstance(found, StreamInfo) and self.model.seen(call.key) != before:
            self.opens.append((call, found))

    @initialize(retentions=st.tuples(retentions, retentions), how=st.sampled_from(("fresh", "fresh", "dead", "ended")))
    def begin(self, retentions: tuple[Retention, Retention], how: str) -> None:
        """Begin with something there, so that short programs get far."""
        for key, retention in zip(self.both, retentions, strict=True):
            self.produce_with(0, key, "r1", "raise", False, {"n": 0}, retention)
            if how == "dead":
                self.append_with(0, [self.make_append(key, 0, 0, (b"one", b"two", b"three"), None, None)])
                self.release(0, 0)
            elif how == "ended":
                self.append_with(1, [self.make_append(key, 0, 0, (b"one",), None, COMPLETED)])

    @rule(connection=connections, key=keys, run=runs,
          unfinished=st.sampled_from(("resume", "resume", "replace", "raise")), crashed=booleans,
          metadata=metadata, retention=retentions)  # fmt: skip
    def produce(self, connection: int, key: str, **options: Any) -> None:
        self.produce_with(connection, self.prefix + key, **options)

    def produce_with(
        self, connection: int, key: str, run: str, unfinished: str, crashed: bool, metadata: Any, retention: Retention
    ) -> None:
        """Start as the core does: describe, acquire, open. If ``crashed``, the holder's lease is over, too."""
        seen, stored = self.model.seen(key), self.model.stream(key)
        unended = seen is not None and stored is not None and seen.state == "open"
        if unended and unfinished == "raise":
            return
        resume = unended and unfinished == "resume"
        if resume and stored is not None:
            run = stored.run
        lease = self.acquire_anew(connection, key, run, 5.0, above=True, void=crashed or not unended)
        if lease is not None:
            self.open_with(
                connection,
                OpenCall(key, lease.generation, lease.owner, run, seen, resume, True, metadata, retention),
            )

    @rule(connection=connections, pick=picks, shift=st.sampled_from((0, 0, 0, 1, -1)),
          expect=st.sampled_from(("right", "right", "right", "none", "stale", "deleted")), run=runs,
          resume=booleans, attended=booleans, metadata=metadata, retention=retentions)  # fmt: skip
    def open(self, connection: int, pick: int, shift: int, expect: str, **options: Any) -> None:
        """Open with some lease, old or new, on some ground, true or not."""
        if not self.leases:
            return
        lease, _ = self.leases[-1 - pick % len(self.leases)]
        seen = self.model.seen(lease.key)
        if expect == "none":
            seen = None
        elif expect != "right" and seen is not None:
            seen = Seen(seen.generation - 1, seen.state) if expect == "stale" else Seen(seen.generation, "deleted")
        self.open_with(
            connection,
            OpenCall(lease.key, lease.generation + shift, lease.owner, expect=seen, **options),
        )

    @rule(connection=connections, pick=picks, another=seldom)
    def retry_open(self, connection: int, pick: int, another: bool) -> None:
        if self.opens:
            call, _ = self.opens[-1 - pick % len(self.opens)]
            self.open_with(connection, replace(call, owner=self.unique("owner")) if another else call)

    # Appends.

    def append_with(self, connection: int, batch: Sequence[Append]) -> None:
        answers = self.call(self.backend(connection).store.append(batch))
        assert not isinstance(answers, StreamHubError), answers
        assert len(answers) == len(batch)
        for append, answer in zip(batch, answers, strict=True):
            check(answer, *self.model.append(append))
            if isinstance(answer, Appended):
                self.stored.append(append)
        self.appends += batch

    def make_append(
        self, key: str, shift: int, place: int, chunks: tuple[bytes, ...], metadata: Any, end: End | None
    ) -> Append:
        stream = self.model.streams.get(key)
        generation, tail = (1, 0) if stream is None else (stream.generation, stream.tail)
        if not chunks and end is None:
            chunks = (b"at least one",)
        nonce = self.unique("nonce").encode()
        return Append(key, max(1, generation + shift), max(1, tail + 1 + place), chunks, nonce, metadata, end)

    items = st.tuples(
        keys,
        st.sampled_from((0, 0, 0, 0, 0, 0, 1, -1)),
        st.sampled_from((0, 0, 0, 0, 0, 0, 1, -1, -2)),
        payloads,
        metadata,
        maybe_ends,
    )

    @rule(connection=connections, item=items)
    def append(self, connection: int, item: tuple[Any, ...]) -> None:
        key, *rest = item
        self.append_with(connection, [self.make_append(self.prefix + key, *rest)])

    @rule(connection=connections, key=keys, chunks=payloads, metadata=metadata)
    def send(self, connection: int, key: str, chunks: tuple[bytes, ...], metadata: Any) -> None:
        """Append as the owner does."""
        self.append_with(connection, [self.make_append(self.prefix + key, 0, 0, chunks, metadata, None)])

    @rule(connection=connections, key=keys, chunks=st.sampled_from(((), (), (b"last",))), end=st.sampled_from(ENDS),
          metadata=metadata, really=seldom)  # fmt: skip
    def end(self, connection: int, key: str, chunks: tuple[bytes, ...], end: End, metadata: Any, really: bool) -> None:
        """End a run; the answer is lost, and it is sent again through the other connection."""
        if really:
            append = self.make_append(self.prefix + key, 0, 0, chunks, metadata, end)
            self.append_with(connection, [append])
            self.append_with(1 - connection, [append])

    @rule(connection=connections, items=st.lists(items, min_size=2, max_size=2, unique_by=lambda item: item[0]))
    def append_together(self, connection: int, items: list[tuple[Any, ...]]) -> None:
        self.append_with(connection, [self.make_append(self.prefix + key, *rest) for key, *rest in items])

    @rule(connection=connections, pick=picks)
    def retry_append(self, connection: int, pick: int) -> None:
        if self.appends:
            self.append_with(connection, [self.appends[-1 - pick % min(len(self.appends), 6)]])

    @rule(connection=connections, pick=picks)
    def write_as_a_predecessor(self, connection: int, pick: int) -> None:
        """Append as the generation of some earlier open, at its own idea of the tail."""
        if self.opens:
            call, info = self.opens[-1 - pick % len(self.opens)]
            nonce = self.unique("nonce").encode()
            append = Append(call.key, call.generation, info.tail + 1, (b"stale",), nonce, {"stale": True})
            self.append_with(connection, [append])

    # Everything else.

    @rule(connection=connections, key=keys, after=st.integers(0, 12), most=st.integers(1, 6), size=st.integers(1, 30))
    def read(self, connection: int, key: str, after: int, most: int, size: int) -> None:
        read = Read(self.prefix + key, after, most, size)
        answers = self.call(self.backend(connection).store.read([read, Read(self.prefix + "never", 0)]))
        assert not isinstance(answers, StreamHubError), answers
        self.check_page(read, answers[0])
        check(answers[1], self.model.read(Read(self.prefix + "never", 0)))

    def check_page(self, read: Read, found: Page | StreamHubError) -> None:
        expected = self.model.read(read)
        if isinstance(found, StreamHubError) or isinstance(expected, StreamHubError):
            check(found, expected)
            return
        chunks = found.chunks
        assert chunks == expected.chunks[: len(chunks)]
        assert bool(chunks) == bool(expected.chunks)
        assert len(chunks) <= read.max_chunks
        assert len(chunks) <= 1 or sum(map(len, chunks)) <= read.max_bytes
        assert replace(found, chunks=()) == replace(expected, chunks=())

    @rule(connection=connections, key=keys)
    def touch(self, connection: int, key: str) -> None:
        key = self.prefix + key
        found = self.call(self.backend(connection).store.describe([key], touch=True))
        assert not isinstance(found, StreamHubError), found
        check_info(found[0], None if self.model.stream(key) is None else self.model.describe(key, touch=True))

    @rule(connection=connections, key=keys, really=seldom)
    def delete(self, connection: int, key: str, really: bool) -> None:
        key = self.prefix + (key if really else "never")
        check(self.call(self.backend(connection).store.delete(key)), self.model.delete(key))

    @rule(connection=connections)
    def sweep(self, connection: int) -> None:
        found = self.call(self.backend(connection).store.sweep(1000))
        due = self.model.sweepable()
        assert isinstance(found, int)
        # Whether an expired stream whose fence is over, too, counts once or twice is left open.
        assert max(0, due - self.doubtful_sweeps) <= found <= 2 * due
        self.model.swept()
        self.doubtful_sweeps = 0

    @rule(connection=connections)
    def sweep_one(self, connection: int) -> None:
        found = self.call(self.backend(connection).store.sweep(1))
        due = self.model.sweepable()
        assert found in (0, 1)
        assert found == 1 or due <= self.doubtful_sweeps
        self.doubtful_sweeps += found

    @rule(connection=connections, key=keys, run=runs, reason=st.sampled_from((None, "why", "é")),
          by=st.sampled_from((None, "me")))  # fmt: skip
    def request(self, connection: int, key: str, run: str, reason: str | None, by: str | None) -> None:
        request = CancelRequest(self.prefix + key, run, reason, by)
        found = self.call(
            self.backend(connection).cancels.request(request.key, run, reason=reason, requested_by=by, ttl_seconds=12.0)
        )
        check(found, self.model.request(request, 12.0))

    @rule(connection=connections, prefix=st.sampled_from(("", "a", "ab", "abc", "b")))
    def list_keys(self, connection: int, prefix: str) -> None:
        async def listed() -> list[str]:
            keys = self.backend(connection).store.keys(self.prefix + prefix)
            return [key async for key in keys]

        found = self.system.run(listed())
        seen = {key: self.model.seen(key) for key in self.both if key.startswith(self.prefix + prefix)}
        assert len(found) == len(set(found))
        assert {key for key, pair in seen.items() if pair and pair.state in ("open", "ended")} <= set(found)
        assert set(found) <= {key for key, pair in seen.items() if pair}

    # What holds at every moment, seen through either connection.

    @invariant()
    def agrees(self) -> None:
        backend = self.backend(next(self.turn))
        self.system.run(self.agree(backend))

    async def agree(self, backend: Backend) -> None:
        for key, info in zip(self.both, await backend.store.describe(self.both), strict=True):
            check_info(info, None if self.model.stream(key) is None else self.model.describe(key))
        reads = [Read(key, max(0, self.first(key) - 1), 1000, 10_000) for key in self.both]
        number = next(self.numbers)
        small = [replace(read, max_chunks=1 + number % 4, max_bytes=1 + number % 13) for read in reads]
        for read, page in zip(small, await backend.store.read(small), strict=True):
            self.check_page(read, page)
        for read, page in zip(reads, await backend.store.read(reads), strict=True):
            self.check_page(read, page)
            assert not isinstance(page, Page) or len(page.chunks) == page.tail - page.first + 1
        for key, holder in zip(self.both, await backend.leases.holders(self.both), strict=True):
            self.check_holder(holder, self.model.holder(key))
        refs = [RunRef(key, run) for key in self.both for run in RUNS]
        assert list(await backend.cancels.pending(refs)) == [self.model.pending(ref) for ref in refs]

    def first(self, key: str) -> int:
        stream = self.model.stream(key)
        return 1 if stream is None else stream.first

    def check_holder(self, found: Holder | None, expected: Holder | None) -> None:
        if found is None or expected is None:
            assert found is expected
            return
        assert (found.generation, found.run) == (expected.generation, expected.run)
        assert found.expires_in > 0
        assert abs(found.expires_in - expected.expires_in) < 0.1

    @invariant()
    def hints_tell_the_truth(self) -> None:
        hints, self.hints = self.hints, []
        for hint in hints:
            if hint.append is not None:
                assert hint.key == hint.append.key
                assert hint.append in self.stored

    def teardown(self) -> None:
        self.system.run(self.stack.aclose())
        self.system.run(self.system.nothing_is_left(100))


pytestmark = MARKS


@pytest.mark.parametrize(("backend", "examples"), [("memory", 200), ("sqlite", 60)])
def test_the_protocols_agree_with_the_model(backend: str, examples: int) -> None:
    system = SYSTEMS[backend]()
    run_model(system, lambda: ProtocolMachine(system), examples=examples, steps=40)
