"""What a server says of itself, in words."""

from __future__ import annotations

from streamhub_postgres.wire import Wire

_SETTINGS = "SELECT current_setting('server_version'), current_setting('synchronous_commit'), current_setting('fsync')"

_COMMITS = {
    "remote_apply": "an acknowledged append is on disk, and applied by the synchronous standbys if there are any",
    "on": "an acknowledged append is on disk, and on that of the synchronous standbys if there are any",
    "remote_write": "an acknowledged append is on disk here, and handed to the synchronous standbys",
    "local": "an acknowledged append is on disk here; a failover may lose it",
    "off": "a crash of the server may lose the last fraction of a second",
}


async def describe_server(wire: Wire, *, relaxed: bool) -> dict[str, str]:
    """Describe the server behind a connection."""
    ((version, commit, fsync),) = await wire.fetch(_SETTINGS)
    commit = "off" if relaxed else commit
    durability = f"synchronous_commit {commit}: {_COMMITS.get(commit, 'unknown')}"
    if fsync != "on":
        durability = f"fsync {fsync}: WARNING: a crash of the host may lose everything"
    return {
        "version": f"PostgreSQL {version}",
        "durability": durability,
        "pooler": "in between" if wire.pooled else "none",
    }
