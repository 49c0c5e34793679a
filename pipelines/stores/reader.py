"""Runs of frames out of a store, as float32 with the variables' extra dimensions as channels."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from pipelines.errors import PlatformError, StoreError, UsageError
from pipelines.storage import places
from pipelines.storage.retry import STORAGE_WAIT_SECONDS, Retry
from pipelines.stores.lost_shards import check_not_lost, describe_frames
from pipelines.stores.remote_shards import RemoteShards, remote_shards

if TYPE_CHECKING:
    import zarr

    from pipelines.inputs.normalisation import Normalisation
    from pipelines.stores.store import Store

# Frames that are normalised at a time: small enough to stay in a core's cache.
_BLOCK_BYTES = 512 * 1024
_log = logging.getLogger(__name__)


class FrameReader:
    """Reads frames of one store; safe to use from several threads.

    Parameters
    ----------
    variables:
        Names in channel order; a variable with extra dimensions gives one channel an entry.
    normalisation:
        Of what is read, as a model is given it. None: physical units, NaN kept.
    storage_wait:
        Seconds that an object storage may be away before a read fails.
    """

    def __init__(
        self,
        store: Store,
        variables: Sequence[str],
        normalisation: Normalisation | None = None,
        storage_wait: float = STORAGE_WAIT_SECONDS,
    ):
        for name in variables:
            store.variable(name)
        self.store, self.variables, self.normalisation = store, tuple(variables), normalisation
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
        """(C, H, W)."""
        if normalisation is not None and len(normalisation.labels) != self.frame_shape[0]:
            raise UsageError(
                f"the normalisation has {len(normalisation.labels)} channels "
                f"({', '.join(normalisation.labels)}) and the variables {self.frame_shape[0]}",
                where=store.uri,
                remedy="name the variables that the model was trained on, in their order",
            )
        self.chunk_frames = max(store.variables[name].chunk_frames for name in variables)
        """Frames in a chunk."""
        self.frame_bytes = int(np.prod(self.frame_shape)) * 4
        """Bytes of a frame of all channels in float32."""
        self.remote = not places.is_local(store.uri)
        """Whether reads wait for an object storage rather than for a disk."""
        self._retry = Retry(storage_wait if self.remote else 0.0, _log.warning)

    def read(self, first: int, last: int, out_tchw: np.ndarray) -> None:
        """Read frames [first, last) into ``out_tchw``, (last - first, C, H, W) float32.

        Raises
        ------
        StoreError
            A chunk cannot be read, or a variable holds nothing in frames that the store calls
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
            except Exception as error:
                raise StoreError(
                    f"cannot read '{name}': {type(error).__name__}: {error}",
                    where=describe_frames(self.store, name, first, last),
                    remedy=self.store.convert_command("--repair"),
                ) from error
            check_not_lost(self.store, name, np.arange(first, last), part)
            channel += channels
        if self.normalisation is not None:
            self._normalise(out_tchw, self.normalisation, self.store.times[first:last])

    def _normalise(
        self, x_tchw: np.ndarray, normalisation: Normalisation, times: np.ndarray
    ) -> None:
        block = max(_BLOCK_BYTES // self.frame_bytes, 1)
        for begin in range(0, len(x_tchw), block):
            part = x_tchw[begin : begin + block]
            normalisation.inputs(part, times[begin : begin + block], out=part)


def open_array(store: Store, name: str) -> zarr.Array[Any]:
    """The variable's array, decoded by the compiled ``zarrs`` pipeline where that serves it."""
    import zarr

    if importlib.util.find_spec("zarrs") is None:
        return store.array(name)
    # The pipeline is chosen when an array is opened; nothing else in the process changes.
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
    """Frames [first, last); an array of clips is read as the whole clips that hold them."""
    begin, end = first // clip, -(-last // clip)
    shape = (end - begin, *array.shape[1:])
    whole = begin * clip == first and end * clip == last
    if whole and out_tchw.flags.c_contiguous and array.dtype == out_tchw.dtype:
        # The decoder writes into the caller's memory: no fresh pages, no second copy.
        _read_entries(array, remote, begin, end, out_tchw.reshape(shape))
        return
    entries = np.empty(shape, array.dtype)
    _read_entries(array, remote, begin, end, entries)
    frames_tchw = entries.reshape(-1, *out_tchw.shape[1:])
    out_tchw[...] = frames_tchw[first - begin * clip : last - begin * clip]


def _read_entries(
    array: zarr.Array[Any], remote: RemoteShards | None, begin: int, end: int, out: np.ndarray
) -> None:
    """Entries [begin, end) of the leading axis into C-contiguous memory of their shape."""
    from zarr.core.buffer import NDArrayLike, default_buffer_prototype

    if remote is not None:
        remote.read(begin, end, out)
        return
    target = default_buffer_prototype().nd_buffer.from_ndarray_like(cast(NDArrayLike, out))
    array.get_basic_selection((slice(begin, end),), out=target)
