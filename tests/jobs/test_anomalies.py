"""Models of anomalies: their scores, forecasts and exports.

`tests/jobs/training/test_static_training.py` trains one.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from safetensors.numpy import load_file, save_file

from gmg_model import load_exported
from gmg_model.errors import ConfigurationError
from jobs.export import ExportOptions, export
from jobs.forecasts.forecasters.model_forecast import TrainedForecast
from jobs.forecasts.forecasters.trained import load_trained
from jobs.training.driver.job import train
from jobs.training.options import DataOptions, ModelOptions, TrainOptions
from jobs.training.run import checkpoints
from pipelines.errors import StoreError
from pipelines.stores.store import Store, open_store
from pipelines.stream.windows import split_starts
from tests.jobs.forecasts.running import evaluate
from tests.support.processes.training_runs import job, small_options, write_untrained_run

DATA = DataOptions(
    input_frames=3, horizon=3, every=3, normalise="minmax", anomalies=True, pool_mib=1
)


@pytest.fixture(scope="module")
def store(traffic_store: str, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Return a copy of the store, because the climatology is written beside the shards."""
    copy = tmp_path_factory.mktemp("anomalies") / "store.zarr"
    shutil.copytree(traffic_store, copy)
    return open_store(str(copy))


@pytest.fixture(scope="module")
def options(store: Store, tmp_path_factory: pytest.TempPathFactory) -> TrainOptions:
    """Return the options of a run whose model has random weights."""
    asked = small_options(store.uri, str(tmp_path_factory.mktemp("drawn") / "run"), data=DATA)
    write_untrained_run(asked)
    return asked


@pytest.fixture(scope="module")
def no_skill(store: Store, tmp_path_factory: pytest.TempPathFactory) -> checkpoints.Checkpoint:
    """Return a model that has learnt nothing: all members of its forecast are the last anomaly.

    Its head predicts a change from the last frame, and the change is still zero.
    """
    run = str(tmp_path_factory.mktemp("no_skill") / "run")
    size: dict[str, Any] = {"hidden": (8, 8), "patch_size": 2, "filter_size": 3}
    model = ModelOptions(**size, residual=True, options={"noise": 1})
    return write_untrained_run(small_options(store.uri, run, data=DATA, model=model))


def usual(store: Store, times: np.ndarray) -> np.ndarray:
    """Return the train period's mean at the hour of the week, by xarray: (..., C, H, W)."""
    first, last = store.splits["train"]
    dataset = store.dataset()
    flow = dataset["flow"].where(dataset["available"] == 0).sel(time=slice(first, last))
    flow = flow.astype("f8").load()

    def hour_of_week(moments: np.ndarray) -> np.ndarray:
        return moments.astype("datetime64[h]").astype(int) % 168

    flow = flow.assign_coords(slot=("time", hour_of_week(flow["time"].values)))
    by_slot = flow.groupby("slot").mean("time")
    by_hour = flow.assign_coords(hour=flow["slot"] % 24).groupby("hour").mean("time")
    slots = hour_of_week(times)
    # Hours of the week that are missing in the train period have the mean of that hour of the day.
    known = np.isin(slots.ravel(), by_slot["slot"].values)
    found = np.stack(
        [
            by_slot.sel(slot=slot).values if there else by_hour.sel(hour=slot % 24).values
            for slot, there in zip(slots.ravel().tolist(), known.tolist(), strict=True)
        ]
    )
    return found.reshape(*times.shape, *found.shape[1:])


def frames_at(store: Store, first: int) -> np.ndarray:
    """Return 3 frames in physical units: (3, C, H, W)."""
    return np.asarray(store.array("flow")[first : first + 3]).astype("f4")


@pytest.mark.parametrize("members", [None, 2])
def test_an_untrained_model_forecasts_the_last_anomaly(
    store: Store, no_skill: checkpoints.Checkpoint, tmp_path: Path, members: int | None
) -> None:
    made = job(
        *("predict.py", "--checkpoint", no_skill.uri, "--store", store.uri),
        *("--forecasts", tmp_path / "forecasts.zarr"),
        *("--first", "2014-04-16T05", "--last", "2014-04-17T04"),
        *(() if members is None else ("--members", members)),
    )
    assert made.returncode == 0, made.stderr
    forecasts = xr.open_zarr(tmp_path / "forecasts.zarr")
    assert forecasts.sizes["init_time"] == 24
    flow = store.dataset()["flow"]
    inits = forecasts["init_time"].values
    valid = inits[:, None] + forecasts["lead_time"].values
    departure = flow.sel(time=inits).values - usual(store, inits)
    expected = usual(store, valid) + departure[:, None]
    found = forecasts["flow"].values
    if members is not None:
        assert forecasts["flow"].dims[:3] == ("init_time", "lead_time", "member")
        assert found.shape[2] == members
        expected = np.repeat(expected[:, :, None], members, axis=2)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


def scores(store: Store, trained: checkpoints.Checkpoint) -> dict[str, Any]:
    """Return the scores by system, under protocol strict, of 20 windows of the test period."""
    found = evaluate(
        store,
        TrainedForecast(trained),
        variables=trained.variables,
        window=trained.window,
        normalisation=trained.normalisation,
        max_windows=20,
        resamples=0,
    )
    return found.as_dict()["variables"]["flow"]["protocols"]["strict"]


