"""The shape of the sources: imports point one way, modules and functions stay small, nothing is left lying about."""

from __future__ import annotations

import ast
import builtins
import graphlib
import inspect
import math
import re
import statistics
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

import streamhub

ROOT = Path(__file__).parent.parent

# The core, from the ground up. A module imports what stands in its own row or above, and no cycle arises.
LAYERS = [
    ("errors", "types", "protocols", "sse"),
    ("inputs", "records", "rules", "options", "observer", "settings", "registry", "kit"),
    ("tasks", "nonces", "interrupt", "outage", "link", "cursor", "reader", "window"),
    ("lane", "committer", "feed", "keeper", "cancellation"),
    ("producer", "subscription", "run", "starter", "block", "canceller", "listing"),
    ("core",),
    ("lifespan",),
    ("hub",),
    ("__init__",),
    ("conformance", "web", "cli", "prometheus"),
    ("__main__",),
]
LAYER = {module: number for number, row in enumerate(LAYERS) for module in row}

# What others may import: a backend the first group and the top level, the conformance suite the second one too.
FOR_BACKENDS = {"", "errors", "types", "protocols", "rules", "records", "options", "inputs", "kit"}
PUBLIC = FOR_BACKENDS | {"__init__", "settings", "observer", "registry", "conformance"}

DRIVERS = {
    "redis": "streamhub_redis",
    "nats": "streamhub_nats",
    "asyncpg": "streamhub_postgres",
    "sqlite3": "streamhub_sqlite",
    "starlette": "streamhub.web",
    "uvicorn": "streamhub.cli.serve",
    "prometheus_client": "streamhub.prometheus",
}
# Where else a driver may be named, and why.
DRIVER_EXCEPTIONS = {
    ("streamhub/cli/doctor.py", "sqlite3"),  # tells its version
    ("streamhub/cli/serve.py", "starlette"),  # a type
    ("streamhub/web/server/http_metrics.py", "prometheus_client"),  # imported only beside streamhub.prometheus
}

# Module state that is not a constant, and must be the process's: (file, name).
STATE = {
    ("backends/streamhub_memory/namespace.py", "_NAMESPACES"),  # what hubs of one name share
    ("backends/streamhub_sqlite/forks.py", "_holders"),  # what a forked child must find
}

MUTABLE_CALLS = {
    "dict", "list", "set", "bytearray", "defaultdict", "deque", "Counter", "OrderedDict", "WeakValueDictionary",
    "WeakKeyDictionary", "WeakSet", "Lock", "Event", "Queue", "ContextVar",
}  # fmt: skip

CHANGERS = {"append", "add", "update", "pop", "clear", "setdefault", "extend", "insert", "remove", "discard"}

# Words that say that something is unfinished, or tell of the machine it was written on; cut in two, to be none here.
FORBIDDEN = [
    r"\bTO" + r"DO\b",
    r"\bFIX" + r"ME\b",
    r"\bX" + r"XX\b",
    r"pypi\." + r"org",
    r"python" + r"hosted",
    r"registry\." + r"npm",
    r"(^|[\s'\"(=:])/wo" + r"rk/",
    r"/ro" + r"ot/",
    r"/ho" + r"me/[a-z]",
    r"pip install ['\"]?stream" + r"hub\b(?!-py)",
]


@dataclass(frozen=True)
class Module:
    """One source file."""

    path: Path

    @property
    def name(self) -> str:
        """Its path in the repository."""
        return self.path.relative_to(ROOT).as_posix()

    @cached_property
    def text(self) -> str:
        return self.path.read_text()

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def lines(self) -> int:
        return len(self.text.splitlines())

    @property
    def dotted(self) -> str:
        parts = self.path.relative_to(ROOT / "backends" if self.name.startswith("backends/") else ROOT).with_suffix("")
        return ".".join(part for part in parts.parts if part != "__init__")

    @property
    def package(self) -> str:
        """The import package it belongs to."""
        return self.dotted.partition(".")[0]

    def imports(self, *, typing_too: bool = True) -> Iterator[str]:
        """Yield each imported module, dotted."""
        skipped = set() if typing_too else set(_nodes_for_typing(self.tree))
        for node in ast.walk(self.tree):
            if node in skipped:
                continue
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{self.name}:{node.lineno} imports relatively"
                assert node.module is not None
                yield from (self._resolved(node.module, alias.name) for alias in node.names)

    def _resolved(self, module: str, name: str) -> str:
        # "from streamhub.cli import output" imports a module, "from streamhub.types import End" a name.
        for home in (ROOT, ROOT / "backends"):
            inner = home.joinpath(*module.split("."), name)
            if inner.with_suffix(".py").exists() or (inner / "__init__.py").exists():
                return f"{module}.{name}"
        return module


def _nodes_for_typing(tree: ast.Module) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from ast.walk(node)


