"""The schema: made or upgraded at connecting, by one process at a time; or printed, for somebody else to do it."""

from __future__ import annotations

from collections.abc import Sequence

from streamhub.errors import ConfigError, UnsupportedFormatError
from streamhub_postgres.options import Setup
from streamhub_postgres.queries import fill, load, migrations
from streamhub_postgres.wire import Wire

MIN_SERVER = 13


async def prepare(wire: Wire, schema: str, *, setup: Setup, scripts: Sequence[str] | None = None) -> None:
    """See that the server is fit and the schema there, in the version that this release knows.

    Only ``setup="auto"`` makes or upgrades it, and nothing is written, nor any right needed, if it is there.

    Raises:
        ConfigError: the server is too old, its encoding is not UTF-8, or the schema is missing or old.
        UnsupportedFormatError: a later release made the schema.
    """
    version = wire.driver.get_server_version()[0]
    if version < MIN_SERVER:
        raise ConfigError(f"PostgreSQL {version} is too old: use {MIN_SERVER} or newer")
    ((encoding,),) = await wire.fetch("SELECT current_setting('server_encoding')")
    if encoding != "UTF8":
        raise ConfigError(f"the database's encoding is {encoding}: use one with UTF8")
    scripts = migrations() if scripts is None else scripts
    found = await _version(wire, schema)
    if found > len(scripts):
        raise UnsupportedFormatError(f"schema {schema!r}", found=found, known=len(scripts))
    if found == len(scripts):
        return
    if setup == "never":
        what = f"is of version {found}" if found else "is not there"
        raise ConfigError(
            f"schema {schema!r} {what}, and setup=never: run what this prints, as its owner:"
            f" streamhub sql --backend postgresql --schema {schema}" + (f" --since {found}" if found else "")
        )
    await _migrate(wire, schema, scripts)


async def _version(wire: Wire, schema: str) -> int:
    queries = load("schema.sql", schema)
    ((exists,),) = await wire.fetch(queries["exists"])
    if not exists:
        return 0
    ((version,),) = await wire.fetch(queries["version"])
    return int(version)


async def _migrate(wire: Wire, schema: str, scripts: Sequence[str]) -> None:
    queries = load("schema.sql", schema)
    # Each statement has to see what is there by then, whatever the role's transactions are like otherwise.
    await wire.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
    try:
        await wire.execute(queries["lock"])
        # Whoever had the lock before may have done it.
        found = await _version(wire, schema)
        if found < len(scripts):
            await wire.execute(_script(schema, found, scripts))
        await wire.execute("COMMIT")
    except BaseException:
        wire.drop()  # and with it the transaction and its lock
        raise


def _script(schema: str, since: int, scripts: Sequence[str]) -> str:
    queries = load("schema.sql", schema)
    parts: list[str] = [] if since else [f"{queries['begin']};", f"{queries['table']};"]
    for number, script in enumerate(scripts[since:], since + 1):
        parts += [fill(script, schema).strip(), f"{queries['note'].replace('{version}', str(number))};"]
    return "\n\n".join(parts)


def script_for(schema: str, *, since: int = 0) -> str:
    """Return the SQL that brings a schema from a version (0: nothing) to that of this release.

    Raises:
        ConfigError: there is no such version.
    """
    scripts = migrations()
    if not 0 <= since <= len(scripts):
        raise ConfigError(f"version {since}: this release knows 1 to {len(scripts)}")
    if since == len(scripts):
        return f"-- The schema is of version {since}: there is nothing to do."
    lock = load("schema.sql", schema)["lock"]
    return "\n\n".join(["BEGIN;", f"{lock};", _script(schema, since, scripts), "COMMIT;"])
