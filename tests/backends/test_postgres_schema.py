"""How the schema of postgresql:// comes about, who may make it, and what a URL may say."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import servers
from postgres_servers import PASSWORD, ROLE, PostgresServer, give, least_privilege, started
from postgres_support import PostgresHarness, connected
from streamhub_postgres import PostgresBackend, PostgresOptions
from streamhub_postgres.queries import migrations
from streamhub_postgres.schema import prepare
from streamhub_postgres.target import parse_url
from streamhub_postgres.wire import open_wire

from streamhub import Hub
from streamhub.conformance.drive import data_of, produce_all, replay, soon
from streamhub.conformance.waiting import eventually
from streamhub.conformance.writer import Writer, read_all
from streamhub.errors import (
    BackendUnavailableError,
    ConfigError,
    HubClosedError,
    UnknownOptionError,
    UnsupportedFormatError,
)
from streamhub.types import COMPLETED


@pytest.fixture
def server() -> PostgresServer:
    return servers.postgres_server("18")


@pytest.fixture
async def database(server: PostgresServer) -> AsyncIterator[str]:
    """An empty database of its own; the superuser's URL."""
    async with fresh_database(server) as url:
        yield url


class fresh_database:  # noqa: N801
    def __init__(self, server: PostgresServer, *, options: str = "") -> None:
        self._server, self._options = server, options
        self.name = f"db_{os.urandom(6).hex()}"

    async def __aenter__(self) -> str:
        await self._run(f"CREATE DATABASE {self.name} {self._options}")
        return self._server.url.removesuffix("postgres") + self.name

    async def __aexit__(self, *_: object) -> None:
        await self._run(f"DROP DATABASE {self.name} WITH (FORCE)")

    async def _run(self, statement: str) -> None:
        admin = await asyncpg.connect(self._server.url)
        await admin.execute(statement)
        await admin.close()


async def run(url: str, *statements: str) -> list[Any]:
    connection = await asyncpg.connect(url)
    try:
        return [await connection.fetch(statement) for statement in statements][-1]
    finally:
        await connection.close()


def as_role(url: str) -> str:
    return url.replace("postgres@", f"{ROLE}:{PASSWORD}@")


# --- setup


async def test_the_first_connection_makes_the_schema(database: str) -> None:
    for _ in range(2):
        async with connected(f"{database}?schema=mine") as backend:
            writer = Writer(backend.store, "k")
            await writer.open()
            await writer.append(b"a")
    assert [tuple(row) for row in await run(database, "SELECT version FROM mine.migration")] == [(1,)]
    assert await run(database, "SELECT 1 FROM pg_namespace WHERE nspname = 'streamhub'") == []


_STARTER = """
import asyncio, sys
from streamhub import Hub

async def main():
    sys.stdin.readline()
    async with Hub.from_url(sys.argv[1]) as hub:
        async with hub.produce(sys.argv[2]) as producer:
            await producer.send(b"a")

asyncio.run(main())
"""


