"""The packages as docs/architecture.md has them: who knows whom, and nobody in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGES = ("pipelines", "gmg_model", "jobs")


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for name in PACKAGES for path in (ROOT / name).rglob("*.py")}


def imports(tree: ast.AST) -> Iterator[str]:
    """What a module imports when it runs, at its head and in its functions: not for types alone.

    A name of a package stands as ``package.name``, whether it is a module or not.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            yield from imports(node)


IMPORTS = {name: set(imports(ast.parse(path.read_text()))) for name, path in MODULES.items()}


def graph() -> dict[str, set[str]]:
    """Each module and those of the project that it imports."""
    names = {
        name: {n if n in MODULES else n.rpartition(".")[0] for n in IMPORTS[name]}
        for name in IMPORTS
    }
    return {name: found & MODULES.keys() for name, found in names.items()}


def test_no_module_imports_itself_by_way_of_others():
    edges = graph()
    assert (
        "pipelines.archives.contents" in edges["pipelines.conversion.plan"]
    )  # the head of a module
    assert "pipelines.conversion.convert" in edges["jobs.reprocessing.verbs"]  # in a function
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


@pytest.mark.parametrize(
    ("package", "unknown"),
    [
        ("gmg_model", {"pipelines", "jobs", "ray", "zarr", "xarray", "dask", "fsspec"}),
        ("pipelines", {"gmg_model", "jobs"}),
    ],
)
def test_a_package_knows_nothing_of_those_above_it(package: str, unknown: set[str]):
    inside = {name: found for name, found in IMPORTS.items() if name.split(".")[0] == package}
    assert len(inside) > 20
    known = {(name, other) for name, found in inside.items() for other in found}
    assert not {pair for pair in known if pair[1].split(".")[0] in unknown}
