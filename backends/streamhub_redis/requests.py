"""How a cancel request is written: JSON, with its format's version."""

from __future__ import annotations

import json
from typing import Any

from streamhub.errors import UnsupportedFormatError
from streamhub.types import CancelRequest, RunRef

_VERSION = 1


def write_request(request: CancelRequest) -> bytes:
    """Write what is stored under, and published on, a name that holds key and run."""
    facts = {"v": _VERSION, "reason": request.reason, "requested_by": request.requested_by}
    return json.dumps(facts, ensure_ascii=False, separators=(",", ":")).encode()


def read_request(ref: RunRef, text: bytes) -> CancelRequest:
    """Read what ``write_request`` wrote.

    Raises:
        UnsupportedFormatError: a later release wrote it.
    """
    facts: dict[str, Any] = json.loads(text)
    if facts.get("v") != _VERSION:
        raise UnsupportedFormatError("a cancel request", found=facts.get("v"), known=_VERSION)
    return CancelRequest(ref.key, ref.run, facts["reason"], facts["requested_by"])
