"""The hub: one per process and event loop, in front of a backend. Everything an application calls begins here."""

from __future__ import annotations

import asyncio
import difflib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from types import TracebackType
from typing import Self

from streamhub.block import HubTask, ProduceBlock, Source
from streamhub.core import Core
from streamhub.errors import ConfigError, DrainingError, HubClosedError, HubContextError
from streamhub.inputs import (
    check_choice,
    check_metadata,
    check_name,
    check_retention,
    check_seconds,
    check_text,
    parse_after,
)
from streamhub.lifespan import drained
from streamhub.listing import KeyState, list_keys
from streamhub.observer import Event, Observer, notify
from streamhub.protocols import Backend, CancelBus, LeaseManager, StreamStore
from streamhub.registry import open_url
from streamhub.settings import HubSettings, OnInterrupt
from streamhub.starter import StartRequest, Unfinished
from streamhub.subscription import Subscription
from streamhub.types import CancelResult, Joined, Metadata, Offset, Retention, Started, StreamInfo


@asynccontextmanager
async def open_backend(url: str) -> AsyncGenerator[Backend]:
    """Connect to the backend a URL names; closed on leaving. For hubs over parts of several backends.

    Raises:
        ConfigError: the URL is wrong, or has options that are the hub's.
        BackendUnavailableError: it cannot be reached.
    """
    backend, settings = open_url(url)
    if settings:
        raise ConfigError(f"option {next(iter(settings))!r} is the hub's: pass it to the hub")
    try:
        await backend.connect()
        yield backend
    finally:
        await backend.aclose()


