"""Write a made-up archive of 2 m temperature in the layout of WeatherBench, for demos and tests.

Nothing in it was observed. The cycles of the day and the year and a made-up land mask give each
place its climate. Travelling waves with slowly changing amplitudes and phases add weather that can
be forecast for about a day. The title of every file says that it is synthetic, and so does the
attribute `synthetic`, which a store copies.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.errors import UsageError

LATITUDES = np.linspace(-87.1875, 87.1875, 32)
LONGITUDES = np.arange(64) * 5.625
_EPOCH = np.datetime64("1900-01-01T00", "h")
_SPIN_UP_MONTHS = 4
"""The waves of a year start from rest this long before the year. This is long compared with their
memory, so that consecutive years fit together although each is computed separately."""


@dataclass(frozen=True)
class Waves:
    """A family of travelling waves in both hemispheres."""

    wavenumbers: tuple[int, ...]
    """number of waves around a circle of latitude, for each wave"""
    degrees_per_day: float
    """speed to the east, in degrees of longitude per day"""
    memory_hours: float
    """time in which amplitude and phase lose their memory, by a factor of e"""
    smooth_hours: float
    """time over which changes of amplitude and phase are smoothed"""
    kelvin: float
    """standard deviation at the middle latitude of the family"""


WEATHER = (
    Waves((1, 2, 3), 3.0, 240.0, 24.0, 2.2),
    Waves((4, 5, 6, 7), 16.0, 96.0, 14.0, 3.0),
    Waves((8, 9, 10, 11), 22.0, 48.0, 9.0, 1.0),
)


def write_weatherbench(
    folder: str | os.PathLike[str],
    years: Iterable[int],
    seed: int = 0,
    days: int | None = None,
    noise_kelvin: float = 0.15,
) -> list[Path]:
    """Write the hourly file `2m_temperature/2m_temperature_<year>_5.625deg.nc` of each year.

    The values of a year depend only on the seed and the year, not on the other years.

    Parameters
    ----------
    folder:
        Local folder of the archive; created if it is missing.
    years:
        Years to write.
    seed:
        Seed of everything random.
    days:
        Number of days from the beginning of each year; None writes whole years.
    noise_kelvin:
        Standard deviation of the white noise, which cannot be forecast.

    Returns
    -------
    The files, in order of time.

    Raises
    ------
    UsageError
        There is no year, or less than one day.
    """
    years = sorted(set(years))
    if not years or (days is not None and days < 1):
        raise UsageError(
            "a synthetic archive needs at least one year and one day",
            where=f"years {years}, days {days}",
        )
    target = Path(folder) / "2m_temperature"
    target.mkdir(parents=True, exist_ok=True)
    climate = _Climate(seed)
    return [_write_year(target, climate, year, days, noise_kelvin) for year in years]


def _write_year(
    target: Path, climate: _Climate, year: int, days: int | None, noise_kelvin: float
) -> Path:
    import netCDF4

    hours = _hours_of_year(year)
    if days is not None:
        hours = hours[: 24 * days]
    path = target / f"2m_temperature_{year}_5.625deg.nc"
    partial = path.with_suffix(".partial")
    amplitudes = climate.amplitudes(year)
    with netCDF4.Dataset(partial, "w") as file:
        file.setncatts(
            {
                "Conventions": "CF-1.6",
                "title": "Synthetic 2 metre temperature: made up, not observed",
                "synthetic": np.int32(1),
                "seed": np.int64(climate.seed),
            }
        )
        for name, values, attributes in (
            ("time", (hours - _EPOCH).astype(np.int64), {
                "units": "hours since 1900-01-01", "calendar": "proleptic_gregorian",
                "long_name": "time"}),
            ("lat", LATITUDES, {
                "units": "degrees_north", "standard_name": "latitude", "long_name": "latitude"}),
            ("lon", LONGITUDES, {
                "units": "degrees_east", "standard_name": "longitude", "long_name": "longitude"}),
        ):  # fmt: skip
            file.createDimension(name, len(values))
            coordinate = file.createVariable(name, values.dtype, (name,))
            coordinate.setncatts(attributes)
            coordinate[:] = values
        t2m = file.createVariable("t2m", np.float32, ("time", "lat", "lon"))
        t2m.setncatts({"units": "K", "long_name": "2 metre temperature"})
        months = hours.astype("datetime64[M]").astype(np.int64) % 12
        for month in range(12):
            chosen = np.flatnonzero(months == month)
            if len(chosen):
                rows = slice(int(chosen[0]), int(chosen[-1]) + 1)
                noise = _stream(climate.seed, _NOISE, year, month).standard_normal(
                    (len(_hours_of_month(year, month)), 32, 64), dtype=np.float32
                )[: len(chosen)]
                t2m[rows] = (
                    climate.temperature(hours[rows], amplitudes[rows]) + noise_kelvin * noise
                )
    os.replace(partial, path)
    return path


class _Climate:
    """The made-up planet of a seed: land, mean, seasons, daily cycle, and the shapes of waves."""

    def __init__(self, seed: int):
        self.seed = seed
        latitude = np.deg2rad(LATITUDES)[:, None]
        self.land = _land(seed)
        self._mean = 300.0 - 46.0 * np.sin(latitude) ** 2 - 3.0 * np.sin(latitude) - 3.0 * self.land
        self._season = np.sin(latitude) * (6.0 + 13.0 * self.land)
        self._day = np.cos(latitude) * (0.5 + 6.0 * self.land)
        self._latitude = latitude
        self._shapes = _wave_shapes()

    def temperature(self, hours: np.ndarray, amplitudes: np.ndarray) -> np.ndarray:
        """Return temperatures in kelvin, float32 (n, 32, 64).

        Parameters
        ----------
        hours:
            datetime64[h] (n,).
        amplitudes:
            complex (n, waves), as from `amplitudes`.
        """
        day_of_year = (hours - hours.astype("datetime64[Y]")).astype(np.float64) / 24.0
        # The north is hottest on day 201, a month after the solstice.
        season = np.cos(2 * np.pi * (day_of_year - 201.0) / 365.25)[:, None, None]
        declination = np.deg2rad(23.4) * np.cos(2 * np.pi * (day_of_year - 172.0) / 365.25)
        sunlight = np.clip(
            np.cos(self._latitude - declination[:, None, None]), 0.0, None
        ) / np.clip(np.cos(self._latitude), 0.2, None)
        local = (hours - hours.astype("datetime64[D]")).astype(np.float64)[
            :, None, None
        ] + LONGITUDES / 15.0
        angle = 2 * np.pi * (local - 14.5) / 24.0
        warmth = np.cos(angle) + 0.25 * np.cos(2 * angle)
        weather = self._weather(amplitudes) * (1.0 + 0.3 * self.land)
        weather *= 1.0 - 0.35 * season * np.sign(self._latitude)  # winters are stormier
        # Cold weather is cloudy, and clouds weaken the daily cycle.
        clear = 1.0 + 0.4 * np.tanh(weather / 4.0)
        return (
            self._mean
            + self._season * season
            + self._day * np.clip(sunlight, 0.0, 1.5) * warmth * clear
            + weather
        ).astype(np.float32)

    def amplitudes(self, year: int) -> np.ndarray:
        """Return the amplitudes of all waves, complex (hours of the year, waves).

        They have unit variance, and their phases turn as the waves travel.
        """
        from scipy.signal import lfilter

        months = [
            (year - 1, month) for month in range(12 - _SPIN_UP_MONTHS, 12)
        ] + [(year, month) for month in range(12)]  # fmt: skip
        count = sum(len(shape) for shape, _ in self._shapes)
        noise = np.concatenate(
            [
                _stream(self.seed, _WAVES, *month)
                .standard_normal((len(_hours_of_month(*month)), count, 2))
                .view(np.complex128)[..., 0]
                for month in months
            ]
        )
        hours = np.concatenate([_hours_of_month(*month) for month in months])
        days = (hours - _EPOCH).astype(np.float64) / 24.0
        result = np.empty_like(noise)
        head = 0
        for family, (shape, wavenumbers) in zip(WEATHER, self._shapes, strict=True):
            tail = head + len(shape)
            keep = np.exp(-1.0 / np.array([family.memory_hours, family.smooth_hours]))
            # A second filter makes the amplitudes change smoothly, as weather does.
            denominator = np.convolve([1.0, -keep[0]], [1.0, -keep[1]])
            impulse = np.zeros(int(12 * family.memory_hours))
            impulse[0] = 1.0
            response = np.asarray(lfilter([1.0], denominator, impulse))
            gain = np.sqrt(2.0 * np.sum(response**2))
            slow = np.asarray(lfilter([1.0 / gain], denominator, noise[:, head:tail], axis=0))
            turn = np.exp(-1j * np.deg2rad(days[:, None] * family.degrees_per_day * wavenumbers))
            result[:, head:tail] = slow * turn
            head = tail
        return result[len(hours) - len(_hours_of_year(year)) :]

    def _weather(self, amplitudes: np.ndarray) -> np.ndarray:
        """Return the sum of the waves in kelvin, (n, 32, 64)."""
        spectrum = np.zeros((len(amplitudes), 32, 33), np.complex128)
        head = 0
        for shape, wavenumbers in self._shapes:
            for profile, wavenumber in zip(shape, wavenumbers, strict=True):
                spectrum[:, :, wavenumber] += amplitudes[:, head, None] * profile
                head += 1
        return np.fft.irfft(spectrum, n=64, axis=2) * 64


def _wave_shapes() -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the profiles over latitude in kelvin, (waves, 32), and the wavenumbers, (waves,).

    One pair per family.
    """
    families = []
    for family in WEATHER:
        profiles, wavenumbers = [], []
        for middle in (-46.0, 46.0):
            y = (LATITUDES - middle) / 15.0
            bell = np.exp(-0.5 * y**2)
            # Gauss-Hermite functions of order 0 to 2: a belt, and a dipole and a tripole across it.
            for order in (np.ones_like(y), y, (y**2 - 1.0) / np.sqrt(2.0)):
                for wavenumber in family.wavenumbers:
                    profiles.append(bell * order)
                    wavenumbers.append(wavenumber)
        shape = np.array(profiles)
        # A real wave is twice the real part of its complex amplitude (factor 4 in variance), and
        # the real part has half the variance of the amplitude: 4 / 2.
        middle_variance = 2.0 * (shape[:, np.argmin(np.abs(LATITUDES - 46.0))] ** 2).sum()
        families.append((shape * family.kelvin / np.sqrt(middle_variance), np.array(wavenumbers)))
    return families


