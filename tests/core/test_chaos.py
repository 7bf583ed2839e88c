"""Random faults under takeover: what was acknowledged is stored once, and every subscriber reads what is stored."""

import asyncio
import contextlib
import os
import random

import pytest

from streamhub import (
    BackendUnavailableError,
    Hub,
    HubSettings,
    StreamAbandonedError,
    StreamEndedError,
    StreamHubError,
    open_backend,
)
from streamhub.conformance.faulty import Faults, faulty

SEEDS = range(int(os.environ.get("STREAMHUB_CHAOS_SEEDS", "6")))
CALLS = ("append", "read", "open", "describe", "acquire", "renew", "release", "holders", "pending", "follow", "changes")
SETTINGS = HubSettings(lease_seconds=0.4, poll_seconds=0.1, outage_seconds=5, abandon_after_seconds=20)
CHUNKS = 400


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("scheme", ["memory", "sqlite"])
async def test_chaos(scheme, seed, tmp_path):
    url = f"memory://chaos-{seed}" if scheme == "memory" else f"sqlite:///{tmp_path}/chaos.db"
    async with asyncio.timeout(50), contextlib.AsyncExitStack() as stack:
        chaos = _Chaos(random.Random(seed))
        hubs = [await chaos.hub(url, stack) for _ in range(3)]
        clean = await stack.enter_async_context(Hub.from_url(url, settings=SETTINGS))
        havoc = asyncio.create_task(chaos.havoc())
        try:
            async with asyncio.TaskGroup() as group:
                readers = [group.create_task(chaos.follow(hub)) for hub in hubs for _ in range(3)]
                for hub in hubs:
                    group.create_task(chaos.work(hub))
        finally:
            havoc.cancel()
        stored = {chunk.offset: chunk.text for chunk in [chunk async for chunk in clean.subscribe("k")]}
        assert [offset.index for offset in stored] == list(range(1, len(stored) + 1))
        assert list(stored.values())[-1] == f"last of {CHUNKS}"
        assert {offset: stored.get(offset) for offset in chaos.acknowledged} == chaos.acknowledged
        for reader in readers:
            assert reader.result() == list(stored.items())


class _Chaos:
    def __init__(self, rng):
        self.rng = rng
        self.faults = []
        self.acknowledged = {}

    async def hub(self, url, stack):
        faults = Faults()
        self.faults.append(faults)
        backend = faulty(await stack.enter_async_context(open_backend(url)), faults)
        hub = Hub(store=backend.store, leases=backend.leases, cancels=backend.cancels, settings=SETTINGS)
        return await stack.enter_async_context(hub)

    async def havoc(self):
        while True:
            await asyncio.sleep(self.rng.random() * 0.02)
            faults = self.rng.choice(self.faults)
            act = self.rng.randrange(5)
            if act == 0:
                faults.break_feeds()
            elif act == 1:
                faults.drop_hints = not faults.drop_hints
            elif act == 2 and self.rng.random() < 0.5:
                faults.clear()  # no call fails for as long as an outage would be ridden out
            elif act == 2:
                faults.fail(self.rng.choice(CALLS), times=self.rng.randint(1, 3))
            elif act == 3:
                faults.delay(self.rng.choice(CALLS), self.rng.random() * 0.3)
            else:
                faults.lose_reply(self.rng.choice(CALLS), times=self.rng.randint(1, 3))

    async def work(self, hub):
        """Produce until the run has ended, whoever ends it."""
        while True:
            try:
                async with hub.produce("k", run="r", unfinished="resume", wait=30, on_interrupt="handover") as producer:
                    await self._produce(producer)
                return
            except StreamEndedError:
                return
            except StreamHubError:
                continue
            except asyncio.CancelledError:
                if asyncio.current_task().uncancel():
                    raise

    async def _produce(self, producer):
        life = self.rng.randint(20, 150)
        while producer.offset.index < CHUNKS - 1:
            text = f"{producer.offset.index + 1} of {producer.generation}"
            offset = await producer.send(text)
            if self.rng.random() < 0.3:
                await producer.flush()
                self.acknowledged[offset] = text
            if self.rng.random() < 0.05:
                await asyncio.sleep(self.rng.random() * 0.02)
            life -= 1
            if not life:
                asyncio.current_task().cancel()  # as at a shutdown: the run is handed over
                await asyncio.sleep(0)
        await producer.send(f"last of {CHUNKS}")

    async def follow(self, hub):
        received = []
        after = None
        while True:
            try:
                async with hub.subscribe("k", run="r", after=after, wait=30) as subscription:
                    async for chunk in subscription:
                        received.append((chunk.offset, chunk.text))
                        after = chunk.offset
                        if self.rng.random() < 0.01:
                            break
                    else:
                        return received
            except (StreamAbandonedError, BackendUnavailableError):
                continue
