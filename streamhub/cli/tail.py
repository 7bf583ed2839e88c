"""``tail``: a stream's bytes, verbatim, and the offset from which to go on."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator

from streamhub import Hub
from streamhub.cli import output, status
from streamhub.cli.running import PIPE_BYTES, hub_of, run, write_all
from streamhub.errors import StreamHubError
from streamhub.types import Chunk, Offset

STDOUT = 1


def tail(args: Namespace) -> int:
    """Write a stream to standard output until it ends. The last line on standard error is the last offset."""
    return run(_tail(args))


async def _tail(args: Namespace) -> int:
    writer = _Writer(STDOUT, args.after)
    try:
        async with hub_of(args) as hub:
            code = await _copy(hub, args, writer)
    except StreamHubError as exc:
        output.fail(output.explain(exc))
        code = status.of_error(exc)
    except asyncio.CancelledError:
        writer.report_offset()
        raise
    # Not after BrokenPipeError: how much was read is not known, an offset would be a lie.
    writer.report_offset()
    return code


async def _copy(hub: Hub, args: Namespace, writer: _Writer) -> int:
    async with hub.subscribe(args.key, run=args.run, after=args.after, wait=args.wait) as subscription:
        try:
            async for batch in subscription.batches():
                await writer.write(batch)
        finally:
            writer.begin_at(subscription.offset)
    end = subscription.end
    if end is not None and end.state != "completed":
        output.note(output.end_text(end))
    return status.of_end(end)


class _Writer:
    """Standard output, and the offset of the last chunk that is on it whole."""

    def __init__(self, fd: int, after: Offset | str | None) -> None:
        self._fd = fd
        self._offset = after
        self._written = False

    async def write(self, batch: Iterable[Chunk]) -> None:
        """Write a batch; cancelled, it may have written a part of it, up to the offset it knows."""
        self._written = True
        for offset, data in _packets(batch):
            await write_all(self._fd, data)
            self._offset = offset

    def begin_at(self, offset: Offset | None) -> None:
        """Learn where "latest" was, if nothing has come after it."""
        if not self._written and offset is not None:
            self._offset = offset

    def report_offset(self) -> None:
        """Print the last line of every tail."""
        offset = self._offset if isinstance(self._offset, Offset) else "none"
        with contextlib.suppress(BrokenPipeError):
            print(f"last offset {offset}", file=sys.stderr, flush=True)


def _packets(batch: Iterable[Chunk]) -> Iterator[tuple[Offset, bytes]]:
    """Join chunks to what a pipe takes at once, so that a signal never leaves a part of a small chunk."""
    held: list[bytes] = []
    size = 0
    offset: Offset | None = None
    for chunk in batch:
        if offset is not None and size + len(chunk.data) > PIPE_BYTES:
            yield offset, b"".join(held)
            held, size = [], 0
        held.append(chunk.data)
        size += len(chunk.data)
        offset = chunk.offset
    if offset is not None:
        yield offset, b"".join(held)
