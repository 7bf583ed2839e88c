"""The documents: every block of code in them is run, is an excerpt of a file, or says why it is neither.

A block's fate is decided by its language, and by a comment on the line before it:

* ``python``, ``shell`` and ``console`` blocks run, in the page's order, in one directory; the Python blocks of a page
  share their names, and may await at the top level;
* ``<!-- output -->``: the block is what the one before it prints;
* ``<!-- excerpt: FILE -->``: the block stands in that file (a path below docs/, or from the root), line for line;
* ``<!-- not run: REASON -->``: nothing is done; a ``text`` block needs no reason.
"""

from __future__ import annotations

import ast
import contextlib
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from docs_runner import RUN_BY_BASH, Program, write_program
from ports import free_port

from streamhub import HubSettings
from streamhub.cli.serve_options import every_option

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
RUNNER = Path(__file__).parent / "docs_runner.py"

# How many blocks of each page are run, compared with an output, are an excerpt, and are none of these. A block that
# drops out is noticed here, and so is a new page.
EXPECTED: dict[str, Counter[str]] = {
    "README.md": Counter({"run": 2, "output": 2, "not run": 5}),
    "docs/architecture.md": Counter({"excerpt": 1, "not run": 2}),
    "docs/backends/nats.md": Counter({"run": 1, "not run": 2}),
    "docs/backends/postgresql.md": Counter({"run": 1, "not run": 5}),
    "docs/backends/redis.md": Counter({"run": 1, "not run": 2}),
    "docs/backends/sqlite.md": Counter({"run": 1}),
    "docs/choose-a-backend.md": Counter({"not run": 1}),
    "docs/conformance.md": Counter({"not run": 4}),
    "docs/durable-clients.md": Counter({"excerpt": 2}),
    "docs/orphan-worker.md": Counter({"run": 3, "output": 1}),
    "docs/server.md": Counter({"run": 10, "output": 7, "not run": 8}),
    "docs/tutorial.md": Counter({"run": 25, "output": 21}),
    "docs/web.md": Counter({"excerpt": 5, "run": 1, "output": 1, "not run": 6}),
    "docs/write-a-backend.md": Counter({"excerpt": 22, "not run": 1}),
}

_FENCE = re.compile(r"(?P<indent> *)(?P<fence>`{3,})(?P<language>[a-z]*)$")
_COMMENT = re.compile(r"<!-- (?P<word>output|excerpt|not run)(?:: (?P<rest>.+?))? -->$")
_LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"#+ (?P<title>.+)$")
_CODE = re.compile(r"\b[RHFLCTEBKX][1-9][0-9]?\b")


@dataclass(frozen=True)
class Block:
    """A fenced block, and the comment before it."""

    page: str
    line: int
    language: str
    text: str
    word: str | None
    rest: str | None

    @property
    def fate(self) -> str:
        """What is done with it: ``run``, ``output``, ``excerpt`` or ``not run``."""
        if self.word is not None:
            assert self.word == "output" or self.rest, f"{self.where}: {self.word} needs a reason or a file"
            return self.word
        if self.language in ("python", *RUN_BY_BASH):
            return "run"
        assert self.language == "text", f"{self.where}: say with <!-- not run: reason --> why this block is not run"
        return "not run"

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    return ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in DOCS.rglob("*.md"))]


def blocks_of(page: str) -> list[Block]:
    return list(_blocks(page, (ROOT / page).read_text().splitlines()))


def _blocks(page: str, lines: list[str]) -> Iterator[Block]:
    number = 0
    while number < len(lines):
        start = number
        number += 1
        if (match := _FENCE.match(lines[start])) is None:
            assert "```" not in lines[start], f"{page}:{start + 1}: a fence that is not understood"
            continue
        end = lines.index(match["indent"] + match["fence"], number)
        text = textwrap.dedent("\n".join(lines[number:end])) + "\n"
        comment = _COMMENT.match(lines[start - 1].strip()) if start else None
        word, rest = (comment["word"], comment["rest"]) if comment else (None, None)
        yield Block(page, start + 2, match["language"], text, word, rest)
        number = end + 1


every_page = pytest.mark.parametrize("page", pages())


@every_page
def test_blocks_of_a_page_are_all_accounted_for(page: str) -> None:
    counts = Counter(block.fate for block in blocks_of(page))

    assert counts == EXPECTED.get(page, Counter()), f"{page}: count its blocks in EXPECTED, knowingly"


def test_every_expected_page_exists() -> None:
    assert sorted(EXPECTED) == sorted(page for page in pages() if blocks_of(page))


