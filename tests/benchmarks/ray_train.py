"""What training on workers costs beside the bare loop: the Ray Train side, data, checkpoints.

`python tests/benchmarks/ray_train.py` trains GMG-s on two workers (gloo, one core each) by the
job itself. In turn, in the same two processes, go stretches of the job's own steps (streamed
batches, schedules, sums over the workers, history), the same with an asynchronous checkpoint at
their beginning, and stretches of a bare loop: PyTorch's DistributedDataParallel and Adam on a batch
that stays in memory. So a drift of the machine's speed meets all three. What Ray's other processes
take of the processors meanwhile is counted apart, because it slows all three.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from figures import Requirement, add_json_option, print_requirements, print_table, write_json

JOB, SAVING, BARE = "the job's steps", "the job's, with a checkpoint", "bare loop, resident batch"
CHECKPOINT_EVERY = 60.0
"""seconds between checkpoints for which their share is told"""
SETTINGS = "GMG_BENCHMARK_STRETCHES"
"""environment variable of the workers: rounds, steps of a stretch, file for the figures"""


def main() -> None:
    """Measure, print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch", type=int, default=2, help="windows a step on each worker")
    parser.add_argument("--hidden", type=int, default=32, help="channels of each of four cells")
    parser.add_argument("--rounds", type=int, default=8, help="stretches of each kind")
    parser.add_argument("--steps", type=int, default=4, help="steps of a stretch")
    add_json_option(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gmg-bench-") as folder:
        measured = measure(Path(folder), options)
    report(measured, options)


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train by the job, with workers that take stretches in turn; what the first worker noted."""
    import ray
    from ray_processes import start_ray

    import jobs.training.worker.loop as training
    from jobs.training.driver.job import train
    from pipelines.archives.synthetic import write_weatherbench
    from pipelines.conversion.convert import convert
    from pipelines.conversion.options import ConversionRequest

    figures = folder / "figures.json"
    os.environ[SETTINGS] = json.dumps([options.rounds, options.steps, str(figures)])
    start_ray()
    try:
        write_weatherbench(folder / "archive", [2014])
        store = str(folder / "store.zarr")
        convert(ConversionRequest("weatherbench", str(folder / "archive"), store))
        training.train_worker = take_stretches
        train(run_options(store, str(folder / "run"), options))
    finally:
        ray.shutdown()
    return json.loads(figures.read_text())


def run_options(store: str, run: str, options: argparse.Namespace) -> Any:
    """Those of a training on two workers."""
    from jobs.training.options import DataOptions, ModelOptions, TrainingOptions, TrainOptions
    from jobs.training.run_options import CheckpointOptions

    return TrainOptions(
        store=store,
        run=run,
        workers=2,
        use_gpu="false",
        model=ModelOptions(hidden=(options.hidden,) * 4, patch_size=2),
        data=DataOptions(input_frames=12, horizon=12),
        training=TrainingOptions(epochs=1, global_batch=2 * options.batch, sampling="none"),
        checkpoints=CheckpointOptions(keep=2),
    )


def take_stretches(settings: dict[str, Any]) -> None:
    """Entry of a worker: the job's own, whose epoch is made of stretches."""
    import torch.distributed as dist

    import jobs.training.worker.loop as training
    from jobs.training.worker.loop import Worker
    from jobs.training.worker.retrying import epoch_with_retry

    rounds, steps, file = json.loads(os.environ[SETTINGS])

    class Stretches(Worker):
        """Takes the three kinds in turn, then ends."""

        def train_epoch(self) -> None:
            batches = epoch_with_retry(self.stream, self.epoch, 0, self.retry)
            first = next(batches)
            self.train_step(first)
            resident = bare_step(self, first.frames_btchw.copy())
            resident()
            taken: dict[str, list[float]] = {JOB: [], SAVING: [], BARE: []}
            waited = blocked = 0.0
            processes = ray_processor_seconds()
            began = time.perf_counter()
            for round_ in range(rounds):
                kinds = list(taken) if round_ % 2 == 0 else list(taken)[::-1]
                for kind in kinds:
                    dist.barrier()
                    start, wait = time.perf_counter(), self.stream.wait_seconds
                    if kind == SAVING:
                        self.checkpoint()
                        blocked += time.perf_counter() - start
                    for _ in range(steps):
                        if kind == BARE:
                            resident()
                        else:
                            self.train_step(next(batches))
                    dist.barrier()
                    taken[kind].append(time.perf_counter() - start)
                    waited += self.stream.wait_seconds - wait
            if self.rank == 0:
                figures = {
                    "taken": taken,
                    "waited": waited,
                    "blocked": blocked,
                    "seconds": time.perf_counter() - began,
                    "processor": ray_processor_seconds() - processes,
                    "checkpoint_bytes": checkpoint_bytes(self),
                    "parameters": sum(weight.numel() for weight in self.model.parameters()),
                }
                Path(file).write_text(json.dumps(figures))
            self.stream.close()
            self.epoch = self.options.training.epochs
            self.checkpoint()

    training.Worker = Stretches
    training.train_worker(settings)


def bare_step(worker: Any, frames_btchw: Any) -> Any:
    """A step of the bare loop: same model, same loss, same batch size, nothing around it."""
    import torch
    from torch.nn.parallel import DistributedDataParallel

    from gmg_model import create_model
    from gmg_model.training.losses import create_loss

    model = create_model(worker.options.model.name, **worker.plan.model_overrides)
    forward = DistributedDataParallel(model, gradient_as_bucket_view=True)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4)
    loss, frames = create_loss("l1+l2"), torch.from_numpy(frames_btchw)
    forced = torch.zeros(len(frames), worker.plan.window.horizon - 1)

    def step() -> None:
        outputs = forward(frames, input_frames=worker.plan.window.input_frames, forced=forced)
        loss(outputs, frames[:, -outputs.shape[1] :]).mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step


