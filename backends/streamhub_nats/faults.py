"""What can go wrong with a server, said in streamhub's errors.

* The connection breaks, nothing is answered in time, nobody answers (no leader, JetStream is off for now), or there is
  no room: ``BackendUnavailableError``. It may pass, so the core repeats the call for a while.
* The server will never allow it (permissions, credentials, a stream of another configuration): ``ConfigError``.
"""

from __future__ import annotations

from typing import Any

from nats.errors import AuthorizationError, Error

from streamhub.errors import BackendUnavailableError, ConfigError, StreamHubError

WRONG_LAST_SEQUENCE = 10071
WRITE_IN_PROGRESS = 10164
STREAM_NOT_FOUND = 10059
MESSAGE_NOT_FOUND = 10037
SEQUENCE_NOT_FOUND = 10043
TOO_FEW_SERVERS = 10005

_PASSING = {
    10002: "the account has reached its limits: raise them, or let streams live shorter",
    10003: "the cluster cannot be asked now",
    10004: "it is not able to now",
    TOO_FEW_SERVERS: "too few servers can hold the replicas",
    10008: "JetStream is not ready",
    10009: "it has no leader now",
    10023: "it has no room left: give it disk or memory, or let streams live shorter",
    10028: "it has no memory left: raise max_memory_store, or let streams live shorter",
    10047: "it has no disk left: raise max_file_store, or let streams live shorter",
    10059: "the JetStream stream is gone; it is looked for again",
    10074: "too few servers can hold the replicas",
    10077: "the JetStream stream is full: raise its max_bytes, or let streams live shorter",
    10118: "it has no leader now",
    10122: "the JetStream stream is full: raise its max_bytes, or let streams live shorter",
    10167: "it has too many requests",
}
_LASTING = {
    10035: "the account may not use JetStream: enable it",
    10039: "JetStream is not enabled for the account: enable it",
    10054: "a message is larger than the JetStream stream's max_msg_size: raise it",
    10060: "another JetStream stream has these subjects: choose another namespace",
    10065: "another JetStream stream has these subjects: choose another namespace",
    10076: "JetStream is not enabled: start nats-server with jetstream",
}


def refusal(where: str, error: dict[str, Any]) -> StreamHubError:
    """Convert an error that the JetStream API answered."""
    code, text = int(error.get("err_code", 0)), str(error.get("description", "no reason"))
    if code in _LASTING:
        return ConfigError(f"{where} refused ({text}): {_LASTING[code]}")
    if code in _PASSING:
        return BackendUnavailableError(f"{where} refused: {_PASSING[code]} ({text})")
    if int(error.get("code", 0)) == 503 or "maximum" in text or "insufficient" in text:
        return BackendUnavailableError(f"{where} refused: {text}")
    return StreamHubError(f"{where} refused: {text} ({code})")


def unavailable(where: str, exc: BaseException | None) -> BackendUnavailableError:
    """Convert an error of the connection."""
    said = "" if exc is None else str(exc).removeprefix("nats: ")
    slow = "it does not answer in time" if isinstance(exc, TimeoutError) else "the connection is closed"
    error = BackendUnavailableError(f"{where} is not available: {said or slow}")
    error.__cause__ = exc
    return error


def convert(where: str, exc: BaseException) -> StreamHubError:
    """Convert any error of connecting."""
    if isinstance(exc, StreamHubError):
        return exc
    said = str(exc).removeprefix("nats: ")
    if type(exc).__module__ == "nkeys":  # which need not be installed
        error = ConfigError(f"{where}: the credentials cannot be used: {said}")
        error.__cause__ = exc
        return error
    # A server that is too busy to read credentials has not refused them.
    refused = isinstance(exc, AuthorizationError) or ("auth" in said.lower() and "timeout" not in said.lower())
    if refused and isinstance(exc, Error):
        error = ConfigError(f"{where} refused the credentials ({said.lower()}): correct what the URL names")
        error.__cause__ = exc
        return error
    if isinstance(exc, (Error, OSError, EOFError, TimeoutError)):
        return unavailable(where, exc)
    error = StreamHubError(f"{where}: the backend failed: {exc!r}")
    error.__cause__ = exc
    return error


def forbidden(where: str, what: str) -> ConfigError:
    """Say which right the user lacks."""
    return ConfigError(f"{where} refused ({what}): give its user the permissions of docs/backends/nats.md")
