"""``publish``: a run from standard input or from a model. Whatever goes wrong becomes the run's end."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Literal

from streamhub import Hub, Producer
from streamhub.cli import openai, output, status, stdin
from streamhub.cli.running import hub_of, run
from streamhub.errors import (
    BackendUnavailableError,
    DataLostError,
    LeaseLostError,
    ProducerCancelledError,
    ResumeRefusedError,
    StaleGenerationError,
    StreamFailure,
    StreamHubError,
)

# After these the producer may write nothing more, not even an end.
_WITHOUT_END = (BackendUnavailableError, DataLostError, LeaseLostError, ResumeRefusedError, StaleGenerationError)


def publish(args: Namespace) -> int:
    """Produce one run, and tell how it ended."""
    return run(_publish(args))


async def _publish(args: Namespace) -> int:
    report = _Report(args)
    try:
        async with hub_of(args) as hub:
            await _produce(hub, args, report)
    except ProducerCancelledError as exc:
        if not report.producing:  # cancelled before it began
            output.fail(output.explain(exc))
        return report.ended(exc, "cancelled", reason=exc.reason, requested_by=exc.requested_by)
    except StreamFailure as exc:
        output.fail(f"{exc.code}: {exc.message}" + (f" ({exc.__cause__})" if exc.__cause__ else ""))
        return report.ended(exc, "failed", code=exc.code, message=exc.message)
    except StreamHubError as exc:
        if not report.producing or isinstance(exc, _WITHOUT_END):
            raise
        output.fail(output.explain(exc))
        return report.ended(exc, "failed", code=type(exc).__name__)
    report.finish("completed")
    return status.COMPLETED


async def _produce(hub: Hub, args: Namespace, report: _Report) -> None:
    async with hub.produce(
        args.key, run=args.run, unfinished=args.unfinished, wait=args.wait, metadata=args.metadata
    ) as producer:
        report.begin(producer)
        async with aclosing(await _source(args, producer, hub.settings.max_chunk_bytes)) as source:
            async for data in source:
                await producer.send(data)
                report.tick()


async def _source(args: Namespace, producer: Producer, max_bytes: int) -> AsyncGenerator[str | bytes]:
    if args.openai_base_url is not None:
        return openai.stream(await _request(args, producer))
    if args.bytes:
        return stdin.reads(max_bytes=max_bytes)
    return stdin.lines(max_bytes=max_bytes)


async def _request(args: Namespace, producer: Producer) -> openai.Request:
    said = b"".join([chunk.data async for chunk in producer.history()]) if producer.resumed else b""
    return openai.Request(
        base_url=args.openai_base_url,
        model=args.model,
        prompt=args.prompt,
        said=said.decode("utf-8", "replace"),
        api_key=openai.api_key(args.api_key_env),
        idle_seconds=args.idle,
    )


class _Report:
    """What the command tells: progress on a terminal, and the result."""

    def __init__(self, args: Namespace) -> None:
        self._json: bool = args.json
        self._live = output.is_terminal(sys.stderr) and not output.is_terminal(sys.stdin)
        self._shown = 0.0
        self._chunks = 0
        self._producer: Producer | None = None

    @property
    def producing(self) -> bool:
        """True once the run was open."""
        return self._producer is not None

    def begin(self, producer: Producer) -> None:
        """The run is open."""
        self._producer = producer

    def tick(self) -> None:
        """One more chunk was sent."""
        self._chunks += 1
        now = time.monotonic()
        if self._live and now - self._shown > 0.1:
            self._shown = now
            print(f"\r{self._chunks} chunks", end="", file=sys.stderr, flush=True)

    def finish(self, state: str, **facts: str | None) -> None:
        """Print the result."""
        producer = self._producer
        if producer is None:
            return
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr)
        if self._json:
            output.print_json(self._facts(producer, state, facts))
        else:
            output.note(
                f"run {producer.run} of {producer.key} {state}, {self._chunks} chunks, offset {producer.offset}"
            )

    def ended(self, cause: Exception, state: Literal["failed", "cancelled"], **facts: str | None) -> int:
        """Print the result and return its status, unless a note of ``cause`` says that the end could not be stored."""
        if getattr(cause, "__notes__", None):
            return status.ABANDONED
        self.finish(state, **facts)
        return status.FAILED if state == "failed" else status.CANCELLED

    def _facts(self, producer: Producer, state: str, facts: dict[str, str | None]) -> dict[str, Any]:
        end = {"state": state} | {name: value for name, value in facts.items() if value is not None}
        return {
            "key": producer.key,
            "run": producer.run,
            "resumed": producer.resumed,
            "chunks": self._chunks,
            "offset": str(producer.offset),
            "end": end,
        }
