"""streamhub on NATS JetStream: ``nats://``, ``tls://``, ``ws://``, ``wss://``."""

from streamhub_nats.backend import NatsBackend
from streamhub_nats.options import NatsOptions

__all__ = ["NatsBackend", "NatsOptions"]