def modules_in(*folders: str) -> list[Module]:
    return [Module(path) for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


CORE = modules_in("streamhub")
BACKENDS = modules_in("backends")
SOURCES = CORE + BACKENDS


def unit(dotted: str) -> str:
    """Return the row entry of a module of the core: its name below ``streamhub``, or its folder's."""
    return dotted.partition(".")[2].partition(".")[0] or "__init__"


def is_suite(module: Module) -> bool:
    return unit(module.dotted) == "conformance"


def of_core(names: Iterator[str]) -> set[str]:
    return {unit(name) for name in names if name.partition(".")[0] == "streamhub"}


def test_every_module_of_the_core_has_its_layer() -> None:
    units = {unit(module.dotted) for module in CORE}

    assert units - set(LAYER) == set(), "say in LAYERS where it stands"


def test_imports_of_the_core_point_one_way() -> None:
    wrong = [
        f"{module.name} imports {target}"
        for module in CORE
        for target in of_core(module.imports())
        if LAYER[target] > LAYER[unit(module.dotted)]
    ]

    assert wrong == []


@pytest.mark.parametrize("package", ["streamhub", "backends"])
def test_imports_have_no_cycle(package: str) -> None:
    modules = {module.dotted: module for module in modules_in(package)}
    graph = {
        name: {target for target in module.imports(typing_too=False) if target in modules and target != name}
        for name, module in modules.items()
    }
    # A package's front imports its parts; that a part's parent is imported with it is no cycle.
    for name in graph:
        graph[name] = {target for target in graph[name] if not name.startswith(target + ".")}

    graphlib.TopologicalSorter(graph).prepare()


def test_conformance_sees_only_the_public_interface() -> None:
    wrong = [
        f"{module.name} imports {name}"
        for module in CORE
        if is_suite(module)
        for name in module.imports()
        if name.partition(".")[0] == "streamhub" and unit(name) not in PUBLIC
    ]

    assert wrong == []


def test_backends_see_only_the_public_interface_and_no_other_backend() -> None:
    allowed = {f"streamhub.{name}".rstrip(".") for name in FOR_BACKENDS}
    wrong = [
        f"{module.name} imports {name}"
        for module in BACKENDS
        for name in module.imports()
        if name.startswith("streamhub") and name.partition(".")[0] != module.package and name not in allowed
    ]

    assert wrong == []


def test_core_imports_no_backend() -> None:
    assert [module.name for module in CORE for name in module.imports() if name.startswith("streamhub_")] == []


def test_drivers_are_imported_only_in_their_backends() -> None:
    wrong = [
        f"{module.name} imports {name}"
        for module in SOURCES
        for name in module.imports()
        if (home := DRIVERS.get(driver := name.partition(".")[0])) is not None
        and (module.name, driver) not in DRIVER_EXCEPTIONS
        and not f"{module.dotted}.".startswith(f"{home}.")
    ]

    assert wrong == []


def test_modules_hold_no_state_but_constants() -> None:
    wrong = [
        f"{module.name}:{node.lineno} {name}"
        for module in SOURCES
        for node in module.tree.body
        for name, value in _assigned(node)
        if _is_mutable(value)
        and not re.fullmatch(r"_{0,2}[A-Z][A-Z0-9_]*|__all__", name)
        and (module.name, name) not in STATE
    ]

    assert wrong == []


def test_constants_are_never_changed() -> None:
    """What is written like a constant is one: no method that would change it is called, no item of it is set."""
    wrong = [
        f"{module.name}:{node.lineno} {ast.unparse(node)}"
        for module in SOURCES
        for names in [_mutable_names(module)]
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Global) or _changed(node) in names
    ]

    assert wrong == []


def _mutable_names(module: Module) -> set[str]:
    names = {name for node in module.tree.body for name, value in _assigned(node) if _is_mutable(value)}
    return {name for name in names if (module.name, name) not in STATE}


def _changed(node: ast.AST) -> str | None:
    """Return the name of what an expression changes in place."""
    changed: ast.expr | None = None
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CHANGERS:
        changed = node.func.value
    elif isinstance(node, ast.Subscript) and isinstance(node.ctx, (ast.Store, ast.Del)):
        changed = node.value
    return changed.id if isinstance(changed, ast.Name) else None


def _assigned(node: ast.stmt) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(node, ast.Assign):
        yield from ((target.id, node.value) for target in node.targets if isinstance(target, ast.Name))
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
        yield node.target.id, node.value


def _is_mutable(value: ast.expr) -> bool:
    if isinstance(value, (ast.Dict, ast.List, ast.Set, ast.DictComp, ast.ListComp, ast.SetComp)):
        return True
    if not isinstance(value, ast.Call):
        return False
    called = value.func.value if isinstance(value.func, ast.Subscript) else value.func
    return ast.unparse(called).rpartition(".")[2] in MUTABLE_CALLS


def test_every_public_name_is_documented() -> None:
    ours = [name for name in streamhub.__all__ if not name.startswith("__")]
    bare = [name for name in ours if not _is_documented(getattr(streamhub, name), name)]

    assert ours, "streamhub exports nothing"
    assert bare == []
    assert sorted(streamhub.__all__) == sorted(set(streamhub.__all__))


