"""Places to run a model against: a backend's data, on a clock that only the test moves."""

from __future__ import annotations

import asyncio
import itertools
import os
import sqlite3
import tempfile
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from streamhub.protocols import Backend

T = TypeVar("T")

TIMES = int(os.environ.get("STREAMHUB_MODEL_TIMES", "0"))

MARKS = [
    # A failure takes long to shrink.
    pytest.mark.timeout(0 if TIMES else 900),
    # The threads of a backend may draw random numbers while Hypothesis believes that only a strategy could.
    pytest.mark.filterwarnings("ignore:.*random.*:hypothesis.errors.HypothesisDeprecationWarning"),
]


def _profile(examples: int, steps: int, shrink: bool) -> settings:
    return settings(
        max_examples=examples * (TIMES or 1),
        stateful_step_count=steps,
        derandomize=not TIMES,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )


class System:
    """Two connections to one place, on a clock that only the test moves."""

    def __init__(self) -> None:
        self.now_ms = 1_000_000
        self.runner = asyncio.Runner()
        self.examples = itertools.count()
        self.stack = AsyncExitStack()
        self.backends: list[Backend] = []

    async def connect(self) -> Backend:
        raise NotImplementedError

    async def leftovers(self) -> int:
        """Count what is stored."""
        raise NotImplementedError

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def start(self) -> None:
        async def start() -> None:
            for _ in range(2):
                backend = await self.connect()
                self.stack.push_async_callback(backend.aclose)
                self.backends.append(backend)

        self.run(start())

    def advance(self, seconds: float) -> None:
        """Move the clock. Each step adds a millisecond: between whole seconds, no moment is ever a deadline."""
        self.now_ms += int(seconds * 1000) + 1

    @property
    def now(self) -> float:
        return self.now_ms / 1000

    async def nothing_is_left(self, seconds: float) -> None:
        """Fail if anything is stored once everything is ``seconds`` old and swept."""
        self.advance(seconds)
        for _ in range(5):
            await self.backends[0].store.sweep(1000)
        assert await self.leftovers() == 0

    def close(self) -> None:
        self.run(self.stack.aclose())
        self.runner.close()


class MemorySystem(System):
    async def connect(self) -> Backend:
        from streamhub_memory import MemoryBackend

        backend = MemoryBackend("memory://model")
        await backend.connect()
        backend.namespace.clock = lambda: self.now
        return backend

    async def leftovers(self) -> int:
        return len(self.backends[0].namespace)  # pyright: ignore[reportAttributeAccessIssue]

    def close(self) -> None:
        from streamhub_memory import MemoryBackend

        super().close()
        MemoryBackend.forget("model")


class SqliteSystem(System):
    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory(prefix="streamhub-model-")
        self._path = Path(self._folder.name, "model.db")

    async def connect(self) -> Backend:
        from streamhub_sqlite import SqliteBackend
        from streamhub_sqlite.clock import HostClock

        class Clock(HostClock):
            steady_ms = staticmethod(lambda: self.now_ms)

        backend = SqliteBackend(f"sqlite:///{self._path}", clock=Clock())
        await backend.connect()
        return backend

    async def leftovers(self) -> int:
        with closing(sqlite3.connect(self._path)) as connection:
            tables = ("stream", "tail", "record", "garbage", "lease", "request")
            return sum(connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] for table in tables)

    def close(self) -> None:
        super().close()
        self._folder.cleanup()


SYSTEMS: dict[str, Callable[[], System]] = {"memory": MemorySystem, "sqlite": SqliteSystem}


def run_model(
    system: System, machine: Callable[[], RuleBasedStateMachine], *, examples: int, steps: int, shrink: bool = True
) -> None:
    """Run ``examples`` programs, always the same ones, or a multiple of random ones if the environment asks for it.

    Shrinking a failure is out of the question for a machine that waits for what does not happen.
    """
    system.start()
    try:
        run_state_machine_as_test(machine, settings=_profile(examples, steps, shrink))
    finally:
        system.close()
