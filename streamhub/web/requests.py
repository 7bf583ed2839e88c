"""Requests with a JSON body: bounded in size and time, and not to be sent by another site's form."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

MAX_BODY_BYTES = 1024 * 1024
BODY_SECONDS = 20.0


async def read_object(
    request: Request, *, max_bytes: int = MAX_BODY_BYTES, timeout_seconds: float = BODY_SECONDS
) -> dict[str, Any]:
    """Return the JSON object in a request's body; an empty body is an empty object.

    Only ``application/json`` is accepted: a browser asks before it sends that to another origin (CORS), whereas forms,
    and requests without a type, come unasked and with cookies.

    Raises:
        HTTPException: 400 no JSON object; 408 too slow; 413 too large; 415 another content type.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "the content type must be application/json")
    try:
        async with asyncio.timeout(timeout_seconds):
            body = await _read(request, max_bytes)
    except TimeoutError:
        raise HTTPException(408, "the body did not come in time") from None
    except ClientDisconnect:
        raise HTTPException(400, "the client has left") from None
    try:
        value: Any = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        raise HTTPException(400, "the body is not JSON") from None
    if not isinstance(value, dict):
        raise HTTPException(400, "the body must be a JSON object")
    return cast("dict[str, Any]", value)


async def _read(request: Request, max_bytes: int) -> bytes:
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal() or len(declared) > 18 or int(declared) > max_bytes:
        raise HTTPException(413, "the body is too large")
    parts = bytearray()
    async for part in request.stream():
        parts += part
        if len(parts) > max_bytes:
            raise HTTPException(413, "the body is too large")
    return bytes(parts)


def text_field(body: dict[str, Any], name: str) -> str | None:
    """Return a field that is text, or missing, null or empty: None."""
    value = body.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise HTTPException(400, f"{name} must be text")
    return value
