"""What was used last."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

Name = TypeVar("Name")
Value = TypeVar("Value")


class Recent(Generic[Name, Value]):
    """The values that were used last."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[Name, Value] = OrderedDict()

    def get(self, name: Name) -> Value | None:
        """Return a value, None if it is not here any more."""
        value = self._values.get(name)
        if value is not None:
            self._values.move_to_end(name)
        return value

    def put(self, name: Name, value: Value) -> None:
        """Remember a value."""
        self._values[name] = value
        self._values.move_to_end(name)
        if len(self._values) > self._most:
            self._values.popitem(last=False)

    def drop(self, name: Name) -> None:
        """Forget a value."""
        self._values.pop(name, None)
