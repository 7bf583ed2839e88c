"""The base of every theme: its fixture, its marks, and the guard that keeps contract cases what they are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest
import pytest_asyncio

from streamhub.conformance.harness import Harness


@pytest.mark.asyncio(loop_scope="function")
@pytest.mark.timeout(60)
class ContractTests:
    """Cases of the contract. Each is an ``async def test_…`` whose docstring begins with the behaviour's code.

    A subclass says what is tested, by ``make_harness``. It may override a case only to mark it as a known failure,
    with ``@pytest.mark.xfail(reason=…)``.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in vars(cls):
            if name.startswith("test_"):
                _check_override(cls, name)
        _check_clashes(cls)

    def make_harness(self) -> Harness:
        """Return a new harness for the backend under test; called for each case."""
        raise NotImplementedError(f"{type(self).__name__} must override make_harness")

    @pytest_asyncio.fixture(loop_scope="function")
    async def harness(self) -> AsyncIterator[Harness]:
        """The harness of this case; all that the case opened is closed after it."""
        async with self.make_harness() as harness:
            yield harness


def case_names(cls: type) -> list[str]:
    """Return the names of a class's cases."""
    return [name for name in dir(cls) if name.startswith("test_")]


def _check_override(cls: type, name: str) -> None:
    inherited = [base for base in cls.__mro__[1:] if issubclass(base, ContractTests) and name in vars(base)]
    if not inherited:
        return
    marks = getattr(vars(cls)[name], "pytestmark", [])
    if any(mark.name == "xfail" and mark.kwargs.get("reason") for mark in marks):
        return
    raise TypeError(
        f"{cls.__qualname__}.{name} overrides a case of {inherited[0].__qualname__}: a contract case may be"
        " overridden only with @pytest.mark.xfail(reason='...')"
    )


def _check_clashes(cls: type) -> None:
    # Two themes with one name: the class order would silently drop one of them.
    for name in case_names(cls):
        homes = [base for base in cls.__mro__ if name in vars(base) and issubclass(base, ContractTests)]
        for home, next_home in pairwise(homes):
            if not issubclass(home, next_home):
                raise TypeError(f"{home.__qualname__} and {next_home.__qualname__} both define {name}: rename one")
