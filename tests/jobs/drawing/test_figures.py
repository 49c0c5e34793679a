"""Curves, maps and animations: what is drawn where, and that pictures stay small."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageSequence

from jobs.drawing import curves, maps
from jobs.drawing.animation import film
from jobs.drawing.axes import GridAxes
from jobs.drawing.palettes import MISSING, palette_of
from jobs.drawing.style import THEME

GRID = GridAxes("cells", np.arange(12.0), np.arange(16.0), "y (pixel)", "x (pixel)", True)


def style(units: str = "K") -> maps.MapStyle:
    return maps.MapStyle(GRID, palette_of(units), 0.0, 60.0, "quantity")


def picture(data: bytes) -> np.ndarray:
    """(H, W, 3) integers of a PNG."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def count(pixels: np.ndarray, colour: str) -> int:
    wanted = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    return int((np.abs(pixels - wanted).max(axis=-1) <= 3).sum())


def paths(svg: str, colour: str) -> list[str]:
    """Styles of the lines of one colour."""
    return re.findall(rf'style="[^"]*stroke: var\(--{THEME[colour]}, {colour}\)[^"]*"', svg)


def test_a_curve_has_dashes_and_markers_beside_its_colour():
    svg = curves.curves("t", [1, 2], {"model": [1, 2], "persistence": [2, 3]}, "x", "y", "floor")
    assert any("stroke-dasharray" in path for path in paths(svg, "#d55e00"))
    assert not any("stroke-dasharray" in path for path in paths(svg, "#0072b2"))
    assert svg.count("<use") >= 4
    for word in (">model<", ">persistence<", ">x<", ">y<"):
        assert word in svg


def test_an_interval_is_a_band_behind_its_line():
    series = {"model": [1.0, 2.0]}
    without = curves.curves("t", [1, 2], series, "x", "y")
    with_band = curves.curves("t", [1, 2], series, "x", "y", bands={"model": ([0, 1], [2, 3])})
    assert "opacity: 0.2" in with_band
    assert "opacity: 0.2" not in without


def test_figures_in_one_page_do_not_share_names_and_take_the_colours_of_the_page():
    svg = curves.curves("a < b", [1, 2], {"model": [1, 2]}, "x", "y")
    assert 'aria-label="a &lt; b"' in svg
    assert not re.search(r'<g id=|width="[\d.]+pt"|<metadata|xmlns', svg)
    referred = set(re.findall(r'(?:xlink:href="#|url\(#)([^")]+)', svg))
    assert referred <= set(re.findall(r' id="([^"]+)"', svg))
    assert "font-family" not in svg
    assert not re.search(r"(?<!, )#0072b2", svg)


def test_lead_times_are_marked_by_round_numbers():
    svg = curves.curves("t", [5.0 * i for i in range(1, 13)], {"model": [1.0] * 12}, "x", "y")
    for word in (">10<", ">60<"):
        assert word in svg
    assert ">15<" not in svg


def test_a_legend_of_long_names_has_as_many_columns_as_fit():
    def rows_of_legend(*names: str) -> int:
        svg = curves.curves("t", [1, 2], {name: [1, 2] for name in names}, "x", "y")
        places = [re.search(rf'<text[^>]*y="([\d.]+)"[^>]*>{name}<', svg) for name in names]
        return len({place[1] for place in places if place})

    assert rows_of_legend("model", "persistence") == 1
    assert rows_of_legend("a-model-of-21-letters", "b-model-of-21-letters") == 2
    assert rows_of_legend("a-model-of-21-letters", "b-model-of-21-letters", "model", "other") == 2
    assert rows_of_legend(*(f"a-model-of-twenty-six-{i:04d}" for i in range(4))) == 4


def test_a_spectrum_runs_from_long_waves_to_short_ones():
    waves = [64.0, 32.0, 16.0, 8.0, 4.0, 2.0]
    series = {"truth": [1e3, 4e2, 1e2, 1e1, 1.0, 0.1], "model": [1e3, 4e2, 1e2, 8.0, 0.1, 1e-3]}
    svg = curves.spectra("s", waves, series, "wavelength (km)", "power")
    (x_20, x_5) = (
        float(re.search(rf'<text[^>]*x="([\d.]+)"[^>]*>{label}<', svg)[1])  # type: ignore[index]
        for label in (20, 5)
    )
    assert x_20 < x_5
    assert paths(svg, "#000000")


def test_a_rank_histogram_has_a_bar_a_rank_and_the_line_of_a_reliable_ensemble():
    svg = curves.rank_histogram("r", [0.5, 0.2, 0.3])
    assert svg.count("fill: url(#") == 3
    assert "a reliable ensemble" in svg


def test_a_probability_that_was_never_forecast_has_no_point():
    nan = float("nan")
    svg = curves.reliability("r", [0, 0.5, 1], [0.1, nan, 0.9], [0.9, 0.0, 0.1], 0.2)
    whole = curves.reliability("r", [0, 0.5, 1], [0.1, 0.5, 0.9], [0.8, 0.1, 0.1], 0.2)
    assert whole.count("<use") == svg.count("<use") + 1
    assert "how often it happens" in svg


def test_a_long_training_is_a_short_curve():
    losses = [1 / (1 + step) for step in range(40_000)]
    assert len(curves.training_curve(range(40_000), losses, 39_000)) < 120_000


def test_missing_pixels_are_grey_and_hatched():
    values = np.full((12, 16), 30.0)
    whole = picture(maps.field_map(values, style()))
    values[:6] = np.nan
    half = picture(maps.field_map(values, style()))
    grey = str(MISSING["facecolor"])
    assert count(half, grey) > 0.1 * half[..., 0].size
    assert count(whole, grey) < 0.01 * whole[..., 0].size


