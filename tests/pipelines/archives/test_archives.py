"""Indexing of series archives: what is read, and which files raise which error."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from pipelines.archives import load_archive
from pipelines.archives.contents import ArchiveIndex
from pipelines.archives.series.archive import index_archive
from pipelines.archives.series.taxibj import TrafficOptions
from pipelines.archives.sources.reading import reading
from pipelines.conversion.options import ConversionOptions
from pipelines.conversion.plan import make_plan
from pipelines.errors import SourceError, UsageError
from pipelines.timeline.intervals import iso
from tests.support.archives.small_archives import (
    fields,
    hourly,
    write_days,
    write_netcdf,
    write_traffic,
)


def index(source: Path | str, archive: str = "weatherbench", **options) -> ArchiveIndex:
    return index_archive(load_archive(archive), str(source), **options)


def decoded(found: ArchiveIndex, name: str = "t2m") -> np.ndarray:
    """Decode all frames of a variable, in order of time."""
    archive = load_archive(found.archive)
    variable = next(v for v in found.variables if v.name == name)
    frames = []
    for number in dict.fromkeys(variable.files.tolist()):
        file = found.files[number]
        with reading(file) as path, archive.decoder(path, file) as decode:
            positions = variable.positions[variable.files == number]
            frames.append(decode(name, positions))
    return np.concatenate(frames)


@pytest.mark.parametrize("place", ["archive", "archive/t", "archive/t/*.nc"])
def test_a_folder_its_parent_and_a_glob_find_the_same_files(tmp_path: Path, place: str):
    write_days(tmp_path / "archive" / "t", 1, 2)
    (tmp_path / "archive" / "t" / "README.txt").write_text("not a file of the archive")
    found = index(tmp_path / place)
    assert [file.name[15:20] for file in found.files] == ["day01", "day02"]
    assert found.synthetic
    assert found.title == "made for tests"
    assert found.cadence_seconds == 3600


def test_a_single_file_can_be_an_archive(tmp_path: Path):
    folder = write_days(tmp_path, 1, 2)
    found = index(next(folder.glob("*day02*")))
    assert len(found.variables[0].times) == 24


def test_times_out_of_order_are_sorted(tmp_path: Path):
    times = hourly("2010-01-01", 24)
    shuffled = times[np.random.default_rng(0).permutation(24)]
    write_netcdf(tmp_path / "a.nc", shuffled)
    np.testing.assert_array_equal(decoded(index(tmp_path)), fields(times))


def test_frames_can_be_decoded_in_any_order(tmp_path: Path):
    times = hourly("2010-01-01", 24)
    write_netcdf(tmp_path / "a.nc", times)
    found = index(tmp_path)
    wanted = np.array([7, 3, 4, 20])
    decoder, file = load_archive("weatherbench").decoder, found.files[0]
    with reading(file) as path, decoder(path, file) as decode:
        frames = decode("t2m", wanted)
    np.testing.assert_array_equal(frames, fields(times)[wanted])


def test_each_file_is_unpacked_with_its_own_packing(tmp_path: Path):
    for day, scale in ((1, 0.01), (2, 0.02)):
        encoding = {"dtype": "int16", "scale_factor": scale, "add_offset": 280.0}
        encoding |= {"_FillValue": -32767}
        times = hourly(f"2010-01-0{day}", 24)
        write_netcdf(tmp_path / f"{day}.nc", times, encoding=encoding)
    values = fields(hourly("2010-01-01", 48))
    np.testing.assert_allclose(decoded(index(tmp_path))[:24], values[:24], atol=0.0051)
    np.testing.assert_allclose(decoded(index(tmp_path))[24:], values[24:], atol=0.0101)


@pytest.mark.parametrize("file_format", ["NETCDF3_CLASSIC", "NETCDF3_64BIT", "NETCDF4"])
def test_every_netcdf_format_is_read(tmp_path: Path, file_format: str):
    times = hourly("2010-01-01", 6)
    write_netcdf(tmp_path / "a.nc", times, format=file_format)
    np.testing.assert_array_equal(decoded(index(tmp_path)), fields(times))


def test_levels_and_members_get_the_dimension_names_of_a_store(tmp_path: Path):
    times = hourly("2010-01-01", 5)
    values = np.random.default_rng(0).normal(size=(3, 5, 2, 4, 6)).astype(np.float32)
    dims = ("number", "valid_time", "pressure_level", "lat", "lon")
    coordinates = {"valid_time": times, "pressure_level": [500, 850]}
    xr.Dataset({"z": (dims, values)}, coordinates).to_netcdf(tmp_path / "a.nc")
    found = index(tmp_path, "era5")
    assert found.variables[0].dims == ("member", "level", "latitude", "longitude")
    np.testing.assert_array_equal(decoded(found, "z"), values.transpose(1, 0, 2, 3, 4))


def test_missing_files_leave_gaps_and_raise_no_error(tmp_path: Path):
    write_days(tmp_path, 1, 3)
    planned = make_plan(index(tmp_path), ConversionOptions(), None)
    assert [(planned.label(a), planned.label(b), n) for a, b, n in planned.gaps()] == [
        ("2010-01-02T00:00:00", "2010-01-02T23:00:00", 24)
    ]


def test_files_with_equal_values_in_their_overlap_are_merged_with_a_note(tmp_path: Path):
    write_netcdf(tmp_path / "a.nc", hourly("2010-01-01", 24))
    write_netcdf(tmp_path / "b.nc", hourly("2010-01-01T20", 24))
    found = index(tmp_path)
    np.testing.assert_array_equal(decoded(found), fields(hourly("2010-01-01", 44)))
    assert found.notes == ("t2m: 4 repeated frames with equal values are kept once",)


def test_a_repeated_frame_in_a_file_is_kept_once(tmp_path: Path):
    times = hourly("2010-01-01", 24)
    write_netcdf(tmp_path / "a.nc", times.append(times[5:6]))
    np.testing.assert_array_equal(decoded(index(tmp_path)), fields(times))


def test_an_overlap_may_differ_by_the_packing_of_the_files(tmp_path: Path):
    for name, scale in (("a", 0.01), ("b", 0.03)):
        encoding = {"dtype": "int16", "scale_factor": scale, "add_offset": 280.0}
        encoding["_FillValue"] = -32767
        write_netcdf(tmp_path / f"{name}.nc", hourly("2010-01-01", 24), encoding=encoding)
    assert len(index(tmp_path).variables[0].times) == 24


def test_different_values_in_an_overlap_raise_an_error_with_both_files(tmp_path: Path):
    write_netcdf(tmp_path / "a.nc", hourly("2010-01-01", 24))
    later = hourly("2010-01-01T20", 24)
    values = fields(later)
    values[2, 1, 1] += 1
    write_netcdf(tmp_path / "b.nc", later, values=values)
    with pytest.raises(SourceError, match="overlap in time with different values") as raised:
        index(tmp_path)
    assert "2010-01-01T22:00:00" in raised.value.what
    assert "a.nc" in str(raised.value.where)
    assert "b.nc" in str(raised.value.where)
    assert raised.value.exit_code == 3


def test_a_repeated_time_with_other_values_raises_an_error(tmp_path: Path):
    times = hourly("2010-01-01", 24)
    values = fields(times.append(times[5:6]))
    values[-1] += 1
    write_netcdf(tmp_path / "a.nc", times.append(times[5:6]), values=values)
    with pytest.raises(SourceError, match=r"one file holds a time twice .* 2010-01-01T05:00:00"):
        index(tmp_path)


def test_a_time_off_the_cadence_raises_an_error(tmp_path: Path):
    times = hourly("2010-01-01", 24)
    odd = times[:12].append(times[12:] + pd.Timedelta(minutes=30))
    write_netcdf(tmp_path / "a.nc", odd)
    with pytest.raises(SourceError, match="irregular: 2010-01-01T12:30:00"):
        index(tmp_path)


def test_different_grids_raise_an_error_with_both_files(tmp_path: Path):
    write_netcdf(tmp_path / "a.nc", hourly("2010-01-01", 24))
    write_netcdf(tmp_path / "b.nc", hourly("2010-01-02", 24), latitude_shift=0.25)
    with pytest.raises(SourceError, match=r"latitude at index 0 is -60\.0 and -59\.75") as raised:
        index(tmp_path)
    assert "a.nc" in str(raised.value.where)
    assert "b.nc" in str(raised.value.where)


def test_different_units_raise_an_error(tmp_path: Path):
    write_netcdf(tmp_path / "a.nc", hourly("2010-01-01", 24))
    write_netcdf(tmp_path / "b.nc", hourly("2010-01-02", 24), attributes={"units": "degC"})
    with pytest.raises(SourceError, match="'K' and 'degC'"):
        index(tmp_path)


def test_an_unknown_variable_raises_an_error_with_the_nearest_name(tmp_path: Path):
    write_days(tmp_path, 1)
    with pytest.raises(UsageError, match="no variable 't2n'") as raised:
        index(tmp_path, variables=["t2n"])
    assert "did you mean 't2m'" in str(raised.value.remedy)


@pytest.mark.parametrize("place", ["nowhere", "empty", "nowhere/*.nc"])
def test_a_source_without_files_raises_an_error(tmp_path: Path, place: str):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError) as raised:
        index(tmp_path / place)
    assert place in str(raised.value.where)
    assert ".nc" in str(raised.value.remedy)


def test_credentials_in_a_uri_raise_an_error_that_does_not_repeat_them():
    with pytest.raises(UsageError) as raised:
        index("s3://me:secret@bucket/archive")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("file_format", ["NETCDF3_CLASSIC", "NETCDF4"])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_a_truncated_netcdf_file_raises_an_error_with_its_name(
    tmp_path: Path, file_format: str, kept: float
):
    write_days(tmp_path, 1)
    path = write_netcdf(tmp_path / "cut.nc", hourly("2010-01-02", 24), format=file_format)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(SourceError, match="truncated") as raised:
        index(tmp_path)
    assert "cut.nc" in str(raised.value.where)


@pytest.mark.parametrize("missing_bytes", [1, 10_000, 1_000_000])
def test_the_missing_end_of_a_classic_netcdf_file_is_not_read_as_zeros(
    tmp_path: Path, shared: Path, missing_bytes: int
):
    whole = (shared / "data/era5/topopyscale_finse_SURF_201810.nc").read_bytes()
    (tmp_path / "whole.nc").write_bytes(whole)
    assert len(index(tmp_path, "era5").variables[0].times) == 744
    (tmp_path / "cut.nc").write_bytes(whole[:-missing_bytes])
    with pytest.raises(SourceError, match=f"should have {len(whole)} bytes") as raised:
        index(tmp_path, "era5")
    assert "cut.nc" in str(raised.value.where)


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.7])
def test_a_truncated_grib_file_raises_an_error_with_its_name(
    tmp_path: Path, shared: Path, kept: float
):
    path = tmp_path / "cut.grib"
    whole = (shared / "data/era5/era5-2mt-2019-03-uk.grib").read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(SourceError) as raised:
        index(tmp_path, "era5")
    assert "cut.grib" in str(raised.value.where)


@pytest.mark.parametrize("kept", [0.0, 0.7])
def test_a_truncated_hdf5_file_raises_an_error_with_its_name(tmp_path: Path, kept: float):
    path = tmp_path / "cut.h5"
    write_traffic(path, "2015-01-01", list(range(96)))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(SourceError, match="truncated") as raised:
        index(tmp_path, "taxibj")
    assert "cut.h5" in str(raised.value.where)


def test_a_file_of_another_format_raises_an_error(tmp_path: Path):
    (tmp_path / "a.grib").write_bytes(b"<html>login</html>")
    with pytest.raises(SourceError, match="neither GRIB nor NetCDF"):
        index(tmp_path, "era5")


def test_a_file_that_changes_while_it_is_read_raises_an_error(tmp_path: Path):
    found = index(write_days(tmp_path, 1))
    path = Path(found.files[0].uri)
    with pytest.raises(SourceError, match="changed while"), reading(found.files[0]):
        path.write_bytes(path.read_bytes() + b"more")


def test_a_file_that_is_missing_after_indexing_raises_an_error(tmp_path: Path):
    found = index(write_days(tmp_path, 1))
    Path(found.files[0].uri).unlink()
    with pytest.raises(SourceError, match="missing"), reading(found.files[0]):
        pass


def test_era5_reads_files_with_a_wrong_ending(tmp_path: Path, shared: Path):
    shutil.copy(shared / "data/era5/era5-levels-members.grib", tmp_path / "download.nc")
    found = index(tmp_path, "era5")
    assert [variable.name for variable in found.variables] == ["z", "t"]
    assert found.variables[0].dims == ("member", "level", "latitude", "longitude")


def test_reading_grib_writes_no_index_file(tmp_path: Path, shared: Path):
    shutil.copy(shared / "data/era5/era5-2mt-2019-03-uk.grib", tmp_path)
    decoded_frames = decoded(index(tmp_path, "era5", variables=["t2m"]))
    assert decoded_frames.shape == (744, 33, 49)
    assert [path.name for path in tmp_path.iterdir()] == ["era5-2mt-2019-03-uk.grib"]


def test_each_traffic_file_is_a_period_and_missing_slots_are_gaps(tmp_path: Path):
    slots = [slot for slot in range(96) if slot not in (5, 6, 50)]
    write_traffic(tmp_path / "BJ13.h5", "2013-07-01", slots)
    write_traffic(tmp_path / "BJ14.h5", "2014-03-01", list(range(48)))
    found = index(tmp_path, "taxibj")
    assert found.cadence_seconds == 1800
    assert found.local_time
    assert [(iso(a), iso(b)) for a, b in found.periods] == [
        ("2013-07-01T00:00:00", "2013-07-02T23:30:00"),
        ("2014-03-01T00:00:00", "2014-03-01T23:30:00"),
    ]
    planned = make_plan(found, ConversionOptions(), None)
    assert len(planned.times) == 96 + 48
    assert [(planned.label(a), n) for a, _, n in planned.gaps()] == [
        ("2013-07-01T02:30:00", 2),
        ("2013-07-02T01:00:00", 1),
    ]


def test_slots_that_never_exceed_24_are_hours(tmp_path: Path):
    write_traffic(tmp_path / "a.h5", "2015-01-01", list(range(48)), per_day=24)
    assert index(tmp_path, "taxibj").cadence_seconds == 3600


def test_the_number_of_slots_per_day_can_be_set(tmp_path: Path):
    write_traffic(tmp_path / "a.h5", "2015-01-01", list(range(20)))
    options = TrafficOptions(slots_per_day=48)
    assert index(tmp_path, "taxibj", options=options).cadence_seconds == 1800


def test_a_slot_outside_the_day_raises_an_error(tmp_path: Path):
    write_traffic(tmp_path / "a.h5", "2015-01-01", list(range(40)))
    with pytest.raises(SourceError, match="slot 25 of 2015-01-01"):
        index(tmp_path, "taxibj", options=TrafficOptions(slots_per_day=24))


def test_an_hdf5_file_of_another_layout_raises_an_error(tmp_path: Path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = np.zeros((5, 3, 4, 4))
        file["date"] = np.array([b"2015010101"] * 5)
    with pytest.raises(SourceError, match=r"\(5, 3, 4, 4\)"):
        index(tmp_path, "taxibj")


def test_a_single_frame_raises_an_error_because_it_has_no_cadence(tmp_path: Path):
    write_netcdf(tmp_path / "a.nc", hourly("2010-01-01", 1))
    with pytest.raises(SourceError, match="only one frame"):
        index(tmp_path)


def test_an_unknown_archive_raises_an_error_with_the_nearest_name():
    with pytest.raises(UsageError) as raised:
        load_archive("wetherbench")
    assert "did you mean 'weatherbench'" in str(raised.value.remedy)
