"""What is found out about a server, and done to it, before it is used."""

from __future__ import annotations

from redis.exceptions import ResponseError

from streamhub.errors import ConfigError
from streamhub_redis.faults import refusal
from streamhub_redis.node import Node
from streamhub_redis.scripts import ALL_SCRIPTS
from streamhub_redis.wire import Reply

_OLDEST = (6, 2)


async def prepare(node: Node, *, clustered: bool) -> None:
    """See that a server is fit, and load all scripts.

    Raises:
        ConfigError: it is too old, a Sentinel, or a cluster's node where none is expected; or its user lacks rights.
        BackendUnavailableError: it cannot be reached.
    """
    facts = await information(node, b"server")
    version = facts.get("redis_version", "")
    numbers = version.split(".")[:2]
    if all(number.isdecimal() for number in numbers) and version and tuple(map(int, numbers)) < _OLDEST:
        raise ConfigError(f"{node.where} is of version {version}: use Redis 6.2 or later, or Valkey")
    mode = facts.get("redis_mode") or facts.get("server_mode")
    if mode == "cluster" and not clustered:
        raise ConfigError(f"{node.where} is a node of a cluster: use redis+cluster://")
    if mode == "sentinel":
        raise ConfigError(f"{node.where} is a Sentinel: use redis+sentinel://host:port/service")
    for reply in await node.load(ALL_SCRIPTS):
        if isinstance(reply, ResponseError):
            raise refusal(node.where, reply)


async def information(node: Node, section: bytes) -> dict[str, str]:
    """Return a section of INFO; empty if the user may not ask."""
    return parse_information(await node.command(b"INFO", section))


def parse_information(reply: Reply) -> dict[str, str]:
    """Read the reply to INFO; empty if it was refused."""
    if not isinstance(reply, bytes):
        return {}
    lines = (line.partition(":") for line in reply.decode("utf-8", "replace").splitlines())
    return {name: value for name, colon, value in lines if colon}
