"""The options of ``streamhub serve``. Each is also a variable, ``STREAMHUB_SERVE_<OPTION>``; the command line wins."""

from __future__ import annotations

import difflib
import importlib
import ipaddress
import os
import re
import ssl
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

from streamhub.errors import ConfigError
from streamhub.inputs import MAX_SECONDS, check_token

PORT = 4437
"""The port that the protocol's specification proposes."""

PREFIX = "STREAMHUB_SERVE_"

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"", "0", "false", "no", "off"})


_NUMBER = re.compile("[0-9]{1,16}")


def _port(text: str) -> int:
    if not _NUMBER.fullmatch(text) or int(text) > 65535:
        raise ArgumentTypeError(f"{text!r} is not a port: use a number up to 65535")
    return int(text)


def _count(text: str) -> int:
    if not _NUMBER.fullmatch(text) or not 0 < int(text) < 2**53:
        raise ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= MAX_SECONDS:
        raise ArgumentTypeError(f"{text!r} is not a number of seconds above 0, up to 100 years")
    return value


def _token(text: str) -> str:
    try:
        return check_token(text)
    except ConfigError as exc:
        raise ArgumentTypeError(str(exc)) from exc


@dataclass(frozen=True, slots=True)
class Option:
    """An option; ``kind`` says whether it may be repeated, or has no value."""

    name: str
    metavar: str
    text: str
    convert: Callable[[str], Any] = str
    default: Any = None
    kind: Literal["one", "many", "switch"] = "one"

    @property
    def variable(self) -> str:
        """The variable in which it may be given instead."""
        return "STREAMHUB_TOKEN" if self.name == "token" else PREFIX + self.field.upper()

    @property
    def field(self) -> str:
        """Its name as an attribute."""
        return self.name.replace("-", "_")

    def add(self, parser: Any) -> None:
        """Add it to a parser, or to a group of one."""
        if self.kind == "switch":
            parser.add_argument(f"--{self.name}", action="store_const", const=True, help=self.text)
            return
        action = "append" if self.kind == "many" else "store"
        help_text = self.text if self.default is None else f"{self.text}; default: {self.default}"
        parser.add_argument(f"--{self.name}", action=action, metavar=self.metavar, type=self.convert, help=help_text)

    def value(self) -> Any:
        """Return what its variable says, or its default; ``ArgumentTypeError``, which names it, if that is bad."""
        text = os.environ.get(self.variable)
        if self.kind == "switch":
            return text is not None and self._truth(text)
        try:
            if self.kind == "many":
                return [] if text is None else [self.convert(each.strip()) for each in text.split(",")]
            return self.default if text is None else self.convert(text)
        except ArgumentTypeError as exc:
            raise ArgumentTypeError(f"{self.variable}: {exc}") from exc

    def _truth(self, text: str) -> bool:
        if text.lower() not in _TRUE | _FALSE:
            raise ArgumentTypeError(f"{self.variable}: {text!r} is neither true nor false")
        return text.lower() in _TRUE


OPTIONS: dict[str, tuple[Option, ...]] = {
    "where": (
        Option("host", "HOST", "the address to listen on", default="127.0.0.1"),
        Option("port", "PORT", "0 takes any free one", _port, default=PORT),
        Option("prefix", "PATH", "what the streams' paths begin with", default="/v1/stream/"),
        Option("tls-cert", "FILE", "serve HTTPS with this certificate, and its chain (PEM)", Path),
        Option("tls-key", "FILE", "the certificate's key (PEM), not encrypted", Path),
    ),
    "who may use it": (
        Option(
            "token", "TOKEN", "a request must bear this token; more visible than STREAMHUB_TOKEN", _token, kind="many"
        ),
        Option("token-file", "FILE", "or one of those in this file, one on each line", Path),
        Option("authorize", "MODULE:NAME", "a function (request, key, action) that must return True"),
        Option("open", "", "let everybody do everything", kind="switch"),
        Option("cors-origin", "ORIGIN", "let its pages use the streams; * for all; may be repeated", kind="many"),
    ),
    "limits": (
        Option("max-body", "BYTES", "size limit of a request's body", _count, default=8 * 1024 * 1024),
        Option("max-streams", "COUNT", "create no stream when the backend holds so many", _count),
        Option("long-poll-seconds", "SECONDS", "how long a long-poll waits", _seconds, default=20.0),
        Option("sse-seconds", "SECONDS", "how long an event stream stays open", _seconds, default=60.0),
        Option(
            "keep",
            "SECONDS",
            "life of an open stream after its last append, if it has no TTL; default: for ever",
            _seconds,
        ),
        Option("keep-closed", "SECONDS", "life of a closed stream, if it has no TTL; default: for ever", _seconds),
    ),
    "watching it": (
        Option("access-log", "", "write a line of JSON for each request to standard output", kind="switch"),
        Option("metrics", "", "answer Prometheus at /metrics", kind="switch"),
    ),
}


