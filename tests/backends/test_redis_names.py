"""What redis:// URLs say, and what keys and channels are called. No server is needed."""

from __future__ import annotations

import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot
from streamhub_redis import RedisBackend
from streamhub_redis.names import Names
from streamhub_redis.target import parse_url

from streamhub import ConfigError
from streamhub.errors import UnknownOptionError

NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=40) | st.text(
    "{}%:a*?[]\\^- ", min_size=1, max_size=12
)


@given(NAMES)
def test_all_names_of_a_stream_key_lie_in_one_slot(key: str) -> None:
    names = Names("streamhub", 0)
    found = [*names.stream(key), names.lease(key), names.cancel(key, "{run}"), names.cancel(key, key)]
    assert len({key_slot(name) for name in found}) == 1


@given(NAMES, NAMES, NAMES, NAMES)
def test_different_things_have_different_names(key: str, other: str, run: str, another: str) -> None:
    names = Names("streamhub", 0)

    def all_of(key: str, run: str) -> list[bytes]:
        return [*names.stream(key), names.lease(key), names.cancel(key, run)]

    same = [one == two for one, two in zip(all_of(key, run), all_of(other, another), strict=True)]
    assert same == [key == other] * 3 + [(key, run) == (other, another)]
    assert len(set(all_of(key, run))) == 4


@given(NAMES)
def test_a_stream_key_is_read_back_from_its_name(key: str) -> None:
    names = Names("a:b", 3)
    assert names.stream_key(names.stream(key).meta) == key


def test_prefixes_do_not_mix() -> None:
    short, long = Names("a", 0), Names("a:b", 0)
    assert not set(short.stream("k")) & set(long.stream("k"))
    assert short.stream("b:{k}") != long.stream("k")


def test_channels_of_different_databases_differ() -> None:
    one, two = Names("p", 0), Names("p", 7)
    assert one.changes_channel("k") == b"p:{k}:log"
    assert two.changes_channel("k") == b"p:{k}:log@7"
    assert two.cancel_channel("k", "r") == b"p:{k}:cancel:r@7"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://", ("server", (("localhost", 6379),), 0, None, None)),
        ("redis://h", ("server", (("h", 6379),), 0, None, None)),
        ("redis://h:1/5", ("server", (("h", 1),), 5, None, None)),
        ("redis://h?db=4", ("server", (("h", 6379),), 4, None, None)),
        ("redis://h/4/?db=4", ("server", (("h", 6379),), 4, None, None)),
        ("redis://:p%40%2F%23@[::1]:7/0", ("server", (("::1", 7),), 0, None, "p@/#")),
        ("rediss://u:p@h", ("server", (("h", 6379),), 0, "u", "p")),
        ("unix:///run/my%20redis.sock?db=2", ("socket", (), 2, None, None)),
        ("unix://u:p@/run/redis.sock", ("socket", (), 0, "u", "p")),
        ("redis+sentinel://u:p@a:1,b/main/3", ("sentinel", (("a", 1), ("b", 26379)), 3, "u", "p")),
        ("redis+cluster://u:p@a:1,b", ("cluster", (("a", 1), ("b", 6379)), 0, "u", "p")),
    ],
)
def test_urls_are_read(url: str, expected: tuple[object, ...]) -> None:
    target, _ = parse_url(url)
    assert (target.kind, target.hosts, target.db, target.username, target.password) == expected
    assert target.tls == url.startswith("rediss:")


def test_parts_of_some_urls() -> None:
    assert parse_url("unix:///run/my%20redis.sock")[0].path == "/run/my redis.sock"
    assert parse_url("redis+sentinel://a/my%2Fmaster")[0].service == "my/master"
    options = parse_url("redis://h?prefix=a:b&wait_replicas=2&tls=on&ssl_cert_reqs=none")[1]
    assert (options.prefix, options.wait_replicas, options.tls, options.ssl_cert_reqs) == ("a:b", 2, True, "none")


@pytest.mark.parametrize(
    "url",
    [
        "redis://h/x",
        "redis://h/1?db=2",
        "redis://h/-1",
        "redis://h?db=-1",
        "redis://h:port",
        "redis://h:99999",
        "redis://a,b",
        "redis://h/0#fragment",
        "redis+sentinel://a",
        "redis+sentinel:///main",
        "redis+sentinel://a/main/x",
        "redis+cluster://",
        "redis+cluster://a,",
        "redis+cluster://a/1",
        "unix://",
        "unix:///",
        "http://h",
        "redis://h?prefix=",
        "redis://h?prefix={a}",
        "redis://h?prefix=a*",
        "redis://h?wait_replicas=-1",
        "redis://h?wait_replicas=1&wait_seconds=9",
        "redis://h?timeout_seconds=0",
        "redis://h?max_push_bytes=-1",
        "redis://h?client_name=a%20b",
        "redis://h?ssl_cert_reqs=maybe",
    ],
)
def test_wrong_urls_are_refused(url: str) -> None:
    scheme, _, rest = url.partition("://")
    secret = f"{scheme}://user:geheim@{rest}" if not rest.startswith("/") else url
    with pytest.raises(ConfigError) as caught:
        RedisBackend(secret)
    assert "geheim" not in str(caught.value)


def test_an_unknown_option_names_the_nearest() -> None:
    with pytest.raises(UnknownOptionError, match="did you mean 'wait_replicas'"):
        RedisBackend("redis://h?wait_replica=1")


def test_no_password_is_shown() -> None:
    url = "redis+sentinel://user:geheim@h/main?sentinel_password=auch-geheim"
    target, options = parse_url(url)
    shown = f"{target!r} {options!r} {RedisBackend(url)!r} {target.where}"
    assert "geheim" not in shown


@pytest.mark.parametrize("scheme", ["redis", "redis+sentinel", "redis+cluster"])
@pytest.mark.parametrize("password", ["se?cret", "se/cret", "se#cret", "cret?se", "cret/se"])
def test_no_part_of_a_password_that_was_not_encoded_is_shown(scheme: str, password: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_url(f"{scheme}://u:{password}@host:1/0")
    assert "cret" not in "".join(traceback.format_exception(caught.value))
