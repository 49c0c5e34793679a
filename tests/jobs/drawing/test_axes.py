"""What is known of a store's grid: degrees with their sides, kilometres, or cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from jobs.drawing.axes import GridAxes, grid_axes, latitude, longitude
from pipelines.stores.store import Store, open_store
from tests.jobs.forecasts.stores import weather, write_store


def projected(place: Path, units: str = "m", stretch: float = 1.0) -> Store:
    """A store of (time, channel, y, x) whose rows run south, 2 km apart."""
    values = np.random.default_rng(0).normal(size=(480, 2, 8, 6)).astype(np.float32)
    splits = {"train": ("2019-01-01", "2019-01-15"), "test": ("2019-01-16", "2019-01-20")}
    write_store(place, values, splits=splits)
    root = zarr.open_group(place)
    for name, size, step in (("y", 8, -2000.0 * stretch), ("x", 6, 2000.0)):
        made = root.create_array(
            name,
            shape=(size,),
            chunks=(size,),
            dtype="float64",
            dimension_names=(name,),
            attributes={"units": units},
        )
        made[:] = np.arange(size) * step
    zarr.consolidate_metadata(root.store)
    return open_store(str(place))


def drawn(grid: GridAxes) -> Any:
    """Axes of a map of this grid, decorated."""
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    axes.pcolormesh(grid.columns, grid.rows, np.zeros((len(grid.rows), len(grid.columns))))
    grid.decorate(axes)
    axes.figure.canvas.draw()
    return axes


def test_degrees_name_their_side_of_the_globe(tmp_path: Path):
    grid = grid_axes(write_store(tmp_path / "store.zarr", weather()), "t2m")
    assert grid.kind == "degrees"
    axes = drawn(grid)
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert any(label.endswith("°W") for label in labels), labels
    assert {label[-1] for label in (t.get_text() for t in axes.get_yticklabels())} <= {*"NS°"}
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("longitude", "latitude")


@pytest.mark.parametrize(
    ("degrees", "text"),
    [(370, "10°E"), (-180, "180°"), (190, "170°W"), (0, "0°"), (2.25, "2.25°E")],
)
def test_longitudes_count_to_180_both_ways(degrees: float, text: str):
    assert longitude(degrees) == text


def test_latitudes_are_north_or_south():
    assert [latitude(x) for x in (52.25, 0, -33)] == ["52.25°N", "0°", "33°S"]


def test_a_region_in_degrees_keeps_its_shape_and_the_globe_is_a_rectangle():
    def aspect(first: float, last: float) -> float:
        rows = np.linspace(first, last, 9)
        return GridAxes("degrees", rows, np.arange(9.0), "", "", False).aspect

    assert aspect(59, 61) == pytest.approx(2.0, abs=0.01)
    assert aspect(-90, 90) == 1.0
    assert aspect(88, 90) <= 5


def test_metres_of_a_projection_are_drawn_in_kilometres(tmp_path: Path):
    grid = grid_axes(projected(tmp_path / "radar.zarr"), "flow")
    assert (grid.kind, grid.row_label, grid.column_label) == ("kilometres", "y (km)", "x (km)")
    assert grid.rows.tolist() == [-2.0 * i for i in range(8)]
    assert grid.cell_km == pytest.approx(2.0)
    bottom, top = drawn(grid).get_ylim()
    assert bottom < top


def test_cells_that_are_no_squares_have_no_one_size(tmp_path: Path):
    grid = grid_axes(projected(tmp_path / "radar.zarr", stretch=1.5), "flow")
    assert grid.kind == "kilometres"
    assert grid.cell_km is None


def test_a_grid_without_coordinates_is_an_image_of_pixels(tmp_path: Path):
    values = np.random.default_rng(0).normal(size=(480, 2, 8, 6)).astype(np.float32)
    splits = {"train": ("2019-01-01", "2019-01-15"), "test": ("2019-01-16", "2019-01-20")}
    grid = grid_axes(write_store(tmp_path / "store.zarr", values, splits=splits), "flow")
    assert (grid.kind, grid.column_label, grid.cell_km) == ("cells", "x (pixel)", None)
    bottom, top = drawn(grid).get_ylim()
    assert bottom > top
