"""Figures of a store: what is drawn of it, and that files can be looked at."""

from __future__ import annotations

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import zarr

from jobs.reprocessing.figures import draw_histogram, draw_maps, draw_timeline, write_figures
from pipelines.audit.sample import sample_frames
from pipelines.stores.store import Store, open_store
from tests.jobs.forecasts.stores import weather, write_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Thirty days on a sphere; a day is missing, an hour unreadable, a corner without values."""
    place = tmp_path_factory.mktemp("figures") / "weather.zarr"
    values = weather()
    values[:, 0, 0] = np.nan
    write_store(place, values)
    available = zarr.open_group(place)["available"]
    assert isinstance(available, zarr.Array)
    available[240:264], available[400] = 1, 2
    return open_store(str(place))


def test_a_store_gets_a_timeline_and_two_figures_a_variable(store: Store, tmp_path: Path):
    written = write_figures(store, str(tmp_path / "new" / "folder"))
    assert [Path(place).name for place in written] == [
        "timeline.png",
        "map_t2m.png",
        "histogram_t2m.png",
    ]
    for place in written:
        pixels = matplotlib.image.imread(place)
        assert min(pixels.shape[:2]) > 300
        assert pixels[..., :3].std() > 0.05


def test_maps_have_axes_units_and_say_what_they_show(store: Store):
    figure = draw_maps(store, sample_frames(store, "t2m"))
    mean, last, *bars = figure.axes
    assert mean.get_title() == "mean of 48 sampled frames of the train period"
    assert last.get_title() == "last usable frame: 2019-01-30 23:00 UTC"
    assert (mean.get_xlabel(), mean.get_ylabel()) == ("longitude", "latitude")
    assert [bar.get_xlabel() for bar in bars] == ["t2m (K)"] * 2


def test_missing_pixels_are_not_given_a_colour(store: Store):
    figure = draw_maps(store, sample_frames(store, "t2m"))
    drawn = figure.axes[1].collections[0].get_array()
    assert drawn is not None
    assert np.isnan(np.ma.filled(drawn, np.nan)).sum() == 1


def test_rows_run_as_on_the_ground(store: Store, tmp_path: Path):
    figure = draw_maps(store, sample_frames(store, "t2m"))
    south, north = figure.axes[0].get_ylim()
    assert south < north
    pixels = np.random.default_rng(0).normal(size=(480, 2, 8, 6)).astype(np.float32)
    split = {"train": ("2019-01-01", "2019-01-15"), "test": ("2019-01-16", "2019-01-20")}
    traffic = write_store(tmp_path / "traffic.zarr", pixels, splits=split)
    figure = draw_maps(traffic, sample_frames(traffic, "flow"))
    bottom, top = figure.axes[0].get_ylim()
    assert bottom > top
    assert "pixel" in figure.axes[0].get_ylabel()


def test_a_few_channels_of_many_are_shown_and_it_is_said(tmp_path: Path):
    values = np.random.default_rng(0).normal(size=(480, 9, 8, 6)).astype(np.float32)
    split = {"train": ("2019-01-01", "2019-01-15"), "test": ("2019-01-16", "2019-01-20")}
    store = write_store(tmp_path / "many.zarr", values, splits=split)
    sample = sample_frames(store, "flow", frames=5)
    for figure in (draw_maps(store, sample), draw_histogram(store, sample)):
        assert "4 of 9 channels" in figure.get_suptitle()


def test_a_histogram_carries_the_exact_mean_and_the_size_of_its_sample(store: Store):
    figure = draw_histogram(store, sample_frames(store, "t2m", frames=10))
    axes = figure.axes[0]
    assert axes.get_title(loc="left") == "10 sampled frames of the train period"
    mean = store.statistics["variables"]["t2m"]["mean"]
    assert mean in [line.get_xdata()[0] for line in axes.get_lines()]  # pyright: ignore[reportIndexIssue]


def test_a_timeline_marks_every_stretch_with_a_frame_that_cannot_be_used(store: Store):
    figure = draw_timeline(store)
    band, states, _ = figure.axes
    assert band.get_title(loc="left") == "25 of 720 frames cannot be used"
    assert states.get_legend_handles_labels()[1] == ["ok", "missing in the source", "unreadable"]
    (markers,) = states.get_lines()
    # Two frames a stretch: a day of 24 frames, and one hour.
    assert len(np.asarray(markers.get_xdata())) == 12 + 1


def test_periods_far_apart_lie_side_by_side(tmp_path: Path):
    place = tmp_path / "periods.zarr"
    write_store(place, weather())
    times = zarr.open_group(place)["time"]
    assert isinstance(times, zarr.Array)
    times[360:] = np.asarray(times)[360:] + 365 * 86_400
    figure = draw_timeline(open_store(str(place)))
    low, high = figure.axes[2].get_xlim()
    assert high - low == 720
    labels = [label.get_text() for label in figure.axes[2].get_xticklabels()]
    assert labels == ["2019-01-01", "2020-01-16"]
