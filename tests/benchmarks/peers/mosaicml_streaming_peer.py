"""MosaicML streaming over copies of a store's frames, in the environment of its `.txt`.

Arguments and requests: see `litdata_peer.py`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import transformers.feature_extraction_utils  # noqa: F401 (before the names below)

# Its data sets of images want torchvision, which must be built for the very torch that is there;
# nothing here uses them, so their base class may be any.
for name in ("torchvision", "torchvision.datasets", "torchvision.transforms.functional"):
    sys.modules[name] = ModuleType(name)
sys.modules["torchvision.datasets"].VisionDataset = object
sys.modules["torchvision.transforms.functional"].to_tensor = None

from streaming import MDSWriter, StreamingDataLoader, StreamingDataset  # noqa: E402
from streaming.base.util import clean_stale_shared_memory  # noqa: E402

SHARD_BYTES = 64 * 2**20
source, folder, offset, scale, length, batch, stored = sys.argv[1:]
frames_tyx = np.load(source, mmap_mode="r")
window_frames, batch_windows = int(length), int(batch)
windows = len(frames_tyx) - window_frames + 1


def write() -> None:
    """The copy, in the format of MosaicML streaming (MDS)."""
    items = np.lib.stride_tricks.sliding_window_view(frames_tyx, window_frames, axis=0)
    items = items.transpose(0, 3, 1, 2) if stored == "windows" else frames_tyx
    shape = ",".join(map(str, items.shape[1:]))
    with MDSWriter(
        out=folder, columns={"x": f"ndarray:float32:{shape}"}, size_limit=SHARD_BYTES
    ) as writer:
        for item in items:
            writer.write({"x": np.array(item)})


def opened(shuffle: bool, seed: int) -> StreamingDataset:
    clean_stale_shared_memory()
    return StreamingDataset(
        local=folder, shuffle=shuffle, shuffle_seed=seed, batch_size=batch_windows
    )


def normalised(x_btyx: np.ndarray) -> np.ndarray:
    x_btyx -= np.float32(offset)
    x_btyx /= np.float32(scale)
    return x_btyx[:, :, None]


def window(data: StreamingDataset, start: int) -> np.ndarray:
    if stored == "windows":
        return data[start]["x"]
    return np.stack([data[start + frame]["x"] for frame in range(window_frames)])


def batches(workers: int, seed: int) -> Iterator[np.ndarray]:
    """Batches of windows in random order, without end: its own order, or random starts."""
    data = opened(stored == "windows", seed)
    if stored == "windows":
        loader = StreamingDataLoader(data, batch_size=batch_windows, num_workers=workers)
        while True:
            yield from (batch["x"].numpy() for batch in loader)
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
        data = opened(False, 0)
        chosen = [window(data, start) for start in request["starts"]]
        np.save(request["file"], normalised(np.stack(chosen)))
        answer = {"windows": windows, "bytes": size}
    else:
        answer = {"rate": rate(request["seconds"], request["threads"] - 1, request["seed"])}
    print(json.dumps(answer), flush=True)
