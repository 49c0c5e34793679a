"""Static fields: conversion into a store, verification and repair, and reading."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from pipelines.archives import load_archive
from pipelines.archives.series.static_variables import describe_static, read_static, take_static
from pipelines.audit.inspection import inspect
from pipelines.audit.verification import verify
from pipelines.conversion.convert import convert, plan_conversion
from pipelines.conversion.estimate import describe_plan
from pipelines.conversion.options import ConversionOptions
from pipelines.conversion.static_plan import parse_static
from pipelines.conversion.static_shards import write_field
from pipelines.errors import SourceError, StoreError, UsageError
from pipelines.inputs.augmentation import Augmentation
from pipelines.inputs.normalisation import Normalisation
from pipelines.inputs.static_fields import differences, read_field, static_fields
from pipelines.stores.store import Store, open_store
from pipelines.stream.order import OrderConfig
from pipelines.stream.torch_dataset import WindowDataset
from pipelines.stream.window_stream import WindowStream
from pipelines.stream.windows import WindowSpec
from tests.support.archives import era5_files, static_archives
from tests.support.archives.static_archives import constants, converted, request

FIELDS = (("lsm", None), ("orography", None), ("slt", 0.0))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with an archive, its constants, and a store without static fields."""
    folder = tmp_path_factory.mktemp("weatherbench")
    static_archives.write_weatherbench(folder)
    converted(request(folder))
    return folder


@pytest.fixture
def plain(archive: Path, tmp_path: Path) -> Path:
    """Return a copy of the folder, which a test may change."""
    return Path(shutil.copytree(archive, tmp_path / "copy"))


@pytest.fixture
def folder(plain: Path) -> Path:
    """Return a copy of the folder with static fields in its store."""
    convert(request(plain, *FIELDS))
    return plain


def objects(store: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in store.rglob("*")
        if path.is_file() and ".ledger" not in path.parts
    }


# --- conversion -----------------------------------------------------------------------------------


def test_static_fields_have_the_published_values_and_frames_are_unchanged(
    archive: Path, plain: Path
) -> None:
    before = objects(plain / "store.zarr")
    done = convert(request(plain, *FIELDS))
    assert (done.static_fields, done.static_fields_written, done.shards_written) == (3, 3, 0)
    opened = xr.open_zarr(plain / "store.zarr", chunks=None)
    for name in ("lsm", "orography"):
        assert opened[name].dims == ("latitude", "longitude")
        np.testing.assert_array_equal(opened[name].values, constants()[name].values)
    np.testing.assert_array_equal(opened["slt"].values, constants()["slt"].fillna(0).values)
    assert opened["orography"].attrs["units"] == "m"
    after = objects(plain / "store.zarr")
    assert {name for name in before if after[name] != before[name]} == {"zarr.json"}
    assert open_store(str(plain / "store.zarr")).fingerprint == (
        open_store(str(archive / "store.zarr")).fingerprint
    )


def test_a_store_without_static_fields_does_not_mention_them(archive: Path) -> None:
    assert "static" not in (archive / "store.zarr/zarr.json").read_text()
    summary = json.loads((archive / "store.zarr/.ledger/plan.json").read_text())
    assert not [key for key in summary if "static" in key]
    assert open_store(str(archive / "store.zarr")).static_fields == {}


def test_static_fields_added_later_have_the_same_bytes(archive: Path, folder: Path) -> None:
    in_parallel = replace(request(archive, *FIELDS), store=str(folder / "in_parallel.zarr"))
    converted(in_parallel)
    assert objects(folder / "in_parallel.zarr") == objects(folder / "store.zarr")


def test_plan_and_inspect_show_static_fields_with_their_statistics(folder: Path) -> None:
    heights = constants()["orography"].values.astype(float)
    info = open_store(str(folder / "store.zarr")).static_fields["orography"]
    wanted = {"mean": heights.mean(), "std": heights.std(), "min": 0.0, "max": heights.max()}
    assert info.statistics == pytest.approx(wanted)
    assert (info.dims, info.shape) == (("latitude", "longitude"), (32, 64))
    assert (info.units, info.long_name) == ("m", "Orography")
    shown = inspect(str(folder / "store.zarr")).static_fields
    assert list(shown) == ["lsm", "orography", "slt"]
    assert shown["orography"].mean == pytest.approx(wanted["mean"])
    planned = describe_plan(plan_conversion(request(folder)), str(folder / "store.zarr"))
    assert planned.static_fields["slt"].missing_pixels_set_to == 0.0
    assert planned.static_fields["lsm"].file.endswith("constants_5.625deg.nc")
    assert planned.shards_due == 0


