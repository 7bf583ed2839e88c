"""The package's SQL, read from its ``.sql`` files, for one schema."""

from __future__ import annotations

from importlib.resources import files

_NAME = "-- name: "

COLUMNS = (
    's.key, s.format, s.generation, s.owner, s.run, s.attended, s.state, s.spans, s."end", s.metadata,'
    " s.unfinished_seconds, s.ended_seconds, s.fence_seconds, s.max_bytes, s.max_chunks, s.overflow,"
    " s.content, s.first, s.tail, s.size_bytes, {late} AS late"
)
"""What ``rows.Row`` is made of."""

_FRAGMENTS = {
    "columns": COLUMNS,
    "late": "extract(epoch FROM clock_timestamp() - s.expires_at)::float8",
    "topic": "left(encode(sha256(convert_to(s.key, 'UTF8')), 'base64'), 16)",
    "channel": "(SELECT h.name FROM {schema}.channel AS h)",
}


def _read(file: str) -> str:
    return files("streamhub_postgres").joinpath("sql", file).read_text(encoding="utf-8")


def fill(text: str, schema: str) -> str:
    """Write a schema's name, and what statements have in common, into them; the name needs no escaping."""
    for name, fragment in _FRAGMENTS.items():
        text = text.replace(f"{{{name}}}", fragment)
    return text.replace("{schema}", f'"{schema}"').replace("{literal}", f"'{schema}'")


def load(file: str, schema: str) -> dict[str, str]:
    """Return the statements of a file, by the names in its ``-- name:`` lines; other comments are left out."""
    queries: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in _read(file).splitlines():
        if line.startswith(_NAME):
            lines = queries[line.removeprefix(_NAME).strip()] = []
        elif not line.lstrip().startswith("--"):
            lines.append(line)
    return {name: fill("\n".join(lines).strip().rstrip(";"), schema) for name, lines in queries.items()}


def migrations() -> list[str]:
    """Return the scripts that bring a schema from each version to the next, comments included."""
    folder = files("streamhub_postgres").joinpath("sql", "migrations")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [folder.joinpath(name).read_text(encoding="utf-8") for name in names]
