"""A master, its replicas, and the Sentinels that watch them, on ports of the loopback interface."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable
from pathlib import Path

import redis
from redis_servers import SHARED, RedisServer, least_privilege, wait_until

SERVICE = "streams"

DOWN_AFTER_MS = 1000  # much less, and a busy machine makes Sentinels take a living master for dead

UNWATCHED_MS = 600_000  # Sentinels never take the master for dead: for tests that do not want a failover

# A server that comes back empty, and that Sentinels take for the master, would empty all others.
_REPLICATION = (
    "appendonly yes",
    "appendfsync everysec",
    "repl-diskless-sync yes",
    "repl-diskless-sync-delay 0",
    "repl-timeout 5",
    "replica-priority 100",
)


class SentinelSetup:
    """Servers of which one is master, and Sentinels that agree which."""

    def __init__(
        self,
        path: Path,
        *,
        replicas: int = 1,
        sentinels: int = 3,
        down_after_ms: int = DOWN_AFTER_MS,
        config: Iterable[str] = (),
    ) -> None:
        """Prepare; ``config`` are lines for the master and the replicas."""
        config = (*_REPLICATION, *config)
        master = RedisServer(path, config=config)
        following = [f"replicaof 127.0.0.1 {master.port}", *config]
        self.servers = [master, *(RedisServer(path, config=following) for _ in range(replicas))]
        watching = (
            f"sentinel monitor {SERVICE} 127.0.0.1 {master.port} {sentinels // 2 + 1}",
            f"sentinel down-after-milliseconds {SERVICE} {down_after_ms}",
            f"sentinel failover-timeout {SERVICE} 3000",
            f"sentinel parallel-syncs {SERVICE} 1",
        )
        self.sentinels = [RedisServer(path, config=watching, mode="--sentinel") for _ in range(sentinels)]

    @property
    def url(self) -> str:
        """What the backend is given."""
        return f"redis+sentinel://{self.hosts}/{SERVICE}/0"

    @property
    def least_url(self) -> str:
        """The same as the user of ``least_privilege``, where the servers know it."""
        return f"redis+sentinel://streamhub:s3cret@{self.hosts}/{SERVICE}/0"

    @property
    def hosts(self) -> str:
        """Where the Sentinels are, as a URL has it."""
        return ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)

    def start(self) -> None:
        """Start all, and wait until every replica has the data and the Sentinels could replace the master."""
        for server in self.servers:
            server.start()
        wait_until(lambda: _replicas_of(self.servers[0]) == len(self.servers) - 1)
        wait_until(lambda: all(_follows(server) for server in self.servers[1:]))
        for sentinel in self.sentinels:
            sentinel.start()
        wait_until(self._agreed)

    def _agreed(self) -> bool:
        for sentinel in self.sentinels:
            with sentinel.admin() as client:
                master = client.sentinel_master(SERVICE)
            known = (master["num-other-sentinels"], master["num-slaves"])
            if known != (len(self.sentinels) - 1, len(self.servers) - 1):
                return False
        return True

    @property
    def master(self) -> RedisServer:
        """The server that the Sentinels name."""
        return self._named(self.sentinels[0])

    def _named(self, sentinel: RedisServer) -> RedisServer:
        with sentinel.admin() as client:
            _, port = client.sentinel_get_master_addr_by_name(SERVICE)
        return next(server for server in self.servers if server.port == int(port))

    def replicas(self) -> list[RedisServer]:
        """Return the servers beside the master."""
        master = self.master
        return [server for server in self.servers if server is not master]

    def caught_up(self) -> bool:
        """Say whether every replica has what the master has."""
        with self.master.admin() as client:
            facts = client.info("replication")
        offset = facts["master_repl_offset"]
        return all(fact["offset"] >= offset for name, fact in facts.items() if name.startswith("slave"))

    def repair(self) -> None:
        """Let every server run; wait until all but the master have its data, and the Sentinels know them."""
        for server in self.servers:
            if server.running:
                server.thaw()
            else:
                server.start()
        wait_until(lambda: _replicas_of(self.master) == len(self.servers) - 1)
        wait_until(lambda: all(_follows(server) for server in self.replicas()))
        wait_until(self._agreed)

    def cut_replication(self) -> None:
        """Let the replicas get nothing more of what the master stores from now on."""
        with self.master.admin() as client:
            client.execute_command("ACL", "SETUSER", "default", "-psync", "-sync")
            client.execute_command("CLIENT", "KILL", "TYPE", "replica")

    def wait_for_another(self, before: RedisServer) -> RedisServer:
        """Wait until every Sentinel names another master than ``before``, and it takes writes."""
        wait_until(lambda: all(self._named(one) is not before for one in self.sentinels if one.running))
        wait_until(lambda: _is_master(self.master))
        return self.master

    def fail_over(self) -> RedisServer:
        """Let the Sentinels make a replica the master, as planned; return the new one."""
        before = self.master

        def asked() -> bool:
            with self.sentinels[0].admin() as client:
                try:
                    client.execute_command("SENTINEL FAILOVER", SERVICE)
                except redis.ResponseError:
                    return False  # it has just made one, or knows no good replica yet
            return True

        wait_until(asked)
        return self.wait_for_another(before)

    def close(self) -> None:
        """Stop all, and remove the data."""
        for server in [*self.sentinels, *self.servers]:
            server.close()


def _replicas_of(master: RedisServer) -> int:
    with master.admin() as client:
        facts = client.info("replication")
    return sum(1 for name, fact in facts.items() if name.startswith("slave") and fact["state"] == "online")


def _follows(server: RedisServer) -> bool:
    """Say whether a replica has loaded what it got: its master takes it for one before that."""
    with server.admin() as client:
        return client.info("replication").get("master_link_status") == "up"


def _is_master(server: RedisServer) -> bool:
    with server.admin() as client:
        return client.execute_command("ROLE")[0] == b"master"


@contextlib.contextmanager
def watched(
    path: Path, *, replicas: int = 1, sentinels: int = 3, config: Iterable[str] = ()
) -> Generator[SentinelSetup]:
    """Run a master, replicas and Sentinels inside the block."""
    setup = SentinelSetup(path, replicas=replicas, sentinels=sentinels, config=config)
    try:
        setup.start()
        yield setup
    finally:
        setup.close()


def shared(flavour: str, path: Path) -> SentinelSetup:
    """Return the session's servers of a flavour, whose master stays the master."""

    def start() -> SentinelSetup:
        setup = SentinelSetup(path, down_after_ms=UNWATCHED_MS, config=[least_privilege()])
        setup.start()
        return setup

    found = SHARED.get(SentinelSetup, flavour, start)
    assert found is not None
    return found
