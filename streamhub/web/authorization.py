"""Who may do what with which stream: the application says it, explicitly."""

from __future__ import annotations

import inspect
import logging
import reprlib
from collections.abc import Awaitable, Callable
from typing import Literal, TypeAlias

from starlette.exceptions import HTTPException
from starlette.requests import Request

from streamhub.errors import ConfigError

Action: TypeAlias = Literal["subscribe", "start", "cancel", "info", "append", "delete"]
"""What a request wants of a stream."""

Authorize: TypeAlias = Callable[[Request, str, Action], bool | Awaitable[bool]]
"""Says whether a request may do something with the stream of that key. It may raise an ``HTTPException`` of its own."""

logger: logging.Logger = logging.getLogger("streamhub")


class Authorization:
    """What the application says of requests; ``None`` allows everything."""

    def __init__(self, authorize: Authorize | None) -> None:
        """Take the application's function; ``ConfigError`` if it is none."""
        if authorize is not None and not callable(authorize):  # pyright: ignore[reportUnnecessaryComparison]
            raise ConfigError("authorize must be a function, or None to let everybody do everything")
        self._authorize = authorize
        self._warned = False

    async def check(self, request: Request, key: str, action: Action) -> None:
        """Raise 403 unless the application allows it."""
        if self._authorize is None:
            return
        answer: object = self._authorize(request, key, action)
        if inspect.isawaitable(answer):
            answer = await answer
        if answer is True:
            return
        if answer is not False and not self._warned:
            self._warned = True
            logger.warning("authorize returned %s: only True allows", reprlib.repr(answer))
        raise HTTPException(403, "not allowed")
