"""Chats over the official transports for the AI SDK and TanStack AI, against two instances on one backend.

Both halves of a transport run: what a chat's route writes through the first instance, a page reads through a load
balancer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from cluster import Cluster
from durable_instances import both, shared_instances
from node_clients import DURABLE, Client, client, install

__all__ = ["both", "shared_instances"]  # fixtures

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def chat() -> AsyncIterator[Client]:
    install(DURABLE)
    async with client("aisdk.mjs", DURABLE) as running:
        yield running


@pytest.fixture
async def tanstack() -> AsyncIterator[Client]:
    install(DURABLE)
    async with client("tanstack.mjs", DURABLE) as running:
        yield running


def text(count: int) -> str:
    return "".join(f"word-{number} " for number in range(count))


def answers(state: Any) -> list[str]:
    return [message["text"] for message in state["messages"] if message["role"] == "assistant"]


def shows(count: int) -> Any:
    """Say whether a page shows at least so many words of one answer."""
    return lambda state: len(answers(state)) == 1 and answers(state)[0].count(" ") >= count


def ready(state: Any) -> bool:
    return state["status"] == "ready" and bool(answers(state))


# --- the AI SDK


async def test_chat_streams_an_answer(both: Cluster, chat: Client) -> None:
    await chat.call("open", page="a", id="c", writeUrl=both.instance(0), readUrl=both.instance(1))
    await chat.call("send", page="a", id="m1", text="30 words, 5 ms")
    state = await chat.until(ready, page="a")

    assert answers(state) == [text(30)]
    assert [message["id"] for message in state["messages"]] == ["m1", "answer-m1"]
    assert state["errors"] == []


async def test_chat_cut_off_resumes_on_the_other_instance_with_equal_text(both: Cluster, chat: Client) -> None:
    await chat.call("open", page="a", id="c", writeUrl=both.instance(0), readUrl=both.url)
    await chat.call("send", page="a", id="m1", text="80 words, 20 ms")
    await chat.until(shows(10), page="a")
    both.cut_to(1)
    # The transport's own: it reads an event stream, which its client does not open again once it breaks.
    await chat.until(lambda state: state["status"] == "error", page="a")
    await chat.call("resume", page="a")
    state = await chat.until(ready, page="a")

    assert answers(state) == [text(80)]
    assert len(state["errors"]) == 1
    assert state["unhandled"] == ["TypeError: terminated"]  # the client's own: outside a browser it ends the process


async def test_chat_reloaded_mid_answer_and_after_the_end_shows_the_message_once(both: Cluster, chat: Client) -> None:
    urls = {"writeUrl": both.instance(0), "readUrl": both.url}
    await chat.call("open", page="a", id="c", **urls)
    await chat.call("send", page="a", id="m1", text="60 words, 20 ms")
    await chat.until(shows(5), page="a")
    both.turn_to(1)
    question = {"id": "m1", "role": "user", "parts": [{"type": "text", "text": "60 words, 20 ms"}]}
    for page in "bc":
        await chat.call("open", page=page, id="c", messages=[question], **urls)
        await chat.call("resume", page=page)
        state = await chat.until(ready, page=page)
        assert (answers(state), state["errors"]) == ([text(60)], [])


async def test_chats_writer_repeats_a_lost_reply_and_its_words_are_doubled(both: Cluster, chat: Client) -> None:
    await chat.call("open", page="a", id="c", writeUrl=both.url, readUrl=both.instance(1))
    lost = both.proxy.lose_reply(b"word-5 ")
    await chat.call("send", page="a", id="m1", text="10 words, 20 ms")
    await lost.wait()
    state = await chat.until(ready, page="a")

    # The transport's own: it writes without a producer's name, so that nobody can tell the second from the first.
    assert answers(state)[0].count("word-5 ") == 2
    assert answers(state)[0].replace("word-5 word-5 ", "word-5 ") == text(10)


# --- TanStack AI


async def test_tanstack_chat_streams_its_answers_and_is_joined_by_another(both: Cluster, tanstack: Client) -> None:
    urls = [{"writeUrl": f"{both.instance(0)}/t", "readUrl": f"{both.instance(number)}/t"} for number in range(2)]
    await tanstack.call("make", url=urls[0]["writeUrl"])
    await tanstack.call("open", client="a", **urls[1])
    await tanstack.call("send", client="a", text="20 words, 5 ms")
    await tanstack.until(lambda state: shows(20)(state) and ready(state), client="a")
    await tanstack.call("send", client="a", text="3 words, 5 ms")
    state = await tanstack.until(lambda state: answers(state)[1:] == [text(3)] and ready(state), client="a")
    found = await tanstack.call("snapshot", url=urls[0]["readUrl"])
    await tanstack.call("open", client="b", **urls[0])
    await tanstack.call("subscribe", client="b")
    joined = await tanstack.until(lambda state: len(answers(state)) == 2, client="b")

    assert answers(state) == [text(20), text(3)]
    assert state["messages"] == found["messages"] == joined["messages"]
    assert (state["errors"], joined["errors"]) == ([], [])


async def test_tanstack_chat_cut_off_resumes_on_the_other_instance_with_equal_text(
    both: Cluster, tanstack: Client
) -> None:
    await tanstack.call("make", url=f"{both.url}/t")
    await tanstack.call("open", client="a", writeUrl=f"{both.instance(0)}/t", readUrl=f"{both.url}/t")
    await tanstack.call("send", client="a", text="80 words, 20 ms")
    await tanstack.until(shows(10), client="a")
    both.cut_to(1)
    await tanstack.until(lambda state: state["connection"] == "error", client="a")  # as with the AI SDK
    await tanstack.call("subscribe", client="a")
    state = await tanstack.until(shows(80), client="a")

    assert answers(state) == [text(80)]
    assert len(state["errors"]) == 1