def every_option() -> list[Option]:
    """Return all options."""
    return [option for group in OPTIONS.values() for option in group]


def add_options(parser: ArgumentParser) -> None:
    """Add the options to a parser."""
    for title, options in OPTIONS.items():
        group = parser.add_argument_group(title)
        for option in options:
            option.add(group)


def complete(parser: ArgumentParser, args: Namespace) -> None:
    """Put the variables in the place of what is not given; exit with status 2 where something does not fit."""
    try:
        _refuse_misspelt()
        for option in every_option():
            if getattr(args, option.field) is None:
                setattr(args, option.field, option.value())
        args.token += _tokens_in(args.token_file)
        _check_access(args)
        _check_tls(args.tls_cert, args.tls_key)
        args.authorize = None if args.authorize is None else _function(args.authorize)
    except ArgumentTypeError as exc:
        parser.error(str(exc))


def _refuse_misspelt() -> None:
    known = {option.variable: option.variable for option in every_option()}
    meant = {**known, f"{PREFIX}TOKEN": known["STREAMHUB_TOKEN"]}  # who wants a token must not be told to do without
    for name in sorted(os.environ):
        if name.startswith((PREFIX, "STREAMHUB_TOK")) and name not in known:
            for near in difflib.get_close_matches(name, meant, n=1, cutoff=0.9):
                raise ArgumentTypeError(f"unknown variable {name}; did you mean {meant[near]}?")


def _tokens_in(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        lines = [line.strip() for line in path.read_text().splitlines()]
    except (OSError, ValueError) as exc:
        raise ArgumentTypeError(f"--token-file {str(path)!r}: {_reason(exc)}") from exc
    tokens: list[str] = []
    for number, line in enumerate(lines, 1):
        try:
            tokens += [_token(line)] if line and not line.startswith("#") else []
        except ArgumentTypeError as exc:
            raise ArgumentTypeError(f"--token-file {str(path)!r}, line {number}: {exc}") from exc
    if not tokens:
        raise ArgumentTypeError(f"--token-file {str(path)!r}: no token is in it")
    return tokens


def _reason(exc: Exception) -> str:
    return str(exc.strerror).lower() if isinstance(exc, OSError) and exc.strerror else "not text"


def _check_access(args: Namespace) -> None:
    guarded = bool(args.token) or args.authorize is not None
    if args.open and guarded:
        raise ArgumentTypeError("--open lets everybody in: give either it, or tokens and --authorize")
    local = args.host == "localhost" or _is_loopback(args.host)
    if not (local or guarded or args.open):
        raise ArgumentTypeError(
            f"--host {args.host}: who may use the streams? give --token, --token-file or --authorize,"
            " or --open to let everybody do everything"
        )
    args.loopback_only = not (guarded or args.open)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_tls(cert: Path | None, key: Path | None) -> None:
    if cert is None and key is None:
        return
    if cert is None or key is None:
        raise ArgumentTypeError("--tls-cert and --tls-key belong together: give both")
    for name, path in (("--tls-cert", cert), ("--tls-key", key)):
        try:
            path.read_bytes()
        except OSError as exc:
            raise ArgumentTypeError(f"{name} {str(path)!r}: {_reason(exc)}") from exc
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, _no_password)
    except ssl.SSLError as exc:
        raise ArgumentTypeError(
            f"--tls-cert {str(cert)!r} and --tls-key {str(key)!r} are not a certificate and its key, in PEM"
        ) from exc


def _no_password() -> NoReturn:
    raise ArgumentTypeError("--tls-key: the key is encrypted: a server that starts by itself cannot ask for a password")


def _function(name: str) -> Any:
    module, _, attributes = name.partition(":")
    if not module or not attributes:
        raise ArgumentTypeError(f"--authorize {name!r}: write it as module:function")
    found = _module(module)
    try:
        for attribute in attributes.split("."):
            found = getattr(found, attribute)
    except AttributeError:
        raise ArgumentTypeError(f"--authorize: no function {attributes!r} in module {module!r}") from None
    if not callable(found):
        raise ArgumentTypeError(f"--authorize {name!r} is no function")
    return found


def _module(name: str) -> Any:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # as for `python -m`, and other servers
    try:
        return importlib.import_module(name)
    except (ImportError, AttributeError, TypeError, ValueError) as exc:
        if isinstance(exc, ModuleNotFoundError) and f"{name}.".startswith(f"{exc.name}."):  # not one that it imports
            where = f"looked for in {os.getcwd()} and the installed packages"
            raise ArgumentTypeError(f"--authorize: no module {name!r} ({where})") from exc
        raise ArgumentTypeError(f"--authorize: module {name!r}: {exc}") from exc
