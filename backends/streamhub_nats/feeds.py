"""The feeds of hints and of cancel requests."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from nats.aio.msg import Msg

from streamhub.errors import StreamHubError
from streamhub.kit import Inbox
from streamhub.records import unpack_chunks
from streamhub.types import Append, CancelRequest, Change, RunRef
from streamhub_nats.record import Pushed, read_pushed, read_record
from streamhub_nats.requests import read_request
from streamhub_nats.session import Session
from streamhub_nats.stamps import MILLISECOND, nanoseconds

MAX_PUSHED_BYTES = 64 * 1024
"""A larger append is hinted without its data: what a slow feed holds back stays bounded."""

_QUIET = frozenset({"part", "touch"})


class NatsChangeFeed:
    """One process's hints about the streams it follows."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._keys: dict[str, str] = {}
        self._inbox: Inbox[Change] = Inbox(Change(None))

    async def follow(self, key: str) -> None:
        """Begin hints for ``key``; the leader has the subscription on return."""
        self._session.context.check()
        subject = self._session.names.live(key)
        self._keys[subject] = key
        await self._session.notifications.subscribe(self, subject, self._session.streams.name)

    async def unfollow(self, key: str) -> None:
        """Stop hints for ``key``."""
        subject = self._session.names.live(key)
        if self._keys.pop(subject, None) is not None:
            await self._session.notifications.unsubscribe(self, subject)

    def receive(self, subject: str, message: Msg) -> None:
        """Take in a message."""
        key = self._keys.get(subject)
        if key is None:
            return
        self._session.streams.saw(self._session.names.stream(key), _sequence(message))
        if (change := read_hint(key, message)) is not None:
            self._inbox.put(change)

    def fail(self, error: StreamHubError | None) -> None:
        """End."""
        self._inbox.close(error)

    def __aiter__(self) -> AsyncIterator[Change]:
        return self._inbox


class NatsRequestFeed:
    """One process's cancel requests."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._refs: dict[str, RunRef] = {}
        self._inbox: Inbox[CancelRequest | None] = Inbox(None)

    async def listen(self, ref: RunRef) -> None:
        """Begin notifications for a run; the leader has the subscription on return."""
        self._session.context.check()
        subject = self._session.names.asked(*ref)
        self._refs[subject] = RunRef(*ref)
        await self._session.notifications.subscribe(self, subject, self._session.cancels.name)

    async def unlisten(self, ref: RunRef) -> None:
        """Stop notifications for a run."""
        subject = self._session.names.asked(*ref)
        if self._refs.pop(subject, None) is not None:
            await self._session.notifications.unsubscribe(self, subject)

    def receive(self, subject: str, message: Msg) -> None:
        """Take in a message."""
        ref = self._refs.get(subject)
        if ref is None:
            return
        try:
            self._inbox.put(read_request(ref, message.data, 0)[0])
        except StreamHubError:
            self._inbox.put(None)  # a later release wrote it: whoever reads what is pending meets it

    def fail(self, error: StreamHubError | None) -> None:
        """End."""
        self._inbox.close(error)

    def __aiter__(self) -> AsyncIterator[CancelRequest | None]:
        return self._inbox


def _sequence(message: Msg) -> int:
    """Return the sequence number of what was stored; 0 if somebody else has published it."""
    try:
        return int((message.headers or {})["Nats-Sequence"])
    except (KeyError, ValueError):
        return 0


def read_hint(key: str, message: Msg) -> Change | None:
    """Read what was stored, as it is published again; None if it changes nothing for readers."""
    try:
        pushed = read_pushed(message.data)
        if pushed is None:
            record, body = read_record(message.data)
            if record.kind in _QUIET:
                return None
            if record.kind != "append" or record.parts_at or record.head_bytes:
                return Change(key)
            body = body if record.has_chunks else b""
            pushed = Pushed(record.generation, record.until_ms, record.begins, record.nonce, body, record.end)
        return Change(key, _append(key, pushed, message))
    except (StreamHubError, KeyError, TypeError, ValueError):
        return Change(key)  # whoever reads the stream meets what is wrong with it


def _append(key: str, pushed: Pushed, message: Msg) -> Append | None:
    """Return what was appended; None where a reader must look for itself."""
    generation, until_ms, begins, nonce, body, end = pushed
    if len(body) > MAX_PUSHED_BYTES:
        return None
    stored_ns = nanoseconds((message.headers or {})["Nats-Time-Stamp"])
    if 0 < until_ms * MILLISECOND < stored_ns:
        return None  # it came too late, and is void
    return Append(key, generation, begins, tuple(unpack_chunks(body)) if body else (), nonce, None, end)


@asynccontextmanager
async def follow_changes(session: Session) -> AsyncGenerator[NatsChangeFeed]:
    """Open a feed of hints."""
    session.context.check()
    feed = NatsChangeFeed(session)
    async with session.notifications.joined(feed):
        yield feed


@asynccontextmanager
async def follow_requests(session: Session) -> AsyncGenerator[NatsRequestFeed]:
    """Open a feed of cancel requests."""
    session.context.check()
    feed = NatsRequestFeed(session)
    async with session.notifications.joined(feed):
        yield feed
