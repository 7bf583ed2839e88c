"""Open: the record that fences all lower generations."""

from __future__ import annotations

import copy
import secrets

from streamhub.rules import admit_open, opened
from streamhub.types import Metadata, Retention, Seen, StreamInfo
from streamhub_nats.agenda import Agenda
from streamhub_nats.chain import Chain, crowded
from streamhub_nats.drafts import Draft
from streamhub_nats.ledger import OvertakenError
from streamhub_nats.record import Opening, Record, write_opening
from streamhub_nats.session import ATTEMPTS
from streamhub_nats.stored import Stored, milliseconds


async def open_run(
    chain: Chain,
    agenda: Agenda,
    key: str,
    generation: int,
    *,
    owner: str,
    run: str,
    expect: Seen | None,
    resume: bool,
    attended: bool,
    metadata: Metadata | None,
    retention: Retention,
) -> StreamInfo:
    """Begin a run, or continue it; see ``StreamStore.open``."""
    for _ in range(ATTEMPTS):
        stored = await chain.stored(key)
        now = await chain.now()
        info = None
        if stored is not None:
            kept = await chain.metadata(stored)
            if kept is None:
                continue
            info = stored.info(key, now, kept)
        go_on = admit_open(
            info,
            None if stored is None else stored.opening.owner,
            key=key,
            generation=generation,
            owner=owner,
            run=run,
            expect=expect,
            resume=resume,
            attended=attended,
        )
        if info is not None and not go_on:
            return info
        info = opened(
            info,
            key=key,
            generation=generation,
            run=run,
            resume=resume,
            attended=attended,
            metadata=metadata,
            retention=retention,
        )
        await agenda.arm(key, milliseconds(retention.unfinished_seconds))
        opening = Opening(
            owner=owner,
            run=run,
            attended=attended,
            spans=info.spans,
            retention=retention,
            metadata=copy.deepcopy(dict(info.metadata)),
        )
        try:
            begun = await chain.write(
                key,
                _record(info, stored if resume else None),
                write_opening(opening),
                base=stored,
                opening=opening,
                alone=not resume,
            )
        except OvertakenError:
            continue
        chain.tails.put(key, Draft(begun))
        return info
    raise crowded(key)


def _record(info: StreamInfo, resumed: Stored | None) -> Record:
    begun = Record(
        kind="open",
        generation=info.generation,
        state="open",
        first=info.first,
        tail=info.tail,
        size_bytes=info.size_bytes,
        opened_at=0,
        opening_id=secrets.token_hex(4),
        metadata_at=0,
        life_ms=milliseconds(info.retention.unfinished_seconds),
        fence_ms=milliseconds(info.retention.fence_seconds),
    )
    if resumed is None:
        return begun
    return resumed.followed_by(
        "open",
        generation=begun.generation,
        opened_at=0,
        opening_id=begun.opening_id,
        metadata_at=0,
        life_ms=begun.life_ms,
        fence_ms=begun.fence_ms,
    )
