"""Bodies and messages: a request's bytes to the chunks that are stored, and back."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import NoReturn

from streamhub.web.durable.stored import Configuration

MAX_MESSAGES = 16_384
_SPACE = re.compile(r"[ \t\n\r]*")
_SPACES = frozenset(" \t\n\r")


class BadBodyError(ValueError):
    """A body that is not what its content type says."""


class TooManyMessagesError(ValueError):
    """A body with more messages than one append takes."""


def _refuse_constant(name: str) -> NoReturn:
    raise BadBodyError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def messages_in(body: bytes, *, is_json: bool) -> tuple[bytes, ...]:
    """Split a body into messages, each with the bytes it came with: the elements of a JSON array, or all as one.

    Raises:
        BadBodyError: it is not JSON.
        TooManyMessagesError: it has more than ``MAX_MESSAGES``.
    """
    if not body:
        return ()
    if not is_json:
        return (body,)
    body = body.strip(b" \t\n\r")
    try:
        text = body.decode("utf-8")
        if text.startswith("["):
            return _elements(text)
        _, end = _DECODER.raw_decode(text)
        _expect_end(text, end)
    except (ValueError, RecursionError) as exc:
        if isinstance(exc, (BadBodyError, TooManyMessagesError)):
            raise
        raise BadBodyError("the body is not JSON") from None
    return (body,)


def _elements(text: str) -> tuple[bytes, ...]:
    found: list[bytes] = []
    at = _after_space(text, 1)
    if text.startswith("]", at):
        _expect_end(text, at + 1)
        return ()
    while True:
        _, end = _DECODER.raw_decode(text, at)
        found.append(text[at:end].encode("utf-8"))
        if len(found) > MAX_MESSAGES:
            raise TooManyMessagesError(f"more than {MAX_MESSAGES} messages")
        at = _after_space(text, end)
        if text.startswith("]", at):
            _expect_end(text, at + 1)
            return tuple(found)
        if not text.startswith(",", at):
            raise BadBodyError("the body is not JSON")
        at = _after_space(text, at + 1)


def _after_space(text: str, at: int) -> int:
    if text[at : at + 1] not in _SPACES:  # as nearly always
        return at
    match = _SPACE.match(text, at)
    return at if match is None else match.end()


def _expect_end(text: str, at: int) -> None:
    """Raise if there is more; the text has no space at its end."""
    if at < len(text):
        raise BadBodyError("the body is not JSON")


def body_of(chunks: Sequence[bytes], configuration: Configuration) -> bytes:
    """Join messages into a response's body: a JSON array, or the bytes one after another."""
    return b"[%b]" % b",".join(chunks) if configuration.is_json else b"".join(chunks)
