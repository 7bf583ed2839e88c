"""``serve``: Durable Streams over HTTP, by uvicorn."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import gc
import logging
import math
import signal
import socket
import sys
from argparse import Namespace
from typing import TYPE_CHECKING

from streamhub import Hub
from streamhub.cli import status
from streamhub.cli.output import fail, note, one_line
from streamhub.cli.running import environment
from streamhub.errors import ConfigError
from streamhub.inputs import MAX_SECONDS
from streamhub.options import redact

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from streamhub.prometheus import Metrics

BACKLOG = 2048
QUIET_SECONDS = 75  # longer than load balancers keep an idle connection: else they send into one that closes


def serve(args: Namespace) -> int:
    """Serve until a signal comes; then drain, and exit with 0."""
    _check_installed(metrics=args.metrics)
    _log_to_standard_streams(access=args.access_log)
    metrics = _metrics() if args.metrics else None
    hub = Hub.from_env(environment(args), observer=metrics)
    try:
        app = _app(args, hub, metrics)
    except ConfigError as exc:
        fail(str(exc))
        return status.USAGE
    listener = _listen(args.host, args.port)
    try:
        return _run(app, args, hub, listener)
    finally:
        listener.close()


def _check_installed(*, metrics: bool) -> None:
    from importlib.util import find_spec

    wanted = {"starlette": "serve", "uvicorn": "serve", **({"prometheus_client": "prometheus"} if metrics else {})}
    missing = [name for name in wanted if find_spec(name) is None]
    if missing:
        extras = ",".join(dict.fromkeys(wanted[name] for name in missing))
        raise ConfigError(
            f"serve needs {' and '.join(map(repr, missing))}; install it with: pip install 'streamhub-py[{extras}]'"
        )


def _metrics() -> Metrics:
    from streamhub.prometheus import Metrics

    return Metrics()


def _app(args: Namespace, hub: Hub, metrics: Metrics | None) -> ASGIApp:
    from streamhub.web.server import serve_app

    return serve_app(
        hub,
        authorize=args.authorize,
        tokens=args.token,
        loopback_only=args.loopback_only,
        cors_origins=args.cors_origin,
        prefix=args.prefix,
        max_streams=args.max_streams,
        metrics=metrics,
        access_log=args.access_log,
        retention=dataclasses.replace(
            hub.settings.retention,
            unfinished_seconds=MAX_SECONDS if args.keep is None else args.keep,
            ended_seconds=MAX_SECONDS if args.keep_closed is None else args.keep_closed,
        ),
        max_body_bytes=args.max_body,
        long_poll_seconds=args.long_poll_seconds,
        sse_seconds=args.sse_seconds,
    )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as exc:
        if exc.errno != errno.EADDRINUSE:
            raise
        raise ConfigError(f"port {port} of {host} is in use: give another --port, or 0 for any free one") from exc


def _run(app: ASGIApp, args: Namespace, hub: Hub, listener: socket.socket) -> int:
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            _collect_seldom()
            note(f"serving {_address(args, listener)} from {redact(environment(args)['STREAMHUB_URL'])}")

    config = uvicorn.Config(
        app,
        http=_protocol(),  # pyright: ignore[reportArgumentType]
        lifespan="on",
        interface="asgi3",
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=QUIET_SECONDS,
        timeout_graceful_shutdown=max(1, math.ceil(hub.settings.drain_seconds)),
        ssl_certfile=args.tls_cert,
        ssl_keyfile=args.tls_key,
    )
    server = Server(config)
    # uvicorn raises what it was stopped by once more, when it is done: by then that is no news.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.handle_exit)
    try:
        server.run([listener])
    except SystemExit:  # it has logged why it does not start
        return status.ERROR
    return status.COMPLETED


def _protocol() -> type[asyncio.Protocol] | str:
    """Return uvicorn's setting ``http``."""
    try:
        from streamhub.web.server.http1 import Http1
    except ImportError:  # no httptools, or none for this system
        return "h11"
    return Http1


def _collect_seldom() -> None:
    """Have the collector of cycles leave out what stays, and come less often: requests make next to none.

    It costs an append up to a tenth of its time otherwise.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


def _address(args: Namespace, listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    scheme = "http" if args.tls_cert is None else "https"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{args.prefix}"


class _OneLine(logging.Formatter):
    """As ``output.note`` writes: what a client sent cannot begin a line of its own."""

    def format(self, record: logging.LogRecord) -> str:
        text = one_line(f"streamhub: {record.levelname.lower()}: {record.getMessage().rstrip()}")
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def _says_more_than_that_it_failed(record: logging.LogRecord) -> bool:
    return record.msg != "Application startup failed. Exiting."  # why was told in the line before


def _log_to_standard_streams(*, access: bool) -> None:
    logging.raiseExceptions = False  # who read the log may have gone: no reason to fail, nor to say so each time
    errors = logging.StreamHandler(sys.stderr)
    errors.setFormatter(_OneLine())
    logging.basicConfig(level=logging.WARNING, handlers=[errors])
    logging.getLogger("uvicorn.error").addFilter(_says_more_than_that_it_failed)
    if access:
        logger = logging.getLogger("streamhub.access")
        logger.addHandler(logging.StreamHandler(sys.stdout))
        logger.setLevel(logging.INFO)
        logger.propagate = False
