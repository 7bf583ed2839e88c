"""One JetStream stream: its JSON API, called directly."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from functools import partial
from typing import Any, NamedTuple, Protocol

from nats.aio.msg import Msg

from streamhub.errors import BackendUnavailableError
from streamhub_nats.channel import Call, Channel
from streamhub_nats.faults import (
    MESSAGE_NOT_FOUND,
    SEQUENCE_NOT_FOUND,
    STREAM_NOT_FOUND,
    WRITE_IN_PROGRESS,
    WRONG_LAST_SEQUENCE,
    refusal,
)
from streamhub_nats.flow import Flow
from streamhub_nats.recent import Recent
from streamhub_nats.stamps import nanoseconds

_STATUS = "Status"
_EXPECTED_LAST = "Nats-Expected-Last-Subject-Sequence"
_DECODE = json.JSONDecoder().raw_decode
# To make the same stream again is harmless; a cluster that has just found a leader may never answer the first question.
_HARMLESS = ("STREAM.INFO.", "STREAM.MSG.GET.", "STREAM.CREATE.")
_FIRST_PAUSE_SECONDS = 0.002
_LONGEST_PAUSE_SECONDS = 0.05
_SEEN = 4096
# A leader that is cut off from the others believes for ten seconds that it still leads.
_BELIEF_SECONDS = 20.0

HEADER_BYTES = 512
"""What a message has besides its subject and its data, at most."""


class Message(NamedTuple):
    """What is stored under a subject."""

    subject: str
    sequence: int
    time_ns: int
    data: bytes


class OvertakenError(Exception):
    """The last message of a subject is not the expected one; nothing was written."""


class Connection(Protocol):
    """Gives the connection for calls."""

    @property
    def api(self) -> str:
        """What subjects of the JetStream API begin with."""
        ...

    @property
    def timeout_seconds(self) -> float:
        """How long a call may take."""
        ...

    @property
    def ready(self) -> Channel | None:
        """The connection that ``channel`` returns, if it need not wait for it."""
        ...

    async def channel(self) -> Channel:
        """Return a connection to a server that has been looked at, making it if there is none."""
        ...

    def doubt(self) -> None:
        """Look at the server again before the next call: a JetStream stream seems to be gone."""
        ...


class Ledger:
    """A JetStream stream, by its name. Reads see every write that was acknowledged before they began.

    With one replica, direct gets are answered by the one server that has it. With more, any of them answers those, so
    what must be the newest is asked of the leader. While the servers cannot reach each other, and for a moment
    afterwards, that may be answered by one that leads no more, and has less: what this process has seen does not go
    away by that.
    """

    def __init__(self, connection: Connection, name: str) -> None:
        self.name = name
        self.replicas = 1
        self._connection = connection
        self._flow = Flow()
        self._seen: Recent[str, int] = Recent(_SEEN)  # the newest sequence number of a subject, as far as known here
        self._newest = 0  # of all subjects
        self._doubted: Recent[str, float] = Recent(_SEEN)  # since when less than that has been answered

    def saw(self, subject: str, sequence: int) -> None:
        """Note that a message of a subject has been stored."""
        if self.replicas > 1 and sequence > (self._seen.get(subject) or 0):
            self._seen.put(subject, sequence)
            self._newest = max(self._newest, sequence)

    async def last(self, subject: str) -> Message | None:
        """Return the newest message of a subject.

        Raises:
            BackendUnavailableError: whoever answers has less than this process has seen.
        """
        seen = self._seen.get(subject) or 0
        message = await self._last(subject)
        if seen > (0 if message is None else message.sequence):
            await self._check_complete(subject)
            message = await self._last(subject)
            if self._seen.get(subject) == seen:
                self._seen.drop(subject)  # if it is still away, it has been removed
        self._doubted.drop(subject)
        if message is not None:
            self.saw(subject, message.sequence)
        return message

    async def _last(self, subject: str) -> Message | None:
        return await self._get({"last_by_subj": subject}, newest=True)

    async def _check_complete(self, subject: str) -> None:
        """Raise ``BackendUnavailableError`` if whoever answers for the leader has not all that this process has seen.

        If that lasts for longer than anybody can take himself for the leader, the store has gone back.
        """
        found = await self.information()
        if found is not None and found["state"]["last_seq"] >= self._newest:
            return
        now = time.monotonic()
        since = self._doubted.get(subject) or now
        self._doubted.put(subject, since)
        if now - since < _BELIEF_SECONDS:
            raise BackendUnavailableError(f"the server that answers for {self.name} has less than was read before")
        self._seen, self._newest = Recent(_SEEN), 0

    async def at(self, sequence: int) -> Message | None:
        """Return the message of a sequence number; None if it is not there."""
        return await self._get({"seq": sequence}, newest=False)

    async def next(self, sequence: int, subject: str) -> Message | None:
        """Return the first message of a subject from a sequence number on, as the leader has it."""
        return await self._get({"seq": sequence, "next_by_subj": subject}, newest=True)

    async def _get(self, query: dict[str, Any], *, newest: bool) -> Message | None:
        async with self._flow.room():
            if self.replicas > 1:
                found = (None if newest else await self._get_direct(query)) or await self._get_from_leader(query)
            else:
                found = await self._get_direct(query)
        if found is not None:
            self._flow.saw(len(found.data))
        return found

    async def _get_direct(self, query: dict[str, Any]) -> Message | None:
        channel = await self._connection.channel()
        (answer,) = await channel.ask(f"{self._connection.api}.DIRECT.GET.{self.name}", json.dumps(query).encode())
        return self._message(channel, answer)

    async def _get_from_leader(self, query: dict[str, Any]) -> Message | None:
        answer = await self.call(f"STREAM.MSG.GET.{self.name}", query, may_miss=(MESSAGE_NOT_FOUND,))
        if answer is None:
            return None
        found = answer["message"]
        data = base64.b64decode(found.get("data", ""))
        return Message(found["subject"], found["seq"], nanoseconds(found["time"]), data)

    async def run(self, sequence: int, subject: str, *, count: int, max_bytes: int) -> list[Message]:
        """Return messages of a subject from a sequence number on, one at least if there is one.

        They may be fewer than there are: a replica that is behind may have answered, or the link is slow.
        """
        async with self._flow.room(max_bytes) as room:
            channel = await self._connection.channel()
            query = {"seq": sequence, "next_by_subj": subject, "batch": count, "max_bytes": room.most_bytes}
            answers = await channel.ask(
                f"{self._connection.api}.DIRECT.GET.{self.name}",
                json.dumps(query).encode(),
                is_last=lambda message: bool(message.headers and _STATUS in message.headers),
            )
        found = [message for answer in answers if (message := self._message(channel, answer)) is not None]
        self._flow.saw(max((len(message.data) for message in found), default=0))
        return found

    def _message(self, channel: Channel, answer: Msg) -> Message | None:
        headers = answer.headers or {}
        status = headers.get(_STATUS)
        if status is not None:
            if status == "503":
                self._connection.doubt()
            if status in ("204", "404"):
                return None
            raise BackendUnavailableError(f"{channel.where}: {self.name} does not answer now ({status})")
        return Message(
            headers["Nats-Subject"], int(headers["Nats-Sequence"]), nanoseconds(headers["Nats-Time-Stamp"]), answer.data
        )

    async def write(
        self, subject: str, data: bytes, *, after: int, alone: bool = False, ttl_seconds: float | None = None
    ) -> int:
        """Write a message if the last one of its subject has sequence number ``after`` (0: there is none).

        Args:
            subject: of the message.
            data: its contents.
            after: what it must follow.
            alone: remove all others of the subject in the same step.
            ttl_seconds: after so long, in whole seconds, the server removes it.

        Returns:
            Its sequence number.

        Raises:
            OvertakenError: another message came first; or this very one did, in an attempt whose answer was lost.
        """
        headers = {_EXPECTED_LAST: str(after), "Nats-Expected-Stream": self.name}
        if alone:
            headers["Nats-Rollup"] = "sub"
        if ttl_seconds is not None:
            headers["Nats-TTL"] = f"{max(1, math.ceil(ttl_seconds))}s"
        deadline = time.monotonic() + self._connection.timeout_seconds
        pause = _FIRST_PAUSE_SECONDS
        while True:
            channel = await self._connection.channel()
            sequence = await self.written(channel, subject, channel.begin(subject, data, headers))
            if sequence:
                return sequence
            if time.monotonic() > deadline:
                raise BackendUnavailableError(
                    f"{self._where(channel)} has too few replicas to decide about an earlier write"
                )
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def begin(self, subject: str, data: bytes, *, after: int) -> Callable[[], Awaitable[int]] | None:
        """Write at once, and return ``written``; None if there is no connection, or it does not take so much."""
        channel = self._connection.ready
        if channel is None or len(subject) + HEADER_BYTES + len(data) > channel.client.max_payload:
            return None
        # Every subscriber reads each header again. Whether this is the JetStream stream meant, the answer says as well.
        headers = {_EXPECTED_LAST: str(after)}
        return partial(self.written, channel, subject, channel.begin(subject, data, headers))

    async def written(self, channel: Channel, subject: str, call: Call) -> int:
        """Return the sequence number of what was begun to be written, or raise as ``write`` does.

        It is 0 if nothing was written, and nothing decided: replicas have not decided yet about an earlier write.
        """
        answer = self._answer(channel, *await channel.answers(call))
        error = answer.get("error")
        if error is None:
            if answer["stream"] != self.name:
                self._connection.doubt()
                raise BackendUnavailableError(f"{self._where(channel)} is gone: {answer['stream']} has its subjects")
            self.saw(subject, int(answer["seq"]))
            return int(answer["seq"])
        code = error.get("err_code")
        if code == WRONG_LAST_SEQUENCE:
            raise OvertakenError
        if code == WRITE_IN_PROGRESS:
            return 0
        raise refusal(self._where(channel), error)

    async def put(self, subject: str, data: bytes, *, ttl_seconds: float | None = None) -> int:
        """Write a message in the place of all others of its subject."""
        headers = {"Nats-Rollup": "sub", "Nats-Expected-Stream": self.name}
        if ttl_seconds is not None:
            headers["Nats-TTL"] = f"{max(1, math.ceil(ttl_seconds))}s"
        channel = await self._connection.channel()
        answer = self._answer(channel, *await channel.ask(subject, data, headers))
        if "error" in answer:
            raise refusal(self._where(channel), answer["error"])
        return int(answer["seq"])

    def _answer(self, channel: Channel, answer: Msg) -> dict[str, Any]:
        if answer.headers and answer.headers.get(_STATUS) == "503":
            self._connection.doubt()
            raise BackendUnavailableError(f"{self._where(channel)} takes no messages now: it has no leader, or is gone")
        return _DECODE(answer.data.decode())[0]

    async def erase(self, sequence: int) -> None:
        """Remove a message; harmless when it is gone."""
        query = {"seq": sequence, "no_erase": True}
        await self.call(f"STREAM.MSG.DELETE.{self.name}", query, may_miss=(SEQUENCE_NOT_FOUND,))

    async def information(self) -> dict[str, Any] | None:
        """Return what the server says of it; None if it does not exist."""
        return await self.call(f"STREAM.INFO.{self.name}", {}, may_miss=(STREAM_NOT_FOUND,))

    async def subjects(self, pattern: str) -> AsyncIterator[str]:
        """Yield the subjects that have messages."""
        offset, total = 0, 1
        while offset < total:
            query = {"subjects_filter": pattern, "offset": offset}
            answer = await self.call(f"STREAM.INFO.{self.name}", query)
            assert answer is not None  # noqa: S101 - nothing may miss
            found: dict[str, int] = answer["state"].get("subjects") or {}
            for subject in found:
                yield subject
            total = answer.get("total", 0)
            if not found:
                return
            offset += len(found)

    async def call(
        self, endpoint: str, query: dict[str, Any], *, may_miss: Collection[int] = (), channel: Channel | None = None
    ) -> dict[str, Any] | None:
        """Call the JetStream API; None for an error that ``may_miss`` names."""
        channel = channel or await self._connection.channel()
        question = f"{self._connection.api}.{endpoint}", json.dumps(query).encode()
        (answer,) = await channel.ask(*question, repeat=endpoint.startswith(_HARMLESS))
        if answer.headers and answer.headers.get(_STATUS) == "503":
            raise BackendUnavailableError(
                f"{channel.where}: nobody answers for JetStream: it is not enabled, or has no leader now"
            )
        found: dict[str, Any] = json.loads(answer.data)
        error = found.get("error")
        if error is None:
            return found
        code = error.get("err_code")
        if code in may_miss:
            return None
        if code == STREAM_NOT_FOUND:
            self._connection.doubt()
        raise refusal(self._where(channel), error)

    def _where(self, channel: Channel) -> str:
        return f"{channel.where}, {self.name},"
