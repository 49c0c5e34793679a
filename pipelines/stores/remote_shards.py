"""Runs of frames out of the shards of an object store, with as few requests as there can be.

A shard holds its chunks one after the other in order of time, so that a run of frames is one range
of its bytes. The index at its end is asked for once and kept; from then on a run costs one request,
where a general Zarr reader makes one a chunk and one more for the index.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.storage import places

if TYPE_CHECKING:
    import zarr

_INDEXES = 4096
"""Indexes that are kept, of about a kilobyte each: a store may have millions of shards."""
_ABSENT = np.uint64(2**64 - 1)
_CHECKSUM_BYTES = 4


class StaleIndexError(ValueError):
    """The bytes at a place are not the chunk that the index puts there."""


class RemoteShards:
    """The shards of one array; safe to use from several threads.

    Made by :func:`remote_shards`, for arrays of the layout that this platform writes
    (:mod:`pipelines.stores.shards`).
    """

    def __init__(self, uri: str, array: zarr.Array[Any], chunk: int, shard: int):
        self._uri, self._chunk, self._shard = uri, chunk, shard
        self._encode_key = array.metadata.encode_chunk_key
        self._rest = array.shape[1:]
        self._dtype, self._fill = array.dtype, array.fill_value
        self._chunk_bytes = chunk * int(np.prod(self._rest)) * array.dtype.itemsize
        self._indexes: OrderedDict[int, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, first: int, last: int, out: np.ndarray) -> None:
        """Fill ``out``, (last - first, ...), with entries [first, last) of the leading axis.

        What no shard holds is the fill value.

        Raises
        ------
        StorageError, UsageError
            The storage fails or refuses.
        ValueError
            A shard or its index is damaged.
        """
        for shard in range(first // self._shard, -(-last // self._shard)):
            head = shard * self._shard
            begin, end = max(first, head), min(last, head + self._shard)
            part = out[begin - first : end - first]
            try:
                self._read(shard, begin - head, end - head, part)
            except StaleIndexError:
                # The shard was rewritten since its index was read: an append, or a repaired file.
                with self._lock:
                    self._indexes.pop(shard, None)
                self._read(shard, begin - head, end - head, part)

    def _read(self, shard: int, first: int, last: int, out: np.ndarray) -> None:
        try:
            index = self._index(shard)
        except FileNotFoundError:
            out[...] = self._fill
            return
        chunks = range(first // self._chunk, -(-last // self._chunk))
        for run in _runs(index, chunks):
            offset = int(index[run[0], 0])
            data = memoryview(
                places.read_range(self._place(shard), offset, int(index[run[-1]].sum()))
                if offset != _ABSENT
                else b""
            )
            for chunk in run:
                begin = max(chunk * self._chunk, first)
                end = min((chunk + 1) * self._chunk, last)
                part = out[begin - first : end - first]
                if offset == _ABSENT:
                    part[...] = self._fill
                    continue
                at = int(index[chunk, 0]) - offset
                inside = slice(begin - chunk * self._chunk, end - chunk * self._chunk)
                self._decode(data[at : at + int(index[chunk, 1])], inside, part)

    def _decode(self, data: memoryview, inside: slice, out: np.ndarray) -> None:
        from numcodecs import blosc  # pyright: ignore[reportAttributeAccessIssue]

        # Blosc's own header: decoded bytes at 4, encoded bytes at 12.
        sizes = np.frombuffer(data[:16], "<u4") if len(data) >= 16 else (0, 0, 0, 0)
        if int(sizes[1]) != self._chunk_bytes or int(sizes[3]) != len(data):
            raise StaleIndexError("a chunk has not the size that its shard's index says")
        if out.nbytes == self._chunk_bytes and out.flags.c_contiguous:
            blosc.decompress(data, out)
        else:
            frames = np.empty((self._chunk, *self._rest), self._dtype)
            blosc.decompress(data, frames)
            out[...] = frames[inside]

    def _index(self, shard: int) -> np.ndarray:
        """(chunks, 2) uint64: offset and length of each chunk."""
        with self._lock:
            if shard in self._indexes:
                self._indexes.move_to_end(shard)
                return self._indexes[shard]
        index = self._fetch_index(shard)
        with self._lock:
            self._indexes[shard] = index
            if len(self._indexes) > _INDEXES:
                self._indexes.popitem(last=False)
        return index

    def _fetch_index(self, shard: int) -> np.ndarray:
        import google_crc32c

        size = self._shard // self._chunk * 16
        data = places.read_range(self._place(shard), -(size + _CHECKSUM_BYTES))
        content, checksum = data[:size], data[size:]
        if google_crc32c.value(content).to_bytes(_CHECKSUM_BYTES, "little") != checksum:
            raise ValueError(f"the index of {self._place(shard)} is damaged")
        return np.frombuffer(content, "<u8").reshape(-1, 2)

    def _place(self, shard: int) -> str:
        key = self._encode_key((shard, *(0 for _ in self._rest)))
        return places.join(self._uri, *key.split("/"))


def remote_shards(store_uri: str, name: str, array: zarr.Array[Any]) -> RemoteShards | None:
    """The reader of an array on an object store; None for a local one or another layout."""
    from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, ShardingCodec
    from zarr.codecs.sharding import ShardingCodecIndexLocation

    if places.is_local(store_uri) or array.shards is None:
        return None
    [sharding] = array.metadata.codecs  # pyright: ignore[reportAttributeAccessIssue]
    if not isinstance(sharding, ShardingCodec):
        return None
    layout = [type(codec) for codec in (*sharding.codecs, *sharding.index_codecs)]
    served = (
        layout == [BytesCodec, BloscCodec, BytesCodec, Crc32cCodec]
        and sharding.index_location == ShardingCodecIndexLocation.end
        and array.dtype.byteorder in "=<|"
        and array.chunks[1:] == array.shards[1:] == array.shape[1:]
    )
    if not served:
        return None
    return RemoteShards(places.join(store_uri, name), array, array.chunks[0], array.shards[0])


def _runs(index: np.ndarray, chunks: range) -> Iterator[list[int]]:
    """Chunks that lie end to end in the shard, or are absent, together."""
    run: list[int] = []
    for chunk in chunks:
        if run:
            before, here = index[run[-1]], index[chunk]
            absent = before[0] == _ABSENT
            together = here[0] == _ABSENT if absent else before.sum() == here[0]
            if not together:
                yield run
                run = []
        run.append(chunk)
    if run:
        yield run
