"""The feeds of hints and of cancel requests."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeAlias

from streamhub.errors import StreamHubError
from streamhub.kit import Inbox
from streamhub.types import CancelRequest, Change, RunRef
from streamhub_postgres.heads import read_append, read_request, run_topic, stream_topic
from streamhub_postgres.session import Session

Pending: TypeAlias = Callable[[Sequence[RunRef]], Awaitable[Sequence[CancelRequest | None]]]


class PostgresChangeFeed:
    """One process's hints about the streams it follows."""

    def __init__(self, session: Session, heads: str) -> None:
        self._session = session
        self._heads = heads
        self._keys: dict[str, str] = {}
        self._seen: dict[str, tuple[object, ...] | None] = {}
        self._inbox: Inbox[Change] = Inbox(Change(None))

    async def follow(self, key: str) -> None:
        """Begin hints for ``key``; the process listens already, to all there is."""
        self._session.context.check()
        topic = "d" + stream_topic(key)
        self._session.notifications.subscribe(self, topic)
        self._keys[topic] = key

    async def unfollow(self, key: str) -> None:
        """Stop hints for ``key``."""
        topic = "d" + stream_topic(key)
        self._seen.pop(key, None)
        if self._keys.pop(topic, None) is not None:
            self._session.notifications.unsubscribe(self, topic)

    def receive(self, topic: str, head: str) -> None:
        """Take in a head."""
        key = self._keys.get(topic)
        if key is not None:
            trusted = head.startswith("a") and self._session.options.push_bytes > 0
            append = read_append(key, head.partition(",")[2]) if trusted else None
            self._inbox.put(Change(key, append))

    def summarise(self) -> None:
        """Take in that anything may have happened."""
        self._inbox.summarise()

    def fail(self, error: StreamHubError) -> None:
        """End."""
        self._inbox.close(error)

    async def look(self) -> bool:
        """Compare all that is followed with what it was; what is seen for the first time may have changed."""
        keys = list(self._keys.values())
        if not keys:
            return False
        rows = await self._session.fetch(self._session.reading, self._heads, keys)
        found = {key: tuple(facts) for key, *facts in rows}
        moved = False
        for key in keys:
            if self._keys.get("d" + stream_topic(key)) != key or (
                key in self._seen and self._seen[key] == found.get(key)
            ):
                continue
            moved = moved or key in self._seen
            self._seen[key] = found.get(key)
            self._inbox.put(Change(key))
        return moved

    def __aiter__(self) -> AsyncIterator[Change]:
        return self._inbox


class PostgresRequestFeed:
    """One process's cancel requests."""

    def __init__(self, session: Session, pending: Pending) -> None:
        self._session = session
        self._pending = pending
        self._refs: dict[str, RunRef] = {}
        self._told: set[RunRef] = set()
        self._inbox: Inbox[CancelRequest | None] = Inbox(None)

    async def listen(self, ref: RunRef) -> None:
        """Begin notifications for a run; the process listens already, to all there is."""
        self._session.context.check()
        topic = "c" + run_topic(*ref)
        self._session.notifications.subscribe(self, topic)
        self._refs[topic] = RunRef(*ref)

    async def unlisten(self, ref: RunRef) -> None:
        """Stop notifications for a run."""
        topic = "c" + run_topic(*ref)
        self._told.discard(RunRef(*ref))
        if self._refs.pop(topic, None) is not None:
            self._session.notifications.unsubscribe(self, topic)

    def receive(self, topic: str, head: str) -> None:
        """Take in a head."""
        ref = self._refs.get(topic)
        if ref is not None:
            # What does not fit, or was written by a later release, is found by whoever reads what is pending.
            self._inbox.put(read_request(ref, head.partition(",")[2]))

    def summarise(self) -> None:
        """Take in that anything may have happened."""
        self._inbox.summarise()

    def fail(self, error: StreamHubError) -> None:
        """End."""
        self._inbox.close(error)

    async def look(self) -> bool:
        """Read what is stored for all runs, and pass on what is new."""
        refs = [ref for ref in self._refs.values() if ref not in self._told]
        if not refs:
            return False
        try:
            found = [request for request in await self._pending(refs) if request is not None]
        except StreamHubError as exc:
            if isinstance(exc, OSError):
                raise
            # A later release wrote one of them: whoever reads what is pending meets it.
            self._inbox.summarise()
            return False
        for request in found:
            self._told.add(RunRef(request.key, request.run))
            self._inbox.put(request)
        return bool(found)

    def __aiter__(self) -> AsyncIterator[CancelRequest | None]:
        return self._inbox


@asynccontextmanager
async def follow_changes(session: Session, heads: str) -> AsyncGenerator[PostgresChangeFeed]:
    """Open a feed of hints; ``heads`` is the statement that looks."""
    session.context.check()
    feed = PostgresChangeFeed(session, heads)
    async with session.notifications.joined(feed):
        yield feed


@asynccontextmanager
async def follow_requests(session: Session, pending: Pending) -> AsyncGenerator[PostgresRequestFeed]:
    """Open a feed of cancel requests."""
    session.context.check()
    feed = PostgresRequestFeed(session, pending)
    async with session.notifications.joined(feed):
        yield feed
