"""A writer that speaks to a store as the core does, one protocol call at a time."""

from __future__ import annotations

import secrets

from streamhub.errors import StreamHubError
from streamhub.protocols import Backend, StreamStore
from streamhub.types import (
    COMPLETED,
    Append,
    Appended,
    End,
    Lease,
    Metadata,
    Page,
    Read,
    Retention,
    Seen,
    StreamInfo,
)

FIRST_GENERATION = 7
"""Any number serves: a store trusts no lease."""


class Writer:
    """One generation of one run: opens it and appends to it, by the store's calls alone.

    Every answer that is an error is raised.
    """

    def __init__(self, store: StreamStore, key: str, *, run: str = "run-1", retention: Retention | None = None) -> None:
        self.store = store
        self.key = key
        self.run = run
        self.retention: Retention = retention or Retention()
        self.generation: int = 0
        self.owner: str = secrets.token_hex(8)
        self.tail: int = 0

    async def open(
        self,
        generation: int | None = None,
        *,
        resume: bool = False,
        attended: bool = True,
        metadata: Metadata | None = None,
    ) -> StreamInfo:
        """Describe, then open what was described; by default as the next higher generation."""
        found = await describe(self.store, self.key)
        if generation is None:
            generation = FIRST_GENERATION if found is None else found.generation + 1
        self.generation = generation
        info = await self.store.open(
            self.key,
            generation,
            owner=self.owner,
            run=self.run,
            expect=None if found is None else found.seen,
            resume=resume,
            attended=attended,
            metadata=metadata,
            retention=self.retention,
        )
        self.tail = info.tail
        return info

    def item(
        self,
        *chunks: bytes,
        end: End | None = None,
        metadata: Metadata | None = None,
        first: int | None = None,
        nonce: bytes | None = None,
    ) -> Append:
        """Return the append of ``chunks`` at the tail this writer knows, with a fresh nonce."""
        return Append(
            self.key,
            self.generation,
            self.tail + 1 if first is None else first,
            chunks,
            secrets.token_bytes(12) if nonce is None else nonce,
            metadata,
            end,
        )

    async def append(self, *chunks: bytes, end: End | None = None, metadata: Metadata | None = None) -> Appended:
        """Append at the tail this writer knows."""
        return await self.put(self.item(*chunks, end=end, metadata=metadata))

    async def put(self, item: Append) -> Appended:
        """Append an item as it is."""
        answer = await append(self.store, item)
        self.tail = answer.tail
        return answer


async def append(store: StreamStore, item: Append) -> Appended:
    """Append one item; raise its answer if it is an error."""
    (answer,) = await store.append([item])
    if isinstance(answer, StreamHubError):
        raise answer
    return answer


async def read(store: StreamStore, key: str, after: int = 0, *, max_chunks: int = 1024) -> Page:
    """Read one page; raise the answer if it is an error."""
    (answer,) = await store.read([Read(key, after, max_chunks)])
    if isinstance(answer, StreamHubError):
        raise answer
    return answer


async def read_all(store: StreamStore, key: str, after: int = 0) -> list[bytes]:
    """Read every chunk after an index, page by page."""
    chunks: list[bytes] = []
    while True:
        page = await read(store, key, after + len(chunks))
        if not page.chunks:
            return chunks
        chunks.extend(page.chunks)


async def describe(store: StreamStore, key: str) -> StreamInfo | None:
    """Describe one stream."""
    (info,) = await store.describe([key])
    return info


async def described(store: StreamStore, key: str) -> StreamInfo:
    """Describe one stream that is there, or has left a fence."""
    info = await describe(store, key)
    assert info is not None, f"nothing is stored for {key!r}"
    return info


async def open_stream(
    store: StreamStore,
    key: str,
    generation: int,
    *,
    owner: str,
    expect: Seen | None,
    run: str = "run-1",
    resume: bool = False,
    attended: bool = True,
    metadata: dict[str, object] | None = None,
    retention: Retention | None = None,
) -> StreamInfo:
    """Open a stream, with defaults."""
    return await store.open(
        key,
        generation,
        owner=owner,
        run=run,
        expect=expect,
        resume=resume,
        attended=attended,
        metadata=metadata,
        retention=retention or Retention(),
    )


async def successor(store: StreamStore, key: str, *, resume: bool = True, run: str = "run-1") -> Writer:
    """Open the next generation of a stream."""
    writer = Writer(store, key, run=run)
    await writer.open(resume=resume)
    return writer


def item_of(writer: Writer, what: str) -> Append:
    """Return an append of a kind: ``chunks``, ``metadata``, ``end`` or ``end with chunks``."""
    end = COMPLETED if what.startswith("end") else None
    chunks = () if what == "end" else (b"x", b"y")
    return writer.item(*chunks, end=end, metadata={"by": "item"} if what == "metadata" else None)


async def acquire(backend: Backend, key: str, *, above: int = 0, void: int = 0, ttl_seconds: float = 30.0) -> Lease:
    """Take a lease as a new owner."""
    return await backend.leases.acquire(
        key, owner=secrets.token_hex(8), run="run-1", ttl_seconds=ttl_seconds, above=above, void=void
    )
