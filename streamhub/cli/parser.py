"""The command line: every command, argument and option."""

from __future__ import annotations

import argparse
import difflib
import json
import math
import os
import re
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from typing import Any, NoReturn, get_args
from urllib.parse import urlsplit

from streamhub import KeyState, Unfinished
from streamhub.cli import serve_options
from streamhub.errors import StreamHubError
from streamhub.inputs import check_metadata, check_name, parse_after

URL_HELP = "the backend, as in sqlite:///streams.db; default: STREAMHUB_URL, which also keeps a password private"


def parse(argv: Sequence[str] | None) -> Namespace:
    """Parse a command line. The result has ``handler``, ``url`` and the command's own arguments.

    Raises:
        SystemExit: with status 2 if it is wrong, with 0 after ``--help`` and ``--version``.
    """
    args, rest = build().parse_known_args(argv)
    parser: ArgumentParser = args.parser
    if args.command == "conformance":
        args.pytest_args = rest
    elif rest:
        _refuse(parser, rest)
    if args.needs_url and args.url is None and not os.environ.get("STREAMHUB_URL"):
        parser.error("which backend? give --url URL or set STREAMHUB_URL")
    if args.command == "publish":
        _check_source(parser, args)
    elif args.command == "serve":
        serve_options.complete(parser, args)
    return args


def _refuse(parser: ArgumentParser, rest: Sequence[str]) -> NoReturn:
    known = re.findall("--[a-z-]+", parser.format_usage())
    near = difflib.get_close_matches(rest[0].partition("=")[0], known, n=1)
    parser.error(f"unrecognized arguments: {' '.join(rest)}" + "".join(f"; did you mean {name}?" for name in near))


def build() -> ArgumentParser:
    """Build the parser, with every command."""
    parser = ArgumentParser(
        prog="streamhub",
        allow_abbrev=False,
        description="Durable, resumable token streams.",
        epilog="Exit status: 0 completed, 1 error, 2 usage, 3 failed, 4 cancelled, 5 abandoned.",
    )
    parser.add_argument("--version", action=_Version, help="print the version and exit")
    parser.add_argument("--url", metavar="URL", default=None, help=URL_HELP)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    for add in (_publish, _tail, _ls, _info, _cancel, _rm, _gc, _sql, _serve, _doctor, _conformance, _demo):
        add(commands)
    return parser


class _Version(argparse.Action):
    # The installed version is looked up only when asked for.
    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **options)

    def __call__(self, parser: ArgumentParser, *_: Any) -> None:
        from streamhub.cli.doctor import version

        print(f"streamhub {version()}")
        parser.exit()


def _command(commands: Any, name: str, handler: str, text: str, *, needs_url: bool = True) -> ArgumentParser:
    parser: ArgumentParser = commands.add_parser(
        name, help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False
    )
    parser.add_argument("--url", metavar="URL", default=argparse.SUPPRESS, help=URL_HELP)
    parser.set_defaults(handler=_Lazy(handler), needs_url=needs_url, parser=parser)
    return parser


