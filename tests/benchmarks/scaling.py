"""How training should scale to many nodes: a model of the step, checked against two processes here.

`python tests/benchmarks/scaling.py` predicts the step of GMG-L on 1 to 64 nodes of one GPU from
four numbers: the seconds of a step alone, the bytes of the gradients, the rate of the network, and
the part of the backward pass that the sums can hide behind. Gradients are summed in a ring: each
node sends and receives 2 (N - 1) / N of their bytes. A recurrent model uses each weight at every
time step, so that a gradient is complete only when the backward pass has come to the first: of T
steps, the sums can hide behind the last one alone, 1 / T of it.

The same model predicts the step of two processes on this machine from the step of two that do not
exchange anything and from the measured rate of their sums; that is compared with what they take.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from figures import Requirement, add_json_option, print_requirements, print_table, write_json

SHAPE = (1, 64, 64)
INPUT_FRAMES, HORIZON = 10, 10
SMALL = (2, 16, 16)
"""of what is measured here: little work for many weights, so that the sums are seen"""
FORWARD = 1 / 3
"""of a step's time; the backward pass takes twice the forward's work"""
LATENCY = 30e-6
"""seconds that a message takes besides its bytes, between machines of one placement group"""
BUCKET = 25 * 2**20
"""bytes that DistributedDataParallel sums at once"""
NETWORKS = {"10 Gbit/s": 1.25e9, "25 Gbit/s": 3.125e9, "100 Gbit/s": 12.5e9}
NODES = (1, 2, 4, 8, 16, 32, 64)
FACTOR = 1.25
"""by which a prediction may be off"""


@dataclass(frozen=True)
class Step:
    """What decides how long a step takes on several nodes."""

    alone: float
    """seconds of a step on one node"""
    gradient_bytes: float
    """that each node exchanges"""
    frames: int
    """time steps of the recurrence"""
    bandwidth: float
    """bytes a second that a node sends, and receives at the same time"""
    latency: float = LATENCY
    """seconds of one message"""

    def all_reduce(self, nodes: int) -> float:
        """Seconds of summing all gradients in a ring.

        >>> round(Step(1.0, 1e9, 10, 1e9, latency=0).all_reduce(2), 6)
        1.0
        """
        if nodes == 1:
            return 0.0
        buckets = max(1, round(self.gradient_bytes / BUCKET))
        sent = 2 * (nodes - 1) / nodes * self.gradient_bytes
        return sent / self.bandwidth + 2 * (nodes - 1) * buckets * self.latency

    def seconds(self, nodes: int) -> float:
        """Of a step on so many nodes, each with as many windows as on one."""
        hidden = (1 - FORWARD) * self.alone / self.frames
        return self.alone + max(0.0, self.all_reduce(nodes) - hidden)

    def efficiency(self, nodes: int) -> float:
        """Windows a second of a node, over those that it has alone."""
        return self.alone / self.seconds(nodes)


def main() -> None:
    """Predict, measure two processes, compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--windows", type=int, default=8, help="windows a step on each GPU")
    parser.add_argument(
        "--teraflops",
        type=float,
        default=40.0,
        help="10^12 floating-point operations a second that a GPU sustains in a step (assumed)",
    )
    parser.add_argument("--rounds", type=int, default=5, help="measured steps of each kind")
    parser.add_argument("--hidden", type=int, default=128, help="channels, of what is measured")
    add_json_option(parser)
    options = parser.parse_args()
    parameters, work = gmg_l()
    alone = 3 * work * options.windows / (options.teraflops * 1e12)
    predict(parameters, alone, options)
    with tempfile.TemporaryDirectory(prefix="gmg-bench-") as folder:
        measured = measure(Path(folder), options)
    requirements = compare(measured, options)
    write_json(options.json, {"parameters": parameters, "alone": alone} | measured, requirements)


def gmg_l() -> tuple[int, int]:
    """Parameters of GMG-L, and floating-point operations of one forecast."""
    import torch
    from models import flop

    from gmg_model import create_model

    with torch.device("meta"):
        model = create_model("gmg-l", in_shape=SHAPE)
    work = flop("gmg-l", {"in_shape": SHAPE}, INPUT_FRAMES, HORIZON)
    return sum(weight.numel() for weight in model.parameters()), work


