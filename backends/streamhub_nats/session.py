"""What the parts of a backend share."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

from streamhub.kit import Context
from streamhub_nats.clock import Clock
from streamhub_nats.ledger import Ledger
from streamhub_nats.names import Names
from streamhub_nats.notifications import Notifications
from streamhub_nats.options import NatsOptions
from streamhub_nats.server import Server

Name = TypeVar("Name")
Value = TypeVar("Value")

ATTEMPTS = 64
"""How often a decision is made anew because somebody wrote in between: each time, somebody got on."""


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


class Session:
    """A server, what things are called there, and who may use it."""

    def __init__(
        self, server: Server, names: Names, options: NatsOptions, context: Context, notifications: Notifications
    ) -> None:
        self.server = server
        self.names = names
        self.options = options
        self.context = context
        self.notifications = notifications
        self.streams = Ledger(server, names.streams)
        self.leases = Ledger(server, names.leases)
        self.cancels = Ledger(server, names.cancels)
        self.clocks: dict[str, Clock] = {
            ledger.name: Clock(ledger) for ledger in (self.streams, self.leases, self.cancels)
        }

    def clock(self, ledger: Ledger) -> Clock:
        """Return the clock of the server that leads a JetStream stream."""
        return self.clocks[ledger.name]
