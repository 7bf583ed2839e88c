"""What a server says of itself, in words."""

from __future__ import annotations

from typing import Any

from streamhub_nats.channel import Channel
from streamhub_nats.ledger import Ledger
from streamhub_nats.options import NatsOptions


async def describe_server(channel: Channel, ledger: Ledger, options: NatsOptions) -> dict[str, str]:
    """Describe a server and the JetStream stream of a namespace."""
    version = channel.client.connected_server_version
    found = await ledger.information() or {}
    config: dict[str, Any] = found.get("config", {})
    state: dict[str, Any] = found.get("state", {})
    cluster: dict[str, Any] = found.get("cluster") or {}
    replicas = config.get("num_replicas", 1)
    return {
        "version": f"nats-server {version.major}.{version.minor}.{version.patch}",
        "cluster": str(cluster.get("name") or "none: a single server"),
        "replicas": str(replicas),
        "durability": _durability(config.get("storage", "file"), replicas),
        "messages": f"{state.get('messages', 0)} of {state.get('bytes', 0)} bytes",
        "limits": f"max_payload {channel.client.max_payload} bytes, max_bytes {_limit(config.get('max_bytes', -1))}",
        "namespace": options.namespace,
    }


def _limit(value: int) -> str:
    return "not set" if value < 0 else str(value)


def _durability(storage: str, replicas: int) -> str:
    if storage == "memory":
        return "memory: " + (
            "lost when a majority of the servers end" if replicas > 1 else "lost when the server's process ends"
        )
    if replicas > 1:
        return (
            f"file on {replicas} servers: an acknowledged append is in the memory or on the disk of a majority, and"
            " survives the death of any one; what a power loss at several takes depends on sync_interval"
        )
    return (
        "file: an acknowledged append survives the death of the server's process; a power loss takes what came within"
        " sync_interval (2 minutes unless it says otherwise)"
    )
