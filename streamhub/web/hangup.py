"""Cutting a connection off under its server, for a client that does not read.

ASGI has no message for it, and servers close politely: they keep what is not sent until the client takes it, which one
that is frozen never does. The connection is found among the process's own sockets by its two addresses.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def hang_up(client: Any, server: Any) -> bool:
    """Reset the TCP connection between ``client`` and ``server``, as an ASGI scope names them.

    Returns:
        Whether it was found: not where there are no file descriptors to look at, nor where the addresses are another
        hop's, as behind a proxy; the proxy drops a frozen client itself.
    """
    if not _is_address(client) or not _is_address(server):
        return False
    wanted = (client[1], server[1])
    for connection in _connections():
        with connection, suppress(OSError):
            if (connection.getpeername()[1], connection.getsockname()[1]) == wanted and _host(connection) == client[0]:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                connection.shutdown(socket.SHUT_RDWR)
                return True
    return False


def _is_address(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and len(value) == 2 and bool(value[1])  # pyright: ignore[reportUnknownArgumentType]


def _host(connection: socket.socket) -> str:
    return str(connection.getpeername()[0]).partition("%")[0]


def _connections() -> Iterator[socket.socket]:
    """Yield the process's TCP connections, each under a descriptor of its own."""
    try:
        names = os.listdir("/dev/fd")
    except OSError:
        return
    for name in names:
        with suppress(OSError, ValueError):
            own = os.dup(int(name))
            try:
                connection = socket.socket(fileno=own)
            except OSError:  # no socket
                os.close(own)
                continue
            if connection.family in (socket.AF_INET, socket.AF_INET6) and connection.type == socket.SOCK_STREAM:
                yield connection
            else:
                connection.close()
