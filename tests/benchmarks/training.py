"""What streaming costs a training step: GMG-s fed from a store, beside a batch held in memory.

`python tests/benchmarks/training.py` makes a synthetic archive, converts it, and trains GMG-s on
12 -> 12 windows of 32 x 64 in one process: steps fed by the stream and steps on one resident batch
in turn, so that a drift of the machine's speed meets both. The wait is what the stream itself
reports; the floor is the step's floating-point work at this machine's rate of one large
convolution.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np


def main() -> None:
    """Measure, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch", type=int, default=4, help="windows a step")
    parser.add_argument("--hidden", type=int, default=32, help="channels of each of four cells")
    parser.add_argument("--steps", type=int, default=8, help="measured steps of each kind")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gmg-bench-") as folder:
        measure(Path(folder), options)


def measure(folder: Path, options: argparse.Namespace) -> None:
    """Time both kinds of step in turn."""
    import torch

    from gmg_model import create_model
    from gmg_model.training.optimisation import Optimisation
    from gmg_model.training.options import OptimisationOptions

    torch.set_num_threads(options.threads)
    stream = make_stream(folder, options.batch)
    model = create_model("gmg-s", in_shape=(1, 32, 64), patch_size=2, hidden=(options.hidden,) * 4)
    optimisation = Optimisation(model, OptimisationOptions(), total_steps=1000)

    def step(frames_btchw: np.ndarray) -> None:
        frames = torch.from_numpy(frames_btchw)
        optimisation.backward(model, frames, 12, None, 1 / len(frames))
        optimisation.update(0)

    batches = stream.epoch(0)
    resident = next(batches).frames_btchw.copy()
    step(resident)
    streamed_seconds, resident_seconds = [], []
    waited = stream.wait_seconds
    for _ in range(options.steps):
        began = time.perf_counter()
        step(next(batches).frames_btchw)
        between = time.perf_counter()
        step(resident)
        resident_seconds.append(time.perf_counter() - between)
        streamed_seconds.append(between - began)
    waited = stream.wait_seconds - waited
    parameters = sum(weight.numel() for weight in model.parameters())
    floor = floor_seconds(model, options)
    print(
        f"\nGMG-s, {options.hidden} channels, {parameters / 1e6:.2f} M parameters, batches of "
        f"{options.batch} windows 12 -> 12 of 32 x 64, patch 2, fp32, {options.threads} "
        "thread(s).\n"
    )
    print("| | seconds per step, median | lowest | highest |")
    print("|---|---|---|---|")
    for name, seconds in (
        ("fed by the stream", streamed_seconds),
        ("one resident batch", resident_seconds),
    ):
        print(
            f"| {name} | {statistics.median(seconds):.3f} | {min(seconds):.3f} | "
            f"{max(seconds):.3f} |"
        )
    print(
        "| limit: the same floating-point work at the rate of one large convolution | "
        f"{floor:.3f} | | |"
    )
    print(
        f"\nData wait: {100 * waited / sum(streamed_seconds):.3f} % "
        "of the time of the streamed steps."
    )


def make_stream(folder: Path, batch: int) -> Any:
    """A stream over the train windows of two synthetic years."""
    from pipelines.archives.synthetic import write_weatherbench
    from pipelines.conversion.convert import convert
    from pipelines.conversion.options import ConversionRequest
    from pipelines.inputs.normalisation import Normalisation
    from pipelines.stores.store import open_store
    from pipelines.stream.order import OrderConfig
    from pipelines.stream.window_stream import WindowStream
    from pipelines.stream.windows import WindowSpec, split_starts

    write_weatherbench(folder / "archive", [2014])
    uri = str(folder / "store.zarr")
    convert(ConversionRequest("weatherbench", str(folder / "archive"), uri))
    store, spec = open_store(uri), WindowSpec(12, 12)
    return WindowStream(
        store=store,
        variables=("t2m",),
        spec=spec,
        starts=split_starts(store, "train", spec),
        order=OrderConfig(global_batch=batch),
        normalisation=Normalisation.from_store(store, ("t2m",), "standardise"),
        lanes=range(batch),
    )


def floor_seconds(model: Any, options: argparse.Namespace) -> float:
    """Three times the forward pass's floating-point work, over the rate of one large convolution.

    A convolution and not a matrix product, which runs slower than it on some processors.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(options.batch, 24, 1, 32, 64), input_frames=12)
    fields, kernels = torch.randn(16, 128, 32, 32), torch.randn(128, 128, 5, 5)
    work = 2 * fields.numel() * kernels.numel() // 128
    rates = []
    for _ in range(5):
        began = time.perf_counter()
        torch.conv2d(fields, kernels, padding=2)
        rates.append(work / (time.perf_counter() - began))
    return 3 * counter.get_total_flops() / max(rates)


if __name__ == "__main__":
    main()
