"""An exported folder forecasts as its checkpoint does, without Ray and Zarr."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gmg_model import load_exported
from gmg_model.errors import ConfigurationError
from gmg_model.exported import WEIGHTS
from jobs.export import ExportOptions, export
from jobs.forecasts.forecasters.model_forecast import forecast_with
from jobs.training.run.checkpoints import Checkpoint
from pipelines.errors import StoreError, UsageError
from pipelines.stores.store import open_store
from tests.support.processes.training_runs import job, small_options, write_untrained_run

# Imports of packages that gmg_model must not need fail, and so do other packages of this project.
USE_IT_ALONE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"ray", "zarr", "xarray", "fsspec", "pipelines", "jobs"}:
            raise ImportError(f"{name} is not to be imported")

sys.meta_path.insert(0, Refuse())
import numpy as np
frames = np.load(sys.argv[2])

import gmg_model
forecaster = gmg_model.load_exported(sys.argv[1])
forecast = forecaster(frames, horizon=5)

np.save(sys.argv[3], forecast)
"""

EXPORT_WITHOUT_TORCH = """
import sys

sys.modules["torch"] = None  # an import of it fails
from jobs.export import ExportOptions, export

export(ExportOptions(sys.argv[1], sys.argv[2]))
"""


@pytest.fixture
def checkpoint(traffic_store: str, tmp_path: Path) -> Checkpoint:
    """A checkpoint with initial weights, which is enough to forecast with."""
    return write_untrained_run(small_options(traffic_store, str(tmp_path / "run")))


@pytest.fixture
def frames(traffic_store: str, checkpoint: Checkpoint) -> np.ndarray:
    """Two windows (2, T, C, H, W) of numbers of bicycles, one pixel missing."""
    array = open_store(traffic_store).array("flow")
    length = checkpoint.window.input_frames
    values = np.stack([np.asarray(array[first : first + length]) for first in (5, 90)])
    values[0, 1, 0, 2, 3] = np.nan
    return values.astype(np.float32)


@pytest.fixture
def exported(checkpoint: Checkpoint, tmp_path: Path) -> Path:
    """The exported folder of `checkpoint`."""
    export(ExportOptions(checkpoint.uri, str(tmp_path / "exported")))
    return tmp_path / "exported"


def expected(checkpoint: Checkpoint, frames: np.ndarray, horizon: int) -> np.ndarray:
    """Return the forecast as an evaluation makes it."""
    given = np.nan_to_num(checkpoint.normalisation.apply(frames))
    return checkpoint.normalisation.invert(forecast_with(checkpoint.model())(given, horizon))


def test_an_export_says_how_far_its_frames_are_apart(traffic_store: str, tmp_path: Path) -> None:
    options = small_options(traffic_store, str(tmp_path / "run"))
    data = dataclasses.replace(options.data, stride=2)
    options = dataclasses.replace(options, data=data)
    done = job("export.py", "--run", write_untrained_run(options).uri, "--to", tmp_path / "strided")
    assert done.returncode == 0, done.stderr
    assert "7200 s apart" in done.stdout  # hourly, every second frame
    assert load_exported(tmp_path / "strided").record["frame_seconds"] == 7200


