"""The application that ``streamhub serve`` serves: the streams, behind what protects and watches them."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Receive, Scope, Send

from streamhub.hub import Hub
from streamhub.types import Retention
from streamhub.web.authorization import Authorize
from streamhub.web.durable import DurableStreams
from streamhub.web.server.cors import Cors
from streamhub.web.server.front import PREFIX, Front
from streamhub.web.server.gates import BearerGate, LoopbackGate, OriginGate
from streamhub.web.server.health import Health
from streamhub.web.server.limits import StreamLimit
from streamhub.web.server.plain import answer
from streamhub.web.server.traffic import AccessLog, Traffic, Watcher

if TYPE_CHECKING:
    from streamhub.prometheus import Metrics


def serve_app(
    hub: Hub,
    *,
    authorize: Authorize | None,
    tokens: Collection[str] = (),
    loopback_only: bool = False,
    cors_origins: Collection[str] = (),
    prefix: str = PREFIX,
    max_streams: int | None = None,
    metrics: Metrics | None = None,
    access_log: bool = False,
    retention: Retention | None = None,
    max_body_bytes: int = 8 * 1024 * 1024,
    long_poll_seconds: float = 20.0,
    sse_seconds: float = 60.0,
) -> ASGIApp:
    """Make an ASGI application of a hub: Durable Streams below ``prefix``, beside ``/healthz`` and ``/metrics``.

    It opens the hub with the server's lifespan, and drains it at SIGTERM.

    Args:
        hub: not open yet.
        authorize: who may do what with which stream. ``None``, which leaves it to the tokens, or lets everybody do
            everything, must be written out.
        tokens: of which a request must bear one; none: no token is needed.
        loopback_only: refuse requests that were not sent to a name of this machine.
        cors_origins: whose pages may use the streams from a browser; ``*`` for every origin's.
        prefix: what the streams' paths begin with.
        max_streams: how many streams the backend may hold before none are created any more; see ``StreamLimit``.
        metrics: the hub's observer; answers ``/metrics``.
        access_log: write a line per request to the logger ``streamhub.access``.
        retention, max_body_bytes, long_poll_seconds, sse_seconds: see ``DurableStreams``.
    """

    def guarded(app: ASGIApp) -> ASGIApp:
        app = BearerGate(app, tokens) if tokens else OriginGate(app, cors_origins)
        return LoopbackGate(app) if loopback_only else app

    streams: ASGIApp = DurableStreams(
        hub,
        authorize=authorize,
        retention=retention,
        shared_caches=authorize is None and not tokens,
        max_body_bytes=max_body_bytes,
        long_poll_seconds=long_poll_seconds,
        sse_seconds=sse_seconds,
    )
    if max_streams is not None:
        streams = StreamLimit(streams, hub, max_streams)
    streams = guarded(streams)
    if cors_origins:
        streams = Cors(streams, cors_origins)
    watchers: list[Watcher] = [AccessLog()] if access_log else []
    others: dict[str, ASGIApp] = {}
    if metrics is not None:
        from streamhub.web.server.http_metrics import HttpMetrics

        metrics.watch(hub)
        watchers.append(HttpMetrics(metrics.registry))
        others["/metrics"] = guarded(_page(metrics))
    if watchers:
        streams = Traffic(streams, watchers)
    health = Health(hub)
    return Front(hub, streams, prefix, {"/healthz": health.live, "/healthz/ready": health.ready, **others})


def _page(metrics: Metrics) -> ASGIApp:
    """Return the application that answers Prometheus."""

    async def show(_: Scope, __: Receive, send: Send) -> None:
        await answer(send, 200, metrics.render(), [(b"content-type", metrics.content_type.encode())])

    return show
