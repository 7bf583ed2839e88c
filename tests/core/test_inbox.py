"""What a listener hands over: to a task that iterates, or where it is put."""

import asyncio
from contextlib import suppress

import pytest

from streamhub import BackendUnavailableError
from streamhub.kit import Inbox


async def _handing(inbox, take):
    task = asyncio.create_task(inbox.hand_to(take))
    await asyncio.sleep(0)
    return task


async def test_items_are_taken_in_order_and_without_another_turn_of_the_loop():
    inbox, taken = Inbox(0), []
    inbox.put(1)
    inbox.put(2)
    task = await _handing(inbox, taken.append)
    assert taken == [1, 2]

    inbox.put(3)

    assert taken == [1, 2, 3]
    inbox.close()
    await task


async def test_an_error_ends_it_behind_what_was_put_before():
    inbox, taken = Inbox(0), []
    task = await _handing(inbox, taken.append)
    inbox.put(1)
    inbox.close(BackendUnavailableError("gone"))

    with pytest.raises(BackendUnavailableError, match="gone"):
        await task
    assert taken == [1]


async def test_what_was_put_into_a_closed_inbox_is_taken_before_the_error():
    inbox, taken = Inbox(0), []
    inbox.put(1)
    inbox.close(BackendUnavailableError("gone"))

    with pytest.raises(BackendUnavailableError):
        await inbox.hand_to(taken.append)
    assert taken == [1]


async def test_who_puts_is_spared_what_taking_raises():
    inbox = Inbox(0)

    def take(item):
        raise LookupError(item)

    task = await _handing(inbox, take)
    inbox.put(1)
    inbox.put(2)

    with pytest.raises(LookupError, match="1"):
        await task


async def test_one_that_is_cancelled_loses_nothing():
    inbox, taken = Inbox(0), []
    task = await _handing(inbox, taken.append)
    inbox.put(1)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    inbox.put(2)

    assert taken == [1]
    assert await anext(inbox) == 2
