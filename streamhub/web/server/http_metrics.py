"""Figures of HTTP for Prometheus, in the registry of a hub's own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from streamhub.prometheus import SHORT_SECONDS
from streamhub.web.server.traffic import Exchange

_METHODS = frozenset({"GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS"})


class HttpMetrics:
    """Counts requests; those that wait for what comes (``live``) have no duration worth a figure."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "streamhub_http_requests", "Requests that are over.", ["method", "status"], registry=registry
        )
        self._active = Gauge(
            "streamhub_http_requests_active", "Requests under way.", ["method", "kind"], registry=registry
        )
        self._seconds = Histogram(
            "streamhub_http_request_seconds", "How long they took, but for live reads.", ["method"],
            buckets=SHORT_SECONDS, registry=registry,
        )  # fmt: skip
        self._sent = Counter("streamhub_http_sent_bytes", "Bytes of bodies that were sent.", registry=registry)

    def begun(self, exchange: Exchange) -> None:
        """Count a request that came."""
        self._active.labels(_method(exchange), _kind(exchange)).inc()

    def ended(self, exchange: Exchange) -> None:
        """Count what became of it."""
        method = _method(exchange)
        self._active.labels(method, _kind(exchange)).dec()
        self._requests.labels(method, exchange.status).inc()
        self._sent.inc(exchange.size_bytes)
        if not exchange.live:
            self._seconds.labels(method).observe(exchange.seconds)


def _method(exchange: Exchange) -> str:
    return exchange.method if exchange.method in _METHODS else "other"  # a client may make up any number of them


def _kind(exchange: Exchange) -> str:
    return "live" if exchange.live else "short"