async def test_processes_that_start_first_together_make_it_once(database: str) -> None:
    command = [sys.executable, "-c", _STARTER, database]
    processes = [
        subprocess.Popen([*command, f"k{number}"], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        for number in range(12)
    ]
    for process in processes:  # all have imported what they need before any goes on
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.close()
    for process in processes:
        assert process.stderr is not None
        said = await asyncio.to_thread(process.stderr.read)
        assert await asyncio.to_thread(process.wait) == 0, said.decode()
        process.stderr.close()
    assert [tuple(row) for row in await run(database, "SELECT version FROM streamhub.migration")] == [(1,)]
    assert [row["n"] for row in await run(database, "SELECT count(*) AS n FROM streamhub.stream")] == [12]


async def test_a_role_without_rights_uses_what_others_made(server: PostgresServer, database: str) -> None:
    """No right to create anything is needed, or used, when the schema is there; and those that are documented do."""
    script = subprocess.run(
        [sys.executable, "-m", "streamhub", "sql", "--backend", "postgresql", "--schema", "app"],
        capture_output=True, check=True, text=True,
    ).stdout  # fmt: skip
    connection = await asyncpg.connect(database)
    await connection.execute(script)
    await connection.execute(least_privilege("app"))
    await connection.close()
    for setup in ("auto", "never"):
        async with Hub.from_url(f"{as_role(database)}?schema=app&setup={setup}") as hub:
            await produce_all(hub, setup, [b"a", b"b"])
            assert data_of(await replay(hub, setup)) == [b"a", b"b"]
            assert await hub.delete(setup)
            await hub.store.sweep(10)
    with pytest.raises(ConfigError, match="permission denied"):
        async with connected(f"{as_role(database)}?schema=other"):
            pass
    await run(database, f"REVOKE INSERT ON app.record FROM {ROLE}")
    async with connected(f"{as_role(database)}?schema=app") as backend:
        writer = Writer(backend.store, "refused")
        await writer.open()
        with pytest.raises(ConfigError, match=r"permission denied for table record.*docs/backends/postgresql\.md"):
            await writer.append(b"a")


async def test_setup_never_makes_nothing(database: str) -> None:
    with pytest.raises(ConfigError, match="streamhub sql --backend postgresql --schema streamhub"):
        async with connected(f"{database}?setup=never"):
            pass
    assert await run(database, "SELECT 1 FROM pg_namespace WHERE nspname = 'streamhub'") == []


async def test_what_is_printed_is_what_is_made(database: str, server: PostgresServer) -> None:
    async with connected(f"{database}?schema=same"):
        pass
    async with fresh_database(server) as other:
        connection = await asyncpg.connect(other)
        await connection.execute(PostgresBackend.setup_sql("same"))
        await connection.close()
        assert dump(server, database) == dump(server, other)
    assert PostgresBackend.setup_sql("same", since=1).startswith("-- ")
    for wrong in (-1, 99):
        with pytest.raises(ConfigError, match="this release knows"):
            PostgresBackend.setup_sql("same", since=wrong)


def dump(server: PostgresServer, url: str) -> list[str]:
    text = server._run("pg_dump", "--schema-only", "--no-owner", url)
    return [line for line in text.splitlines() if line and not line.startswith(("--", "\\"))]


NEXT = "ALTER TABLE {schema}.stream ADD COLUMN note text; UPDATE {schema}.stream SET note = key;"


async def upgrade(url: str, schema: str, scripts: list[str]) -> None:
    target, options = parse_url(f"{url}?schema={schema}")
    wire = await open_wire(target, options)
    try:
        await prepare(wire, schema, setup=options.setup, scripts=scripts)
    finally:
        await wire.aclose()


async def test_a_later_release_upgrades_the_schema_in_place_once(database: str) -> None:
    async with connected(database) as backend:
        writer = Writer(backend.store, "k")
        await writer.open()
        await writer.append(b"a", b"b", end=COMPLETED)
    await asyncio.gather(*(upgrade(database, "streamhub", [*migrations(), NEXT]) for _ in range(8)))
    assert [tuple(row) for row in await run(database, "SELECT key, note FROM streamhub.stream")] == [("k", "k")]
    assert [row["version"] for row in await run(database, "SELECT version FROM streamhub.migration ORDER BY 1")] == [
        1,
        2,
    ]
    # This release does not know it, and touches nothing.
    with pytest.raises(UnsupportedFormatError, match="upgrade streamhub"):
        async with connected(database):
            pass


async def test_an_upgrade_that_fails_changes_nothing(database: str) -> None:
    async with connected(database):
        pass
    with pytest.raises(asyncpg.PostgresError):
        await upgrade(database, "streamhub", [*migrations(), NEXT + "SELECT 1/0;"])
    assert [row["version"] for row in await run(database, "SELECT version FROM streamhub.migration")] == [1]
    async with connected(database) as backend:
        assert await backend.store.describe(["k"]) == [None]


async def test_an_old_schema_and_setup_never_say_how_to_upgrade(database: str) -> None:
    async with connected(database):
        pass
    target, options = parse_url(database)
    wire = await open_wire(target, options)
    with pytest.raises(ConfigError, match="--since 1"):
        await prepare(wire, "streamhub", setup="never", scripts=[*migrations(), NEXT])
    await wire.aclose()


SAMPLE = Path(__file__).parent / "samples" / "postgres-v1.sql"


async def test_data_of_version_1_is_read_and_continued(database: str) -> None:
    """The sample was written by the first release: schema, streams, a lease and a request."""
    connection = await asyncpg.connect(database)
    await connection.execute(SAMPLE.read_text())
    await connection.execute(
        "UPDATE streamhub.stream SET expires_at = now() + interval '1 day', due_at = now() + interval '1 day'"
    )
    await connection.close()
    async with connected(database) as backend:
        assert await read_all(backend.store, "ended") == [b"one", b"", "drei €".encode()]
        ended, unfinished = await backend.store.describe(["ended", "unfinished"])
        assert ended is not None
        assert unfinished is not None
        assert (ended.state, ended.end, dict(ended.metadata)) == ("ended", COMPLETED, {"model": "m"})
        assert [span.first for span in unfinished.spans] == [1, 3]
        writer = Writer(backend.store, "unfinished")
        await writer.open(resume=True)
        await writer.append(b"d")
        assert await read_all(backend.store, "unfinished") == [b"a", b"b", b"c", b"d"]


async def test_another_schema_shares_nothing(database: str) -> None:
    async with connected(f"{database}?schema=one") as one, connected(f"{database}?schema=two") as two:
        await Writer(one.store, "k").open()
        assert await two.store.describe(["k"]) == [None]
        assert [key async for key in two.store.keys()] == []  # noqa: SIM118
        await two.leases.acquire("k", owner="o", run="r", ttl_seconds=9)
        assert await one.leases.holders(["k"]) == [None]


async def test_the_search_path_is_neither_used_nor_changed(database: str) -> None:
    """Names are qualified: decoys in every schema that is searched are not found."""
    await run(database, "CREATE TABLE public.stream (decoy int)", "CREATE TABLE public.record (decoy int)")
    async with connected(database) as backend:
        writer = Writer(backend.store, "k")
        await writer.open()
        await writer.append(b"a")
        before = await run(database, "SHOW search_path")
        assert await backend._session.fetch(backend._session.reading, "SHOW search_path") == before
    sql = "".join(
        path.read_text() for path in (Path(__file__).parents[2] / "backends/streamhub_postgres/sql").rglob("*.sql")
    )
    assert "search_path" not in sql


async def test_a_database_of_another_encoding_is_refused(server: PostgresServer) -> None:
    async with fresh_database(server, options="ENCODING 'LATIN1' TEMPLATE template0 LOCALE 'C'") as url:
        with pytest.raises(ConfigError, match="encoding is LATIN1"):
            async with connected(url):
                pass


async def test_a_schema_that_is_dropped_says_so(database: str) -> None:
    async with connected(database) as backend:
        await run(database, "DROP SCHEMA streamhub CASCADE")
        with pytest.raises(ConfigError, match="make the schema again"):
            await backend.store.describe(["k"])


# --- URLs


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://h/db#x", "no fragment"),
        ("postgresql://u:se?cret@h:nan/db", None),
        ("postgresql://u:secret@h:nan/db", "numbers as ports"),
        ("postgresql://h/db?port=x", "numbers"),
        ("postgresql://h/db?schema=a-b", "letters, digits"),
        ("postgresql://h/db?schema=", "letters, digits"),
        ("postgresql://h/db?push_bytes=9000", "use 0 to 1500"),
        ("postgresql://h/db?timeout_seconds=0", "more than 0"),
        ("postgresql://h/db?setup=later", "use one of 'auto', 'never'"),
        ("postgresql://h/db?durability=none", "use one of 'full', 'relaxed'"),
        ("postgresql://h/db?listen_port=99999", "use 1 to 65535"),
        ("postgresql://h/db?target_session_attrs=x", "use one of any, primary"),
        ("postgresql://h/db?channel_binding=require", "use one of 'disable', 'prefer'"),
    ],
)
def test_wrong_urls_are_refused_without_their_password(url: str, message: str | None) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        PostgresBackend(url)
    assert "secret" not in str(caught.value)


