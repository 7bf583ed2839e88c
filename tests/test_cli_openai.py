"""``publish`` from an OpenAI-compatible endpoint: the text arrives whole, or the run's end says what went wrong."""

from __future__ import annotations

import json
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import PATIENCE_SECONDS, Commands, Done
from endpoint import CERTIFICATE, Endpoint, Script, by_byte, chunked, event, head, reply, sends

TEXTS = ("Once", " upon", " a time", " — “twice” 🐇\n", "", "\x00", " the end")
TEXT = "".join(TEXTS).encode()
CHUNKED = head("200 OK", "text/event-stream", "Transfer-Encoding: chunked")
SIZED = head("200 OK", "text/event-stream", "Content-Length: 9999")
ONCE = head() + event("Once")
LAST = b"0\r\nTrailer: x\r\n\r\n"  # how ``chunked`` ends
SECRET = "sk-very-secret"


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Commands]:
    commands = Commands(tmp_path)
    yield commands
    commands.close()


def ask(cli: Commands, endpoint: Endpoint, *args: str, **environ: str) -> Done:
    model = ("--openai-base-url", endpoint.url, "--model", "m-1", "--prompt", "Tell.")
    return cli.run("publish", "chat", "--run", "one", "--json", *model, *args, environ=environ)


def text(cli: Commands) -> bytes:
    return cli.run("tail", "chat").out


@pytest.mark.parametrize(
    "script",
    [
        sends(head() + reply(*TEXTS)),
        sends(CHUNKED.replace(b"-stream", b"-stream; charset=utf-8") + chunked(reply(*TEXTS))),
        by_byte(head("200", "text/event-stream", "Transfer-Encoding: chunked") + chunked(reply(*TEXTS), 1000)),
        by_byte(head() + reply(*TEXTS)),
        sends(head("200 OK", "text/event-stream", f"Content-Length: {len(reply(*TEXTS))}") + reply(*TEXTS)),
        sends(head() + reply(*TEXTS).replace(b"\n", b"\r\n")),
        sends(head() + reply(*TEXTS).replace(b"\n", b"\r")),
        sends(head() + b": keep-alive\n\n" + reply(*TEXTS).replace(b"\n\n", b"\n\n: OPENROUTER PROCESSING\n\n")),
        sends(head() + reply(*TEXTS).replace(b'{"choices"', b'{\ndata: "choices"')),
        sends(head() + reply(*TEXTS).replace(b"data: ", b"data:")),
        sends(head() + reply(*TEXTS).removesuffix(b"data: [DONE]\n\n")),
        sends(head() + reply(*TEXTS).removesuffix(b"\n\n")),
        sends(head() + reply(*TEXTS) + b"data: what comes after the end\n\n"),
        sends(b"HTTP/1.1 100 Continue\r\n\r\n" + head() + reply(*TEXTS)),
        sends(head() + b'data: {"choices":[],"usage":{}}\n\n' + reply(*TEXTS)),
        sends(head() + b'data: {"choices":[{"index":1,"delta":{"content":"other"}}]}\n\n' + reply(*TEXTS)),
        sends(b"HTTP/1.0 200 OK\r\n\r\n" + reply(*TEXTS)),
    ],
    ids=[
        "plain", "chunked", "chunked-by-byte", "by-byte", "sized", "crlf", "cr", "comments", "multi-line", "no-space",
        "no-done", "done-without-empty-line", "after-done", "continue", "usage", "second-choice", "http-1.0",
    ],
)  # fmt: skip
def test_reply_is_published_whole(cli: Commands, script: Script) -> None:
    with Endpoint(script) as endpoint:
        done = ask(cli, endpoint)

    assert done.code == 0, done.err
    assert done.json["end"] == {"state": "completed"}
    assert done.json["chunks"] == len([text for text in TEXTS if text])
    assert text(cli) == TEXT


def cut(connection: socket.socket) -> None:
    connection.sendall(head() + event("Once"))
    # Reset, not closed: what a crash of the other side looks like.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def silent(connection: socket.socket) -> None:
    connection.sendall(head() + event("Once"))
    connection.recv(1)


def delta(content: bytes) -> bytes:
    return b'data: {"choices":[{"delta":{"content":%s}}]}\n\n' % content


