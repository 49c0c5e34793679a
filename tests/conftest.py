"""Fixtures that every part of the tests shares."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipelines.cluster import session
from pipelines.optional_libraries import load_pyproj_before_eccodes
from tests.support.processes import shared_ray

if TYPE_CHECKING:
    from jobs.training.options import TrainOptions

ROOT = Path(__file__).resolve().parents[1]

# Workers import torch and Ray from bytecode caches; without the caches a start takes twice as long.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
if "PYTEST_XDIST_WORKER" in os.environ:
    # The processes of pytest-xdist share the cores. torch reads this variable when it is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# Tests import eccodes, pysteps and cfgrib in any order, and pyproj must be loaded before eccodes.
load_pyproj_before_eccodes()
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of real sample archives and golden tensors beside the project."""
    folder = Path(os.environ.get("GMG_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no folder of sample archives and golden tensors at {folder}")
    return folder


@pytest.fixture(scope="module")
def ray_cluster() -> None:
    """Start the small Ray that test modules share, see `tests/support/processes/shared_ray.py`."""
    shared_ray.use()


SERVICES = frozenset(
    {"ray_cluster", "traffic_store", "finished_run", "moto", "s3_server", "gcs_server"}
)
"""names of the fixtures that start Ray, a server or a training"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need services, and put the longest module first.

    If the longest module came last, one process would still run it when the others have finished.
    At the start, it computes while tests of clusters in other processes wait.
    """
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if not SERVICES.isdisjoint(fixtures) or item.path.parent.name in ("cluster", "failure"):
            item.add_marker(pytest.mark.services)
    items.sort(key=lambda item: item.path.name != "test_walkthrough.py")


def pytest_configure() -> None:
    """Make the start of Ray fail in a test without the mark `services`."""
    start = session.start_here

    def start_if_marked(*arguments: Any, **options: Any) -> None:
        item = _running.item
        if item and not item.get_closest_marker("services"):
            pytest.fail("this test starts Ray: mark it, or its module, with pytest.mark.services")
        start(*arguments, **options)

    session.start_here = shared_ray.start_here = start_if_marked


class _running:
    item: pytest.Item | None = None


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Remember the test whose fixtures and body are about to run."""
    _running.item = item


def pytest_sessionfinish() -> None:
    """End the Ray that tests have started."""
    shared_ray.end()


@pytest.fixture(scope="session")
def traffic_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a small complete store: 480 hourly frames of inflow and outflow on 16 x 8 cells."""
    from tests.support.archives.archives_made_here import write_traffic
    from tests.support.processes.training_runs import job

    def make(folder: Path) -> None:
        shared_ray.be_there()
        write_traffic(folder / "archive")
        source = ("--archive", "taxibj", "--source", folder / "archive")
        splits = ("--splits", _three_parts(folder), "--chunk_frames", 32)
        done = job("reprocess.py", "convert", *source, "--store", folder / "store.zarr", *splits)
        assert done.returncode == 0, done.stderr

    return str(_made_once(tmp_path_factory, "traffic", make) / "store.zarr")


@pytest.fixture(scope="session")
def finished_run(traffic_store: str, tmp_path_factory: pytest.TempPathFactory) -> TrainOptions:
    """Return the options of a finished, undisturbed training on two workers of one node.

    All tests share its folder, and other processes may read it. A test that changes the folder
    must copy it first.
    """
    from jobs.training.driver.job import train
    from tests.support.processes.training_runs import small_options

    def make(folder: Path) -> None:
        shared_ray.be_there()
        train(small_options(traffic_store, str(folder / "run")))

    folder = _made_once(tmp_path_factory, "finished", make)
    return small_options(traffic_store, str(folder / "run"))


def _made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """Return a folder that the first pytest process makes and that all pytest processes use."""
    root = factory.getbasetemp()
    folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / name
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            folder.mkdir()
            make(folder)
            (folder / "complete").touch()
    return folder


def _three_parts(folder: Path) -> Path:
    splits = folder / "splits.yaml"
    splits.write_text(
        "train: ['2014-04-01 00', '2014-04-10 00']\n"
        "validation: ['2014-04-11 00', '2014-04-14 00']\n"
        "test: ['2014-04-15 00', '2014-04-20 23']\n"
    )
    return splits
