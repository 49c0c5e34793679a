"""Stores, runs and exports of version 0.1.0 can still be opened and give the same numbers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import gmg_model
from jobs.training.run.checkpoints import load_checkpoint
from pipelines.audit.verification import verify
from pipelines.stores.store import open_store
from tests.conftest import ROOT
from tests.support.processes.training_runs import job

WRITTEN = ROOT / "tests" / "data" / "version_0_1"
NEWEST = "2014-04-14T23:00"


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Return a copy of the files of version 0.1.0, so that tests do not change them.

    The record of the run contains the path of the store, which is replaced by the path of the copy.
    """
    folder = Path(shutil.copytree(WRITTEN, tmp_path / "kept"))
    record = folder / "run" / "run.json"
    record.write_text(record.read_text().replace("/data/kept-0.1/", f"{folder}/"))
    return folder


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    """Return frames that version 0.1.0 read from the store, and a forecast that it made."""
    with np.load(WRITTEN / "expected.npz") as file:
        return dict(file)


def test_its_store_opens_with_the_same_frames_and_verifies(
    kept: Path, expected: dict[str, np.ndarray]
):
    import xarray as xr

    store = open_store(str(kept / "store.zarr"))
    assert (
        store.fingerprint
        == json.loads((kept / "run" / "run.json").read_text())["statistics_fingerprint"]
    )
    with xr.open_zarr(kept / "store.zarr") as dataset:
        np.testing.assert_array_equal(dataset["flow"].values[:5], expected["frames"])
    assert not verify(str(kept / "store.zarr")).problems


def test_its_export_makes_the_same_forecast(kept: Path, expected: dict[str, np.ndarray]):
    model = gmg_model.load_exported(str(kept / "exported"))
    forecast = model(torch.from_numpy(expected["newest"]), 3, newest=NEWEST)
    np.testing.assert_allclose(forecast, expected["forecast"], rtol=1e-5, atol=1e-4)


def test_its_checkpoint_holds_the_weights_of_its_export(kept: Path):
    checkpoint = load_checkpoint(str(kept / "run"))
    assert checkpoint.step == 12
    of_export = load_file(kept / "exported" / "weights.safetensors")
    weights = checkpoint.model().state_dict()
    assert weights.keys() <= of_export.keys()
    for name, values in weights.items():
        torch.testing.assert_close(values, of_export[name], rtol=0, atol=0)


def test_its_run_gets_the_same_scores(kept: Path):
    done = job(
        *("evaluate.py", "--checkpoint", kept / "run", "--store", kept / "store.zarr"),
        *("--report", kept / "report"),
    )
    assert done.returncode == 0, done.stderr
    scores = json.loads((kept / "report" / "scores.json").read_text())
    before = json.loads((kept / "scores.json").read_text())
    assert_equal_scores(scores["variables"], before["variables"], "variables")
    assert scores["windows"]["scored"] == before["windows"]["scored"]


def test_its_finished_run_has_nothing_to_do(kept: Path):
    command = ("train_taxibj.py", "--run", kept / "run", "--store", kept / "store.zarr")
    options = json.loads((kept / "run" / "run.json").read_text())["options"]
    given = {
        **{f"model.{name}": options["model"][name] for name in ("hidden", "patch_size")},
        **{f"model.{name}": options["model"][name] for name in ("filter_size", "attention_hidden")},
        **{f"data.{name}": options["data"][name] for name in ("input_frames", "horizon")},
        **{f"training.{name}": options["training"][name] for name in ("epochs", "global_batch")},
        "model.name": "gmg-s",
        "data.anomalies": "true",
        "training.seed": 3,
        "checkpoints.keep": 1,
        "validation.windows": 8,
        "workers": 1,
        "use_gpu": "false",
    }
    weights = (kept / "run" / "step_000000012" / "weights.safetensors").read_bytes()
    done = job(*command, *(word for name, value in given.items() for word in (f"--{name}", value)))
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (kept / "run").glob("step_*")] == ["step_000000012"]
    assert (kept / "run" / "step_000000012" / "weights.safetensors").read_bytes() == weights


def assert_equal_scores(found: Any, before: Any, where: str) -> None:
    """Check that `found` has every key of `before`, with numbers that are equal up to rounding."""
    if isinstance(before, dict):
        assert before.keys() <= found.keys(), where
        for key, value in before.items():
            assert_equal_scores(found[key], value, f"{where}.{key}")
    elif isinstance(before, list):
        assert len(found) == len(before), where
        for number, value in enumerate(before):
            assert_equal_scores(found[number], value, f"{where}[{number}]")
    elif isinstance(before, float):
        assert found == pytest.approx(before, rel=1e-4, abs=1e-6), where
    else:
        assert found == before, where