def checkpoint_bytes(worker: Any) -> int:
    """Of the tensors in a checkpoint."""
    tensors = {**worker.optimisation.evaluated_weights(), **worker.optimisation.state_tensors()}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def ray_processor_seconds() -> float:
    """Time on processors of Ray's processes on this machine, the training's workers left out."""
    import psutil

    total = 0.0
    driver = psutil.Process().parents()[1]  # of the raylet, which started this process
    for process in driver.children(recursive=True):
        try:
            if "RayTrainWorker" not in " ".join(process.cmdline()):
                total += sum(process.cpu_times()[:2])
        except psutil.Error:
            continue
    return total


def report(measured: dict[str, Any], options: argparse.Namespace) -> None:
    """The tables."""
    taken = {
        kind: [s / options.steps for s in values] for kind, values in measured["taken"].items()
    }
    rows = [
        (kind, *(f"{value:.3f}" for value in (statistics.median(v), min(v), max(v))))
        for kind, v in taken.items()
    ]
    print(
        f"GMG-s, {options.hidden} channels, {measured['parameters'] / 1e6:.2f} M parameters, "
        f"12 -> 12 of 32 x 64, {options.batch} windows per step on each of two workers (gloo, "
        f"one thread each). {options.rounds} stretches of {options.steps} steps of each kind "
        f"alternate. Load {os.getloadavg()[0]:.1f}."
    )
    print_table(("", "seconds per step, median", "lowest", "highest"), rows)
    pairs = zip(taken[JOB], taken[BARE], strict=True)
    overhead = [100 * (with_ray / bare - 1) for with_ray, bare in pairs]
    pairs = zip(measured["taken"][SAVING], measured["taken"][JOB], strict=True)
    costs = [saving - plain for saving, plain in pairs]
    streamed = sum(measured["taken"][JOB]) + sum(measured["taken"][SAVING])
    wait = 100 * measured["waited"] / streamed
    cost = statistics.median(costs)
    others = measured["processor"] / measured["seconds"] / (os.cpu_count() or 1)
    low, middle, high = statistics.quantiles(overhead, n=4) if len(overhead) > 1 else overhead * 3
    print(
        f"\n- Time of a step of the job, relative to the bare loop: {middle:+.2f} % (middle half "
        f"of the pairs {low:+.2f} to {high:+.2f} %).\n"
        f"- A checkpoint of {measured['checkpoint_bytes'] / 1e6:.0f} MB adds {cost:+.3f} s to its "
        f"stretch (lowest {min(costs):+.3f}, highest {max(costs):+.3f}). The next step "
        f"waits {measured['blocked'] / options.rounds:.3f} s of this time.\n"
        f"- The other processes of Ray use {100 * others:.1f} % of the processors."
    )
    requirements = [
        Requirement("added time per step, job against bare loop", middle, 3, " %", most=True),
        Requirement("waiting for data", wait, 1, " %", most=True),
        Requirement(
            "asynchronous checkpoints, one per minute",
            100 * cost / CHECKPOINT_EVERY,
            1,
            " %",
            most=True,
        ),
    ]
    print_requirements(requirements)
    write_json(options.json, measured, requirements)


if __name__ == "__main__":
    main()
