"""What the servers of test_drain.py run: runs that count."""

from __future__ import annotations

from counting import count
from starlette.applications import Starlette

from streamhub import Hub
from streamhub.web import Answer, Asked, sse_routes


def answer(asked: Asked) -> Answer:
    """Leave an interrupted run to the next instance, but for one that is asked to be failed."""
    return Answer(source=count, run=asked.run, on_interrupt="fail" if asked.body.get("fail") else "handover")


hub = Hub.from_env()
app = Starlette(routes=sse_routes(hub, authorize=None, answer=answer, wait=5), lifespan=hub.lifespan)