def test_radar_is_drawn_in_the_colours_of_its_steps_whatever_the_range():
    values = np.full((12, 16), 22.0)
    values[:, 8:] = 52.0
    pixels = picture(maps.field_map(values, style("dBZ")))
    palette = palette_of("dBZ")
    for dbz in (20, 50):
        colour = palette.colours[palette.levels.index(dbz)]
        assert count(pixels, colour) > 0.08 * pixels[..., 0].size


def test_paper_stays_white_and_pictures_small():
    data = maps.field_map(np.random.default_rng(0).uniform(0, 60, (12, 16)), style())
    assert (picture(data)[:3] == 255).all()
    assert len(data) < 40_000


def test_lines_at_thresholds_are_drawn_where_values_cross_them():
    ramp = np.linspace(0, 60, 16)[None].repeat(12, axis=0)
    plain = np.where(ramp < 10, ramp, 9.0)
    dark = [
        int(
            (picture(maps.field_map(values, style("dBZ")))[40:400, 150:500].max(axis=-1) < 60).sum()
        )
        for values in (ramp, plain)
    ]
    assert dark[0] > dark[1] + 300


@pytest.mark.parametrize(("sign", "dashes"), [(1.0, "solid"), (-1.0, "dashed")])
def test_errors_that_are_too_high_have_solid_lines_and_too_low_ones_dashed(
    sign: float, dashes: str, monkeypatch: pytest.MonkeyPatch
):
    drawn: list[tuple[float, str]] = []

    def contour(_axes: Any, _grid: Any, values: Any, level: float, style: str, _width: float):
        if np.nanmin(values) < level < np.nanmax(values):
            drawn.append((level, style))

    monkeypatch.setattr(maps, "_contour", contour)
    error = np.zeros((12, 16))
    error[4:8, 4:8] = sign
    maps.error_map(error, GRID, 1.0, "error")
    assert drawn == [(pytest.approx(sign / 3), {"solid": "-", "dashed": "--"}[dashes])]


def test_arrows_point_down_the_rows_however_the_map_is_turned(monkeypatch: pytest.MonkeyPatch):
    from matplotlib.axes import Axes

    given: list[tuple[np.ndarray, np.ndarray]] = []
    original = Axes.quiver

    def quiver(self: Any, x: Any, y: Any, u: Any, v: Any, **options: Any) -> Any:
        given.append((u, v))
        return original(self, x, y, u, v, **options)

    monkeypatch.setattr(Axes, "quiver", quiver)
    down = maps.Arrows(
        np.array([3.0, 8.0]), np.array([4.0, 9.0]), np.ones((2, 2)), np.zeros((2, 2))
    )
    north_up = GridAxes("degrees", np.arange(12.0), np.arange(16.0), "", "", False)
    south_up = GridAxes("degrees", -np.arange(12.0), np.arange(16.0), "", "", False)
    for grid in (GRID, north_up, south_up):
        look = maps.MapStyle(grid, palette_of("K"), 0, 1, "q")
        maps.field_map(np.zeros((12, 16)), look, down, "cells a frame")
    # An image counts its rows downwards; row 11 of a grid whose latitudes rise is its top.
    assert [float(v[0, 0]) for _, v in given] == [-1, 1, -1]


def test_a_large_field_is_averaged_and_missing_only_where_all_is():
    values = np.ones((1300, 1300))
    values[:3, :2] = np.nan
    values[3, :3] = np.nan
    grid = GridAxes("cells", np.arange(1300.0), np.arange(1300.0), "y", "x", True)
    mean, shown = maps._averaged(values, grid)
    assert mean.shape == (433, 433)
    assert len(shown.rows) == 433
    assert np.isfinite(mean).all()
    values[:3, :3] = np.nan
    assert np.isnan(maps._averaged(values, grid)[0]).sum() == 1


@pytest.fixture(scope="module")
def made():
    """An animation of two frames, the second of which differs on the right alone."""
    left = np.stack([np.full((12, 16), 20.0)] * 2)
    right = np.stack([np.full((12, 16), 20.0), np.full((12, 16), 50.0)])
    captions = [("Input", "Input"), ("Truth", "Forecast")]
    return film(left, right, captions, style("dBZ"), still=1)


def test_an_animation_moves_and_repeats(made):
    animated = Image.open(io.BytesIO(made.gif))
    frames = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(animated)]
    assert len(frames) == made.frames == 2
    assert animated.info["loop"] == 0
    half = frames[0].shape[1] // 2
    moved = np.abs(frames[0].astype(int) - frames[1]).max(axis=-1) > 30
    assert moved[60:200, half + 80 :].mean() > 0.3
    assert moved[60:200, 80 : half - 20].mean() < 0.01


def test_what_stands_for_an_animation_is_the_frame_that_was_asked_for(made):
    still = picture(made.still)
    animated = Image.open(io.BytesIO(made.gif))
    animated.seek(1)
    assert np.abs(still - np.asarray(animated.convert("RGB")).astype(int)).mean() < 1


def test_an_animation_that_is_too_large_is_made_smaller():
    noise = np.random.default_rng(0).uniform(0, 60, (2, 12, 16))
    captions = [("a", "b")] * 2
    free = film(noise, noise, captions, style(), still=0)
    tight = film(noise, noise, captions, style(), still=0, most_bytes=len(free.gif) * 3 // 4)
    assert len(tight.gif) <= len(free.gif) * 3 // 4
    assert tight.width < free.width
