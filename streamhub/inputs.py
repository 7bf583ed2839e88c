"""Checks of what users pass in, made before any I/O. Each returns the value in the form that is stored."""

from __future__ import annotations

import json
import re
from typing import Any, cast, get_args

from streamhub.errors import (
    ChunkTooLargeError,
    ConfigError,
    InvalidChunkError,
    InvalidKeyError,
    InvalidMetadataError,
)
from streamhub.types import Metadata, Offset, Overflow, Retention

MAX_KEY_BYTES = 512
MAX_METADATA_BYTES = 64 * 1024
MAX_METADATA_DEPTH = 64
MAX_SECONDS = 100 * 366 * 86_400.0

# C0, DEL, C1 and the two Unicode line separators.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")


def check_name(value: str, what: str = "key") -> str:
    """Accept a stream key or run name: 1 to 512 bytes of UTF-8 without control characters."""
    if not isinstance(value, str):  # pyright: ignore[reportUnnecessaryIsInstance] - users are not type-checked
        raise TypeError(f"{what} must be str, not {type(value).__name__}")
    if value.isascii() and value.isprintable() and 1 <= len(value) <= MAX_KEY_BYTES:
        return value  # as nearly all are
    try:
        size = len(value.encode("utf-8"))
    except UnicodeEncodeError as exc:
        raise InvalidKeyError(f"{what} {value!r} holds a lone surrogate: use valid Unicode text") from exc
    if not 1 <= size <= MAX_KEY_BYTES:
        raise InvalidKeyError(f"{what} of {size} bytes: use 1 to {MAX_KEY_BYTES} bytes of UTF-8")
    if _CONTROL.search(value):
        raise InvalidKeyError(f"{what} {value!r} holds a control character: remove it")
    return value


def check_seconds(value: float, what: str, *, zero: bool = False) -> float:
    """Accept a number of seconds greater than 0 (or 0, where ``zero``), up to a hundred years."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"{what} must be a number of seconds, not {type(value).__name__}")
    if not 0 <= value <= MAX_SECONDS or (value == 0 and not zero):  # NaN compares as out of range
        raise ConfigError(f"{what}={value!r}: use {'0 or more' if zero else 'more than 0'} seconds, up to 100 years")
    return float(value)


def check_count(value: int, what: str) -> int:
    """Accept a whole number greater than 0."""
    if isinstance(value, bool) or not isinstance(value, int):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"{what} must be int, not {type(value).__name__}")
    if value < 1:
        raise ConfigError(f"{what}={value!r}: use 1 or more")
    return value


def check_token(value: str) -> str:
    """Accept a bearer token; ``ConfigError`` does not show it."""
    if not _TOKEN.fullmatch(value):
        raise ConfigError("a token consists of letters, digits and -._~+/ with = at its end, and is not empty")
    return value


def check_choice(value: str, what: str, kind: Any) -> str:
    """Accept one of the words of ``kind``, a ``Literal``."""
    choices = get_args(kind)
    if value not in choices:
        raise ConfigError(f"{what}={value!r}: use one of {', '.join(map(repr, choices))}")
    return value


def check_text(value: str | None, what: str, *, max_bytes: int = 4096) -> str | None:
    """Accept None or valid Unicode text of bounded size."""
    if value is None:
        return None
    if not isinstance(value, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"{what} must be str, not {type(value).__name__}")
    try:
        size = len(value.encode("utf-8"))
    except UnicodeEncodeError as exc:
        raise ConfigError(f"{what} {value!r} holds a lone surrogate: use valid Unicode text") from exc
    if size > max_bytes:
        raise ConfigError(f"{what} of {size} bytes: use at most {max_bytes}")
    return value


def clip_text(value: object, *, max_bytes: int = 4096) -> str:
    """Turn what a failure says into valid Unicode of bounded size: at the end of a run nothing is refused any more."""
    return str(value).encode("utf-8", "replace")[:max_bytes].decode("utf-8", "ignore")


def check_retention(value: Retention) -> Retention:
    """Accept a retention whose times and caps are greater than 0."""
    if not isinstance(value, Retention):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"retention must be a Retention, not {type(value).__name__}")
    check_seconds(value.unfinished_seconds, "unfinished_seconds")
    check_seconds(value.ended_seconds, "ended_seconds")
    check_seconds(value.fence_seconds, "fence_seconds")
    check_count(value.max_bytes, "max_bytes")
    if value.max_chunks is not None:
        check_count(value.max_chunks, "max_chunks")
    check_choice(value.overflow, "overflow", Overflow)
    return value


def check_metadata(value: Metadata | None) -> Metadata | None:
    """Accept None or a JSON object of at most 64 KiB, as a copy that later changes do not reach."""
    if value is None:
        return None
    _check_depth(value, MAX_METADATA_DEPTH)
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8")
        copy: Any = json.loads(text)
    except (TypeError, ValueError, RecursionError) as exc:
        raise InvalidMetadataError(f"metadata is not JSON: {exc}") from exc
    if not isinstance(copy, dict) or copy != value:
        raise InvalidMetadataError("metadata must be a JSON object with text keys, that JSON gives back unchanged")
    size = len(text)
    if size > MAX_METADATA_BYTES:
        raise InvalidMetadataError(f"metadata of {size} bytes: use at most {MAX_METADATA_BYTES}")
    return copy  # pyright: ignore[reportUnknownVariableType]


def _check_depth(value: Any, left: int) -> None:
    if not isinstance(value, (dict, list, tuple)):
        return
    if not left:
        raise InvalidMetadataError(f"metadata is nested deeper than {MAX_METADATA_DEPTH} levels: flatten it")
    inner = cast("dict[Any, Any]", value).values() if isinstance(value, dict) else cast("list[Any]", value)
    for each in inner:
        _check_depth(each, left - 1)


def encode_chunk(data: str | bytes, max_bytes: int) -> bytes:
    """Turn what a producer sends into the bytes to store; text becomes UTF-8."""
    if isinstance(data, str):
        try:
            data = data.encode("utf-8")
        except UnicodeEncodeError as exc:
            raise InvalidChunkError("text chunk holds a lone surrogate: send valid Unicode, or bytes") from exc
    elif type(data) is not bytes:
        if not isinstance(data, (bytes, bytearray, memoryview)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"chunk must be str or bytes, not {type(data).__name__}: use send_json for objects")
        data = bytes(data)  # the caller may reuse a mutable buffer
    if len(data) > max_bytes:
        raise ChunkTooLargeError(len(data), max_bytes)
    return data


def encode_json(value: Any) -> bytes:
    """Turn an object into compact JSON, as UTF-8."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8")
    except (TypeError, ValueError, RecursionError) as exc:
        raise InvalidChunkError(f"chunk is not JSON: {exc}") from exc


def parse_after(after: Offset | str | None) -> Offset | str | None:
    """Read a cursor: an ``Offset``, its text, ``"latest"``, or None for the start (``"start"`` too)."""
    if after is None or after == "start":
        return None
    if isinstance(after, Offset):
        return Offset.parse(str(after))
    if not isinstance(after, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"after must be an Offset or text, not {type(after).__name__}")
    return "latest" if after == "latest" else Offset.parse(after)
