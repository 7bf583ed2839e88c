"""A cluster of masters on ports of the loopback interface, whose slots can be moved."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path

from ports import free_port
from redis.crc import key_slot
from redis_servers import SHARED, RedisServer, least_privilege, wait_until

SLOTS = 16384

BUS_OFFSET = 10_000  # where a node's cluster bus listens, beside its port


class Cluster:
    """Masters that share the slots evenly, and replicas that follow them in turn."""

    def __init__(
        self,
        path: Path,
        *,
        masters: int = 3,
        replicas: int = 0,
        config: Iterable[str] = (),
        ways: Sequence[tuple[int, int]] = (),
    ) -> None:
        """Prepare.

        Args:
            path: of the binary.
            masters: how many.
            replicas: how many.
            config: lines for every node.
            ways: for each node its port, and the port at which the others reach its cluster bus.
        """
        lines = ("cluster-enabled yes", "cluster-node-timeout 5000", "cluster-config-file nodes.conf", *config)
        if not ways:
            ways = [(port, port + BUS_OFFSET) for port in (free_port() for _ in range(masters + replicas))]
        self.nodes = [
            RedisServer(path, config=[*lines, f"cluster-announce-bus-port {bus}"], port=port) for port, bus in ways
        ]
        self.masters, self.replicas = self.nodes[:masters], self.nodes[masters:]
        self._buses = dict(ways)

    @property
    def hosts(self) -> str:
        """Where the nodes are, as a URL has it."""
        return ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    @property
    def url(self) -> str:
        """What the backend is given."""
        return f"redis+cluster://{self.hosts}"

    @property
    def least_url(self) -> str:
        """The same as the user of ``least_privilege``, where the nodes know it."""
        return f"redis+cluster://streamhub:s3cret@{self.hosts}"

    def start(self) -> None:
        """Start all, give out the slots, and wait until every node knows of all, and every replica has its data."""
        for node in self.nodes:
            node.start()
        for number, node in enumerate(self.masters):
            first = SLOTS * number // len(self.masters)
            last = SLOTS * (number + 1) // len(self.masters) - 1
            with node.admin() as client:
                client.execute_command("CLUSTER ADDSLOTS", *range(first, last + 1))
                client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
        for number, node in enumerate(self.nodes):
            with node.admin() as client:
                for other in self.nodes[:number]:
                    client.execute_command("CLUSTER MEET", "127.0.0.1", other.port, self._buses[other.port])
        wait_until(self.complete)
        for number, node in enumerate(self.replicas):
            master = self.identity(self.masters[number % len(self.masters)])
            with node.admin() as client:
                client.execute_command("CLUSTER REPLICATE", master)
        wait_until(lambda: all(_follows(node) for node in self.replicas))
        wait_until(lambda: all(self._knows_replicas(node) for node in self.nodes))

    def stop(self) -> None:
        """Stop all nodes; their data stays."""
        for node in self.nodes:
            node.stop()

    def restart(self) -> None:
        """Start all again, and wait until they serve."""
        for node in self.nodes:
            node.start()
        wait_until(self.complete)

    def complete(self) -> bool:
        """Say whether every node knows of all, and that every slot is served."""
        for node in self.nodes:
            facts = self._info(node)
            known = (facts["cluster_state"], facts["cluster_slots_ok"], facts["cluster_known_nodes"])
            if known != ("ok", str(SLOTS), str(len(self.nodes))):
                return False
        return True

    def _knows_replicas(self, node: RedisServer) -> bool:
        with node.admin(decode_responses=True) as client:
            known = client.execute_command("CLUSTER NODES").values()
        return sum("slave" in facts["flags"] for facts in known) == len(self.replicas)

    @staticmethod
    def _info(node: RedisServer) -> dict[str, str]:
        with node.admin(decode_responses=True) as client:
            reply = client.execute_command("CLUSTER INFO")
        if isinstance(reply, dict):
            return reply
        return dict(line.split(":", 1) for line in str(reply).split())

    @staticmethod
    def identity(node: RedisServer) -> str:
        """Return a node's name."""
        with node.admin(decode_responses=True) as client:
            return str(client.execute_command("CLUSTER MYID"))

    def owner(self, slot: int) -> RedisServer:
        """Return the node that says of itself that it owns a slot, once there is one."""
        wait_until(lambda: self._owner(slot) is not None)
        owner = self._owner(slot)
        assert owner is not None
        return owner

    def _owner(self, slot: int) -> RedisServer | None:
        for node in self.nodes:
            if not node.running:
                continue
            with node.admin(decode_responses=True) as client:
                for span in client.execute_command("CLUSTER SLOTS"):
                    if span[0] <= slot <= span[1] and int(span[2][1]) == node.port:
                        return node
        return None

    def agreed(self, slot: int, owner: RedisServer, identity: str) -> bool:
        """Say whether every node knows who owns a slot, and since which epoch: no old news can undo it any more."""
        epochs: set[str] = set()
        for node in self.nodes:
            with node.admin(decode_responses=True) as client:
                spans = client.execute_command("CLUSTER SLOTS")
                known = client.execute_command("CLUSTER NODES")
            epochs |= {str(facts["epoch"]) for facts in known.values() if facts["node_id"] == identity}
            if not any(span[0] <= slot <= span[1] and int(span[2][1]) == owner.port for span in spans):
                return False
        return len(epochs) == 1

    def migration(self, name: bytes) -> Migration:
        """Return a move of the slot of a key's name to another node, not begun yet."""
        slot = key_slot(name)
        source = self.owner(slot)
        target = next(node for node in self.masters if node is not source)
        return Migration(self, slot, source, target)

    def close(self) -> None:
        """Stop all, and remove the data."""
        for node in self.nodes:
            node.close()