class _Lazy:
    """A command's function, whose module is imported only when the command runs."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, args: Namespace) -> int:
        from importlib import import_module

        module, _, function = self.name.partition(":")
        code: int = getattr(import_module(f"streamhub.cli.{module}"), function)(args)
        return code


def _publish(commands: Any) -> None:
    parser = _command(commands, "publish", "publish:publish", "produce a run from standard input, or from a model")
    _add_key(parser)
    _add_run(parser, "name of the run; default: a random one")
    parser.add_argument("--bytes", action="store_true", help="a chunk is what one read gives, not a line")
    parser.add_argument(
        "--unfinished",
        choices=get_args(Unfinished),
        default="raise",
        help="what to do with a run whose producer died; default: raise an error",
    )
    _add_wait(parser, "wait for a dead producer's lease to run out")
    parser.add_argument("--metadata", metavar="JSON", type=_metadata, default=None, help="a JSON object to keep")
    model = parser.add_argument_group("an OpenAI-compatible endpoint as the source")
    model.add_argument("--openai-base-url", metavar="URL", type=_base_url, help="as in http://localhost:8000/v1")
    model.add_argument("--model", metavar="NAME")
    model.add_argument(
        "--prompt", metavar="TEXT", help="one user message; a resumed run's text follows it as the reply"
    )
    model.add_argument(
        "--api-key-env",
        metavar="NAME",
        help="the environment variable that holds the API key; default: OPENAI_API_KEY, if it is set",
    )
    model.add_argument(
        "--idle", metavar="SECONDS", type=_seconds, default=300.0, help="give up after this much silence; default: 300"
    )
    _add_json(parser, "print the result as JSON")


def _tail(commands: Any) -> None:
    parser = _command(commands, "tail", "tail:tail", "write a stream's bytes to standard output, as they come")
    _add_key(parser)
    parser.add_argument(
        "--after",
        metavar="OFFSET",
        type=_after,
        default=None,
        help="begin after this offset (as printed at the end of a tail), 'start' or 'latest'; default: start",
    )
    _add_run(parser, "follow only this run")
    _add_wait(parser, "wait for the stream, or the run, to exist")


def _ls(commands: Any) -> None:
    parser = _command(commands, "ls", "streams:ls", "list streams: keys by line, or a table on a terminal")
    parser.add_argument("prefix", metavar="PREFIX", nargs="?", default="", help="only keys that begin with this")
    parser.add_argument("--state", choices=get_args(KeyState), default=None, help="only streams in this state")
    _add_json(parser, "print one JSON object a line")


def _info(commands: Any) -> None:
    parser = _command(commands, "info", "streams:info", "describe a stream")
    _add_key(parser)
    _add_json(parser, "print JSON")


def _cancel(commands: Any) -> None:
    parser = _command(commands, "cancel", "streams:cancel", "ask a run to stop; status 1 if nothing is running")
    _add_key(parser)
    _add_run(parser, "cancel only this run, even before it begins; default: the one that is running")
    parser.add_argument("--reason", metavar="TEXT", default=None, help="stored with the run's end")
    parser.add_argument("--by", metavar="NAME", default=None, help="who asks; stored with the run's end")
    _add_wait(parser, "wait for the end to be stored")
    _add_json(parser, "print the result as JSON")


def _rm(commands: Any) -> None:
    parser = _command(commands, "rm", "streams:rm", "delete a stream; its producer is stopped")
    _add_key(parser)


def _gc(commands: Any) -> None:
    _command(commands, "gc", "upkeep:gc", "remove what has expired now; every hub does it by itself now and then")


def _sql(commands: Any) -> None:
    text = "print the SQL that makes a backend's schema, for somebody with more rights to run"
    parser = _command(commands, "sql", "upkeep:sql", text, needs_url=False)
    parser.add_argument("--backend", metavar="SCHEME", default="postgresql", help="default: postgresql")
    parser.add_argument("--schema", metavar="NAME", default="streamhub", help="the schema's name; default: streamhub")
    parser.add_argument(
        "--since", metavar="VERSION", type=_version, default=0, help="the version that is there; default: 0, for none"
    )


def _serve(commands: Any) -> None:
    text = "serve streams over HTTP, by the open protocol of Durable Streams"
    parser = _command(commands, "serve", "serve:serve", text)
    parser.epilog = "Each option may also be given as a variable: STREAMHUB_TOKEN, STREAMHUB_SERVE_PORT and so on."
    serve_options.add_options(parser)


def _doctor(commands: Any) -> None:
    parser = _command(commands, "doctor", "doctor:doctor", "connect, and tell versions, limits and durability")
    _add_json(parser, "print JSON")


def _conformance(commands: Any) -> None:
    text = "run the conformance suite on a backend; further arguments go to pytest, as in -k fencing -x"
    _command(commands, "conformance", "conformance:conformance", text)


def _demo(commands: Any) -> None:
    _command(
        commands,
        "demo",
        "demo:demo",
        "stream, cut, resume, cancel, kill and take over a text, with real processes and no server",
        needs_url=False,
    )


def _add_key(parser: ArgumentParser) -> None:
    parser.add_argument("key", metavar="KEY", type=_key, help="the stream's key, as in chat:123")


def _add_run(parser: ArgumentParser, text: str) -> None:
    parser.add_argument("--run", metavar="RUN", type=_run, default=None, help=text)


def _add_wait(parser: ArgumentParser, text: str) -> None:
    parser.add_argument("--wait", metavar="SECONDS", type=_seconds, default=0.0, help=f"{text}; default: 0")


def _add_json(parser: ArgumentParser, text: str) -> None:
    parser.add_argument("--json", action="store_true", help=text)


def _check_source(parser: ArgumentParser, args: Namespace) -> None:
    if args.openai_base_url is None:
        for name in ("model", "prompt", "api_key_env"):
            if getattr(args, name) is not None:
                parser.error(f"--{name.replace('_', '-')} needs --openai-base-url")
        return
    if args.model is None or args.prompt is None:
        parser.error("--openai-base-url needs --model and --prompt")
    if args.bytes:
        parser.error("--bytes is for standard input, not for --openai-base-url")
    if args.api_key_env is not None and not os.environ.get(args.api_key_env):
        parser.error(f"--api-key-env: {args.api_key_env} is not set")


def _key(text: str) -> str:
    return _checked(check_name, text)


def _run(text: str) -> str:
    return _checked(check_name, text, "run")


def _after(text: str) -> Any:
    return _checked(parse_after, text)


def _metadata(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError as exc:
        raise ArgumentTypeError(f"not JSON: {exc}") from exc
    return _checked(check_metadata, value)


def _base_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and text.isprintable()
    except ValueError:
        fits = False
    if not fits or " " in text:
        raise ArgumentTypeError(f"{text!r} is not an address: begin with http:// or https:// and name a host")
    return text


def _version(text: str) -> int:
    if not text.isdecimal():
        raise ArgumentTypeError(f"{text!r} is not a version: use a whole number")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise ArgumentTypeError(f"{text!r} is not a number of seconds")
    return value


def _checked(check: Any, *values: Any) -> Any:
    try:
        return check(*values)
    except StreamHubError as exc:
        raise ArgumentTypeError(str(exc)) from exc