def test_an_export_copies_the_weights_without_pytorch(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    places = [checkpoint.uri, str(tmp_path / "alone")]
    subprocess.run([sys.executable, "-c", EXPORT_WITHOUT_TORCH, *places], check=True)
    assert (tmp_path / "alone" / WEIGHTS).read_bytes() == checkpoint.weights_file()


def test_an_export_forecasts_in_physical_units_without_ray_and_zarr(
    exported: Path, checkpoint: Checkpoint, frames: np.ndarray, tmp_path: Path
) -> None:
    np.save(tmp_path / "frames.npy", frames)
    places = [str(exported), str(tmp_path / "frames.npy"), str(tmp_path / "forecast.npy")]
    done = subprocess.run(
        [sys.executable, "-c", USE_IT_ALONE, *places], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    forecast = np.load(tmp_path / "forecast.npy")
    assert forecast.shape == (2, 5, 2, 16, 8)
    np.testing.assert_array_equal(forecast, expected(checkpoint, frames, 5))


def test_one_window_needs_no_batch_and_the_horizon_is_that_of_training(
    exported: Path, checkpoint: Checkpoint, frames: np.ndarray
) -> None:
    forecast = load_exported(exported)(frames[1])
    assert forecast.shape == (checkpoint.window.horizon, 2, 16, 8)
    wanted = expected(checkpoint, frames[1:], checkpoint.window.horizon)
    np.testing.assert_array_equal(forecast, wanted[0])


def test_the_record_describes_the_training_of_the_model(
    exported: Path, checkpoint: Checkpoint
) -> None:
    assert {path.name for path in exported.iterdir()} == {"model.json", WEIGHTS}
    record = json.loads((exported / "model.json").read_text())
    assert record["model"]["name"] == "gmg-s"
    assert record["variables"] == ["flow"]
    assert record["window"] == dataclasses.asdict(checkpoint.window)
    assert record["trained_on"]["statistics_fingerprint"] == checkpoint.fingerprint
    assert load_exported(exported).labels == checkpoint.normalisation.labels


def test_fewer_frames_than_in_training_are_an_error(exported: Path, frames: np.ndarray) -> None:
    with pytest.raises(ConfigurationError, match=r"2 frames.*trained to forecast from 3"):
        load_exported(exported)(frames[:, 1:])


def test_an_error_about_another_grid_names_the_expected_shape(exported: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"C, H, W = \(2, 16, 8\)"):
        load_exported(exported)(np.zeros((3, 2, 8, 16), np.float32))


@pytest.mark.parametrize("horizon", [0, -1, 2.5, "3"])
def test_a_horizon_must_be_a_whole_number_of_at_least_1(
    exported: Path, frames: np.ndarray, horizon: Any
) -> None:
    with pytest.raises(ConfigurationError, match=f"horizon={horizon!r}: give a whole number"):
        load_exported(exported)(frames, horizon)
    counted: Any = np.int64(1)
    assert load_exported(exported)(frames, counted).shape[1] == 1


def test_infinite_pixels_are_an_error_and_not_taken_for_missing_ones(
    exported: Path, frames: np.ndarray
) -> None:
    frames[1, 0, 1, 2, 3] = -np.inf
    with pytest.raises(ConfigurationError, match=r"infinite pixels \(1\): mark missing ones"):
        load_exported(exported)(frames)


def test_frames_without_any_value_are_an_error_alone_and_in_a_batch(
    exported: Path, frames: np.ndarray
) -> None:
    frames[1] = np.nan
    with pytest.raises(ConfigurationError, match="sample 1 of the batch has no value"):
        load_exported(exported)(frames)
    with pytest.raises(ConfigurationError, match="the frames have no value"):
        load_exported(exported)(frames[1])


def test_a_damaged_export_is_an_error(exported: Path) -> None:
    data = bytearray((exported / WEIGHTS).read_bytes())
    data[-3] ^= 0xFF
    (exported / WEIGHTS).write_bytes(data)
    with pytest.raises(ConfigurationError, match=r"weights\.safetensors is damaged"):
        load_exported(exported)
    (exported / "model.json").unlink()
    with pytest.raises(ConfigurationError, match="no exported model"):
        load_exported(exported)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "it has format None; this version reads format 1"),
        ([], r"'model\.json' is not a JSON object"),
        ({"weights": None}, r"'model\.json' has no 'weights'"),
        ({"model": {"name": "gmg-x", "overrides": {}}}, "did you mean 'gmg-s'"),
        ({"model": {"name": "gmg-l", "overrides": {}}}, "cannot make the model of .*exported"),
    ],
)
def test_a_record_that_describes_no_model_is_an_error(
    exported: Path, change: Any, message: str
) -> None:
    known = json.loads((exported / "model.json").read_text())
    (exported / "model.json").write_text(json.dumps(known | change if change else change))
    with pytest.raises(ConfigurationError, match=message):
        load_exported(exported)


def test_a_folder_that_is_not_empty_is_an_error_and_left_as_it_is(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "chapter1.tex").write_text("years of work")
    with pytest.raises(UsageError, match="not empty"):
        export(ExportOptions(checkpoint.uri, str(thesis)))
    assert [path.name for path in thesis.iterdir()] == ["chapter1.tex"]


def test_a_run_without_a_checkpoint_is_an_error_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no complete checkpoint here"):
        export(ExportOptions(str(tmp_path / "nowhere"), str(tmp_path / "exported")))
    assert not (tmp_path / "exported").exists()
