"""One connection of the driver's, used by one task at a time, until its first fatal error."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Generator

from streamhub_postgres.driver import Driver, Rows, Statement, connect
from streamhub_postgres.options import PostgresOptions
from streamhub_postgres.target import Target

_CLOSE_SECONDS = 2.0

# Every statement finds its rows by index, however few there were when it was planned, once, for the connection's life;
# and judges them as they are once it has waited for them.
_SETTINGS = (
    "SET default_transaction_isolation = 'read committed'; SET plan_cache_mode = force_generic_plan;"
    " SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; SET jit = off"
)

# What was given up here is given up there, too, a moment later: it would wait for its lock for good, and hold others.
_LIMIT = (
    "SELECT pg_catalog.set_config('statement_timeout', '{limit}', false) FROM pg_catalog.pg_settings"
    " WHERE name = 'statement_timeout' AND setting = '0'"
)
_LIMIT_SECONDS = 1.0
_GREATEST_LIMIT = 2**31 - 1  # milliseconds


class Wire:
    """A connection. The driver's own time limits, caches and reconnects are off: its owner does that.

    Attributes:
        pooled: whether a pooler is in between, so that nothing stays from one statement to the next.
    """

    def __init__(self, driver: Driver, *, pooled: bool, seconds: float) -> None:
        """Take a connection; ``seconds`` is how long the server may take for one statement."""
        self._seconds = seconds
        self.driver = driver
        self.pooled = pooled
        self._statements: dict[str, Statement] = {}
        self._numbers = itertools.count()  # what a server forgot gets another name
        self._late = False

    @property
    def closed(self) -> bool:
        """Whether the connection has ended, as far as this side knows."""
        return self.driver.is_closed()

    async def fetch(self, query: str, *arguments: object) -> Rows:
        """Run one statement, which commits by itself; one round trip if it is prepared, else two."""
        with self.limited(self._seconds):
            if self.pooled:
                return await self.driver.fetch(query, *arguments)
            statement = self._statements.get(query)
            if statement is None:
                name = f"streamhub_{next(self._numbers)}"
                statement = self._statements[query] = await self.driver.prepare(query, name=name)
            return await statement.fetch(*arguments)

    async def execute(self, script: str) -> None:
        """Run a script without arguments: one round trip, and one transaction unless it says otherwise."""
        with self.limited(self._seconds):
            await self.driver.execute(script)

    @contextlib.contextmanager
    def limited(self, seconds: float) -> Generator[None]:
        """End the connection if the block takes longer: ``TimeoutError``.

        The driver's own way would be to ask the server, over another connection, to cancel the statement.
        """
        timer = asyncio.get_running_loop().call_later(seconds, self._expire)
        try:
            yield
        except Exception as exc:
            if self._late:
                raise TimeoutError(f"no answer within {seconds:g} s") from exc
            raise
        finally:
            timer.cancel()

    def _expire(self) -> None:
        self._late = True
        self.driver.terminate()

    def forget(self) -> None:
        """Prepare all statements anew."""
        self._statements.clear()

    def drop(self) -> None:
        """End the connection without waiting for the other side."""
        self.driver.terminate()

    async def aclose(self) -> None:
        """End a connection that nobody uses in order, if the other side goes along."""
        self._statements.clear()
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self.driver.close()
        self.driver.terminate()


async def open_wire(target: Target, options: PostgresOptions, *, listening: bool = False) -> Wire:
    """Connect; with ``listening``, to where ``listen_host`` says. Raises the driver's errors."""
    limit = options.connect_limit_seconds
    settings = {"application_name": options.application_name + (" listening" if listening else "")}
    if options.options is not None:
        settings["options"] = options.options
    place: dict[str, str | int] = {"target_session_attrs": options.target_session_attrs}
    if listening and options.listen_host is not None:
        place["host"] = options.listen_host
    if listening and options.listen_port is not None:
        place["port"] = options.listen_port
    async with asyncio.timeout(limit):
        driver = await connect(target.url, seconds=limit, settings=settings, **place)
    wire = Wire(driver, pooled=True, seconds=options.timeout_seconds)
    try:
        with wire.limited(limit):
            ((pid,),) = await driver.fetch("SELECT pg_backend_pid()")
            # A pooler answers with a number of its own; behind it, a setting would be somebody else's.
            wire.pooled = pid != driver.get_server_pid()
            if not wire.pooled and not listening:
                milliseconds = min(int((options.timeout_seconds + _LIMIT_SECONDS) * 1000), _GREATEST_LIMIT)
                await driver.execute(f"{_SETTINGS}; {_LIMIT.format(limit=milliseconds)}")
    except BaseException:
        wire.drop()
        raise
    return wire
