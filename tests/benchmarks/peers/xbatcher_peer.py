"""xbatcher over a store, in the environment of `xbatcher.txt`: shuffled normalised batches.

Arguments: store, variable, offset, scale, frames of a window, windows of a batch. Requests:
`{"starts": [...], "file": ...}` writes those windows to a `.npy`; `{"seconds": s, "threads":
n, "seed": k}` draws random batches for so long and answers with windows a second.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import xarray as xr
import xbatcher
import zarr

zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})
uri, variable, offset, scale, frames, batch = sys.argv[1:]
dataset = xr.open_zarr(uri, consolidated=True, chunks=None)[[variable]]
_, height, width = dataset[variable].sizes.items()
windows = xbatcher.BatchGenerator(
    dataset,
    input_dims={"time": int(frames), **dict((height, width))},
    input_overlap={"time": int(frames) - 1},
    preload_batch=False,
)


def one(start: int) -> np.ndarray:
    return windows[start][variable].values


def batch_of(starts: np.ndarray, pool: ThreadPoolExecutor | None) -> np.ndarray:
    read = pool.map if pool else map
    x_btyx = np.stack(list(read(one, starts.tolist())))
    x_btyx -= np.float32(offset)
    x_btyx /= np.float32(scale)
    return x_btyx[:, :, None]


def rate(seconds: float, threads: int, seed: int) -> float:
    random = np.random.default_rng(seed)
    pool = ThreadPoolExecutor(threads) if threads > 1 else None
    began, drawn = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        drawn += len(batch_of(random.integers(0, len(windows), int(batch)), pool))
    taken = time.perf_counter() - began
    if pool:
        pool.shutdown()
    return drawn / taken


for line in sys.stdin:
    request = json.loads(line)
    if "starts" in request:
        np.save(request["file"], batch_of(np.array(request["starts"]), None))
        answer = {"windows": len(windows)}
    else:
        answer = {"rate": rate(request["seconds"], request["threads"], request["seed"])}
    print(json.dumps(answer), flush=True)