def test_unknown_options_name_the_nearest() -> None:
    with pytest.raises(UnknownOptionError, match="did you mean 'sslmode'") as caught:
        PostgresBackend("postgresql://h/db?ssl_mode=require")
    assert "timeout_seconds" in caught.value.known


def test_urls_of_libpq_are_understood() -> None:
    target, options = parse_url(
        "postgres://u:p%40ss@one:1,two:2/db?sslmode=require&application_name=chat&connect_timeout=3&schema=s&push_bytes=0"
    )
    assert target.url == "postgres://u:p%40ss@one:1,two:2/db?sslmode=require"
    assert target.where == "postgresql at one:1,two:2/db"
    assert (options.schema, options.application_name, options.connect_limit_seconds) == ("s", "chat", 3.0)
    assert "p%40ss" not in repr(target)
    assert "password" not in repr(PostgresOptions(password="x"))
    for url, where in (
        ("postgresql:///db?host=/run/postgresql", "postgresql at /run/postgresql/db"),
        ("postgresql://", "postgresql at the default host"),
        ("postgresql://[::1]:5433/db", "postgresql at [::1]:5433/db"),
    ):
        assert parse_url(url)[0].where == where


async def test_a_socket_in_the_file_system_is_reached(server: PostgresServer) -> None:
    async with (
        fresh_database(server) as url,
        connected(
            f"postgresql://postgres@/{url.rpartition('/')[2]}?host={server.directory}&port={server.port}"
        ) as backend,
    ):
        await backend.ping()


