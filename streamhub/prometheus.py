"""An observer that counts for Prometheus. Needs the extra ``prometheus``.

No metric has a stream's key as a label: there is no bound on the number of keys.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING

if find_spec("prometheus_client") is None:
    raise ModuleNotFoundError(
        "streamhub.prometheus needs prometheus-client: pip install 'streamhub-py[prometheus]'", name="prometheus_client"
    )

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.process_collector import ProcessCollector

from streamhub.observer import Event

if TYPE_CHECKING:
    from streamhub.hub import Hub

SHORT_SECONDS: tuple[float, ...] = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""Buckets of what is answered at once."""

_LONG_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)

# What each event that is only counted is counted as.
_COUNTED = {
    "subscribe": ("subscriptions", "Subscriptions that were opened."),
    "cancel": ("cancels", "Runs produced here that were told to stop."),
    "lease_lost": ("leases_lost", "Leases that producers here have lost."),
    "takeover": ("takeovers", "Runs resumed here after their producer died."),
    "fenced_write": ("fenced_writes", "Appends refused because a later generation is current."),
    "reconnect": ("reconnects", "Feeds opened again after they broke."),
    "drain": ("drains", "Times that draining began."),
}


class Metrics:
    """Counts a hub's events: ``Hub.from_url(url, observer=metrics)``; ``render`` answers Prometheus.

    Args:
        registry: where the metrics are registered; default: one of their own, with the process's figures.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        if registry is None:
            registry = CollectorRegistry()
            ProcessCollector(registry=registry)
        self.registry: CollectorRegistry = registry
        self.content_type: str = CONTENT_TYPE_LATEST
        self._counters = {
            name: Counter(f"streamhub_{metric}", text, registry=registry) for name, (metric, text) in _COUNTED.items()
        }
        self._appended = Counter("streamhub_appended_chunks", "Chunks that became durable.", registry=registry)
        self._appended_bytes = Counter("streamhub_appended_bytes", "Bytes that became durable.", registry=registry)
        self._append_seconds = Histogram(
            "streamhub_append_seconds", "From flush to the backend's answer.", buckets=SHORT_SECONDS, registry=registry
        )
        self._replayed = Counter("streamhub_replayed_chunks", "Chunks read from the store.", registry=registry)
        self._replayed_bytes = Counter("streamhub_replayed_bytes", "Bytes read from the store.", registry=registry)
        self._first_chunk_seconds = Histogram(
            "streamhub_first_chunk_seconds",
            "From subscribing to a run's start to a chunk.",
            buckets=_LONG_SECONDS,
            registry=registry,
        )

    def __call__(self, event: Event) -> None:
        """Count an event."""
        counter = self._counters.get(event.name)
        if counter is not None:
            counter.inc()
        elif event.name == "append":
            self._appended.inc(event.count)
            self._appended_bytes.inc(event.size_bytes)
            self._append_seconds.observe(event.seconds)
        elif event.name == "replay":
            self._replayed.inc(event.count)
            self._replayed_bytes.inc(event.size_bytes)
        elif event.name == "first_chunk":
            self._first_chunk_seconds.observe(event.seconds)

    def watch(self, hub: Hub) -> None:
        """Show how many producers and subscribers a hub has, as gauges, looked up when they are asked for.

        Of one hub, once: the registry refuses gauges of the same name with ``ValueError``. ``serve_app`` does it.
        """
        self._gauge("producers", "Runs produced here now.", lambda: hub.producers)
        self._gauge("subscribers", "Subscriptions that follow a stream now.", lambda: hub.subscribers)
        self._gauge("draining", "1 once draining has begun.", lambda: hub.draining)

    def _gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        Gauge(f"streamhub_{name}", text, registry=self.registry).set_function(value)

    def render(self) -> bytes:
        """Return all metrics, in the format that ``content_type`` names."""
        return generate_latest(self.registry)
