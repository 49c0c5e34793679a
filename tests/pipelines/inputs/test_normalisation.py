"""Normalisation by constants of the train period, and to anomalies from its climatology."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pipelines.errors import StoreError, UsageError
from pipelines.inputs import normalisation as module
from pipelines.inputs.climatology import climatology, kept_climatology
from pipelines.inputs.normalisation import Normalisation, NormalisedReader, with_normals
from pipelines.stores.reader import FrameReader
from pipelines.stores.store import Store
from pipelines.stream.order import OrderConfig
from pipelines.stream.window_dataset import read_windows
from pipelines.stream.window_stream import WindowStream, read_batches
from pipelines.stream.windows import WindowSpec, split_starts

FRAMES, HEIGHT, WIDTH = 240, 4, 6
TRAIN = ("2015-01-01", "2015-01-07T23")
SPEC = WindowSpec(3, 2, stride=2)


def random_fields(*shape: int) -> np.ndarray:
    offsets = 100.0 * np.arange(np.prod(shape[1:-2])).reshape(*shape[1:-2], 1, 1)
    return (np.random.default_rng(0).normal(0, 3, shape) + offsets).astype("f4")


def test_standardised_train_frames_have_zero_mean_and_unit_variance(
    tmp_path: Path, write_store: Callable[..., Store]
):
    values = random_fields(40, 5, 4)
    values[20:] += 50.0
    store = write_store(
        tmp_path / "s", {"t2m": values}, splits={"train": ("2015-01-01", "2015-01-01T19")}
    )
    normal = Normalisation.from_store(store, ("t2m",), "standardise").apply(values[:, None])
    assert normal.dtype == np.float32
    assert normal[:20].mean() == pytest.approx(0.0, abs=1e-4)
    assert normal[:20].std() == pytest.approx(1.0, abs=1e-4)
    assert normal[20:].mean() > 5


def test_minmax_scales_train_frames_to_the_unit_interval(
    tmp_path: Path, write_store: Callable[..., Store]
):
    values = random_fields(30, 2, 5, 4)
    store = write_store(tmp_path / "s", {"flow": values}, extra_dims={"flow": ("channel",)})
    normalisation = Normalisation.from_store(store, ("flow",), "minmax")
    assert normalisation.labels == ("flow[0]", "flow[1]")
    # Both channels of one variable keep one scale.
    assert normalisation.offset[0] == normalisation.offset[1]
    normal = normalisation.apply(values)
    assert (normal.min(), normal.max()) == (0.0, pytest.approx(1.0))


def test_each_level_has_its_own_constants_and_members_share_them(
    tmp_path: Path, write_store: Callable[..., Store]
):
    values = random_fields(30, 2, 3, 5, 4)
    store = write_store(
        tmp_path / "s", {"z": values, "t": values[:, 0, 0]}, extra_dims={"z": ("member", "level")}
    )
    normalisation = Normalisation.from_store(store, ("t", "z"), "standardise")
    assert len(normalisation.labels) == 7
    members, levels = np.array(normalisation.offset[1:]).reshape(2, 3), range(3)
    np.testing.assert_array_equal(members[0], members[1])
    for level in levels:
        assert members[0, level] == pytest.approx(values[:, :, level].mean(dtype="f8"))
        assert normalisation.scale[1 + level] == pytest.approx(
            values[:, :, level].std(dtype="f8"), rel=1e-6
        )


def test_invert_undoes_apply():
    normalisation = Normalisation("standardise", ("a", "b"), (280.0, 1e5), (12.0, 900.0))
    values = np.random.default_rng(1).normal(0, 1, (3, 2, 4, 4)).astype("f4")
    physical = normalisation.invert(values)
    assert physical[:, 1].mean() == pytest.approx(1e5, rel=0.01)
    np.testing.assert_allclose(normalisation.apply(physical), values, atol=1e-4)


def test_apply_can_work_in_place():
    values = np.full((2, 1, 3, 3), 5.0, "f4")
    normalisation = Normalisation("standardise", ("a",), (1.0,), (2.0,))
    assert normalisation.apply(values, out=values) is values
    assert (values == 2.0).all()


def test_a_constant_field_becomes_zero(tmp_path: Path, write_store: Callable[..., Store]):
    values = np.full((10, 3, 3), 7.0, "f4")
    store = write_store(tmp_path / "s", {"t2m": values})
    for kind in ("standardise", "minmax"):
        normalisation = Normalisation.from_store(store, ("t2m",), kind)
        assert not normalisation.apply(values[:, None]).any()


def test_json_keeps_every_digit_of_the_constants():
    normalisation = Normalisation("minmax", ("a",), (1.0 / 3.0,), (2.0 / 7.0,))
    assert Normalisation.from_dict(json.loads(json.dumps(normalisation.as_dict()))) == normalisation


def test_an_unknown_name_is_an_error_that_suggests_the_nearest(
    tmp_path: Path, write_store: Callable[..., Store]
):
    store = write_store(tmp_path / "s", {"t2m": np.ones((10, 3, 3), "f4")})
    with pytest.raises(UsageError, match="did you mean 't2m'"):
        Normalisation.from_store(store, ("t2n",), "standardise")
    with pytest.raises(UsageError, match="did you mean 'minmax'"):
        Normalisation.from_store(store, ("t2m",), "minmaxx")  # pyright: ignore


def test_a_train_period_without_values_is_an_error(
    tmp_path: Path, write_store: Callable[..., Store]
):
    store = write_store(
        tmp_path / "s", {"t2m": np.ones((10, 3, 3), "f4")}, available=np.ones(10, "u1")
    )
    with pytest.raises(StoreError, match="no value of 't2m' in the train period"):
        Normalisation.from_store(store, ("t2m",), "standardise")


@pytest.fixture(scope="module")
def values() -> np.ndarray:
    """A course of the day that differs from pixel to pixel, weather, and one missing pixel."""
    random = np.random.default_rng(5)
    hour = 2 * np.pi * np.arange(FRAMES)[:, None, None] / 24 + random.random((HEIGHT, WIDTH))
    fields = 280 + 9 * np.sin(hour) + random.normal(0, 1, (FRAMES, HEIGHT, WIDTH))
    fields[200, 1, 2] = np.nan
    return fields.astype("f4")


@pytest.fixture(scope="module")
def store(
    tmp_path_factory: pytest.TempPathFactory, write_store: Callable[..., Store], values: np.ndarray
) -> Store:
    return write_store(
        tmp_path_factory.mktemp("normals") / "store",
        {"t2m": values},
        splits={"train": TRAIN, "test": ("2015-01-08", "2015-01-10T23")},
    )


@pytest.fixture(scope="module")
def constants(store: Store) -> Normalisation:
    return Normalisation.from_store(store, ("t2m",), "standardise")


@pytest.fixture(scope="module")
def anomalies(store: Store, constants: Normalisation) -> Normalisation:
    return with_normals(constants, store, ("t2m",))


def usual_by_xarray(store: Store) -> np.ndarray:
    """(FRAMES, H, W): the train period's mean of each frame's hour."""
    t2m = store.dataset()["t2m"].astype("f8").load()
    mean = t2m.sel(time=slice(*TRAIN)).groupby("time.hour").mean("time")
    return mean.sel(hour=t2m["time.hour"]).transpose("time", ...).values


def test_inputs_of_a_model_of_anomalies_are_departures_from_the_mean_of_the_hour(
    store: Store, values: np.ndarray, anomalies: Normalisation
):
    given = anomalies.inputs(values[:, None], store.times)
    train = store.dataset()["t2m"].sel(time=slice(*TRAIN)).values
    expected = (values - usual_by_xarray(store)) / train.std(dtype="f8")
    known = ~np.isnan(values)
    assert given.dtype == np.float32
    np.testing.assert_allclose(given[:, 0][known], expected[known], atol=5e-6)
    # Most of what the constants alone leave is the course of the day.
    assert given[known[:, None]].std() < 0.3


def test_a_forecast_of_no_departure_is_the_climatology(store: Store, anomalies: Normalisation):
    valid = store.times[190:194].reshape(2, 1, 2)  # samples, members, lead times
    nothing = np.zeros((2, 3, 2, 1, HEIGHT, WIDTH), np.float32)
    forecast = anomalies.outputs(nothing, valid)
    assert forecast.shape == nothing.shape
    expected = usual_by_xarray(store)[190:194].reshape(2, 1, 2, 1, HEIGHT, WIDTH)
    np.testing.assert_allclose(forecast, np.repeat(expected, 3, axis=1), rtol=1e-6)


def test_outputs_invert_inputs_and_a_missing_pixel_becomes_the_usual_value(
    store: Store, values: np.ndarray, anomalies: Normalisation
):
    back = anomalies.outputs(anomalies.inputs(values[:, None], store.times), store.times)[:, 0]
    known = ~np.isnan(values)
    np.testing.assert_allclose(back[known], values[known], rtol=1e-6)
    np.testing.assert_allclose(back[200, 1, 2], usual_by_xarray(store)[200, 1, 2], rtol=1e-6)


def test_times_do_not_matter_without_normals(values: np.ndarray, constants: Normalisation):
    times = np.full(FRAMES, np.datetime64("NaT"))
    given = constants.inputs(values[:, None], times)
    np.testing.assert_array_equal(given, np.nan_to_num(constants.apply(values[:, None])))
    np.testing.assert_array_equal(constants.outputs(given, times), constants.invert(given))
    np.testing.assert_array_equal(constants.filled(values[:, None]), constants.invert(given))


def test_streamed_batches_are_windows_minus_the_normals_of_their_frames(
    store: Store, anomalies: Normalisation
):
    starts = split_starts(store, "test", SPEC)
    order = OrderConfig(global_batch=5, seed=1, slab_frames=16, pool_bytes=4000)
    stream = WindowStream(store, ("t2m",), SPEC, starts, order, anomalies, range(5))
    physical = {
        int(start): frames_tchw
        for batch, frames in read_batches(store, ("t2m",), SPEC, starts, 8)
        for start, frames_tchw in zip(batch, frames, strict=True)
    }
    seen = 0
    for batch in stream.epoch(0):
        for start, frames_tchw in zip(batch.starts.tolist(), batch.frames_btchw, strict=True):
            times = store.times[start + 2 * np.arange(5)]
            np.testing.assert_array_equal(frames_tchw, anomalies.inputs(physical[start], times))
            seen += 1
    assert seen == len(starts) > 20


@pytest.mark.usefixtures("ray_cluster")
def test_rows_of_windows_are_anomalies_too(store: Store, anomalies: Normalisation):
    size = {"input_frames": 3, "horizon": 2, "stride": 2, "split": "test"}
    plain = {row["start"]: row for row in read_windows(store, **size).iter_rows()}
    rows = list(read_windows(store, **size, normalisation=anomalies).iter_rows())
    assert len(rows) == len(plain) > 20
    for row in rows:
        times = store.times[row["start"] + 2 * np.arange(5)]
        expected = anomalies.inputs(plain[row["start"]]["frames"], times)
        np.testing.assert_array_equal(row["frames"], expected)


def test_a_record_and_a_table_restore_the_normalisation(
    store: Store, values: np.ndarray, anomalies: Normalisation
):
    assert anomalies.normals is not None
    record = json.loads(json.dumps(anomalies.as_dict()))
    known = record["normals"]
    assert (known["cycle"], known["slot_seconds"]) == ("day", 3600)
    assert known["definition"].startswith("mean by hour of day, of 168 train frames")
    assert known["xxh3_128"] == anomalies.normals.checksum
    again = Normalisation.from_dict(record, anomalies.normals.table)
    times = store.times
    np.testing.assert_array_equal(
        again.inputs(values[:, None], times), anomalies.inputs(values[:, None], times)
    )
    other = anomalies.normals.table.copy()
    other[3, 0, 1, 1] += 1e-6
    changed = Normalisation.from_dict(record, other)
    assert changed.as_dict()["normals"]["xxh3_128"] != known["xxh3_128"]


def test_the_record_of_constants_without_normals_has_no_normals(constants: Normalisation):
    assert set(constants.as_dict()) == {"kind", "labels", "offset", "scale"}


def test_the_anomaly_of_a_pixel_without_a_train_value_is_its_value(
    tmp_path: Path, write_store: Callable[..., Store], values: np.ndarray
):
    cut = values.copy()
    cut[:168, 0, 0] = np.nan
    store = write_store(tmp_path / "s", {"t2m": cut}, splits={"train": TRAIN})
    constants = Normalisation.from_store(store, ("t2m",), "standardise")
    given = with_normals(constants, store, ("t2m",)).inputs(cut[:, None], store.times)
    np.testing.assert_array_equal(given[168:, 0, 0, 0], constants.apply(cut[168:, :1, :1])[:, 0, 0])


def test_a_climatology_that_is_too_large_to_keep_is_an_error(store: Store):
    # 24 hours of 4 x 6 float32.
    with pytest.raises(UsageError, match="the climatology of t2m takes 0 MiB") as refused:
        climatology(store, ("t2m",), most_bytes=24 * 4 * 6 * 4 - 1)
    assert "--regrid" in str(refused.value)
    assert climatology(store, ("t2m",), most_bytes=24 * 4 * 6 * 4).table.nbytes == 24 * 4 * 6 * 4


def test_a_kept_climatology_that_is_too_large_is_an_error_too(
    store: Store, constants: Normalisation, monkeypatch: pytest.MonkeyPatch
):
    kept_climatology(store, ("t2m",))
    monkeypatch.setattr(module, "MAX_NORMALS_BYTES", 24 * 4 * 6 * 4 - 1)
    with pytest.raises(UsageError, match="can be kept with a model"):
        with_normals(constants, store, ("t2m",))


def test_normals_of_several_variables_have_their_channels_in_order(
    tmp_path: Path, write_store: Callable[..., Store], values: np.ndarray
):
    levels = np.stack([values + 10, values - 10], axis=1)
    store = write_store(tmp_path / "s", {"t2m": values, "z": levels}, extra_dims={"z": ("level",)})
    names = ("z", "t2m")
    anomalies = with_normals(Normalisation.from_store(store, names, "minmax"), store, names)
    frames = np.concatenate([levels, values[:, None]], axis=1)
    usual = xr.DataArray(frames, dims=("time", "c", "y", "x"), coords={"time": store.times})
    by_hour = usual.groupby("time.hour").mean("time")
    expected = by_hour.sel(hour=usual["time.hour"]).transpose("time", ...).values
    found = anomalies.outputs(np.zeros_like(frames), store.times)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_normalised_reader_gives_the_inputs_of_a_model(
    store: Store, values: np.ndarray, anomalies: Normalisation
):
    reader = NormalisedReader(FrameReader(store, ("t2m",)), anomalies)
    found = np.empty((230, *reader.frame_shape), np.float32)
    reader.read(5, 235, found)
    expected = anomalies.inputs(values[5:235, None], store.times[5:235])
    np.testing.assert_array_equal(found, expected)


def test_a_normalisation_of_other_channels_is_an_error(store: Store):
    other = Normalisation("standardise", ("a", "b"), (0.0, 0.0), (1.0, 1.0))
    with pytest.raises(UsageError, match="has 2 channels"):
        NormalisedReader(FrameReader(store, ("t2m",)), other)
