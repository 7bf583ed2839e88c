"""Tool calls whose arguments come in pieces, as UI message chunks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from streamhub.web.aisdk.fields import parsed
from streamhub.web.aisdk.parts import UIChunk


@dataclass(slots=True)
class _Call:
    call_id: str
    name: str
    arguments: str = ""


class ToolCalls:
    """The calls of one message that are being written, by whatever the source numbers them with."""

    def __init__(self) -> None:
        self._calls: dict[Any, _Call] = {}

    def begin(self, number: Any, call_id: str, name: str) -> Iterator[UIChunk]:
        """Yield the start of a call, unless it has begun."""
        if number not in self._calls:
            self._calls[number] = _Call(call_id, name)
            yield {"type": "tool-input-start", "toolCallId": call_id, "toolName": name, "dynamic": True}

    def delta(self, number: Any, arguments: str) -> Iterator[UIChunk]:
        """Yield a piece of a call's arguments."""
        call = self._calls.get(number)
        if call is not None and arguments:
            call.arguments += arguments
            yield {"type": "tool-input-delta", "toolCallId": call.call_id, "inputTextDelta": arguments}

    def end(self, number: Any, value: Any = None) -> Iterator[UIChunk]:
        """Yield a call that is complete; ``value`` are its arguments, if the source tells them whole."""
        call = self._calls.pop(number, None)
        if call is not None:
            yield {
                "type": "tool-input-available",
                "toolCallId": call.call_id,
                "toolName": call.name,
                "input": parsed(call.arguments) if value is None else value,
                "dynamic": True,
            }

    def end_all(self) -> Iterator[UIChunk]:
        """Yield every call that is not complete yet, as it is."""
        for number in list(self._calls):
            yield from self.end(number)


def tool_output(call_id: str, output: Any) -> UIChunk:
    """Return what a tool answered."""
    return {"type": "tool-output-available", "toolCallId": call_id, "output": output, "dynamic": True}


def tool_error(call_id: str) -> UIChunk:
    """Return that a tool failed; its text stays on the server, as an exception's does."""
    return {"type": "tool-output-error", "toolCallId": call_id, "errorText": "the tool failed", "dynamic": True}
