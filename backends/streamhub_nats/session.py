"""What the parts of a backend share."""

from __future__ import annotations

from streamhub.kit import Context
from streamhub_nats.clock import Clock
from streamhub_nats.ledger import Ledger
from streamhub_nats.names import Names
from streamhub_nats.notifications import Notifications
from streamhub_nats.options import NatsOptions
from streamhub_nats.server import Server

ATTEMPTS = 64
"""How often a decision is made anew because somebody wrote in between: each time, somebody got on."""


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
