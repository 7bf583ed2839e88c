"""The streams: every call is one script for each stream, in one pipeline."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager

from streamhub.errors import StreamHubError
from streamhub.types import Append, Appended, Metadata, Page, Read, Retention, Seen, StreamInfo
from streamhub_redis import listing, reading
from streamhub_redis.answers import open_refused
from streamhub_redis.appending import append_request, append_result
from streamhub_redis.feeds import RedisChangeFeed, follow_changes
from streamhub_redis.node import Request
from streamhub_redis.scripts import DELETE, OPEN
from streamhub_redis.session import Session
from streamhub_redis.stored import Stored, unsupported, write_metadata, write_retention


class RedisStore:
    """The streams under one prefix."""

    max_append_bytes = 16 * 1024 * 1024

    def __init__(self, session: Session) -> None:
        self._session = session
        self.groups_streams: bool = session.server.groups_requests

    async def open(
        self,
        key: str,
        generation: int,
        *,
        owner: str,
        run: str,
        expect: Seen | None,
        resume: bool,
        attended: bool = True,
        metadata: Metadata | None = None,
        retention: Retention,
    ) -> StreamInfo:
        """Begin a run, or continue it; see ``StreamStore.open``."""
        names = self._session.names
        keys = names.stream(key)
        command = OPEN.call(
            keys,
            b"%d" % generation,
            owner.encode(),
            run.encode(),
            b"" if expect is None else b"%d" % expect.generation,
            b"" if expect is None else expect.state.encode(),
            b"%d" % resume,
            b"%d" % attended,
            write_metadata(metadata),
            write_retention(retention),
            names.channel_suffix,
        )
        (answer,) = await self._session.tell([Request(keys.meta, command, OPEN)], lane="write", storing=True)
        if answer[0] != b"ok":
            raise open_refused(key, generation, answer)
        info = Stored(answer[1], answer[2]).info(key)
        if info is None:  # pragma: no cover - the script has just said that it is there
            raise StreamHubError(f"stream {key!r} was opened, and is gone at the same moment")
        return info

    async def append(self, batch: Sequence[Append]) -> Sequence[Appended | StreamHubError]:
        """Store appends, each by a script of its own; see ``StreamStore.append``."""
        requests = [append_request(self._session, item) for item in batch]
        answers = await self._session.ask(requests, lane="write", storing=True)
        return [append_result(item, answer) for item, answer in zip(batch, answers, strict=True)]

    async def read(self, reads: Sequence[Read]) -> Sequence[Page | StreamHubError]:
        """Read chunks; see ``StreamStore.read``."""
        return await reading.read(self._session, reads)

    async def describe(self, keys: Sequence[str], *, touch: bool = False) -> Sequence[StreamInfo | None]:
        """Describe streams and fences; see ``StreamStore.describe``."""
        return await reading.describe(self._session, keys, touch=touch)

    def changes(self) -> AbstractAsyncContextManager[RedisChangeFeed]:
        """Open a feed of hints; see ``StreamStore.changes``."""
        return follow_changes(self._session)

    def keys(self, prefix: str = "") -> AsyncIterator[str]:
        """Yield the keys that begin with ``prefix``, looking at every key there is; see ``StreamStore.keys``."""
        return listing.list_keys(self._session, prefix)

    async def delete(self, key: str) -> bool:
        """Remove a stream and leave a fence; see ``StreamStore.delete``."""
        names = self._session.names
        keys = names.stream(key)
        command = DELETE.call(keys, names.channel_suffix)
        (answer,) = await self._session.tell([Request(keys.meta, command, DELETE)], lane="write", storing=True)
        if answer not in (0, 1):
            raise unsupported(answer[1])
        return answer == 1

    async def sweep(self, limit: int) -> int:
        """Do nothing: every key carries the time at which the server removes it by itself."""
        self._session.context.check()
        return 0
