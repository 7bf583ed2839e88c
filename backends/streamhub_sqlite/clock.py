"""The file's clock: it never steps, and it never goes back, whatever is done to the host's.

Time is the host's monotonic clock plus an offset that the file keeps for this boot of the host, so all processes
agree on it. The first connection after a boot chooses the offset anew: from the wall clock, but not before the
last time that the file has seen.
"""

from __future__ import annotations

import math
import time
from contextlib import suppress
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_FOREVER_MS = 2**61


class HostClock:
    """The clocks of this host, and which boot of it this is.

    Where the boot is unknown (not Linux) the wall clock stands in for the monotonic one.
    """

    def __init__(self) -> None:
        self.boot = ""
        with suppress(OSError):
            self.boot = _BOOT_ID.read_text(encoding="ascii").strip()

    def steady_ms(self) -> int:
        """Milliseconds that grow evenly as long as ``boot`` is the same."""
        return time.monotonic_ns() // 1_000_000 if self.boot else self.wall_ms()

    def wall_ms(self) -> int:
        """Milliseconds since 1970, as the host believes."""
        return time.time_ns() // 1_000_000


def milliseconds(seconds: float) -> int:
    """Convert a duration; one longer than the file can count is as good as forever."""
    return _FOREVER_MS if seconds >= _FOREVER_MS / 1000 else math.ceil(seconds * 1000)
