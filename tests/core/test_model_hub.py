"""Random interleavings of what applications do with hubs, against the same model of plain dicts as the protocols.

Two hubs share a backend, as two processes would. Producers finish, fail, hang and wake up fenced; runs are taken over,
replaced, cancelled and deleted; subscribers join at any cursor; replies are lost, hints late, feeds broken. After each
step everything must come to what the model says: every stream, producer and subscriber.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from model_systems import MARKS, SYSTEMS, System, run_model
from stream_model import Model, ModelStream, OpenCall, check, check_info

from streamhub import (
    Append,
    Appended,
    CancelRequest,
    CancelResult,
    Chunk,
    DataLostError,
    End,
    Hub,
    HubSettings,
    InvalidOffsetError,
    Joined,
    Lease,
    LeaseHeldError,
    LeaseLostError,
    LimitExceededError,
    Offset,
    Producer,
    ProducerCancelledError,
    Retention,
    RunRef,
    Span,
    StreamEndedError,
    StreamFailedError,
    StreamFailure,
    StreamHubError,
    StreamNotFoundError,
    StreamReplacedError,
    StreamUnfinishedError,
    Subscription,
)
from streamhub.conformance.faulty import Faults, FaultyCancels, FaultyLeases, FaultyStore

T = TypeVar("T")
Step = Callable[[Producer], Awaitable[None]]

TTL = 60.0
REQUEST_TTL = 200.0
SETTLE_SECONDS = 5.0
SETTINGS = HubSettings(
    lease_seconds=TTL, poll_seconds=0.01, abandon_after_seconds=1000, unfinished_seconds=REQUEST_TTL, sweep_seconds=1e6
)
RETENTIONS = (
    Retention(unfinished_seconds=250, ended_seconds=90, fence_seconds=120),
    Retention(unfinished_seconds=180, ended_seconds=200, fence_seconds=70, max_chunks=9),
)
LOSSY = (
    "append",
    "open",
    "acquire",
    "read",
    "describe",
    "holders",
    "release",
    "request",
    "pending",
    "follow",
    "listen",
)
INTERRUPTED = End(state="failed", code="interrupted", message="the producer was interrupted")
ENDINGS: dict[str, tuple[Callable[[], Exception | None], End]] = {
    "complete": (lambda: None, End(state="completed")),
    "publish": (lambda: StreamFailure("it broke", code="Boom"), End(state="failed", code="Boom", message="it broke")),
    "error": (lambda: ValueError("secret"), End(state="failed", code="ValueError", message="the producer failed")),
}

hubs = st.integers(0, 1)
keys = st.sampled_from(("a", "ab"))
runs = st.sampled_from((None, "r1", "r2", "r3"))
picks = st.integers(0, 30)
payloads = st.lists(st.sampled_from(("", "x", "two", "é😀", "a longer one")), min_size=1, max_size=4)
metadata = st.sampled_from((None, None, {"n": 1}, {}))


class Worker:
    """One producer's process, of which the machine says what it does next."""

    def __init__(self, key: str, how: str, on_interrupt: str) -> None:
        self.key = key
        self.how = how
        self.handover = on_interrupt == "handover"
        self.steps: asyncio.Queue[Step | None] = asyncio.Queue()
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.history: list[Chunk] = []
        self.task: asyncio.Task[None] | None = None
        self.over = False
        self.expected: list[object] | None = None  # how its body may have ended; None while it must be alive
        self.error: BaseException | None = None
        # Known once it is open:
        self.producer: Producer
        self.lease: Lease
        self.stream: ModelStream
        self.metadata: Any = None  # set, not stored yet

    async def body(self, producer: Producer) -> None:
        self.producer = producer
        try:
            self.history = [chunk async for chunk in producer.history()]
            self.opened.set_result(None)
            while (step := await self.steps.get()) is not None:
                await step(producer)
        except BaseException as exc:
            self.error = exc
            raise
        finally:
            self.over = True

    async def produce(self, hub: Hub, options: dict[str, Any]) -> None:
        try:
            async with hub.produce(self.key, **options) as producer:
                await self.body(producer)
        except (Exception, asyncio.CancelledError) as exc:
            self.error = exc
        finally:
            self.over = True


