"""Append: one statement stores what may be stored; what it left is judged by what is there afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from streamhub.errors import BackendUnavailableError, StreamHubError
from streamhub.records import encode_end
from streamhub.rules import admit_append
from streamhub.types import Append, Appended
from streamhub_postgres.driver import PostgresError
from streamhub_postgres.faults import code_of, convert
from streamhub_postgres.records import records_of
from streamhub_postgres.rows import Row, info_of, row_of, write_metadata
from streamhub_postgres.trimming import Trim, plan_trim
from streamhub_postgres.wire import Wire

# How often an append may find that it is allowed after all.
_ATTEMPTS = 20

# What one statement carries at most, so that the server's limit of 1 GB for a message is far.
_STATEMENT_BYTES = 32 * 1024 * 1024

# Errors of what was sent, not of the server's state: classes of SQLSTATE.
_OF_DATA = ("22", "23")

Answer = Appended | StreamHubError


class Appender:
    """Appends to the streams of one schema."""

    def __init__(
        self,
        queries: dict[str, str],
        *,
        find: str,
        oldest: str,
        notifies: bool,
        push_bytes: int,
        relaxed: bool,
        where: str,
    ) -> None:
        """Take the statements.

        Args:
            queries: of ``append.sql``.
            find: the statement ``find_for_append``.
            oldest: the statement ``oldest``.
            notifies: whether to notify.
            push_bytes: the largest record to notify.
            relaxed: whether commits need not be flushed.
            where: what messages call the server.
        """
        self._append = _relaxed(queries["append"]) if relaxed else queries["append"]
        self._confirm = None if relaxed else queries["confirm"]
        self._find = find
        self._oldest = oldest
        self._notifies = notifies
        self._push_bytes = push_bytes
        self._where = where

    async def append(self, wire: Wire, batch: Sequence[Append]) -> list[Answer]:
        """Store a batch; see ``StreamStore.append``."""
        answers: dict[int, Answer] = {}
        # By key: whoever appends to the same streams waits for them in the same order.
        order = sorted(range(len(batch)), key=lambda place: batch[place].key)
        for places in _portions(batch, order):
            stored = await self._store([batch[place] for place in places], wire)
            answers.update(zip(places, stored, strict=True))
        return [answers[place] for place in range(len(batch))]

    async def _store(self, items: Sequence[Append], wire: Wire) -> list[Answer]:
        try:
            return await self._settle(items, wire)
        except PostgresError as exc:
            if not code_of(exc).startswith(_OF_DATA):
                raise
            if len(items) == 1:
                return [convert(self._where, exc)]
        # The statement was undone for what one of them holds: the others are not to suffer from it.
        return [(await self._store([item], wire))[0] for item in items]

    async def _settle(self, items: Sequence[Append], wire: Wire) -> list[Answer]:
        answers: dict[int, Answer] = {}
        todo: dict[int, Trim | None] = dict.fromkeys(range(len(items)))
        for _ in range(_ATTEMPTS):
            places = list(todo)
            stored = await wire.fetch(self._append, *self._arguments([items[place] for place in places], todo))
            for number, _ in stored:
                place = places[int(number) - 1]
                answers[place] = Appended(items[place].last)
                del todo[place]
            if not todo:
                return [answers[place] for place in range(len(items))]
            await self._judge(wire, items, todo, answers)
        for place in todo:
            answers[place] = BackendUnavailableError(f"stream {items[place].key!r} changes all the time")
        return [answers[place] for place in range(len(items))]

    async def _judge(
        self, wire: Wire, items: Sequence[Append], todo: dict[int, Trim | None], answers: dict[int, Answer]
    ) -> None:
        """Say why items were not stored, or how they can be."""
        places = list(todo)
        found = await wire.fetch(
            self._find, [items[place].key for place in places], [items[place].first for place in places]
        )
        rows = {places[int(number) - 1]: (end_nonce, nonce, columns) for number, end_nonce, nonce, *columns in found}
        for place in places:
            end_nonce, nonce, columns = rows.get(place, (None, None, None))
            try:
                row = None if columns is None else row_of(columns)
                answer = admit_append(info_of(row), items[place], nonce_at_first=nonce, end_nonce=end_nonce)
                if answer is None:
                    todo[place] = await self._plan(wire, row, items[place])
            except StreamHubError as exc:
                answer = exc.with_traceback(None)
            if answer is not None:
                answers[place] = answer
                del todo[place]
        repeated = [items[place].key for place in places if isinstance(answers.get(place), Appended)]
        if repeated and self._confirm is not None:
            await wire.fetch(self._confirm, sorted(repeated))

    async def _plan(self, wire: Wire, row: Row | None, item: Append) -> Trim | None:
        if row is None or row.overflow != "trim" or not item.chunks:
            return None  # it changed between the two statements
        return await plan_trim(wire, self._oldest, row, item)

    def _arguments(self, items: Sequence[Append], plans: dict[int, Trim | None]) -> Iterator[object]:
        sizes = [sum(map(len, item.chunks)) for item in items]
        records = [records_of(item.first, item.chunks, size) for item, size in zip(items, sizes, strict=True)]
        ends = [None if item.end is None else encode_end(item.end) for item in items]
        yield [item.key for item in items]
        yield [item.generation for item in items]
        yield [item.first - 1 for item in items]
        yield [item.last for item in items]
        yield [item.nonce for item in items]
        yield sizes
        yield [parts[0].packed if parts else None for parts in records]
        yield [parts[0].last if parts else None for parts in records]
        yield [
            item.metadata is None
            and len(parts) <= 1
            and sum(len(part.packed) for part in parts) <= self._push_bytes
            and len((end or "").encode()) <= self._push_bytes
            for item, parts, end in zip(items, records, ends, strict=True)
        ]
        yield [write_metadata(item.metadata) for item in items]
        yield ends
        for name in Trim._fields:
            yield [None if plan is None else getattr(plan, name) for plan in plans.values()]
        rest = [(place, part) for place, parts in enumerate(records, 1) for part in parts[1:]]
        yield [place for place, _ in rest]
        yield [part.first for _, part in rest]
        yield [part.last for _, part in rest]
        yield [part.packed for _, part in rest]
        yield self._notifies


def _portions(batch: Sequence[Append], order: Sequence[int]) -> Iterator[list[int]]:
    portion: list[int] = []
    size = 0
    for place in order:
        weight = sum(map(len, batch[place].chunks))
        if portion and size + weight > _STATEMENT_BYTES:
            yield portion
            portion, size = [], 0
        portion.append(place)
        size += weight
    if portion:
        yield portion


def _relaxed(query: str) -> str:
    # Local to the transaction, which is this statement: it works through a pooler, too.
    return f"{query}\nWHERE set_config('synchronous_commit', 'off', true) = 'off'"