class Hub:
    """Streams of one backend, or of three parts of several; enter it with ``async with``.

    Used from the event loop and process that entered it; from any task there.
    """

    def __init__(
        self,
        *,
        store: StreamStore,
        leases: LeaseManager,
        cancels: CancelBus,
        settings: HubSettings | None = None,
        observer: Observer | None = None,
    ) -> None:
        """Put a hub together from connected parts, which stay the caller's to close."""
        self.store = store
        self.leases = leases
        self.cancels = cancels
        self.settings: HubSettings = settings or HubSettings()
        self.observer = observer
        self._backends: list[Backend] = []
        self._core: Core | None = None
        self._home: tuple[int, asyncio.AbstractEventLoop] | None = None
        self._closed = False
        self._closing: asyncio.Task[None] | None = None
        self._draining = False
        self._on_drain: dict[object, Callable[[], object]] = {}

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        leases_url: str | None = None,
        cancels_url: str | None = None,
        settings: HubSettings | None = None,
        observer: Observer | None = None,
    ) -> Hub:
        """Make a hub whose backend is named by a URL; leases and cancels may live elsewhere.

        The URL's query holds the backend's options and the hub's settings, which go before ``settings``. No I/O.

        Raises:
            BackendNotFoundError, BackendNotInstalledError, ConfigError: the URL or an option is wrong.
        """
        backend, options = open_url(url)
        base = settings or HubSettings()
        leases, cancels = _part(leases_url, backend), _part(cancels_url, backend)
        hub = cls(
            store=backend.store,
            leases=leases.leases,
            cancels=cancels.cancels,
            settings=base.updated(options),
            observer=observer,
        )
        hub._backends = list({id(each): each for each in (backend, leases, cancels)}.values())
        return hub

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, *, observer: Observer | None = None) -> Hub:
        """Make a hub from ``STREAMHUB_URL``.

        ``STREAMHUB_LEASES_URL`` and ``STREAMHUB_CANCELS_URL`` may name other backends for those parts, and
        ``STREAMHUB_<SETTING>`` holds a setting of ``HubSettings``; one in the URL goes before it.
        """
        environ = os.environ if environ is None else environ
        url = environ.get("STREAMHUB_URL")
        if not url:
            raise ConfigError("STREAMHUB_URL is not set: set it to a backend URL, as in sqlite:///streams.db")
        _refuse_misspelt(environ)
        variables = {name: f"STREAMHUB_{name.upper()}" for name in HubSettings.names()}
        options = {name: environ[variable] for name, variable in variables.items() if variable in environ}
        return cls.from_url(
            url,
            leases_url=environ.get("STREAMHUB_LEASES_URL"),
            cancels_url=environ.get("STREAMHUB_CANCELS_URL"),
            settings=HubSettings().updated(options),
            observer=observer,
        )

    # --- life

    async def __aenter__(self) -> Self:
        """Connect. ``BackendUnavailableError`` if the backend cannot be reached; the hub may be entered again then."""
        if self._core is not None or self._closed:
            raise HubClosedError("a hub is entered once: make another one")
        try:
            for backend in self._backends:
                await backend.connect()
            self._home = (os.getpid(), asyncio.get_running_loop())
            self._core = Core(self.store, self.leases, self.cancels, settings=self.settings, observer=self.observer)
        except BaseException:
            await self._close_backends()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _open(self) -> Core:
        if self._core is None or self._closed:
            raise HubClosedError("the hub is not open: use it inside `async with hub:`")
        if self._home != (os.getpid(), asyncio.get_running_loop()):
            raise HubContextError("this hub belongs to another process or event loop: make a hub for each")
        return self._core

    def _accepting(self) -> Core:
        core = self._open()
        if self._draining:
            raise DrainingError("the hub is draining: start and subscribe on another instance")
        return core

    async def drain(self, timeout_seconds: float | None = None) -> None:
        """Shut down gracefully: subscriptions raise ``DrainingError`` at once; producers get time to finish.

        Those that do not are interrupted.
        What an interrupted producer leaves is decided by ``on_interrupt``. Returns when no producer is left.

        Args:
            timeout_seconds: for producers to finish by themselves; default ``drain_seconds``.
        """
        core = self._open()
        if timeout_seconds is None:
            timeout_seconds = self.settings.drain_seconds
        check_seconds(timeout_seconds, "timeout_seconds", zero=True)
        if not self._draining:
            self._begin_to_drain()
            notify(self.observer, Event(name="drain", count=len(core.starter.runs)))
        await core.shut(DrainingError("the hub is draining: resume on another instance"), timeout_seconds)

    async def aclose(self) -> None:
        """Close: producers are interrupted, subscriptions raise ``HubClosedError``. Harmless when repeated.

        If the caller is cancelled meanwhile, closing goes on in a task of its own.
        """
        if self._core is None:
            return
        if self._closing is None:
            core = self._open()
            self._closed = True
            self._begin_to_drain()
            self._closing = asyncio.get_running_loop().create_task(self._close(core), name="streamhub closing")
        await asyncio.shield(self._closing)

    @contextmanager
    def on_drain(self, callback: Callable[[], object]) -> Generator[None]:
        """Inside the block, call back when the hub begins to drain or to close; at once if it has begun already.

        For what is busy elsewhere than in a subscription, which is told anyway. The callback must not raise.
        """
        place = object()
        self._on_drain[place] = callback
        try:
            if self._draining:
                callback()
            yield
        finally:
            del self._on_drain[place]

    @property
    def draining(self) -> bool:
        """True once the hub has begun to drain or to close."""
        return self._draining

    @property
    def producers(self) -> int:
        """How many runs are produced here now."""
        return 0 if self._core is None else len(self._core.starter.runs)

    @property
    def subscribers(self) -> int:
        """How many subscriptions of this hub follow a stream now."""
        return 0 if self._core is None else self._core.feeds.subscribers

    def _begin_to_drain(self) -> None:
        if not self._draining:
            self._draining = True
            for callback in list(self._on_drain.values()):
                callback()

    async def _close(self, core: Core) -> None:
        try:
            core.feeds.close(HubClosedError("the hub is closed"))
            await core.shut(DrainingError("the hub is closing"), 0)
        finally:
            try:
                await core.tasks.aclose()
            finally:
                await self._close_backends()

    async def _close_backends(self) -> None:
        for backend in self._backends:
            await backend.aclose()

    def lifespan(self, app: object = None) -> AbstractAsyncContextManager[None]:
        """Be open for as long as an ASGI server runs: ``Starlette(lifespan=hub.lifespan)``.

        On SIGTERM and SIGINT ``drain`` begins at once, beside what the server's own handler does: event streams are
        aborted, so that the server need not wait for them. The hub is drained, then closed, before this is left, and
        the handlers are as they were. From another thread than the main one no signal is heard.
        """
        return self._lifespan()

    @asynccontextmanager
    async def _lifespan(self) -> AsyncGenerator[None]:
        async with self, drained(self):
            yield

    async def ping(self) -> None:
        """Make one round trip to the backend, or raise ``BackendUnavailableError``."""
        self._open()
        if self._backends:
            for backend in self._backends:
                await backend.ping()
        else:
            await self.store.describe(["streamhub:ping"])

    # --- producing

    def produce(
        self,
        key: str,
        *,
        run: str | None = None,
        unfinished: Unfinished = "raise",
        wait: float = 0.0,
        metadata: Metadata | None = None,
        retention: Retention | None = None,
        on_interrupt: OnInterrupt | None = None,
    ) -> ProduceBlock:
        """Own a run for the length of an ``async with`` block.

        Leaving the block normally stores ``completed``; an exception stores ``failed`` with its type's name and a
        generic message (``StreamFailure`` publishes its own); a cancel interrupts the block and stores ``cancelled``;
        an outer cancellation or drain stores ``failed("interrupted")``, or nothing with ``on_interrupt="handover"``.

        Args:
            key: the stream: 1 to 512 bytes of UTF-8 without control characters.
            run: the run's name, by the same rules; a random one if None.
            unfinished: what to do with a run whose producer died: ``raise``, ``resume`` it (the same run only), or
                ``replace`` it.
            wait: seconds to wait for another producer's lease to end or run out.
            metadata: a JSON object of at most 64 KiB; None keeps a resumed run's.
            retention: default: the hub's.
            on_interrupt: ``fail`` or ``handover``; default: the hub's.

        Raises (on entering):
            StreamEndedError: the run has ended; nothing was changed.
            StreamUnfinishedError: the stream holds an unfinished run, and ``unfinished`` does not cover it.
            LeaseHeldError: another producer owns the stream.
            ProducerCancelledError: the run was cancelled before it began; ``cancelled`` is stored.
            BackendUnavailableError: after ``outage_seconds``.
            DrainingError: the hub is shutting down.
        """
        core = self._accepting()
        request = self._request(core, key, run, unfinished, wait, metadata, retention, on_interrupt)
        return ProduceBlock(core.tasks, lambda: core.starter.start(request))

    async def start(
        self,
        key: str,
        source: Source,
        *,
        run: str | None = None,
        unfinished: Unfinished = "raise",
        wait: float = 0.0,
        metadata: Metadata | None = None,
        retention: Retention | None = None,
        on_interrupt: OnInterrupt | None = None,
    ) -> Started | Joined:
        """Run a producer in a task of the hub's, which survives the caller; return once the run is open.

        ``source`` is called with the producer, after the run is open, and returns an async iterable of chunks, or an
        awaitable that sends by itself. If the run is being produced already, nothing is called: ``Joined``. The task
        is interrupted by ``drain`` and ``aclose``; cancelling this call does not stop it. Its errors end the run and
        are logged. Arguments and errors are those of ``produce``; ``LeaseHeldError`` only for a run of another name.
        """
        core = self._accepting()
        request = self._request(core, key, run, unfinished, wait, metadata, retention, on_interrupt)
        return await HubTask(core.starter, core.tasks, request, source).start()

    def _request(
        self,
        core: Core,
        key: str,
        run: str | None,
        unfinished: Unfinished,
        wait: float,
        metadata: Metadata | None,
        retention: Retention | None,
        on_interrupt: OnInterrupt | None,
    ) -> StartRequest:
        check_choice(unfinished, "unfinished", Unfinished)
        retention = self.settings.retention if retention is None else check_retention(retention)
        ttl_seconds = core.keeper.ttl_seconds
        if retention.unfinished_seconds <= ttl_seconds / 3:
            raise ConfigError(
                f"unfinished_seconds={retention.unfinished_seconds:g}: a stream would expire between two renewals of"
                f" its lease ({ttl_seconds:g} s): use more than a third of that"
            )
        on_interrupt = self.settings.on_interrupt if on_interrupt is None else on_interrupt
        check_choice(on_interrupt, "on_interrupt", OnInterrupt)
        return StartRequest(
            key=check_name(key),
            run=None if run is None else check_name(run, "run"),
            unfinished=unfinished,
            wait_seconds=check_seconds(wait, "wait", zero=True),
            metadata=check_metadata(metadata),
            retention=retention,
            handover=on_interrupt == "handover",
        )

    # --- subscribing

    def subscribe(
        self,
        key: str,
        *,
        run: str | None = None,
        after: Offset | str | None = None,
        wait: float = 0.0,
        strict: bool = True,
    ) -> Subscription:
        """Read a stream: what is stored after the cursor, then what comes.

        Args:
            key: the stream.
            run: only this run; else the run found first. A run that is not stored counts as not existing yet.
            after: the offset of the last chunk already seen, or ``"start"`` (default: the first chunk kept), or
                ``"latest"`` (only what comes).
            wait: seconds to wait for the stream (or the named run) to exist, or to reach the cursor.
            strict: False turns a stored ``failed`` into a clean finish.

        Returns:
            A subscription, not opened yet: ``async with`` it, or iterate it. Errors: see ``Subscription``.
        """
        core = self._accepting()
        return Subscription(
            core.feeds,
            self.store,
            check_name(key),
            run=None if run is None else check_name(run, "run"),
            after=parse_after(after),
            wait_seconds=check_seconds(wait, "wait", zero=True),
            strict=strict,
            outage_seconds=self.settings.outage_seconds,
            observer=self.observer,
        )

    # --- control

    async def cancel(
        self,
        key: str,
        *,
        run: str | None = None,
        reason: str | None = None,
        requested_by: str | None = None,
        wait: float = 0.0,
    ) -> CancelResult:
        """Request that a run stop; the request is durable when this returns.

        A named run need not exist yet. Without a name the current run is meant. If the run's producer is dead, its
        end is written here.

        Args:
            key: the stream.
            run: the run.
            reason: for the producer and the subscribers, at most 4096 bytes.
            requested_by: likewise.
            wait: seconds to wait for the end to be stored.

        Returns:
            What it came to; see ``CancelResult``.
        """
        core = self._open()
        return await core.canceller.cancel(
            check_name(key),
            None if run is None else check_name(run, "run"),
            reason=check_text(reason, "reason"),
            requested_by=check_text(requested_by, "requested_by"),
            wait_seconds=check_seconds(wait, "wait", zero=True),
        )

    async def info(self, key: str) -> StreamInfo | None:
        """Describe a stream; None if there is none (or only its fence)."""
        self._open()
        found = (await self.store.describe([check_name(key)]))[0]
        return found if found is not None and found.state in ("open", "ended") else None

    def keys(self, prefix: str = "", *, state: KeyState | None = None) -> AsyncIterator[str]:
        """Iterate the keys of streams: all, or those ``live`` (being produced), ``orphaned`` or ``ended``.

        In no order, each as it was at some moment of the iteration. ``BackendUnavailableError`` at once: an outage is
        not ridden out.
        """
        self._open()
        if prefix:
            check_name(prefix, "prefix")
        if state is not None:
            check_choice(state, "state", KeyState)
        return list_keys(self.store, self.leases, prefix, state)

    def orphans(self, prefix: str = "") -> AsyncIterator[str]:
        """Iterate the keys of unfinished runs without a producer, for a worker that resumes them."""
        return self.keys(prefix, state="orphaned")

    async def delete(self, key: str) -> bool:
        """Remove a stream; True if it was there. Its producer is refused from now on, its subscribers are told."""
        self._open()
        return await self.store.delete(check_name(key))


def _refuse_misspelt(environ: Mapping[str, str]) -> None:
    """Raise ``ConfigError`` for a variable that is nearly one of ours; others under the prefix may be the user's."""
    known = [f"STREAMHUB_{name.upper()}" for name in HubSettings.names()]
    known += ["STREAMHUB_URL", "STREAMHUB_LEASES_URL", "STREAMHUB_CANCELS_URL"]
    for name in environ:
        if name.startswith("STREAMHUB_") and name not in known:
            for near in difflib.get_close_matches(name, known, n=1, cutoff=0.92):
                raise ConfigError(f"unknown variable {name}; did you mean {near}?")


def _part(url: str | None, backend: Backend) -> Backend:
    if url is None:
        return backend
    part, settings = open_url(url)
    if settings:
        raise ConfigError(f"option {next(iter(settings))!r} is the hub's: put it into the hub's own URL")
    return part
