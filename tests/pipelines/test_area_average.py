"""Area averages: compared with results by hand and by a finer grid, and with missing values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.area_average import AreaAverage, edges_between, equal_parts, overlaps
from pipelines.errors import UsageError


def test_a_fine_cell_that_two_coarse_cells_share_counts_by_area():
    # Three pixels to two: half of the middle pixel belongs to each side.
    average = AreaAverage(equal_parts(1, 1), equal_parts(3, 2))
    found = average(np.array([[3.0, 6.0, 12.0]]))
    np.testing.assert_allclose(found, [[(3 + 6 / 2) / 1.5, (6 / 2 + 12) / 1.5]], rtol=1e-15)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32))
def test_averages_equal_those_of_pixels_that_are_repeated_on_a_finer_grid(
    fine: int, coarse: int, seed: int
):
    values = np.random.default_rng(seed).normal(size=(2, fine, fine))
    coarse = min(fine, coarse)
    average = AreaAverage(equal_parts(fine, coarse), equal_parts(fine, coarse))
    repeated = values.repeat(coarse, axis=1).repeat(coarse, axis=2)
    expected = repeated.reshape(2, coarse, fine, coarse, fine).mean(axis=(2, 4))
    np.testing.assert_allclose(average(values), expected, atol=1e-12)


def test_a_field_has_the_same_bits_alone_and_together_with_others():
    values = np.random.default_rng(0).normal(280, 9, (700, 33, 49)).astype(np.float32)
    values[3, 4, 5] = np.nan
    average = AreaAverage(equal_parts(33, 8), equal_parts(49, 12))
    together = average(values)
    for number in (0, 3, 699):
        alone = average(values[number])
        np.testing.assert_array_equal(alone, together[number])


def test_extra_dimensions_are_kept():
    values = np.random.default_rng(0).normal(size=(3, 2, 8, 6))
    average = AreaAverage(equal_parts(8, 4), equal_parts(6, 3))
    assert average(values).shape == (3, 2, 4, 3)
    np.testing.assert_array_equal(average(values)[1, 1], average(values[1, 1]))


def test_a_cell_is_missing_if_less_than_half_of_it_has_values():
    average = AreaAverage(equal_parts(2, 1), equal_parts(2, 1))
    nan = np.nan
    np.testing.assert_array_equal(average(np.array([[1.0, 2.0], [3.0, nan]])), [[2.0]])
    np.testing.assert_array_equal(average(np.array([[1.0, nan], [3.0, nan]])), [[2.0]])
    assert np.isnan(average(np.array([[1.0, nan], [nan, nan]]))).all()
    assert average(np.array([[1.0, nan], [nan, nan]]), least_valid=0.25) == [[1.0]]


def test_missing_values_do_not_affect_neighbouring_cells():
    values = np.ones((6, 6))
    values[:3, :3] = np.nan
    found = AreaAverage(equal_parts(6, 2), equal_parts(6, 2))(values)
    np.testing.assert_array_equal(found, [[np.nan, 1.0], [1.0, 1.0]])


def test_an_infinite_value_affects_only_its_own_cell():
    values = np.ones((4, 5))
    values[0, 0] = np.inf
    found = AreaAverage(equal_parts(4, 2), equal_parts(5, 2))(values)
    np.testing.assert_array_equal(found, [[np.inf, 1.0], [1.0, 1.0]])


def test_axes_may_run_in_either_direction():
    values = np.random.default_rng(1).normal(size=(5, 5))
    rising, falling = np.arange(6.0), np.arange(5.0, -1.0, -1.0)
    coarse = np.array([0.0, 2.5, 5.0])
    one = AreaAverage(overlaps(rising, coarse), overlaps(rising, coarse))
    other = AreaAverage(overlaps(falling, coarse), overlaps(rising, coarse[::-1]))
    np.testing.assert_allclose(other(values[::-1]), one(values)[:, ::-1], rtol=1e-14)


def test_a_coarse_cell_can_overlap_both_ends_of_a_periodic_axis():
    # The fine cells are [0, 90), ...; the coarse cell [-90, 90) overlaps the last and the first.
    axis = overlaps(np.arange(0.0, 361.0, 90.0), np.array([-90.0, 90.0, 270.0]), period=360.0)
    found = AreaAverage(equal_parts(1, 1), axis)(np.array([[1.0, 2.0, 3.0, 5.0]]))
    np.testing.assert_array_equal(found, [[3.0, 2.5]])


def test_edges_are_half_way_between_centres():
    np.testing.assert_array_equal(edges_between([0.0, 1.0, 3.0]), [-0.5, 0.5, 2.0, 4.0])


def test_a_coarse_cell_outside_the_source_raises_an_error():
    with pytest.raises(UsageError, match="cell 1 of the coarse grid is outside"):
        overlaps(np.arange(4.0), np.array([0.0, 3.0, 6.0]))


def test_a_coarse_cell_is_missing_if_less_than_half_of_it_is_inside_the_source():
    axis = overlaps(np.arange(5.0), np.array([0.0, 3.0, 6.0]))
    assert np.isnan(AreaAverage(equal_parts(1, 1), axis)(np.ones((1, 4)))).tolist() == [
        [False, True]
    ]


def test_different_grids_have_different_digests():
    def digest(fine: int, coarse: int) -> str:
        return AreaAverage(equal_parts(8, 4), equal_parts(fine, coarse)).digest()

    assert digest(8, 4) == digest(8, 4)
    assert len({digest(8, 4), digest(8, 2), digest(12, 4)}) == 3
