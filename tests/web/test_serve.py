"""``streamhub serve``: a real process, over real HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest
import servers
import trustme
from places import fresh_place
from ports import free_port
from serve_process import PATIENCE_SECONDS, TEXT, Serving, environment, failed, http_headers, refused, serve, until

SECRET = "s3cret-of-the-first"
OTHER = "s3cret-of-the-other"
PAGE = "https://app.example"


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/streams.db"


# --- what it serves


def test_stream_is_created_appended_read_closed_and_deleted(tmp_path: Path, url: str) -> None:
    with serve(tmp_path, url) as server:
        created = server.create("a/b")
        assert created.status == 201
        for body in (b"one ", b"two"):
            assert server.append("a/b", body).status == 204
        read = server.read("a/b")
        assert (read.status, read.body) == (200, b"one two")
        offset = read.headers["stream-next-offset"]
        assert server.read("a/b", f"?offset={offset}").body == b""
        assert server.ask("POST", "/v1/stream/a/b", headers={"Stream-Closed": "true"}).status == 204
        assert server.ask("DELETE", "/v1/stream/a/b").status == 204
        assert server.read("a/b").status in (404, 410)
        for path in ("/", "/v1", "/v1/streams", "/metrics"):
            assert server.ask("GET", path).status == 404
        assert server.stop() == 0
        assert server.err.splitlines() == [f"streamhub: serving http://127.0.0.1:{server.port}/v1/stream/ from {url}"]
        assert server.out == ""


def test_cancelled_stream_stays_what_it_was(tmp_path: Path, url: str) -> None:
    with serve(tmp_path, url) as server:
        assert server.ask("PUT", "/v1/stream/k", headers={"Content-Type": "application/json"}).status == 201
        assert server.ask("POST", "/v1/stream/k", b"[1,2]", {"Content-Type": "application/json"}).status == 204
        reply = server.ask("POST", "/v1/stream/k/cancel", b'{"reason": "why"}', {"Content-Type": "application/json"})
        assert (reply.status, json.loads(reply.body)["state"]) == (200, "cancelled")
        read = server.read("k")
        assert (read.headers["content-type"], read.body) == ("application/json", b"[1,2]")
        assert (read.headers["stream-closed"], read.headers["streamhub-end"]) == ("true", "cancelled")
        assert server.append("k", b"3").status == 409


def test_two_instances_over_one_backend_serve_the_same_streams(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/streams.db"
    with serve(tmp_path / "a", url) as a, serve(tmp_path / "b", url) as b:
        assert a.create("k").status == 201
        assert b.append("k", b"by b").status == 204
        assert a.append("k", b", by a").status == 204
        assert b.read("k").body == b"by b, by a"


@pytest.mark.parametrize("kind", ["redis", "postgresql", "nats"])
async def test_servers_of_every_kind_are_backends(tmp_path: Path, kind: str) -> None:
    async with fresh_place(kind, tmp_path) as url:
        await asyncio.to_thread(_use_two_instances, tmp_path, url)


def _use_two_instances(folder: Path, url: str) -> None:
    with serve(folder / "a", url) as a, serve(folder / "b", url) as b:
        assert a.ask("GET", "/healthz/ready").status == 200
        assert a.create("k").status == 201
        with reading(b, "k", "?offset=-1&live=sse") as response:
            assert a.append("k", b"by a").status == 204
            read_until(response, b"by a")
        assert (a.stop(), b.stop()) == (0, 0)
        assert len(a.err.splitlines()) == 1


def test_prefix_is_where_the_streams_are(tmp_path: Path) -> None:
    with serve(tmp_path, "memory://", "--prefix", "/s/") as server:
        assert server.ask("PUT", "/s/k", headers=TEXT).status == 201
        assert server.ask("GET", "/s/k").status == 200
        assert server.ask("GET", "/v1/stream/k").status == 404
        assert server.ask("GET", "/healthz").status == 200


def test_variables_are_options_and_the_command_line_wins(tmp_path: Path) -> None:
    port = free_port()
    environ = {
        "STREAMHUB_SERVE_PORT": str(port),
        "STREAMHUB_SERVE_PREFIX": "/s/",
        "STREAMHUB_SERVE_ACCESS_LOG": "yes",
        "STREAMHUB_SERVE_METRICS": "0",
        "STREAMHUB_TOKEN": f"{SECRET},{OTHER}",
    }
    with serve(tmp_path, "memory://", environ=environ) as server:  # with --port 0
        assert server.port != port
        assert server.ask("PUT", "/s/k", headers=TEXT | bearer(OTHER)).status == 201
        assert server.ask("GET", "/metrics", headers=bearer(OTHER)).status == 404
        until(lambda: server.out)


def test_retention_is_what_was_asked_for(tmp_path: Path) -> None:
    with serve(tmp_path, f"sqlite:///{tmp_path}/streams.db", "--keep", "0.5") as server:
        assert server.create("k").status == 201
        until(lambda: server.read("k").status in (404, 410))


# --- TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def certificate(authority: trustme.CA, tmp_path: Path) -> tuple[Path, Path]:
    issued = authority.issue_cert("localhost", "127.0.0.1")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    return cert, key


def test_tls(tmp_path: Path, authority: trustme.CA, certificate: tuple[Path, Path]) -> None:
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)
    cert, key = map(str, certificate)
    with serve(tmp_path, "memory://", "--tls-cert", cert, "--tls-key", key, trusted=trusted) as server:
        assert f"serving https://127.0.0.1:{server.port}/" in server.err
        assert server.create("k").status == 201
        assert server.append("k", b"private").status == 204
        assert server.read("k").body == b"private"
        with pytest.raises((http.client.HTTPException, OSError)):
            Serving.ask(_without_tls(server), "GET", "/healthz")
        assert server.stop() == 0


def _without_tls(server: Serving) -> Serving:
    plain = Serving(server.process, Path(), None)
    plain.port = server.port
    return plain


def test_tls_files_that_do_not_fit_are_refused(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    cert, key = map(str, certificate)
    other = tmp_path / "other.pem"
    other.write_bytes(trustme.CA().issue_cert("localhost").private_key_pem.bytes())

    assert "give both" in refused(tmp_path, "--tls-cert", cert)
    assert "no such file" in refused(tmp_path, "--tls-cert", cert, "--tls-key", f"{key}.gone")
    assert "are not a certificate and its key" in refused(tmp_path, "--tls-cert", cert, "--tls-key", str(other))
    assert "are not a certificate and its key" in refused(tmp_path, "--tls-cert", key, "--tls-key", key)


def test_encrypted_key_is_refused_and_nobody_is_asked_for_its_password(
    tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    from cryptography.hazmat.primitives import serialization

    cert, key = certificate
    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(
        loaded.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"password"),
        )
    )

    assert "the key is encrypted" in refused(tmp_path, "--tls-cert", str(cert), "--tls-key", str(key))


# --- who may use it


def test_token_is_needed_and_any_of_several_will_do(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"# of the workers\n{OTHER}\n\n")
    with serve(tmp_path, "memory://", "--token", SECRET, "--token-file", str(tokens), "--metrics") as server:
        for headers in (
            {},
            bearer("wrong"),
            {"Authorization": SECRET},
            {"Authorization": f"Basic {SECRET}"},
            bearer(""),
        ):
            for method in ("PUT", "POST", "GET", "HEAD", "DELETE"):
                reply = server.ask(method, "/v1/stream/k", headers=headers)
                assert (reply.status, reply.headers["www-authenticate"]) == (401, 'Bearer realm="streamhub"')
        assert server.create("k", **bearer(SECRET)).status == 201
        assert server.append("k", b"x", authorization=f"bearer {OTHER}").status == 204
        assert server.ask("GET", "/healthz").status == 200
        assert server.ask("GET", "/metrics").status == 401
        assert server.ask("GET", "/metrics", headers=bearer(SECRET)).status == 200


def test_only_what_everybody_may_read_is_for_shared_caches(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "rules.py").write_text("def allow(request, key, action):\n    return True\n")
    for name, options, expected in (
        ("a", ["--authorize", "rules:allow"], "private"),
        ("b", ["--token", SECRET], "private"),
        ("c", ["--open"], "public"),
    ):
        with serve(tmp_path / name, "memory://", *options) as server:
            assert server.create("k", **bearer(SECRET)).status == 201
            assert server.append("k", b"x", **bearer(SECRET)).status == 204
            for query in ("", "?offset=-1&live=long-poll"):
                assert server.read("k", query, **bearer(SECRET)).headers["cache-control"].startswith(expected)


def test_secrets_are_neither_in_the_logs_nor_in_the_list_of_processes(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/streams.db?drain_seconds=1"
    with serve(tmp_path, url, "--access-log", environ={"STREAMHUB_TOKEN": SECRET}) as server:
        assert server.create("k", **bearer(SECRET)).status == 201
        assert server.read("k", f"?offset=-1&token={SECRET}", **bearer(SECRET)).status == 200
        assert server.read("k", f"?token={SECRET}", Cookie=SECRET).status == 401
        command = Path(f"/proc/{server.process.pid}/cmdline")
        if command.exists():
            assert SECRET.encode() not in command.read_bytes()
        assert server.stop() == 0
        assert len(server.access) == 3
        assert SECRET not in server.err + server.out
        assert "drain_seconds" not in server.err  # nor is the query of the URL, which may hold a password


@pytest.mark.parametrize("token", ["with space", "", "line\nbreak", "ü"])
def test_bad_token_is_refused_and_not_shown(tmp_path: Path, token: str) -> None:
    said = refused(tmp_path, "--token", token)

    assert "a token consists of" in said
    assert not token or token not in said


def test_authorize_decides_about_each_action(tmp_path: Path) -> None:
    (tmp_path / "rules.py").write_text(
        "async def only_mine(request, key, action):\n"
        "    return key.startswith('mine') and (action != 'delete' or request.headers.get('x-admin') == 'yes')\n"
    )
    with serve(tmp_path, "memory://", "--host", "0.0.0.0", "--authorize", "rules:only_mine") as server:
        assert server.create("mine").status == 201
        assert server.create("yours").status == 403
        assert server.ask("DELETE", "/v1/stream/mine").status == 403
        assert server.ask("DELETE", "/v1/stream/mine", headers={"X-Admin": "yes"}).status == 204


def test_token_and_authorize_are_both_asked(tmp_path: Path) -> None:
    (tmp_path / "rules.py").write_text("def no_deletes(request, key, action):\n    return action != 'delete'\n")
    with serve(tmp_path, "memory://", "--token", SECRET, "--authorize", "rules:no_deletes") as server:
        assert server.create("k").status == 401
        assert server.create("k", **bearer(SECRET)).status == 201
        assert server.ask("DELETE", "/v1/stream/k", headers=bearer(SECRET)).status == 403


def test_other_hosts_are_let_in_only_if_that_is_written_out(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "streams.example"):
        assert "--open to let everybody do everything" in refused(tmp_path, "--host", host)
    with serve(tmp_path, "memory://", "--host", "0.0.0.0", "--open") as server:
        assert server.ask("PUT", "/v1/stream/k", headers=TEXT | {"Host": "streams.example"}).status == 201


def test_server_of_this_machine_lets_neither_foreign_names_nor_foreign_pages_in(tmp_path: Path) -> None:
    with serve(tmp_path, "memory://") as server:
        assert server.create("k").status == 201
        for host in ("rebound.example", f"rebound.example:{server.port}", "localhost.rebound.example", ""):
            assert server.read("k", Host=host).status == 403
        for host in ("localhost", f"LOCALHOST:{server.port}", "127.0.0.1:1", "[::1]:80"):
            assert server.read("k", Host=host).status == 200
        for method in ("POST", "PUT", "DELETE"):
            assert server.ask(method, "/v1/stream/k", b"x", TEXT | {"Origin": PAGE}).status == 403
            assert server.ask(method, "/v1/stream/k", b"x", TEXT | {"Origin": "null"}).status == 403
        own = f"http://127.0.0.1:{server.port}"
        assert server.append("k", b"x", Origin=own).status == 204
        assert server.read("k").body == b"x"


# --- CORS


def preflight(server: Serving, origin: str, method: str = "POST") -> tuple[int, dict[str, str]]:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization,producer-id,stream-closed",
    }
    reply = server.ask("OPTIONS", "/v1/stream/k", headers=headers)
    return reply.status, {name: value for name, value in reply.headers.items() if name.startswith(("access", "vary"))}


def test_pages_of_a_given_origin_may_use_the_streams(tmp_path: Path) -> None:
    options = ("--cors-origin", PAGE, "--cors-origin", "http://localhost:3000", "--token", SECRET)
    with serve(tmp_path, "memory://", *options) as server:
        status, headers = preflight(server, PAGE)
        assert status == 204
        assert headers.pop("access-control-max-age")
        assert set(headers.pop("access-control-allow-methods").split(", ")) == {"GET", "HEAD", "PUT", "POST", "DELETE"}
        assert headers == {
            "access-control-allow-origin": PAGE,
            "access-control-allow-headers": "authorization,producer-id,stream-closed",
            "vary": "Origin",
        }
        status, headers = preflight(server, "https://evil.example")
        assert (status, headers) == (403, {"vary": "Origin"})

        created = server.create("k", Origin=PAGE, **bearer(SECRET))
        assert (created.status, created.headers["access-control-allow-origin"]) == (201, PAGE)
        exposed = {name.lower() for name in created.headers["access-control-expose-headers"].split(", ")}
        sent = {name for name in created.headers if name.startswith(("stream-", "producer-"))}
        assert sent
        assert sent <= exposed
        refusal = server.read("k", Origin=PAGE)  # a page can tell that its token is wrong
        assert (refusal.status, refusal.headers["access-control-allow-origin"]) == (401, PAGE)
        for headers in ({}, {"Origin": "https://evil.example"}):
            other = server.read("k", **headers, **bearer(SECRET))
            assert (other.status, other.headers["vary"]) == (200, "Origin")
            assert "access-control-allow-origin" not in other.headers


def test_every_origin_must_be_written_out(tmp_path: Path) -> None:
    with serve(tmp_path / "all", "memory://", "--cors-origin", "*") as server:
        status, headers = preflight(server, PAGE, "PUT")
        assert (status, headers["access-control-allow-origin"]) == (204, "*")
        assert server.create("k", Origin=PAGE).headers["access-control-allow-origin"] == "*"
    with serve(tmp_path / "none", "memory://") as server:
        assert server.create("k").status == 201
        assert "access-control-allow-origin" not in server.read("k", Origin=PAGE).headers
        assert "access-control-allow-origin" not in preflight(server, PAGE)[1]
    for wrong in ("app.example", "https://app.example/", "https://App.example", "null", "https://app.example/path"):
        assert "is not an origin" in refused(tmp_path, "--cors-origin", wrong)


# --- limits


def test_body_is_bounded(tmp_path: Path) -> None:
    with serve(tmp_path, "memory://", "--max-body", "1000") as server:
        assert server.create("k").status == 201
        assert server.append("k", b"x" * 1000).status == 204
        assert server.append("k", b"x" * 1001).status == 413
        assert server.read("k").body == b"x" * 1000


@pytest.mark.parametrize("head", [b"GET /", b"GET / HTTP/1.1\r\nX-Long: ", b"\r\n"])
def test_head_that_does_not_end_is_cut_off(tmp_path: Path, head: bytes) -> None:
    with serve(tmp_path, "memory://") as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_SECONDS) as endless:
            endless.sendall(head)
            with pytest.raises(ConnectionError):
                for _ in range(64):
                    endless.sendall((b"\r\n" if head == b"\r\n" else b"xx") * 500_000)
        assert server.create("k").status == 201


def test_body_may_come_in_many_small_pieces(tmp_path: Path) -> None:
    with serve(tmp_path, "memory://") as server:
        assert server.create("k").status == 201
        with contextlib.closing(server.connect()) as connection:
            connection.request("POST", server.stream("k"), iter([b"x"] * 50_000), TEXT, encode_chunked=True)
            assert connection.getresponse().status == 204
        assert len(server.read("k").body) == 50_000


def test_requests_that_wait_for_others_of_their_connection_are_not_read_ahead(tmp_path: Path) -> None:
    with serve(tmp_path, "memory://") as server:
        assert server.create("k").status == 201
        request = f"GET {server.stream('k')} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        many = 50_000
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_SECONDS) as connection:
            sending = threading.Thread(target=connection.sendall, args=(request * many,))
            sending.start()
            with connection.makefile("rb") as answers:
                assert sum(line.startswith(b"HTTP/1.1 200") for line in _lines(answers, many)) == many
            sending.join()
        assert server.peak_mib() < 100


def _lines(answers: BinaryIO, count: int) -> Iterator[bytes]:
    """Return the lines of so many answers without a body."""
    for _ in range(count):
        while (line := answers.readline()) not in (b"\r\n", b""):
            yield line


def test_trailers_are_no_headers(tmp_path: Path) -> None:
    with serve(tmp_path, "memory://") as server:
        assert server.create("k").status == 201
        head = f"POST {server.stream('k')} HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n"
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_SECONDS) as connection:
            connection.sendall(
                head.encode() + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nStream-Closed: true\r\n\r\n"
            )
            assert connection.recv(1024).startswith(b"HTTP/1.1 204")
        assert server.ask("HEAD", server.stream("k")).headers.get("stream-closed") is None


def test_streams_are_bounded_and_those_there_are_stay_usable(tmp_path: Path, url: str) -> None:
    with serve(tmp_path, url, "--max-streams", "2") as server:
        assert [server.create(key).status for key in ("a", "b", "c")] == [201, 201, 429]
        assert "retry-after" in server.create("c").headers
        assert server.create("a").status == 200
        assert server.append("a", b"x").status == 204
        assert server.ask("DELETE", "/v1/stream/b").status == 204
        until(lambda: server.create("c").status == 201)
        assert server.create("d").status == 429


# --- watching


def test_healthz_tells_that_the_backend_is_away(tmp_path: Path) -> None:
    redis = servers.redis_server("8.2")
    with serve(tmp_path, f"{redis.url}?outage_seconds=1&prefix=serve") as server:
        assert server.ask("GET", "/healthz/ready").status == 200
        redis.freeze()  # it does not even refuse
        try:
            begun = time.monotonic()
            until(lambda: server.ask("GET", "/healthz/ready").status == 503)
            assert time.monotonic() - begun < 10
            assert server.ask("GET", "/healthz").status == 200
        finally:
            redis.thaw()
        until(lambda: server.ask("GET", "/healthz/ready").status == 200)
        assert server.create("k").status == 201
        assert server.stop() == 0
        assert server.err.count("not ready") == 1  # however often it was asked


def values(server: Serving) -> Callable[[str], float]:
    """Return a function that looks a metric up in what is served now."""
    reply = server.ask("GET", "/metrics")
    assert reply.headers["content-type"].startswith("text/plain; version=")
    lines = dict(line.rsplit(" ", 1) for line in reply.body.decode().splitlines() if not line.startswith("#"))
    return lambda name: float(lines[name])


def test_metrics(tmp_path: Path) -> None:
    with serve(tmp_path, "memory://", "--metrics") as server:
        server.create("a-key")
        for body in (b"one", b"three"):
            server.append("a-key", body)
        server.read("a-key")
        server.ask("BREW", "/v1/stream/a-key")
        with reading(server, "a-key", "?offset=-1&live=sse") as response:
            read_until(response, b"three")
            until(lambda: values(server)("streamhub_subscribers") == 1)
            value = values(server)
            assert value('streamhub_http_requests_active{kind="live",method="GET"}') == 1
        until(lambda: values(server)("streamhub_subscribers") == 0)
        value = values(server)
        assert value("streamhub_appended_chunks_total") == 2
        assert value("streamhub_appended_bytes_total") == 8
        assert value("streamhub_append_seconds_count") == 2
        assert value("streamhub_replayed_chunks_total") >= 2
        assert value('streamhub_http_requests_total{method="PUT",status="201"}') == 1
        assert value('streamhub_http_requests_total{method="POST",status="204"}') == 2
        assert value('streamhub_http_request_seconds_count{method="GET"}') == 1
        assert value('streamhub_http_requests_active{kind="live",method="GET"}') == 0
        server.create("empty")
        with reading(server, "empty", "?offset=-1&live=sse") as response:
            until(lambda: values(server)("streamhub_subscribers") == 1)
            server.append("empty", b"first")
            read_until(response, b"first")
        assert values(server)("streamhub_first_chunk_seconds_count") == 1
        page = server.ask("GET", "/metrics").body.decode()
        assert "a-key" not in page
        assert "BREW" not in page
        assert "process_open_fds" in page or "process_" not in page


def test_access_log_is_one_line_for_each_request_whatever_it_holds(tmp_path: Path) -> None:
    with serve(tmp_path, "memory://", "--access-log") as server:
        server.create("k")
        server.append("k", b"12345")
        server.read("k", "?offset=-1&secret=hidden")
        server.read('no%0d%0a{"status":200}%1b[31m%e2%80%a8')
        server.ask("GET", "/healthz")  # probes are not worth a line
        until(lambda: len(server.out.splitlines()) == 4)
        lines = server.access
        assert [(line["method"], line["path"], line["status"], line["bytes"]) for line in lines[:3]] == [
            ("PUT", "/v1/stream/k", 201, 0),
            ("POST", "/v1/stream/k", 204, 0),
            ("GET", "/v1/stream/k", 200, 5),
        ]
        assert lines[3]["path"] == '/v1/stream/no\r\n{"status":200}\x1b[31m\u2028'
        assert lines[3]["status"] >= 400
        assert all(0 <= line["ms"] < 20_000 and abs(line["time"] - time.time()) < 60 for line in lines)
        assert "hidden" not in server.out
        assert server.out.isascii()
        assert "\x1b" not in server.out


# --- the end


@contextlib.contextmanager
def reading(server: Serving, key: str, query: str) -> Iterator[http.client.HTTPResponse]:
    """Read a stream's live response inside the block."""
    with contextlib.closing(server.connect()) as connection:
        connection.request("GET", server.stream(key) + query, headers={"Accept": "text/event-stream"})
        response = connection.getresponse()
        assert response.status == 200
        yield response


