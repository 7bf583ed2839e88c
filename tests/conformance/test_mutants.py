"""The suite proves itself: each deliberate mistake fails the cases that name it, and without it they pass."""

from __future__ import annotations

import asyncio

import pytest
from mutants import MUTANTS, Case, Mutant
from streamhub_memory import MemoryBackend

from streamhub.conformance import UrlHarness
from streamhub.conformance.contract import ContractTests
from streamhub.errors import StreamHubError

HANG_SECONDS = 4.0

FOUND = (AssertionError, StreamHubError, pytest.fail.Exception, TimeoutError, asyncio.CancelledError)
RIGHT = Mutant("none", ())


class MutantHarness(UrlHarness):
    """The memory backend, wrong in one way."""

    def __init__(self, mutant: Mutant) -> None:
        super().__init__("memory://", capabilities=frozenset({"leftovers"}))
        self._mutant = mutant

    async def connect(self) -> MemoryBackend:
        self.last = MemoryBackend(self.url or "")
        await self.last.connect()
        return self._mutant.parts(self.last)

    async def leftovers(self) -> int:
        return len(self.last.namespace)


async def run(case: Case, mutant: Mutant) -> None:
    tests: ContractTests = case.theme()
    with mutant.patch():
        async with MutantHarness(mutant) as harness, asyncio.timeout(HANG_SECONDS):
            await getattr(tests, case.name)(harness, **case.parameters)


def failures(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [each for part in error.exceptions for each in failures(part)]
    return [error]


PAIRS = [pytest.param(mutant, case, id=f"{mutant.mistake}-{case}") for mutant in MUTANTS for case in mutant.cases]


@pytest.mark.parametrize(("mutant", "case"), PAIRS)
async def test_mistake_is_found(mutant: Mutant, case: Case) -> None:
    with pytest.raises(BaseException) as caught:
        await run(case, mutant)
    found = failures(caught.value)
    assert all(isinstance(error, FOUND) for error in found), caught.value
    # The case finds this mistake, not something else: without it the case passes, in the time that it had.
    await run(case, RIGHT)
