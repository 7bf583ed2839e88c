"""Many subscribers in one process: everyone gets everything, and nothing is left behind."""

import asyncio
import gc
import os

from streamhub import Hub

STREAMS, EACH = 1_000, 10


async def test_ten_thousand_subscribers_on_a_thousand_streams():
    async with Hub.from_url("memory://scale") as hub:
        waiting = asyncio.Semaphore(0)

        async def follow(key):
            texts = []
            async with hub.subscribe(key, wait=60) as subscription:
                waiting.release()
                async for chunk in subscription:
                    texts.append(chunk.text)
            return texts

        async def produce(key):
            async with hub.produce(key) as producer:
                await go.wait()
                for number in range(3):
                    await producer.send(f"{key}:{number}")
                    await producer.flush()

        go = asyncio.Event()
        keys = [f"k{number}" for number in range(STREAMS)]
        producers = [asyncio.create_task(produce(key)) for key in keys]
        followers = [asyncio.create_task(follow(key)) for key in keys for _ in range(EACH)]
        for _ in followers:
            await waiting.acquire()
        go.set()
        await asyncio.gather(*producers)
        results = await asyncio.gather(*followers)
        assert results == [[f"{key}:{number}" for number in range(3)] for key in keys for _ in range(EACH)]
        assert not hub._core.feeds._feeds
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_plain_loop_left_early_leaves_nothing(tmp_path):
    async with Hub.from_url(f"sqlite:///{tmp_path}/s.db") as hub:
        async with hub.produce("k") as producer:
            for number in range(10):
                await producer.send(str(number))

        async def cycle():
            async for _ in hub.subscribe("k"):
                break

        await cycle()
        files, tasks = len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())
        for _ in range(1_000):
            await cycle()
        gc.collect()
        async with asyncio.timeout(10):
            while hub._core.feeds._feeds or len(asyncio.all_tasks()) > tasks:
                await asyncio.sleep(0.01)
        assert len(os.listdir("/proc/self/fd")) == files
