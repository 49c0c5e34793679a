"""Protocol `detail`: do forecasts keep the fine structure of the truth, or blur it?

Array axes: N windows, T lead times, C channels, H rows, W columns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gmg_model.metrics.images import gradient_differences
from gmg_model.metrics.streaming import (
    FRAME_AXES,
    Curve,
    Field,
    StreamingMetrics,
    Sums,
    by_lead,
    frames_in,
)

FINE_WAVELENGTH = 8.0
"""Wavelength in pixels below which structure counts as fine."""


class DetailMetrics(StreamingMetrics):
    """Radially averaged power spectra and gradient differences.

    - curves `power_forecast` and `power_truth`: |FFT|^2 / (H * W), averaged over rings of equal
      wavenumber, windows and channels, in squared units of the data. The axis is the wavelength in
      pixels, longest first. Frames are treated as periodic, without a taper. A frame whose truth
      has a missing pixel has no spectrum and is left out for the forecast too.
    - `frames_with_spectrum`: share of the frames that have a spectrum.
    - `area_with_spectrum`: share of the grid that the spectra cover.
    - `power_ratio_finer_8px`: power of the forecast divided by power of the truth, each summed
      over the rings of wavelengths under 8 pixels. Below 1 means blurred, above 1 noisy.
    - `gdl`: `| |grad true| - |grad pred| |` in units of the data, the mean over pairs of
      neighbours down the rows plus the mean over pairs along the rows. A pair with a pixel that is
      NaN in the truth is left out.

    The grid need not be square. Pixels count as square; rings are 1 / max(H, W) cycles per pixel
    wide and reach from that wavenumber to 1/2. The corners of the spectrum beyond 1/2 are left out.
    A forecast that is NaN where the truth exists makes the scores NaN.

    Parameters
    ----------
    region:
        (first row, row after the last, first column, column after the last): the part of the grid
        that spectra are taken of. A pixel that is missing outside it does not matter. None: the
        whole grid.
    """

    def __init__(self, region: Sequence[int] | None = None) -> None:
        super().__init__()
        self._region = None if region is None else tuple(region)
        self._grid: tuple[int, ...] | None = None

    def options(self) -> Mapping[str, Any]:
        return {"region": self._region}

    def batch_sums(self, pred: Field, true: Field, climatology: Field | None) -> Sums:
        self._check_grid(true.shape[-2:])
        sums: Sums = {}
        valid = ~np.isnan(true)
        pairs = {
            "rows": valid[..., 1:, :] & valid[..., :-1, :],
            "columns": valid[..., 1:] & valid[..., :-1],
        }
        for (axis, both), difference in zip(
            pairs.items(), gradient_differences(pred, true), strict=True
        ):
            sums[f"pairs_{axis}"] = by_lead(both)
            sums[f"gradient_{axis}"] = by_lead(np.where(both, difference, 0.0))
        part = self._part()
        whole = np.asarray(valid[part].all(axis=FRAME_AXES))
        sums["frames"], sums["frames_seen"] = by_lead(whole), frames_in(true)
        sums["area"] = sums["frames_seen"] * math.prod(self._sides()) / math.prod(true.shape[-2:])
        for name, frames in (("forecast", pred), ("truth", true)):
            power = ring_power(frames[part]).mean(axis=2)
            sums[f"power_{name}"] = np.where(whole[..., None], power, 0.0).sum(axis=0)
            sums[f"fine_{name}"] = sums[f"power_{name}"][..., self._fine()].sum(axis=-1)
        return sums

    def merge(self, other: StreamingMetrics) -> None:
        if isinstance(other, DetailMetrics) and other._grid is not None:
            self._check_grid(other._grid)
        super().merge(other)

    def scores(self, sums: Sums) -> Sums:
        gradients = [
            sums[f"gradient_{axis}"] / sums[f"pairs_{axis}"] for axis in ("rows", "columns")
        ]
        return {
            "gdl": gradients[0] + gradients[1],
            "power_ratio_finer_8px": sums["fine_forecast"] / sums["fine_truth"],
            "frames_with_spectrum": sums["frames"] / sums["frames_seen"],
            "area_with_spectrum": sums["area"] / sums["frames_seen"],
        }

    def curves(self, sums: Sums) -> Sums:
        frames = sums["frames"][..., None]
        return {name: sums[name] / frames for name in ("power_forecast", "power_truth")}

    def axis_of(self, curve: str, sums: Sums) -> Curve:
        return Curve("wavelength", "pixels", self._wavelengths())

    def _part(self) -> tuple[Any, ...]:
        """Return an index that selects the region of the spectra."""
        if self._region is None:
            return (...,)
        top, bottom, left, right = self._region
        return (..., slice(top, bottom), slice(left, right))

    def _sides(self) -> tuple[int, ...]:
        """Return the numbers of rows and columns of the region of the spectra."""
        if self._region is None:
            return self._grid or (0, 0)
        top, bottom, left, right = self._region
        return bottom - top, right - left

    def _wavelengths(self) -> tuple[float, ...]:
        """Return the wavelength of each ring in pixels, longest first."""
        longest = max(self._sides())
        return tuple(longest / ring for ring in range(1, longest // 2 + 1))

    def _fine(self) -> NDArray[np.bool_]:
        return np.array(self._wavelengths()) < FINE_WAVELENGTH

    def _check_grid(self, grid: tuple[int, ...]) -> None:
        if self._grid not in (None, grid):
            raise ValueError(f"frames of {grid} pixels after frames of {self._grid}")
        self._grid = grid


class Rings(NamedTuple):
    """The coefficients of a grid's half spectrum, sorted by ring."""

    order: NDArray[np.int64]
    """flat indices of the coefficients, sorted by ring"""
    starts: NDArray[np.int64]
    """index into `order` of each ring's first coefficient"""
    weights: Field
    """weight of each coefficient in the mean over its ring"""


def ring_power(frames: Field) -> Field:
    """Return the radially averaged power spectral density: (..., H, W) -> (..., max(H, W) // 2).

    Entry k - 1 is the mean of |FFT|^2 / (H * W) over wavenumbers that round to k / max(H, W)
    cycles per pixel.
    """
    height, width = frames.shape[-2:]
    rings = _rings(height, width)
    spectrum = np.fft.rfft2(frames)
    power = (spectrum.real**2 + spectrum.imag**2) / (height * width)
    sorted_power = power.reshape(*frames.shape[:-2], -1)[..., rings.order] * rings.weights
    return np.add.reduceat(sorted_power, rings.starts, axis=-1)


@cache
def _rings(height: int, width: int) -> Rings:
    longest = max(height, width)
    if longest < 2:
        raise ValueError(f"a grid of {height} x {width} pixels has no spectrum")
    down, along = np.fft.fftfreq(height) * longest, np.fft.rfftfreq(width) * longest
    ring = np.sqrt(down[:, None] ** 2 + along**2).round().astype(np.int64)
    # rfft2 stores half of the spectrum: every coefficient stands for itself and its mirror image,
    # except in the first column and, for an even width, the last.
    mirrored = np.full(ring.shape, 2.0)
    mirrored[:, 0] = 1.0
    if width % 2 == 0:
        mirrored[:, -1] = 1.0
    flat = ring.ravel()
    order = np.argsort(flat, kind="stable")
    order = order[(flat[order] >= 1) & (flat[order] <= longest // 2)]
    members = flat[order]
    share = mirrored.ravel()[order]
    total = np.bincount(members, share)
    starts = np.searchsorted(members, np.arange(1, longest // 2 + 1))
    return Rings(order, starts, share / total[members])