@every_page
def test_code_of_a_page_runs(page: str, tmp_path: Path) -> None:
    blocks = [block for block in blocks_of(page) if block.fate in ("run", "output")]
    if not blocks:
        return
    port = str(free_port())  # others may use the one that the pages name
    program = Program(
        page,
        [
            (block.language, block.line, block.text.replace(":4437", f":{port}"), block.fate == "output")
            for block in blocks
        ],
    )
    work = tmp_path / "work"
    work.mkdir()
    environ = {name: value for name, value in os.environ.items() if not name.startswith("STREAMHUB")}
    environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environ['PATH']}"
    environ["STREAMHUB_URL"] = "sqlite:///streams.db"
    environ["STREAMHUB_SERVE_PORT"] = port

    command = [sys.executable, "-W", "error", "-X", "utf8", RUNNER, write_program(program, tmp_path / "program.json")]
    code, out, err = _run_in_a_group(command, work, environ)

    assert code == 0, f"{out}\n{err}"
    assert out.splitlines()[-1:] == [f"{len(blocks)} blocks"]


def _run_in_a_group(command: list[str | Path], folder: Path, environ: dict[str, str]) -> tuple[int, str, str]:
    """Run a command; end what it has left in the background."""
    with subprocess.Popen(
        command, cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            out, err = process.communicate(timeout=50)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, out, err


@every_page
def test_excerpts_stand_in_their_files(page: str) -> None:
    for block in blocks_of(page):
        if block.fate == "excerpt":
            assert block.rest is not None
            path = next(path for path in (DOCS / block.rest, ROOT / block.rest) if path.exists())
            source = path.read_text()
            for part in re.split(r"^ *# …\n", block.text, flags=re.MULTILINE):
                assert _stands_in(textwrap.dedent(part).strip("\n"), source), f"{block.where} differs from {block.rest}"


def _stands_in(part: str, source: str) -> bool:
    """Say whether the lines of ``part`` stand in ``source`` one after another, perhaps further to the right."""
    indents = {line[: len(line) - len(line.lstrip(" "))] for line in source.splitlines()}
    wrapped = f"\n{source}\n"
    return any(f"\n{textwrap.indent(part, indent)}\n" in wrapped for indent in indents)


@every_page
def test_links_lead_somewhere(page: str) -> None:
    for target in _LINK.findall(_prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.exists(), f"{page}: no {target}"
        if anchor:
            assert anchor in _anchors(path), f"{page}: {target} names no heading"


def _prose(page: str) -> str:
    return re.sub(r"^( *)(`{3,}).*?^\1\2$", "", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)


def _anchors(path: Path) -> set[str]:
    titles = (match["title"] for match in map(_HEADING.match, path.read_text().splitlines()) if match)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_guarantees_name_the_cases_that_prove_them() -> None:
    proven = set[str]()
    for path in (ROOT / "streamhub" / "conformance").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                proven.update(_CODE.findall(ast.get_docstring(node) or ""))
    named = set(_CODE.findall(_prose("docs/guarantees.md")))

    assert named - proven == set(), "no case proves these"
    assert proven - named == set(), "docs/guarantees.md does not mention what these prove"


def test_guarantees_list_every_setting() -> None:
    listed = re.findall(r"^\| `(\w+)` \|", (DOCS / "guarantees.md").read_text(), re.MULTILINE)

    assert set(listed) >= HubSettings.names()


def test_server_page_lists_every_option_and_its_variable() -> None:
    text = (DOCS / "server.md").read_text().partition("## Options")[2].partition("\n## ")[0]

    for option in every_option():
        assert f"`--{option.name}`" in text
        assert f"`{option.variable}`" in text


@pytest.mark.parametrize(
    ("package", "title"),
    [
        ("streamhub", "The core"),
        ("streamhub/web", "Event streams over HTTP"),
        ("streamhub/web/durable", "Durable Streams"),
        ("streamhub/web/server", "What `streamhub serve` puts around it"),
    ],
)
def test_architecture_says_what_every_module_is_for(package: str, title: str) -> None:
    section = (DOCS / "architecture.md").read_text().partition(f"\n### {title}\n")[2].partition("\n##")[0]
    listed = set(re.findall(r"`(\w+\.py)`", section))
    modules = {path.name for path in (ROOT / package).glob("*.py")}

    assert listed - {"__init__.py"} == modules - {"__init__.py"}


def test_nobody_is_told_to_install_the_wrong_package() -> None:
    for page in pages():
        text = (ROOT / page).read_text()
        assert not re.search(r"(pip|uv) (install|add) +['\"]?streamhub(?![-\w])", text), page
