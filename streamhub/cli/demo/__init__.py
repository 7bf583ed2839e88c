"""``demo``: a real text through real processes: streamed, cut, resumed, cancelled, killed, taken over, and checked."""

from __future__ import annotations

import asyncio
import tempfile
from argparse import Namespace
from pathlib import Path

from streamhub.cli import status
from streamhub.cli.demo.actors import ActorFailedError, Cast
from streamhub.cli.demo.narrator import Narrator
from streamhub.cli.demo.play import Play
from streamhub.cli.running import run

LIMIT_SECONDS = 90
# Short leases, so that a takeover is quick to watch; subscribers are patient while it happens.
OPTIONS = "lease_seconds=2&poll_seconds=0.5&abandon_after_seconds=20"


def demo(args: Namespace) -> int:
    """Play the demo; status 1 if a chunk was lost, doubled or reordered."""
    return run(_demo(args))


async def _demo(args: Namespace) -> int:
    narrator = Narrator()
    with tempfile.TemporaryDirectory(prefix="streamhub-demo-") as folder:
        url = args.url or f"sqlite:///{Path(folder) / 'demo.db'}"
        async with Cast(f"{url}{'&' if '?' in url else '?'}{OPTIONS}") as cast:
            play = Play(cast, narrator)
            try:
                async with asyncio.timeout(LIMIT_SECONDS):
                    await play.perform()
            except (ActorFailedError, TimeoutError) as exc:
                play.failures.append(str(exc) or f"not finished within {LIMIT_SECONDS} s")
                narrator.failure(play.failures[-1])
    if play.failures:
        narrator.close(f"The demo FAILED: {len(play.failures)} things went wrong.", good=False)
        return status.ERROR
    narrator.close(f"All of it arrived: nothing lost, doubled or reordered ({narrator.seconds:.1f} s).", good=True)
    return status.COMPLETED
