"""A seeded archive of any size for benchmarks: hourly 32 x 64 fields in NetCDF, as smooth as
temperature.

One year is computed; every further one is that year turned round the globe and a little warmer, so
that ten gigabytes are written as fast as the disk takes them and compress like the first.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

HEIGHT, WIDTH = 32, 64
FRAME_BYTES = 4 * HEIGHT * WIDTH
YEAR = 8760


def frames_of(gigabytes: float) -> int:
    """Frames in so many decoded gigabytes (10^9 bytes)."""
    return int(gigabytes * 1e9 / FRAME_BYTES)


def write_archive(folder: Path, frames: int, files: int = 1, seed: int = 0) -> list[Path]:
    """Write `2m_temperature_<year>_5.625deg.nc`, contiguous and uncompressed."""
    import netCDF4

    lat = np.linspace(-87.1875, 87.1875, HEIGHT)
    lon = np.arange(WIDTH) * 360 / WIDTH
    year_tyx = _year(lat, lon, seed)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, part in enumerate(np.array_split(np.arange(frames), files)):
        path = folder / f"2m_temperature_{2000 + number}_5.625deg.nc"
        with netCDF4.Dataset(path, "w") as file:
            for name, values in (("lat", lat), ("lon", lon)):
                file.createDimension(name, len(values))
                file.createVariable(name, "f8", (name,))[:] = values
            file.createDimension("time", len(part))
            time_axis = file.createVariable("time", "i8", ("time",))
            time_axis.units, time_axis.calendar = "hours since 2000-01-01", "proleptic_gregorian"
            time_axis[:] = part
            t2m = file.createVariable(
                "t2m", "f4", ("time", "lat", "lon"), contiguous=True, fill_value=np.nan
            )
            t2m.units = "K"
            t2m.set_auto_maskandscale(False)
            for begin in range(0, len(part), YEAR):
                turn = int(part[begin]) // YEAR
                fields = np.roll(year_tyx, turn, axis=2) + np.float32(0.01 * turn)
                t2m[begin : begin + YEAR] = fields[: len(part) - begin]
        paths.append(path)
    return paths


def _year(lat: np.ndarray, lon: np.ndarray, seed: int) -> np.ndarray:
    """(8760, 32, 64) float32 kelvin: a climate, a day, travelling waves and a little noise."""
    rng = np.random.default_rng(seed)
    waves = rng.uniform(0.2, 1.0, (6, 3))
    hours = np.arange(YEAR)[:, None, None]
    field = 288 - 40 * np.sin(np.radians(lat))[:, None] ** 2 + np.zeros_like(hours)
    field = field + 5 * np.sin(2 * np.pi * (hours / 24 + lon / 360))
    for k, (amplitude, speed, phase) in enumerate(waves, start=1):
        angle = np.radians(k * lon) - 0.02 * speed * hours + 6 * phase
        field = field + amplitude * np.cos(angle) * np.cos(np.radians(lat))[:, None]
    noise = rng.standard_normal((YEAR, HEIGHT, WIDTH), dtype=np.float32)
    return field.astype(np.float32) + np.float32(0.05) * noise
