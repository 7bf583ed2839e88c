"""The suite for the backend that ``STREAMHUB_CONFORMANCE_URL`` names; ``streamhub conformance`` runs this module."""

from __future__ import annotations

import os

from streamhub.conformance.harness import Harness, UrlHarness
from streamhub.conformance.process import URL_VARIABLE
from streamhub.conformance.suite import ConformanceSuite
from streamhub.errors import ConfigError

if URL_VARIABLE not in os.environ:
    raise ConfigError(f"set {URL_VARIABLE} to the backend's URL, or run: streamhub conformance --url URL")


class TestByUrl(ConformanceSuite):
    """Every case, on the backend of the URL."""

    def make_harness(self) -> Harness:
        """Return a harness for the URL."""
        return UrlHarness(os.environ[URL_VARIABLE])
