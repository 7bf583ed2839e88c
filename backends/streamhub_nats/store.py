"""The streams: a chain of records for each, in one JetStream stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager

from streamhub.errors import StreamHubError
from streamhub.types import Append, Appended, Metadata, Page, Read, Retention, Seen, StreamInfo
from streamhub_nats.agenda import Agenda
from streamhub_nats.appending import Appender
from streamhub_nats.chain import Chain
from streamhub_nats.feeds import NatsChangeFeed, follow_changes
from streamhub_nats.names import encode
from streamhub_nats.opening import open_run
from streamhub_nats.reading import Reader
from streamhub_nats.retiring import Retirer
from streamhub_nats.session import Session
from streamhub_nats.trimming import Trimmer


class NatsStore:
    """The streams of one namespace."""

    groups_streams: bool = False
    max_append_bytes: int = 16 * 1024 * 1024

    def __init__(self, session: Session) -> None:
        self._session = session
        self._chain = Chain(session)
        self._agenda = Agenda(session)
        self._appender = Appender(self._chain, self._agenda, Trimmer(self._chain))
        self._reader = Reader(self._chain)
        self._retirer = Retirer(self._chain, self._agenda)

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
        self._session.context.check()
        return await open_run(
            self._chain,
            self._agenda,
            key,
            generation,
            owner=owner,
            run=run,
            expect=expect,
            resume=resume,
            attended=attended,
            metadata=metadata,
            retention=retention,
        )

    async def append(self, batch: Sequence[Append]) -> Sequence[Appended | StreamHubError]:
        """Store appends, each by a write of its own; see ``StreamStore.append``."""
        self._session.context.check()
        return await self._appender.append(batch)

    def begin_append(self, append: Append) -> Callable[[], Awaitable[Appended | StreamHubError]] | None:
        """Store an append at once, if nothing need be asked before; see ``PromptStore.begin_append``."""
        self._session.context.check()
        return self._appender.begin_append(append)

    async def read(self, reads: Sequence[Read]) -> Sequence[Page | StreamHubError]:
        """Read chunks; see ``StreamStore.read``."""
        self._session.context.check()
        return await self._reader.read(reads)

    async def describe(self, keys: Sequence[str], *, touch: bool = False) -> Sequence[StreamInfo | None]:
        """Describe streams and fences; see ``StreamStore.describe``."""
        self._session.context.check()
        return await self._reader.describe(keys, touch=touch)

    def changes(self) -> AbstractAsyncContextManager[NatsChangeFeed]:
        """Open a feed of hints; see ``StreamStore.changes``."""
        return follow_changes(self._session)

    async def keys(self, prefix: str = "") -> AsyncIterator[str]:
        """Yield the keys that begin with ``prefix``, looking at the name of each; see ``StreamStore.keys``."""
        self._session.context.check()
        names = self._session.names
        beginning = f"{names.root}.s.{encode(prefix)}"
        seen: set[str] = set()
        async for subject in self._session.streams.subjects(f"{names.root}.s.*"):
            if subject.startswith(beginning) and subject not in seen:
                seen.add(subject)
                yield names.key_of(subject)

    async def delete(self, key: str) -> bool:
        """Remove a stream and leave a fence; see ``StreamStore.delete``."""
        self._session.context.check()
        return await self._retirer.delete(key)

    async def sweep(self, limit: int) -> int:
        """Put fences in the place of expired streams; the server removes fences by itself."""
        self._session.context.check()
        return await self._retirer.sweep(limit)
