"""How many answers may be on their way to one process at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest
from streamhub_nats import flow
from streamhub_nats.flow import Flow

from streamhub import BackendUnavailableError
from streamhub.conformance.drive import dismiss
from streamhub.conformance.waiting import settle

MIB = 1024 * 1024


class Asking:
    """A question that takes room, and is answered when a test says so."""

    def __init__(self, flow: Flow, most_bytes: int) -> None:
        self.begun = False
        self.most_bytes = 0
        self.answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._ask(flow, most_bytes))

    async def _ask(self, flow: Flow, most_bytes: int) -> None:
        async with flow.room(most_bytes) as room:
            self.begun, self.most_bytes = True, room.most_bytes
            await self.answer


async def begun(*questions: Asking) -> list[bool]:
    """Return which of them have been asked."""
    await settle()
    return [question.begun for question in questions]


@pytest.fixture
def flow_of_small_messages() -> Flow:
    """Messages have had no size to speak of."""
    flow = Flow()
    for _ in range(400):
        flow.saw(0)
    return flow


async def failed(question: Awaitable[None]) -> bool:
    """Say whether a question ended as unanswered."""
    (answer,) = await asyncio.gather(question, return_exceptions=True)
    return isinstance(answer, BackendUnavailableError)


async def test_answers_come_in_order_and_no_more_at_once_than_the_window(flow_of_small_messages: Flow) -> None:
    asked = [Asking(flow_of_small_messages, size) for size in (MIB // 2, MIB // 2, MIB // 4, 1, MIB // 2)]

    assert await begun(*asked) == [True, True, False, False, False]
    asked[1].answer.set_result(None)
    assert await begun(*asked) == [True, True, True, True, False]
    asked[0].answer.set_result(None)
    assert await begun(*asked) == [True] * 5
    await dismiss(*(each.task for each in asked))


async def test_an_answer_larger_than_the_window_comes_alone(flow_of_small_messages: Flow) -> None:
    large, small = Asking(flow_of_small_messages, 8 * MIB), Asking(flow_of_small_messages, 1)

    assert await begun(large, small) == [True, False]
    assert large.most_bytes == MIB
    large.answer.set_result(None)
    assert await begun(large, small) == [True, True]
    await dismiss(large.task, small.task)


async def test_messages_whose_size_is_not_known_take_what_others_took(flow_of_small_messages: Flow) -> None:
    flow_of_small_messages.saw(MIB // 2)
    asked = [Asking(flow_of_small_messages, 0) for _ in range(3)]

    assert await begun(*asked) == [True, True, False]
    await dismiss(*(each.task for each in asked))


async def test_what_is_cancelled_leaves_its_room_to_others(flow_of_small_messages: Flow) -> None:
    room = flow_of_small_messages.room(MIB)
    await flow_of_small_messages.enter(room)
    asked = [Asking(flow_of_small_messages, MIB) for _ in range(3)]
    await settle()
    asked[0].task.cancel()  # it waits
    flow_of_small_messages.leave(room, None)
    asked[1].task.cancel()  # it has just been given room
    assert await begun(*asked) == [False, False, True]
    await dismiss(*(each.task for each in asked))


async def test_less_is_asked_for_after_a_failure_and_more_again_later(
    flow_of_small_messages: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    for _ in range(6):
        question = Asking(flow_of_small_messages, MIB)
        await settle()
        sizes.append(question.most_bytes)
        question.answer.set_exception(BackendUnavailableError("no answer"))
        assert await failed(question.task)
    assert sizes == [MIB, MIB // 2, MIB // 4, MIB // 8, MIB // 16, MIB // 16]

    monkeypatch.setattr(flow, "WIDEN_SECONDS", 0.0)
    for wider in (MIB // 8, MIB // 4):
        question = Asking(flow_of_small_messages, MIB)
        await settle()
        assert question.most_bytes == wider
        await dismiss(question.task)


async def test_where_nothing_comes_at_all_nobody_waits_for_his_turn(flow_of_small_messages: Flow) -> None:
    asked = [Asking(flow_of_small_messages, MIB // 2) for _ in range(4)]
    await settle()
    asked[0].answer.set_result(None)
    await settle()
    asked[1].answer.set_exception(BackendUnavailableError("late"))  # another one has come meanwhile: a slow link
    assert await failed(asked[1].task)
    assert await begun(*asked) == [True, True, True, False]
    assert not asked[3].task.done()

    asked[2].answer.set_exception(BackendUnavailableError("gone"))
    assert [await failed(each.task) for each in asked[2:]] == [True, True]
    assert not asked[3].begun
