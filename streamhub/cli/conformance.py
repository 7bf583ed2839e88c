"""``conformance``: the suite on any backend, by URL."""

from __future__ import annotations

from argparse import Namespace

from streamhub.cli.running import environment


def conformance(args: Namespace) -> int:
    """Run the suite, and return pytest's status."""
    from streamhub.conformance.runner import run

    return run(environment(args)["STREAMHUB_URL"], args.pytest_args)
