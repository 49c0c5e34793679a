"""ERA5 in every layout in which the Climate Data Store delivers it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipelines.archives import load_archive
from pipelines.archives.contents import ArchiveIndex
from pipelines.archives.series.archive import SeriesArchive, index_archive
from pipelines.archives.sources.reading import reading
from pipelines.conversion.options import ConversionOptions
from pipelines.conversion.plan import make_plan
from pipelines.errors import SourceError
from pipelines.timeline.intervals import iso
from tests.pipelines.archives.test_zips import zipped
from tests.support.archives.era5_files import (
    accumulated,
    instantaneous,
    values,
    write_grib,
    write_with_expver_dimension,
    write_with_expver_labels,
)
from tests.support.archives.small_archives import hourly


def index(source: Path) -> ArchiveIndex:
    return index_archive(era5(), str(source))


def era5() -> SeriesArchive:
    archive = load_archive("era5")
    assert isinstance(archive, SeriesArchive)
    return archive


def decoded(found: ArchiveIndex, name: str) -> np.ndarray:
    """Decode all frames of a variable, in order of time."""
    variable = next(v for v in found.variables if v.name == name)
    frames = np.full((len(variable.times), *variable.shape), np.nan, np.float32)
    for number, file in enumerate(found.files):
        rows = np.flatnonzero(variable.files == number)
        if len(rows):
            with reading(file) as path, era5().decoder(path, file) as decode:
                frames[rows] = decode(name, variable.positions[rows])
    return frames


def test_final_and_preliminary_values_become_one_variable(tmp_path: Path):
    times = hourly("2024-04-01", 100)
    write_with_expver_dimension(tmp_path / "a.nc", times, final=70, names=("t2m", "d2m"))
    found = index(tmp_path)
    assert [v.dims for v in found.variables] == [("latitude", "longitude")] * 2
    for seed, name in enumerate(("t2m", "d2m")):
        np.testing.assert_allclose(decoded(found, name), values(times, seed), atol=6e-4)
    assert found.notes == (
        "t2m, d2m: 30 frames are preliminary: fetch them again when the final ones are out",
    )


def test_a_file_without_preliminary_values_adds_no_note(tmp_path: Path):
    times = hourly("2024-04-01", 24)
    write_with_expver_dimension(tmp_path / "a.nc", times, final=24)
    found = index(tmp_path)
    np.testing.assert_allclose(decoded(found, "t2m"), values(times), atol=6e-4)
    assert found.notes == ()


def test_a_coordinate_along_time_marks_preliminary_frames(tmp_path: Path):
    times = hourly("2024-10-01", 24)
    write_with_expver_labels(tmp_path / "a.nc", times, final=20)
    found = index(tmp_path)
    np.testing.assert_array_equal(decoded(found, "t2m"), values(times))
    assert found.notes == (
        "t2m: 4 frames are preliminary: fetch them again when the final ones are out",
    )


@pytest.mark.parametrize("names", [("a_early.nc", "b_late.nc"), ("b_early.nc", "a_late.nc")])
def test_final_frames_of_another_file_replace_preliminary_ones(
    tmp_path: Path, names: tuple[str, str]
):
    times = hourly("2024-10-01", 48)
    early, late = (tmp_path / name for name in names)
    write_with_expver_labels(early, times[:24], final=10, seed=5)
    write_with_expver_labels(late, times[10:], final=38)
    found = index(tmp_path)
    expected = np.concatenate([values(times[:10], 5), values(times[10:])])
    np.testing.assert_array_equal(decoded(found, "t2m"), expected)
    assert found.notes == ("t2m: 14 preliminary frames are replaced by final ones",)


def test_final_frames_with_different_values_raise_an_error(tmp_path: Path):
    times = hourly("2024-10-01", 24)
    write_with_expver_labels(tmp_path / "a.nc", times, final=12, seed=1)
    write_with_expver_labels(tmp_path / "b.nc", times, final=24, seed=2)
    with pytest.raises(SourceError, match=r"different values: 't2m' at 2024-10-01T00:00:00"):
        index(tmp_path)


def test_a_zip_with_one_file_per_step_type_is_read(tmp_path: Path):
    times = hourly("2024-10-01", 24)
    folder = tmp_path / "download"
    folder.mkdir()
    instant = folder / "data_stream-oper_stepType-instant.nc"
    write_with_expver_labels(instant, times, final=24, names=("t2m", "d2m"))
    write_with_expver_labels(
        folder / "data_stream-oper_stepType-accum.nc", times, final=24, names=("tp",), seed=7
    )
    found = index(zipped(folder, tmp_path / "a" / "october.zip"))
    assert [v.name for v in found.variables] == ["tp", "t2m", "d2m"]
    np.testing.assert_array_equal(decoded(found, "tp"), values(times, 7))
    np.testing.assert_array_equal(decoded(found, "d2m"), values(times, 1))


def test_zips_may_have_members_of_the_same_name(tmp_path: Path):
    for number, month in enumerate(("2024-10-01", "2024-10-02")):
        folder = tmp_path / f"download{number}"
        folder.mkdir()
        path = folder / "data_stream-oper_stepType-instant.nc"
        write_with_expver_labels(path, hourly(month, 24), final=24)
        zipped(folder, tmp_path / "a" / f"{month}.zip")
    found = index(tmp_path / "a")
    np.testing.assert_array_equal(decoded(found, "t2m"), values(hourly("2024-10-01", 48)))
    assert len({file.name for file in found.files}) == 2


def test_a_zip_with_another_ending_raises_an_error_with_a_remedy(tmp_path: Path):
    write_with_expver_labels(tmp_path / "a.nc", hourly("2024-10-01", 24), final=24)
    packed = zipped(tmp_path, tmp_path / "b" / "download.zip")
    packed = packed.rename(packed.with_suffix(".nc"))
    with pytest.raises(SourceError, match="is a zip") as raised:
        index(packed)
    assert "rename it to end in .zip" in str(raised.value.remedy)


def test_accumulated_fields_get_the_time_at_the_end_of_their_hour(tmp_path: Path):
    day = hourly("2019-03-01", 24)
    messages = [accumulated(time) for time in day] + [instantaneous(time) for time in day]
    write_grib(tmp_path / "a.grib", messages)
    found = index(tmp_path)
    assert {v.name: len(v.times) for v in found.variables} == {"t2m": 24, "tp": 24}
    assert [iso(int(v.times[0])) for v in found.variables] == ["2019-03-01T00:00:00"] * 2
    np.testing.assert_allclose(decoded(found, "tp"), values(day) / 1000, atol=1e-6)
    np.testing.assert_allclose(decoded(found, "t2m"), values(day), atol=1e-3)


def test_months_of_accumulated_fields_are_merged_without_a_gap(tmp_path: Path):
    # A month begins inside a forecast of the month before. A pair of time and step without a
    # message in the file must not become a frame.
    for number, month in enumerate(("2019-02-27", "2019-03-01")):
        times = hourly(month, 48)
        write_grib(tmp_path / f"{number}.grib", [accumulated(time) for time in times])
    found = index(tmp_path)
    planned = make_plan(found, ConversionOptions(), None)
    assert planned.gaps() == []
    whole = pd.date_range("2019-02-27", periods=96, freq="h")
    np.testing.assert_allclose(decoded(found, "tp"), values(whole) / 1000, atol=1e-6)
    assert found.notes == ()


def test_frames_of_a_forecast_can_be_decoded_in_any_order(tmp_path: Path):
    day = hourly("2019-03-01", 24)
    write_grib(tmp_path / "a.grib", [accumulated(time) for time in day])
    file = index(tmp_path).files[0]
    wanted = np.array([7, 3, 20, 4])
    with reading(file) as path, era5().decoder(path, file) as decode:
        frames = decode("tp", wanted)
    np.testing.assert_allclose(frames, values(day)[wanted] / 1000, atol=1e-6)