BROKEN = {
    "unauthorized": (sends(head("401 Unauthorized", "application/json") + b'{"error": "go away"}'), "http_401", b""),
    "overloaded": (sends(head("529 ") + b"busy"), "http_529", b""),
    "redirect": (sends(head("302 Found", "text/html", "Location: http://elsewhere/")), "http_302", b""),
    "not-a-stream": (sends(head("200 OK", "application/json") + b'{"choices": []}'), "malformed", b""),
    "not-http": (sends(b"SSH-2.0-OpenSSH_9.2\r\n"), "malformed", b""),
    "no-answer": (sends(), "disconnected", b""),
    "closed": (sends(ONCE + event(" upon")), "disconnected", b"Once upon"),
    "closed-in-an-event": (sends(ONCE + event(" upon")[:-9]), "disconnected", b"Once"),
    "closed-in-a-chunk": (
        sends(CHUNKED + chunked(event("Once"), 1000)[:-30]),
        "disconnected",
        b"",
    ),
    "last-chunk-missing": (
        sends(CHUNKED + chunked(event("Once") + event(None, finish_reason="stop")).removesuffix(LAST)),
        "disconnected",
        b"Once",
    ),
    "shorter-than-said": (sends(SIZED + event("Once")), "disconnected", b"Once"),
    "reset": (cut, "disconnected", b"Once"),
    "silent": (silent, "timeout", b"Once"),
    "bad-chunk-size": (sends(CHUNKED + b"-5\r\n"), "malformed", b""),
    "not-json": (sends(ONCE + b"data: {oops\n\n"), "malformed", b"Once"),
    "not-utf-8": (sends(ONCE + delta(b'"\xff"')), "malformed", b"Once"),
    "surrogate": (sends(ONCE + delta(b'"\\ud83d"')), "malformed", b"Once"),
    "not-an-object": (sends(ONCE + b"data: 7\n\n"), "malformed", b"Once"),
    "choices-of-another-shape": (sends(head() + b'data: {"choices": {"0": 1}}\n\n'), "malformed", b""),
    "delta-of-another-shape": (sends(head() + b'data: {"choices": [{"delta": "text"}]}\n\n'), "malformed", b""),
    "content-of-another-shape": (sends(head() + delta(b'[1]')), "malformed", b""),
    "endless-event": (sends(head(), b"data: ", *[b"x" * 100_000] * 100), "malformed", b""),
    "endless-header": (sends(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 300), "malformed", b""),
    "error-object": (sends(ONCE + b'data: {"error": {"message": "no"}}\n\n'), "upstream_error", b"Once"),
    "error-event": (sends(ONCE + b'event: error\ndata: {"message": "no"}\n\n'), "upstream_error", b"Once"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_broken_reply_is_a_failed_run_with_a_code(cli: Commands, name: str) -> None:
    script, code, said = BROKEN[name]
    with Endpoint(script) as endpoint:
        done = ask(cli, endpoint, "--idle", "2", OPENAI_API_KEY=SECRET)
    read = cli.run("tail", "chat")

    assert done.code == 3
    assert done.json["end"]["code"] == code
    assert "Traceback" not in done.err
    assert done.error.startswith(f"{code}: ")
    assert (read.code, read.out) == (3, said)
    assert f"failed: {code}: " in read.error


def test_upstream_text_reaches_the_operator_and_no_subscriber(cli: Commands) -> None:
    with Endpoint(
        sends(head("401 Unauthorized", "application/json") + b'{"error": "who\x1b[2J are\nyou?"}')
    ) as endpoint:
        done = ask(cli, endpoint)
    end = cli.run("info", "chat", "--json").json["end"]

    assert "who\\x1b[2J are\\nyou?" in done.err  # on one line, and the terminal is safe
    assert end == {"state": "failed", "code": "http_401", "message": "the endpoint answered 401 Unauthorized"}


def test_nobody_listening_is_a_failed_run(cli: Commands) -> None:
    with Endpoint(sends()) as endpoint:
        pass
    done = cli.run("publish", "chat", "--openai-base-url", "http://127.0.0.1:9", "--model", "m", "--prompt", "p")

    assert endpoint.requests == []
    assert done.code == 3
    assert done.error.startswith("connect_failed: cannot connect to the endpoint (")
    assert cli.run("info", "chat", "--json").json["end"]["message"] == "cannot connect to the endpoint"


def test_request_is_what_endpoints_expect(cli: Commands) -> None:
    with Endpoint(sends(head() + reply("x"))) as endpoint:
        ask(cli, endpoint, "--api-key-env", "MY_KEY", MY_KEY=f"{SECRET}\n", OPENAI_API_KEY="other")

    ((lines, body),) = endpoint.requests
    assert lines.startswith("POST /v1/chat/completions HTTP/1.1\r\n")
    assert f"Authorization: Bearer {SECRET}\r\n" in lines
    assert "Host: 127.0.0.1:" in lines
    assert "Content-Type: application/json" in lines
    assert body == {"model": "m-1", "messages": [{"role": "user", "content": "Tell."}], "stream": True}


def test_no_key_is_sent_when_there_is_none(cli: Commands) -> None:
    with Endpoint(sends(head() + reply("x"))) as endpoint:
        ask(cli, endpoint)

    assert "Authorization" not in endpoint.requests[0][0]


def test_key_is_never_shown(cli: Commands) -> None:
    with Endpoint(sends(b"garbage")) as endpoint:
        done = ask(cli, endpoint, OPENAI_API_KEY=SECRET)

    assert SECRET not in done.err + done.out.decode()
    assert SECRET not in json.dumps(cli.run("info", "chat", "--json").json)


def test_https_is_verified(cli: Commands) -> None:
    with Endpoint(sends(head() + reply(*TEXTS)), tls=True) as endpoint:
        refused = ask(cli, endpoint)
        trusted = cli.run(
            "publish", "chat", "--run", "two", "--openai-base-url", endpoint.url, "--model", "m", "--prompt", "p",
            environ={"SSL_CERT_FILE": str(CERTIFICATE)},
        )  # fmt: skip

    assert refused.code == 3
    assert "certificate" in refused.error.lower()
    assert trusted.code == 0, trusted.err
    assert text(cli) == TEXT


def test_text_is_published_as_it_comes(cli: Commands) -> None:
    go_on = threading.Event()

    def script(connection: socket.socket) -> None:
        connection.sendall(head() + event("Once"))
        assert go_on.wait(PATIENCE_SECONDS)
        connection.sendall(reply(" upon"))

    reader = cli.start("tail", "chat", "--wait", str(PATIENCE_SECONDS))
    with Endpoint(script) as endpoint:
        model = ("--openai-base-url", endpoint.url, "--model", "m", "--prompt", "p")
        producer = cli.start("publish", "chat", *model)
        reader.hear(b"Once")
        go_on.set()
        assert producer.finish().code == 0
    assert reader.finish().out == b" upon"


def test_cancel_interrupts_a_waiting_reply_and_closes_its_connection(cli: Commands) -> None:
    closed = threading.Event()

    def script(connection: socket.socket) -> None:
        connection.sendall(head() + event("Once"))
        try:
            rest = connection.recv(1)
        except ConnectionResetError:
            rest = b""
        if rest == b"":
            closed.set()

    reader = cli.start("tail", "chat", "--wait", str(PATIENCE_SECONDS))
    with Endpoint(script) as endpoint:
        model = ("--openai-base-url", endpoint.url, "--model", "m", "--prompt", "p")
        producer = cli.start("publish", "chat", *model)
        reader.hear(b"Once")
        assert cli.run("cancel", "chat", "--wait", str(PATIENCE_SECONDS)).code == 0
        assert closed.wait(PATIENCE_SECONDS)
    assert producer.finish().code == 4
    assert reader.finish().code == 4


def test_resumed_run_gives_the_model_what_was_said(cli: Commands) -> None:
    reader = cli.start("tail", "chat", "--wait", str(PATIENCE_SECONDS))
    with Endpoint(silent) as endpoint:
        model = ("--openai-base-url", endpoint.url, "--model", "m", "--prompt", "p")
        producer = cli.start("publish", "chat", "--run", "one", *model)
        reader.hear(b"Once")
        producer.finish(sending=signal.SIGKILL)
    with Endpoint(sends(head() + reply(" upon"))) as endpoint:
        done = ask(cli, endpoint, "--unfinished", "resume", "--wait", str(PATIENCE_SECONDS))

    assert done.code == 0
    assert endpoint.requests[0][1]["messages"][1:] == [{"role": "assistant", "content": "Once"}]
    assert reader.finish().out == b" upon"
    assert text(cli) == b"Once upon"


def test_failure_that_could_not_be_stored_is_not_told_as_the_end(cli: Commands) -> None:
    fails = threading.Event()

    def late(connection: socket.socket) -> None:
        connection.sendall(ONCE)
        fails.wait(PATIENCE_SECONDS)

    with Endpoint(late) as endpoint:
        model = ("--openai-base-url", endpoint.url, "--model", "m-1", "--prompt", "Tell.")
        publishing = cli.start("publish", "chat", "--run", "one", "--json", *model)
        cli.start("tail", "chat", "--wait", str(PATIENCE_SECONDS)).hear(b"Once")
        publishing.process.send_signal(signal.SIGSTOP)
        successor = ("publish", "chat", "--run", "one", "--unfinished", "resume", "--wait", str(PATIENCE_SECONDS))
        assert cli.run(*successor, stdin=b" upon").code == 0
        fails.set()
        deposed = publishing.finish(sending=signal.SIGCONT)

    assert (deposed.code, deposed.out) == (5, b"")
    assert "lease" in deposed.err
    assert text(cli) == b"Once upon"
