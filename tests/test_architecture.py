"""The layout of the code stays as docs/architecture.md describes it."""

from __future__ import annotations

from graphlib import CycleError

import pytest

from tests.support import architecture

MORE_PARAMETERS = {
    "pipelines.stream.window_stream.WindowStream.__init__",
    "gmg_model.layers.e3d_lstm.EideticLSTM.__init__",
}
"""functions with more parameters than the limit: each one is a property of the stream or cell"""
MORE_LINES = {"gmg_model.models.rollout.RecurrentForecaster.forward"}
"""functions longer than the limit: the rollout is one loop, so that it can be compared with the
paper"""


def test_no_module_imports_itself_through_others():
    edges = architecture.graph()
    # The graph has imports at the head of a module and imports inside its functions.
    assert "pipelines.archives.contents" in edges["pipelines.conversion.plan"]
    assert "pipelines.conversion.convert" in edges["jobs.reprocessing.verbs"]
    try:
        architecture.levels(edges)
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


@pytest.mark.parametrize("package", architecture.DRAWN)
def test_the_rooms_of_a_package_have_an_order(package: str):
    assert architecture.levels(architecture.rooms(package)) > 2


@pytest.mark.parametrize(
    ("package", "unknown"),
    [
        ("gmg_model", {"pipelines", "jobs", "ray", "zarr", "xarray", "dask", "fsspec"}),
        ("pipelines", {"gmg_model", "jobs"}),
    ],
)
def test_a_package_imports_nothing_from_above(package: str, unknown: set[str]):
    inside = {n: found for n, found in architecture.imports().items() if n.split(".")[0] == package}
    assert len(inside) > 20
    known = {(name, other) for name, found in inside.items() for other in found}
    assert not {pair for pair in known if pair[1].split(".")[0] in unknown}


def test_folders_of_pipelines_import_only_from_those_before_them():
    assert not architecture.arrows_against_the_order()


def test_a_folder_has_few_items():
    many = {
        name: count
        for name, count in architecture.folder_sizes().items()
        if count > architecture.MOST_ITEMS
    }
    assert not many


def test_modules_are_short():
    lines = architecture.module_lines()
    assert not {n: count for n, count in lines.items() if count > architecture.MOST_MODULE_LINES}


def test_jobs_are_short():
    lines = architecture.module_lines()
    jobs = {name: count for name, count in lines.items() if architecture.is_job(name)}
    assert "jobs.train_weatherbench" in jobs
    assert not {n: count for n, count in jobs.items() if count > architecture.MOST_JOB_LINES}


def test_functions_are_short_and_take_few_parameters():
    found = architecture.functions()
    assert len(found) > 1000
    long = [f for f in found if f.lines > architecture.MOST_FUNCTION_LINES]
    assert {str(f) for f in long} <= MORE_LINES
    many = [f for f in found if f.parameters > architecture.MOST_PARAMETERS]
    assert {str(f) for f in many} <= MORE_PARAMETERS
