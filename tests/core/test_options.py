"""URLs, options and settings: typed, and every mistake is named before any I/O."""

import logging
from dataclasses import dataclass
from typing import Literal

import pytest

from streamhub import (
    BackendNotFoundError,
    BackendNotInstalledError,
    ConfigError,
    Hub,
    HubSettings,
    Retention,
    UnknownOptionError,
    registry,
)
from streamhub.options import parse_options, redact, without_options


@dataclass(frozen=True)
class Options:
    prefix: str = "a"
    retries: int = 3
    ratio: float | None = None
    tls: bool = False
    mode: Literal["fast", "safe"] = "fast"


def test_options_are_typed():
    given = {"prefix": "app", "retries": "5", "ratio": "0.5", "tls": "on", "mode": "SAFE"}
    assert parse_options(Options, given, scheme="x") == Options("app", 5, 0.5, True, "safe")


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("retries", "x", "whole number"),
        ("ratio", "x", "a number"),
        ("tls", "maybe", "true or false"),
        ("mode", "slow", "'fast', 'safe'"),
    ],
)
def test_an_unfit_option_says_what_fits(name, text, says):
    with pytest.raises(ConfigError, match=says):
        parse_options(Options, {name: text}, scheme="x")


def test_an_unknown_option_names_the_nearest_of_backend_and_hub():
    with pytest.raises(UnknownOptionError, match="did you mean 'lease_seconds'"):
        Hub.from_url("memory://?lease_second=3")
    with pytest.raises(UnknownOptionError, match="did you mean 'synchronous'"):
        Hub.from_url("sqlite:///x.db?syncronous=full")


def test_an_option_given_twice_is_refused():
    with pytest.raises(ConfigError, match="twice"):
        Hub.from_url("memory://?lease_seconds=3&lease_seconds=4")


def test_an_unknown_scheme_lists_the_known_ones():
    with pytest.raises(BackendNotFoundError, match=r"'sqlight'; did you mean 'sqlite'\? known: .*memory"):
        Hub.from_url("sqlight:///x.db")


def test_what_is_no_url_is_refused():
    with pytest.raises(ConfigError, match="not a backend URL"):
        Hub.from_url("streams.db")


class _Entry:
    name, value, group = "redis", "streamhub_redis:RedisBackend", registry.GROUP

    def __init__(self, missing: str) -> None:
        self._missing = missing

    def load(self):
        raise ModuleNotFoundError(f"No module named {self._missing!r}", name=self._missing)


def test_a_missing_driver_names_the_extra(monkeypatch):
    monkeypatch.setattr(registry, "entry_points", lambda group: [_Entry("redis.asyncio")])
    with pytest.raises(
        BackendNotInstalledError, match=r"redis:// needs 'redis'; .*: pip install 'streamhub-py\[redis\]'"
    ) as caught:
        Hub.from_url("redis://localhost")
    assert isinstance(caught.value, ImportError)
    assert isinstance(caught.value, ValueError)


def test_settings_in_the_url_go_before_given_ones_and_the_environment():
    hub = Hub.from_url("memory://?lease_seconds=2", settings=HubSettings(lease_seconds=9, poll_seconds=1))
    assert (hub.settings.lease_seconds, hub.settings.poll_seconds) == (2, 1)
    environ = {
        "STREAMHUB_URL": "memory://?lease_seconds=2",
        "STREAMHUB_LEASE_SECONDS": "7",
        "STREAMHUB_MAX_CHUNKS": "5",
    }
    hub = Hub.from_env(environ)
    assert (hub.settings.lease_seconds, hub.settings.max_chunks) == (2, 5)


def test_the_hubs_retention_is_the_default_one():
    assert HubSettings().retention == Retention()


@pytest.mark.parametrize("name", ["STREAMHUB_LEASE_SECOND", "STREAMHUB_LEASES_SECONDS", "STREAMHUB_URLS"])
def test_a_misspelt_variable_is_refused(name):
    with pytest.raises(ConfigError, match=f"unknown variable {name}; did you mean"):
        Hub.from_env({"STREAMHUB_URL": "memory://", name: "3"})


def test_another_variable_under_the_prefix_is_left_alone():
    Hub.from_env({"STREAMHUB_URL": "memory://", "STREAMHUB_REQUIRE_SERVERS": "1", "STREAMHUB_DEPLOYMENT": "blue"})


def test_an_empty_environment_says_what_to_set():
    with pytest.raises(ConfigError, match="STREAMHUB_URL is not set"):
        Hub.from_env({})


@pytest.mark.parametrize(
    "settings",
    [{"lease_seconds": 0}, {"poll_seconds": -1}, {"outage_seconds": float("nan")}, {"max_chunk_bytes": 0},
     {"overflow": "drop"}, {"unfinished_seconds": float("inf")}, {"on_interrupt": "stop"}, {"sweep_seconds": 0}],
)  # fmt: skip
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        HubSettings(**settings)


async def test_a_lease_shorter_than_the_backend_allows_is_refused():
    with pytest.raises(ConfigError, match="at least"):
        async with Hub.from_url("memory://?lease_seconds=0.0001"):
            pass


@pytest.mark.parametrize(
    ("url", "shown"),
    [("redis://u:secret@h:1/0?password=secret", "redis://u:***@h:1/0"), ("redis://:secret@h", "redis://:***@h"),
     ("nats://token@h:4222", "nats://***@h:4222"), ("sqlite:///a.db", "sqlite:///a.db"),
     ("redis+cluster://u:s@a:1,b:2/x", "redis+cluster://u:***@a:1,b:2/x")],
)  # fmt: skip
def test_a_shown_url_holds_no_secret(url, shown):
    assert redact(url) == shown


@pytest.mark.parametrize(
    ("url", "left"),
    [("memory://?a=1", "memory://"), ("memory://x?a=1&b=2", "memory://x?b=2"), ("sqlite:///p%20q.db?b=%2F&a=1", "sqlite:///p%20q.db?b=%2F")],
)  # fmt: skip
def test_options_are_taken_out_of_a_url_and_the_rest_stays_as_written(url, left):
    assert without_options(url, ["a"]) == left


async def test_a_password_is_never_in_an_error_or_log(caplog):
    caplog.set_level(logging.DEBUG)
    for url in (
        "redos://user:hunter2@h/0",
        "memory://user:hunter2@[x]",
        "memory://[hunter2]",
        "memory://user:hunter2@h",
        "redis//u:hunter2@h",
        "user:hunter2@h",
    ):
        with pytest.raises(ConfigError) as caught:
            Hub.from_url(url)
        assert "hunter2" not in str(caught.value)
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize("password", ["se?cret", "se?cret=1", "12?cret", "se?a=1&cret"])
def test_a_password_that_was_not_encoded_is_not_shown(password: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Hub.from_url(f"memory://u:{password}@host")
    assert "cret" not in str(caught.value)
