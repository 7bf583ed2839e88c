"""All themes in one class: what a backend's author subclasses."""

from __future__ import annotations

from streamhub.conformance.appends import AppendTests
from streamhub.conformance.cancel import CancelTests
from streamhub.conformance.concurrency import ConcurrencyTests
from streamhub.conformance.ends import EndsTests
from streamhub.conformance.faults import FaultsTests
from streamhub.conformance.fencing import FencingTests
from streamhub.conformance.handoff import HandoffTests
from streamhub.conformance.hints import HintTests
from streamhub.conformance.input import InputTests
from streamhub.conformance.lease import LeaseTests
from streamhub.conformance.limits import LimitTests
from streamhub.conformance.opens import OpenTests
from streamhub.conformance.pages import PageTests
from streamhub.conformance.replay import ReplayTests
from streamhub.conformance.retention import RetentionTests
from streamhub.conformance.takeover import TakeoverTests

EXPECTED_CASES = 341
"""How many cases the suite has at least. A run of a subclass with fewer fails: something hid them."""


class ConformanceSuite(
    ReplayTests,
    PageTests,
    HandoffTests,
    FencingTests,
    AppendTests,
    OpenTests,
    LeaseTests,
    TakeoverTests,
    CancelTests,
    HintTests,
    EndsTests,
    ConcurrencyTests,
    FaultsTests,
    RetentionTests,
    LimitTests,
    InputTests,
):
    """The whole contract. Subclass it, override ``make_harness``, and name the subclass ``Test…``."""
