"""A request's body: all of it, bounded in size and in time."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Generator
from typing import Any

from starlette.types import Message, Receive

from streamhub.web.durable.headers import Given


class BodyTooLargeError(ValueError):
    """The body is larger than the server takes."""


class BodyTooSlowError(ValueError):
    """The body did not come in time."""


class ClientGoneError(Exception):
    """The client left before its body was whole: there is nobody to answer."""


async def read_body(given: Given, receive: Receive, *, max_bytes: int, timeout_seconds: float) -> bytes:
    """Return a request's body.

    Raises:
        BodyTooLargeError: it is larger than ``max_bytes``, or says that it will be.
        BodyTooSlowError: it did not come in time.
        ClientGoneError: it will not come.
    """
    declared = given.get(b"content-length")
    if declared is not None and (not declared.isdigit() or len(declared) > 18 or int(declared) > max_bytes):
        raise BodyTooLargeError(f"more than {max_bytes} bytes")
    reading = _whole(receive, max_bytes).__await__()
    try:
        waits_for = next(reading)
    except StopIteration as done:  # it was there already, as it nearly always is: a timer is dearer than all this
        return done.value
    try:
        async with asyncio.timeout(timeout_seconds):
            return await _go_on(reading, waits_for)
    except TimeoutError:
        raise BodyTooSlowError("the body did not come in time") from None


async def _whole(receive: Receive, max_bytes: int) -> bytes:
    message = await receive()
    body = _part(message)
    if message.get("more_body"):
        body = await _rest(body, receive, max_bytes)
    if len(body) > max_bytes:
        raise BodyTooLargeError(f"more than {max_bytes} bytes")
    return body


async def _rest(begun: bytes, receive: Receive, max_bytes: int) -> bytes:
    body = bytearray(begun)
    more = True
    while more and len(body) <= max_bytes:
        message = await receive()
        body += _part(message)
        more = message.get("more_body", False)
    return bytes(body)


@types.coroutine
def _go_on(begun: Generator[Any, Any, bytes], waits_for: Any) -> Generator[Any, Any, bytes]:
    """Await what has taken its first step, and waits."""
    try:
        while True:
            try:
                yield waits_for
            except BaseException as exc:  # noqa: BLE001 - thrown to where it waits
                waits_for = begun.throw(exc)
            else:
                waits_for = next(begun)
    except StopIteration as done:
        return done.value


def _part(message: Message) -> bytes:
    if message["type"] != "http.request":
        raise ClientGoneError
    return message.get("body", b"")
