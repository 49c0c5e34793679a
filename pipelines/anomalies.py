"""Frames that look wrong by their moments in the ledger, without reading a value.

These are warnings: a storm may be real, and so may a calm night. What is looked for: a mean far
from those of the other frames, a field that stands still, a field of one value where such fields
are rare, and many more missing pixels than usual.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.runs import true_runs
from pipelines.statistics import COUNT, MAX, MIN, NANS, SQUARES, SUM

FAR_SIGMAS = 8.0
"""standard deviations of the frames' means; at least :data:`LEAST_FRAMES` make a climate"""
LEAST_FRAMES = 100
REPEATS = 3
"""frames in a row with the same values, and not of one value everywhere"""
STATIC = 0.5
"""of the frames: a field that stands still for more of them is not meant to change"""
RARE = 0.01
"""of the frames: fields of one value are told where there are fewer"""
MORE_MISSING = 0.25
"""of the pixels, beyond what is usual"""


@dataclass(frozen=True)
class Anomaly:
    """A run of frames of one variable, or of one of its channels, that look wrong."""

    kind: str
    """unlikely mean, repeated, constant or missing pixels"""
    variable: str
    channel: int
    """of the extra dimensions flattened"""
    first: str
    last: str
    """first and last frame, as people read them"""
    frames: int
    detail: str


def find_anomalies(
    variable: str, moments: np.ndarray, label: Callable[[int], str] = str
) -> list[Anomaly]:
    """What looks wrong in float64 moments ``(frames, channels, 6)`` of a whole time axis.

    Parameters
    ----------
    label:
        What a frame is called: its time, for example.
    """
    found = []
    for channel in range(moments.shape[1]):
        table = moments[:, channel]
        for kind, wrong, detail in _checks(table):
            found += [
                Anomaly(kind, variable, channel, label(first), label(last), frames, detail(first))
                for first, last, frames in true_runs(wrong)
            ]
    return found


_Check = tuple[str, np.ndarray, Callable[[int], str]]


def _checks(table: np.ndarray) -> Sequence[_Check]:
    count = table[:, COUNT]
    held = count > 0
    if held.sum() < 2:
        return ()
    means = np.full(len(table), np.nan)
    np.divide(table[:, SUM], count, out=means, where=held)
    return (
        _unlikely(means, held),
        _repeated(table, held),
        _constant(table, held),
        _missing(table, held),
    )


def _unlikely(means: np.ndarray, held: np.ndarray) -> _Check:
    # Infinite values are flagged in the store already, and would hide all else here.
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


def _repeated(table: np.ndarray, held: np.ndarray) -> _Check:
    varied = held & (table[:, MIN] < table[:, MAX]) & (table[:, SQUARES] > 0)
    same = np.zeros(len(table), bool)
    same[1:] = (table[1:] == table[:-1]).all(axis=1) & varied[1:]
    stuck = np.zeros(len(table), bool)
    for first, last, frames in true_runs(same):
        if frames + 1 >= REPEATS:
            stuck[first - 1 : last + 1] = True
    if stuck.sum() > STATIC * held.sum():
        stuck[:] = False
    return "repeated", stuck, lambda frame: "frame after frame with the same values"


def _constant(table: np.ndarray, held: np.ndarray) -> _Check:
    constant = held & (table[:, MIN] == table[:, MAX]) & (table[:, COUNT] > 1)
    if constant.sum() > RARE * held.sum():
        constant[:] = False
    return "constant", constant, lambda frame: f"every pixel is {table[frame, MIN]:.6g}"


def _missing(table: np.ndarray, held: np.ndarray) -> _Check:
    share = table[:, NANS] / np.maximum(table[:, NANS] + table[:, COUNT], 1)
    usual = float(np.median(share[held]))
    more = held & (share > usual + MORE_MISSING)
    return (
        "missing pixels",
        more,
        lambda frame: f"{100 * share[frame]:.0f} % of the pixels, usually {100 * usual:.0f} %",
    )
