"""Ports for servers of the tests' own, which may go away and come back on the same one."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import socket
from collections.abc import Iterator

# Below those that systems give to outgoing connections, which might take them while a server is away; and so are those
# 10 000 above, where a Redis cluster's node talks to others. Each of the processes that run tests has its own.
_FIRST, _PROCESSES, _EACH = 10_500, 8, 1_250


def _own_ports() -> Iterator[int]:
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    first = _FIRST + int(worker) % _PROCESSES * _EACH
    start = random.randrange(_EACH)  # another session may be running
    return itertools.cycle(first + (start + number) % _EACH for number in range(_EACH))


_PORTS = _own_ports()


def free_port() -> int:
    """Return a port on which nobody listens now, nor 10 000 above it; another one each time."""
    for port in _PORTS:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for wanted in (port, port + 10_000):
                stack.enter_context(contextlib.closing(socket.socket())).bind(("127.0.0.1", wanted))
            return port
    raise AssertionError("unreachable")
