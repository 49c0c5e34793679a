"""Fixtures that every part of the tests shares."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipelines.optional_libraries import load_pyproj_before_eccodes
from tests import shared_ray

if TYPE_CHECKING:
    from jobs.training.options import TrainOptions

ROOT = Path(__file__).resolve().parents[1]

# Workers import torch and Ray from bytecode caches: starting one without them takes twice as long.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Tests import eccodes, pysteps and cfgrib in any order.
load_pyproj_before_eccodes()
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real sample archives and golden tensors beside the project."""
    folder = Path(os.environ.get("GMG_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no folder of sample archives and golden tensors at {folder}")
    return folder


@pytest.fixture(scope="module")
def ray_cluster() -> None:
    """A small Ray, which other modules use as well; see :mod:`tests.shared_ray`."""
    shared_ray.use()


def pytest_sessionfinish() -> None:
    """No test leaves a Ray behind."""
    shared_ray.end()


@pytest.fixture(scope="session")
def traffic_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small complete store: 480 hourly frames of in- and outflow on 16 x 8 cells."""
    from tests.archives_made_here import write_traffic
    from tests.training_runs import job

    folder = tmp_path_factory.mktemp("traffic")
    write_traffic(folder / "archive")
    store = str(folder / "store.zarr")
    done = job(
        "reprocess.py",
        *("convert", "--archive", "taxibj", "--source", str(folder / "archive"), "--store", store),
        *("--splits", str(_three_parts(folder)), "--chunk_frames", "32"),
    )
    assert done.returncode == 0, done.stderr
    return store


@pytest.fixture(scope="session")
def finished_run(traffic_store: str, tmp_path_factory: pytest.TempPathFactory) -> TrainOptions:
    """The options of a finished training on two workers of one node, which nothing disturbed.

    Its folder is every test's: copy it before changing anything in it.
    """
    from jobs.training.job import train
    from tests.training_runs import small_options

    options = small_options(traffic_store, str(tmp_path_factory.mktemp("runs") / "finished"))
    train(options)
    return options


def _three_parts(folder: Path) -> Path:
    splits = folder / "splits.yaml"
    splits.write_text(
        "train: ['2014-04-01 00', '2014-04-10 00']\n"
        "validation: ['2014-04-11 00', '2014-04-14 00']\n"
        "test: ['2014-04-15 00', '2014-04-20 23']\n"
    )
    return splits
