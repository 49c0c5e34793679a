"""litdata over copies of a store's frames, in the environment of `litdata.txt`.

Arguments: frames (`.npy`, (time, y, x) float32), a folder to write to, offset, scale, frames of
a window, windows of a batch, and what is stored. `windows`: every window is an item of its own,
read in litdata's shuffled order. `frames`: every frame is an item, and the frames of random
windows are read one by one. Requests: see `xbatcher_peer.py`; from two threads on, all but one
are workers of litdata's loader.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from litdata import StreamingDataLoader, StreamingDataset
from litdata.streaming.writer import BinaryWriter

CHUNK_BYTES = 64 * 2**20
source, folder, offset, scale, length, batch, stored = sys.argv[1:]
frames_tyx = np.load(source, mmap_mode="r")
window_frames, batch_windows = int(length), int(batch)
windows = len(frames_tyx) - window_frames + 1


def write() -> None:
    """The copy, in litdata's format."""
    Path(folder).mkdir(parents=True)
    writer = BinaryWriter(folder, chunk_bytes=CHUNK_BYTES)
    if stored == "windows":
        for start in range(windows):
            writer.add_item(start, np.array(frames_tyx[start : start + window_frames]))
    else:
        for time_index, frame in enumerate(frames_tyx):
            writer.add_item(time_index, np.array(frame))
    writer.done()
    writer.merge()


def normalised(x_btyx: np.ndarray) -> np.ndarray:
    x_btyx -= np.float32(offset)
    x_btyx /= np.float32(scale)
    return x_btyx[:, :, None]


def window(data: StreamingDataset, start: int) -> np.ndarray:
    if stored == "windows":
        return np.asarray(data[start])
    return np.stack([np.asarray(data[start + frame]) for frame in range(window_frames)])


def batches(workers: int, seed: int) -> Iterator[np.ndarray]:
    """Batches of windows in random order, without end: litdata's own order, or random starts."""
    data = StreamingDataset(folder, shuffle=stored == "windows", seed=seed)
    if stored == "windows":
        loader = StreamingDataLoader(data, batch_size=batch_windows, num_workers=workers)
        while True:
            yield from (batch.numpy() for batch in loader)
    random = np.random.default_rng(seed)
    while True:
        starts = random.integers(0, windows, batch_windows).tolist()
        yield np.stack([window(data, start) for start in starts])


def rate(seconds: float, workers: int, seed: int) -> float:
    read = batches(workers, seed)
    next(read)
    began, drawn = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        drawn += len(normalised(next(read)))
    return drawn / (time.perf_counter() - began)


write()
size = sum(path.stat().st_size for path in Path(folder).iterdir())
for line in sys.stdin:
    request = json.loads(line)
    if "starts" in request:
        data = StreamingDataset(folder)
        chosen = [window(data, start) for start in request["starts"]]
        np.save(request["file"], normalised(np.stack(chosen)))
        answer = {"windows": windows, "bytes": size}
    else:
        answer = {"rate": rate(request["seconds"], request["threads"] - 1, request["seed"])}
    print(json.dumps(answer), flush=True)
