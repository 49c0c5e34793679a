"""Spectra of composites whose corners no radar reaches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gmg_model.metrics.detail import ring_power
from jobs.forecasts.forecasters.baselines import persistence
from jobs.forecasts.scoring.protocols import largest_rectangle, observed_region
from pipelines.inputs.normalisation import Normalisation
from pipelines.stream.windows import WindowSpec
from tests.jobs.forecasts.running import evaluate
from tests.jobs.forecasts.stores import write_store


def area(region: tuple[int, int, int, int]) -> int:
    top, bottom, left, right = region
    return (bottom - top) * (right - left)


@settings(max_examples=60, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 7), st.integers(1, 7))))
def test_the_largest_rectangle_is_that_of_an_exhaustive_search(seen) -> None:
    rows, columns = seen.shape
    found = largest_rectangle(seen)
    assert seen[found[0] : found[1], found[2] : found[3]].all()
    for top in range(rows):
        for bottom in range(top + 1, rows + 1):
            for left in range(columns):
                for right in range(left + 1, columns + 1):
                    if seen[top:bottom, left:right].all():
                        assert area(found) >= (bottom - top) * (right - left)


def test_large_grids_are_searched_in_blocks() -> None:
    seen = np.zeros((1025, 600), bool)
    seen[10:1000, 33:590] = True
    assert largest_rectangle(seen) == (12, 999, 33, 588)


def test_a_composite_has_the_spectrum_of_what_its_radars_reach(tmp_path) -> None:
    pixels = np.random.default_rng(1).uniform(0, 55, (720, 24, 20)).astype(np.float32)
    pixels[:, :4] = np.nan
    pixels[:, :9, :2] = np.nan
    pixels[5, 12, 12] = np.nan  # a hole of one frame decides nothing
    store = write_store(tmp_path / "radar.zarr", pixels, units="dBZ")
    region = observed_region(store, "t2m")
    assert region == (4, 24, 2, 20)
    window = WindowSpec(2, 2)
    evaluation = evaluate(
        store,
        persistence,
        variables=("t2m",),
        window=window,
        normalisation=Normalisation.from_store(store, ("t2m",), "minmax"),
        max_windows=1,
        resamples=0,
    )
    (scores,) = evaluation.scores
    overall = scores.scores.means("detail", "model")
    assert overall["area_with_spectrum"] == pytest.approx(20 * 18 / (24 * 20))
    example = evaluation.examples[0]
    truth = example.truth_tchw[:, 0, 4:24, 2:20].astype(np.float64)
    found = np.asarray(scores.curves["detail"]["model"]["power_truth"].per_lead)
    np.testing.assert_allclose(found, ring_power(truth), rtol=1e-6)


def test_a_store_with_whole_frames_has_no_region(make_store) -> None:
    assert observed_region(make_store(), "t2m") is None