class Reader:
    """One subscriber, and what it must have read."""

    def __init__(self, subscription: Subscription, stream: ModelStream, after: int, strict: bool) -> None:
        self.subscription = subscription
        self.stream = stream
        self.after = after
        self.strict = strict
        self.chunks: list[Chunk] = []
        self.outcome: object = None  # "finished", or what was raised
        self.final: object = None  # what the outcome must be
        self.passing: object = None  # what it may be, instead: a fate that lasted for less than a step
        self.task = asyncio.ensure_future(self.read())

    async def read(self) -> None:
        try:
            async for chunk in self.subscription:
                self.chunks.append(chunk)
            self.outcome = "finished"
        except StreamHubError as exc:
            self.outcome = exc


def offset_in(spans: Sequence[Span], index: int) -> Offset:
    begun = [span for span in spans if span.first <= index] or spans
    return Offset(begun[-1 if begun is not spans else 0].generation, index)


def offset_of(stream: ModelStream, index: int) -> Offset:
    return offset_in(stream.spans, index)


def chunks_of(stream: ModelStream, after: int) -> list[Chunk]:
    return [Chunk(offset_of(stream, index), stream.chunks[index]) for index in range(after + 1, stream.tail + 1)]


somebody_produces = precondition(lambda self: any(worker.expected is None for worker in self.workers))


