"""Small radar composites in the published layouts, for the tests of the radar archive."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipelines.optional_libraries import load_pyproj, load_pyproj_before_eccodes

KNMI_PROJECTION = "+proj=stere +lat_0=90 +lon_0=0 +lat_ts=60 +a=6378.14 +b=6356.75 +x_0=0 y_0=0"
KILOMETRES = "+proj=stere +lat_0=90 +lon_0=0.0 +lat_ts=60.0 +a=6378.137 +b=6356.752 +x_0=0 +y_0=0"
LAEA = "+proj=laea +lat_0=55.0 +lon_0=10.0 +x_0=1950000.0 +y_0=-2100000.0 +units=m +ellps=WGS84"


def five_minutes(first: str, frames: int) -> np.ndarray:
    """Return times that are five minutes apart: datetime64[s] (frames,)."""
    return np.datetime64(first, "s") + np.arange(frames) * np.timedelta64(300, "s")


def stamp(time: np.datetime64, characters: int = 12) -> str:
    """Return the first `characters` digits of a time, such as `202101032005`."""
    return "".join(sign for sign in str(time) if sign.isdigit())[:characters]


def pixels(seed: int, shape: tuple[int, int] = (6, 8)) -> np.ndarray:
    """Return a uint8 composite: no echo (0), echoes, and two columns outside the image (255)."""
    values = np.random.default_rng(seed).integers(0, 120, shape, dtype=np.uint8)
    values[values < 50] = 0
    values[:, -2:] = 255
    return values


def write_knmi(
    path: Path,
    time: np.datetime64,
    values: np.ndarray,
    *,
    formula: str = "GEO = 0.500000 * PV + -32.000000",
    meaning: str = "REFLECTIVITY_[DBZ]",
    outside: int = 255,
    missing: int = 0,
    minutes: int = 0,
    projection: str = KILOMETRES,
) -> Path:
    """Write one file of KNMI; `minutes` is the length of the time over which rain is summed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        overview = file.create_group("overview").attrs
        overview["product_datetime_end"] = _knmi_time(time)
        overview["product_datetime_start"] = _knmi_time(time - np.timedelta64(minutes, "m"))
        image = file.create_group("image1")
        image["image_data"] = values
        image.attrs["image_geo_parameter"] = np.bytes_(meaning)
        image.attrs["image_product_name"] = np.bytes_("RAD_TEST")
        calibration = image.create_group("calibration").attrs
        calibration["calibration_formulas"] = np.bytes_(formula)
        calibration["calibration_out_of_image"] = np.array([outside], "i4")
        calibration["calibration_missing_data"] = np.array([missing], "i4")
        geographic = file.create_group("geographic")
        names = ("geo_column_offset", "geo_row_offset", "geo_pixel_size_x", "geo_pixel_size_y")
        for name, value in zip(names, (0.0, 3650.0, 1.0, -1.0), strict=True):
            geographic.attrs[name] = np.array([value], "f4")
        geographic.attrs["geo_number_rows"] = np.array([values.shape[0]], "i4")
        geographic.attrs["geo_number_columns"] = np.array([values.shape[1]], "i4")
        geographic.attrs["geo_dim_pixel"] = np.bytes_("KM,KM")
        map_projection = geographic.create_group("map_projection").attrs
        map_projection["projection_proj4_params"] = np.bytes_(projection)
    return path


def knmi_folder(folder: Path, times: Sequence[np.datetime64] | np.ndarray, **options: Any) -> Path:
    """Write one file per time, with pixels that depend on the minute, and return the folder."""
    for time in times:
        seed = int(time.astype("datetime64[s]").astype(int)) // 60
        write_knmi(folder / f"RAD_{stamp(time)}.h5", time, pixels(seed), **options)
    return folder