def test_a_second_run_remembers_the_static_source_and_writes_nothing(folder: Path) -> None:
    before = objects(folder / "store.zarr")
    done = convert(request(folder))
    assert not done.changed
    assert done.static_fields == 3
    assert objects(folder / "store.zarr") == before
    with pytest.raises(StoreError, match=r"missing pixels are set to 0\.0, asked 1\.0"):
        convert(request(folder, ("slt", 1.0)))


def test_a_run_that_stopped_between_two_static_fields_can_be_continued(plain: Path) -> None:
    with pytest.raises(SourceError, match="pixels of static field 'slt' are missing") as refused:
        convert(request(plain, ("lsm", None), ("slt", None), ("orography", None)))
    assert "--static_fields slt=0" in str(refused.value)
    assert "row 0" in str(refused.value)
    # The store reads as before.
    assert open_store(str(plain / "store.zarr")).static_fields == {}
    done = convert(request(plain, ("lsm", None), ("slt", 0.0), ("orography", None)))
    assert done.static_fields_written == 2
    assert list(open_store(str(plain / "store.zarr")).static_fields) == ["lsm", "slt", "orography"]


def test_verify_finds_a_damaged_static_field_and_repair_writes_it_again(folder: Path) -> None:
    store = folder / "store.zarr"
    sound = objects(store)
    assert verify(str(store), str(folder / "2m_temperature")).ok
    damaged = bytearray(sound["lsm/c/0/0"])
    damaged[-1] ^= 1
    (store / "lsm/c/0/0").write_bytes(damaged)
    (store / "orography/c/0/0").unlink()
    found = verify(str(store))
    assert {(p.kind, p.frames) for p in found.problems} == {
        ("altered", "static field lsm"),
        ("missing", "static field orography"),
    }
    assert "--repair" in found.remedy
    with pytest.raises(StoreError, match="'orography' cannot be read"):
        static_fields(open_store(str(store)), ("orography",))
    assert convert(replace(request(folder), repair=True)).static_fields_written == 2
    assert objects(store) == sound


def test_a_changed_static_source_is_noticed_and_converted_again(folder: Path) -> None:
    (folder / "constants/constants_5.625deg.nc").unlink()
    constants(seed=9).to_netcdf(folder / "constants/constants_5.625deg.nc")
    found = verify(str(folder / "store.zarr"), str(folder / "2m_temperature"))
    assert [problem.kind for problem in found.source_problems] == ["changed"]
    trained = static_fields(open_store(str(folder / "store.zarr")), ("lsm", "orography")).as_dict()
    done = convert(request(folder))
    assert (done.static_fields_written, done.shards_written, done.changed) == (3, 0, True)
    store = open_store(str(folder / "store.zarr"))
    np.testing.assert_array_equal(read_field(store, "lsm"), constants(seed=9)["lsm"].values)
    assert "'lsm' of the store has other values" in differences(trained, store)[0]


def test_static_fields_among_the_frames_files_are_noted_and_kept_on_request(tmp_path: Path) -> None:
    (tmp_path / "mixed").mkdir()
    static_archives.temperatures(20).to_netcdf(tmp_path / "mixed/a_t2m.nc")
    constants()[["lsm", "orography"]].to_netcdf(tmp_path / "mixed/b_constants.nc")
    asked = replace(request(tmp_path), source=str(tmp_path / "mixed"))
    plan = plan_conversion(asked)
    assert [v.name for v in plan.index.variables] == ["t2m"]
    assert plan.static == ()
    assert any("--static_fields lsm orography keeps them" in note for note in plan.index.notes)
    options = ConversionOptions(static_fields=(("lsm", None),))
    kept = plan_conversion(replace(asked, options=options))
    assert [task.name for task in kept.static] == ["lsm"]
    np.testing.assert_array_equal(read_static(kept.static[0].variable), constants()["lsm"].values)


def test_a_field_with_one_time_is_static_in_netcdf_and_grib(tmp_path: Path) -> None:
    when = pd.date_range("2000-01-01", periods=1)
    dataset = constants()[["lsm"]].expand_dims(valid_time=when)
    dataset.to_netcdf(tmp_path / "one_time.nc")
    (found,), _ = take_static(describe_static(str(tmp_path / "one_time.nc")), ("lsm",))
    np.testing.assert_array_equal(read_static(found), constants()["lsm"].values)

    land = np.array([[0, 1, 1, 0], [0.5, 1, 0, 0], [1, 1, 0, 0]])
    keys = {"paramId": 172, "dataDate": 20000101, "dataTime": 0, "values": land}
    era5_files.write_grib(tmp_path / "invariants.grib", [keys])
    grib = describe_static(str(tmp_path / "invariants.grib"))
    (found,), _ = take_static(grib, ("lsm",))
    np.testing.assert_allclose(read_static(found), land, atol=1e-4)


