"""The list of behaviours in docs/conformance.md, and the cases that the suite has for each.

Run as a script, it writes the cases' names into the list.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

from streamhub.conformance.contract import case_names
from streamhub.conformance.suite import ConformanceSuite

DOCUMENT = Path(__file__).parents[2] / "docs" / "conformance.md"

_CODE = re.compile(r"([A-Z][0-9]+): ")
_ENTRY = re.compile(
    r"^- \*\*(?P<code>[A-Z][0-9]+)\*\* (?P<text>.*(?:\n  (?!`).*)*)(?P<cases>(?:\n  .*)*)", re.MULTILINE
)


def cases_by_code() -> dict[str, list[str]]:
    """Read the cases' docstrings."""
    found: dict[str, list[str]] = {}
    for name in case_names(ConformanceSuite):
        match = _CODE.match(getattr(ConformanceSuite, name).__doc__ or "")
        found.setdefault(match[1] if match else "", []).append(name)
    return found


def documented() -> dict[str, list[str]]:
    """Read the document."""
    text = DOCUMENT.read_text()
    return {entry["code"]: re.findall(r"`(test_\w+)`", entry["cases"]) for entry in _ENTRY.finditer(text)}


def rewritten(text: str) -> str:
    """Return the document with the cases' names as the docstrings have them."""
    cases = cases_by_code()

    def entry(match: re.Match[str]) -> str:
        names = ", ".join(f"`{name}`" for name in cases.get(match["code"], []))
        lines = textwrap.wrap(names, 116, break_long_words=False, break_on_hyphens=False)
        return "\n".join([f"- **{match['code']}** {match['text']}", *(f"  {line}" for line in lines)])

    return _ENTRY.sub(entry, text)


if __name__ == "__main__":
    DOCUMENT.write_text(rewritten(DOCUMENT.read_text()))
