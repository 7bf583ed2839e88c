"""The protocol's headers: what requests say, checked, and what responses begin with."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TypeAlias

from streamhub.web.durable.admission import Claim
from streamhub.web.durable.stored import DEFAULT_TYPE, MAX_TEXT_CHARS, Configuration, media_type_of, moment_of, short_id

Given: TypeAlias = Mapping[bytes, bytes]
"""A request's headers, by their names in lower case."""

Header: TypeAlias = tuple[bytes, bytes]

REQUEST_HEADERS: tuple[str, ...] = (
    "content-type",
    "authorization",
    "if-none-match",
    "stream-closed",
    "stream-expected-offset",
    "stream-expires-at",
    "stream-seq",
    "stream-ttl",
    "producer-epoch",
    "producer-id",
    "producer-seq",
)
"""What a page of another origin must be allowed to send, as CORS has it."""

RESPONSE_HEADERS: tuple[str, ...] = (
    "etag",
    "location",
    "retry-after",
    "stream-closed",
    "stream-cursor",
    "stream-expires-at",
    "stream-next-offset",
    "stream-sse-data-encoding",
    "stream-ttl",
    "stream-up-to-date",
    "streamhub-end",
    "producer-epoch",
    "producer-expected-seq",
    "producer-received-seq",
    "producer-seq",
)
"""What a page of another origin must be allowed to read."""

ONCE = frozenset(name.encode() for name in REQUEST_HEADERS if name != "if-none-match")
"""What a request may say only once: else two parts of an application may each believe another one."""

OF_WRITES = ONCE - {b"content-type", b"authorization", b"stream-ttl", b"stream-expires-at"}
"""What a write may say of itself, beside the content type; most say nothing."""

FORK_HEADERS = (b"stream-forked-from", b"stream-fork-offset", b"stream-fork-sub-offset")

SECURITY: tuple[Header, ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"cross-origin"),
)
SANDBOX: Header = (b"content-security-policy", b"sandbox; default-src 'none'")
NO_STORE: Header = (b"cache-control", b"no-store")
EMPTY: Header = (b"content-length", b"0")
CLOSED: Header = (b"stream-closed", b"true")
UP_TO_DATE: Header = (b"stream-up-to-date", b"true")

MAX_NUMBER = 2**53 - 1
MAX_TTL_SECONDS = 100 * 365 * 86_400

_MEDIA_TYPE = re.compile(r"[\w!#$%&'*+.^`|~-]+/[\w!#$%&'*+.^`|~-]+", re.ASCII)


class BadHeaderError(ValueError):
    """A header is not what the protocol says; the message may be shown."""


def given_in(headers: Sequence[Header]) -> Given:
    """Return a request's headers by name.

    Raises:
        BadHeaderError: one that counts is there twice.
    """
    given = dict(headers)
    if len(given) < len(headers):
        seen: set[bytes] = set()
        for name, _ in headers:
            if name in ONCE and name in seen:
                raise BadHeaderError(f"{name.decode()} is there more than once")
            seen.add(name)
    return given


def closes(given: Given) -> bool:
    """Say whether a request closes the stream: only ``true`` does."""
    value = given.get(b"stream-closed")
    return value is not None and value.strip().lower() == b"true"


def content_type_in(given: Given) -> str | None:
    """Return the content type, or None; ``BadHeaderError`` if it could not be given back in a header."""
    value = given.get(b"content-type")
    return None if value is None else _content_type(value)


@lru_cache(maxsize=64)  # each append brings one of the same few
def _content_type(value: bytes) -> str | None:
    text = value.strip().decode("latin-1")
    if len(text) > MAX_TEXT_CHARS or not (text.isascii() and text.isprintable()):
        raise BadHeaderError("invalid Content-Type")
    return text or None


def claim_in(given: Given) -> Claim | None:
    """Return what an idempotent producer says of its write.

    Raises:
        BadHeaderError: it says only a part of it, or no whole numbers.
    """
    producer, epoch, seq = given.get(b"producer-id"), given.get(b"producer-epoch"), given.get(b"producer-seq")
    if producer is None and epoch is None and seq is None:
        return None
    if not producer or epoch is None or seq is None:
        raise BadHeaderError("Producer-Id, Producer-Epoch and Producer-Seq belong together")
    return Claim(short_id(producer.decode("latin-1")), _number("Producer-Epoch", epoch), _number("Producer-Seq", seq))


def _number(name: str, value: bytes) -> int:
    if value.isdigit() and len(value) <= 16 and (number := int(value)) <= MAX_NUMBER:
        return number
    raise BadHeaderError(f"{name} must be a whole number up to 2**53 - 1")


def seq_in(given: Given) -> str | None:
    """Return the writer's own sequence."""
    value = given.get(b"stream-seq")
    if value is None:
        return None
    if not value or len(value) > MAX_TEXT_CHARS:
        raise BadHeaderError(f"Stream-Seq must have 1 to {MAX_TEXT_CHARS} bytes")
    return value.decode("latin-1")


def configuration_in(given: Given) -> Configuration:
    """Return what a stream is to be created with."""
    ttl, expires = given.get(b"stream-ttl"), given.get(b"stream-expires-at")
    if ttl is not None and expires is not None:
        raise BadHeaderError("Stream-TTL and Stream-Expires-At exclude each other")
    content_type = content_type_in(given) or DEFAULT_TYPE
    if not _MEDIA_TYPE.fullmatch(media_type_of(content_type)):
        raise BadHeaderError("Content-Type must be a type and a subtype, as in text/plain")
    return Configuration(
        content_type,
        None if ttl is None else _ttl(ttl),
        None if expires is None else _moment(expires.decode("latin-1")),
    )


def _ttl(value: bytes) -> int:
    if value.isdigit() and len(value) <= 10 and b"%d" % int(value) == value and int(value) <= MAX_TTL_SECONDS:
        return int(value)
    raise BadHeaderError(f"Stream-TTL must be a whole number of seconds up to {MAX_TTL_SECONDS}, without leading zeros")


def _moment(text: str) -> str:
    try:
        moment_of(text)
    except ValueError:
        raise BadHeaderError("Stream-Expires-At must be a timestamp of RFC 3339") from None
    if len(text) > 64:
        raise BadHeaderError("Stream-Expires-At is too long")
    return text


def configuration_headers(configuration: Configuration) -> list[Header]:
    """Return the headers that tell a stream's configuration."""
    headers = [(b"content-type", configuration.content_type.encode())]
    if configuration.ttl is not None:
        headers.append((b"stream-ttl", str(configuration.ttl).encode()))
    if configuration.expires is not None:
        headers.append((b"stream-expires-at", configuration.expires.encode()))
    return headers
