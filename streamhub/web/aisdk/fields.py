"""Reading the events of model libraries without importing them: objects with attributes, or dictionaries."""

from __future__ import annotations

import json
from typing import Any, cast

# How the libraries say why a model stopped, in the AI SDK's words; what is not here is "other".
_FINISH_REASONS = {
    "stop": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "completed": "stop",
    "length": "length",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "tool_calls": "tool-calls",
    "tool_use": "tool-calls",
    "content_filter": "content-filter",
    "refusal": "content-filter",
}


def field(event: Any, *path: str | int) -> Any:
    """Return what is at a path of attributes, keys or places; None where there is nothing."""
    for step in path:
        if event is None:
            return None
        if isinstance(step, int):
            items = cast("list[Any]", event) if isinstance(event, (list, tuple)) else []
            event = items[step] if step < len(items) else None
        elif isinstance(event, dict):
            event = cast("dict[str, Any]", event).get(step)
        else:
            event = getattr(event, step, None)
    return event


def text(event: Any, *path: str | int) -> str:
    """Return the text at a path, empty where there is none."""
    value = field(event, *path)
    return value if isinstance(value, str) else ""


def parsed(arguments: str) -> Any:
    """Return a tool's arguments: JSON, or the text itself if a model wrote something else."""
    try:
        return json.loads(arguments or "{}")
    except ValueError:
        return arguments


def plain(value: Any) -> Any:
    """Return what JSON can hold of a tool's result."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        return str(value)


def finish(reason: Any) -> dict[str, Any]:
    """Return the chunk that finishes a message."""
    return {"type": "finish", "finishReason": _FINISH_REASONS.get(str(reason), "other")}
