"""The windows of a store as a Ray dataset, for maps over windows: features, scores, exports.

Each row is a window, so that a frame is in memory once per window that contains it. A training
reads each frame once and cuts windows at the consumer instead: `pipelines.stream.window_stream`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.errors import UsageError
from pipelines.stores.store import Store, open_store
from pipelines.stream.window_stream import read_batches
from pipelines.stream.windows import WindowSpec, split_starts

if TYPE_CHECKING:
    import ray.data

    from pipelines.inputs.normalisation import Normalisation

BLOCK_BYTES = 32 * 2**20


def read_windows(
    store: Store | str,
    variables: Sequence[str] | None = None,
    *,
    input_frames: int = 12,
    horizon: int = 12,
    stride: int = 1,
    split: str = "train",
    normalisation: Normalisation | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> ray.data.Dataset:
    """Return the windows of a split, in order of time if the dataset preserves order.

    Parameters
    ----------
    store:
        A store or its URI.
    variables:
        Names in channel order; None: all variables of the store.
    input_frames, horizon, stride:
        As in `WindowSpec`.
    split:
        `train`, `validation` or `test`.
    normalisation:
        Turns physical values into a model's inputs. None: physical units, missing pixels NaN.
    block_bytes:
        Approximate size of the windows that one task returns.

    Returns
    -------
    Dataset
        Each row has `frames` (T, C, H, W) float32, `time` of the first frame (datetime64[ns]) and
        `start`, its index in the store. Ray Data starts Ray if it is not running.

    Raises
    ------
    StoreError
        The store is incomplete.
    UsageError
        A variable or the split is missing in the store, or no window fits.

    Examples
    --------
    >>> windows = read_windows("s3://bucket/t2m.zarr", split="test")  # doctest: +SKIP
    >>> windows.map_batches(my_features).write_parquet("s3://bucket/f")  # doctest: +SKIP
    """
    import ray.data

    if block_bytes < 1:
        raise UsageError(f"block_bytes must be at least 1, not {block_bytes}")
    opened = open_store(store) if isinstance(store, str) else store
    names = tuple(variables or opened.variables)
    spec = WindowSpec(input_frames, horizon, stride)
    starts = split_starts(opened, split, spec)
    total_bytes = len(starts) * _window_bytes(opened, names, spec)
    tasks = min(max(-(-total_bytes // block_bytes), 1), len(starts))
    cut = _Cut(opened, names, spec, tuple(np.array_split(starts, tasks)), normalisation)
    dataset = ray.data.range(tasks, override_num_blocks=tasks)
    return dataset.map_batches(cut, batch_size=1, batch_format="numpy", zero_copy_batch=True)


def _window_bytes(store: Store, variables: Sequence[str], spec: WindowSpec) -> int:
    channels = sum(len(store.variable(name).channel_labels) for name in variables)
    return 4 * spec.frames * channels * int(np.prod(store.spatial_shape))


@dataclass(frozen=True, eq=False)
class _Cut:
    """Cuts the windows of one part, given its number."""

    store: Store
    variables: tuple[str, ...]
    spec: WindowSpec
    parts: tuple[np.ndarray, ...]
    normalisation: Normalisation | None

    def __call__(self, row: Any) -> dict[str, np.ndarray]:
        starts = self.parts[int(row["id"][0])]
        [(_, frames_btchw)] = read_batches(
            self.store, self.variables, self.spec, starts, len(starts)
        )
        if self.normalisation is not None:
            times = self.store.times[self.spec.frames_of(starts)]
            self.normalisation.inputs(frames_btchw, times, out=frames_btchw)
        return {"frames": frames_btchw, "time": self.store.times[starts], "start": starts}