def _follows(node: RedisServer) -> bool:
    with node.admin() as client:
        facts = client.info("replication")
    return facts["role"] == "slave" and facts["master_link_status"] == "up"


class Migration:
    """One slot's move from a node to another, in the steps of ``redis-cli --cluster reshard``."""

    def __init__(self, cluster: Cluster, slot: int, source: RedisServer, target: RedisServer) -> None:
        self._cluster = cluster
        self.slot, self.source, self.target = slot, source, target

    def begin(self) -> None:
        """Let the source answer ASK for keys that it does not have, and the target take them when asked so."""
        with self.target.admin() as target, self.source.admin() as source:
            importing, leaving = self._cluster.identity(self.source), self._cluster.identity(self.target)
            target.execute_command("CLUSTER SETSLOT", self.slot, "IMPORTING", importing)
            source.execute_command("CLUSTER SETSLOT", self.slot, "MIGRATING", leaving)

    def keys(self) -> list[bytes]:
        """Return the keys of the slot that the source still has."""
        with self.source.admin() as source:
            found = source.execute_command("CLUSTER GETKEYSINSLOT", self.slot, 1000)
        # The client decodes them, unasked.
        return sorted(name.encode() if isinstance(name, str) else name for name in found)

    def move(self, *keys: bytes) -> None:
        """Move keys, together."""
        with self.source.admin() as source:
            source.execute_command("MIGRATE", "127.0.0.1", self.target.port, "", 0, 5000, "KEYS", *keys)

    def hand_over(self) -> None:
        """Give the slot to the target; the other nodes learn it in time."""
        name = self._cluster.identity(self.target)
        for node in (self.target, self.source):
            with node.admin() as client:
                client.execute_command("CLUSTER SETSLOT", self.slot, "NODE", name)

    def finish(self) -> None:
        """Give the slot to the target, and wait until every node knows."""
        self.hand_over()
        name = self._cluster.identity(self.target)
        for node in self._cluster.masters:
            with node.admin() as client:
                client.execute_command("CLUSTER SETSLOT", self.slot, "NODE", name)
        wait_until(lambda: self._cluster.agreed(self.slot, self.target, name))

    def run(self) -> None:
        """Make the whole move."""
        self.begin()
        while keys := self.keys():
            self.move(*keys)
        self.finish()


@contextlib.contextmanager
def clustered(path: Path, *, masters: int = 3, replicas: int = 0, config: Iterable[str] = ()) -> Generator[Cluster]:
    """Run a cluster inside the block."""
    cluster = Cluster(path, masters=masters, replicas=replicas, config=config)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


def shared(flavour: str, path: Path) -> Cluster:
    """Return the session's cluster of a flavour, of three masters, to which tests may do anything."""

    def start() -> Cluster:
        cluster = Cluster(path, config=["appendonly yes", least_privilege()])
        cluster.start()
        return cluster

    found = SHARED.get(Cluster, flavour, start)
    assert found is not None
    return found
