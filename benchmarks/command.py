"""The command line: ``python -m benchmarks [names] [--backend …] [--rounds N] [--json FILE] [--quick]``."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.environment import environment, load_average
from benchmarks.figures import Figure, Series
from benchmarks.peers import PeerGoneError
from benchmarks.places import EMBEDDED
from benchmarks.suite import AIMS, BENCHMARKS, run_round
from benchmarks.table import markdown, table
from streamhub.options import redact

Results = dict[tuple[str, str], list[list[Figure]]]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmarks and print what they came to; 1 if one failed."""
    args = _parse(argv)
    backends: list[str] = args.backend or list(EMBEDDED)
    facts = environment(args.directory)
    results, failures = asyncio.run(_run(args, backends))
    facts["load average at the end"] = load_average()
    series = _series(results)
    for name, fact in facts.items():
        print(f"{name}: {fact}")
    for backend, benchmark in results:
        print(f"\n{benchmark}, {_label(backend)}, {args.rounds} rounds\n")
        mine = [each for each in series if (each.backend, each.benchmark) == (_label(backend), benchmark)]
        write = markdown if args.markdown else table
        print(write(mine) if mine else "nothing to measure on this backend")
    for failure in failures:
        print(f"\nfailed: {failure}")
    if args.json:
        report = {"environment": facts, "figures": [each.as_json() for each in series], "failures": failures}
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 1 if failures else 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(BENCHMARKS)}; default: all")
    parser.add_argument(
        "--backend",
        action="append",
        help="memory, sqlite, redis, postgresql, nats, nats-r3 (servers are started) or a URL; default: the first two",
    )
    parser.add_argument("--rounds", type=int, help="how often everything is measured; default: 5, 1 with --quick")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures of all rounds to a file, too")
    parser.add_argument("--markdown", action="store_true", help="print the tables as docs/benchmarks.md has them")
    parser.add_argument("--quick", action="store_true", help="do very little: it shows that all works, no speed")
    parser.add_argument("--directory", type=Path, help="for sqlite files; default: that of temporary files")
    args = parser.parse_args(argv)
    unknown = [name for name in args.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark is named {unknown[0]!r}; there are {', '.join(BENCHMARKS)}")
    args.rounds = args.rounds or (1 if args.quick else 5)
    return args


async def _run(args: argparse.Namespace, backends: Sequence[str]) -> tuple[Results, list[str]]:
    """Run round after round of everything: what disturbs the machine for a while disturbs all figures alike."""
    names = [name for name in BENCHMARKS if name in args.names] if args.names else list(BENCHMARKS)
    results: Results = {(backend, name): [] for backend in backends for name in names}
    failures: list[str] = []
    for number in range(1, args.rounds + 1):
        for backend, name in results:
            _progress(f"round {number} of {args.rounds}: {name}, {_label(backend)}")
            try:
                results[backend, name].append(
                    await run_round(name, backend, quick=args.quick, directory=args.directory)
                )
            except PeerGoneError as exc:
                failures.append(f"{name}, {_label(backend)}, round {number}: {exc}")
    _progress("")
    return results, failures


def _series(results: Results) -> list[Series]:
    series: list[Series] = []
    for (backend, benchmark), rounds in results.items():
        by_name: dict[str, list[Figure]] = {}
        for figure in (figure for figures in rounds for figure in figures):
            by_name.setdefault(figure.name, []).append(figure)
        scheme = backend.partition(":")[0]
        series += [
            Series(backend=_label(backend), benchmark=benchmark, aim=AIMS.get((scheme, name)), rounds=figures)
            for name, figures in by_name.items()
        ]
    return series


def _label(backend: str) -> str:
    return redact(backend) if "://" in backend else backend


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