def predict(parameters: int, alone: float, options: argparse.Namespace) -> None:
    """The table of predictions."""
    frames = INPUT_FRAMES + HORIZON - 1
    print(
        f"Predicted, not measured: GMG-L, {parameters / 1e6:.1f} M parameters, {INPUT_FRAMES} -> "
        f"{HORIZON} frames of {' x '.join(map(str, SHAPE))}, {options.windows} windows per step "
        f"on each node. A node has one GPU that sustains {options.teraflops:g} TFLOP/s (assumed), "
        f"so a step on one node takes {alone:.3f} s. Gradients are summed in a ring, and the sums "
        f"overlap with 1/{frames} of the backward pass. The table gives seconds per step and, in "
        "parentheses, the windows per second of a node relative to a node alone:"
    )
    rows = []
    for compression, size in (("fp32", 4), ("bf16", 2)):
        for network, bandwidth in NETWORKS.items():
            step = Step(alone, size * parameters, frames, bandwidth)
            cells = [f"{step.seconds(n):.3f} ({step.efficiency(n):.0%})" for n in NODES]
            rows.append((f"{size * parameters / 1e6:.0f} MB ({compression}), {network}", *cells))
    print_table(("gradients, network", *(f"{n} node{'s' * (n > 1)}" for n in NODES)), rows)


# --- two processes on this machine ---------------------------------------------------------------


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of what two processes do in turn: steps alone, sums, steps with sums."""
    import json

    from torch.multiprocessing.spawn import spawn

    spawn(process, args=(str(folder), options.hidden, options.rounds), nprocs=2)
    return json.loads((folder / "measured.json").read_text())


def process(rank: int, folder: str, hidden: int, rounds: int) -> None:
    """One of the two."""
    import json

    import torch
    import torch.distributed as dist

    from gmg_model import create_model
    from jobs.training.worker.gradients import distributed

    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    shape: dict[str, Any] = {"in_shape": SMALL, "patch_size": 4, "hidden": (hidden,) * 4}
    model = create_model("gmg-l", **shape)
    wrapped = {kind: distributed(create_model("gmg-l", **shape), kind) for kind in ("none", "bf16")}
    frames_btchw = torch.rand(1, 6, *SMALL)
    forced = torch.zeros(1, 2)
    gradients = torch.zeros(sum(weight.numel() for weight in model.parameters()))

    def step(forward: torch.nn.Module) -> None:
        outputs = forward(frames_btchw, input_frames=3, forced=forced)
        (outputs - frames_btchw[:, 1:]).square().mean().backward()
        for weight in forward.parameters():
            weight.grad = None

    def sums(dtype: torch.dtype) -> None:
        part = gradients.to(dtype)
        for first in range(0, len(part), BUCKET // part.element_size()):
            dist.all_reduce(part[first : first + BUCKET // part.element_size()])

    kinds: dict[str, Callable[[], None]] = {
        "alone": lambda: step(model),
        "sums none": lambda: sums(torch.float32),
        "sums bf16": lambda: sums(torch.bfloat16),
        "step none": lambda: step(wrapped["none"]),
        "step bf16": lambda: step(wrapped["bf16"]),
    }
    taken: dict[str, list[float]] = {kind: [] for kind in kinds}
    for round_ in range(1 + rounds):
        for kind, run in kinds.items():
            dist.barrier()
            began = time.perf_counter()
            run()
            dist.barrier()
            if round_:
                taken[kind].append(time.perf_counter() - began)
    if rank == 0:
        (Path(folder) / "measured.json").write_text(
            json.dumps({"taken": taken, "loopback_parameters": len(gradients)})
        )
    dist.destroy_process_group()


def compare(measured: dict[str, Any], options: argparse.Namespace) -> list[Requirement]:
    """Predicted beside measured."""
    taken = {kind: statistics.median(values) for kind, values in measured["taken"].items()}
    parameters, frames = measured["loopback_parameters"], 5
    print(
        f"\nChecked on two processes of this machine (gloo over loopback, one thread each, GMG-L "
        f"of {options.hidden} channels, {parameters / 1e6:.1f} M parameters, 3 -> 3 frames of "
        f"{' x '.join(map(str, SMALL))}, one window each, load {os.getloadavg()[0]:.1f}). Medians "
        f"of {options.rounds}:"
    )
    rows, requirements = [], []
    for kind, size in (("none", 4), ("bf16", 2)):
        summing = taken[f"sums {kind}"]
        step = Step(taken["alone"], size * parameters, frames, size * parameters / summing, 0.0)
        predicted, got = step.seconds(2), taken[f"step {kind}"]
        rows.append(
            (
                f"--training.gradient_compression {kind}",
                f"{size * parameters / 1e6:.0f} MB",
                f"{taken['alone']:.3f}",
                f"{summing:.3f}",
                f"{predicted:.3f}",
                f"{got:.3f}",
                f"{got / predicted:.2f}x",
            )
        )
        off = max(got / predicted, predicted / got)
        requirements.append(
            Requirement(
                f"difference of prediction and measurement, {kind}",
                off,
                FACTOR,
                " times",
                most=True,
            )
        )
    print_table(
        ("", "gradients", "step alone, s", "sums alone, s", "predicted, s", "measured, s", "ratio"),
        rows,
    )
    print_requirements(requirements)
    return requirements


if __name__ == "__main__":
    main()
