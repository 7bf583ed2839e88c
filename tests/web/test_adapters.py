"""The adapters on the real libraries' event objects: their own test models, or their clients on a loopback endpoint."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from endpoint import Endpoint, head, sends

from streamhub import StreamFailure
from streamhub.web.aisdk import (
    OpenParts,
    UIChunk,
    from_anthropic,
    from_langchain,
    from_openai_chat,
    from_openai_responses,
    from_pydantic_ai,
    from_text,
)

# What libraries warn of about themselves is not this suite's.
pytestmark = pytest.mark.filterwarnings("default")


async def collect(chunks: AsyncIterator[UIChunk]) -> list[UIChunk]:
    """Gather the chunks; each part must be begun before its deltas, and ended."""
    found = [chunk async for chunk in chunks]
    parts, begun = OpenParts(), set[str]()
    for chunk in found:
        json.dumps(chunk, allow_nan=False)
        parts.follow(chunk)
        if chunk["type"].endswith("-start") and "id" in chunk:
            begun.add(chunk["id"])
        if chunk["type"] in ("text-delta", "reasoning-delta"):
            assert chunk["id"] in begun
    assert list(parts.ends()) == []
    return found


def types(chunks: list[UIChunk]) -> list[str]:
    """The chunks' types, runs of one type written once."""
    found = [chunk["type"] for chunk in chunks]
    return [kind for number, kind in enumerate(found) if number == 0 or found[number - 1] != kind]


def joined(chunks: list[UIChunk], kind: str) -> str:
    return "".join(chunk["delta"] for chunk in chunks if chunk["type"] == f"{kind}-delta")


def call_of(chunks: list[UIChunk]) -> UIChunk:
    (call,) = [chunk for chunk in chunks if chunk["type"] == "tool-input-available"]
    return call


async def test_text_becomes_one_part_and_nothing_becomes_none() -> None:
    async def texts(*given: str) -> AsyncIterator[str]:
        for each in given:
            yield each

    assert await collect(from_text(texts("a", "", "b"))) == [
        {"type": "text-start", "id": "part-1"},
        {"type": "text-delta", "id": "part-1", "delta": "a"},
        {"type": "text-delta", "id": "part-1", "delta": "b"},
        {"type": "text-end", "id": "part-1"},
    ]
    assert await collect(from_text(texts(""))) == []


# --- the clients of OpenAI and Anthropic parse what an endpoint sends into their own objects


def events(*payloads: dict[str, Any], named: bool = False) -> Callable[[Any], None]:
    body = b"".join(
        (f"event: {each['type']}\n".encode() if named else b"") + b"data: " + json.dumps(each).encode() + b"\n\n"
        for each in payloads
    )
    return sends(
        head("200 OK", "text/event-stream", "Connection: close") + body + (b"" if named else b"data: [DONE]\n\n")
    )


def chat_event(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


async def test_openai_chat() -> None:
    from openai import AsyncOpenAI

    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "add", "arguments": ""}}
    script = events(
        chat_event(role="assistant", content=""),
        chat_event(reasoning_content="hm"),
        chat_event(content="Hel"),
        chat_event(content="lo"),
        chat_event(tool_calls=[call]),
        chat_event(tool_calls=[{"index": 0, "function": {"arguments": '{"a":'}}]),
        chat_event(tool_calls=[{"index": 0, "function": {"arguments": " 1}"}}]),
        chat_event(finish="tool_calls"),
        {**chat_event(), "choices": []},
    )
    with Endpoint(script) as endpoint:
        async with AsyncOpenAI(base_url=endpoint.url, api_key="k") as openai:
            stream = await openai.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "x"}], stream=True
            )
            chunks = await collect(from_openai_chat(stream))

    assert types(chunks) == [
        "reasoning-start", "reasoning-delta", "reasoning-end", "text-start", "text-delta", "text-end",
        "tool-input-start", "tool-input-delta", "tool-input-available", "finish",
    ]  # fmt: skip
    assert (joined(chunks, "reasoning"), joined(chunks, "text")) == ("hm", "Hello")
    expected = {
        "type": "tool-input-available",
        "toolCallId": "c1",
        "toolName": "add",
        "input": {"a": 1},
        "dynamic": True,
    }
    assert call_of(chunks) == expected
    assert chunks[-1] == {"type": "finish", "finishReason": "tool-calls"}


