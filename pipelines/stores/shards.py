"""One shard of a Zarr array: whole chunks of frames, encoded in memory, bit for bit repeatable.

The layout is Zarr's ``sharding_indexed`` with its index at the end: compressed chunks in order of
time, then offset and length of each as little-endian uint64, then the crc32c of that index. A
chunk that holds nothing but NaN is left out. Blosc runs on one thread here, because its threads
place their blocks in the order in which they finish.
"""

from __future__ import annotations

import numpy as np

COMPRESSION = {"cname": "lz4", "clevel": 5, "shuffle": "shuffle"}
_ABSENT = np.uint64(2**64 - 1)


class ShardEncoder:
    """Takes frames in order of time and gives the bytes of the shard.

    Parameters
    ----------
    frame_shape:
        ``(*extra, y, x)``.
    chunk_frames, shard_frames:
        Frames a chunk and a shard; the shard is a whole number of chunks.
    """

    def __init__(self, frame_shape: tuple[int, ...], chunk_frames: int, shard_frames: int):
        from numcodecs import blosc  # pyright: ignore[reportAttributeAccessIssue]

        blosc.use_threads = False
        self._codec = blosc.Blosc(
            cname=COMPRESSION["cname"], clevel=COMPRESSION["clevel"], shuffle=blosc.SHUFFLE
        )
        self._chunk = np.full((chunk_frames, *frame_shape), np.nan, np.float32)
        self._filled = 0
        self._pieces: list[bytes] = []
        self._index = np.full((shard_frames // chunk_frames, 2), _ABSENT, "<u8")
        self._chunks = 0
        self._bytes = 0

    def add(self, frames: np.ndarray) -> None:
        """The next frames, float32 ``(n, *extra, y, x)``, C-contiguous."""
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
        """The shard's bytes in pieces, in order; the last chunk is filled up with NaN."""
        import google_crc32c

        if self._filled:
            self._chunk[self._filled :] = np.nan
            self._encode(self._chunk)
        index = self._index.tobytes()
        checksum = google_crc32c.value(index).to_bytes(4, "little")
        return [*self._pieces, index, checksum]

    def _encode(self, chunk: np.ndarray) -> None:
        # One pixel that is not NaN settles it for nearly every chunk.
        if np.isnan(chunk.flat[0]) and np.isnan(chunk).all():
            self._chunks += 1
            return
        piece = self._codec.encode(chunk)
        self._index[self._chunks] = self._bytes, len(piece)
        self._pieces.append(piece)
        self._bytes += len(piece)
        self._chunks += 1
