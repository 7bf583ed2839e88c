"""A real browser: native EventSource, and a page with useChat that is reloaded, cut off, opened twice and stopped."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import servers
from cluster import ChatCluster, cluster
from node_clients import Client, client, install
from test_clients import begin, text

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def browser(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Client]:
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        servers.lacking("Chromium")
    install()
    monkeypatch.setenv("CHROMIUM", found)
    async with client("browser.mjs") as running:
        yield running


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[ChatCluster]:
    options = "lease_seconds=1&poll_seconds=0.3&drain_seconds=1"
    async with cluster(f"sqlite:///{tmp_path}/streams.db?{options}", tmp_path) as running:
        yield running


def shows(count: int) -> Any:
    return lambda state: len(state["answers"]) == 1 and state["answers"][0].count(" ") >= count


def loaded(state: Any) -> bool:
    return state["status"] is not None


async def test_chat_reloaded_mid_answer_shows_it_once_and_whole(both: ChatCluster, browser: Client) -> None:
    prompt = "120 words, 20 ms"
    await browser.call("open", tab="a", url=f"{both.url}/?chat=c")
    await browser.until(loaded, tab="a")
    await browser.call("run", tab="a", expression=f"send({json.dumps(prompt)})")
    await browser.until(shows(10), tab="a")
    both.turn_to(1)
    await browser.call("navigate", tab="a", url=f"{both.url}/?chat=c&resume&question={quote(prompt)}")
    await browser.until(shows(20), tab="a")
    await browser.call("reload", tab="a")
    state = await browser.until(lambda state: state["status"] == "ready" and shows(120)(state), tab="a")

    assert state["answers"] == [text(120)]
    assert state["errors"] == []
    await browser.call("reload", tab="a")  # after the end
    state = await browser.until(lambda state: state["status"] == "ready" and shows(1)(state), tab="a")
    assert state["answers"] == [text(120)]
    assert len(both.calls) == 1


@pytest.mark.parametrize("tail", ["", "&tail"])
async def test_chat_taken_offline_and_online_misses_nothing(both: ChatCluster, browser: Client, tail: str) -> None:
    await browser.call("open", tab="a", url=f"{both.url}/?chat=c{tail}")
    await browser.until(loaded, tab="a")
    await browser.call("run", tab="a", expression="send('120 words, 20 ms')")
    await browser.until(shows(10), tab="a")
    await browser.call("network", tab="a", offline=True)
    both.proxy.refuse()
    state = await browser.until(lambda state: state["status"] == "error", tab="a")
    assert state["answers"][0].count(" ") < 120
    await browser.call("network", tab="a", offline=False)
    both.proxy.heal()
    both.turn_to(1)
    await browser.call("run", tab="a", expression="resume()")
    state = await browser.until(lambda state: state["status"] == "ready", tab="a")

    assert state["answers"] == [text(120)]
    assert len(both.calls) == 1


async def test_two_tabs_read_along_and_one_stops_both(both: ChatCluster, browser: Client) -> None:
    prompt = "900 words, 20 ms"
    await browser.call("open", tab="a", url=f"{both.url}/?chat=c")
    await browser.until(loaded, tab="a")
    await browser.call("run", tab="a", expression=f"send({json.dumps(prompt)})")
    await browser.until(shows(5), tab="a")
    both.turn_to(1)
    await browser.call("open", tab="b", url=f"{both.url}/?chat=c&resume&question={quote(prompt)}")
    await browser.until(shows(5), tab="b")
    assert await browser.call("run", tab="b", expression="stop()") == "cancelled"
    states = [await browser.until(lambda state: state["status"] == "ready", tab=tab) for tab in "ab"]

    assert states[0]["answers"] == states[1]["answers"]
    assert 5 <= states[0]["answers"][0].count(" ") < 900
    assert [state["errors"] for state in states] == [[], []]


async def test_native_event_source_resumes_by_itself_and_stops_at_the_end(both: ChatCluster, browser: Client) -> None:
    await begin(both, "300 words, 20 ms")
    await browser.call("open", tab="a", url=f"{both.url}/?chat=c")
    await browser.until(loaded, tab="a")
    await browser.call("run", tab="a", expression="listen('k', '/s/k')")
    heard = "heard('k')"
    for instance in (1, 0):
        seen = len((await browser.call("state", tab="a", expression=heard))["texts"])
        await browser.until(lambda state, seen=seen: len(state["texts"]) >= seen + 10, tab="a", expression=heard)
        both.cut_to(instance)
    state = await browser.until(lambda state: state["readyState"] == 2, tab="a", expression=heard)

    assert "".join(map(json.loads, state["texts"])) == text(300)
    assert state["named"] == [["end", {"state": "completed"}]]
    assert state["opened"] == 3