class HubMachine(RuleBasedStateMachine):
    """Applications on two hubs. Every rule does one thing, and waits until all its consequences are there."""

    def __init__(self, system: System) -> None:
        super().__init__()
        self.system = system
        self.prefix = f"{next(system.examples)}/"
        self.both = [self.prefix + "a", self.prefix + "ab"]
        self.model = Model()
        self.model.now = system.now
        self.numbers = itertools.count(1)
        self.workers: list[Worker] = []
        self.readers: list[Reader] = []
        self.streams: list[ModelStream] = []
        self.stack = AsyncExitStack()
        self.hubs: list[Hub] = []
        self.faults: list[tuple[Faults, Faults]] = []
        system.run(self.enter())

    async def enter(self) -> None:
        for backend in self.system.backends:
            faults = Faults(), Faults()
            hub = Hub(
                store=FaultyStore(backend.store, faults[0]),
                leases=FaultyLeases(backend.leases, faults[0]),
                cancels=FaultyCancels(backend.cancels, faults[1]),
                settings=SETTINGS,
            )
            self.faults.append(faults)
            self.hubs.append(await self.stack.enter_async_context(hub))
        # Looks on, without faults: these calls are not repeated.
        parts = self.system.backends[0]
        watching = Hub(store=parts.store, leases=parts.leases, cancels=parts.cancels, settings=SETTINGS)
        self.watching = await self.stack.enter_async_context(watching)

    def do(self, work: Coroutine[Any, Any, None]) -> None:
        async def do() -> None:
            async with asyncio.timeout(30):
                await work
                await self.settle()

        self.system.run(do())

    # Producing.

    @initialize(how=st.sampled_from(("produce", "start")), on_interrupt=st.sampled_from(("fail", "handover")),
                retention=st.sampled_from(RETENTIONS), begun=st.integers(0, 3), follow=st.booleans())  # fmt: skip
    def set_out(self, how: str, on_interrupt: str, retention: Retention, begun: int, follow: bool) -> None:
        """Begin with something there, so that short programs get far."""
        for key, run in zip(self.both[:begun], ("r1", None), strict=False):
            options = {"run": run, "unfinished": "raise", "on_interrupt": on_interrupt}
            options |= {"metadata": {"n": 0}, "retention": retention}
            self.do(self.begin(self.hubs[0], key, how, options))
            self.do(self.sending(self.workers[-1], ["one", "two"], flush=True, metadata=None))
            if follow:
                self.do(self.subscribing(self.hubs[1], key, None, None, True))
                self.do(self.subscribing(self.hubs[0], key, None, "latest", False))

    @rule(hub=hubs, key=keys, run=runs, unfinished=st.sampled_from(("raise", "resume", "resume", "replace")),
          how=st.sampled_from(("produce", "start")), on_interrupt=st.sampled_from(("fail", "handover")),
          metadata=metadata, retention=st.sampled_from(RETENTIONS))  # fmt: skip
    def produce(self, hub: int, key: str, how: str, **options: Any) -> None:
        self.do(self.begin(self.hubs[hub], self.prefix + key, how, options))

    async def begin(self, hub: Hub, key: str, how: str, options: dict[str, Any]) -> None:
        run, unfinished = options["run"], options["unfinished"]
        found, seen = self.model.stream(key), self.model.seen(key)
        resumed = found is not None and found.state(self.model.now) == "open" and unfinished == "resume"
        resumed = resumed and found is not None and run in (None, found.run)
        if resumed and found is not None:
            run = found.run
        refusal = self.refusal(key, options["run"], unfinished, resumed=resumed)
        if isinstance(refusal, LeaseHeldError) and how == "start" and options["run"] in (None, refusal.run):
            refusal = Joined(key, refusal.run, refusal.generation)
        worker = Worker(key, how, options["on_interrupt"])
        answer = await self.open(hub, worker, options)
        if refusal is not None:
            check(answer, refusal)
            return
        # It was opened: note what that makes of the stream.
        if isinstance(answer, ProducerCancelledError):
            run = answer.run
            info = await self.watching.info(key)
            assert info is not None
            generation = info.generation
        elif answer is None:
            run, generation = worker.producer.run, worker.producer.generation
        else:
            assert not isinstance(answer, (StreamHubError, Joined)), answer
            run, generation = answer.run, answer.generation
        assert options["run"] in (None, run)
        assert generation > max(self.model.given.get(key, 0), 0 if seen is None else seen.generation)
        before = [] if found is None or not resumed else chunks_of(found, 0)
        owner = f"owner{next(self.numbers)}"
        self.model.acquired(Lease(key, generation, owner, run, TTL))
        self.model.open(
            OpenCall(key, generation, owner, run, seen, resumed, True, options["metadata"], options["retention"])
        )
        stream = self.model.stream(key)
        assert stream is not None
        if not resumed:
            self.streams.append(stream)
        worker.stream, worker.lease = stream, self.model.leases[key][0]
        request = self.model.pending(RunRef(key, run))
        if request is not None:
            assert how == "start" or isinstance(answer, ProducerCancelledError)
            self.end(worker, cancelled_by(request))
            return
        assert worker.history == before
        assert worker.producer.resumed == resumed
        self.workers.append(worker)

    @rule(hub=hubs, key=keys, unfinished=st.sampled_from(("resume", "resume", "replace")), metadata=metadata,
          retention=st.sampled_from(RETENTIONS), run=runs, chunks=payloads, more=st.booleans())  # fmt: skip
    def take_over(self, hub: int, key: str, chunks: list[str], more: bool, **options: Any) -> None:
        """Whoever produces hangs until its lease is over; another goes on, and the first one wakes up some time."""
        key = self.prefix + key
        before = len(self.workers)

        async def take_over() -> None:
            await self.advancing(61, False)
            for reader in self.readers:
                reader.passing = reader.passing or self.fate(reader)
            await self.begin(self.hubs[hub], key, "produce", {**options, "on_interrupt": "handover"})
            if more and len(self.workers) > before:
                await self.sending(self.workers[-1], chunks, flush=True, metadata=None)

        self.do(take_over())

    def refusal(self, key: str, run: str | None, unfinished: str, *, resumed: bool) -> StreamHubError | None:
        """Say what starting a run must raise, if anything."""
        stream, seen, holder = self.model.stream(key), self.model.seen(key), self.model.holder(key)
        held = holder and LeaseHeldError(
            key, generation=holder.generation, run=holder.run, expires_in=holder.expires_in
        )
        if stream is None or seen is None:
            return held
        if stream.end is not None and stream.run == run:
            return StreamEndedError(key, stream.end, run=run)
        if seen.state != "open":
            return held if holder is not None and holder.generation > seen.generation else None
        if resumed or unfinished == "replace":
            return held
        return held or StreamUnfinishedError(key, stream.run)

    async def open(self, hub: Hub, worker: Worker, options: dict[str, Any]) -> Any:
        """Start a worker; return what ``start`` answered, or what was raised, or None."""
        if worker.how == "start":
            try:
                started = await hub.start(worker.key, worker.body, **options)
            except StreamHubError as exc:
                return exc
            if not isinstance(started, Joined) and self.model.pending(RunRef(worker.key, started.run)) is None:
                await worker.opened
            return started
        worker.task = asyncio.ensure_future(worker.produce(hub, options))
        await asyncio.wait({worker.task, worker.opened}, return_when=asyncio.FIRST_COMPLETED)
        return worker.error

    def verdict(self, worker: Worker) -> StreamHubError | None:
        """Say what an append of this worker meets: None if it is stored."""
        probe = Append(worker.key, worker.lease.generation, 0, (b"",), b"never")
        (answer,) = self.model.append(probe)
        assert isinstance(answer, StreamHubError)
        assert not isinstance(answer, DataLostError)
        return None if not answer_is_fence(answer) else answer

    def store(self, worker: Worker, chunks: list[bytes], end: End | None) -> None:
        stream = worker.stream
        nonce = b"%d" % next(self.numbers)
        generation = worker.lease.generation
        append = Append(worker.key, generation, stream.tail + 1, tuple(chunks), nonce, worker.metadata, end)
        assert self.model.append(append) == [Appended(append.last)]
        worker.metadata = None

    def end(self, worker: Worker, end: End | None) -> None:
        """Note that a worker ends, with this end if it may still write."""
        if end is not None and self.verdict(worker) is None:
            self.store(worker, [], end)
        self.model.release(worker.lease)

    def pick(self, pick: int) -> Worker | None:
        alive = [worker for worker in self.workers if worker.expected is None]
        return alive[-1 - pick % len(alive)] if alive else None

    @somebody_produces
    @rule(pick=picks, chunks=payloads, flush=st.booleans(), metadata=metadata,
          lost=st.sampled_from((None, None, "append", "read")))  # fmt: skip
    def send(self, pick: int, chunks: list[str], flush: bool, metadata: Any, lost: str | None) -> None:
        worker = self.pick(pick)
        if lost is not None:
            for faults, _ in self.faults:
                faults.lose_reply(lost)
        if worker is not None:
            self.do(self.sending(worker, chunks, flush, metadata))

    @somebody_produces
    @rule(pick=picks, unseen=payloads, seen=payloads)
    def send_unseen(self, pick: int, unseen: list[str], seen: list[str]) -> None:
        """The hints of a first append are lost, those of a second are not."""
        worker = self.pick(pick)
        if worker is not None and self.verdict(worker) is None:
            self.do(self.sending_unseen(worker, unseen, seen))

    async def sending_unseen(self, worker: Worker, unseen: list[str], seen: list[str]) -> None:
        for faults, _ in self.faults:
            faults.late_hints, faults.drop_hints = 0, True
        await self.sending(worker, unseen, flush=True, metadata=None)
        await asyncio.sleep(0.005)
        for faults, _ in self.faults:
            faults.drop_hints = False
        await self.sending(worker, seen, flush=True, metadata=None)

    async def sending(self, worker: Worker, chunks: list[str], flush: bool, metadata: Any) -> None:
        opened, tail = worker.producer._info, worker.producer.offset.index
        most = opened.retention.max_chunks
        fitting = chunks if most is None else chunks[: max(0, most - tail)]
        verdict = self.verdict(worker)
        found: list[object] = []

        async def step(producer: Producer) -> None:
            if metadata is not None:
                producer.set_metadata(metadata)
            for chunk in chunks:
                try:
                    found.append(await producer.send(chunk))
                except LimitExceededError as exc:
                    found.append(type(exc))
            if flush:
                found.append(await producer.flush())

        await worker.steps.put(step)
        if metadata is not None:
            worker.metadata = metadata
        if verdict is not None and fitting:
            worker.expected = [verdict]
            self.model.release(worker.lease)
            return
        offsets: list[object] = [Offset(worker.lease.generation, tail + 1 + number) for number in range(len(fitting))]
        offsets += [LimitExceededError] * (len(chunks) - len(fitting))
        if flush:
            offsets.append(offset_in(opened.spans, tail + len(fitting)))
        await self.until(lambda: worker.over or len(found) == len(offsets), "a send is stuck")
        assert found == offsets
        if fitting:
            self.store(worker, [chunk.encode() for chunk in fitting], None)

    @somebody_produces
    @rule(pick=picks, ending=st.sampled_from((*ENDINGS, "complete")), metadata=metadata)
    def finish(self, pick: int, ending: str, metadata: Any) -> None:
        worker = self.pick(pick)
        if worker is not None:
            error, end = ENDINGS[ending]
            self.do(self.finishing(worker, error(), end, metadata))

    async def finishing(self, worker: Worker, error: Exception | None, end: End, metadata: Any) -> None:
        async def last(producer: Producer) -> None:
            if metadata is not None:
                producer.set_metadata(metadata)
            if error is not None:
                raise error

        await worker.steps.put(last)
        await worker.steps.put(None)
        worker.metadata = worker.metadata if metadata is None else metadata
        verdict = self.verdict(worker)
        # What start's body comes to is not what is raised in the end: that is logged.
        worker.expected = [verdict if error is None and worker.how == "produce" else error]
        self.end(worker, end)

    @somebody_produces
    @rule(pick=picks)
    def interrupt(self, pick: int) -> None:
        """The task that produces is cancelled from outside."""
        worker = self.pick(pick)
        if worker is not None and worker.task is not None:
            self.do(self.interrupting(worker))

    async def interrupting(self, worker: Worker) -> None:
        assert worker.task is not None
        worker.task.cancel()
        worker.expected = [asyncio.CancelledError()]
        self.end(worker, None if worker.handover else INTERRUPTED)

    @somebody_produces
    @rule(pick=picks)
    def lose(self, pick: int) -> None:
        """The process notices that its lease is over: it writes nothing more."""
        worker = self.pick(pick)
        if worker is not None:
            self.do(self.losing(worker))

    async def losing(self, worker: Worker) -> None:
        hub_runs = [run for hub in self.hubs for run in hub._core.starter.runs]  # pyright: ignore
        for run in hub_runs:
            if run.producer is worker.producer:
                run._held.lose()
        worker.expected = [LeaseLostError(worker.key, generation=worker.lease.generation)]
        self.end(worker, None)

    # Time.

    @rule(seconds=st.sampled_from((20, 61, 61, 100, 130)), sweep=st.booleans())
    def advance(self, seconds: int, sweep: bool) -> None:
        self.do(self.advancing(seconds, sweep))

    async def advancing(self, seconds: int, sweep: bool) -> None:
        self.system.advance(seconds)
        self.model.now = self.system.now
        for worker in self.workers:
            # Whoever sleeps until even the fence is gone has missed its own deadline, too.
            if worker.expected is None and self.model.stream(worker.key) is None:
                await self.losing(worker)
        if sweep:
            await self.watching.store.sweep(1000)

    # Control.

    @rule(hub=hubs, key=keys, run=runs, reason=st.sampled_from((None, "why")), wait=st.sampled_from((0, 0.02)))
    def cancel(self, hub: int, key: str, run: str | None, reason: str | None, wait: float) -> None:
        self.do(self.cancelling(self.hubs[hub], self.prefix + key, run, reason, wait))

    async def cancelling(self, hub: Hub, key: str, run: str | None, reason: str | None, wait: float) -> None:
        target = run or self.running(key)
        stream, holder = self.model.stream(key), self.model.holder(key)
        generation = 0 if stream is None else stream.generation
        answer = await hub.cancel(key, run=run, reason=reason, requested_by="me", wait=wait)
        if target is None:
            check(answer, CancelResult(state="nothing"))
            return
        if stream is not None and stream.run == target and stream.end is not None:
            check(answer, CancelResult(state="ended", run=target, end=stream.end))
            return
        self.model.request(CancelRequest(key, target, reason, "me"), REQUEST_TTL)
        request = self.model.pending(RunRef(key, target))
        assert request is not None
        requested = CancelResult(state="requested", run=target)
        if stream is None or stream.run != target or stream.state(self.model.now) != "open":
            check(answer, requested)
        else:
            end = cancelled_by(request)
            held = holder is not None and holder.generation >= stream.generation
            cancelled = CancelResult(state="cancelled", run=target, end=end)
            check(answer, cancelled, *([requested] if held else []))
            await self.cancelled(stream, key, end)
        for worker in self.workers:
            if worker.expected is None and worker.key == key and worker.stream.run == target:
                await self.cancelled_worker(worker, request, overtaken=worker.lease.generation != generation)

    async def cancelled(self, stream: ModelStream, key: str, end: End) -> None:
        """Wait for the end; take over what depends on who wrote it: the producer, however late, or the canceller."""
        await self.until_info(key, end)
        info = await self.watching.info(key)
        assert info is not None
        spans = tuple(stream.spans)
        assert info.spans[: len(spans)] == spans
        assert [span.first for span in info.spans[len(spans) :]] in ([], [stream.tail + 1])
        (writer,) = [w for w in self.workers if w.expected is None and w.stream is stream][-1:] or (None,)
        pending = None if writer is None else writer.metadata
        if info.generation == stream.generation and pending is not None:
            assert info.metadata in (pending, stream.metadata)
        else:
            assert info.metadata == stream.metadata
        stream.metadata, stream.spans, stream.generation = info.metadata, list(info.spans), info.generation
        stream.end, stream.expires = end, self.model.now + stream.retention.ended_seconds
        self.model.given[key] = max(self.model.given[key], info.generation)
        held = self.model.lease(key)
        if held is not None and (writer is None or held[0] == writer.lease):
            self.model.release(held[0])

    async def until_info(self, key: str, end: End) -> None:
        deadline = time.monotonic() + SETTLE_SECONDS
        while (info := await self.watching.info(key)) is None or info.end != end:
            assert time.monotonic() < deadline, f"the cancel of {key} has not ended it: {info}"
            await asyncio.sleep(0.002)

    async def cancelled_worker(self, worker: Worker, request: CancelRequest, *, overtaken: bool) -> None:
        """A worker of the cancelled run's name stops; once overtaken, its successor may be listening in its place."""
        cancelled = ProducerCancelledError(
            worker.key, run=worker.stream.run, reason=request.reason, requested_by=request.requested_by
        )
        if overtaken:
            await self.losing(worker)
            worker.expected = [*(worker.expected or []), cancelled]
        else:
            worker.expected = [cancelled]
        self.model.release(worker.lease)

    def running(self, key: str) -> str | None:
        seen, stream, holder = self.model.seen(key), self.model.stream(key), self.model.holder(key)
        if holder is not None and (seen is None or holder.generation > seen.generation):
            return holder.run
        return stream.run if stream is not None and seen is not None and seen.state == "open" else None

    @rule(hub=hubs, key=keys, really=st.sampled_from((False, False, True)))
    def delete(self, hub: int, key: str, really: bool) -> None:
        key = self.prefix + (key if really else "never")

        async def delete() -> None:
            check(await self.hubs[hub].delete(key), self.model.delete(key))

        self.do(delete())

    @rule(hub=hubs, what=st.sampled_from((*LOSSY, "late", "drop", "good", "break")))
    def trouble(self, hub: int, what: str) -> None:
        """Lose a reply, delay or drop the hints of changes, break the feeds, or let all be well."""
        for_all, for_cancels = self.faults[hub]
        if what == "break":
            self.do(self.breaking(for_all, for_cancels))
        elif what in LOSSY:
            for_all.lose_reply(what)
            for_cancels.lose_reply(what)
        else:
            for_all.late_hints, for_all.drop_hints = 2 * (what == "late"), what == "drop"

    async def breaking(self, *faults: Faults) -> None:
        for each in faults:
            each.break_feeds()

    # Subscribing.

    @rule(hub=hubs, key=keys, run=st.sampled_from((None, None, None, "r1", "r2")), strict=st.booleans(),
          after=st.sampled_from((None, None, "start", "latest", "tail", "chunk", "chunk", "beyond", "begin", "later",
                                 "astray", "astray")),
          pick=picks)  # fmt: skip
    def subscribe(self, hub: int, key: str, run: str | None, strict: bool, after: str | None, pick: int) -> None:
        cursor: Offset | str | None = self.cursor(self.prefix + key, after, pick)
        self.do(self.subscribing(self.hubs[hub], self.prefix + key, run, cursor, strict))

    def cursor(self, key: str, after: str | None, pick: int) -> Offset | str | None:
        """Make a cursor, of the stream that is there or of some earlier one."""
        if after in (None, "start", "latest"):
            return after
        stream = self.model.stream(key)
        if self.streams and (stream is None or pick % 4 == 0):
            stream = self.streams[-1 - pick % len(self.streams)]
        if stream is None:
            return Offset(7, 3)
        if after == "begin":
            return Offset(stream.spans[0].generation, 0)
        if after == "later":
            return Offset(stream.generation + 1 + pick, 1)
        if after == "astray":
            return Offset(stream.spans[pick % len(stream.spans)].generation, pick % (stream.tail + 2))
        index = {"tail": stream.tail, "beyond": stream.tail + 1 + pick % 2}.get(after or "", pick % (stream.tail + 1))
        return offset_of(stream, index)

    async def subscribing(self, hub: Hub, key: str, run: str | None, cursor: Offset | str | None, strict: bool) -> None:
        subscription = hub.subscribe(key, run=run, after=cursor, strict=strict)
        expected = self.admission(key, run, cursor if isinstance(cursor, Offset) else None)
        try:
            await subscription.__aenter__()
        except StreamHubError as exc:
            assert expected is not None, exc
            assert type(exc) is type(expected), (exc, expected)
            return
        assert expected is None, f"admitted, in place of {expected!r}"
        stream = self.model.stream(key)
        assert stream is not None
        after = stream.tail if cursor == "latest" else cursor.index if isinstance(cursor, Offset) else 0
        assert subscription.run == stream.run
        self.readers.append(Reader(subscription, stream, after, strict))

    def admission(self, key: str, run: str | None, cursor: Offset | None) -> StreamHubError | None:
        """Say what subscribing must raise, if anything."""
        stream, fence = self.model.stream(key), self.model.fence(key)
        if stream is None:
            return StreamNotFoundError(key, run)
        old = cursor is not None and cursor.generation <= stream.generation
        if fence is not None:
            return fence if old or run in (None, stream.run) else StreamNotFoundError(key, run)
        if run not in (None, stream.run):
            replaced = cursor is not None and cursor.generation < stream.spans[0].generation
            return StreamReplacedError(key) if replaced else StreamNotFoundError(key, run)
        if cursor is None or cursor == (stream.spans[0].generation, 0):
            return None
        if 0 < cursor.index <= stream.tail and cursor == offset_of(stream, cursor.index):
            return None
        beyond = cursor.generation == stream.generation and cursor.index > stream.tail
        if beyond or cursor.generation > stream.generation:
            return InvalidOffsetError("beyond")
        return StreamReplacedError(key)

    @precondition(lambda self: len(self.readers) > 2)
    @rule(pick=picks, polite=st.booleans())
    def leave(self, pick: int, polite: bool) -> None:
        if self.readers:
            self.do(self.leaving(self.readers.pop(pick % len(self.readers)), polite))

    async def leaving(self, reader: Reader, polite: bool) -> None:
        if polite:
            await reader.subscription.aclose()
        reader.task.cancel()
        await asyncio.gather(reader.task, return_exceptions=True)

    # What must come of it.

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + SETTLE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, what
            await asyncio.sleep(0.001)

    async def settle(self) -> None:
        """Wait until everything is as the model has it; fail at once where it cannot become so."""
        for reader in self.readers:
            if reader.final is None:
                reader.final = self.fate(reader)
        deadline = time.monotonic() + SETTLE_SECONDS
        while (problem := await self.problem()) is not None:
            assert time.monotonic() < deadline, problem
            await asyncio.sleep(0.001)
        self.workers = [worker for worker in self.workers if worker.expected is None]

    async def problem(self) -> str | None:
        """Say what is not (yet) as the model has it."""
        problems = [self.worker_problem(worker) for worker in self.workers]
        problems += [self.reader_problem(reader) for reader in self.readers]
        if any(problems):
            return next(problem for problem in problems if problem)
        backend = self.system.backends[next(self.numbers) % 2]
        infos = await backend.store.describe(self.both)
        for key, info in zip(self.both, infos, strict=True):
            try:
                check_info(info, None if self.model.stream(key) is None else self.model.describe(key))
            except AssertionError as exc:
                return f"{key}: {exc}"
        holders = await backend.leases.holders(self.both)
        for key, holder in zip(self.both, holders, strict=True):
            expected = self.model.holder(key)
            if (holder and (holder.generation, holder.run)) != (expected and (expected.generation, expected.run)):
                return f"{key}: held by {holder}, expected {expected}"
        return await self.listing_problem()

    async def listing_problem(self) -> str | None:
        for state in ("live", "orphaned", "ended"):
            listed = self.watching.keys(self.prefix, state=state)
            found = {key async for key in listed}
            expected = {key for key in self.both if self.listed_as(key) == state}
            if found != expected:
                return f"{state}: {found}, expected {expected}"
        return None

    def listed_as(self, key: str) -> str | None:
        seen = self.model.seen(key)
        if seen is None or seen.state not in ("open", "ended"):
            return None
        if seen.state == "ended":
            return "ended"
        return "orphaned" if self.model.holder(key) is None else "live"

    def worker_problem(self, worker: Worker) -> str | None:
        if worker.expected is None:
            assert not worker.over, f"a producer of {worker.key} ended: {worker.error!r}"
            lane = worker.producer._lane
            return None if lane.durable == lane.sent else f"a producer of {worker.key} waits for an acknowledgement"
        if not worker.over or (worker.task is not None and not worker.task.done()):
            return f"a producer of {worker.key} has not ended with {worker.expected}"
        if any(run.producer is worker.producer for hub in self.hubs for run in hub._core.starter.runs):
            return f"the end of a producer of {worker.key} is not settled"  # a clock must not jump meanwhile
        if worker.how == "start" and isinstance(worker.error, asyncio.CancelledError):
            return None  # what interrupted it is logged by the hub
        allowed = [(type(error), str(error)) for error in worker.expected]
        assert (type(worker.error), str(worker.error)) in allowed, (worker.error, worker.expected)
        return None

    def fate(self, reader: Reader) -> object:
        """Say what a reader's iteration comes to, if it comes to something."""
        stream, key = reader.stream, reader.subscription.key
        now = self.model.stream(key)
        if now is None:
            return StreamNotFoundError(key, None)
        if now is not stream:
            return StreamReplacedError(key)
        if (fence := self.model.fence(key)) is not None:
            return fence
        if stream.end is None:
            return None
        return StreamFailedError(key, stream.end) if reader.strict and stream.end.state == "failed" else "finished"

    def reader_problem(self, reader: Reader) -> str | None:
        expected = chunks_of(reader.stream, reader.after)
        found = reader.chunks
        assert found == expected[: len(found)], f"read {found}, expected {expected}"
        if reader.outcome is None:
            if reader.final is not None or found != expected:
                return f"a reader of {reader.subscription.key} has {len(found)} of {len(expected)}, not {reader.final}"
            return None
        assert type(reader.outcome) in (type(reader.final), type(reader.passing)), (reader.outcome, reader.final)
        ended = reader.stream.end is not None and isinstance(reader.outcome, (str, StreamFailedError))
        assert not ended or (found == expected and reader.subscription.end == reader.stream.end)
        return None

    def teardown(self) -> None:
        self.system.run(self.end_all())

    async def end_all(self) -> None:
        async with asyncio.timeout(60):
            for faults in itertools.chain.from_iterable(self.faults):
                faults.clear()
            for reader in self.readers:
                await self.leaving(reader, True)
            self.readers.clear()
            gc.collect()
            await asyncio.sleep(0)
            assert not any(hub._core.feeds._feeds for hub in self.hubs)  # pyright: ignore
            for worker in self.workers:
                await self.losing(worker)
            await self.settle()
            await self.until(lambda: not any(hub._core.starter.runs for hub in self.hubs), "a run has not ended")  # pyright: ignore
            await self.stack.aclose()
            await self.system.nothing_is_left(1000)


def answer_is_fence(answer: StreamHubError) -> bool:
    """Tell the refusal of a predecessor from that of a probe, which does not fit anywhere."""
    from streamhub import OffsetConflictError, StaleGenerationError

    assert not isinstance(answer, StreamEndedError), "a worker outlives its end"
    return isinstance(answer, StaleGenerationError) or not isinstance(answer, OffsetConflictError)


def cancelled_by(request: CancelRequest) -> End:
    return End(state="cancelled", reason=request.reason, requested_by=request.requested_by)


pytestmark = MARKS


@pytest.mark.parametrize(("backend", "examples"), [("memory", 60), ("sqlite", 40)])
def test_hubs_agree_with_the_model(backend: str, examples: int) -> None:
    system = SYSTEMS[backend]()
    run_model(system, lambda: HubMachine(system), examples=examples, steps=30, shrink=False)
