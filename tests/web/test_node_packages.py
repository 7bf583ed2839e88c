"""What the JavaScript clients are installed from: exact versions and checksums, from whatever registry npm uses."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from node_clients import DURABLE, NODE, node

PACKAGES = {
    NODE: {
        "ai": 7,
        "@ai-sdk/react": None,
        "eventsource": 5,
        "@microsoft/fetch-event-source": 2,
        "@tanstack/ai-client": None,
    },
    DURABLE: {
        "ai": 6,
        "@durable-streams/client": None,
        "@durable-streams/aisdk-transport": None,
        "@durable-streams/tanstack-ai-transport": None,
        "@tanstack/ai-client": None,
    },
}


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda folder: folder.name)
def test_lock_file_pins_versions_and_names_no_address(folder: Path) -> None:
    lock = json.loads((folder / "package-lock.json").read_text())["packages"]
    wanted = lock.pop("")
    asked = {**wanted["dependencies"], **wanted.get("devDependencies", {})}

    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in asked.values()), asked
    for name, package in lock.items():
        assert "resolved" not in package, name
        assert package["integrity"].startswith("sha512-"), name
    for name, major in PACKAGES[folder].items():
        installed = lock[f"node_modules/{name}"]["version"]
        assert major is None or int(installed.split(".")[0]) == major, (name, installed)


def test_node_is_new_enough() -> None:
    version = subprocess.run([node(), "--version"], capture_output=True, text=True, check=True, timeout=30).stdout

    assert int(version.removeprefix("v").split(".")[0]) >= 22
