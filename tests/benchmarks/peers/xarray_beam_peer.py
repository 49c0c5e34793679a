"""xarray-beam's local runner, in the environment of `xarray-beam.txt`: NetCDF to sharded Zarr.

Arguments: source folder, frames of a chunk, frames of a shard. Requests: `{"store": path, "mode":
"in_memory" | "multi_threading" | "multi_processing", "workers": n}`; the answer is the seconds
that opening the files, making the pipeline and running it took.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path

import apache_beam as beam
import xarray as xr
import xarray_beam as xbeam
import zarr
from apache_beam.options.pipeline_options import PipelineOptions
from zarr.codecs import BloscCodec

logging.disable(logging.WARNING)
zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})
source, chunk, shard = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])


def convert(store: str, mode: str, workers: int) -> None:
    paths = sorted(source.glob("*.nc"))
    dataset = (
        xr.open_dataset(paths[0], chunks=None, engine="netcdf4")
        if len(paths) == 1
        else xr.open_mfdataset(paths, chunks={"time": shard}, engine="netcdf4")
    ).drop_encoding()
    whole = {"lat": dataset.sizes["lat"], "lon": dataset.sizes["lon"]}
    compressor = BloscCodec(cname="lz4", clevel=5, shuffle="shuffle", typesize=4)
    options = PipelineOptions(
        runner="DirectRunner", direct_running_mode=mode, direct_num_workers=workers
    )
    with beam.Pipeline(options=options) as pipeline:
        _ = (
            pipeline
            | xbeam.DatasetToChunks(dataset, chunks={"time": shard, **whole})
            | xbeam.ChunksToZarr(
                store,
                xbeam.make_template(dataset),
                zarr_chunks={"time": chunk, **whole},
                zarr_shards={"time": shard, **whole},
                zarr_format=3,
                encoding={"t2m": {"compressors": [compressor]}},
            )
        )
    dataset.close()


answers = sys.stdout
sys.stdout = sys.stderr  # the runner prints as well
for line in sys.stdin:
    request = json.loads(line)
    began = time.perf_counter()
    convert(**request)
    print(json.dumps({"seconds": time.perf_counter() - began}), file=answers, flush=True)
