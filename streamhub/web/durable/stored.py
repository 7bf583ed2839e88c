"""What a stream of the protocol keeps in its run's metadata, under one key: configuration, and what its writers did.

Its JSON has at most 64 KiB: 1024 producers of 62 bytes each, and 2 KiB for the rest.
"""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, TypeGuard, cast

from streamhub.cursor import generation_at
from streamhub.types import Metadata, Offset, StreamInfo
from streamhub.web.durable.admission import Claim, Progress, StreamState

KEY = "durable"
CONTENT_TYPE_KEY = "content_type"
"""Where a producer of the application may say what its chunks are."""

DEFAULT_TYPE = "application/octet-stream"
MAX_TEXT_CHARS = 256
"""Of a content type, and of a ``Stream-Seq``."""

_SHORT_ID = re.compile("[A-Za-z0-9._:@/+-]{1,15}")
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Configuration:
    """What a stream was created with.

    Attributes:
        content_type: as it was given.
        ttl: seconds without reads and writes after which the stream goes.
        expires: the moment at which it goes, as it was given.
    """

    content_type: str
    ttl: int | None = None
    expires: str | None = None

    @property
    def media_type(self) -> str:
        """The content type in lower case, without parameters."""
        return media_type_of(self.content_type)

    @property
    def is_json(self) -> bool:
        """Whether messages are JSON values, and their boundaries kept."""
        return self.media_type == "application/json"

    @property
    def is_text(self) -> bool:
        """Whether messages can stand in an event stream as they are."""
        return self.is_json or self.media_type.startswith("text/")

    def has_expired(self, now: float) -> bool:
        """Say whether the moment named has come."""
        return self.expires is not None and moment_of(self.expires) <= now

    def difference(self, other: Configuration) -> str | None:
        """Name the header in which the two ask for different streams."""
        if self.media_type != other.media_type:
            return "Content-Type"
        if self.ttl != other.ttl:
            return "Stream-TTL"
        mine, others = (expires and moment_of(expires) for expires in (self.expires, other.expires))
        return None if mine == others else "Stream-Expires-At"


@lru_cache(maxsize=64)
def media_type_of(content_type: str) -> str:
    """Return a content type's comparable part."""
    return content_type.partition(";")[0].strip().lower()


def moment_of(text: str) -> float:
    """Return the seconds since 1970 of an RFC 3339 timestamp; ``ValueError`` if it is none."""
    if not _RFC3339.fullmatch(text):
        raise ValueError("not a timestamp of RFC 3339")
    try:
        return datetime.fromisoformat(text.upper()).timestamp()
    except OverflowError as exc:
        raise ValueError("not a moment of these times") from exc


def short_id(producer: str) -> str:
    """Return what is stored of a producer's id: all of a short and plain one, else 16 characters of its hash."""
    if _SHORT_ID.fullmatch(producer):
        return producer
    digest = hashlib.sha256(producer.encode("utf-8", "surrogatepass")).digest()
    return base64.urlsafe_b64encode(digest[:12]).decode()


def configuration_of(metadata: Metadata, *, default_type: str) -> Configuration:
    """Read what a stream was created with; of one that the application made, the content type it named, or the default.

    A producer of the application that goes on with a stream leaves it what it is.
    """
    own = metadata.get(KEY)
    if isinstance(own, dict) and _is_content_type((found := cast("dict[str, Any]", own)).get("type")):
        return Configuration(found["type"], found.get("ttl"), found.get("expires"))
    said = metadata.get(CONTENT_TYPE_KEY)
    return Configuration(said if _is_content_type(said) else default_type)


def _is_content_type(said: object) -> TypeGuard[str]:
    return isinstance(said, str) and bool(said) and said.isascii() and said.isprintable()


def visible_configuration(metadata: Metadata, *, attended: bool, default_type: str) -> Configuration | None:
    """Read what a stream was created with; None while clients may not see it: unfinished, or past its moment."""
    if is_creating(metadata, attended=attended):
        return None
    configuration = configuration_of(metadata, default_type=default_type)
    return None if configuration.has_expired(time.time()) else configuration


def is_creating(metadata: Metadata, *, attended: bool) -> bool:
    """Say whether the stream's creation was begun, and is not finished: nobody sees it yet."""
    found = _own(metadata, attended=attended)
    return found is not None and "creating" in found


def _own(metadata: Metadata, *, attended: bool) -> dict[str, Any] | None:
    found = metadata.get(KEY)
    return None if attended or not isinstance(found, dict) else cast("dict[str, Any]", found)


def created_metadata(configuration: Configuration, *, creating: bool) -> Metadata:
    """Write the metadata of a new stream."""
    return {KEY: {**_written(configuration), **({"creating": True} if creating else {})}}


def updated_metadata(metadata: Metadata, configuration: Configuration, state: StreamState) -> Metadata:
    """Write a stream's metadata with what its writers did."""
    own = _written(configuration)
    if state.seq is not None:
        own["seq"] = state.seq
    if state.closer is not None:
        own["closer"] = state.closer
    if state.producers:
        own["producers"] = state.producers
    return {**metadata, KEY: own}


def _written(configuration: Configuration) -> dict[str, Any]:
    own: dict[str, Any] = {"type": configuration.content_type}
    if configuration.ttl is not None:
        own["ttl"] = configuration.ttl
    if configuration.expires is not None:
        own["expires"] = configuration.expires
    return own


def state_of(info: StreamInfo, configuration: Configuration) -> StreamState:
    """Read what a decision about a write rests on."""
    own = _own(info.metadata, attended=info.attended) or {}
    producers: Mapping[str, Any] = own.get("producers", {})
    closer = own.get("closer")
    return StreamState(
        configuration.media_type,
        info.generation,
        tail_of(info),
        info.end is not None,
        produced=info.attended,
        producers={name: Progress(*progress) for name, progress in producers.items()},
        seq=own.get("seq"),
        closer=None if closer is None else Claim(*closer),
    )


def tail_of(info: StreamInfo) -> Offset:
    """Return the offset of a stream's last message."""
    return Offset(generation_at(info.spans, info.tail), info.tail)
