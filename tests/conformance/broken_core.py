"""The core with one mistake in it: each is a context in which a piece of the hub is replaced."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from streamhub.canceller import Canceller
from streamhub.cursor import number_chunks
from streamhub.errors import BackendUnavailableError, StreamAbandonedError, StreamDeletedError, StreamHubError
from streamhub.feed import Feed, Feeds
from streamhub.keeper import LeaseKeeper
from streamhub.link import Link
from streamhub.reader import LoadedPage
from streamhub.run import Run
from streamhub.subscription import Subscription
from streamhub.window import Window


@contextlib.contextmanager
def replaced(cls: type, name: str, make: Callable[[Any], Any]) -> Iterator[None]:
    """Replace a method by what ``make`` makes of it."""
    with mock.patch.object(cls, name, make(getattr(cls, name))):
        yield


def core(cls: type, name: str) -> Callable[[Callable[[Any], Any]], Callable[[], Any]]:
    """Turn ``make`` into a mutation of ``cls.name``."""

    def decorate(make: Callable[[Any], Any]) -> Callable[[], Any]:
        return lambda: replaced(cls, name, make)

    return decorate


@contextlib.contextmanager
def subscription_ends_at_the_first_sight_of_an_end() -> Iterator[None]:
    def make(right: Any) -> Any:
        def take(self: Any, source: Any) -> bool:
            taken = right(self, source)
            end = source.page.end if isinstance(source, LoadedPage) else source and source.end
            if end is not None:
                self.end, self._finished = end, True
            return taken or self._finished

        return take

    with replaced(Subscription, "_take_page", make), replaced(Subscription, "_take_from_window", make):
        yield


@core(Subscription, "_take_page")
def subscription_goes_on_into_the_next_run(right: Any) -> Any:
    def take_page(self: Any, loaded: Any) -> bool:
        self._identity = loaded.page.spans[0].generation
        self._fetched = None
        return right(self, loaded)

    return take_page


def cursors_of_other_runs_are_accepted() -> Any:
    return mock.patch("streamhub.subscription.locate", lambda *_, **__: "within")


def _finishes_on(error: type[StreamHubError]) -> Callable[[Any], Any]:
    def make(right: Any) -> Any:
        async def fetch(self: Any) -> None:
            try:
                await right(self)
            except error:
                self._finished = True

        return fetch

    return make


subscription_takes_abandonment_for_success = core(Subscription, "_fetch")(_finishes_on(StreamAbandonedError))
subscription_takes_deletion_for_success = core(Subscription, "_fetch")(_finishes_on(StreamDeletedError))


@core(Subscription, "_finish")
def first_subscriber_to_finish_deletes_the_stream(right: Any) -> Any:
    def finish(self: Any, end: Any) -> bool:
        finished = right(self, end)
        if finished:
            self.deleting = asyncio.ensure_future(self._store.delete(self.key))
        return finished

    return finish


@core(Subscription, "_fetch")
def latest_is_resolved_when_the_first_chunk_is_asked_for(right: Any) -> Any:
    async def fetch(self: Any) -> None:
        if self._latest and not getattr(self, "resolved", False):
            await self._opened()
            self.resolved = True
            loaded = await self._feed.read(2**62)
            self._index, self._fetched = loaded.page.tail, None
        await right(self)

    return fetch


@core(Feed, "observe")
def nobody_is_ever_abandoned(_: Any) -> Any:
    return lambda *_: None


@core(Feed, "push")
def every_pushed_append_is_delivered(_: Any) -> Any:
    def push(self: Any, append: Any) -> None:
        window = self.window
        if window is not None and append is not None:
            window._add(number_chunks(append.chunks, append.first, window.spans))
            window.end = append.end
        self.changed()

    return push


@contextlib.contextmanager
def everything_pushed_is_kept() -> Iterator[None]:
    right = Window.__init__
    with (
        mock.patch.object(Window, "__init__", lambda self, loaded, _: right(self, loaded, 2**60)),
        mock.patch("streamhub_memory.store.MAX_PUSHED_BYTES", 2**60),
    ):
        yield


@core(Feeds, "detach")
def feeds_are_never_let_go(_: Any) -> Any:
    return lambda *_: None


@core(Feeds, "attach")
def every_subscriber_has_its_own_connection(right: Any) -> Any:
    async def attach(self: Any, key: str) -> Any:
        self.own = [*getattr(self, "own", []), self._store.changes()]
        await self.own[-1].__aenter__()
        return await right(self, key)

    return attach


@core(Link, "_run")
def listener_gives_up_at_the_first_failure(_: Any) -> Any:
    async def run(self: Any) -> None:
        with contextlib.suppress(BackendUnavailableError):
            async with self._connect() as wire:
                await self._follow(wire, False)
                async for item in wire.items:
                    self._on_item(item)
        await asyncio.Event().wait()

    return run


@core(LeaseKeeper, "_renew")
def failed_renewal_counts_as_a_lost_lease(right: Any) -> Any:
    async def renew(self: Any, due: Any) -> None:
        leases = self._leases

        class Hasty:
            async def renew(self, batch: Any) -> Any:
                try:
                    return await leases.renew(batch)
                except BackendUnavailableError:
                    return [False] * len(batch)

        self._leases = Hasty()
        try:
            await right(self, due)
        finally:
            self._leases = leases

    return renew


@core(LeaseKeeper, "release")
def leases_are_never_released(_: Any) -> Any:
    async def release(self: Any, held: Any) -> None:
        self.forget(held)

    return release


@core(LeaseKeeper, "_lose")
def lost_lease_is_not_told(_: Any) -> Any:
    return lambda self, held: self.forget(held)


@core(Run, "finish")
def error_of_the_end_is_swallowed(right: Any) -> Any:
    async def finish(self: Any) -> None:
        with contextlib.suppress(StreamHubError):
            await right(self)

    return finish


@core(Run, "_end")
def error_of_the_source_leaves_the_run_open(right: Any) -> Any:
    def end(self: Any, outcome: BaseException | None) -> Any:
        failed = isinstance(outcome, Exception) and not isinstance(outcome, StreamHubError)
        return None if failed else right(self, outcome)

    return end


@core(Run, "_end")
def interruption_leaves_the_run_open(right: Any) -> Any:
    def end(self: Any, outcome: BaseException | None) -> Any:
        return None if isinstance(outcome, asyncio.CancelledError) else right(self, outcome)

    return end


@core(Run, "leave")
def error_drops_what_is_not_flushed(right: Any) -> Any:
    def leave(self: Any, exc: BaseException | None) -> Any:
        if exc is not None:
            self._lane.sent -= len(self._lane._pending)
            self._lane._pending, self._lane._pending_bytes = [], 0
        return right(self, exc)

    return leave


@core(Canceller, "cancel")
def canceller_waits_for_ever(right: Any) -> Any:
    def cancel(self: Any, *args: Any, wait_seconds: float, **rest: Any) -> Any:
        return right(self, *args, wait_seconds=wait_seconds and 1e6, **rest)

    return cancel


def negative_offsets_are_read() -> Any:
    return mock.patch("streamhub.types._OFFSET", re.compile(r"(-?\d+)-(-?\d+)"))


def control_characters_are_accepted() -> Any:
    return mock.patch("streamhub.inputs._CONTROL", re.compile("(?!)"))
