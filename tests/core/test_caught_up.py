"""What a subscription knows of the tail without asking for it."""

from __future__ import annotations

from streamhub import Hub


async def test_subscription_tells_whether_all_that_is_known_was_delivered() -> None:
    async with Hub.from_url("memory://caught-up") as hub, hub.produce("s") as producer:
        for text in "abc":
            await producer.send(text)
        await producer.flush()
        async with hub.subscribe("s") as subscription:
            seen: list[bool] = []
            for _ in range(3):
                await anext(subscription)
                seen.append(subscription.caught_up)
            assert seen == [False, False, True]
            assert subscription.known_end is None

            await producer.send("d")
            await producer.flush()
            await anext(subscription)
            assert subscription.caught_up


async def test_end_is_known_with_the_last_chunk_and_not_before_it() -> None:
    async with Hub.from_url("memory://known-end") as hub:
        async with hub.produce("s") as producer:
            await producer.send("a")
            await producer.send("b")
        async with hub.subscribe("s") as subscription:
            await anext(subscription)
            assert subscription.known_end is None
            await anext(subscription)
            assert subscription.known_end is not None
            assert subscription.known_end.state == "completed"
            assert subscription.end is None
            assert [chunk async for chunk in subscription] == []
            assert subscription.end == subscription.known_end
            assert subscription.caught_up
