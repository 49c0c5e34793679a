"""Conversions on Ray: values, appends, repairs, and errors that leave the store as it was."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

from pipelines.audit.verification import verify
from pipelines.conversion.convert import convert
from pipelines.conversion.options import ConversionOptions, ConversionReport, ConversionRequest
from pipelines.errors import BusyError, PlatformError, SourceError, StoreError, UsageError
from pipelines.storage.lease import hold
from pipelines.stores.store import open_store
from tests.support.archives.small_archives import (
    fields,
    hourly,
    write_days,
    write_netcdf,
    write_traffic,
)

pytestmark = pytest.mark.usefixtures("ray_cluster")

SMALL = {"chunk_frames": 8, "shard_frames": 16}


def run(
    archive: str, source: Path | str, store: Path, *, repair: bool = False, **options
) -> ConversionReport:
    request = ConversionRequest(
        archive, str(source), str(store), ConversionOptions(**options), repair=repair
    )
    return convert(request)


def content(store: Path) -> dict[str, str]:
    """Return every object except the lease; ledger records come without time and owner."""
    found = {}
    for path in sorted(store.rglob("*")):
        if not path.is_file():
            continue
        data = path.read_bytes()
        if ".ledger" in path.parts:
            record = json.loads(data)
            for key in ("owner", "written_at", "updated_at", "source", "sources"):
                record.pop(key, None)
            data = json.dumps(record).encode()
        found[str(path.relative_to(store))] = hashlib.sha256(data).hexdigest()
    assert "zarr.json" in found
    return found


def test_the_era5_grib_file_is_stored_value_for_value(shared: Path, tmp_path: Path):
    source = shared / "data/era5/era5-2mt-2019-03-uk.grib"
    run("era5", source, tmp_path / "s")
    stored = xr.open_zarr(tmp_path / "s")
    read = xr.open_dataset(source, engine="cfgrib", backend_kwargs={"indexpath": ""})
    np.testing.assert_array_equal(stored.t2m.values, read.t2m.values)
    np.testing.assert_array_equal(stored.time.values, read.time.values)
    np.testing.assert_array_equal(stored.latitude.values, read.latitude.values)
    assert stored.t2m.dims == ("time", "latitude", "longitude")
    assert stored.t2m.attrs["standard_name"] == "air_temperature"
    assert not list((shared / "data/era5").glob("*.idx"))


def test_members_and_levels_are_kept_apart(shared: Path, tmp_path: Path):
    source = shared / "data/era5/era5-levels-members.grib"
    run("era5", source, tmp_path / "s")
    stored = xr.open_zarr(tmp_path / "s")
    read = xr.open_dataset(source, engine="cfgrib", backend_kwargs={"indexpath": ""})
    for name in ("z", "t"):
        values = read[name].transpose("time", "number", "isobaricInhPa", ...).values
        np.testing.assert_array_equal(stored[name].values, values)
    store = open_store(str(tmp_path / "s"))
    assert store.variables["z"].channel_labels[:3] == ("z[0, 850]", "z[0, 500]", "z[1, 850]")
    per_level = store.statistics["variables"]["z"]["channels"]
    train = read.z.values[:, :2].astype(np.float64)
    assert per_level[1]["mean"] == pytest.approx(train[0, :, 1].mean(), rel=1e-12)


def test_netcdf_files_with_different_packings_become_one_store(shared: Path, tmp_path: Path):
    files = sorted((shared / "data/era5").glob("topopyscale_finse_SURF_2018*.nc"))
    run("era5", shared / "data/era5/topopyscale_finse_SURF_2018*.nc", tmp_path / "s")
    stored = xr.open_zarr(tmp_path / "s")
    read = [xr.open_dataset(file) for file in files]
    assert len(read[0].data_vars) == 11
    for name in read[0].data_vars:
        values = np.concatenate([dataset[name].values for dataset in read])
        np.testing.assert_array_equal(stored[name].values, values.astype(np.float32))


def test_bikenyc_is_stored_value_for_value(shared: Path, tmp_path: Path):
    source = shared / "data/traffic/NYC14_M16x8_T60_NewEnd_last1369.h5"
    run("taxibj", source, tmp_path / "s")
    stored = xr.open_zarr(tmp_path / "s")
    with h5py.File(source) as file:
        np.testing.assert_array_equal(stored.flow.values, np.asarray(file["data"]))
    assert stored.flow.dims == ("time", "channel", "y", "x")
    assert stored.channel.values.tolist() == ["inflow", "outflow"]
    assert str(stored.time.values[0]) == "2014-08-04T23:00:00.000000000"
    store = open_store(str(tmp_path / "s"))
    assert store.attributes["splits_origin"] == "protocol"
    assert not store.attributes["splits_embargo"]
    assert store.variables["flow"].channel_labels == ("flow[inflow]", "flow[outflow]")


def test_gaps_and_impossible_values_are_flagged(tmp_path: Path):
    write_days(tmp_path / "a", 1, 3)
    times = hourly("2010-01-04", 24)
    values = fields(times)
    values[3], values[5, 0, 0], values[7, :2] = np.nan, np.inf, np.nan
    write_netcdf(tmp_path / "a" / "late.nc", times, values=values)
    report = run("weatherbench", tmp_path / "a", tmp_path / "s", **SMALL)
    assert (report.gaps, report.missing_frames) == (1, 24)
    stored = xr.open_zarr(tmp_path / "s")
    expected = np.zeros(96, int)
    expected[24:48], expected[72 + 3], expected[72 + 5] = 1, 1, 3
    np.testing.assert_array_equal(stored.available.values, expected)
    np.testing.assert_array_equal(stored.t2m.values[72:], values)
    assert np.isnan(stored.t2m.values[24:48]).all()
    fraction = stored.missing_fraction.values
    assert (fraction[0], fraction[30], fraction[72 + 7]) == (0.0, 1.0, 0.5)


def test_values_outside_the_declared_valid_range_are_flagged(tmp_path: Path):
    times = hourly("2010-01-01", 24)
    values = fields(times)
    values[4, 0, 0] = 900.0
    limits = {"valid_range": np.array([100.0, 400.0], np.float32)}
    write_netcdf(tmp_path / "a" / "a.nc", times, values=values, attributes=limits)
    run("weatherbench", tmp_path / "a", tmp_path / "s", **SMALL)
    store = open_store(str(tmp_path / "s"))
    assert np.flatnonzero(store.available).tolist() == [4]
    assert store.statistics["variables"]["t2m"]["max"] < 400


def test_statistics_are_those_of_the_train_period(tmp_path: Path):
    write_days(tmp_path / "a", 1, 2, 3, 4)
    run("weatherbench", tmp_path / "a", tmp_path / "s", **SMALL)
    store = open_store(str(tmp_path / "s"))
    first, last = store.splits["train"]
    stored = store.dataset().t2m.sel(time=slice(first, last)).values.astype(np.float64)
    t2m = store.statistics["variables"]["t2m"]
    assert t2m["count"] == stored.size < store.dataset().t2m.size
    assert t2m["mean"] == pytest.approx(stored.mean(), rel=1e-13)
    assert t2m["std"] == pytest.approx(stored.std(), rel=1e-12)


def test_a_second_run_writes_nothing_and_says_so(tmp_path: Path):
    write_days(tmp_path / "a", 1, 2)
    assert run("weatherbench", tmp_path / "a", tmp_path / "s", **SMALL).changed
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "s").rglob("*") if p.is_file()}
    report = run("weatherbench", tmp_path / "a", tmp_path / "s")
    assert not report.changed
    assert (report.shards_written, report.shards_skipped) == (0, 3)
    after = {p: p.stat().st_mtime_ns for p in (tmp_path / "s").rglob("*") if p.is_file()}
    assert after == before


def test_appending_gives_the_same_store_as_converting_at_once(tmp_path: Path):
    write_days(tmp_path / "a", 1, 2)
    run("weatherbench", tmp_path / "a", tmp_path / "grown", **SMALL)
    was = open_store(str(tmp_path / "grown")).fingerprint
    write_days(tmp_path / "a", 3)
    report = run("weatherbench", tmp_path / "a", tmp_path / "grown")
    assert (report.shards_written, report.shards_skipped) == (2, 3)
    assert report.statistics_changed
    assert open_store(str(tmp_path / "grown")).fingerprint != was
    run("weatherbench", tmp_path / "a", tmp_path / "whole", **SMALL)
    assert content(tmp_path / "grown") == content(tmp_path / "whole")


def test_given_splits_keep_the_statistics_while_the_archive_grows(tmp_path: Path):
    days = [("2010-01-01", "2010-01-01"), ("2010-01-02T00", "2010-01-02T11")]
    splits = dict(zip(("train", "validation"), days, strict=True))
    splits["test"] = ("2010-01-02T12", "2010-01-31")
    splits["train"] = ("2010-01-01T00", "2010-01-01T23")
    write_days(tmp_path / "a", 1, 2)
    run("weatherbench", tmp_path / "a", tmp_path / "s", splits=splits, **SMALL)
    write_days(tmp_path / "a", 3)
    report = run("weatherbench", tmp_path / "a", tmp_path / "s")
    assert report.shards_written == 2
    assert not report.statistics_changed
    assert open_store(str(tmp_path / "s")).attributes["splits_origin"] == "file"


def test_a_late_file_fills_its_gap_and_changes_no_other_shard(tmp_path: Path):
    write_days(tmp_path / "a", 1, 3)
    run("weatherbench", tmp_path / "a", tmp_path / "s", chunk_frames=8, shard_frames=24)
    shards = sorted((tmp_path / "s" / "t2m" / "c").rglob("0/0"))
    before = {path: path.stat().st_mtime_ns for path in shards}
    write_days(tmp_path / "a", 2)
    assert run("weatherbench", tmp_path / "a", tmp_path / "s").shards_written == 1
    touched = [path for path in shards if path.stat().st_mtime_ns != before[path]]
    assert [path.parts[-3] for path in touched] == ["1"]
    run("weatherbench", tmp_path / "a", tmp_path / "w", chunk_frames=8, shard_frames=24)
    assert content(tmp_path / "s") == content(tmp_path / "w")


def test_an_open_store_has_the_same_values_during_an_append(tmp_path: Path):
    write_days(tmp_path / "a", 1, 2)
    run("weatherbench", tmp_path / "a", tmp_path / "s", **SMALL)
    reader = open_store(str(tmp_path / "s")).array("t2m")
    before = reader[:]
    write_days(tmp_path / "a", 3)
    run("weatherbench", tmp_path / "a", tmp_path / "s")
    np.testing.assert_array_equal(reader[:], before)


def test_a_variable_without_any_value_is_in_the_notes_and_a_sparse_one_is_not(tmp_path: Path):
    times = hourly("2010-01-01", 48)
    write_netcdf(tmp_path / "a" / "t2m.nc", times)
    write_netcdf(
        tmp_path / "a" / "empty.nc",
        times,
        variable="tp",
        values=np.full((48, 4, 6), np.nan, np.float32),
    )
    write_netcdf(tmp_path / "a" / "six_hourly.nc", times[::6], variable="sd")
    notes = run("weatherbench", tmp_path / "a", tmp_path / "s", **SMALL).notes
    assert [note.split(":")[0] for note in notes] == ["sd", "tp"]
    assert "six_hourly.nc first) have a frame every 21600 s, the archive every 3600 s" in notes[0]
    assert "no frame holds a value" in notes[1]
    assert run("weatherbench", tmp_path / "a", tmp_path / "s").notes == notes


def test_no_frames_are_made_between_two_periods_of_traffic(tmp_path: Path):
    first = write_traffic(tmp_path / "a" / "BJ13.h5", "2013-07-01", list(range(96)))
    second = write_traffic(tmp_path / "a" / "BJ14.h5", "2014-03-01", list(range(48)))
    run("taxibj", tmp_path / "a", tmp_path / "s", **SMALL)
    store = open_store(str(tmp_path / "s"))
    np.testing.assert_array_equal(store.array("flow")[:], np.concatenate([first, second]))
    assert int((np.diff(store.times) != store.cadence).sum()) == 1


def test_verify_lists_damage_and_repair_writes_only_that_again(tmp_path: Path):
    write_days(tmp_path / "a", 1, 2, 3, 4)
    store = tmp_path / "s"
    run("weatherbench", tmp_path / "a", store, **SMALL)
    whole = content(store)
    assert verify(str(store), str(tmp_path / "a")).ok
    altered, removed = store / "t2m/c/1/0/0", store / "t2m/c/3/0/0"
    data = bytearray(altered.read_bytes())
    data[100] ^= 1
    altered.write_bytes(data)
    removed.unlink()
    (store / "t2m/c/99/0").mkdir(parents=True)
    (store / "t2m/c/99/0/0").write_bytes(b"stray")
    (store / "time/c/0").write_bytes(b"damaged")
    found = verify(str(store))
    assert sorted((p.kind, p.place) for p in found.problems) == [
        ("altered", "t2m/c/1/0/0"),
        ("altered", "time/c/0"),
        ("extra", "t2m/c/99/0/0"),
        ("missing", "t2m/c/3/0/0"),
    ]
    assert found.remedy.endswith("--repair")
    assert run("weatherbench", tmp_path / "a", store, repair=True).shards_written == 2
    assert content(store) == whole
    assert verify(str(store)).ok


def test_foreign_files_are_listed_and_left_alone(converted: Path):
    (converted / "s" / "notes.txt").write_text("mine")
    found = verify(str(converted / "s"))
    assert [(p.kind, p.place) for p in found.problems] == [("extra", "notes.txt")]
    assert found.remedy == "remove by hand what is no part of the store (notes.txt)"
    shard = converted / "s" / "t2m" / "c" / "1" / "0" / "0"
    shard.unlink()
    shard.mkdir()
    assert verify(str(converted / "s")).remedy.startswith("remove by hand")
    assert verify(str(converted / "s")).remedy.endswith("--repair")
    shard.rmdir()
    assert run("weatherbench", converted / "a", converted / "s", repair=True).shards_written == 1
    assert (converted / "s" / "notes.txt").read_text() == "mine"


def test_a_damaged_root_is_written_again(converted: Path):
    root = converted / "s" / "zarr.json"
    whole = root.read_bytes()
    root.write_text("{")
    assert [p.place for p in verify(str(converted / "s")).problems] == ["zarr.json"]
    assert run("weatherbench", converted / "a", converted / "s").changed
    assert root.read_bytes() == whole


def test_verify_lists_sources_that_changed(tmp_path: Path):
    write_days(tmp_path / "a", 1, 2, 3)
    run("weatherbench", tmp_path / "a", tmp_path / "s", **SMALL)
    files = sorted((tmp_path / "a").iterdir())
    files[0].unlink()
    write_netcdf(files[1], hourly("2010-01-02", 24), values=fields(hourly("2010-01-02", 24)) + 1)
    write_days(tmp_path / "a", 4)
    found = verify(str(tmp_path / "s"), str(tmp_path / "a"))
    kinds = [(p.kind, p.place.split("_")[-2]) for p in found.source_problems]
    assert kinds == [("missing", "day01"), ("changed", "day02"), ("new", "day04")]
    assert not found.problems


def refusal(expected: type[PlatformError], tmp_path: Path, *arguments, **options) -> PlatformError:
    """Return the error of a conversion; check that it left the store at tmp_path/s as it was."""
    before = content(tmp_path / "s")
    with pytest.raises(expected) as refused:
        run(*arguments, **options)
    assert content(tmp_path / "s") == before
    return refused.value


@pytest.fixture
def converted(tmp_path: Path) -> Path:
    """Return tmp_path with two days in a/ and their store in s/."""
    write_days(tmp_path / "a", 1, 2)
    run("weatherbench", tmp_path / "a", tmp_path / "s", **SMALL)
    return tmp_path


def test_continuing_with_another_archive_is_an_error(converted: Path):
    error = refusal(StoreError, converted, "era5", converted / "a", converted / "s")
    assert "written by archive 'weatherbench'" in error.what
    assert error.exit_code == 4


def test_continuing_with_other_options_is_an_error_that_names_them(converted: Path):
    error = refusal(
        StoreError, converted, "weatherbench", converted / "a", converted / "s", shard_frames=32
    )
    assert "shard_frames: the store has 16, asked 32" in error.what


def test_continuing_with_other_variables_is_an_error(converted: Path):
    values = fields(hourly("2010-01-01", 48))
    write_netcdf(converted / "a" / "tp.nc", hourly("2010-01-01", 48), variable="tp", values=values)
    names = ("t2m", "tp")
    error = refusal(
        StoreError, converted, "weatherbench", converted / "a", converted / "s", variables=names
    )
    assert "the store has t2m, asked t2m tp" in error.what


def test_a_source_that_begins_earlier_is_an_error(converted: Path):
    write_netcdf(converted / "a" / "early.nc", hourly("2009-12-31", 24))
    error = refusal(StoreError, converted, "weatherbench", converted / "a", converted / "s")
    assert "2009-12-31T00:00:00" in error.what
    assert "2010-01-01T00:00:00" in error.what


def test_a_source_without_a_file_of_before_is_an_error(converted: Path):
    write_days(converted / "a", 3)
    run("weatherbench", converted / "a", converted / "s")
    next((converted / "a").glob("*day02*")).unlink()
    error = refusal(SourceError, converted, "weatherbench", converted / "a", converted / "s")
    assert "24 frames" in error.what
    assert "day02" in str(error.where)


def test_a_source_without_its_last_file_is_an_error_that_names_the_file(converted: Path):
    next((converted / "a").glob("*day02*")).unlink()
    error = refusal(StoreError, converted, "weatherbench", converted / "a", converted / "s")
    assert "does not continue the store" in error.what
    assert "day02" in error.what


def test_continuing_with_another_grid_is_an_error(converted: Path):
    write_netcdf(converted / "b" / "b.nc", hourly("2010-01-01", 48), latitude_shift=0.5)
    error = refusal(StoreError, converted, "weatherbench", converted / "b", converted / "s")
    assert "grid" in error.what


def test_a_new_file_that_contradicts_an_old_one_is_an_error(converted: Path):
    later = hourly("2010-01-02T20", 24)
    write_netcdf(converted / "a" / "z.nc", later, values=fields(later) + 1)
    error = refusal(SourceError, converted, "weatherbench", converted / "a", converted / "s")
    assert "2010-01-02T20:00:00" in error.what


def test_a_truncated_new_file_is_an_error(converted: Path):
    path = write_netcdf(converted / "a" / "z.nc", hourly("2010-01-03", 24))
    path.write_bytes(path.read_bytes()[:-2000])
    error = refusal(SourceError, converted, "weatherbench", converted / "a", converted / "s")
    assert "z.nc" in str(error.where)


def test_a_second_writer_is_an_error(converted: Path):
    with hold(str(converted / "s")), pytest.raises(BusyError, match="another process writes"):
        run("weatherbench", converted / "a", converted / "s")


def test_a_frame_that_cannot_be_decoded_is_an_error_that_names_the_file(converted: Path):
    import netCDF4

    path = converted / "a" / "z.nc"
    times = hourly("2010-01-03", 24)
    write_netcdf(path, times, encoding={"zlib": True, "chunksizes": (24, 4, 6)})
    with netCDF4.Dataset(path) as file:
        assert file["t2m"].shape == (24, 4, 6)
    with h5py.File(path) as file:
        place = file["t2m"].id.get_chunk_info(0)  # pyright: ignore
    data = bytearray(path.read_bytes())
    middle = place.byte_offset + place.size // 2
    data[middle : middle + 40] = b"\xff" * 40
    path.write_bytes(data)
    with pytest.raises(SourceError, match="cannot be decoded") as refused:
        run("weatherbench", converted / "a", converted / "s")
    assert "z.nc" in str(refused.value.where)
    assert len(open_store(str(converted / "s")).times) == 48
    path.unlink()
    write_days(converted / "a", 3)
    run("weatherbench", converted / "a", converted / "s")
    run("weatherbench", converted / "a", converted / "whole", **SMALL)
    assert content(converted / "s") == content(converted / "whole")


def test_a_folder_with_other_files_is_an_error_and_is_left_alone(tmp_path: Path):
    write_days(tmp_path / "a", 1)
    with pytest.raises(UsageError, match="something other than a store"):
        run("weatherbench", tmp_path / "a", tmp_path / "a")
    assert [path.suffix for path in (tmp_path / "a").iterdir()] == [".nc"]


def test_a_failed_plan_leaves_nothing_behind(tmp_path: Path):
    (tmp_path / "a").mkdir()
    with pytest.raises(SourceError):
        run("weatherbench", tmp_path / "a", tmp_path / "s")
    assert not (tmp_path / "s").exists()
