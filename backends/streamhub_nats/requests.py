"""Cancel requests as they are stored, and published again."""

from __future__ import annotations

import json
from typing import Any

from streamhub.types import CancelRequest, RunRef
from streamhub_nats.record import read_versioned
from streamhub_nats.stamps import MILLISECOND

FORMAT = 1


def write_request(request: CancelRequest, ttl_ms: int) -> bytes:
    """Write a request; its key and run are its subject."""
    facts: dict[str, Any] = {"v": FORMAT, "ttl": ttl_ms}
    facts |= {"reason": request.reason, "requested_by": request.requested_by}
    return json.dumps(facts, ensure_ascii=False, separators=(",", ":")).encode()


def read_request(ref: RunRef, data: bytes, time_ns: int) -> tuple[CancelRequest, int]:
    """Read a request, and when it ends on the server's clock.

    Raises:
        UnsupportedFormatError: a later release wrote it.
    """
    found = read_versioned(data, FORMAT, "a cancel request in nats")
    request = CancelRequest(ref.key, ref.run, found["reason"], found["requested_by"])
    return request, time_ns + found["ttl"] * MILLISECOND
