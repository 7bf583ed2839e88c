"""The feeds of hints and of cancel requests."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from streamhub.errors import StreamHubError
from streamhub.kit import Inbox
from streamhub.types import CancelRequest, Change, RunRef
from streamhub_redis.notifications import Notifications
from streamhub_redis.push import read_hint
from streamhub_redis.requests import read_request
from streamhub_redis.session import Session


class RedisChangeFeed:
    """One process's hints about the streams it follows."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._notifications: Notifications = session.notifications
        self._keys: dict[bytes, str] = {}
        self._inbox: Inbox[Change] = Inbox(Change(None))

    async def follow(self, key: str) -> None:
        """Begin hints for ``key``; the server has confirmed it on return."""
        self._session.context.check()
        channel = self._session.names.changes_channel(key)
        self._keys[channel] = key
        await self._notifications.subscribe(self, channel)

    async def unfollow(self, key: str) -> None:
        """Stop hints for ``key``."""
        channel = self._session.names.changes_channel(key)
        if self._keys.pop(channel, None) is not None:
            self._notifications.unsubscribe(self, channel)

    def receive(self, channel: bytes, message: bytes) -> None:
        """Take in a message."""
        key = self._keys.get(channel)
        if key is not None:
            self._inbox.put(Change(key, read_hint(key, message)))

    def fail(self, error: StreamHubError | None) -> None:
        """End."""
        self._inbox.close(error)

    def __aiter__(self) -> AsyncIterator[Change]:
        return self._inbox


class RedisRequestFeed:
    """One process's cancel requests."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._notifications: Notifications = session.notifications
        self._refs: dict[bytes, RunRef] = {}
        self._inbox: Inbox[CancelRequest | None] = Inbox(None)

    async def listen(self, ref: RunRef) -> None:
        """Begin notifications for a run; the server has confirmed it on return."""
        self._session.context.check()
        channel = self._session.names.cancel_channel(*ref)
        self._refs[channel] = RunRef(*ref)
        await self._notifications.subscribe(self, channel)

    async def unlisten(self, ref: RunRef) -> None:
        """Stop notifications for a run."""
        channel = self._session.names.cancel_channel(*ref)
        if self._refs.pop(channel, None) is not None:
            self._notifications.unsubscribe(self, channel)

    def receive(self, channel: bytes, message: bytes) -> None:
        """Take in a message."""
        ref = self._refs.get(channel)
        if ref is None:
            return
        try:
            self._inbox.put(read_request(ref, message))
        except StreamHubError:
            # A later release wrote it: whoever reads what is pending meets it.
            self._inbox.put(None)

    def fail(self, error: StreamHubError | None) -> None:
        """End."""
        self._inbox.close(error)

    def __aiter__(self) -> AsyncIterator[CancelRequest | None]:
        return self._inbox


@asynccontextmanager
async def follow_changes(session: Session) -> AsyncGenerator[RedisChangeFeed]:
    """Open a feed of hints."""
    session.context.check()
    feed = RedisChangeFeed(session)
    async with session.notifications.joined(feed):
        yield feed


@asynccontextmanager
async def follow_requests(session: Session) -> AsyncGenerator[RedisRequestFeed]:
    """Open a feed of cancel requests."""
    session.context.check()
    feed = RedisRequestFeed(session)
    async with session.notifications.joined(feed):
        yield feed
