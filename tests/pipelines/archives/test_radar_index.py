"""The frames of a folder of composites: times and periods, and which folders raise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines.archives.radar import ARCHIVE
from pipelines.archives.radar.formats import knmi_hdf5
from pipelines.errors import SourceError, UnreadableError, UsageError
from pipelines.timeline.intervals import iso
from tests.support.archives.radar_files import (
    five_minutes,
    knmi_folder,
    pixels,
    stamp,
    write_knmi,
    write_meteonet,
    write_odim,
    write_pgm,
)

FIRST = "2021-06-07T08:00"


def index(source: Path | str, variables: list[str] | None = None, **options):
    return ARCHIVE.index(str(source), variables=variables, options=options)


def refused(source: Path | str, what: str, **options) -> SourceError:
    with pytest.raises(SourceError, match=what) as error:
        index(source, **options)
    assert error.value.remedy
    return error.value


def test_a_folder_of_folders_is_one_archive_with_a_projection(tmp_path: Path):
    times = five_minutes(FIRST, 6)
    knmi_folder(tmp_path / "2021" / "06" / "07" / "one", times[:3])
    knmi_folder(tmp_path / "2021" / "06" / "07" / "two", times[3:])
    found = index(tmp_path)
    variable = found.variables[0]
    np.testing.assert_array_equal(variable.times.astype("M8[s]"), times)
    assert (variable.name, variable.dims, variable.shape) == ("reflectivity", ("y", "x"), (6, 8))
    assert variable.attributes["standard_name"] == "equivalent_reflectivity_factor"
    assert found.cadence_seconds == 300
    assert len(found.periods) == 1
    assert found.grid_mapping["grid_mapping_name"] == "polar_stereographic"
    assert found.grid_mapping["crs_wkt"].startswith("PROJCRS")


def test_few_files_are_opened_if_names_give_the_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    knmi_folder(tmp_path, five_minutes(FIRST, 100))
    opened = set()
    plain = knmi_hdf5._header
    monkeypatch.setattr(knmi_hdf5, "_header", lambda path: opened.add(path) or plain(path))
    found = index(tmp_path)
    assert len(found.variables[0].times) == 100
    assert 2 < len(opened) <= 20


def test_long_gaps_begin_a_period_and_short_gaps_are_missing_frames(tmp_path: Path):
    times = five_minutes(FIRST, 200)
    kept = np.concatenate([times[:5], times[8:12], times[12 + 73 : 90]])
    knmi_folder(tmp_path, kept)
    found = index(tmp_path)
    assert [(iso(a), iso(b)) for a, b in found.periods] == [
        (str(times[0]), str(times[11])),
        (str(times[85]), str(times[89])),
    ]
    assert "2 periods: more than 72 frames" in found.notes[-1]
    assert len(index(tmp_path, period_gap=73).periods) == 1
    assert len(index(tmp_path, period_gap=2).periods) == 3


def test_metadata_win_over_names_that_give_other_times(tmp_path: Path):
    times = five_minutes(FIRST, 5)
    for time in times:
        local = time + np.timedelta64(2, "h")
        write_knmi(tmp_path / f"{stamp(local)}.h5", time, pixels(1))
    found = index(tmp_path)
    np.testing.assert_array_equal(found.variables[0].times.astype("M8[s]"), times)
    assert "every file was opened" in found.notes[0]


def test_files_without_a_time_in_their_names_are_opened(tmp_path: Path):
    times = five_minutes(FIRST, 5)
    for number, time in enumerate(times[::-1]):
        write_odim(tmp_path / f"composite_{number}.h5", time, pixels(1))
    found = index(tmp_path)
    np.testing.assert_array_equal(found.variables[0].times.astype("M8[s]"), times)
    np.testing.assert_array_equal(found.variables[0].files, [4, 3, 2, 1, 0])


def test_a_time_that_comes_twice_raises_with_both_files(tmp_path: Path):
    times = five_minutes(FIRST, 4)
    knmi_folder(tmp_path, times)
    write_knmi(tmp_path / f"SECOND_{stamp(times[2])}.h5", times[2], pixels(1))
    error = refused(tmp_path, f"one time: {times[2]} ")
    assert f"RAD_{stamp(times[2])}.h5" in str(error.where)
    assert f"SECOND_{stamp(times[2])}.h5" in str(error.where)


def test_a_time_off_the_cadence_raises(tmp_path: Path):
    times = five_minutes(FIRST, 6)
    odd = times[3] + np.timedelta64(2, "m")
    knmi_folder(tmp_path, [*times[:3], odd, *times[4:]])
    assert stamp(odd) in str(refused(tmp_path, "irregular").where)


def test_mixed_formats_raise_with_both_files(tmp_path: Path):
    times = five_minutes(FIRST, 4)
    knmi_folder(tmp_path, times[:3])
    write_odim(tmp_path / f"{stamp(times[3])}.hdf", times[3], pixels(1))
    error = refused(tmp_path, "several formats: ODIM_H5 composites and KNMI composites")
    assert ".hdf and " in str(error.where)


def test_files_of_another_format_than_the_given_one_raise(tmp_path: Path):
    knmi_folder(tmp_path, five_minutes(FIRST, 4))
    error = refused(tmp_path, "holds KNMI composites, not DWD", radar_format="radolan")
    assert "--radar_format knmi_hdf5" in str(error.remedy)


@pytest.mark.parametrize("what", ["shape", "projection"])
def test_an_archive_whose_grid_changes_raises_with_both_files(tmp_path: Path, what: str):
    times = five_minutes(FIRST, 6)
    knmi_folder(tmp_path, times[:3])
    options = {"projection": "+proj=stere +lat_0=90 +lon_0=5 +lat_ts=60 +a=6378.137 +b=6356.752"}
    for time in times[3:]:
        values = pixels(1, (6, 9) if what == "shape" else (6, 8))
        write_knmi(
            tmp_path / f"RAD_{stamp(time)}.h5", time, values, **options if what != "shape" else {}
        )
    error = refused(tmp_path, f"differently: its {what}")
    assert stamp(times[0]) in str(error.where)
    assert " and " in str(error.where)


def test_quantities_that_differ_raise(tmp_path: Path):
    times = five_minutes(FIRST, 4)
    for time, quantity in zip(times, ("DBZH", "DBZH", "RATE", "RATE"), strict=True):
        write_odim(tmp_path / f"{stamp(time)}.h5", time, pixels(1), quantity=quantity)
    refused(tmp_path, "reflectivity.*rain_rate")


def test_files_with_several_quantities_have_several_variables(tmp_path: Path):
    for time in five_minutes(FIRST, 4):
        more = {"RATE": pixels(2), "QIND": pixels(3)}
        write_odim(tmp_path / f"{stamp(time)}.h5", time, pixels(1), more=more)
    assert [v.name for v in index(tmp_path).variables] == ["reflectivity", "rain_rate"]
    assert [v.name for v in index(tmp_path, ["rain_rate"]).variables] == ["rain_rate"]
    with pytest.raises(UsageError, match="two variables of one name"):
        index(tmp_path, unit="dBZ")
    with pytest.raises(UsageError, match="no variable 'rain_rat'") as error:
        index(tmp_path, ["rain_rat"])
    assert "did you mean 'rain_rate'" in str(error.value.remedy)


def test_several_products_of_meteonet_raise(tmp_path: Path):
    times = five_minutes("2016-08-21", 4)
    values = np.zeros((4, 3, 4), np.int16)
    for zone in ("NW", "SE"):
        write_meteonet(tmp_path, f"rainfall_{zone}_2016_08.3.npz", times, values)
    error = refused(tmp_path, "several products: rainfall_NW, rainfall_SE")
    assert "'.../rainfall_NW_*'" in str(error.remedy)
    found = index(f"{tmp_path}/rainfall_SE_*")
    assert [file.name for file in found.files] == ["rainfall_SE_2016_08.3.npz"]
    assert found.variables[0].dims == ("latitude", "longitude")
    assert found.variables[0].attributes["cell_methods"] == "time: sum (interval: 5 minutes)"


def test_missing_coordinates_of_meteonet_are_named(tmp_path: Path):
    write_meteonet(
        tmp_path,
        "rainfall_NW_1.npz".replace("1", "2016_08.3"),
        five_minutes("2016-08-21", 3),
        np.zeros((3, 3, 4), np.int16),
    )
    (tmp_path / "radar_coords_NW.npz").unlink()
    refused(tmp_path, "coordinates are not beside it: .*radar_coords_NW.npz")


def test_damaged_files_do_not_stop_an_index(tmp_path: Path):
    times = five_minutes(FIRST, 12)
    knmi_folder(tmp_path, times)
    for time in times[[0, 5]]:
        path = tmp_path / f"RAD_{stamp(time)}.h5"
        path.write_bytes(path.read_bytes()[:500])
    found = index(tmp_path)
    assert len(found.variables[0].times) == 12
    assert sum("cannot be read" in note for note in found.notes) == 2


def test_an_archive_without_a_readable_file_raises(tmp_path: Path):
    for time in five_minutes(FIRST, 3):
        (tmp_path / f"RAD_{stamp(time)}.h5").write_bytes(b"\x89HDF no more")
    assert "RAD_202106070800.h5" in str(refused(tmp_path, "not a radar composite").where)


def test_an_archive_of_one_frame_raises(tmp_path: Path):
    knmi_folder(tmp_path, five_minutes(FIRST, 1))
    refused(tmp_path, "only one frame")


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"crop": "0:10,0:4"}, "outside the grid of 6 rows and 8 columns"),
        ({"resize": "7x8"}, "larger than the grid of 6 x 8"),
        ({"crop": "0:4"}, "crop is '0:4'"),
        ({"crop": "4:4,0:4"}, "crop is"),
        ({"resize": "0x4"}, "resize is"),
        ({"unit": "dbz"}, "unit is 'dbz'"),
        ({"zr": "200"}, "zr is"),
        ({"zr": "200,-1"}, "zr is"),
        ({"threshold": "much"}, "threshold is"),
        ({"radar_format": "knmi"}, "radar_format is 'knmi'"),
        ({"period_gap": -1}, "period_gap is"),
        ({"treshold": "5"}, "no option 'treshold'"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path: Path, options, what: str):
    knmi_folder(tmp_path, five_minutes(FIRST, 3))
    with pytest.raises(UsageError, match=what) as error:
        index(tmp_path, **options)
    assert error.value.remedy


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("time", "its metadata say 2021-06-07T09:00:00, which is not the time in its name"),
        ("shape", "its grid is not that of the first file: its shape is"),
        ("quantity", "holds rainfall, not reflectivity"),
        ("outside", "pixels outside the image are 254, not 255"),
        ("cut", "OSError"),
        ("format", "OSError"),
    ],
)
def test_a_frame_that_contradicts_the_index_is_unreadable(tmp_path: Path, what: str, reason: str):
    times = five_minutes(FIRST, 40)
    knmi_folder(tmp_path, times)
    # This file is not in the sample that the index opens.
    time, path = times[4], tmp_path / f"RAD_{stamp(times[4])}.h5"
    if what == "time":
        write_knmi(path, np.datetime64("2021-06-07T09:00:00"), pixels(1))
    elif what == "shape":
        write_knmi(path, time, pixels(1, (5, 8)))
    elif what == "quantity":
        write_knmi(path, time, pixels(1), meaning="PRECIP_[MM]", minutes=5)
    elif what == "outside":
        write_knmi(path, time, pixels(1), outside=254)
    elif what == "format":
        write_pgm(path, time, pixels(1))
    else:
        path.write_bytes(path.read_bytes()[:-600])
    found = index(tmp_path)
    assert not [note for note in found.notes if "cannot be read" in note]
    file = found.files[4]
    with (
        ARCHIVE.opener(found.options)(str(path), file) as decode,
        pytest.raises(UnreadableError, match=reason) as error,
    ):
        decode("reflectivity", np.zeros(1, np.int64))
    assert file.uri in str(error.value.where)
