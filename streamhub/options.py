"""Typed options from a URL's query: each is a field of a frozen dataclass; an unknown one is an error."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from streamhub.errors import ConfigError, UnknownOptionError

T = TypeVar("T")

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


def query_options(url: str) -> dict[str, str]:
    """Return the query of a URL; a repeated option, and a URL that cannot be parsed, is an error."""
    try:
        pairs = parse_qsl(urlsplit(url).query, keep_blank_values=True)
    except ValueError:  # not shown: it may quote the part that holds the password
        raise ConfigError("malformed URL: brackets may only enclose an IPv6 address") from None
    options = dict(pairs)
    if len(options) != len(pairs):
        names = sorted({name for name, _ in pairs if sum(name == other for other, _ in pairs) > 1})
        raise ConfigError(f"option {names[0]!r} is given twice: give it once")
    return options


def without_options(url: str, names: Iterable[str]) -> str:
    """Return the URL with the options ``names`` left out of its query."""
    dropped = set(names)
    parts = urlsplit(url)
    kept = [pair for pair in parts.query.split("&") if pair and pair.partition("=")[0] not in dropped]
    query = "&".join(kept)
    bare = urlunsplit(parts._replace(query=""))
    # urlunsplit writes 'memory://' as 'memory:': keep what the user wrote up to the query.
    head = url.partition("?")[0] if not parts.fragment else bare
    return f"{head}?{query}" if query else head


def redact(url: str) -> str:
    """Return the URL for messages and logs: a password becomes ``***``, the query is left out."""
    parts = urlsplit(url)
    userinfo, at, host = parts.netloc.rpartition("@")
    if at:
        userinfo = userinfo.partition(":")[0] + ":***" if ":" in userinfo else "***"
    return f"{parts.scheme}://{userinfo}{at}{host}{parts.path}"


def parse_options(cls: type[T], options: Mapping[str, str], *, scheme: str) -> T:
    """Build ``cls``, a dataclass of bool, int, float, str, Literal and optional fields, from text.

    Args:
        cls: the dataclass; its fields are the known options.
        options: names and texts.
        scheme: for messages.

    Raises:
        UnknownOptionError: an option is unknown; it names the nearest.
        ConfigError: its text does not fit its type.
    """
    fields = {field.name for field in dataclasses.fields(cls)}  # pyright: ignore[reportArgumentType]
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    for name, text in options.items():
        if name not in fields:
            if any("@" in text for pair in options.items() for text in pair):
                # A password's "?" that was not encoded: what follows it must not be shown.
                raise ConfigError(
                    f"unknown option of {scheme}://, and an '@' behind the '?': write a password's ? as %3F"
                )
            raise UnknownOptionError(name, scheme=scheme, known=fields)
        values[name] = _convert(name, text, hints[name])
    return cls(**values)


def _convert(name: str, text: str, hint: Any) -> Any:
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        (hint,) = (arg for arg in typing.get_args(hint) if arg is not type(None))
        origin = typing.get_origin(hint)
    if origin is typing.Literal:
        choices = typing.get_args(hint)
        if text.lower() in choices:
            return text.lower()
        raise ConfigError(f"option {name}={text!r}: use one of {', '.join(map(repr, choices))}")
    if hint is bool:
        if text.lower() in _TRUE | _FALSE:
            return text.lower() in _TRUE
        raise ConfigError(f"option {name}={text!r}: use true or false")
    try:
        return hint(text)
    except ValueError as exc:
        wanted = {int: "a whole number", float: "a number"}.get(hint, hint.__name__)
        raise ConfigError(f"option {name}={text!r}: use {wanted}") from exc