def test_scores_are_of_whole_forecasts_and_baselines_ignore_anomalies(
    store: Store, no_skill: checkpoints.Checkpoint, tmp_path: Path
) -> None:
    of_values = small_options(store.uri, str(tmp_path / "run"), data=replace(DATA, anomalies=False))
    found, plain = scores(store, no_skill), scores(store, write_untrained_run(of_values))
    assert found["persistence"] == plain["persistence"]
    assert found["climatology"] == plain["climatology"]

    starts = split_starts(store, "test", no_skill.window)
    chosen = starts[np.linspace(0, len(starts) - 1, 20).round().astype(int)]
    flow = store.array("flow")
    truth = np.stack([flow[start + 3 : start + 6] for start in chosen]).astype("f8")
    times = store.times[no_skill.window.frames_of(chosen)]
    last = np.stack([flow[start + 2] for start in chosen]) - usual(store, times[:, 2])
    error = usual(store, times[:, 3:]) + last[:, None] - truth
    expected = np.sqrt((error**2).mean())
    assert found["model"]["overall"]["rmse"] == pytest.approx(expected, rel=1e-5)


def test_an_export_forecasts_as_its_checkpoint_does_given_the_time(
    store: Store, options: TrainOptions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export(ExportOptions(options.run, str(tmp_path / "exported")))
    assert "give the time of the newest frame as well" in capsys.readouterr().out
    forecaster = load_exported(tmp_path / "exported")
    assert forecaster.normals is not None
    assert forecaster.normals.startswith("mean by 60 min slot of the week")
    made = job(
        *("predict.py", "--checkpoint", options.run, "--store", store.uri),
        *("--forecasts", tmp_path / "forecasts.zarr"),
        *("--first", "2014-04-16T05", "--last", "2014-04-16T06"),
    )
    assert made.returncode == 0, made.stderr
    expected = xr.open_zarr(tmp_path / "forecasts.zarr")["flow"]
    inits = expected["init_time"].values
    first = [int(np.flatnonzero(store.times == init)[0]) - 2 for init in inits]
    frames = np.stack([frames_at(store, one) for one in first])
    np.testing.assert_allclose(
        forecaster(frames, newest=inits), expected.values, rtol=1e-5, atol=1e-3
    )
    single = forecaster(frames[1], newest="2014-04-16T06:00")
    np.testing.assert_allclose(single, expected.values[1], rtol=1e-5, atol=1e-3)
    # Six hours later the usual traffic is another.
    assert np.abs(forecaster(frames[1], newest="2014-04-16T12:00") - single).max() > 1
    with pytest.raises(ConfigurationError, match="give the time of the newest frame"):
        forecaster(frames[1])


def test_an_exported_folder_has_the_scores_of_its_run(
    store: Store, options: TrainOptions, tmp_path: Path
) -> None:
    export(ExportOptions(options.run, str(tmp_path / "exported")))
    done = job(
        *("evaluate.py", "--checkpoint", tmp_path / "exported", "--store", store.uri),
        *("--report", tmp_path / "report", "--max_windows", 20, "--resamples", 0),
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "report" / "scores.json").read_text())
    expected = scores(store, load_trained(options.run))
    assert found["variables"]["flow"]["protocols"]["strict"] == json.loads(json.dumps(expected))
    assert found["normals"].startswith("mean by 60 min slot of the week")
    page = (tmp_path / "report" / "report.html").read_text()
    assert f"climatology that its checkpoint holds: {found['normals']}" in page


@pytest.mark.parametrize("left", [None, 24], ids=["none", "some"])
def test_an_export_without_its_normals_is_refused(
    options: TrainOptions, tmp_path: Path, left: int | None
) -> None:
    import hashlib

    folder = tmp_path / "exported"
    export(ExportOptions(options.run, str(folder)))
    tensors = load_file(folder / "weights.safetensors")
    table = tensors.pop("normals/table")
    assert table.shape == (168, 2, 16, 8)
    if left is not None:
        tensors["normals/table"] = table[:left].copy()
    save_file(tensors, folder / "weights.safetensors")
    record = json.loads((folder / "model.json").read_text())
    data = (folder / "weights.safetensors").read_bytes()
    record["weights"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "model.json").write_text(json.dumps(record))
    with pytest.raises(ConfigurationError, match="normals"):
        load_exported(folder)
    with pytest.raises(StoreError, match="normals") as refused:
        _ = load_trained(str(folder)).normalisation
    assert str(folder) in str(refused.value)


def test_a_run_does_not_resume_with_another_climatology(
    options: TrainOptions, tmp_path: Path
) -> None:
    other = dataclasses.replace(options, run=str(tmp_path / "run"))
    shutil.copytree(options.run, other.run)
    for item in checkpoints.list_checkpoints(other.run):
        record = json.loads((Path(item.uri) / checkpoints.RECORD).read_text())
        record["normalisation"]["normals"]["xxh3_128"] = "0" * 32
        record["finished"] = False
        (Path(item.uri) / checkpoints.RECORD).write_text(json.dumps(record))
    with pytest.raises(StoreError, match="the climatology of the train period has other values"):
        train(other)