def write_odim(
    path: Path,
    time: np.datetime64,
    values: np.ndarray,
    *,
    quantity: str = "DBZH",
    gain: float = 0.5,
    offset: float = -32.5,
    nodata: float = 255.0,
    undetect: float = 0.0,
    text: Any = np.bytes_,
    outer: bool = False,
    kind: str = "COMP",
    minutes: int = 15,
    projection: str = LAEA,
    more: dict[str, np.ndarray] | None = None,
) -> Path:
    """Write one ODIM_H5 composite of 2 km pixels.

    `text` sets how strings are stored. With `outer` the quantity is stored beside the data group.
    `more` are further quantities.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    rows, columns = values.shape
    with h5py.File(path, "w") as file:
        file.attrs["Conventions"] = text("ODIM_H5/V2_3")
        what = file.create_group("what").attrs
        what["object"], what["version"] = text(kind), text("H5rad 2.3")
        what["date"], what["time"] = text(stamp(time, 8)), text(stamp(time, 14)[8:])
        what["source"] = text("ORG:247")
        where = file.create_group("where").attrs
        where["projdef"] = text(projection)
        where["xsize"], where["ysize"] = columns, rows
        where["xscale"], where["yscale"] = 2000.0, 2000.0
        proj = load_pyproj().Proj(projection)
        scale = 0.02 if proj.crs.is_geographic else 2000.0
        left, top = (10.0, 55.0) if proj.crs.is_geographic else (1_000_000.0, -1_000_000.0)
        right, bottom = left + scale * columns, top - scale * rows
        corners = {"LL": (left, bottom), "UL": (left, top)}
        corners |= {"LR": (right, bottom), "UR": (right, top)}
        for name, corner in corners.items():
            where[f"{name}_lon"], where[f"{name}_lat"] = proj(*corner, inverse=True)
        for number, (name, data) in enumerate({quantity: values, **(more or {})}.items(), 1):
            dataset = file.create_group(f"dataset{number}")
            inner = dataset.create_group("data1")
            inner["data"] = data
            scaling = (dataset if outer else inner).create_group("what").attrs
            scaling["quantity"] = text(name)
            scaling["gain"], scaling["offset"] = gain, offset
            scaling["nodata"], scaling["undetect"] = nodata, undetect
            interval = scaling if outer else dataset.create_group("what").attrs
            start = time - np.timedelta64(minutes, "m")
            for key, moment in (("start", start), ("end", time)):
                interval[f"{key}date"] = text(stamp(moment, 8))
                interval[f"{key}time"] = text(stamp(moment, 14)[8:])
    return path


def write_radolan(path: Path, time: np.datetime64, product: str, words: np.ndarray) -> Path:
    """Write one RADOLAN composite; `words` is uint8 or uint16 (rows, columns), from the south."""
    rows, columns = words.shape
    digits = stamp(time)
    interval = {"RW": 60, "RY": 5, "YW": 5, "RX": 5}[product]
    precision = "E-02" if product in ("RY", "YW") else "E-01" if product == "RW" else "E+00"
    header = (
        f"{product}{digits[6:8]}{digits[8:]}10000{digits[4:6]}{digits[2:4]}"
        f"BY{words.nbytes + 100:7d}VS 3SW   2.18.3PR {precision}INT{interval:4d}"
        f"GP{rows:4d}x{columns:4d}MS 32<boo,ros,emd,han,umd,pro,ess,fld>\x03"
    )
    content = header.encode() + words.astype(words.dtype.newbyteorder("<")).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)
    return path


def write_pgm(path: Path, time: np.datetime64, values: np.ndarray) -> Path:
    """Write one composite of FMI."""
    comments = (
        f"# obstime {stamp(time)}\n# producttype CAPPI\n# productname LOWEST\n"
        "# param CorrectedReflectivity\n# metersperpixel_x 999.674053\n"
        "# metersperpixel_y 999.62859\n# projection radar {\n# type stereographic\n"
        "# centrallongitude 25\n# centrallatitude 90\n# truelatitude 60\n"
        "# bottomleft 18.600000 57.930000\n# topright 34.903000 69.005000\n# }\n"
    )
    rows, columns = values.shape
    content = f"P5\n{comments}{columns} {rows}\n255\n".encode() + values.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)
    return path


def write_meteonet(
    folder: Path,
    name: str,
    times: np.ndarray,
    values: np.ndarray,
    missing: np.ndarray | None = None,
) -> Path:
    """Write a file such as `rainfall_NW_2016_08.3.npz`, and the coordinates of its zone."""
    folder.mkdir(parents=True, exist_ok=True)
    dates = np.array(times.astype("datetime64[s]").tolist(), object)
    lacking = np.array([] if missing is None else missing.astype("datetime64[s]").tolist(), object)
    np.savez_compressed(folder / name, data=values, dates=dates, miss_dates=lacking)
    zone = name.split("_")[-3]
    rows, columns = values.shape[1:]
    lats, lons = np.meshgrid(
        51.0 - 0.01 * np.arange(rows), 0.01 * np.arange(columns), indexing="ij"
    )
    np.savez_compressed(folder / f"radar_coords_{zone}.npz", lats=lats, lons=lons)
    return folder / name


def write_mrms(path: Path, time: np.datetime64, values: np.ndarray) -> Path:
    """Write one precipitation rate of MRMS: GRIB 2, discipline 209, in tenths of mm/h."""
    load_pyproj_before_eccodes()
    import eccodes

    rows, columns = values.shape
    message = eccodes.codes_grib_new_from_samples("regular_ll_sfc_grib2")
    digits = stamp(time, 14)
    keys: dict[str, Any] = {
        "centre": 161,
        "discipline": 209,
        "parameterCategory": 6,
        "parameterNumber": 1,
        "shapeOfTheEarth": 2,
        "Ni": columns,
        "Nj": rows,
        "latitudeOfFirstGridPoint": 54_995_000,
        "latitudeOfLastGridPoint": 54_995_000 - 10_000 * (rows - 1),
        "longitudeOfFirstGridPoint": 230_005_000,
        "longitudeOfLastGridPoint": 230_005_000 + 10_000 * (columns - 1),
        "iDirectionIncrement": 10_000,
        "jDirectionIncrement": 10_000,
        "dataDate": int(digits[:8]),
        "hour": int(digits[8:10]),
        "minute": int(digits[10:12]),
        "second": int(digits[12:14]),
        "bitsPerValue": 16,
    }
    for key, value in keys.items():
        eccodes.codes_set(message, key, value)
    eccodes.codes_set_values(message, values.astype(float).ravel())
    path.parent.mkdir(parents=True, exist_ok=True)
    content = eccodes.codes_get_message(message)
    eccodes.codes_release(message)
    path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)
    return path


def write_bom(path: Path, time: np.datetime64, values: np.ndarray) -> Path:
    """Write one ten-minute sum of Rainfields 3, with pixels of one kilometre."""
    import netCDF4

    rows, columns = values.shape
    with netCDF4.Dataset(path, "w") as file:
        for name, size in (("y", rows), ("x", columns)):
            file.createDimension(name, size)
            axis = file.createVariable(name, "f4", (name,))
            axis.units, axis.valid_min, axis.valid_max = "km", np.float32(0), np.float32(size)
            axis[:] = np.arange(size) + 0.5
        proj = file.createVariable("proj", "i1", ())
        proj.grid_mapping_name = "albers_conical_equal_area"
        proj.longitude_of_central_meridian, proj.latitude_of_projection_origin = 144.752, -37.852
        proj.standard_parallel = [-18.0, -36.0]
        for name, minutes in (("valid_time", 0), ("start_time", 10)):
            moment = file.createVariable(name, "i4", ())
            moment.units = "seconds since 1970-01-01 00:00:00 UTC"
            moment[...] = (time - np.timedelta64(minutes, "m")).astype("M8[s]").astype(int)
        rain = file.createVariable("precipitation", "i2", ("y", "x"), fill_value=-1)
        rain.scale_factor, rain.add_offset, rain.units = 0.05, 0.0, "kg m-2"
        rain[:] = np.ma.masked_array(np.nan_to_num(values), np.isnan(values))
    return path


def _knmi_time(time: np.datetime64) -> np.bytes_:
    months = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
    day, clock = str(time.astype("datetime64[s]")).split("T")
    year, month, date = day.split("-")
    return np.bytes_(f"{date}-{months[int(month) - 1]}-{year};{clock}.000")
