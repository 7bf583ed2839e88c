"""Every behaviour of docs/conformance.md has its cases, and every case its behaviour."""

from __future__ import annotations

import inspect

from behaviours import DOCUMENT, cases_by_code, documented, rewritten

from streamhub.conformance.contract import ContractTests, case_names
from streamhub.conformance.suite import EXPECTED_CASES, ConformanceSuite

BEHAVIOURS = 110


def test_every_behaviour_has_a_case() -> None:
    assert len(documented()) == BEHAVIOURS
    assert not sorted(set(documented()) - set(cases_by_code()))


def test_every_case_has_a_behaviour() -> None:
    assert not sorted(set(cases_by_code()) - set(documented()))


def test_document_names_the_cases() -> None:
    text = DOCUMENT.read_text()
    assert rewritten(text) == text, "run python tests/conformance/behaviours.py"


def test_every_case_is_asynchronous() -> None:
    # One that is not would pass without its harness being closed.
    assert all(inspect.iscoroutinefunction(getattr(ConformanceSuite, name)) for name in case_names(ConformanceSuite))


def test_suite_has_every_theme() -> None:
    themes = [theme for theme in ContractTests.__subclasses__() if theme.__module__.startswith("streamhub.")]
    assert all(issubclass(ConformanceSuite, theme) for theme in themes)


def test_number_of_cases_is_the_expected_one() -> None:
    # Cases with parameters count once each: the number is what pytest collects.
    count = sum(_parameters(name) for name in case_names(ConformanceSuite))
    assert count == EXPECTED_CASES, f"set suite.EXPECTED_CASES = {count}"


def _parameters(name: str) -> int:
    count = 1
    for mark in getattr(getattr(ConformanceSuite, name), "pytestmark", []):
        if mark.name == "parametrize":
            count *= len(mark.args[1])
    return count
