"""Writes a sample of schema version 1: ``python make_postgres_v1.py URL`` on an empty database, then ``pg_dump``.

    pg_dump --schema=streamhub --no-owner --inserts URL

Lines that are not SQL, and those that only newer servers understand, are left out of postgres-v1.sql.
"""

from __future__ import annotations

import asyncio
import sys

from streamhub import open_backend
from streamhub.types import COMPLETED, Append, Retention


async def main(url: str) -> None:
    async with open_backend(url) as backend:
        for key, generations in (("ended", (7,)), ("unfinished", (7, 9))):
            seen = None
            for generation in generations:
                info = await backend.store.open(
                    key, generation, owner=f"owner-{generation}", run="run-1", expect=seen, resume=seen is not None,
                    metadata={"model": "m"} if seen is None else None, retention=Retention(),
                )  # fmt: skip
                seen = info.seen
                if key == "unfinished":
                    chunks = (b"a", b"b") if generation == 7 else (b"c",)
                    await backend.store.append(
                        [Append(key, generation, info.tail + 1, chunks, b"nonce-%d" % generation)]
                    )
        await backend.store.append([Append("ended", 7, 1, (b"one", b"", "drei €".encode()), b"nonce", end=COMPLETED)])
        await backend.leases.acquire("unfinished", owner="o", run="run-1", ttl_seconds=60, above=9)
        await backend.cancels.request("unfinished", "run-1", reason="user", requested_by="u7", ttl_seconds=3600)


asyncio.run(main(sys.argv[1]))
