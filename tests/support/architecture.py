"""Measure the layout of the code: items in a folder, arrows of imports, long functions.

    python -m tests.support.architecture            # the table of all measures
    python -m tests.support.architecture pipelines  # what exceeds a limit in that package, by name

`tests/test_architecture.py` holds the limits.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("pipelines", "gmg_model", "jobs")
DRAWN = ("pipelines", "pipelines.archives", "jobs.forecasts", "jobs.training", "gmg_model")
"""packages whose items are counted, and the imports between them"""
FOLDER_ORDER = (
    {"storage"},
    {"timeline", "cluster"},
    {"archives", "stores"},
    {"inputs", "conversion"},
    {"stream", "audit"},
)
"""sets of folders of `pipelines`; a folder may import only from folders in earlier sets"""

MOST_ITEMS = 16
MOST_MODULE_LINES = 400
MOST_FUNCTION_LINES = 60
MOST_PARAMETERS = 8
MOST_JOB_LINES = 100


@dataclass(frozen=True)
class Function:
    """One function or method of the product."""

    module: str
    name: str
    lines: int
    """number of lines from `def` (without decorators) to the last, with the docstring"""
    parameters: int
    """number of parameters without `self` and `cls`"""

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


def module_name(path: Path) -> str:
    """Return the dotted name of a module file."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def modules() -> dict[str, Path]:
    """Return the file of every module of the product, by dotted name."""
    return {module_name(path): path for name in PACKAGES for path in (ROOT / name).rglob("*.py")}


@cache
def _trees() -> dict[str, ast.Module]:
    return {name: ast.parse(path.read_text()) for name, path in modules().items()}


