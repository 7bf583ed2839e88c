"""What an open hub is made of, put together in the order data flows: committer, reader, feeds, leases, cancels."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Sequence

from streamhub.cancellation import CancelDelivery
from streamhub.canceller import Canceller
from streamhub.committer import Committer
from streamhub.errors import ConfigError, StreamHubError
from streamhub.feed import Feeds
from streamhub.keeper import HeldLease, LeaseKeeper
from streamhub.observer import Observer
from streamhub.protocols import CancelBus, LeaseManager, StreamStore
from streamhub.reader import PageReader
from streamhub.settings import HubSettings
from streamhub.starter import Starter
from streamhub.tasks import TaskOwner
from streamhub.types import RunRef

SWEEP_LIMIT = 2000

logger: logging.Logger = logging.getLogger("streamhub")
GRACE_SECONDS = 5.0
"""How long closing waits, beyond an outage, for interrupted producers to end; one that ignores it is left behind."""


class Core:
    """Everything that runs while a hub is open."""

    def __init__(
        self,
        store: StreamStore,
        leases: LeaseManager,
        cancels: CancelBus,
        *,
        settings: HubSettings,
        observer: Observer | None,
    ) -> None:
        ttl = leases.default_ttl_seconds if settings.lease_seconds is None else settings.lease_seconds
        if ttl < leases.min_ttl_seconds:
            raise ConfigError(f"lease_seconds={ttl:g}: this backend needs at least {leases.min_ttl_seconds:g}")
        if settings.max_chunk_bytes > store.max_append_bytes:
            raise ConfigError(
                f"max_chunk_bytes={settings.max_chunk_bytes}: this backend takes at most {store.max_append_bytes}"
            )
        outage = settings.outage_seconds
        self.tasks: TaskOwner = TaskOwner()
        tasks = self.tasks
        self.committer: Committer = Committer(store, tasks, observer=observer)
        self.reader: PageReader = PageReader(store, tasks)
        self.feeds: Feeds = Feeds(
            store,
            leases,
            tasks,
            reader=self.reader,
            settings=settings,
            abandon_after_seconds=settings.abandon_after_seconds or ttl,
            observer=observer,
        )
        self.delivery: CancelDelivery = CancelDelivery(cancels, tasks, outage_seconds=outage, observer=observer)
        self.keeper: LeaseKeeper = LeaseKeeper(
            leases,
            tasks,
            ttl_seconds=ttl,
            outage_seconds=outage,
            observer=observer,
            after_renewal=self._after_renewal,
        )
        self.starter: Starter = Starter(
            store,
            leases,
            keeper=self.keeper,
            delivery=self.delivery,
            committer=self.committer,
            reader=self.reader,
            tasks=tasks,
            settings=settings,
            observer=observer,
        )
        self.canceller: Canceller = Canceller(
            store, leases, cancels, keeper=self.keeper, feeds=self.feeds, tasks=tasks, settings=settings
        )
        self._store = store
        self._settings = settings
        tasks.spawn(self._sweep(), "sweep")

    async def shut(self, cause: StreamHubError, timeout_seconds: float) -> None:
        """Turn subscriptions and new runs away, give the runs there are some time, then interrupt them."""
        if self.feeds.closed_with is None:
            self.feeds.close(cause)
        self.starter.refuse_with = cause
        await self.starter.idle(timeout_seconds)
        for run in list(self.starter.runs):
            run.interrupt(cause)
        await self.starter.idle(GRACE_SECONDS + self._settings.outage_seconds)
        for run in list(self.starter.runs):
            run.fail(cause)

    async def _after_renewal(self, renewed: Sequence[HeldLease]) -> None:
        now = time.monotonic()
        idle = [held for held in renewed if held.touch_seconds and now >= held.touched_at + held.touch_seconds]
        if idle:
            await self._store.describe([held.lease.key for held in idle], touch=True)
            for held in idle:
                held.touched_at = now
        await self.delivery.check([RunRef(held.lease.key, held.lease.run) for held in renewed])

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self._settings.sweep_seconds * random.uniform(0.8, 1.2))
            try:
                await self._store.sweep(SWEEP_LIMIT)
            except StreamHubError:
                continue  # another hub, or the next round, does it
            except Exception:
                logger.exception("sweep raised what no backend may raise")
