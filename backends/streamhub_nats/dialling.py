"""Connecting: each server gets its own attempt, the next one begins before a silent one has been given up."""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
from collections.abc import Callable, Sequence
from typing import Any

from nats.errors import NoServersError

from streamhub.errors import BackendNotInstalledError, ConfigError, StreamHubError
from streamhub_nats.channel import Channel
from streamhub_nats.faults import convert
from streamhub_nats.layout import check_version
from streamhub_nats.options import NatsOptions
from streamhub_nats.target import Target

STAGGER_SECONDS = 0.25


class Dialler:
    """Makes connections to any of the servers it knows: those of the URL, and those that they name."""

    def __init__(self, target: Target, options: NatsOptions) -> None:
        self._target = target
        self._options = options
        self._discovered: list[str] = []

    @property
    def where(self) -> str:
        """What messages call the servers."""
        return self._target.where

    async def dial(self, purpose: str, *, on_end: Callable[[StreamHubError], None]) -> Channel:
        """Connect to the first server that can be reached.

        Raises:
            BackendUnavailableError: none can.
            ConfigError: all are too old, or the credentials were refused, or cannot be read.
        """
        settings = self._settings(purpose)
        hosts = random.sample(self._target.hosts, len(self._target.hosts))
        hosts += [host for host in self._discovered if host not in hosts]

        async def attempt(host: str) -> Channel:
            channel = Channel(
                self.where,
                inbox=self._options.inbox,
                timeout_seconds=self._options.timeout_seconds,
                on_end=on_end,
            )
            await self._connect(channel, host, settings)
            return channel

        channel = await _first([(lambda host=host: attempt(host)) for host in hosts])
        if not self._target.over_websocket:
            self._discovered = [server.netloc.rpartition("@")[2] for server in channel.client.discovered_servers]
        return channel

    async def _connect(self, channel: Channel, host: str, settings: dict[str, Any]) -> None:
        client = channel.client
        try:
            async with asyncio.timeout(self._options.connect_seconds):
                await client.connect(
                    [f"{self._target.scheme}://{host}"], error_cb=channel.told, closed_cb=channel.ended, **settings
                )
                check_version(channel)
                await channel.prepare()
        except BaseException as exc:
            await channel.aclose()
            if not isinstance(exc, Exception):
                raise
            # That no server is left says nothing: why not, the driver has told before.
            reason = channel.reason if isinstance(exc, NoServersError) and channel.reason else exc
            raise convert(self.where, reason) from reason

    def _settings(self, purpose: str) -> dict[str, Any]:
        target, options = self._target, self._options
        if target.over_websocket:
            _require("aiohttp", target.scheme)
        if options.creds or options.nkey:
            _require("nkeys", "creds and nkey with nats")
        for path in (options.creds, options.nkey):
            _readable(path)
        return {
            "name": f"{options.client_name} {purpose}",
            "allow_reconnect": False,
            # One attempt of each server: a refused connection is not asked again and again.
            "max_reconnect_attempts": 1,
            "reconnect_time_wait": 0.02,
            "connect_timeout": options.connect_seconds,
            "ping_interval": options.ping_seconds,
            "max_outstanding_pings": 1,
            "pending_size": 0,
            "flusher_queue_size": 0,
            "skip_subject_validation": True,
            "inbox_prefix": options.inbox,
            "user": target.username,
            "password": target.password,
            "token": target.token,
            "user_credentials": options.creds,
            "nkeys_seed": options.nkey,
            "tls": self._context(),
            "tls_handshake_first": options.tls_first,
        }

    def _context(self) -> ssl.SSLContext | None:
        options = self._options
        if self._target.scheme not in ("tls", "wss") and not options.encrypted:
            return None
        try:
            context = ssl.create_default_context(cafile=options.ssl_ca_certs)
            context.check_hostname = options.ssl_check_hostname
            if options.ssl_certfile is not None:
                context.load_cert_chain(options.ssl_certfile, options.ssl_keyfile)
        except OSError as exc:
            raise ConfigError(f"the certificates cannot be loaded: {exc}") from exc
        return context


def _require(package: str, what: str) -> None:
    try:
        __import__(package)
    except ImportError as exc:
        raise BackendNotInstalledError(f"{what}:// needs {package!r}; install it with: pip install {package}") from exc


def _readable(path: str | None) -> None:
    if path is None:
        return
    try:
        with open(path, "rb"):
            pass
    except OSError as exc:
        raise ConfigError(f"the credentials {path!r} cannot be read: {exc.strerror}") from exc


async def _first(attempts: Sequence[Callable[[], Any]]) -> Channel:
    """Return the first channel that connects; a failed attempt, or a while of silence, begins the next one."""
    waiting = list(attempts)
    running: set[asyncio.Task[Channel]] = set()
    errors: list[BaseException] = []
    try:
        while waiting or running:
            if waiting:
                running.add(asyncio.create_task(waiting.pop(0)(), name="nats dial"))
            done, running = await asyncio.wait(
                running, timeout=STAGGER_SECONDS if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            channels = [task.result() for task in done if task.exception() is None]
            errors += [exc for task in done if (exc := task.exception()) is not None]
            for spare in channels[1:]:
                await spare.aclose()
            if channels:
                return channels[0]
    finally:
        for task in running:
            task.cancel()
        for task in running:
            with contextlib.suppress(asyncio.CancelledError, StreamHubError):
                await (await task).aclose()
    raise next((error for error in errors if isinstance(error, ConfigError)), errors[0])