def read_until(response: http.client.HTTPResponse, text: bytes) -> None:
    read = b""
    while text not in read:
        piece = response.read1(65536)
        assert piece, read
        read += piece


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_aborts_readers_answers_appends_and_exits_in_order(
    tmp_path: Path, url: str, number: signal.Signals
) -> None:
    with serve(tmp_path, url, "--long-poll-seconds", "600", "--sse-seconds", "600", "--access-log") as server:
        assert server.create("k").status == 201
        offset = server.append("k", b"first").headers["stream-next-offset"]
        polled: list[object] = []

        def poll() -> None:
            try:
                polled.append(server.read("k", f"?offset={offset}&live=long-poll").status)
            except (http.client.HTTPException, OSError) as exc:
                polled.append(type(exc))

        poller = threading.Thread(target=poll)
        with contextlib.closing(server.connect()) as appending, reading(server, "k", "?offset=-1&live=sse") as response:
            read_until(response, b"first")
            poller.start()
            appending.putrequest("POST", server.stream("k"))
            for name, value in {**TEXT, "Content-Length": "6"}.items():
                appending.putheader(name, value)
            appending.endheaders(b"sec")
            until(lambda: _connections(server) >= 3)

            server.process.send_signal(number)
            begun = time.monotonic()
            with contextlib.suppress(http.client.IncompleteRead, ConnectionError):
                while response.read1(65536):
                    pass
            poller.join(PATIENCE_SECONDS)
            assert time.monotonic() - begun < 5
            assert polled
            assert polled[0] not in (200, None)  # nothing came, and nobody says that something did
            assert server.process.poll() is None  # it waits for the append
            appending.send(b"ond")
            answer = appending.getresponse()
            assert answer.status == 204
            answered = http_headers(answer)["stream-next-offset"]
        assert answered != offset
        assert server.process.wait(PATIENCE_SECONDS) == 0
        assert time.monotonic() - begun < 10
        assert server.err.count("\n") == 1, server.err  # nobody is told of what is in order
        assert {line["method"] for line in server.access} == {"PUT", "POST", "GET"}
    if url.startswith("sqlite"):
        with serve(tmp_path, url) as server:
            assert server.read("k").body == b"firstsecond"