def test_a_static_field_among_hourly_files_is_not_a_gap(tmp_path: Path) -> None:
    (tmp_path / "both").mkdir()
    static_archives.temperatures(20).to_netcdf(tmp_path / "both/hourly.nc")
    constants()[["lsm"]].expand_dims(time=pd.date_range("1990-01-01", periods=1)).to_netcdf(
        tmp_path / "both/invariant.nc"
    )
    options = ConversionOptions(static_fields=(("lsm", None),))
    plan = plan_conversion(
        replace(request(tmp_path), source=str(tmp_path / "both"), archive="era5", options=options)
    )
    assert (len(plan.times), plan.gaps()) == (20, [])
    assert [task.name for task in plan.static] == ["lsm"]


def test_a_static_field_on_another_grid_is_an_error_that_names_both_grids(plain: Path) -> None:
    path = plain / "constants/constants_5.625deg.nc"
    path.unlink()
    constants().isel(lat=slice(None, None, -1)).to_netcdf(path)
    with pytest.raises(SourceError) as refused:
        plan_conversion(request(plain, ("lsm", None)))
    said = str(refused.value)
    assert "latitude 32 from 87.1875 to -87.1875" in said
    assert "latitude 32 from -87.1875 to 87.1875" in said
    path.unlink()
    constants().isel(lon=slice(0, 32)).to_netcdf(path)
    with pytest.raises(SourceError, match=r"longitude 32 from 0 to 174\.375"):
        plan_conversion(request(plain, ("lsm", None)))


@pytest.mark.parametrize("fill", [None, 0.0])
def test_regridding_averages_static_fields_like_frames(
    archive: Path, tmp_path: Path, fill: float | None
) -> None:
    name = "lsm" if fill is None else "slt"
    asked = request(archive, (name, fill), options={"regrid": "11.25"}, store=str(tmp_path / "s"))
    plan = plan_conversion(asked)
    (task,) = plan.static
    assert task.average is not None
    write_field(task, asked.store, "tests")
    coarse = task.average(constants()[name].values).astype("f4")
    assert coarse.shape == (16, 32)
    assert fill is None or np.isnan(coarse).any()
    from numcodecs import Blosc

    stored = np.frombuffer(Blosc().decode((tmp_path / "s" / task.object_name).read_bytes()), "<f4")
    np.testing.assert_array_equal(stored.reshape(16, 32), np.nan_to_num(coarse))
    # A field that is on the coarse grid already stays as it is.
    fine = constants().interp(lat=plan.index.variables[0].coordinates["latitude"])
    fine = fine.interp(lon=plan.index.variables[0].coordinates["longitude"])
    fine.to_netcdf(tmp_path / "coarse.nc")
    again = plan_conversion(replace(asked, static_source=str(tmp_path / "coarse.nc")))
    assert again.static[0].average is None


def test_impossible_static_fields_are_errors_with_a_remedy(archive: Path, tmp_path: Path) -> None:
    for asked, said in (
        (request(archive, ("lsmm", None)), "did you mean 'lsm'"),
        (replace(request(archive, ("lsm", None)), static_source=None), "--static_source FILE"),
        (request(archive, ("latitude", None)), "latitude"),
        (
            replace(request(archive), static_source=str(archive / "constants")),
            "--static_fields orography lsm slt lat2d lon2d",
        ),
        (
            request(archive, ("t2m", None), options={"variables": ("t2m",)}),
            "as a variable and as a static field",
        ),
    ):
        with pytest.raises(UsageError) as refused:
            plan_conversion(replace(asked, store=str(tmp_path / "new.zarr")))
        assert said in str(refused.value)
    constants()[["lsm"]].rename(lsm="t2m").to_netcdf(tmp_path / "t2m.nc")
    of_one_name = request(archive, ("t2m", None), static_source=str(tmp_path / "t2m.nc"))
    with pytest.raises(UsageError, match="rename it in its file"):
        plan_conversion(replace(of_one_name, store=str(tmp_path / "new.zarr")))
    (tmp_path / "t2m.nc").unlink()
    twice = constants()[["lsm"]].expand_dims(time=pd.date_range("2000-01-01", periods=2))
    twice.to_netcdf(tmp_path / "twice.nc")
    with pytest.raises(SourceError, match="'lsm' is not a static field: it has 2 times"):
        take_static(describe_static(str(tmp_path / "twice.nc")), ("lsm",))
    constants(1).to_netcdf(tmp_path / "one.nc")
    (tmp_path / "twice.nc").unlink()
    constants(2).to_netcdf(tmp_path / "other.nc")
    with pytest.raises(SourceError, match="static field 'lsm' differs between two files"):
        take_static(describe_static(str(tmp_path)), ("lsm",))
    for text in ("slt=", "slt=sea", "=1", "slt=nan"):
        with pytest.raises(UsageError, match="does not name a static field"):
            parse_static(text)


