"""The keys of all streams, found by scanning the database.

An index of them would be a key of its own: in a cluster in another slot, so not in step with the streams, and never rid
of those that expire by themselves. A scan is always right and costs nothing until it is asked for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from redis.exceptions import ResponseError

from streamhub_redis.faults import refusal
from streamhub_redis.node import Node
from streamhub_redis.session import Session

_COUNT = b"1000"


async def list_keys(session: Session, prefix: str) -> AsyncIterator[str]:
    """Yield the keys that begin with ``prefix``, each once; see ``StreamStore.keys``."""
    session.context.check()
    pattern = session.names.meta_pattern(prefix)
    # A scan may show a key twice; and so may two nodes, while a slot is being moved.
    seen: set[bytes] = set()
    for node in await session.server.masters():
        async for name in _scan(node, pattern):
            if name not in seen:
                seen.add(name)
                yield session.names.stream_key(name)


async def _scan(node: Node, pattern: bytes) -> AsyncIterator[bytes]:
    cursor = b"0"
    while True:
        reply = await node.command(b"SCAN", cursor, b"MATCH", pattern, b"COUNT", _COUNT)
        if isinstance(reply, ResponseError):
            raise refusal(node.where, reply)
        cursor, names = reply
        for name in names:
            yield name
        if cursor == b"0":
            return
