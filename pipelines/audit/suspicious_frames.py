"""Find frames that look wrong by their moments in the ledger, without reading values.

Four things are looked for: a mean far from the means of the other frames, a field that stands
still, a field of one value where such fields are rare, and many more missing pixels than usual. The
findings are warnings: a storm may be real, and so may a calm night.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.stores.moments import COUNT, MAX, MIN, NANS, SQUARES, SUM, Moments, blocks
from pipelines.timeline.intervals import true_runs

FAR_SIGMAS = 8.0
"""Standard deviations of the frames' means between an unlikely mean and the mean of all."""
LEAST_FRAMES = 100
"""Fewer frames do not say what is usual."""
REPEATS = 3
"""Frames in a row with the same values, which are not the same everywhere, that are suspicious."""
STATIC = 0.5
"""A field that stands still in more than this fraction of its frames is not meant to change."""
RARE = 0.01
"""Fields of one value are suspicious if at most this fraction of the frames is like that."""
MORE_MISSING = 0.25
"""Fraction of missing pixels, beyond the median fraction, that is suspicious."""


@dataclass(frozen=True)
class SuspiciousFrames:
    """Frames in a row, of one channel of a variable, that look wrong."""

    kind: str
    """unlikely mean, repeated, constant, missing pixels or no values"""
    variable: str
    """name of the variable"""
    channel: int
    """number of the channel: the variable's extra dimensions flattened"""
    first: str
    """name of the first frame: its time, for example"""
    last: str
    """name of the last frame"""
    frames: int
    """number of frames"""
    detail: str
    """what looks wrong, with its numbers"""


def find_suspicious_frames(
    variable: str, moments: Moments, frames: int, label: Callable[[int], str] = str
) -> list[SuspiciousFrames]:
    """Return what looks wrong in the moments of all frames of a variable.

    Parameters
    ----------
    frames:
        Number of frames.
    label:
        Names a frame: its time, for example.
    """
    found = []
    for channel in range(moments.channels):
        for kind, wrong, detail in _checks(_traits(moments, frames, channel)):
            found += [
                SuspiciousFrames(
                    kind, variable, channel, label(first), label(last), count, detail(first)
                )
                for first, last, count in true_runs(wrong)
            ]
    return found


@dataclass(frozen=True, eq=False)
class _Traits:
    """What the checks need of every frame: less than half the size of its moments."""

    held: np.ndarray
    """bool (n,): whether some pixel has a value"""
    means: np.ndarray
    """float64 (n,): mean of the frame; NaN if no pixel has a value"""
    missing: np.ndarray
    """float64 (n,): fraction of pixels without a value"""
    repeated: np.ndarray
    """bool (n,): whether the values are those of the frame before, and not all the same"""
    constant: np.ndarray
    """bool (n,): whether all values are the same"""
    value: Callable[[int], float]
    """returns the smallest value of a frame"""


def _traits(moments: Moments, frames: int, channel: int) -> _Traits:
    means, missing = np.full(frames, np.nan), np.empty(frames)
    held, repeated, constant = (np.zeros(frames, bool) for _ in range(3))
    before = np.full((1, 6), np.nan)
    for part, block in blocks(moments, 0, frames):
        table = block[:, channel]
        count, low, high = table[:, COUNT], table[:, MIN], table[:, MAX]
        held[part] = has = count > 0
        np.divide(table[:, SUM], count, out=means[part], where=has)
        missing[part] = table[:, NANS] / np.maximum(table[:, NANS] + count, 1)
        same = (table == np.concatenate([before, table[:-1]])).all(axis=1)
        repeated[part] = same & has & (low < high) & (table[:, SQUARES] > 0)
        constant[part] = has & (low == high) & (count > 1)
        before = table[-1:].copy()
    return _Traits(
        held,
        means,
        missing,
        repeated,
        constant,
        lambda frame: float(moments.read(frame, frame + 1)[0, channel, MIN]),
    )


_Check = tuple[str, np.ndarray, Callable[[int], str]]


def _checks(traits: _Traits) -> Sequence[_Check]:
    if not traits.held.any():
        return (("no values", ~traits.held, lambda frame: "no frame holds a value"),)
    if traits.held.sum() < 2:
        return ()
    return (
        _unlikely(traits.means, traits.held),
        _repeated(traits),
        _constant(traits),
        _missing(traits),
    )


def _unlikely(means: np.ndarray, held: np.ndarray) -> _Check:
    # Infinite values are flagged in the store already; here they would make the spread infinite.
    finite = held & np.isfinite(means)
    centre = float(np.mean(means[finite])) if finite.any() else 0.0
    spread = float(np.std(means[finite])) if finite.any() else 0.0
    with np.errstate(invalid="ignore"):
        far = finite & (np.abs(means - centre) > FAR_SIGMAS * spread)
    if finite.sum() < LEAST_FRAMES or spread == 0.0:
        far[:] = False
    return (
        "unlikely mean",
        far,
        lambda frame: (
            f"mean {means[frame]:.4g}, {abs(means[frame] - centre) / spread:.1f} standard "
            f"deviations from {centre:.4g}"
        ),
    )


def _repeated(traits: _Traits) -> _Check:
    stuck = np.zeros(len(traits.held), bool)
    for first, last, frames in true_runs(traits.repeated):
        if frames + 1 >= REPEATS:
            stuck[first - 1 : last + 1] = True
    if stuck.sum() > STATIC * traits.held.sum():
        stuck[:] = False
    return "repeated", stuck, lambda frame: "frame after frame with the same values"


def _constant(traits: _Traits) -> _Check:
    constant = traits.constant
    if constant.sum() > RARE * traits.held.sum():
        constant = np.zeros(len(constant), bool)
    return "constant", constant, lambda frame: f"every pixel is {traits.value(frame):.6g}"


def _missing(traits: _Traits) -> _Check:
    share = traits.missing
    usual = float(np.median(share[traits.held]))
    more = traits.held & (share > usual + MORE_MISSING)
    return (
        "missing pixels",
        more,
        lambda frame: f"{100 * share[frame]:.0f} % of the pixels, usually {100 * usual:.0f} %",
    )