def _land(seed: int) -> np.ndarray:
    """Return the land fraction in [0, 1], (32, 64): continents on about a third of the planet."""
    random = _stream(seed, _LAND)
    latitude, longitude = np.deg2rad(LATITUDES)[:, None], np.deg2rad(LONGITUDES)
    height = np.zeros((32, 64))
    for wavenumber in range(1, 6):
        for order in range(1, 5):
            amplitude, phase, shift = random.standard_normal(), *random.uniform(0, 2 * np.pi, 2)
            height += (
                amplitude
                / (wavenumber + order) ** 0.7
                * np.cos(latitude) ** 0.7
                * np.cos(wavenumber * longitude + phase)
                * np.sin(order * latitude + shift)
            )
    sea_level = np.quantile(height, 0.66)
    return 1.0 / (1.0 + np.exp(-(height - sea_level) / (0.15 * height.std())))


_LAND, _WAVES, _NOISE = range(3)


def _stream(seed: int, *key: int) -> np.random.Generator:
    """Return a random generator that is independent for each key, such as (_WAVES, year, month)."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *key])))


def _hours_of_year(year: int) -> np.ndarray:
    return np.arange(f"{year}-01-01T00", f"{year + 1}-01-01T00", dtype="datetime64[h]")


def _hours_of_month(year: int, month: int) -> np.ndarray:
    """Return the hours of a month, datetime64[h] (n,). Months count from 0."""
    first = np.datetime64(f"{year}-01", "M") + month
    return np.arange(first.astype("datetime64[h]"), (first + 1).astype("datetime64[h]"))