async def test_wrong_credentials_and_databases_are_not_outages(server: PostgresServer, database: str) -> None:
    for url, message in (
        (as_role(database).replace(PASSWORD, "hunter2"), "password authentication failed"),
        (database.replace("/db_", "/no_"), "does not exist"),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            async with connected(url):
                pass
        assert "hunter2" not in str(caught.value)


async def test_a_server_that_is_not_there_is_an_outage() -> None:
    with pytest.raises(BackendUnavailableError, match=r"127\.0\.0\.1:1"):
        async with connected("postgresql://postgres:s3cret@127.0.0.1:1/postgres"):
            pass


async def test_a_standby_is_not_taken_for_a_primary(server: PostgresServer) -> None:
    replica = server.standby()
    try:
        replica.start()
        with pytest.raises(BackendUnavailableError):
            async with connected(replica.url):
                pass
        async with connected(
            f"{replica.url.replace(f':{replica.port}', f':{replica.port},127.0.0.1:{server.port}')}?schema=st"
        ):
            pass
        await run(server.url, "DROP SCHEMA st CASCADE")
    finally:
        replica.close()


async def test_a_closed_backend_says_so_and_opens_again(database: str) -> None:
    backend = PostgresBackend(database)
    for _ in range(2):
        await backend.connect()
        await backend.ping()
        await backend.aclose()
        with pytest.raises(HubClosedError):
            await backend.ping()
        with pytest.raises(HubClosedError):
            async with backend.store.changes():
                pass


# --- the command


def command(*arguments: str, url: str | None = None) -> subprocess.CompletedProcess[str]:
    environ = {key: value for key, value in os.environ.items() if not key.startswith("STREAMHUB")}
    if url is not None:
        environ["STREAMHUB_URL"] = url
    return subprocess.run(
        [sys.executable, "-m", "streamhub", *arguments], env=environ, capture_output=True, text=True, check=False
    )


def test_sql_needs_a_backend_that_has_some() -> None:
    assert 'CREATE TABLE "streamhub".stream' in command("sql").stdout
    for arguments, message in (
        (("--backend", "sqlite"), "sqlite:// needs no SQL"),
        (("--backend", "postgre"), "did you mean 'postgres'"),
        (("--schema", 'x"; DROP TABLE y'), "letters, digits and underscores"),
        (("--since", "7"), "version 7: this release knows 1 to"),
    ):
        refused = command("sql", *arguments)
        assert refused.returncode == 1
        assert message in refused.stderr


async def test_gc_removes_what_has_expired(database: str) -> None:
    async with Hub.from_url(f"{database}?ended_seconds=0.1&fence_seconds=0.1&sweep_seconds=3600") as hub:
        for number in range(5):
            await produce_all(hub, f"k{number}", [b"a"])
    removed = 0
    async with asyncio.timeout(30):
        while removed < 5:
            done = await asyncio.to_thread(command, "gc", url=database)
            assert done.returncode == 0, done.stderr
            removed += int(done.stdout.split()[0])
    for table in ("stream", "record", "garbage", "lease", "request"):
        await asyncio.to_thread(command, "gc", url=database)
        assert [row["n"] for row in await run(database, f"SELECT count(*) AS n FROM streamhub.{table}")] == [0]


async def test_doctor_tells_what_it_found(server: PostgresServer, database: str) -> None:
    done = await asyncio.to_thread(command, "doctor", "--json", url=database)
    assert done.returncode == 0, done.stderr
    about = json.loads(done.stdout)["STREAMHUB_URL"]["about"]
    assert about["version"].startswith("PostgreSQL 18")


# --- a pooler


async def test_a_pooler_is_noticed_and_looked_through(server: PostgresServer) -> None:
    pooler = servers.pgbouncer(server)
    async with PostgresHarness(server, pooler=pooler) as harness:
        backend = await harness.connect_kept()
        assert (await backend.about())["pooler"] == "in between"
        async with backend.store.changes():
            assert "looks" in (await backend.about())["notifications"]
            # Nobody listens inside of it, where it would never end.
            assert await run(server.url, "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'LISTEN%'") == []


# --- encryption, and what else libpq knows

CERTIFICATE = Path(__file__).parent.parent / "data" / "localhost.pem"


async def test_encrypted_connections_are_verified(tmp_path: Path) -> None:
    with started(servers.postgres_binaries("15")) as server:  # the wheel's knows no encryption
        for name in ("server.crt", "server.key"):
            path = server.data / name
            path.write_bytes(CERTIFICATE.read_bytes())
            path.chmod(0o600)
            give(path)
        server.psql("ALTER SYSTEM SET ssl = on")
        server.psql("SELECT pg_reload_conf()")
        url = server.url.replace("127.0.0.1", "localhost")
        for mode, root, schema in (("require", "", "a"), ("verify-full", f"&sslrootcert={CERTIFICATE}", "b")):
            async with connected(f"{url}?sslmode={mode}{root}&schema={schema}") as backend:
                async with backend.store.changes() as feed:
                    await feed.follow("k")
                    await Writer(backend.store, "k").open()
                    assert (await anext(aiter(feed))).key == "k"
                encrypted = await run(
                    server.url,
                    "SELECT DISTINCT s.ssl FROM pg_stat_ssl AS s JOIN pg_stat_activity AS a USING (pid)"
                    " WHERE a.application_name LIKE 'streamhub%'",
                )
                assert [tuple(row) for row in encrypted] == [(True,)]
        stranger = tmp_path / "other.pem"
        stranger.write_text("")
        with pytest.raises((BackendUnavailableError, ConfigError)):
            async with connected(f"{url}?sslmode=verify-full&sslrootcert={stranger}&schema=c"):
                pass


async def test_options_of_the_session_reach_the_server(database: str) -> None:
    async with connected(f"{database}?application_name=chat&options=-c%20statement_timeout%3D12345ms") as backend:
        session = backend._session
        for setting, expected in (("statement_timeout", "12345ms"), ("application_name", "chat")):
            ((value,),) = await session.fetch(session.reading, f"SHOW {setting}")
            assert value == expected
        async with backend.store.changes():
            found = await run(database, "SELECT 1 FROM pg_stat_activity WHERE application_name = 'chat listening'")
            assert len(found) == 1


# --- the race of two first connections


async def test_whoever_waits_for_the_lock_sees_what_was_made_meanwhile(database: str) -> None:
    """It has looked before, found nothing, and may remember that: the server keeps what it has looked up."""
    script = PostgresBackend.setup_sql("streamhub")
    begin, _, rest = script.partition("DO $$")
    maker = await asyncpg.connect(database)
    await maker.execute(begin)  # with the lock, and nothing else yet
    backend = PostgresBackend(database)
    connecting = asyncio.create_task(backend.connect())
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    await eventually(lambda: maker.fetchval(waiting))
    await maker.execute(f"DO $${rest}")
    await maker.close()
    await soon(connecting)
    await Writer(backend.store, "k").open()
    await backend.aclose()
    assert [row["version"] for row in await run(database, "SELECT version FROM streamhub.migration")] == [1]
