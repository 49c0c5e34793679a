"""Training with static fields on anomalies: resume, checkpoints, export, prediction.

`tests/jobs/test_anomalies.py` checks the forecasts of such models.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from gmg_model import load_exported
from jobs.export import ExportOptions, export
from jobs.forecasts.forecasters.compatibility import check_match
from jobs.forecasts.forecasters.model_forecast import forecast_with
from jobs.forecasts.forecasters.trained import load_trained
from jobs.training.driver.job import train
from jobs.training.options import DataOptions, TrainingOptions, TrainOptions
from jobs.training.plan import make_plan
from jobs.training.run import checkpoints
from jobs.training.run_options import CheckpointOptions, ValidationOptions
from pipelines.conversion.convert import convert
from pipelines.conversion.options import ConversionOptions, ConversionRequest
from pipelines.errors import StoreError, UsageError
from pipelines.inputs.augmentation import Augmentation
from pipelines.inputs.static_fields import static_fields
from pipelines.stores.store import open_store
from tests.jobs.forecasts.running import predict
from tests.support.processes.training_runs import first_batch, losses, small_options

FIELDS = ("roads", "height")


def add_fields(store: str, seed: int = 0) -> None:
    """Add static fields to the store's 16 x 8 cells, which have no coordinates."""
    rng = np.random.default_rng(seed)
    source = Path(store).parent / "city.nc"
    source.unlink(missing_ok=True)
    xr.Dataset(
        {
            "roads": (("y", "x"), (rng.random((16, 8)) < 0.5).astype("f4")),
            "height": (("y", "x"), rng.normal(100, 20, (16, 8)).astype("f4"), {"units": "m"}),
        }
    ).to_netcdf(source)
    archive = str(Path(store).parent / "archive")
    options = ConversionOptions(static_fields=tuple((name, None) for name in FIELDS))
    convert(ConversionRequest("taxibj", archive, store, options, static_source=str(source)))


@pytest.fixture(scope="module")
def store(traffic_store: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a copy of the traffic store with static fields."""
    folder = tmp_path_factory.mktemp("static") / "traffic"
    shutil.copytree(Path(traffic_store).parent, folder)
    uri = str(folder / Path(traffic_store).name)
    add_fields(uri)
    return uri


@pytest.fixture(scope="module")
def options(
    store: str, ray_cluster: None, tmp_path_factory: pytest.TempPathFactory
) -> TrainOptions:
    """Return the options of a finished training on two workers, with mirrored windows."""
    asked = small_options(
        store,
        str(tmp_path_factory.mktemp("static_runs") / "run"),
        data=DataOptions(
            input_frames=3,
            horizon=3,
            every=3,
            static_fields=FIELDS,
            normalise="minmax",
            anomalies=True,
            pool_mib=1,
        ),
        training=TrainingOptions(epochs=1, global_batch=9, seed=3),
        augmentation=Augmentation(flip_rows=True, flip_columns=True),
        checkpoints=CheckpointOptions(every_steps=4, keep=20),
        validation=ValidationOptions(windows=10),
    )
    train(asked)
    return asked


@pytest.fixture(scope="module")
def trained(options: TrainOptions) -> checkpoints.Checkpoint:
    return checkpoints.list_checkpoints(options.run)[-1]


def seen_in(store: str, *firsts: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return windows of 3 input frames that begin at these frames.

    They are (B, 3, C, H, W) in physical units, their times (B, 3), and the times (B, 3) of the 3
    frames that follow.
    """
    opened = open_store(store)
    array = opened.array("flow")
    frames = np.stack([np.asarray(array[first : first + 3], np.float32) for first in firsts])
    times = opened.times[np.asarray(firsts)[:, None] + np.arange(6)]
    return frames, times[:, :3], times[:, 3:]


@pytest.fixture
def half_run(options: TrainOptions, tmp_path: Path) -> TrainOptions:
    """Return a copy of the run that ends with the checkpoint of step 4 of 8."""
    shutil.copytree(options.run, tmp_path / "run")
    for item in checkpoints.list_checkpoints(str(tmp_path / "run")):
        if item.step > 4:
            shutil.rmtree(item.uri)
    return replace(options, run=str(tmp_path / "run"))


def test_a_run_resumes_with_frames_from_ray_tasks_bit_for_bit(
    options: TrainOptions, half_run: TrainOptions
) -> None:
    train(replace(half_run, data=replace(options.data, transport="ray")))
    assert losses(half_run.run) == losses(options.run)


def test_a_run_resumes_on_one_worker_as_on_two(
    options: TrainOptions, half_run: TrainOptions
) -> None:
    expected = losses(options.run)
    assert len(expected) == 8
    train(replace(half_run, workers=1))
    resumed = losses(half_run.run)
    # In single precision, sums over two workers and over one are rounded differently.
    assert resumed[:4] == expected[:4]
    assert resumed[4] == pytest.approx(expected[4], rel=1e-5)
    np.testing.assert_allclose(resumed, expected, rtol=1e-3)


def test_an_augmentation_moves_static_fields_with_their_window(
    options: TrainOptions,
) -> None:
    from gmg_model import create_model
    from gmg_model.training.losses import create_loss
    from gmg_model.training.sampling import forced_frames

    plan = make_plan(options)
    assert plan.static is not None
    batch = first_batch(options, augmentation=options.augmentation, static_fields=FIELDS)
    assert batch.static is not None
    assert batch.static.shape == (9, 2, 16, 8)
    torch.manual_seed(3)
    model = create_model("gmg-s", **plan.model_overrides).double()
    frames = torch.from_numpy(batch.frames_btchw).double()
    forced = forced_frames(1.0, 3, 3, 0, batch.lanes).double()

    def loss(static: np.ndarray) -> float:
        with torch.no_grad():
            outputs = model(
                frames, input_frames=3, forced=forced, static=torch.from_numpy(static).double()
            )
        return float(create_loss("l1+l2")(outputs, frames[:, 1:]).mean())

    moved, unmoved = batch.static.copy(), plan.static.values_shw
    first = losses(options.run)[0]
    # It was taken in single precision, this one is not: nearer to it than to the other by far.
    assert abs(first - loss(moved)) < 0.02 * abs(loss(unmoved) - loss(moved))


def test_a_checkpoint_has_the_fields_and_says_what_they_are(
    trained: checkpoints.Checkpoint, store: str
) -> None:
    fields = static_fields(open_store(store), FIELDS, "minmax")
    assert trained.static_names == FIELDS
    assert trained.record["static"] == json.loads(json.dumps(fields.as_dict()))
    assert not [name for name in trained.tensors if "static" in name]
    frames, times, _ = seen_in(store, 5, 90)
    given = trained.normalisation.inputs(frames, times)
    model: Any = trained.model()
    wanted = forecast_with(model)(given, 3)
    model.bind_static(torch.from_numpy(fields.values_shw))
    np.testing.assert_allclose(forecast_with(model)(given, 3), wanted, rtol=1e-6)
    model.bind_static(torch.zeros(2, 16, 8))
    assert np.abs(forecast_with(model)(given, 3) - wanted).max() > 1e-5


def test_an_exported_model_carries_its_fields(
    trained: checkpoints.Checkpoint, store: str, tmp_path: Path
) -> None:
    export(ExportOptions(trained.uri, str(tmp_path / "exported")))
    exported = load_exported(tmp_path / "exported")
    assert exported.static == FIELDS
    frames, times, valid_times = seen_in(store, 5, 90)
    given = trained.normalisation.inputs(frames, times)
    wanted = trained.normalisation.outputs(forecast_with(trained.model())(given, 3), valid_times)
    found = exported(frames, 3, newest=times[:, -1])
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-4)