def _connections(server: Serving) -> int:
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(line[1].endswith(f":{server.port:04X}") and line[3] == "01" for line in lines)


def test_client_that_sends_nothing_more_does_not_hold_the_server(tmp_path: Path) -> None:
    with serve(tmp_path, "memory://?drain_seconds=1") as server:
        assert server.create("k").status == 201
        with contextlib.closing(server.connect()) as appending, contextlib.closing(server.connect()) as idle:
            idle.request("GET", "/healthz")
            idle.getresponse().read()  # the connection stays open
            appending.putrequest("POST", server.stream("k"))
            for name, value in {**TEXT, "Content-Length": "6"}.items():
                appending.putheader(name, value)
            appending.endheaders(b"sec")
            until(lambda: _connections(server) >= 2)
            begun = time.monotonic()
            assert server.stop() == 0
            assert time.monotonic() - begun < 10


# --- what does not start


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--port", "http"], "'http' is not a port"),
        (["--port", "65536"], "'65536' is not a port"),
        (["--prefix", "streams"], "must begin and end with a slash"),
        (["--max-body", "0"], "'0' is not a whole number above 0"),
        (["--max-streams", "many"], "'many' is not a whole number above 0"),
        (["--sse-seconds", "0"], "'0' is not a number of seconds above 0"),
        (["--long-poll-seconds", "nan"], "'nan' is not a number of seconds above 0"),
        (["--keep", "-1"], "'-1' is not a number of seconds above 0"),
        (["--authorize", "nowhere:rule"], "--authorize: no module 'nowhere' (looked for in "),
        (["--authorize", "os:nothing"], "--authorize: no function 'nothing' in module 'os'"),
        (["--authorize", "os:name"], "is no function"),
        (["--authorize", "os"], "write it as module:function"),
        (["--authorize", "os:"], "write it as module:function"),
        (["--authorize", ".x:rule"], "module '.x': "),
        (
            ["--authorise", "os:getcwd"],
            "streamhub serve: error: unrecognized arguments: --authorise os:getcwd; did you mean --authorize?",
        ),
        (["--cors-origin", "http://["], "is not an origin"),
        (["--max-body", "1" * 5000], "is not a whole number above 0"),
        (["--token-file", "gone"], "no such file"),
        (["--open", "--token", "a"], "--open lets everybody in"),
        (["--open", "--authorize", "os:getcwd"], "--open lets everybody in"),
        (["--workers", "4"], "unrecognized arguments: --workers 4"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_option_is_a_usage_error(tmp_path: Path, options: list[str], said: str) -> None:
    assert said in refused(tmp_path, *options)


def test_bad_variable_is_a_usage_error_that_names_it(tmp_path: Path) -> None:
    for name, value, said in (
        ("STREAMHUB_SERVE_SSE_SECONDS", "soon", "STREAMHUB_SERVE_SSE_SECONDS: 'soon' is not a number of seconds"),
        ("STREAMHUB_SERVE_OPEN", "perhaps", "STREAMHUB_SERVE_OPEN: 'perhaps' is neither true nor false"),
        ("STREAMHUB_SERVE_CORS_ORIGINS", "*", "did you mean STREAMHUB_SERVE_CORS_ORIGIN?"),
        ("STREAMHUB_TOKENS", "a", "did you mean STREAMHUB_TOKEN?"),
        ("STREAMHUB_SERVE_TOKEN", "a", "did you mean STREAMHUB_TOKEN?"),
        ("STREAMHUB_SERVE_TOKENS", "a", "did you mean STREAMHUB_TOKEN?"),
        ("STREAMHUB_SERVE_MAX_BODY", "1" * 5000, "is not a whole number above 0"),
    ):
        assert said in refused(tmp_path, environ={name: value})


def test_empty_token_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("# none yet\n")

    assert "no token is in it" in refused(tmp_path, "--token-file", "tokens")


def test_bad_token_is_told_with_its_place_and_not_shown(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(f"{SECRET}\nwith space\n")

    in_file = refused(tmp_path, "--token-file", "tokens")
    assert "--token-file 'tokens', line 2: a token consists of" in in_file
    assert "with space" not in in_file
    assert "STREAMHUB_TOKEN: a token consists of" in refused(tmp_path, environ={"STREAMHUB_TOKEN": ""})


def test_rules_that_cannot_be_loaded_say_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "rules.py").write_text("import nowhere_to_be_found\n")

    said = refused(tmp_path, "--authorize", "rules:allow")

    assert "module 'rules': No module named 'nowhere_to_be_found'" in said


def test_backend_that_is_away_is_told_in_one_line(tmp_path: Path) -> None:
    code, err = failed(tmp_path, url=f"redis://user:hidden@127.0.0.1:{free_port()}")

    assert code == 1
    assert re.fullmatch(r"streamhub: error: .*\n", err), err
    assert "hidden" not in err


def test_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        code, err = failed(tmp_path, "--port", str(port))

    told = f"port {port} of 127.0.0.1 is in use: give another --port, or 0 for any free one"
    assert (code, err) == (1, f"streamhub: error: {told}\n")


def test_address_of_ipv6(tmp_path: Path) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:  # this machine has none
        assert failed(tmp_path, "--host", "::1")[0] == 1
        return
    with serve(tmp_path, "memory://", "--host", "::1") as server:
        assert f"serving http://[::1]:{server.port}/" in server.err


@pytest.mark.parametrize(
    ("module", "option", "extra"),
    [
        ("uvicorn", "--port=0", "serve"),
        ("starlette", "--port=0", "serve"),
        ("prometheus_client", "--metrics", "prometheus"),
    ],
)
def test_missing_extra_is_told_with_what_installs_it(tmp_path: Path, module: str, option: str, extra: str) -> None:
    code = f"import sys; sys.modules['{module}'] = None; from streamhub.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, "--url", "memory://", "serve", option],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (
        1,
        f"streamhub: error: serve needs '{module}'; install it with: pip install 'streamhub-py[{extra}]'\n",
    )