def response(status: str, **more: Any) -> dict[str, Any]:
    return {"id": "r", "object": "response", "created_at": 1, "model": "m", "output": [], "status": status,
            "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], **more}  # fmt: skip


async def test_openai_responses() -> None:
    from openai import AsyncOpenAI

    item = {
        "type": "function_call",
        "id": "f",
        "call_id": "c1",
        "name": "add",
        "arguments": "",
        "status": "in_progress",
    }
    place = {"item_id": "f", "output_index": 1}
    script = events(
        {"type": "response.created", "sequence_number": 0, "response": response("in_progress")},
        {"type": "response.reasoning_summary_text.delta", "sequence_number": 1, "item_id": "i", "output_index": 0,
         "summary_index": 0, "delta": "hm"},
        {"type": "response.output_text.delta", "sequence_number": 2, "item_id": "i", "output_index": 0,
         "content_index": 0, "delta": "Hello", "logprobs": []},
        {"type": "response.output_item.added", "sequence_number": 3, "output_index": 1, "item": item},
        {"type": "response.function_call_arguments.delta", "sequence_number": 4, **place, "delta": '{"a": 1}'},
        {"type": "response.output_item.done", "sequence_number": 5, "output_index": 1,
         "item": {**item, "arguments": '{"a": 1}', "status": "completed"}},
        {"type": "response.completed", "sequence_number": 6, "response": response("completed")},
        named=True,
    )  # fmt: skip
    with Endpoint(script) as endpoint:
        async with AsyncOpenAI(base_url=endpoint.url, api_key="k") as openai:
            chunks = await collect(
                from_openai_responses(await openai.responses.create(model="m", input="x", stream=True))
            )

    assert (joined(chunks, "reasoning"), joined(chunks, "text")) == ("hm", "Hello")
    assert (call_of(chunks)["toolCallId"], call_of(chunks)["input"]) == ("c1", {"a": 1})
    assert chunks[-1] == {"type": "finish", "finishReason": "stop"}


async def test_openai_responses_that_fail_publish_no_text_of_the_provider() -> None:
    from openai import AsyncOpenAI

    error = {"code": "server_error", "message": "secret"}
    failed = {"type": "response.failed", "sequence_number": 0, "response": response("failed", error=error)}
    with Endpoint(events(failed, named=True)) as endpoint:
        async with AsyncOpenAI(base_url=endpoint.url, api_key="k") as openai:
            stream = await openai.responses.create(model="m", input="x", stream=True)
            with pytest.raises(StreamFailure) as caught:
                await collect(from_openai_responses(stream))
    assert "secret" not in str(caught.value)


async def test_anthropic() -> None:
    from anthropic import AsyncAnthropic

    usage = {"input_tokens": 1, "output_tokens": 1}
    message = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None,
               "stop_sequence": None, "usage": usage}  # fmt: skip
    tool = {"type": "tool_use", "id": "c1", "name": "add", "input": {}}
    script = events(
        {"type": "message_start", "message": message},
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "thinking", "thinking": "", "signature": ""},
        },
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "s"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "ping"},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Hello"}},
        {"type": "content_block_stop", "index": 1},
        {"type": "content_block_start", "index": 2, "content_block": tool},
        {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '{"a": 1}'}},
        {"type": "content_block_stop", "index": 2},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": None}, "usage": usage},
        {"type": "message_stop"},
        named=True,
    )
    with Endpoint(script) as endpoint:
        async with AsyncAnthropic(base_url=endpoint.url.removesuffix("/v1"), api_key="k") as anthropic:
            stream = await anthropic.messages.create(
                model="m", max_tokens=9, messages=[{"role": "user", "content": "x"}], stream=True
            )
            chunks = await collect(from_anthropic(stream))

    assert (joined(chunks, "reasoning"), joined(chunks, "text")) == ("hm", "Hello")
    assert (call_of(chunks)["toolCallId"], call_of(chunks)["input"]) == ("c1", {"a": 1})
    assert chunks[-1] == {"type": "finish", "finishReason": "tool-calls"}


# --- libraries with test models of their own


async def test_pydantic_ai() -> None:
    from pydantic_ai import Agent
    from pydantic_ai.models.test import TestModel

    agent = Agent(TestModel(custom_output_text="It is two."))

    @agent.tool_plain
    def add(a: int) -> dict[str, int]:
        return {"sum": a + 1}

    async with agent.run_stream_events("What is one and one?") as stream:
        chunks = await collect(from_pydantic_ai(stream))

    assert joined(chunks, "text") == "It is two."
    assert (call_of(chunks)["toolName"], call_of(chunks)["input"]) == ("add", {"a": 0})
    (output,) = [chunk for chunk in chunks if chunk["type"] == "tool-output-available"]
    assert output["output"] == {"sum": 1}
    assert output["toolCallId"] == call_of(chunks)["toolCallId"]


async def test_langchain() -> None:
    from langchain_core.language_models import GenericFakeChatModel
    from langchain_core.messages import AIMessage
    from langchain_core.runnables import RunnableLambda
    from langchain_core.tools import tool

    @tool
    def add(a: int) -> int:
        """Add one."""
        return a + 1

    async def chain(question: str) -> Any:
        result = await add.ainvoke({"a": 1})
        model = GenericFakeChatModel(messages=iter([AIMessage("It is two.")]))
        return await model.ainvoke(f"{question} {result}")

    chunks = await collect(from_langchain(RunnableLambda(chain).astream_events("x", version="v2")))

    assert joined(chunks, "text") == "It is two."
    assert (call_of(chunks)["toolName"], call_of(chunks)["input"]) == ("add", {"a": 1})
    (output,) = [chunk for chunk in chunks if chunk["type"] == "tool-output-available"]
    assert (output["toolCallId"], output["output"]) == (call_of(chunks)["toolCallId"], 2)
