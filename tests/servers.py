"""Which tests may be skipped, and when a missing server is a failure.

A test that cannot run here skips with a reason. ``STREAMHUB_REQUIRE_SERVERS=1`` (set by .ci/run) turns every
skip into a failure, but for the reasons of ``OPTIONAL``: each is a pattern with the ground on which it may be skipped.
"""

from __future__ import annotations

import os
import re

OPTIONAL = {
    # A harness says what its backend cannot do; the conformance plugin counts these, and checks the names.
    r".+ does not declare \w+": "an ability that the backend does not have",
    r"needs the repository, not only the sdist": "what only a clone has",
    r"needs Python 3\.\d+": "another interpreter than this one",
}


def required() -> bool:
    """Say whether a skip that is not optional fails the session."""
    return os.environ.get("STREAMHUB_REQUIRE_SERVERS", "") not in ("", "0")


def ground(reason: str) -> str | None:
    """Return the ground on which a skip for this reason is allowed, or None."""
    reason = reason.removeprefix("Skipped: ")
    return next((ground for pattern, ground in OPTIONAL.items() if re.fullmatch(pattern, reason)), None)
