"""Averages to coarser latitudes and longitudes, alone and in a conversion."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.archives.contents import ArchiveIndex, SourceFile, VariableIndex
from pipelines.area_average import AreaAverage
from pipelines.conversion.regrid import CoarseGrid, regridded
from pipelines.errors import UsageError

HOUR = 3600


def index(
    latitude: np.ndarray, longitude: np.ndarray, dims: tuple[str, str] = ("latitude", "longitude")
) -> ArchiveIndex:
    variable = VariableIndex(
        "t2m",
        dims,
        (len(latitude), len(longitude)),
        dict(zip(dims, (latitude, longitude), strict=True)),
        {"units": "K"},
        np.arange(4) * HOUR,
        np.zeros(4, np.int32),
        np.arange(4),
    )
    files = (SourceFile("/archive/a.nc", 1, "v"),)
    return ArchiveIndex("era5", "title", files, (variable,), HOUR, ((0, 3 * HOUR),))


def era5(step: float) -> ArchiveIndex:
    """Return the grid of ERA5 at `step` degrees, with a row at each pole."""
    return index(np.linspace(90, -90, round(180 / step) + 1), np.arange(0, 360, step))


def average(found: ArchiveIndex, asked: str) -> tuple[AreaAverage, np.ndarray, np.ndarray]:
    coarse, averages = regridded(found, asked)
    coordinates = coarse.variables[0].coordinates
    return averages["t2m"], coordinates["latitude"], coordinates["longitude"]


def areas(latitude: np.ndarray, cells: int) -> np.ndarray:
    """Return the areas on the sphere of cells around some latitudes, (y, 1)."""
    middle = (latitude[1:] + latitude[:-1]) / 2
    ends = np.sign(latitude[[0, -1]]) * 90
    edges = np.concatenate([ends[:1], middle, ends[1:]])
    return np.abs(np.diff(np.sin(np.deg2rad(edges))))[:, None] / cells


def test_degrees_give_the_grid_of_weatherbench():
    _, latitude, longitude = average(era5(0.25), "5.625")
    np.testing.assert_allclose(latitude, np.linspace(87.1875, -87.1875, 32))
    np.testing.assert_allclose(longitude, np.arange(64) * 5.625)


def test_rows_and_columns_give_the_same_grid():
    by_degrees, by_shape = average(era5(0.25), "5.625"), average(era5(0.25), "32x64")
    assert by_degrees[0].digest() == by_shape[0].digest()


@pytest.mark.parametrize("asked", ["5.625", "30", "7x9"])
def test_a_constant_field_keeps_its_exact_value(asked: str):
    mean, *_ = average(era5(1.5), asked)
    found = mean(np.full(mean.fine_shape, 273.15, np.float32))
    np.testing.assert_allclose(found, np.float32(273.15), rtol=1e-14)
    np.testing.assert_array_equal(found.astype(np.float32), np.float32(273.15))


@pytest.mark.parametrize("asked", ["5.625", "15", "7x9"])
def test_the_global_mean_is_conserved(asked: str):
    found = era5(1.5)
    mean, latitude, _ = average(found, asked)
    fine = found.variables[0].coordinates["latitude"]
    values = np.random.default_rng(0).normal(280, 20, mean.fine_shape)
    before = (values * areas(fine, mean.fine_shape[1])).sum() / 2
    after = (mean(values) * areas(latitude, mean.coarse_shape[1])).sum() / 2
    assert after == pytest.approx(before, rel=1e-12)


@pytest.mark.parametrize("reverse", [False, True])
def test_cells_agree_with_a_fine_integration_over_the_sphere(reverse: bool):
    latitude, longitude = np.linspace(90, -90, 13), np.arange(0, 360, 20.0)
    found = index(latitude[::-1] if reverse else latitude, longitude)
    mean, rows, columns = average(found, "45")
    values = np.random.default_rng(1).normal(size=mean.fine_shape)
    # Points of an even net take the value of the fine cell that they lie in.
    points_y = -90 + (np.arange(1800) + 0.5) / 10
    points_x = (np.arange(720) + 0.5) / 2
    nearest_y = np.abs(found.variables[0].coordinates["latitude"][:, None] - points_y).argmin(0)
    apart = np.abs(longitude[:, None] - points_x)
    nearest_x = np.minimum(apart, 360 - apart).argmin(0)
    weights = np.cos(np.deg2rad(points_y))[:, None]
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            near = np.abs((points_x - column + 180) % 360 - 180) < 22.5
            inside = (np.abs(points_y - row) < 22.5)[:, None] & near
            points = values[nearest_y][:, nearest_x]
            expected = (points * weights)[inside].sum() / (weights * inside).sum()
            assert mean(values)[i, j] == pytest.approx(expected, abs=2e-3)


def test_the_row_at_the_pole_counts_with_half_a_cell():
    mean, *_ = average(era5(30), "60")
    values = np.zeros(mean.fine_shape)
    values[0] = 1.0
    shares = np.sin(np.deg2rad([90, 75, 45, 30]))
    expected = (shares[0] - shares[1]) / (shares[0] - shares[3])
    np.testing.assert_allclose(mean(values)[0], expected, rtol=1e-12)


def test_directions_of_the_source_are_kept():
    _, latitude, longitude = average(index(np.arange(-89, 90, 2.0), np.arange(-180, 180, 2.0)), "6")
    assert latitude[0] == -87
    assert longitude[0] == -180
    assert longitude[-1] == 174


def test_a_region_keeps_whole_cells_and_a_note_says_what_is_left_out():
    # Cells of a quarter degree from 50 to 58.25 and from -11 to 1.25.
    region = index(np.arange(58.125, 50, -0.25), np.arange(-10.875, 1.2, 0.25))
    mean, latitude, longitude = average(region, "1")
    assert mean.coarse_shape == (8, 12)
    np.testing.assert_allclose(latitude, np.arange(57.75, 50, -1))
    np.testing.assert_allclose(longitude, np.arange(-10.5, 1, 1))
    notes = regridded(region, "1")[0].notes
    assert [note.split(" at the end of ")[0] for note in notes] == ["t2m: 0.25 degrees"] * 2


def test_pixels_without_degrees_are_averaged_in_equal_numbers():
    plane = index(np.arange(6.0) * 1000, np.arange(4.0) * 1000, dims=("y", "x"))
    coarse, averages = regridded(plane, "3x2")
    np.testing.assert_array_equal(coarse.variables[0].coordinates["y"], [500, 2500, 4500])
    values = np.arange(24.0).reshape(6, 4)
    expected = values.reshape(3, 2, 2, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(averages["t2m"](values), expected)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("coarse", "is not a grid"),
        ("0", "is not a grid"),
        ("4x0", "is not a grid"),
        ("3x4x5", "is not a grid"),
        ("0.1", "1800 cells along latitude, the source 121"),
        ("7", "cells of 7 degrees do not fill"),
        ("500x2", "500 cells along latitude, the source 121"),
    ],
)
def test_an_impossible_grid_is_an_error(asked: str, message: str):
    with pytest.raises(UsageError, match=message) as refused:
        regridded(era5(1.5), asked)
    assert "--regrid" in str(refused.value.where)


def test_degrees_for_a_grid_of_pixels_are_an_error():
    plane = index(np.arange(6.0), np.arange(4.0), dims=("y", "x"))
    with pytest.raises(UsageError, match="no regular y in degrees"):
        regridded(plane, "2")


def test_different_texts_for_one_grid_are_equal():
    assert str(CoarseGrid.parse("5.6250")) == str(CoarseGrid.parse("5.625")) == "5.625"
    assert str(CoarseGrid.parse("032x64")) == "32x64"
