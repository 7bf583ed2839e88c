"""What the three parts of a backend share."""

from __future__ import annotations

from streamhub.kit import Context
from streamhub_postgres.lane import Job, Lane, T
from streamhub_postgres.notifications import Notifications
from streamhub_postgres.options import PostgresOptions
from streamhub_postgres.target import Target
from streamhub_postgres.wire import Rows, Wire, open_wire


class Session:
    """The connections of one process, each with a task of its own.

    Attributes:
        appending: carries appends, one flush after the other.
        changing: carries what may have to wait for somebody else's row: opens, acquisitions, deletions, sweeps.
        reading: carries what waits for nobody: reads, renewals, lookups.
    """

    def __init__(self, target: Target, options: PostgresOptions) -> None:
        self.target = target
        self.options = options
        self.context = Context("postgresql")
        self.appending = self._lane("appending")
        self.changing = self._lane("changing")
        self.reading = self._lane("reading")
        self.notifications = Notifications(target, options, lane=self.reading)

    def _lane(self, name: str) -> Lane:
        return Lane(self._dial, name=f"postgresql {name}", where=self.target.where)

    async def _dial(self) -> Wire:
        return await open_wire(self.target, self.options)

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """All lanes."""
        return self.appending, self.changing, self.reading

    async def run(self, lane: Lane, job: Job[T], *, urgent: bool = False) -> T:
        """Run a job on a lane; see ``Lane.run``."""
        self.context.check()
        return await lane.run(job, urgent=urgent)

    async def fetch(self, lane: Lane, query: str, *arguments: object, urgent: bool = False) -> Rows:
        """Run one statement on a lane."""
        return await self.run(lane, lambda wire: wire.fetch(query, *arguments), urgent=urgent)
