"""A stream's facts as they are stored, and as the protocol describes them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from streamhub import StreamInfo
from streamhub.records import decode_end, decode_retention, decode_spans, encode_end, encode_retention, encode_spans


def facts_of(info: StreamInfo) -> dict[str, Any]:
    """Write a description as JSON values."""
    return {
        "key": info.key,
        "generation": info.generation,
        "state": info.state,
        "run": info.run,
        "attended": info.attended,
        "spans": encode_spans(info.spans),
        "first": info.first,
        "tail": info.tail,
        "size_bytes": info.size_bytes,
        "end": None if info.end is None else encode_end(info.end),
        "metadata": dict(info.metadata),
        "retention": encode_retention(info.retention),
    }


def info_of(facts: dict[str, Any], now: float) -> StreamInfo | None:
    """Describe a stream as it is now: expired from its deadline on, gone once its fence is over."""
    if not facts:
        return None
    info = StreamInfo(
        key=facts["key"],
        generation=facts["generation"],
        state=facts["state"],
        run=facts["run"],
        attended=facts["attended"],
        spans=decode_spans(facts["spans"]),
        first=facts["first"],
        tail=facts["tail"],
        size_bytes=facts["size_bytes"],
        end=None if facts["end"] is None else decode_end(facts["end"]),
        metadata=facts["metadata"],
        retention=decode_retention(facts["retention"]),
    )
    if now >= facts["deadline"] + info.retention.fence_seconds:
        return None
    expired = now >= facts["deadline"] and info.state in ("open", "ended")
    return fence_of(info, "expired") if expired else info


def fence_of(info: StreamInfo, state: Literal["deleted", "expired"]) -> StreamInfo:
    """Describe the fence that a stream leaves: no chunks, no metadata."""
    return replace(info, state=state, first=info.tail + 1, size_bytes=0, metadata={})
