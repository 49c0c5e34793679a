"""The shard format: encode the shards of an array, and read frames from shards on object storage.

A shard holds whole chunks of frames. Its layout is Zarr's `sharding_indexed` with the index at the
end: the compressed chunks in order of time, then offset and length of each chunk as little-endian
uint64, then the crc32c of that index. A chunk of nothing but NaN is left out.

Encoding is repeatable bit for bit. Reading asks the storage for as little as possible: a run of
frames is one range of a shard's bytes, and the index is read once and kept. From then on a run
costs one request, where a general Zarr reader makes one request per chunk and one for the index.
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

CONVERTER_VERSION = "1"
"""raised when the same source and options give other bytes: older shards are then written again"""
COMPRESSION = {"cname": "lz4", "clevel": 5, "shuffle": "shuffle"}
"""parameters of Blosc, as Zarr's codec takes them"""

_ABSENT = np.uint64(2**64 - 1)
"""offset and length of a chunk that the shard leaves out"""
_CHECKSUM_BYTES = 4
_KEPT_INDEXES = 4096
"""indexes that are kept, of about a kilobyte each: a store may have millions of shards"""


def object_name(variable: str, shard: int, dims: int) -> str:
    """Return the name of a shard in its store.

    Parameters
    ----------
    dims
        Number of dimensions of the array. Shards are counted along the first one only.

    Examples
    --------
    >>> object_name("t2m", 1, dims=3)
    't2m/c/1/0/0'
    """
    return "/".join([variable, "c", str(shard), *["0"] * (dims - 1)])


def blosc_codec() -> Any:
    """Return the codec that compresses chunks, the same bytes every time."""
    from numcodecs import blosc  # pyright: ignore[reportAttributeAccessIssue]

    # With several threads, Blosc places blocks in the order in which the threads finish.
    blosc.use_threads = False
    return blosc.Blosc(
        cname=COMPRESSION["cname"], clevel=COMPRESSION["clevel"], shuffle=blosc.SHUFFLE
    )


class ShardEncoder:
    """An encoder of one shard, which is given the frames in order of time.

    Parameters
    ----------
    frame_shape
        `(*extra, y, x)`.
    chunk_frames, shard_frames
        Frames per chunk and per shard. A shard is a whole number of chunks.
    """

    def __init__(self, frame_shape: tuple[int, ...], chunk_frames: int, shard_frames: int):
        self._codec = blosc_codec()
        self._chunk = np.full((chunk_frames, *frame_shape), np.nan, np.float32)
        self._filled = 0
        self._pieces: list[bytes] = []
        self._index = np.full((shard_frames // chunk_frames, 2), _ABSENT, "<u8")
        self._chunks = 0
        self._bytes = 0

    def add(self, frames: np.ndarray) -> None:
        """Add the next frames, float32 `(n, *extra, y, x)`, C-contiguous."""
        taken, length = 0, len(self._chunk)
        while taken < len(frames):
            if self._filled == 0 and len(frames) - taken >= length:
                self._encode(frames[taken : taken + length])
                taken += length
                continue
            part = min(length - self._filled, len(frames) - taken)
            self._chunk[self._filled : self._filled + part] = frames[taken : taken + part]
            self._filled += part
            taken += part
            if self._filled == length:
                self._encode(self._chunk)
                self._filled = 0

    def finish(self) -> list[bytes]:
        """Return the bytes of the shard in pieces. The last chunk is filled up with NaN."""
        import google_crc32c

        if self._filled:
            self._chunk[self._filled :] = np.nan
            self._encode(self._chunk)
        index = self._index.tobytes()
        checksum = google_crc32c.value(index).to_bytes(_CHECKSUM_BYTES, "little")
        return [*self._pieces, index, checksum]

    def _encode(self, chunk: np.ndarray) -> None:
        # Most chunks have a value at their first pixel, which saves looking at all of them.
        if np.isnan(chunk.flat[0]) and np.isnan(chunk).all():
            self._chunks += 1
            return
        piece = self._codec.encode(chunk)
        self._index[self._chunks] = self._bytes, len(piece)
        self._pieces.append(piece)
        self._bytes += len(piece)
        self._chunks += 1


class StaleIndexError(ValueError):
    """The bytes at a place are not the chunk that the index of the shard expects there."""


class RemoteShards:
    """The shards of one array on an object storage; safe to use from several threads.

    `remote_shards` makes it, for arrays of the layout that `ShardEncoder` writes.

    Parameters
    ----------
    uri
        URI of the array.
    chunk, shard
        Entries of the leading axis per chunk and per shard.
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
        """Read entries [first, last) of the leading axis into `out`, (last - first, ...).

        Entries that are in no shard become the fill value.

        Raises
        ------
        StorageError, UsageError
            The storage fails, or refuses access.
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
                # The shard was written again since its index was read: by an append or a repair.
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

        # The header of Blosc has the number of decoded bytes at 4 and of encoded bytes at 12.
        sizes = np.frombuffer(data[:16], "<u4") if len(data) >= 16 else (0, 0, 0, 0)
        if int(sizes[1]) != self._chunk_bytes or int(sizes[3]) != len(data):
            raise StaleIndexError("a chunk does not have the size that the index of its shard has")
        if out.nbytes == self._chunk_bytes and out.flags.c_contiguous:
            blosc.decompress(data, out)
        else:
            frames = np.empty((self._chunk, *self._rest), self._dtype)
            blosc.decompress(data, frames)
            out[...] = frames[inside]

    def _index(self, shard: int) -> np.ndarray:
        """Return offset and length of each chunk of a shard, (chunks, 2) uint64."""
        with self._lock:
            if shard in self._indexes:
                self._indexes.move_to_end(shard)
                return self._indexes[shard]
        index = self._fetch_index(shard)
        with self._lock:
            self._indexes[shard] = index
            if len(self._indexes) > _KEPT_INDEXES:
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
    """Return a reader of an array on object storage; None for a local store or another layout."""
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
    """Yield chunks that lie end to end in the shard, or are all left out, as one run."""
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
