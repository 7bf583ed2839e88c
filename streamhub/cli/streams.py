"""``ls``, ``info``, ``cancel`` and ``rm``: one question to the hub each."""

from __future__ import annotations

import sys
from argparse import Namespace

from streamhub import Hub
from streamhub.cli import output, status
from streamhub.cli.running import hub_of, run
from streamhub.types import Holder, StreamInfo


def ls(args: Namespace) -> int:
    """List streams."""
    return run(_ls(args))


def info(args: Namespace) -> int:
    """Describe a stream."""
    return run(_info(args))


def cancel(args: Namespace) -> int:
    """Ask a run to stop."""
    return run(_cancel(args))


def rm(args: Namespace) -> int:
    """Delete a stream."""
    return run(_rm(args))


async def _ls(args: Namespace) -> int:
    as_table = output.is_terminal(sys.stdout) and not args.json
    rows: list[tuple[str, ...]] = []
    async with hub_of(args) as hub:
        async for key in hub.keys(args.prefix, state=args.state):
            if not (args.json or as_table):
                print(key, flush=True)
            elif (found := await hub.info(key)) is not None:
                holder = await _holder(hub, key)
                if args.json:
                    output.print_json(output.info_facts(found, holder))
                else:
                    rows.append(_row(found, holder))
    if as_table:
        output.print_table(("KEY", "STATE", "RUN", "CHUNKS", "BYTES"), sorted(rows))
    return status.COMPLETED


def _row(info: StreamInfo, holder: Holder | None) -> tuple[str, ...]:
    chunks = str(info.tail - info.first + 1)
    return info.key, output.liveness(info, holder), info.run, chunks, str(info.size_bytes)


async def _info(args: Namespace) -> int:
    async with hub_of(args) as hub:
        found = await hub.info(args.key)
        holder = await _holder(hub, args.key)
    if found is None:
        return _missing(args.key)
    facts = output.info_facts(found, holder)
    if args.json:
        output.print_json(facts)
    else:
        output.print_table(("FACT", "VALUE"), [(name, output.value_text(value)) for name, value in facts.items()])
    return status.COMPLETED


async def _holder(hub: Hub, key: str) -> Holder | None:
    (holder,) = await hub.leases.holders([key])
    return holder


async def _cancel(args: Namespace) -> int:
    async with hub_of(args) as hub:
        result = await hub.cancel(args.key, run=args.run, reason=args.reason, requested_by=args.by, wait=args.wait)
    if args.json:
        end = output.end_facts(result.end)
        output.print_json({"key": args.key, "run": result.run, "state": result.state, "end": end})
    elif result.state != "nothing":
        ended = "" if result.end is None else f" ({output.end_text(result.end)})"
        print(f"run {result.run}: {result.state}{ended}")
    if result.state == "nothing":
        output.fail(f"nothing is running in stream {args.key!r}: name a run that is to come with --run")
        return status.ERROR
    return status.COMPLETED


async def _rm(args: Namespace) -> int:
    async with hub_of(args) as hub:
        deleted = await hub.delete(args.key)
    return status.COMPLETED if deleted else _missing(args.key)


def _missing(key: str) -> int:
    output.fail(f"stream {key!r} does not exist")
    return status.ERROR
