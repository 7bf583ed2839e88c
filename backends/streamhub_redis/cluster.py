"""A cluster: each request goes to the node that serves its slot, and follows the slot where it moves."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Sequence

from redis.exceptions import AskError, MovedError, RedisError, ResponseError

from streamhub.errors import BackendUnavailableError, ConfigError, HubClosedError, StreamHubError
from streamhub_redis.dialling import node_dialler
from streamhub_redis.faults import code_of, convert, refusal
from streamhub_redis.node import Lane, Node, Request
from streamhub_redis.options import RedisOptions
from streamhub_redis.pair import consume
from streamhub_redis.preparing import prepare
from streamhub_redis.server import Answer
from streamhub_redis.slots import Address, Slots, moved_to, read_ranges
from streamhub_redis.target import Target
from streamhub_redis.wire import Reply, Wire

# How often a call follows its slot, and how long it waits each time for one that is just being moved.
_ROUNDS = 6
_PAUSE_SECONDS = 0.02

_MOVING = {"MOVED", "ASK", "TRYAGAIN"}
_UNSETTLED = {"CLUSTERDOWN", "MASTERDOWN", "READONLY"}


class ClusterServer:
    """The masters of a cluster, found through some of its nodes."""

    # A pipeline reaches one node: a call with requests for many is as slow as the slowest, and fails as it does.
    groups_requests = False

    def __init__(self, target: Target, options: RedisOptions) -> None:
        self._target = target
        self._options = options
        self._where = target.where
        self._nodes: dict[Address, Node] = {}
        self._slots = Slots()
        self._away: set[Address] = set()
        self._outdated = True
        self._looking: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        """Find the nodes, see that they are fit, and load all scripts on those that can be reached."""
        for node in self._nodes.values():
            node.reopen()
        nodes = await self.masters()
        outcomes = await asyncio.gather(*(prepare(node, clustered=True) for node in nodes), return_exceptions=True)
        errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        lasting = [error for error in errors if not isinstance(error, BackendUnavailableError)]
        # A node that is away now gets its scripts when it is asked.
        if lasting or (errors and len(errors) == len(nodes)):
            raise (lasting or errors)[0]

    async def run(self, requests: Sequence[Request], *, lane: Lane, storing: bool = False) -> list[Answer]:
        """Run requests, one pipeline for each node, all at once."""
        if not requests:
            return []
        answers: list[Answer] = [None] * len(requests)
        places: list[int] = list(range(len(requests)))
        for number in range(_ROUNDS):
            await self._look()
            places = await self._round(requests, places, answers, lane=lane, storing=storing)
            if not places:
                break
            await asyncio.sleep(_PAUSE_SECONDS * number)
        return answers

    async def _round(
        self, requests: Sequence[Request], places: list[int], answers: list[Answer], *, lane: Lane, storing: bool
    ) -> list[int]:
        """Ask every node once, write down what is answered, and return the places of what has to be asked again."""
        groups: dict[Address, list[int]] = {}
        for place in places:
            owner = self._slots.owner(requests[place].route)
            if owner is None:
                self._outdated = True
                answers[place] = BackendUnavailableError(f"{self._where}: no node serves the slot of this key now")
            else:
                groups.setdefault(owner, []).append(place)
        again: list[int] = []

        async def ask(owner: Address, group: list[int]) -> None:
            replies = await self._ask(owner, [requests[place] for place in group], lane=lane, storing=storing)
            for place, reply in zip(group, replies, strict=True):
                if isinstance(reply, AskError) and not isinstance(reply, MovedError):
                    there = moved_to(reply, owner)
                    (reply,) = await self._ask(there, [requests[place]], lane=lane, storing=storing, asking=True)
                answers[place] = self._answer(owner, reply)
                if isinstance(reply, ResponseError) and code_of(reply) in _MOVING:
                    again.append(place)

        if len(groups) == 1:
            ((owner, group),) = groups.items()
            await ask(owner, group)
        else:
            await asyncio.gather(*(ask(owner, group) for owner, group in groups.items()))
        return again

    async def _ask(
        self, owner: Address, requests: Sequence[Request], *, lane: Lane, storing: bool, asking: bool = False
    ) -> list[Reply]:
        node = self._node(owner)
        try:
            replies = await node.run(requests, lane=lane, storing=storing, asking=asking)
        except BackendUnavailableError as exc:
            self._outdated = True
            self._away.add(owner)
            self._slots.forget(owner)
            # An error of its own for each: it is raised, and grows a traceback, in another task.
            return [_copy(exc) for _ in requests]
        self._away.discard(owner)
        return replies

    def _answer(self, owner: Address, reply: Reply) -> Answer:
        if not isinstance(reply, ResponseError):
            return reply
        if isinstance(reply, MovedError):
            # No reason to look: a map may know less than this.
            self._slots.move(reply.slot_id, moved_to(reply, owner))
        elif code_of(reply) in _UNSETTLED:
            self._outdated = True
        return refusal(self._where, reply)

    def _node(self, address: Address) -> Node:
        node = self._nodes.get(address)
        if node is None:
            dial = node_dialler(address.host, address.port, self._target, self._options)
            node = self._nodes[address] = Node(dial, self._options, where=f"redis node {address}")
        return node

    # --- the map

    async def _look(self) -> None:
        """Bring the map up to date, if there is reason to; calls of one moment share that."""
        if not self._outdated:
            return
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._update(), name="redis cluster map")
            self._looking.add_done_callback(consume)
        await asyncio.shield(self._looking)

    async def _update(self) -> None:
        errors: list[StreamHubError] = []
        for address in self._known():
            try:
                reply = await self._node(address).command(b"CLUSTER", b"SLOTS")
            except HubClosedError:
                raise
            except StreamHubError as exc:
                self._away.add(address)
                errors.append(exc)
                continue
            ranges = read_ranges(reply, address)
            if ranges:
                self._slots.replace(ranges)
                self._outdated = False
                return
            errors.append(self._unmapped(address, reply))
        lasting = [error for error in errors if not isinstance(error, BackendUnavailableError)]
        raise (lasting or errors)[0]

    def _unmapped(self, address: Address, reply: Reply) -> StreamHubError:
        if not isinstance(reply, ResponseError):
            return BackendUnavailableError(f"{self._where}: node {address} knows of no slots")
        if "cluster support disabled" in str(reply):
            return ConfigError(f"{address} is not a node of a cluster: use redis://")
        return refusal(f"redis node {address}", reply)

    def _known(self) -> Iterable[Address]:
        masters, given = self._slots.owners(), [Address(*host) for host in self._target.hosts]
        random.shuffle(masters)
        random.shuffle(given)
        # Those that did not answer are asked last.
        return sorted(dict.fromkeys([*masters, *given]), key=self._away.__contains__)

    async def masters(self) -> Sequence[Node]:
        """Return the nodes that serve slots."""
        # Calls follow the slots they meet: a node may have come that none of them met.
        self._outdated = True
        await self._look()
        return [self._node(address) for address in self._slots.owners()]

    async def listener(self) -> Wire:
        """Connect to any master: what is published at one reaches all."""
        errors: list[Exception] = []
        for address in self._known():
            try:
                return await self._node(address).listener()
            except (RedisError, OSError) as exc:
                errors.append(exc)
        raise convert(self._where, errors[0])

    async def aclose(self) -> None:
        """Close the connections."""
        for node in self._nodes.values():
            await node.aclose()
        if self._looking is not None and not self._looking.done():
            # It has ended, as all calls on a closed node do. Cancelled, it would cancel those who wait for it.
            await asyncio.wait([self._looking])


def _copy(error: BackendUnavailableError) -> BackendUnavailableError:
    copy = BackendUnavailableError(*error.args)
    copy.__cause__ = error.__cause__
    return copy
