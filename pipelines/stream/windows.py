"""Find the windows of a store: frames in a row without gaps, inside one split. Pure functions.

A window has `input_frames` frames that a model is given and `horizon` frames that it predicts,
`stride` frames apart. It contains no frame that is not available and never crosses a jump in time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from pipelines.errors import UsageError, nearest

if TYPE_CHECKING:
    from pipelines.stores.store import Store
    from pipelines.timeline.clips import Clips

Counting = Literal["every", "openstl"]


@dataclass(frozen=True)
class WindowSpec:
    """The shape of a window in time.

    >>> WindowSpec(12, 12, stride=2).span
    47
    """

    input_frames: int
    """Frames that the model is given."""
    horizon: int
    """Frames that it predicts."""
    stride: int = 1
    """Steps of the store's cadence from one frame of the window to the next."""

    def __post_init__(self) -> None:
        for name in ("input_frames", "horizon", "stride"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, not {getattr(self, name)}")

    @property
    def frames(self) -> int:
        """Frames in a window: `input_frames + horizon`."""
        return self.input_frames + self.horizon

    @property
    def span(self) -> int:
        """Frames of the store from the first of a window to its last, both included."""
        return (self.frames - 1) * self.stride + 1

    def frames_of(self, starts: np.ndarray) -> np.ndarray:
        """Return the frames of the store in the windows at `starts`: (n, frames) int64.

        >>> WindowSpec(2, 1, stride=2).frames_of(np.array([5]))
        array([[5, 7, 9]])
        """
        return np.asarray(starts, np.int64)[:, None] + np.arange(self.frames) * self.stride


def window_starts(
    times: np.ndarray,
    available: np.ndarray,
    cadence: np.timedelta64,
    spec: WindowSpec,
    first: np.datetime64 | str | None = None,
    last: np.datetime64 | str | None = None,
    embargo_frames: int = 0,
) -> np.ndarray:
    """Return the first frames of all windows inside a period that touch no gap.

    Parameters
    ----------
    times:
        (T,) datetime64, ascending.
    available:
        (T,) uint8; 0 marks a frame that can be used.
    cadence:
        The time from one frame to the next.
    first, last:
        The period, inclusive; all frames of every window are inside. None: no limit.
    embargo_frames:
        Frames at the beginning of the period that no window may contain.

    Returns
    -------
    (n,) int64, ascending: indices into `times`.

    Examples
    --------
    >>> times = np.arange("2020-01-01T00", "2020-01-01T06", dtype="datetime64[h]")
    >>> available = np.array([0, 0, 0, 1, 0, 0], "u1")
    >>> window_starts(times, available, np.timedelta64(1, "h"), WindowSpec(1, 1))
    array([0, 1, 4])
    """
    begin = 0 if first is None else int(np.searchsorted(times, _instant(first), side="left"))
    end = len(times) if last is None else int(np.searchsorted(times, _instant(last), side="right"))
    begin += embargo_frames
    starts = np.arange(begin, end - spec.span + 1, dtype=np.int64)
    if not len(starts):
        return starts
    jumps = np.concatenate([[0], np.cumsum(np.diff(times) != cadence)])
    valid = jumps[starts + spec.span - 1] == jumps[starts]
    usable = available == 0
    for offset in range(0, spec.span, spec.stride):
        valid &= usable[starts + offset]
    return starts[valid]


def split_starts(
    store: Store, split: str, spec: WindowSpec, counting: Counting = "every"
) -> np.ndarray:
    """Return the first frames of the windows of one split of a store.

    Parameters
    ----------
    split:
        A name in `store.splits`, such as `train`, `validation` or `test`.
    counting:
        `every`: every window that fits. `openstl`: as the papers count, who leave out the last two
        windows of a series (`range(input_frames - 1, frames - 1 - horizon - 1)` over last input
        frames), but none of clips.

    Returns
    -------
    (n,) int64, ascending: indices into `store.times`.

    Raises
    ------
    UsageError
        The split is unknown, or no window fits between its gaps.
    """
    if split not in store.splits:
        raise UsageError(
            f"there is no split '{split}'", where=store.uri, remedy=nearest(split, store.splits)
        )
    first, last = store.splits[split]
    embargo = _embargo_frames(store, split, spec)
    if store.clips is not None and not store.clips.regular:
        store.clips.check_window(spec.frames, spec.stride, store.uri)
        starts = _whole_clips(store, store.clips, split)
    else:
        starts = window_starts(
            store.times, store.available, store.cadence, spec, first, last, embargo
        )
    if counting == "openstl" and store.clips is None:
        starts = starts[:-2]
    if not len(starts):
        raise _no_window(store, split, spec, embargo)
    return starts


def lead_seconds(store: Store, spec: WindowSpec) -> tuple[int, ...]:
    """Return the lead time of each predicted frame after the last input frame: (horizon,).

    In seconds, or in frames for clips without time.
    """
    if store.clips is not None:
        return store.clips.lead_offsets(spec.input_frames, spec.horizon, spec.stride)
    step = int(store.cadence / np.timedelta64(1, "s")) * spec.stride
    return tuple(step * lead for lead in range(1, spec.horizon + 1))


def _embargo_frames(store: Store, split: str, spec: WindowSpec) -> int:
    """Return how many frames at the beginning of a split no window may contain.

    One less than the span of a window, so that no window of the split before shares a frame. A jump
    in time before the split counts as distance.
    """
    if split == "train" or not store.attributes.get("splits_embargo"):
        return 0
    begin = int(np.searchsorted(store.times, store.splits[split][0]))
    jumped = int((store.times[begin] - store.times[begin - 1]) // store.cadence) if begin else 1
    return max(0, spec.span - jumped)


def _whole_clips(store: Store, clips: Clips, split: str) -> np.ndarray:
    """Return the first frames of a split's clips without a missing frame.

    Raises UsageError if all its clips have missing frames.
    """
    heads = np.arange(*clips.frame_range(split), clips.frames, dtype=np.int64)
    whole = (store.available.reshape(-1, clips.frames) == 0).all(axis=1)
    starts = heads[whole[heads // clips.frames]]
    if not len(starts):
        raise UsageError(
            f"no clip of split '{split}' has all its {clips.frames} frames",
            where=f"{store.uri}, {' to '.join(store.period(split))}",
            remedy="fetch the missing source files and convert again; inspect lists the gaps",
        )
    return starts


def longest_run(times: np.ndarray, available: np.ndarray, cadence: np.timedelta64) -> int:
    """Return the longest number of frames in a row without a missing frame or a jump in time.

    >>> times = np.arange("2020-01-01T00", "2020-01-01T06", dtype="datetime64[h]")
    >>> longest_run(times, np.array([0, 1, 0, 0, 0, 1], "u1"), np.timedelta64(1, "h"))
    3
    """
    if not len(times):
        return 0
    follows = np.diff(times) == cadence
    usable = available == 0
    # A run ends before a missing frame and before a jump.
    breaks = np.flatnonzero(~(usable[1:] & usable[:-1] & follows)) + 1
    edges = np.concatenate([[0], breaks, [len(times)]])
    return int(max(np.diff(edges)[usable[edges[:-1]]], default=0))


def _no_window(store: Store, split: str, spec: WindowSpec, embargo: int) -> UsageError:
    first, last = store.splits[split]
    inside = (store.times >= _instant(first)) & (store.times <= _instant(last))
    inside[: int(np.argmax(inside)) + embargo] = False
    run = longest_run(store.times[inside], store.available[inside], store.cadence)
    return UsageError(
        f"no window fits in split '{split}': a window spans {spec.span} frames "
        f"({spec.input_frames} + {spec.horizon} at stride {spec.stride}) and the longest run "
        f"without a gap has {run}",
        where=f"{store.uri}, {' to '.join(store.period(split))}"
        + (f", the first {embargo} frames left out as an embargo" if embargo else ""),
        remedy="lower input_frames, horizon or stride, convert more of the archive, "
        "or give the split a longer period with a splits file (--splits)",
    )


def _instant(time: np.datetime64 | str) -> np.datetime64:
    return np.datetime64(time).astype("datetime64[ns]")
