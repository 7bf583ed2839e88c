"""Bad input and hard input: refused before any I/O, or stored without loss (B1 to B8)."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Generator
from importlib.metadata import EntryPoint
from typing import Any
from unittest import mock

import pytest

from streamhub import Hub
from streamhub.conformance.contract import ContractTests
from streamhub.conformance.faulty import Faults, faulty
from streamhub.conformance.harness import Harness
from streamhub.conformance.writer import Writer, described, read_all
from streamhub.errors import (
    BackendNotFoundError,
    BackendNotInstalledError,
    ChunkTooLargeError,
    ConfigError,
    InvalidChunkError,
    InvalidKeyError,
    InvalidMetadataError,
    InvalidOffsetError,
    StreamReplacedError,
)
from streamhub.inputs import MAX_KEY_BYTES, MAX_METADATA_BYTES
from streamhub.registry import GROUP, open_url
from streamhub.settings import HubSettings
from streamhub.types import COMPLETED, CancelRequest, Chunk, End, Offset, Retention, RunRef

REFUSED_NAMES = [
    "",
    "x" * (MAX_KEY_BYTES + 1),
    "é" * (MAX_KEY_BYTES // 2 + 1),
    "a\x00b",
    "a\nb",
    "\r\n",
    "tab\t",
    "\x1b[0m",
    "\x7f",
    "\x85",
    "a\u2028b",
    "\ud800",
    "a\udfffb",
]

# What has a meaning somewhere: key tags, globs, subjects, separators, SQL, URLs, formats, paths, case, normal forms.
HARD_NAMES = [
    *("{}", "{", "}", "{a}", "*", ">", ".", "a.b", "a.*", "..", "a..b", ".a", "a.", "$", "$JS", "_INBOX"),
    *(" ", "  ", " a", "a ", ":", "a:b", "::", "/", "//", "a/b", "/a", "a/", "'", '"', "''", "a'--", "`", ";", ","),
    *("%", "%s", "%00", "%25", "%2F", "_", "\\", "\\n", "\\%", "?", "[a]", "[^a]", "(", ")", "|", "^", "+", "#", "&"),
    *("=", "==", "~", "-", "--", "!", "@", "<", "0", "-1", "null", "None", "true", "start", "latest", "a", "A", "é"),
    *("e\u0301", "ß", "SS", "ss", "ı", "I", "i", "日本語", "😀", "🇫🇷", "\u200b", "\ufeff", "\u00a0", "ﬁ", "fi"),
]


class InputTests(ContractTests):
    """B: bad input."""

    # B1

    async def test_bad_keys_and_run_names_are_refused_before_any_io(self, harness: Harness) -> None:
        """B1: "A stream key or run name is not 1 to 512 bytes of UTF-8 without control characters"."""
        hub, faults = await _watched_hub(harness)
        with _no_calls(faults):
            for name in REFUSED_NAMES:
                for use in (_produce, _start, _subscribe, _cancel, Hub.info, Hub.delete):
                    with pytest.raises(InvalidKeyError):
                        await use(hub, name)
                for use in (_produce, _start, _subscribe, _cancel):
                    with pytest.raises(InvalidKeyError):
                        await use(hub, "fine", run=name)
            for name in (None, 7, b"bytes"):
                with pytest.raises((TypeError, InvalidKeyError)):
                    await _produce(hub, name)  # pyright: ignore[reportArgumentType]

    async def test_hard_keys_are_kept_and_never_collide(self, harness: Harness) -> None:
        """B1: "accepted losslessly, never colliding": streams, leases and cancels of each are its own."""
        backend = await harness.make()
        keys = [f"{name}{harness.token}{name}" for name in HARD_NAMES]
        leases = {
            key: await backend.leases.acquire(key, owner=f"o{number}", run=f"run {number}", ttl_seconds=60)
            for number, key in enumerate(keys)
        }
        for number, key in enumerate(keys):
            writer = Writer(backend.store, key, run=f"run {number}")
            await writer.open()
            await writer.append(key.encode(), b"%d" % number)
            assert await backend.cancels.request(key, "r", reason=f"reason {number}", requested_by=None, ttl_seconds=60)
        infos = await backend.store.describe(keys)
        holders = await backend.leases.holders(keys)
        pending = await backend.cancels.pending([RunRef(key, "r") for key in keys])
        for number, key in enumerate(keys):
            info, holder = infos[number], holders[number]
            assert info is not None
            assert (info.key, info.run, info.tail) == (key, f"run {number}", 2)
            assert await read_all(backend.store, key) == [key.encode(), b"%d" % number]
            assert holder is not None
            assert (holder.run, holder.generation) == (f"run {number}", leases[key].generation)
            assert pending[number] == CancelRequest(key, "r", f"reason {number}", None)
        assert await backend.leases.renew(list(leases.values())) == [True] * len(keys)

    async def test_hard_keys_are_listed_as_they_are(self, harness: Harness) -> None:
        """B1: "Yield the keys that begin with `prefix`, … each once": a prefix is text, never a pattern."""
        store = (await harness.make()).store
        keys = {f"{harness.prefix}{name}" for name in HARD_NAMES}
        for key in keys:
            await Writer(store, key).open()
        assert await _listed(store.keys(harness.prefix)) == sorted(keys)
        for name in HARD_NAMES:
            prefix = harness.prefix + name
            assert await _listed(store.keys(prefix)) == sorted(key for key in keys if key.startswith(prefix))
            # A whole key, and what begins like it but goes on otherwise.
            assert prefix in await _listed(store.keys(prefix))
            assert await _listed(store.keys(prefix + "\u2603")) == []

    async def test_key_and_run_never_run_together(self, harness: Harness) -> None:
        """B1: `a:b` + `c` against `a` + `b:c`: a request reaches "exactly this run"."""
        cancels = (await harness.make()).cancels
        base = harness.unique_key()
        for mark in (":", "/", ".", " ", "\u00a0", "|", "-", "{", "%3A", "\\"):
            one = RunRef(f"{base}{mark}b", "c")
            other = RunRef(base, f"b{mark}c")
            assert await cancels.request(*one, reason=mark, requested_by=None, ttl_seconds=60)
            found = await cancels.pending([other, one])
            assert found[0] is None
            assert found[1] is not None
            assert (found[1].key, found[1].run, found[1].reason) == (*one, mark)

    async def test_hard_keys_get_their_own_hints(self, harness: Harness) -> None:
        """B1: notifications too: each subscriber of a hard key gets its own chunks, pushed, not polled."""
        hub = await harness.hub(poll_seconds=60.0, abandon_after_seconds=180.0)
        other = await harness.hub()
        for number, name in enumerate(HARD_NAMES[::3]):
            key = f"{name}{harness.token}{number}"
            async with other.produce(key, run=name) as producer, hub.subscribe(key) as subscription:
                chunks = aiter(subscription)
                for text in ("first", "second"):
                    await producer.send(name + text)
                    assert (await anext(chunks)).text == name + text

    async def test_longest_names_are_kept(self, harness: Harness) -> None:
        """B1: 512 bytes of key and 512 of run name, in one and in four-byte characters."""
        hub = await harness.hub()
        for filler in ("x", "😀"):
            key = _fill(harness.unique_key(filler), filler)
            run = _fill("run", filler)
            async with hub.produce(key, run=run) as producer:
                await producer.send("a")
                assert (await hub.cancel(key, run=_fill("none", filler))).state == "requested"
            info = await hub.info(key)
            assert info is not None
            assert (info.key, info.run) == (key, run)
            assert [chunk.data for chunk in await _collect(hub, key, run=run)] == [b"a"]
            assert key in [found async for found in hub.keys(harness.prefix)]
            assert await hub.delete(key)

    # B2

    async def test_malformed_offsets_are_refused_before_any_io(self, harness: Harness) -> None:
        """B2: "the text is not exactly what `str(offset)` writes": InvalidOffsetError."""
        hub, faults = await _watched_hub(harness)
        texts = [
            "",
            "-",
            "1",
            "7-",
            "-7",
            "-1",
            "7--1",
            "-7-1",
            "7-1-1",
            "7:1",
            "+7-1",
            "7-+1",
            " 7-1",
            "7-1 ",
            "7-1\n",
        ]
        texts += ["07-1", "7-01", "0-0", "0-1", "7.0-1", "1e3-1", "0x7-1", "٧-١", "7_0-1", "latest ", "LATEST", "$"]
        texts += [f"{2**63}-1", f"7-{2**63}", "9" * 40 + "-1", "None", "first", "Start", "start-1"]
        with _no_calls(faults):
            for text in texts:
                with pytest.raises(InvalidOffsetError):
                    Offset.parse(text)
                with pytest.raises(InvalidOffsetError):
                    await _subscribe(hub, "fine", after=text)
            for offset in (Offset(7, -1), Offset(-7, 1), Offset(0, 1), Offset(7, 2**63)):
                with pytest.raises(InvalidOffsetError):
                    await _subscribe(hub, "fine", after=offset)
            for wrong in (7, 7.5, b"7-1"):
                with pytest.raises(TypeError):
                    await _subscribe(hub, "fine", after=wrong)

    async def test_future_offsets_are_refused(self, harness: Harness) -> None:
        """B2: beyond the tail "a new one waits `wait`, then InvalidOffsetError", on an open and an ended run."""
        hub = await harness.hub()
        key = harness.unique_key()
        async with hub.produce(key) as producer:
            await producer.send("a")
            last = await producer.flush()
            future = [last._replace(index=2), last._replace(index=2**62), Offset(last.generation + 1, 1)]
            for offset in future:
                with pytest.raises(InvalidOffsetError):
                    await _collect(hub, key, after=offset)
                with pytest.raises(InvalidOffsetError):
                    await _collect(hub, key, after=str(offset), wait=0.1)
        for offset in future:
            with pytest.raises((InvalidOffsetError, StreamReplacedError)):
                await _collect(hub, key, after=offset)
        assert await _collect(hub, key, after=last) == []

    # B3

    async def test_wrong_chunk_types_are_refused_before_any_io(self, harness: Harness) -> None:
        """B3: TypeError for what is neither text nor bytes; InvalidChunkError for what cannot be written as such."""
        hub, faults = await _watched_hub(harness)
        key = harness.unique_key()
        async with hub.produce(key) as producer:
            before = faults.calls["append"]
            for wrong in (None, 7, 7.5, True, ["a"], {"a": 1}, object(), ("a",)):
                with pytest.raises(TypeError):
                    await producer.send(wrong)  # pyright: ignore[reportArgumentType]
            for wrong in ("\ud800", "a\udfff"):
                with pytest.raises(InvalidChunkError):
                    await producer.send(wrong)
            for wrong in (object(), {1, 2}, math.nan, math.inf, b"bytes"):
                with pytest.raises(InvalidChunkError):
                    await producer.send_json(wrong)
            assert producer.offset.index == 0
            await producer.flush()
            assert faults.calls["append"] == before
            await producer.send("text é")
            await producer.send(b"\xff\x00")
            await producer.send(bytearray(b"array"))  # pyright: ignore[reportArgumentType]
            await producer.send(memoryview(b"view"))  # pyright: ignore[reportArgumentType]
            await producer.send_json({"a": ["é", None, 1.5]})
        stored = ["text é".encode(), b"\xff\x00", b"array", b"view", '{"a":["é",null,1.5]}'.encode()]
        assert await read_all(hub.store, key) == stored

    # B4

    async def test_oversized_chunk_is_refused_and_harms_nothing(self, harness: Harness) -> None:
        """B4: "One chunk is larger than the hub's `max_chunk_bytes`; the stream is unharmed"."""
        hub = await harness.hub(max_chunk_bytes=1000)
        key = harness.unique_key()
        async with hub.produce(key) as producer:
            await producer.send("a")
            for wrong in (b"x" * 1001, "é" * 501, b"x" * 5_000_000):
                with pytest.raises(ChunkTooLargeError) as caught:
                    await producer.send(wrong)
                assert caught.value.max_bytes == 1000
            with pytest.raises(ChunkTooLargeError):
                await producer.send_json("x" * 999)
            assert (await producer.send("é" * 500)).index == 2
            assert (await producer.send(b"x" * 1000)).index == 3
        assert await read_all(hub.store, key) == [b"a", "é".encode() * 500, b"x" * 1000]
        assert (await described(hub.store, key)).end == COMPLETED

    # B5

    async def test_chunks_at_the_edge_of_every_limit_arrive(self, harness: Harness) -> None:
        """B5: around 8 000 bytes, 64 KiB and 1 MiB, alone and together, replayed and pushed."""
        hub, other = await harness.hub(poll_seconds=60.0, abandon_after_seconds=180.0), await harness.hub()
        key = harness.unique_key()
        edges = [255, 4096, 7_999, 8_000, 65_535, 2**17, 2**20 - 1]
        sizes = sorted({size + step for size in edges for step in (-1, 0, 1)})
        chunks = [bytes([number]) * size for number, size in enumerate(sizes)]
        got: list[bytes] = []
        async with other.produce(key) as producer, hub.subscribe(key) as subscription:
            live = aiter(subscription)
            for chunk in chunks:
                await producer.send(chunk)
                got.append((await anext(live)).data)
            for chunk in chunks:
                await producer.send(chunk)
        assert got == chunks
        assert [chunk.data for chunk in await _collect(hub, key)] == chunks * 2

    async def test_append_of_the_most_bytes_is_stored(self, harness: Harness) -> None:
        """B5: "The most payload bytes one Append may carry": that many, in one chunk and in many."""
        store = (await harness.make()).store
        most = min(store.max_append_bytes, 8 * 2**20)
        assert most >= HubSettings().max_chunk_bytes
        writer = Writer(store, harness.unique_key())
        await writer.open()
        await writer.append(b"x" * most)
        many = [b"%d" % number for number in range(5_000)]
        rest = b"y" * (most - sum(map(len, many)))
        await writer.append(*many, rest, end=COMPLETED)
        assert await read_all(store, writer.key) == [b"x" * most, *many, rest]

    async def test_longest_texts_of_an_end_and_a_cancel_are_kept(self, harness: Harness) -> None:
        """B5: a reason of 4096 bytes is kept; one more is refused, before it is stored."""
        hub = await harness.hub()
        key = harness.unique_key()
        longest = "é" * 2048
        for text in (longest + "x", "\ud800"):
            with pytest.raises(ConfigError):
                await hub.cancel(key, run="run-1", reason=text)
            with pytest.raises(ConfigError):
                await hub.cancel(key, run="run-1", requested_by=text)
        assert await hub.cancels.pending([RunRef(key, "run-1")]) == [None]
        await hub.cancel(key, run="run-1", reason=longest, requested_by=longest)
        expected = CancelRequest(key, "run-1", longest, longest)
        assert await hub.cancels.pending([RunRef(key, "run-1")]) == [expected]
        writer = Writer(hub.store, key)
        await writer.open()
        end = End(state="failed", code="c" * 4096, message="\x00\n'\"😀" + longest)
        await writer.append(end=end)
        assert (await described(hub.store, key)).end == end

    # B6

    async def test_bad_metadata_is_refused_before_any_io(self, harness: Harness) -> None:
        """B6: "Metadata is not a JSON object of at most 64 KiB": InvalidMetadataError."""
        hub, faults = await _watched_hub(harness)
        loop: dict[str, Any] = {}
        loop["loop"] = loop
        bad: list[Any] = [{"a": object()}, {1: "a"}, {"a": math.nan}, {"a": b"x"}, {"a": {1, 2}}, {"a": (1, 2)}, loop]
        bad += [[1], "text", 7, {"a": "\ud800"}, {"a": "x" * MAX_METADATA_BYTES}]
        with _no_calls(faults):
            for metadata in bad:
                with pytest.raises((InvalidMetadataError, TypeError)):
                    await _produce(hub, "fine", metadata=metadata)
        key = harness.unique_key()
        async with hub.produce(key, metadata={"a": 1}) as producer:
            for metadata in bad:
                with pytest.raises((InvalidMetadataError, TypeError)):
                    producer.set_metadata(metadata)
            await producer.send("a")
        info = await described(hub.store, key)
        assert (info.metadata, info.tail, info.end) == ({"a": 1}, 1, COMPLETED)

    async def test_metadata_is_kept_as_it_is(self, harness: Harness) -> None:
        """B6: any JSON object up to 64 KiB, through open and append, is given back unchanged."""
        store = (await harness.make()).store
        largest = {"a": "x" * (MAX_METADATA_BYTES - len('{"a":""}'))}
        kinds: dict[str, Any] = {"": [], "é\u0000": None, "n": -1.5e300, "i": 2**53, "b": [True, False, {"x": {}}]}
        for metadata in (largest, kinds, {}):
            writer = Writer(store, harness.unique_key())
            assert (await writer.open(metadata=metadata)).metadata == metadata
            await writer.append(b"a", metadata={"other": 1})
            assert (await described(store, writer.key)).metadata == {"other": 1}
            await writer.append(b"b", metadata=metadata)
            await writer.append(b"c")
            info = await described(store, writer.key)
            assert info.metadata == metadata
            assert type(info.metadata.get("i", 1)) is int

    # B7

    async def test_zero_and_negative_times_are_refused(self, harness: Harness) -> None:
        """B7: "lease_seconds=0: use more than 0 seconds": ConfigError, before any I/O."""
        hub, faults = await _watched_hub(harness)
        wrong: tuple[Any, ...] = (0, -1, -0.5, math.nan, math.inf)
        for name in ("lease_seconds", "abandon_after_seconds", "poll_seconds", "unfinished_seconds", "ended_seconds"):
            for value in wrong:
                with pytest.raises(ConfigError, match=name):
                    HubSettings(**{name: value})
        for name in ("unfinished_seconds", "ended_seconds", "fence_seconds", "max_bytes", "max_chunks"):
            for value in wrong[:2]:
                retention = Retention(**{name: value})
                with _no_calls(faults), pytest.raises(ConfigError, match=name):
                    await _produce(hub, "fine", retention=retention)
        for use in (_produce, _start, _subscribe, _cancel):
            for value in (-1, -0.001, math.nan, math.inf):
                with _no_calls(faults), pytest.raises(ConfigError, match="wait"):
                    await use(hub, "fine", wait=value)

    async def test_lease_shorter_than_the_backend_allows_is_refused(self, harness: Harness) -> None:
        """B7: "a backend declares its minimum and default"."""
        leases = (await harness.make()).leases
        assert 0 < leases.min_ttl_seconds <= leases.default_ttl_seconds
        with pytest.raises(ConfigError, match="lease_seconds"):
            await harness.hub(lease_seconds=leases.min_ttl_seconds / 2)

    # B8

    async def test_unknown_scheme_lists_the_known_ones(self, harness: Harness) -> None:
        """B8: "no backend for scheme 'reddis'; did you mean 'redis'? known: …"."""
        scheme = (harness.url or "memory://").partition("://")[0]
        with pytest.raises(BackendNotFoundError) as caught:
            Hub.from_url(f"{scheme}x://user:secret@host/0")
        assert f"{scheme}x" in str(caught.value)
        assert f"did you mean {scheme!r}" in str(caught.value)
        assert "known: " in str(caught.value)
        assert "secret" not in str(caught.value)
        for text in ("", "no-scheme", "user:secret@host"):
            with pytest.raises(ConfigError) as refused:
                Hub.from_url(text)
            assert "secret" not in str(refused.value)

    async def test_missing_driver_names_the_extra(self, harness: Harness) -> None:
        """B8: "redis:// needs 'redis'; install it with: …"."""
        entry = EntryPoint("probe", "redis.streamhub_conformance_probe:Backend", GROUP)
        missing: dict[str, Any] = {"redis": None}
        with (
            mock.patch("streamhub.registry.entry_points", return_value=[entry]),
            mock.patch.dict(sys.modules, missing),
            pytest.raises(BackendNotInstalledError) as caught,
        ):
            Hub.from_url("probe://host")
        assert isinstance(caught.value, ImportError)
        assert "probe:// needs 'redis'" in str(caught.value)
        assert "pip install 'streamhub-py[redis]'" in str(caught.value)
        assert harness.capabilities is not None

    async def test_unknown_option_names_the_nearest(self, harness: Harness) -> None:
        """B8: "unknown URL option = error with the nearest known one"; a value that does not fit is one too."""
        url = harness.url or "memory://"
        mark = "&" if "?" in url else "?"
        with pytest.raises(ConfigError, match="lease_seconds") as caught:
            Hub.from_url(f"{url}{mark}leese_seconds=3&password=secret")
        assert "secret" not in str(caught.value)
        for option in ("lease_seconds=soon", "lease_seconds=0", "lease_seconds=1&lease_seconds=2"):
            with pytest.raises(ConfigError, match="lease_seconds"):
                Hub.from_url(f"{url}{mark}{option}")
        hub = Hub.from_url(f"{url}{mark}lease_seconds=7.5")
        assert hub.settings.lease_seconds == 7.5

    async def test_backend_says_what_it_is_without_secrets(self, harness: Harness) -> None:
        """B8: "Say what this is, in words: version, durability, limits. Never a password"."""
        backend = await harness.make()
        about = await backend.about()
        assert about
        assert all(isinstance(text, str) for pair in about.items() for text in pair)
        secret = _password(harness.url)
        if secret:
            assert secret not in repr(about)
            assert secret not in repr(backend)
        await backend.ping()

    async def test_close_is_harmless_when_repeated(self, harness: Harness) -> None:
        """B8: "Close what `connect` opened; harmless when repeated"; a backend makes no I/O before `connect`."""
        backend = await harness.make()
        await backend.aclose()
        await backend.aclose()
        if harness.url is not None:
            unconnected, _ = open_url(harness.url)
            await unconnected.aclose()


async def _watched_hub(harness: Harness) -> tuple[Hub, Faults]:
    faults = Faults()
    return await harness.hub(faulty(await harness.make(), faults), sweep_seconds=3600.0), faults


@contextlib.contextmanager
def _no_calls(faults: Faults) -> Generator[None, None, None]:
    before = faults.calls.copy()
    yield
    assert faults.calls == before, "the backend was called"


async def _produce(hub: Hub, key: str, **options: Any) -> None:
    async with hub.produce(key, **options):
        raise AssertionError("the block was entered")


async def _start(hub: Hub, key: str, **options: Any) -> None:
    async def source(_: object) -> None:
        raise AssertionError("the source was called")

    await hub.start(key, source, **options)


async def _subscribe(hub: Hub, key: str, **options: Any) -> None:
    async with hub.subscribe(key, **options) as subscription:
        async for _ in subscription:
            raise AssertionError("there is something")


async def _cancel(hub: Hub, key: str, **options: Any) -> None:
    await hub.cancel(key, **options)


async def _collect(hub: Hub, key: str, **options: Any) -> list[Chunk]:
    async with hub.subscribe(key, **options) as subscription:
        return [chunk async for chunk in subscription]


async def _listed(keys: Any) -> list[str]:
    return sorted([key async for key in keys])


def _fill(start: str, filler: str) -> str:
    room = MAX_KEY_BYTES - len(start.encode())
    whole, rest = divmod(room, len(filler.encode()))
    return start + filler * whole + "." * rest


def _password(url: str | None) -> str | None:
    userinfo = (url or "").partition("://")[2].rpartition("@")[0]
    return userinfo.partition(":")[2] or None
