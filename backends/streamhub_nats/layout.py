"""The JetStream streams of a namespace, and that they are what they must be.

What the server echoes is compared field by field. A server that does not know a field drops it without a word, and
someone may have made the stream, or changed it, by hand.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping
from typing import Any, cast

from streamhub.errors import BackendUnavailableError, ConfigError
from streamhub_nats.channel import Channel
from streamhub_nats.faults import STREAM_NOT_FOUND, TOO_FEW_SERVERS
from streamhub_nats.ledger import Ledger
from streamhub_nats.names import Names
from streamhub_nats.options import NatsOptions

OLDEST = (2, 11)

_FIRST_SEQUENCES = 2**31
_PAUSE_SECONDS = 0.05

_NAME_IN_USE = 10058

# What each must have; a field that the server leaves out counts as its zero.
_COMMON: dict[str, Any] = {
    "retention": "limits",
    "discard": "new",
    "max_age": 0,
    "max_msgs": -1,
    "max_msgs_per_subject": -1,
    "allow_direct": True,
    "allow_rollup_hdrs": True,
    "allow_msg_ttl": True,
    "deny_delete": False,
    "deny_purge": False,
    "sealed": False,
    "no_ack": False,
    "mirror": None,
    "sources": None,
    "subject_transform": None,
}


def check_version(channel: Channel) -> None:
    """Raise ``ConfigError`` if the server is too old."""
    version = channel.client.connected_server_version
    if (version.major, version.minor) < OLDEST:
        raise ConfigError(
            f"{channel.where} is nats-server {version.major}.{version.minor}.{version.patch}: use 2.11 or later."
            " Before, messages have no time-to-live of their own and batches cannot be read at once; before 2.10 a"
            " conditional write to a replicated stream is not atomic"
        )


def wanted(names: Names) -> dict[str, dict[str, Any]]:
    """Return what is wanted of each JetStream stream."""
    root = names.root
    own: dict[str, dict[str, Any]] = {
        names.streams: {
            "subjects": [f"{root}.s.*", f"{root}.d.*.*", names.lives],
            "republish": {"src": f"{root}.s.*", "dest": f"{root}.live.{{{{wildcard(1)}}}}"},
        },
        names.leases: {"subjects": [f"{root}.l.*"], "republish": None},
        names.cancels: {
            "subjects": [f"{root}.c.*.*"],
            "republish": {"src": f"{root}.c.*.*", "dest": f"{root}.asked.{{{{wildcard(1)}}}}.{{{{wildcard(2)}}}}"},
        },
    }
    return {name: _COMMON | fields for name, fields in own.items()}


async def prepare(ledger: Ledger, fields: Mapping[str, Any], options: NatsOptions, channel: Channel) -> None:
    """See that a JetStream stream exists and is as wanted; note how many replicas it has.

    Raises:
        ConfigError: it does not, and must not be created; or it is not as wanted.
        BackendUnavailableError: JetStream does not answer.
    """
    name = ledger.name
    found = await ledger.call(f"STREAM.INFO.{name}", {}, may_miss=(STREAM_NOT_FOUND,), channel=channel)
    if found is None and not options.create:
        raise ConfigError(f"{channel.where} has no JetStream stream {name!r}, and create=false: create it first")
    if found is None:
        found = await _made(ledger, fields, options, channel)
    _check(name, found["config"], fields, options)
    ledger.replicas = found["config"].get("num_replicas", 1)


async def _made(ledger: Ledger, fields: Mapping[str, Any], options: NatsOptions, channel: Channel) -> dict[str, Any]:
    """Create a JetStream stream, and return what is known of it.

    Another process may be quicker, perhaps with other options: a cluster shows what it has made once a majority has
    agreed to it. A cluster that has just been started may have too few servers at first.
    """
    name = ledger.name
    wish = {"name": name, **_creating(ledger, fields, options)}
    deadline = time.monotonic() + options.timeout_seconds
    while True:
        found = await ledger.call(
            f"STREAM.CREATE.{name}", wish, may_miss=(_NAME_IN_USE, TOO_FEW_SERVERS), channel=channel
        )
        if found is None:
            found = await ledger.call(f"STREAM.INFO.{name}", {}, may_miss=(STREAM_NOT_FOUND,), channel=channel)
        if found is not None:
            return found
        if time.monotonic() > deadline:
            raise BackendUnavailableError(
                f"{channel.where} has not made the JetStream stream {name!r} yet: it may have too few servers"
            )
        await asyncio.sleep(_PAUSE_SECONDS)


def _creating(ledger: Ledger, fields: Mapping[str, Any], options: NatsOptions) -> dict[str, Any]:
    wish = {field: value for field, value in fields.items() if value is not None}
    wish["storage"] = options.storage or "file"
    wish["num_replicas"] = options.replicas or 1
    # Sequence numbers are what writers are fenced by: those of a stream that was deleted must not come again when it is
    # made anew.
    wish["first_seq"] = 1 + secrets.randbelow(_FIRST_SEQUENCES)
    wish["max_bytes"] = options.storage_bytes or -1 if ledger.name.startswith("SH_") else -1
    return wish


def _check(name: str, config: Mapping[str, Any], fields: Mapping[str, Any], options: NatsOptions) -> None:
    needed: dict[str, Any] = dict(fields)
    chosen: dict[str, Any] = {"storage": options.storage, "num_replicas": options.replicas}
    needed.update({field: value for field, value in chosen.items() if value is not None})
    for field, value in needed.items():
        found = config.get(field)
        if _comparable(found) != _comparable(value):
            raise ConfigError(
                f"the JetStream stream {name!r} has {field}={found!r}, and streamhub needs {value!r}: correct it,"
                " choose another namespace, or give the option that says so"
            )


def _comparable(value: Any) -> Any:
    """Return what two equal settings have in common: no order of subjects, and nothing where there is a zero."""
    if isinstance(value, list):
        return sorted(cast("list[str]", value))
    if isinstance(value, dict):
        return {part: setting for part, setting in cast("dict[str, Any]", value).items() if setting}
    return value or None
