"""Append: one record behind the newest one."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from streamhub.errors import BackendUnavailableError, StreamHubError
from streamhub.records import pack_chunks
from streamhub.rules import admit_append, check_caps
from streamhub.types import Append, Appended
from streamhub_nats.agenda import Agenda
from streamhub_nats.chain import Chain, crowded
from streamhub_nats.concurrently import concurrently
from streamhub_nats.drafts import Draft
from streamhub_nats.ledger import OvertakenError
from streamhub_nats.session import ATTEMPTS
from streamhub_nats.stored import Stored
from streamhub_nats.trimming import Trimmer


class Appender:
    """Stores appends; those of different streams at the same time."""

    def __init__(self, chain: Chain, agenda: Agenda, trimmer: Trimmer) -> None:
        self._chain = chain
        self._agenda = agenda
        self._trimmer = trimmer

    async def append(self, batch: Sequence[Append]) -> list[Appended | StreamHubError]:
        """Store appends; see ``StreamStore.append``."""
        return await concurrently(batch, self._answer)

    def begin_append(self, item: Append) -> Callable[[], Awaitable[Appended | StreamHubError]] | None:
        """Store an append that follows what this process wrote last, at once; see ``PromptStore.begin_append``."""
        chain = self._chain
        draft = chain.tails.get(item.key)
        if draft is None or not draft.suits(item) or not chain.clock.fresh or not self._fits(draft, item):
            return None
        earliest = chain.clock.earliest
        data = draft.line(item) + pack_chunks(item.chunks)
        try:
            written = chain.session.streams.begin(chain.session.names.stream(item.key), data, after=draft.base.sequence)
        except BackendUnavailableError:
            return None  # the connection has just ended
        return None if written is None else partial(self._begun, item, draft, earliest, written)

    async def _begun(
        self, item: Append, draft: Draft, earliest: int, written: Callable[[], Awaitable[int]]
    ) -> Appended | StreamHubError:
        try:
            if sequence := await written():
                record = draft.record(item)
                await self._chain.check_in_time(item.key, sequence, record)
                self._chain.tails.put(item.key, Draft(Stored(sequence, earliest, record, draft.base.opening)))
                return Appended(item.last)
        except OvertakenError:
            self._chain.tails.drop(item.key)
        except StreamHubError as exc:
            self._chain.tails.drop(item.key)
            return exc.with_traceback(None)
        return await self._decided(item)

    async def _answer(self, item: Append) -> Appended | StreamHubError:
        begun = self.begin_append(item)
        return await (self._decided(item) if begun is None else begun())

    async def _decided(self, item: Append) -> Appended | StreamHubError:
        try:
            return await self._append(item)
        except StreamHubError as exc:
            self._chain.tails.drop(item.key)
            return exc.with_traceback(None)

    async def _append(self, item: Append) -> Appended:
        await self._chain.clock.look()
        known = self._chain.tails.get(item.key)
        if known is not None and self._fits(known, item):
            # What this process wrote last is the newest, as a rule. If it is not, nothing is written.
            try:
                return await self._store(known, item)
            except OvertakenError:
                self._chain.tails.drop(item.key)
        for _ in range(ATTEMPTS):
            stored = await self._chain.stored(item.key)
            done = await self._decide(stored, item)
            if done is not None or stored is None:
                return done or Appended(item.last)
            try:
                return await self._store(Draft(stored), item)
            except OvertakenError:
                continue
        raise crowded(item.key)

    def _fits(self, known: Draft, item: Append) -> bool:
        record = known.base.record
        if record.generation != item.generation or item.first != record.tail + 1:
            return False
        if self._chain.clock.middle >= known.deadline_ns:
            return False
        try:
            check_caps(known.base.opening.retention, item, first=record.first, size_bytes=record.size_bytes)
        except StreamHubError:
            return False  # it must be refused for what is stored, not for what was known
        return True

    async def _decide(self, stored: Stored | None, item: Append) -> Appended | None:
        info = nonce_at_first = end_nonce = None
        if stored is not None:
            info = stored.info(item.key, await self._chain.now())
            end_nonce = stored.end_nonce
            if info is not None and item.chunks and item.generation == info.generation and item.first <= info.tail:
                place = await self._chain.locate(stored, item.first)
                nonce_at_first = None if place is None else place[1].nonce
        return admit_append(info, item, nonce_at_first=nonce_at_first, end_nonce=end_nonce)

    async def _store(self, draft: Draft, item: Append) -> Appended:
        base, chain = draft.base, self._chain
        metadata = b"" if item.metadata is None else json.dumps(item.metadata, ensure_ascii=False).encode()
        body = metadata + (pack_chunks(item.chunks) if item.chunks else b"")
        record = draft.record(item, head_bytes=len(metadata))
        trims = base.opening.retention.overflow == "trim"
        if trims:
            record = await self._trimmer.trimmed(base, record, item)
        stored = await chain.write(item.key, record, body, base=base, opening=base.opening)
        if item.end is None:
            chain.tails.put(item.key, Draft(stored))
        else:
            chain.tails.drop(item.key)
            await self._agenda.arm(item.key, record.life_ms)
        if trims:
            await self._trimmer.erase(item.key, record, ended=item.end is not None)
        return Appended(item.last)
