"""Who may do what with which stream: the application says it, explicitly."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Literal, TypeAlias

from starlette.exceptions import HTTPException
from starlette.requests import Request

Action: TypeAlias = Literal["subscribe", "start", "cancel", "info", "append", "delete"]
"""What a request wants of a stream."""

Authorize: TypeAlias = Callable[[Request, str, Action], bool | Awaitable[bool]]
"""Says whether a request may do something with the stream of that key. It may raise an ``HTTPException`` of its own."""


async def check_allowed(authorize: Authorize | None, request: Request, key: str, action: Action) -> None:
    """Raise 403 unless the application allows it; ``None`` allows everything."""
    if authorize is None:
        return
    answer = authorize(request, key, action)
    if inspect.isawaitable(answer):
        answer = await answer
    if answer is not True:
        raise HTTPException(403, "not allowed")