def _imported(tree: ast.AST) -> Iterator[tuple[str, bool]]:
    """Yield each imported name, and whether it is imported inside a function."""
    todo: list[tuple[ast.AST, bool]] = [(tree, False)]
    while todo:
        parent, inside = todo.pop()
        for node in ast.iter_child_nodes(parent):
            if isinstance(node, ast.Import):
                yield from ((alias.name, inside) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, "imports are absolute here"
                yield from ((f"{node.module}.{alias.name}", inside) for alias in node.names)
            else:
                function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
                todo.append((node, inside or function))


@cache
def imports() -> dict[str, set[str]]:
    """Return what each module imports at its head, in its functions, and for type checkers."""
    return {name: {found for found, _ in _imported(tree)} for name, tree in _trees().items()}


@cache
def graph() -> dict[str, set[str]]:
    """Return each module and the modules of the product that it imports."""
    known = modules()
    edges = {
        name: {n if n in known else n.rpartition(".")[0] for n in found}
        for name, found in imports().items()
    }
    return {name: (found & known.keys()) - {name} for name, found in edges.items()}


def items(folder: Path) -> list[str]:
    """Return the names of the files and folders directly in a folder, without caches."""
    return sorted(p.name for p in folder.iterdir() if p.name != "__pycache__")


def folders() -> list[Path]:
    """Return every folder of the product that contains modules."""
    return sorted({path.parent for path in modules().values()})


def rooms(package: str) -> dict[str, set[str]]:
    """Return the imports between the items of a package: item -> items that it imports.

    Each module and each folder directly in the package is one item.
    """
    depth = package.count(".") + 1
    inside = [name for name in modules() if name.startswith(f"{package}.")]

    def item(name: str) -> str:
        return name.split(".")[depth]

    found: dict[str, set[str]] = {item(name): set() for name in inside}
    for name in inside:
        for other in graph()[name]:
            if other.startswith(f"{package}.") and item(other) != item(name):
                found[item(name)].add(item(other))
    return found


def levels(edges: dict[str, set[str]]) -> int:
    """Return the length of the longest chain of imports, in items.

    Raises
    ------
    graphlib.CycleError
        The imports form a circle.
    """
    height: dict[str, int] = {}
    for name in TopologicalSorter(edges).static_order():
        height[name] = 1 + max((height[other] for other in edges.get(name, ())), default=0)
    return max(height.values(), default=0)


def arrows_against_the_order() -> list[str]:
    """Return imports between folders of `pipelines` that FOLDER_ORDER does not allow."""
    rank = {name: number for number, names in enumerate(FOLDER_ORDER) for name in names}
    against = []
    for name, found in graph().items():
        parts = name.split(".")
        if parts[0] != "pipelines" or len(parts) < 2 or parts[1] not in rank:
            continue
        for other in found:
            to = other.split(".")
            folder = to[1] if to[0] == "pipelines" and len(to) > 1 else ""
            if folder != parts[1] and rank.get(folder, -1) >= rank[parts[1]]:
                against.append(f"{name} -> {other}")
    return sorted(against)


@cache
def functions() -> list[Function]:
    """Return every function and method of the product."""
    found = []
    for module, tree in _trees().items():
        todo: list[tuple[ast.AST, str]] = [(tree, "")]
        while todo:
            parent, prefix = todo.pop()
            for node in ast.iter_child_nodes(parent):
                named = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
                name = f"{prefix}{node.name}" if named else prefix.rstrip(".")
                todo.append((node, f"{name}." if name else ""))
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    every = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
                    taken = [a for a in every if a.arg not in ("self", "cls")]
                    assert node.end_lineno
                    lines = node.end_lineno - node.lineno + 1
                    found.append(Function(module, name, lines, len(taken)))
    return found


def module_lines() -> dict[str, int]:
    """Return the number of lines of every module."""
    return {name: len(path.read_text().splitlines()) for name, path in modules().items()}


def is_job(name: str) -> bool:
    """Return whether a module is an entry point: a module of `jobs` with a `main` function."""
    if not name.startswith("jobs.") or name.count(".") > 1:
        return False
    return any(f.module == name and f.name == "main" for f in functions())


def folder_sizes() -> dict[str, int]:
    """Return the number of items in each folder of the packages whose folders are limited."""
    sizes = {module_name(f / "__init__.py"): len(items(f)) for f in folders()}
    return {name: count for name, count in sizes.items() if name.startswith(DRAWN[:4])}


def imports_inside_functions() -> int:
    """Return the number of names that are imported inside functions."""
    return sum(inside for tree in _trees().values() for _, inside in _imported(tree))


def report() -> Iterator[tuple[str, str]]:
    """Yield the name and the value of each measure."""
    for package in DRAWN:
        edges = rooms(package)
        count = len(items(ROOT / package.replace(".", "/")))
        arrows = sum(len(found) for found in edges.values())
        try:
            height = str(levels(edges))
        except ValueError:
            height = "circle"
        yield package, f"{count} items, {height} levels, {arrows} arrows"
    yield "arrows against the order", str(len(arrows_against_the_order()))
    lines = module_lines()
    short = [
        name
        for name, count in lines.items()
        if count < 45 and not name.startswith("jobs.train_") and modules()[name].stem != "__init__"
    ]
    yield "modules under 45 lines", str(len(short))
    found = functions()
    many = [f.lines for f in found if f.lines > MOST_FUNCTION_LINES]
    longest = max(f.lines for f in found)
    yield f"functions over {MOST_FUNCTION_LINES} lines", f"{len(many)} (longest {longest})"
    most = [f for f in found if f.parameters > MOST_PARAMETERS]
    yield f"functions with more than {MOST_PARAMETERS} parameters", str(len(most))
    yield "imports inside functions", str(imports_inside_functions())
    long_jobs = [name for name, count in lines.items() if is_job(name) and count > MOST_JOB_LINES]
    yield f"jobs over {MOST_JOB_LINES} lines", ", ".join(long_jobs) or "0"
    yield "lines of product code", str(sum(lines.values()))
    yield "lines of comments", str(_comments())


def _comments() -> int:
    return sum(
        line.lstrip().startswith("#")
        for path in modules().values()
        for line in path.read_text().splitlines()
    )


def beyond_the_limits(prefix: str = "") -> Iterator[str]:
    """Yield a line for each item below `prefix` that exceeds a limit."""
    found = [f"{n}: {c} items" for n, c in folder_sizes().items() if c > MOST_ITEMS]
    found += [f"{n}: {c} lines" for n, c in module_lines().items() if c > MOST_MODULE_LINES]
    found += [f"{f}: {f.lines} lines" for f in functions() if f.lines > MOST_FUNCTION_LINES]
    found += [
        f"{f}: {f.parameters} parameters" for f in functions() if f.parameters > MOST_PARAMETERS
    ]
    found += arrows_against_the_order()
    yield from (line for line in found if line.startswith(prefix))


if __name__ == "__main__":
    for measure, value in report():
        print(f"{measure:45} {value}")
    for line in beyond_the_limits(*sys.argv[1:2]):
        print(line)
