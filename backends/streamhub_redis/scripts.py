"""The server-side scripts: files in ``lua/``, each one atomic step."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib.resources import files

from streamhub_redis.resp import bulks, pack

# What a script begins with is put in front of it: scripts cannot import.
_PARTS = {
    "open": ("clock", "integers", "stream", "master"),
    "append": ("clock", "integers", "stream", "master", "trim"),
    "read": ("clock", "stream"),
    "describe": ("clock", "stream", "master"),
    "delete": ("clock", "stream", "master"),
    "acquire": ("clock", "integers", "master", "lease"),
    "renew": ("clock", "master", "lease"),
    "release": ("clock", "master", "lease"),
    "holder": ("clock",),
    "request": (),
}


def _source(name: str) -> str:
    return files("streamhub_redis").joinpath("lua", f"{name}.lua").read_text("utf-8")


class Script:
    """One script, called by its digest."""

    def __init__(self, name: str) -> None:
        self.name = name
        source = "\n".join(_source(part) for part in (*_PARTS[name], name))
        self._digest = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest().encode()
        self.load: bytes = pack(b"SCRIPT", b"LOAD", source.encode())
        # What a command begins with; ``count`` arguments follow. Whoever appends to a stream does so again.
        self.begin = lru_cache(maxsize=1024)(self._begin)

    def call(self, keys: tuple[bytes, ...], *args: bytes) -> bytes:
        """Write the command that runs it."""
        return self.begin(keys, len(args)) + bulks(*args)

    def _begin(self, keys: tuple[bytes, ...], count: int) -> bytes:
        call = (b"EVALSHA", self._digest, b"%d" % len(keys), *keys)
        return b"*%d\r\n%b" % (len(call) + count, bulks(*call))


OPEN = Script("open")
APPEND = Script("append")
READ = Script("read")
DESCRIBE = Script("describe")
DELETE = Script("delete")
ACQUIRE = Script("acquire")
RENEW = Script("renew")
RELEASE = Script("release")
HOLDER = Script("holder")
REQUEST = Script("request")

ALL_SCRIPTS = (OPEN, APPEND, READ, DESCRIBE, DELETE, ACQUIRE, RENEW, RELEASE, HOLDER, REQUEST)
