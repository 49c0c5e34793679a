"""Processing of frames: averages in linear units, conversions, thresholds."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.archives.radar.formats.radar_format import Quantity
from pipelines.archives.radar.grid import RadarGrid
from pipelines.archives.radar.options import RadarOptions
from pipelines.archives.radar.processing import Processing, area_mean, converted_quantity

REFLECTIVITY = Quantity("reflectivity", "test", -32.0)
RATE = Quantity("rain_rate", "test", 0.0)
SUM = Quantity("rainfall", "test", 0.0, 300)


def processed(values, held: Quantity, **options) -> np.ndarray:
    chosen = RadarOptions(**options)
    process = Processing(chosen, held, converted_quantity(held, chosen))
    return process(np.asarray(values, np.float32)[None])[0]


def by_hand(values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return the mean over each coarse pixel, by cutting every pixel into equal parts."""
    rows, columns = values.shape
    fine = np.repeat(np.repeat(values, shape[0], 0), shape[1], 1)
    blocks = fine.reshape(shape[0], rows, shape[1], columns).swapaxes(1, 2).reshape(*shape, -1)
    measured = np.isfinite(blocks)
    total = np.where(measured, blocks, 0).sum(-1)
    enough = measured.mean(-1) >= 0.5
    return np.where(enough, total / np.maximum(measured.sum(-1), 1), np.nan)


@pytest.mark.parametrize("shape", [(7, 11), (1, 1), (3, 4), (6, 11), (2, 5)])
def test_an_area_mean_is_weighted_by_measured_area(shape: tuple[int, int]):
    rng = np.random.default_rng(0)
    values = rng.gamma(1.0, 5.0, (3, 7, 11))
    values[rng.random(values.shape) < 0.4] = np.nan
    averaged = area_mean(values, shape)
    for frame, expected in zip(averaged, values, strict=True):
        np.testing.assert_allclose(frame, by_hand(expected, shape), rtol=1e-12)
    assert np.isnan(averaged).any() or shape == (1, 1)


def test_reflectivity_is_averaged_in_linear_units_with_no_echo_as_zero():
    values = [[30.0, -32.0, 20.0, 20.0], [-32.0, -32.0, 20.0, 20.0], [-32.0] * 4, [-32.0] * 4]
    means = processed(values, REFLECTIVITY, resize="2x2")
    np.testing.assert_allclose(means, [[10 * np.log10(1000 / 4), 20.0], [-32.0, -32.0]], rtol=1e-6)
    assert means[1, 0] == -32.0


def test_an_average_is_missing_if_less_than_half_was_measured():
    values = [[np.nan, np.nan, 4.0, np.nan], [np.nan, 8.0, 2.0, np.nan]]
    np.testing.assert_array_equal(processed(values, RATE, resize="1x2"), [[np.nan, 3.0]])


def test_values_below_no_echo_become_no_echo():
    values = [[-40.0, -32.0, np.nan, 5.0]]
    np.testing.assert_array_equal(processed(values, REFLECTIVITY), [[-32, -32, np.nan, 5]])


def test_a_crop_comes_before_an_average():
    values = np.arange(24.0).reshape(4, 6)
    averaged = processed(values, RATE, crop="2:4,0:4", resize="1x2")
    np.testing.assert_allclose(averaged, [[values[2:4, 0:2].mean(), values[2:4, 2:4].mean()]])


def test_the_axes_follow_crop_and_average():
    grid = RadarGrid("+proj=stere", (4, 6), (900.0, -200.0), (100.0, 200.0))
    coarse = grid.cropped((2, 4, 0, 4)).resized((1, 2))
    axes = grid.coordinates()
    np.testing.assert_allclose(coarse.coordinates()["y"], [axes["y"][2:4].mean()])
    expected = [axes["x"][0:2].mean(), axes["x"][2:4].mean()]
    np.testing.assert_allclose(coarse.coordinates()["x"], expected)


def test_rain_rates_become_reflectivity_and_back():
    rates = np.array([[0.0, 1.0, 10.0, np.nan]])
    dbz = processed(rates, RATE, unit="dBZ")
    np.testing.assert_allclose(dbz, [[-32.0, 23.0103, 39.0103, np.nan]], atol=1e-4)
    np.testing.assert_allclose(processed(dbz, REFLECTIVITY, unit="mm/h"), rates, atol=1e-5)
    other = processed(rates, RATE, unit="dBZ", zr="223,1.53")
    assert other[0, 1] == pytest.approx(10 * np.log10(223))
    quantity = converted_quantity(RATE, RadarOptions(unit="dBZ"))
    assert (quantity.name, quantity.unit, quantity.no_echo) == ("reflectivity", "dBZ", -32.0)


def test_sums_become_rates_over_their_interval():
    np.testing.assert_allclose(processed([[0.5, 0.0]], SUM, unit="mm/h"), [[6.0, 0.0]])
    assert converted_quantity(SUM, RadarOptions(unit="mm/h")).accumulation_seconds == 0


def test_a_unit_that_the_source_has_changes_nothing():
    assert converted_quantity(RATE, RadarOptions(unit="mm/h")) is RATE
    np.testing.assert_array_equal(
        processed([[0.3, np.nan]], RATE, unit="mm/h"), np.float32([[0.3, np.nan]])
    )


def test_a_threshold_is_in_the_store_unit_and_keeps_missing_pixels():
    values = [[-32.0, 14.5, 15.0, np.nan]]
    np.testing.assert_array_equal(
        processed(values, REFLECTIVITY, threshold="15"), [[-32, -32, 15, np.nan]]
    )
    rates = processed([[0.05, 0.1, 3.0]], RATE, threshold="0.1", unit="mm/h")
    np.testing.assert_array_equal(rates, np.float32([[0.0, 0.1, 3.0]]))
