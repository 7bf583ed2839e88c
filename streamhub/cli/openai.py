"""A model behind an OpenAI-compatible endpoint, as a source of text. Standard library only.

Whatever goes wrong is a ``StreamFailure`` whose code subscribers may see: ``http_401`` (the status),
``connect_failed``, ``disconnected``, ``timeout``, ``malformed``, ``upstream_error``. Its message holds no text of the
endpoint's, which may be meant for the operator only; that text is on the failure's cause.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, cast

from streamhub import sse
from streamhub.cli import http_client
from streamhub.cli.http_client import HttpError, Response
from streamhub.errors import StreamFailure

DEFAULT_KEY_ENV = "OPENAI_API_KEY"
DETAIL_BYTES = 2000


class UpstreamError(Exception):
    """What the endpoint said, for the operator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One prompt to one model. ``said`` is the reply's beginning, when a run is resumed."""

    base_url: str
    model: str
    prompt: str
    said: str = ""
    api_key: str | None = field(default=None, repr=False)
    idle_seconds: float = 300.0

    @property
    def url(self) -> str:
        """The endpoint's address."""
        return self.base_url.rstrip("/") + "/chat/completions"

    def body(self) -> bytes:
        """Return the request's JSON."""
        messages = [{"role": "user", "content": self.prompt}]
        if self.said:
            messages.append({"role": "assistant", "content": self.said})
        return json.dumps({"model": self.model, "messages": messages, "stream": True}).encode()

    def headers(self) -> dict[str, str]:
        """Return the request's headers."""
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream", "Accept-Encoding": "identity"}
        if self.api_key is not None:
            headers["Authorization"] = f"Bearer {self.api_key}"
        return headers


def api_key(variable: str | None) -> str | None:
    """Read the API key from the environment; None if there is none."""
    return os.environ.get(variable or DEFAULT_KEY_ENV, "").strip() or None


async def stream(request: Request) -> AsyncGenerator[str]:
    """Yield the reply's text as it comes.

    Raises:
        StreamFailure: the reply did not come to its proper end.
    """
    try:
        async with http_client.post(
            request.url, request.body(), request.headers(), idle_seconds=request.idle_seconds
        ) as response:
            await _check(response)
            async with aclosing(_texts(response)) as texts:
                async for text in texts:
                    yield text
    except HttpError as exc:
        raise StreamFailure(str(exc), code=exc.code) from exc.__cause__
    except sse.EventTooLargeError as exc:
        raise _malformed(str(exc)) from exc


async def _check(response: Response) -> None:
    if response.status != 200:
        reason = f"the endpoint answered {response.status} {response.reason}".rstrip()
        raise StreamFailure(reason, code=f"http_{response.status}") from UpstreamError(await _detail(response))
    kind = response.headers.get("content-type", "text/event-stream").partition(";")[0].strip().lower()
    if kind != "text/event-stream":
        raise _malformed("the endpoint's answer is no event stream") from UpstreamError(await _detail(response))


async def _detail(response: Response) -> str:
    held = b""
    try:
        async with aclosing(response.body()) as body:
            async for data in body:
                held += data
                if len(held) >= DETAIL_BYTES:
                    break
    except HttpError:
        pass  # what has come is enough for a message
    return held[:DETAIL_BYTES].decode("utf-8", "replace").strip()


async def _texts(response: Response) -> AsyncGenerator[str]:
    parser = sse.Parser()
    finished = False
    async with aclosing(response.body()) as body:
        async for data in body:
            for event in parser.feed(data):
                if event.data == b"[DONE]":
                    return
                delta = _delta(event)
                finished = finished or delta.finished
                if delta.text:
                    yield delta.text
    last = parser.close()
    # Some endpoints leave out [DONE], or the empty line after it; a reply that was cut has no finish_reason either.
    if not finished and (last is None or last.data != b"[DONE]"):
        raise StreamFailure("the endpoint's answer stopped before its end", code="disconnected")


@dataclass(frozen=True, slots=True)
class _Delta:
    text: str
    finished: bool


def _delta(event: sse.Event) -> _Delta:
    try:
        value: Any = json.loads(event.data.decode("utf-8"))
    except ValueError as exc:
        raise _malformed("the endpoint sent an event that is not JSON") from exc
    facts = _object(value)
    if event.name == b"error" or facts.get("error"):
        said = UpstreamError(json.dumps(facts.get("error") or facts, ensure_ascii=False)[:DETAIL_BYTES])
        raise StreamFailure("the endpoint reported an error", code="upstream_error") from said
    choices: Any = facts.get("choices") or []
    if not isinstance(choices, list):
        raise _malformed("the endpoint sent an event of another shape")
    text, finished = "", False
    for choice in map(_object, cast("list[Any]", choices)):
        if choice.get("index", 0) == 0:
            text += _content(choice)
            finished = finished or choice.get("finish_reason") is not None
    return _Delta(text, finished)


def _content(choice: dict[str, Any]) -> str:
    content = _object(choice.get("delta") or {}).get("content") or ""
    if not isinstance(content, str) or any("\ud800" <= char <= "\udfff" for char in content):
        raise _malformed("the endpoint sent content that is not text")
    return content


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _malformed("the endpoint sent an event of another shape")
    return cast("dict[str, Any]", value)


def _malformed(message: str) -> StreamFailure:
    return StreamFailure(message, code="malformed")
