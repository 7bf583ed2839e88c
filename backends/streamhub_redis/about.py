"""What a server says of itself, in words."""

from __future__ import annotations

from collections.abc import Sequence

from streamhub_redis.node import Node
from streamhub_redis.options import RedisOptions
from streamhub_redis.preparing import information
from streamhub_redis.wire import elements

_UNKNOWN = "unknown (the user may not ask)"

_FSYNC = {
    "always": "an acknowledged append survives a power loss",
    "everysec": "a crash of the host may lose the last second or two of acknowledged appends",
    "no": "a crash of the host may lose what the operating system had not written yet",
}


async def describe_server(nodes: Sequence[Node], options: RedisOptions) -> dict[str, str]:
    """Describe the first of ``nodes``; the others are expected to be configured alike."""
    node = nodes[0]
    server = await information(node, b"server")
    replication = await information(node, b"replication")
    settings = {name: await _setting(node, name) for name in ("appendonly", "appendfsync", "save", "maxmemory-policy")}
    return {
        "version": _version(server),
        "nodes": str(len(nodes)),
        "role": _role(replication),
        "replicas": _replicas(replication, options),
        "durability": _durability(settings),
        "eviction": _eviction(settings["maxmemory-policy"]),
        "prefix": options.prefix,
    }


async def _setting(node: Node, name: str) -> str | None:
    found = elements(await node.command(b"CONFIG", b"GET", name.encode()))
    return found[1].decode() if found else None


def _version(server: dict[str, str]) -> str:
    if "valkey_version" in server:
        return f"Valkey {server['valkey_version']}"
    return f"Redis {server['redis_version']}" if "redis_version" in server else _UNKNOWN


def _role(replication: dict[str, str]) -> str:
    if replication.get("role") == "slave":
        return "replica: WARNING: it takes no writes; name its master"
    return replication.get("role", _UNKNOWN)


def _replicas(replication: dict[str, str], options: RedisOptions) -> str:
    connected = replication.get("connected_slaves", "an unknown number of")
    if not options.wait_replicas:
        return f"{connected} connected; a failover may lose acknowledged appends (wait_replicas=0)"
    return f"{connected} connected; {options.wait_replicas} confirm what is acknowledged"


def _durability(settings: dict[str, str | None]) -> str:
    appendonly, fsync, save = settings["appendonly"], settings["appendfsync"], settings["save"]
    if appendonly is None:
        return _UNKNOWN
    if appendonly == "yes":
        return f"appendonly, appendfsync {fsync}: {_FSYNC.get(fsync or '', 'unknown')}"
    if save:
        return "snapshots only: a restart goes back to the last one; acknowledged appends may be lost"
    return "none: a restart loses everything"


def _eviction(policy: str | None) -> str:
    if policy is None:
        return _UNKNOWN
    if policy == "noeviction":
        return "noeviction"
    return f"{policy}: WARNING: the server may drop streams, fences and leases when memory is short; use noeviction"
