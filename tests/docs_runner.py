"""Runs the code of one page: ``python docs_runner.py PROGRAM``, where PROGRAM was written by ``write_program``."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RUN_BY_BASH = ("shell", "sh", "console")


@dataclass(frozen=True)
class Program:
    """A page's blocks: language, line, text, and whether the text is the output of the block before it."""

    page: str
    blocks: list[tuple[str, int, str, bool]]


def write_program(program: Program, path: Path) -> Path:
    path.write_text(json.dumps(asdict(program)))
    return path


def main(path: str) -> None:
    program = Program(**json.loads(Path(path).read_text()))
    names: dict[str, Any] = {"__name__": "__main__"}
    printed = ""
    # One loop for the page: a hub that one block enters is used by the next.
    with asyncio.Runner() as runner:
        for language, line, text, is_output in program.blocks:
            where = f"{program.page}:{line}"
            if is_output:
                if _stripped(printed) != _stripped(text):
                    raise SystemExit(f"{where}: printed instead:\n{printed}")
            elif language in RUN_BY_BASH:
                printed = _run_shell(text, where)
            else:
                printed = _run_python(text, program.page, line, names, runner)
    print(f"{len(program.blocks)} blocks")


def _stripped(text: str) -> list[str]:
    # An editor may take the spaces at the ends of a page's lines away.
    return [line.rstrip() for line in text.strip().splitlines()]


def _run_python(text: str, page: str, line: int, names: dict[str, Any], runner: asyncio.Runner) -> str:
    printed = io.StringIO()
    # The empty lines make a traceback name the page's line.
    code = compile("\n" * (line - 1) + text, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    with contextlib.redirect_stdout(printed):
        if code.co_flags & inspect.CO_COROUTINE:
            runner.run(_awaited(code, names))
        else:
            exec(code, names)
    return printed.getvalue()


async def _awaited(code: Any, names: dict[str, Any]) -> None:
    await eval(code, names)


def _run_shell(text: str, where: str) -> str:
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", text], capture_output=True, text=True, check=False, timeout=30
    )
    if done.returncode:
        raise SystemExit(f"{where}: status {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main(sys.argv[1])
