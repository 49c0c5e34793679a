"""Read frames of a store as float32, in physical units, with extra dimensions as channels."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from pipelines.cf import OK
from pipelines.errors import PlatformError, StoreError, UsageError
from pipelines.storage import places
from pipelines.storage.retry import STORAGE_WAIT_SECONDS, Retry
from pipelines.stores.shards import RemoteShards, object_name, remote_shards

if TYPE_CHECKING:
    import zarr

    from pipelines.stores.store import Store

_log = logging.getLogger(__name__)
_NAMED_SHARDS = 3
"""shards that an error names"""


class FrameReader:
    """A reader of frames of one store; safe to use from several threads.

    `pipelines.inputs.normalisation.NormalisedReader` wraps it to give what a model reads.

    Parameters
    ----------
    variables
        Names in channel order. A variable with extra dimensions gives one channel per entry.
    storage_wait
        Seconds that an object storage may be away before a read fails.

    Examples
    --------
    >>> reader = FrameReader(store, ("t2m",))  # doctest: +SKIP
    >>> frames_tchw = np.empty((24, *reader.frame_shape), np.float32)  # doctest: +SKIP
    >>> reader.read(0, 24, frames_tchw)  # doctest: +SKIP
    """

    def __init__(
        self,
        store: Store,
        variables: Sequence[str],
        storage_wait: float = STORAGE_WAIT_SECONDS,
    ):
        for name in variables:
            store.variable(name)
        self.store, self.variables = store, tuple(variables)
        self._arrays = [open_array(store, name) for name in variables]
        self._remote = [
            remote_shards(store.uri, name, array)
            for name, array in zip(variables, self._arrays, strict=True)
        ]
        shapes = {array.shape[-2:] for array in self._arrays}
        if len(shapes) != 1:
            raise UsageError(
                f"the variables do not share one grid: {', '.join(map(str, sorted(shapes)))}",
                where=store.uri,
                remedy="choose variables of one grid",
            )
        infos = [store.variables[name] for name in variables]
        self._channels = [int(np.prod(info.extra_shape)) for info in infos]
        self._clip_frames = store.clips.frames if store.clips is not None else 1
        height, width = shapes.pop()
        self.frame_shape: tuple[int, int, int] = (sum(self._channels), height, width)
        """(C, H, W)"""
        self.chunk_frames = max(info.chunk_frames for info in infos)
        """frames per chunk, of the variable with the longest chunks"""
        self.frame_bytes = int(np.prod(self.frame_shape)) * 4
        """bytes of one frame of all channels in float32"""
        self.remote = not places.is_local(store.uri)
        """whether reads wait for an object storage rather than for a disk"""
        self._retry = Retry(storage_wait if self.remote else 0.0, _log.warning)

    def read(self, first: int, last: int, out_tchw: np.ndarray) -> None:
        """Read frames [first, last) into `out_tchw`, (last - first, C, H, W) float32.

        Values are in physical units. A missing pixel is NaN.

        Raises
        ------
        StoreError
            A chunk cannot be read, or a variable has no value in a frame that the store calls
            available.
        """
        channel = 0
        for name, array, remote, channels in zip(
            self.variables, self._arrays, self._remote, self._channels, strict=True
        ):
            part = out_tchw[:, channel : channel + channels]
            read = partial(_read_into, array, remote, first, last, part, self._clip_frames)
            try:
                self._retry(f"reading '{name}' of {self.store.uri}", read)
            except PlatformError:
                raise
            except Exception as error:  # each codec has errors of its own
                raise StoreError(
                    f"cannot read '{name}': {type(error).__name__}: {error}",
                    where=describe_frames(self.store, name, first, last),
                    remedy=self.store.convert_command("--repair"),
                ) from error
            check_not_lost(self.store, name, np.arange(first, last), part)
            channel += channels


def open_array(store: Store, name: str) -> zarr.Array[Any]:
    """Return the array of a variable, decoded by the compiled `zarrs` pipeline where it can be."""
    import zarr

    if importlib.util.find_spec("zarrs") is None:
        return store.array(name)
    # An array keeps the pipeline that was configured when it was opened. The setting ends with the
    # block, so that other arrays of the process are not affected.
    with (
        zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message=".*unsupported by ZarrsCodecPipeline.*")
        try:
            return store.array(name)
        except (TypeError, ValueError, NotImplementedError):
            pass
    return store.array(name)


def _read_into(
    array: zarr.Array[Any],
    remote: RemoteShards | None,
    first: int,
    last: int,
    out_tchw: np.ndarray,
    clip: int,
) -> None:
    """Read frames [first, last). An array of clips is read in whole clips."""
    begin, end = first // clip, -(-last // clip)
    shape = (end - begin, *array.shape[1:])
    whole = begin * clip == first and end * clip == last
    if whole and out_tchw.flags.c_contiguous and array.dtype == out_tchw.dtype:
        # The decoder writes into the caller's memory: no new pages and no second copy.
        _read_entries(array, remote, begin, end, out_tchw.reshape(shape))
        return
    entries = np.empty(shape, array.dtype)
    _read_entries(array, remote, begin, end, entries)
    frames_tchw = entries.reshape(-1, *out_tchw.shape[1:])
    out_tchw[...] = frames_tchw[first - begin * clip : last - begin * clip]


def _read_entries(
    array: zarr.Array[Any], remote: RemoteShards | None, begin: int, end: int, out: np.ndarray
) -> None:
    """Read entries [begin, end) of the leading axis into C-contiguous memory of their shape."""
    from zarr.core.buffer import NDArrayLike, default_buffer_prototype

    if remote is not None:
        remote.read(begin, end, out)
        return
    target = default_buffer_prototype().nd_buffer.from_ndarray_like(cast(NDArrayLike, out))
    array.get_basic_selection((slice(begin, end),), out=target)


def check_not_lost(store: Store, name: str, frames: np.ndarray, values: np.ndarray) -> None:
    """Raise StoreError if a frame that the store calls available has no value.

    The shard of such a frame is lost: Zarr reads fill values for a missing object. Nobody would
    notice, for the frame would train as the mean, score as pixels that nobody observed, and drop
    out of a climatology. (A variable without any value in the train period is not checked.)

    Parameters
    ----------
    frames
        int64 (n,): indices of the frames in the store.
    values
        (n, ..., H, W): their values as read. NaN is missing.
    """
    if not store.statistics["variables"][name]["count"]:
        return
    corner, middle = (0,) * (values.ndim - 1), tuple(size // 2 for size in values.shape[1:])
    # Most frames have a value at one of two pixels, which saves looking at all of them.
    suspect = np.isnan(values[:, *corner]) & np.isnan(values[:, *middle])
    if not suspect.any():
        return
    suspect &= store.available[frames] == OK
    lost = [row for row in np.flatnonzero(suspect).tolist() if np.isnan(values[row]).all()]
    if lost:
        raise StoreError(
            f"{len(lost)} frames that the store calls available hold no value",
            where=describe_frames(store, name, int(frames[lost[0]]), int(frames[lost[-1]]) + 1),
            remedy=store.convert_command("--repair"),
        )


def describe_frames(store: Store, name: str, first: int, last: int) -> str:
    """Return a text that names frames [first, last) of a variable and the shards that hold them."""
    info = store.variables[name]
    shards = range(first // info.shard_frames, (last - 1) // info.shard_frames + 1)
    objects = [object_name(name, shard, len(info.dims)) for shard in shards[:_NAMED_SHARDS]]
    left = len(shards) - _NAMED_SHARDS
    more = f" and {left} more" if left > 0 else ""
    return (
        f"{store.uri}, {name}, frames {first} to {last - 1} (from {store.label(first)}), "
        f"in {', '.join(objects)}{more}"
    )
