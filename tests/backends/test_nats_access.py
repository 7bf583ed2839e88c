"""Who may do what on a nats-server: least privilege, passwords, tokens, nkeys, credentials, certificates."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import nkeys
import pytest
import servers
from nats_servers import NatsServer, least_privilege, least_user, started
from nats_support import connected

from streamhub import ConfigError, Hub
from streamhub.conformance.drive import data_of as data
from streamhub.conformance.drive import produce_all, replay, words
from streamhub.types import Append, Retention

CERTIFICATE = Path(__file__).parent.parent / "data" / "localhost.pem"


async def work(url: str) -> None:
    """Produce a run and read it."""
    async with Hub.from_url(url) as hub:
        await produce_all(hub, "key", words(5))
        assert data(await replay(hub, "key")) == words(5)


@pytest.fixture
def server() -> Iterator[NatsServer]:
    """A server with a user of no more rights than are documented."""
    with started(servers.nats_binary("2.15"), users=least_user()) as server:
        yield server


def low(server: NatsServer, options: str = "") -> str:
    return f"{server.least_url}?timeout_seconds=30&{options}"


async def test_a_missing_right_to_create_is_told_at_once(server: NatsServer) -> None:
    async with asyncio.timeout(10):
        with pytest.raises(ConfigError, match=r"(?i)permissions violation for publish.*stream\.create"):
            async with Hub.from_url(low(server)):
                pass


async def test_missing_streams_that_must_not_be_created_are_told(server: NatsServer) -> None:
    with pytest.raises(ConfigError, match="create=false"):
        async with Hub.from_url(low(server, "create=false")):
            pass


async def test_the_documented_permissions_suffice(server: NatsServer) -> None:
    async with Hub.from_url(server.url):
        pass
    await work(low(server, "create=false"))


@pytest.mark.parametrize("right", ["sh.streamhub.s.*", "sh.streamhub.l.*", "$JS.API.DIRECT.GET.SH_streamhub"])
async def test_each_missing_right_is_a_clear_error_and_no_timeout(right: str) -> None:
    lacking = least_user(least_privilege().replace(f'"{right}"', '"none"'))
    with started(servers.nats_binary("2.15"), users=lacking) as server:
        async with Hub.from_url(server.url):
            pass
        async with asyncio.timeout(10):
            with pytest.raises(ConfigError, match=r"permissions of docs/backends/nats\.md"):
                await work(low(server, "create=false"))


async def test_a_missing_right_to_listen_is_a_clear_error_and_no_timeout() -> None:
    lacking = least_user(least_privilege().replace('"sh.streamhub.live.*"', '"none"'))
    with started(servers.nats_binary("2.15"), users=lacking) as server:
        async with Hub.from_url(server.url):
            pass
        async with asyncio.timeout(10), connected(low(server, "create=false")) as backend:
            async with backend.store.changes() as feed:
                with pytest.raises(ConfigError, match="subscription"):
                    await feed.follow("key")


async def test_a_live_message_cannot_be_forged(server: NatsServer) -> None:
    async with Hub.from_url(server.url):
        pass
    async with connected(low(server, "create=false")) as honest, connected(low(server, "create=false")) as forger:
        opened = await honest.store.open("key", 1, owner="o", run="r", expect=None, resume=False, retention=Retention())
        async with honest.store.changes() as feed:
            await feed.follow("key")
            channel = await forger._server.channel()
            with pytest.raises(ConfigError, match=r"(?i)publish to .sh\.streamhub\.live\.key"):
                await channel.ask("sh.streamhub.live.key", b"forged")
            await honest.store.append([Append("key", opened.generation, 1, (b"true",), os.urandom(12))])
            async with asyncio.timeout(10):
                change = await anext(aiter(feed))
            assert change.append is not None
            assert change.append.chunks == (b"true",)


async def test_wrong_passwords_are_refused_and_not_shown(server: NatsServer) -> None:
    with pytest.raises(ConfigError, match="refused the credentials") as caught:
        await work(f"nats://low:wr0ng@127.0.0.1:{server.port}")
    assert "wr0ng" not in str(caught.value)


async def test_percent_encoded_passwords_and_tokens_are_decoded() -> None:
    users = ', { user: odd, password: "p@ss/w#rd:" }'
    with started(servers.nats_binary("2.15"), users=users) as server:
        await work(f"nats://odd:p%40ss%2Fw%23rd%3A@127.0.0.1:{server.port}")


async def test_a_token_is_a_user_without_a_password() -> None:
    config = 'authorization { token: "t0ken" }\naccounts: {}\nno_sys_acc: true'
    server = NatsServer(servers.nats_binary("2.15"))
    server._file.write_text(f"""
        listen: "127.0.0.1:{server.port}"
        http: "127.0.0.1:{server.monitor}"
        jetstream {{ store_dir: "{server.directory}/data" }}
        {config.splitlines()[0]}
    """)
    try:
        server.start()
        await work(f"nats://t0ken@127.0.0.1:{server.port}")
        with pytest.raises(ConfigError, match="credentials"):
            await work(f"nats://wrong@127.0.0.1:{server.port}")
    finally:
        server.close()


def _pair(kind: int) -> tuple[str, str]:
    """Return a generated public key and its seed, as nkeys writes them."""
    seed = nkeys.encode_seed(os.urandom(32), kind)
    return nkeys.from_seed(bytearray(seed)).public_key.decode(), seed.decode()


async def test_nkeys_are_taken_from_a_file(tmp_path: Path) -> None:
    public, seed = _pair(nkeys.PREFIX_BYTE_USER)
    file = tmp_path / "user.nk"
    file.write_text(seed)
    with started(servers.nats_binary("2.15"), users=f", {{ nkey: {public} }}") as server:
        await work(f"nats://127.0.0.1:{server.port}?nkey={file}")
        file.write_text(_pair(nkeys.PREFIX_BYTE_USER)[1])
        with pytest.raises(ConfigError, match="credentials"):
            await work(f"nats://127.0.0.1:{server.port}?nkey={file}")
        with pytest.raises(ConfigError, match="cannot be read"):
            await work(f"nats://127.0.0.1:{server.port}?nkey={tmp_path}/missing")


def _token(claims: dict[str, object], signer: str) -> str:
    """Return a JWT as NATS has them, signed by a seed."""
    pair = nkeys.from_seed(bytearray(signer.encode()))
    claims |= {"iss": pair.public_key.decode(), "iat": int(time.time()), "jti": "x"}

    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    text = part(json.dumps({"typ": "JWT", "alg": "ed25519-nkey"}).encode()) + "." + part(json.dumps(claims).encode())
    return f"{text}.{part(pair.sign(text.encode()))}"


@asynccontextmanager
async def operated(folder: Path) -> AsyncGenerator[tuple[NatsServer, Path]]:
    """Run a server that trusts an operator, and write the credentials of a user."""
    operator, operator_seed = _pair(nkeys.PREFIX_BYTE_OPERATOR)
    account, account_seed = _pair(nkeys.PREFIX_BYTE_ACCOUNT)
    system, _ = _pair(nkeys.PREFIX_BYTE_ACCOUNT)
    member, member_seed = _pair(nkeys.PREFIX_BYTE_USER)
    limits = {"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": True, "conn": -1,
              "leaf": -1, "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}  # fmt: skip
    claims = {"type": "account", "version": 2, "limits": limits}
    app = _token({"sub": account, "name": "app", "nats": claims}, operator_seed)
    sys_claims = {"type": "account", "version": 2, "limits": limits | {"disk_storage": 0, "mem_storage": 0}}
    sys_token = _token({"sub": system, "name": "sys", "nats": sys_claims}, operator_seed)
    trusted = _token(
        {"sub": operator, "name": "op", "nats": {"type": "operator", "version": 2, "system_account": system}},
        operator_seed,
    )
    user_claims = {"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1}
    mine = _token({"sub": member, "name": "me", "nats": user_claims}, account_seed)
    creds = folder / "user.creds"
    creds.write_text(
        f"-----BEGIN NATS USER JWT-----\n{mine}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{member_seed}\n------END USER NKEY SEED------\n"
    )
    server = NatsServer(servers.nats_binary("2.15"))
    server._file.write_text(f"""
        listen: "127.0.0.1:{server.port}"
        http: "127.0.0.1:{server.monitor}"
        logfile: "{server.log}"
        jetstream {{ store_dir: "{server.directory}/data" }}
        operator: {trusted}
        system_account: {system}
        resolver: MEMORY
        resolver_preload: {{ {account}: {app}, {system}: {sys_token} }}
    """)
    try:
        server.start()
        yield server, creds
    finally:
        server.close()


async def test_credentials_are_taken_from_a_file(tmp_path: Path) -> None:
    async with operated(tmp_path) as (server, creds):
        await work(f"nats://127.0.0.1:{server.port}?creds={creds}")
        with pytest.raises(ConfigError, match="credentials"):
            await work(f"nats://127.0.0.1:{server.port}")


@pytest.mark.parametrize("first", [False, True])
async def test_connections_are_encrypted_and_the_server_is_known(first: bool) -> None:
    early = "handshake_first: true" if first else ""
    config = f'tls {{ cert_file: "{CERTIFICATE}", key_file: "{CERTIFICATE}", {early} }}'
    with started(servers.nats_binary("2.15"), config=config) as server:
        options = f"ssl_ca_certs={CERTIFICATE}&tls_first={first}"
        await work(f"tls://app:s3cret@localhost:{server.port}?{options}")
        with pytest.raises(Exception, match=r"(?i)certificate") as caught:
            await work(f"tls://app:s3cret@localhost:{server.port}?tls_first={first}&outage_seconds=0")
        assert "s3cret" not in str(caught.value)


async def test_a_certificate_may_be_the_clients_too() -> None:
    config = f'tls {{ cert_file: "{CERTIFICATE}", key_file: "{CERTIFICATE}", ca_file: "{CERTIFICATE}", verify: true }}'
    with started(servers.nats_binary("2.15"), config=config) as server:
        url = f"tls://app:s3cret@localhost:{server.port}?ssl_ca_certs={CERTIFICATE}"
        await work(f"{url}&ssl_certfile={CERTIFICATE}&ssl_keyfile={CERTIFICATE}")


@pytest.mark.filterwarnings("ignore:parameter 'timeout':DeprecationWarning")  # the driver's
async def test_websockets_are_connections_too() -> None:
    from ports import free_port

    port = free_port()
    with started(servers.nats_binary("2.15"), config=f'websocket {{ listen: "127.0.0.1:{port}", no_tls: true }}'):
        await work(f"ws://app:s3cret@127.0.0.1:{port}")