def test_prediction_uses_the_fields_from_a_run_or_from_an_export(
    trained: checkpoints.Checkpoint, store: str, tmp_path: Path
) -> None:
    export(ExportOptions(trained.uri, str(tmp_path / "exported")))
    opened = open_store(store)
    period = ("2014-04-15T05", "2014-04-15T05")
    values = []
    for place in (trained.uri, str(tmp_path / "exported")):
        target = tmp_path / f"forecasts{len(values)}.zarr"
        predict(load_trained(place), opened, str(target), period=period)
        values.append(xr.open_zarr(target)["flow"].values)
    np.testing.assert_array_equal(*values)
    frame = int(np.flatnonzero(opened.times == np.datetime64("2014-04-15T05"))[0])
    frames, times, valid_times = seen_in(store, frame - 2)
    given = trained.normalisation.inputs(frames, times)
    wanted = trained.normalisation.outputs(forecast_with(trained.model())(given, 3), valid_times)
    np.testing.assert_allclose(values[0], wanted, rtol=1e-5, atol=1e-4)


def test_a_store_without_the_fields_or_with_others_is_refused(
    options: TrainOptions, trained: checkpoints.Checkpoint, traffic_store: str, tmp_path: Path
) -> None:
    check_match(trained, open_store(options.store))
    with pytest.raises(StoreError) as refused:
        check_match(trained, open_store(traffic_store))
    assert "the store has no static field roads, height" in str(refused.value)
    assert "--static_fields roads height" in str(refused.value)
    folder = tmp_path / "other"
    shutil.copytree(Path(options.store).parent, folder)
    other = str(folder / Path(options.store).name)
    add_fields(other, seed=1)
    with pytest.raises(StoreError, match="'roads' of the store has other values"):
        check_match(trained, open_store(other))


def test_a_run_does_not_resume_with_other_fields(options: TrainOptions, tmp_path: Path) -> None:
    folder = tmp_path / "traffic"
    shutil.copytree(Path(options.store).parent, folder)
    shutil.copytree(options.run, tmp_path / "run")
    store = str(folder / Path(options.store).name)
    record = json.loads((tmp_path / "run/run.json").read_text())
    record["options"]["store"] = store
    (tmp_path / "run/run.json").write_text(json.dumps(record))
    add_fields(store, seed=1)
    with pytest.raises(StoreError, match="it began with other data: static field 'roads'"):
        train(replace(options, store=store, run=str(tmp_path / "run")))


def test_impossible_fields_are_refused_before_any_compute(
    options: TrainOptions, traffic_store: str
) -> None:
    def plan(store: str, *names: str) -> None:
        make_plan(replace(options, store=store, data=replace(options.data, static_fields=names)))

    with pytest.raises(UsageError, match="did you mean 'roads'"):
        plan(options.store, "road")
    with pytest.raises(UsageError, match="needs the coordinate 'latitude'"):
        plan(options.store, "cos_latitude")
    with pytest.raises(UsageError, match="--static_fields roads"):
        plan(traffic_store, "roads")
    with pytest.raises(UsageError, match="named twice"):
        plan(options.store, "roads", "roads")
    model = replace(options.model, options={"static_channels": 1})
    with pytest.raises(UsageError) as refused:
        _ = make_plan(replace(options, model=model)).model_overrides
    assert "--data.static_fields" in str(refused.value)