def _is_documented(value: object, name: str) -> bool:
    if isinstance(value, type) or inspect.isfunction(value):
        text = value.__doc__ or ""
        # A dataclass and a protocol would otherwise count with the text that Python makes up.
        return bool(text.strip()) and not text.startswith(f"{name}(")
    # A constant or an alias: a sentence stands in its module, right below it.
    pattern = rf'^{name}\b[^\n]*=[^\n]*\n([ \])}}][^\n]*\n)*"""'
    return any(re.search(pattern, module.text, re.MULTILINE) for module in CORE)


def test_every_public_class_documents_its_methods() -> None:
    bare = [
        f"{name}.{method}"
        for name in streamhub.__all__
        if isinstance(getattr(streamhub, name), type)
        for method, value in vars(getattr(streamhub, name)).items()
        if not method.startswith("_")
        and (callable(value) or isinstance(value, (property, classmethod, staticmethod)))
        and not (getattr(value, "__doc__", None) or "").strip()
        and not hasattr(builtins, method)
    ]

    assert bare == []


def functions(modules: list[Module]) -> list[tuple[str, int]]:
    """Every function with its number of lines, docstring left out."""
    return [
        (f"{module.name}:{node.lineno} {node.name}", _code_lines(node))
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]


def _code_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    if ast.get_docstring(node) is not None:
        text = node.body[0]
        lines -= (text.end_lineno or text.lineno) - text.lineno + 1
    return lines


def ninetieth(values: list[int]) -> int:
    return sorted(values)[math.ceil(len(values) * 0.9) - 1]


def small_modules() -> dict[str, list[Module]]:
    # The suite's themes are long lists of short cases.
    return {
        "library": [module for module in CORE if not is_suite(module)],
        "backends": BACKENDS,
    }


@pytest.mark.parametrize("modules", small_modules().values(), ids=small_modules())
def test_modules_stay_small(modules: list[Module]) -> None:
    sizes = [module.lines for module in modules]

    assert statistics.median(sizes) <= 200
    assert ninetieth(sizes) <= 400
    assert max(sizes) <= 500


def test_themes_of_the_suite_stay_readable() -> None:
    sizes = [module.lines for module in CORE if is_suite(module)]

    assert statistics.median(sizes) <= 350
    assert max(sizes) <= 900


@pytest.mark.parametrize("package", ["streamhub", "backends"])
def test_functions_stay_small(package: str) -> None:
    found = functions(modules_in(package))
    sizes = [size for _, size in found]
    long = [name for name, size in found if size > 50]

    assert statistics.median(sizes) <= 12
    assert ninetieth(sizes) <= 30
    assert len(long) <= 0.03 * len(found), long


def test_nesting_stays_shallow() -> None:
    deep = [
        f"{module.name}:{node.lineno} {node.name}"
        for module in SOURCES
        for node in ast.walk(module.tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and _depth(node.body) > (5 if is_suite(module) else 4)
    ]

    assert deep == []


def _depth(body: list[ast.stmt]) -> int:
    blocks = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try)
    inner = [0]
    for node in body:
        if isinstance(node, blocks):
            parts = [getattr(node, name, []) for name in ("body", "finalbody")]
            parts += [handler.body for handler in getattr(node, "handlers", [])]
            inner += [1 + _depth(part) for part in parts]
            # "elif" is written as an "else" with one "if" in it, and is no deeper.
            rest: list[ast.stmt] = getattr(node, "orelse", [])
            is_elif = isinstance(node, ast.If) and len(rest) == 1 and isinstance(rest[0], ast.If)
            inner.append(_depth(rest) if is_elif else 1 + _depth(rest) if rest else 0)
    return max(inner)


def test_modules_begin_with_a_docstring() -> None:
    assert [module.name for module in SOURCES if not ast.get_docstring(module.tree)] == []


def test_modules_have_telling_names() -> None:
    vague = {"utils", "util", "helpers", "common", "base", "misc"}

    assert [module.name for module in SOURCES if module.path.stem in vague] == []


def tracked() -> list[Path]:
    """Every text file of the repository, or of an unpacked sdist."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT, capture_output=True, check=False,
    )  # fmt: skip
    if listed.returncode == 0:
        paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    else:
        hidden = {".venv", ".git", "__pycache__", ".ruff_cache", ".hypothesis"}
        paths = [path for path in ROOT.rglob("*") if not hidden & set(path.relative_to(ROOT).parts)]
    return [path for path in paths if path.is_file()]


def test_tree_holds_no_forbidden_words() -> None:
    pattern = re.compile("|".join(FORBIDDEN).encode(), re.MULTILINE)
    found = [
        f"{path.relative_to(ROOT)}: {match[0].decode()}"
        for path in tracked()
        if b"\0" not in (content := path.read_bytes())[:1024]
        for match in [pattern.search(content)]
        if match
    ]

    assert found == []
