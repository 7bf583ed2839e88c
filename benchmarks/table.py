"""The figures as text."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.figures import Series

HEADER = ("figure", "unit", "median", "min - max", "floor", "share", "aim")


def number(value: float | None) -> str:
    """Write a value with as many digits as mean something."""
    if value is None:
        return "-"
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def table(series: Sequence[Series]) -> str:
    """Write the figures of one benchmark on one backend."""
    rows = [HEADER, *map(_row, series)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    return "\n".join(_line(row, widths) for row in rows)


def _row(series: Series) -> tuple[str, ...]:
    first = series.rounds[0]
    values = [figure.value for figure in series.rounds]
    aim = "-" if series.aim is None else ("≥ " if first.better == "more" else "≤ ") + number(series.aim)
    return (
        first.name,
        first.unit,
        number(series.median),
        f"{number(min(values))} - {number(max(values))}",
        number(series.floor),
        "-" if series.share is None else f"{100 * series.share:.0f} %",
        aim,
    )


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        cell.ljust(width) if column < 2 else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()