def test_a_file_without_time_and_grid_is_an_error(tmp_path: Path) -> None:
    xr.Dataset({"a": ("x", np.zeros(3))}).to_netcdf(tmp_path / "a.nc")
    with pytest.raises(SourceError, match="no time dimension"):
        load_archive("weatherbench").index(
            str(tmp_path), variables=None, options={}, progress=lambda a, b: None
        )


# --- reading --------------------------------------------------------------------------------------


def test_static_fields_are_read_normalised_and_in_the_order_asked_for(folder: Path) -> None:
    store = open_store(str(folder / "store.zarr"))
    fields = static_fields(store, ("orography", "lsm"))
    heights = constants()["orography"].values.astype(float)
    assert fields.names == ("orography", "lsm")
    assert fields.values_shw.shape == (2, 32, 64)
    np.testing.assert_allclose(
        fields.values_shw[0], (heights - heights.mean()) / heights.std(), rtol=1e-4, atol=1e-5
    )
    scaled = static_fields(store, ("orography",), "minmax").values_shw
    assert (scaled.min(), scaled.max()) == pytest.approx((0, 1))
    assert differences(fields.as_dict(), store) == []


def test_fields_from_coordinates_are_continuous_around_the_globe(folder: Path) -> None:
    store = open_store(str(folder / "store.zarr"))
    names = ("sin_latitude", "cos_latitude", "sin_longitude", "cos_longitude")
    fields = static_fields(store, names)
    physical = fields.normalisation.invert(fields.values_shw)
    radians = np.deg2rad(np.meshgrid(store.coordinates["latitude"], store.coordinates["longitude"]))
    for values, wanted in zip(
        physical,
        (np.sin(radians[0]), np.cos(radians[0]), np.sin(radians[1]), np.cos(radians[1])),
        strict=True,
    ):
        np.testing.assert_allclose(values, wanted.T, atol=1e-6)
    assert differences(fields.as_dict(), store) == []


def test_a_missing_static_field_is_an_error_with_the_command_that_adds_it(archive: Path) -> None:
    store = open_store(str(archive / "store.zarr"))
    with pytest.raises(UsageError) as refused:
        static_fields(store, ("lsm",))
    assert "convert --archive weatherbench" in str(refused.value)
    assert "--static_fields lsm" in str(refused.value)
    assert differences({"labels": ["lsm"], "fingerprints": ["0"]}, store) == [
        "the store has no static field lsm"
    ]


def stream(store: Store, changes: Augmentation | None, names: tuple[str, ...]) -> WindowStream:
    normalisation = Normalisation.from_store(store, ("t2m",), "minmax")
    starts = np.arange(40)
    order = OrderConfig(global_batch=8, seed=5)
    return WindowStream(
        store,
        ("t2m",),
        WindowSpec(2, 1),
        starts,
        order,
        normalisation,
        lanes=range(2, 6),
        augmentation=changes,
        static_fields=names,
    )


def test_batches_share_one_copy_of_the_static_fields(folder: Path) -> None:
    store = open_store(str(folder / "store.zarr"))
    batches = list(stream(store, None, ("lsm", "slt")).epoch(0))
    wanted = static_fields(store, ("lsm", "slt"), "minmax").values_shw
    assert all(batch.static is batches[0].static for batch in batches)
    np.testing.assert_array_equal(batches[0].static, wanted)
    assert next(iter(stream(store, None, ()).epoch(0))).static is None


def test_a_torch_dataset_gives_frames_and_static_fields(folder: Path) -> None:
    store = open_store(str(folder / "store.zarr"))
    frames, static = next(iter(WindowDataset(stream(store, None, ("lsm",)))))
    assert frames.shape == (4, 3, 1, 32, 64)
    assert static.shape == (1, 32, 64)
