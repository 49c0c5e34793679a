"""Each radar format gives the values of an independent reading of its files."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from pipelines.archives.contents import SourceFile
from pipelines.archives.radar.formats.importers import pysteps_importers
from pipelines.archives.radar.formats.radar_format import Frames, Quantity, RadarFormat, recognise
from pipelines.archives.radar.object_dates import read_dates
from pipelines.errors import SourceError, UsageError
from pipelines.optional_libraries import load_pyproj
from tests.support.archives import radar_files
from tests.support.archives.radar_files import KNMI_PROJECTION, five_minutes, pixels

Image.MAX_IMAGE_PIXELS = None
TIME = np.datetime64("2021-06-07T08:05:00")


def described(path: Path) -> tuple[RadarFormat, SourceFile, Quantity]:
    file = SourceFile(str(path), path.stat().st_size, str(path.stat().st_mtime_ns))
    found = recognise(str(path), file)
    return found, file, found.quantities(str(path), file)[0]


def read(path: Path, *positions: int) -> tuple[Quantity, Frames]:
    found, file, quantity = described(path)
    return quantity, found.read(str(path), file, quantity, np.array(positions or (0,)))


def first(folder: Path, pattern: str) -> Path:
    return sorted(folder.glob(pattern))[0]


def same(values: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(values, expected.astype(np.float32))
    assert values.dtype == np.float32


def test_a_real_file_of_knmi_is_read(shared: Path):
    path = first(shared, "data/radar/knmi_2021_hdf5/*/202101032005.hf5")
    quantity, frames = read(path)
    with h5py.File(path) as file:
        raw = np.asarray(file["image1/image_data"])
    expected = np.where(raw == 255, np.nan, 0.5 * raw - 32.0)
    same(frames.values[0], expected)
    assert np.isnan(expected).any()
    assert (expected == -32.0).any()
    assert (quantity.name, quantity.unit, quantity.no_echo) == ("reflectivity", "dBZ", -32.0)
    assert frames.times.astype("datetime64[s]") == np.datetime64("2021-01-03T20:05")
    # The file has its corners in degrees too: first the south west, then the north west.
    grid = frames.grid
    proj = load_pyproj().Proj(grid.projection)
    assert proj(grid.x[0] - 500, grid.y[0] + 500, inverse=True) == pytest.approx(
        (0.0, 55.973602), abs=2e-4
    )
    assert proj(grid.x[0] + 699_500, grid.y[0] - 764_500, inverse=True) == pytest.approx(
        (9.0093, 48.8953), abs=2e-4
    )


def test_a_real_file_of_fmi_is_read(shared: Path):
    path = first(shared, "data/radar/fmi_pgm/20160928/*.pgm.gz")
    quantity, frames = read(path)
    content = gzip.decompress(path.read_bytes())
    raw = np.frombuffer(content[-1226 * 760 :], np.uint8).reshape(1226, 760)
    same(frames.values[0], np.where(raw == 255, np.nan, (raw.astype(float) - 64) / 2))
    assert (quantity.no_echo, frames.values[0].min(where=raw < 255, initial=99)) == (-32.0, -32.0)
    assert frames.times.astype("datetime64[s]") == np.datetime64("2016-09-28T14:45")
    assert abs(frames.grid.x[1]) == pytest.approx(999.674, abs=0.01)
    assert abs(frames.grid.y[1]) == pytest.approx(999.629, abs=0.01)


def test_a_real_file_of_mrms_is_read(shared: Path):
    path = first(shared, "data/radar/mrms_grib2/*-000200.grib2")
    quantity, frames = read(path)
    content = path.read_bytes()
    # The pixels are a PNG in section 7; section 5 says (R + X 2^E) / 10^D.
    image = Image.open(io.BytesIO(content[content.index(b"\x89PNG") :]))
    section = content.index(struct.pack(">IB", 21, 5))
    reference, binary, decimal = struct.unpack(">fHH", content[section + 11 : section + 19])
    exponents = [-(e & 0x7FFF) if e & 0x8000 else e for e in (binary, decimal)]
    raw = (reference + np.asarray(image, float) * 2.0 ** exponents[0]) / 10.0 ** exponents[1]
    expected = np.where(raw < 0, np.nan, raw)
    np.testing.assert_allclose(frames.values[0], expected, rtol=1e-6)
    assert (quantity.name, quantity.unit, quantity.no_echo) == ("rain_rate", "mm/h", 0.0)
    assert np.isnan(expected).mean() > 0.3
    assert frames.times.astype("datetime64[s]") == np.datetime64("2019-06-10T00:02")
    axes = frames.grid.coordinates()
    assert (axes["latitude"][0], axes["longitude"][0]) == (54.995, 230.005)
    assert axes["latitude"][-1] == pytest.approx(20.005, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "missing", "scale"), [("rainfall", -1, 100), ("reflectivity_old", 255, 1)]
)
def test_real_files_of_meteonet_are_read(shared: Path, name: str, missing: int, scale: int):
    path = first(shared, f"data/radar/meteonet_npz/{name}_NW_*.npz")
    quantity, frames = read(path, 0, 7, 20, 21)
    with np.load(path, allow_pickle=True) as arrays:
        raw, dates = arrays["data"][[0, 7, 20, 21]], arrays["dates"][[0, 7, 20, 21]]
    same(frames.values, np.where(raw == missing, np.nan, raw / scale))
    np.testing.assert_array_equal(frames.times.astype("datetime64[s]"), dates.astype("M8[s]"))
    assert quantity.unit == ("mm" if name == "rainfall" else "dBZ")
    assert np.isnan(frames.values).any()
    with np.load(path.parent / "radar_coords_NW.npz") as coords:
        latitudes = coords["lats"][:, 5]
    np.testing.assert_allclose(frames.grid.coordinates()["latitude"], latitudes, atol=1e-6)


@pytest.mark.parametrize("text", [np.bytes_, str])
@pytest.mark.parametrize("outer", [False, True])
def test_odim_is_read_with_strings_of_fixed_and_variable_length(
    tmp_path: Path, text: Any, outer: bool
):
    raw = pixels(1)
    path = radar_files.write_odim(tmp_path / "a.h5", TIME, raw, text=text, outer=outer)
    quantity, frames = read(path)
    same(frames.values[0], np.where(raw == 255, np.nan, 0.5 * raw - 32.5))
    assert (quantity.name, quantity.no_echo) == ("reflectivity", -32.5)
    assert frames.times.astype("datetime64[s]") == TIME
    axes = frames.grid.coordinates()
    assert axes["x"][:2] == pytest.approx([1_001_000, 1_003_000], abs=0.01)
    assert axes["y"][:2] == pytest.approx([-1_001_000, -1_003_000], abs=0.01)


def test_an_odim_code_far_outside_the_scale_is_no_echo(tmp_path: Path):
    raw = np.array([[-9999000.0, -8888000.0], [12.5, -31.0]])
    path = radar_files.write_odim(
        tmp_path / "a.h5", TIME, raw, gain=1, offset=0, nodata=-9999000.0, undetect=-8888000.0
    )
    quantity, frames = read(path)
    same(frames.values[0], np.array([[np.nan, -32.0], [12.5, -31.0]]))
    assert quantity.no_echo == -32.0


def test_odim_agrees_with_pysteps_for_files_that_pysteps_reads(tmp_path: Path):
    raw = pixels(2)
    path = radar_files.write_odim(tmp_path / "a.h5", TIME, raw, quantity="RATE", gain=0.1, offset=0)
    _, frames = read(path)
    values, _, metadata = pysteps_importers().import_odim_hdf5(str(path), qty="RATE")
    same(frames.values[0], values)
    assert metadata["x1"] == pytest.approx(frames.grid.x[0] - frames.grid.x[1] / 2, abs=0.01)
    assert metadata["y2"] == pytest.approx(frames.grid.y[0] - frames.grid.y[1] / 2, abs=0.01)


def test_odim_sums_have_an_interval_and_longitudes_are_degrees(tmp_path: Path):
    raw = pixels(2)
    path = radar_files.write_odim(
        tmp_path / "a.h5",
        TIME,
        raw,
        quantity="ACRR",
        gain=0.1,
        offset=0,
        minutes=60,
        projection="+proj=longlat +ellps=WGS84",
    )
    quantity, frames = read(path)
    assert (quantity.name, quantity.accumulation_seconds) == ("rainfall", 3600)
    assert frames.grid.dims == ("latitude", "longitude")
    assert frames.grid.coordinates()["latitude"][:2] == pytest.approx([54.99, 54.97])


def test_odim_volumes_raise(tmp_path: Path):
    path = radar_files.write_odim(tmp_path / "a.h5", TIME, pixels(1), kind="PVOL")
    with pytest.raises(ValueError, match="PVOL, which is not a composite"):
        described(path)


@pytest.mark.parametrize(("projection", "axis"), [(KNMI_PROJECTION, "6378137"), (None, "6378137")])
def test_projections_of_knmi_in_kilometres_become_metres(tmp_path: Path, projection, axis):
    options = {} if projection is None else {"projection": projection}
    path = radar_files.write_knmi(
        tmp_path / "a.h5", TIME, np.zeros((765, 700), np.uint8), **options
    )
    _, frames = read(path)
    assert f"+a={axis}" in frames.grid.projection
    assert frames.grid.y == pytest.approx((-3_650_500, -1000))
    assert frames.grid.x == pytest.approx((500, 1000))


def test_the_calibration_in_a_file_of_knmi_replaces_that_of_pysteps(tmp_path: Path):
    raw = pixels(3)
    formula = "GEO = 0.500000 * PV + -31.500000"
    quantity, frames = read(radar_files.write_knmi(tmp_path / "a.h5", TIME, raw, formula=formula))
    same(frames.values[0], np.where(raw == 255, np.nan, 0.5 * raw - 31.5))
    assert quantity.no_echo == -31.5


def test_rainfall_sums_of_knmi_are_read(tmp_path: Path):
    raw = np.array([[0, 12, 345], [65534, 65535, 1]], np.uint16)
    path = radar_files.write_knmi(
        tmp_path / "a.h5",
        TIME,
        raw,
        formula="GEO = 0.010000 * PV + 0.000000",
        meaning="PRECIP_[MM]",
        outside=65535,
        missing=65534,
        minutes=5,
    )
    quantity, frames = read(path)
    same(frames.values[0], np.array([[0, 0.12, 3.45], [np.nan, np.nan, 0.01]]))
    assert (quantity.name, quantity.accumulation_seconds) == ("rainfall", 300)


def test_the_flag_bits_of_radolan_sums_are_applied(tmp_path: Path):
    words = np.zeros((900, 900), np.uint16)
    words[0, :6] = [0, 57, 57 | 0x1000, 0x29C4, 57 | 0x8000, 3 | 0x4000]
    time = np.datetime64("2021-06-07T08:50")
    path = radar_files.write_radolan(tmp_path / "raa01-rw---bin.gz", time, "RW", words)
    quantity, frames = read(path)
    expected = np.array([0, 5.7, 5.7, np.nan, np.nan, -0.3])
    same(frames.values[0, 0, :6], expected)
    assert not frames.values[0, 1:].any()
    assert (quantity.name, quantity.accumulation_seconds) == ("rainfall", 3600)
    assert frames.times.astype("datetime64[s]") == time
    # Row 0 is the south: 46.9526 N, 3.5889 E is the outer corner that DWD gives.
    grid = frames.grid
    corner = load_pyproj().Proj(grid.projection)(grid.x[0] - 500, grid.y[0] - 500, inverse=True)
    assert corner == pytest.approx((3.5889, 46.9526), abs=2e-4)
    assert grid.y[1] > 0


def test_radolan_reflectivity_is_read(tmp_path: Path):
    raw = np.zeros((900, 900), np.uint8)
    raw[5, :5] = [0, 1, 100, 249, 250]
    path = radar_files.write_radolan(tmp_path / "raa01-rx---bin", TIME, "RX", raw)
    quantity, frames = read(path)
    same(frames.values[0, 5, :5], np.array([-32.5, -32, 17.5, np.nan, np.nan]))
    assert quantity.no_echo == -32.5


def test_sums_of_rainfields_are_read(tmp_path: Path):
    values = np.array([[0.0, 0.05, np.nan], [1.5, 20.0, 0.0]])
    quantity, frames = read(radar_files.write_bom(tmp_path / "a.nc", TIME, values))
    np.testing.assert_allclose(frames.values[0], values, atol=1e-6)
    assert (quantity.name, quantity.accumulation_seconds) == ("rainfall", 600)
    assert frames.times.astype("datetime64[s]") == TIME
    assert (frames.grid.x, frames.grid.y) == ((500.0, 1000.0), (1500.0, -1000.0))


@pytest.mark.parametrize("ending", ["pgm", "pgm.gz"])
def test_grey_maps_of_fmi_are_read_with_and_without_gzip(tmp_path: Path, ending: str):
    raw = pixels(4, (1226, 760))
    _, frames = read(radar_files.write_pgm(tmp_path / f"a.{ending}", TIME, raw))
    same(frames.values[0], np.where(raw == 255, np.nan, raw / 2 - 32.0))


@pytest.mark.parametrize("ending", ["grib2", "grib2.gz"])
def test_rates_of_mrms_are_read_with_and_without_gzip(tmp_path: Path, ending: str):
    raw = np.array([[-3.0, -1.0, 0.0], [0.5, 20.0, 0.0]])
    _, frames = read(radar_files.write_mrms(tmp_path / f"a.{ending}", TIME, raw))
    expected = np.where(raw < 0, np.nan, raw)
    np.testing.assert_allclose(frames.values[0], expected, atol=1e-3)
    assert frames.times.astype("datetime64[s]") == TIME


def test_frames_of_meteonet_are_read_in_any_order(tmp_path: Path):
    times = five_minutes("2016-08-21", 6)
    values = np.arange(6 * 12, dtype=np.int16).reshape(6, 3, 4)
    path = radar_files.write_meteonet(tmp_path, "rainfall_NW_2016_08.3.npz", times, values)
    for positions in ((0, 1), (4, 2), (5, 0, 3), (1, 2)):
        _, frames = read(path, *positions)
        same(frames.values, values[list(positions)] / 100)
        np.testing.assert_array_equal(frames.times.astype("datetime64[s]"), times[list(positions)])


def test_a_date_with_a_frame_that_is_listed_as_missing_raises(tmp_path: Path):
    times = five_minutes("2016-08-21", 3)
    values = np.zeros((3, 2, 2), np.int16)
    name = "rainfall_NW_2016_08.3.npz"
    path = radar_files.write_meteonet(tmp_path, name, times, values, times[1:2])
    found, file, _ = described(path)
    with pytest.raises(ValueError, match="2016-08-21T00:05:00 and lists it as missing"):
        found.times(str(path), file)


class _Harmful:
    def __reduce__(self):
        return (exec, ("raise SystemExit('ran')",))


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_a_pickle_of_anything_but_dates_raises_and_is_not_run(protocol: int):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "|O", "fortran_order": False, "shape": (1,)}
    )
    pickle.dump(np.array([_Harmful()], object), stream, protocol=protocol)
    stream.seek(0)
    with pytest.raises(ValueError, match="exec, which is not read"):
        read_dates(stream)


@pytest.mark.parametrize("kept", [0.5, 0.98])
@pytest.mark.parametrize("kind", ["knmi", "odim", "radolan", "pgm", "mrms", "meteonet"])
def test_a_file_that_was_cut_off_is_never_read_as_a_frame(tmp_path: Path, kind: str, kept: float):
    raw = np.random.default_rng(0).integers(0, 200, (900, 900), dtype=np.uint8)
    times = five_minutes("2016-08-21", 2)
    if kind == "knmi":
        path = radar_files.write_knmi(tmp_path / "a.h5", TIME, raw)
    elif kind == "odim":
        path = radar_files.write_odim(tmp_path / "a.h5", TIME, raw)
    elif kind == "radolan":
        path = radar_files.write_radolan(tmp_path / "a---bin", TIME, "RX", raw)
    elif kind == "pgm":
        path = radar_files.write_pgm(tmp_path / "a.pgm.gz", TIME, raw)
    elif kind == "mrms":
        path = radar_files.write_mrms(tmp_path / "a.grib2", TIME, raw[:50, :50])
    else:
        name = "rainfall_NW_2016_08.3.npz"
        values = np.stack([raw, raw]).astype(np.int16)
        path = radar_files.write_meteonet(tmp_path, name, times, values)
    found, file, quantity = described(path)
    assert len(found.read(str(path), file, quantity, np.array([0])).values) == 1
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    cut = SourceFile(file.uri, path.stat().st_size, "cut")
    with pytest.raises((OSError, ValueError, EOFError, KeyError)):
        found.read(str(path), cut, quantity, np.array([0]))


@pytest.mark.parametrize(
    ("content", "what"), [(b"", "is empty"), (b"<html>login</html>", "begins with b'<htm'")]
)
def test_a_file_of_an_unknown_format_raises(tmp_path: Path, content: bytes, what: str):
    path = tmp_path / "202101010000.h5"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=what) as refused:
        described(path)
    assert "202101010000.h5" in str(refused.value.where)


def test_without_pysteps_the_command_that_installs_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = radar_files.write_knmi(tmp_path / "a.h5", TIME, pixels(1))
    monkeypatch.setitem(__import__("sys").modules, "pysteps.io.importers", None)
    with pytest.raises(UsageError, match="pysteps") as refused:
        read(path)
    assert refused.value.remedy == "pip install 'gmg-platform[radar]'"
