"""What the models cost: parameters, arithmetic, speed and memory, and what the fast paths give.

`python tests/benchmarks/models.py` prints three tables: every registered model at its defaults on
Moving MNIST's shape (10 -> 10 of 1 x 64 x 64), each measured in a process of its own; GMG-L's
training step at TaxiBJ's shape in three arrangements, taken in turn so that a drift of the
machine's speed meets all; and, where there is a GPU, the compiled step against the plain one.
Floors: floating-point work over the rate of a large matrix product or convolution, bytes over the
rate of a copy.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

INPUT_FRAMES = HORIZON = 10
SHAPE = (1, 64, 64)
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    # At one pixel a patch, as published, their training steps take minutes and many gigabytes.
    f"srvp-{cell}": {"patch_size": 4}
    for cell in ("causallstm", "convgru", "convlstm", "mim", "stlstm")
}
"""What the table's models are made with beside their defaults."""
TAXIBJ = {"in_shape": (2, 32, 32), "patch_size": 2, "attention_hidden": 64}
BF16_FLAGS = ("avx512_bf16", "amx_bf16")


def main() -> None:
    """Measure what is asked for; print Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    sections = ("table", "step", "gpu")
    parser.add_argument("--sections", nargs="+", choices=sections, default=sections)
    parser.add_argument("--models", nargs="+", help="registered names; default: all")
    parser.add_argument("--batch", type=int, default=1, help="windows a batch in the table")
    parser.add_argument("--repeats", type=int, default=1, help="timed runs of each in the table")
    parser.add_argument("--rounds", type=int, default=9, help="timed rounds of the training step")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="torch threads")
    parser.add_argument("--json", type=Path, help="file to write the table to as well")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure_one(options.one, options)))
        return
    if "table" in options.sections:
        print_table(options)
    if "step" in options.sections:
        print_step(options)
    if "gpu" in options.sections:
        print_gpu()


# --- every model -------------------------------------------------------------------------------


def print_table(options: argparse.Namespace) -> None:
    """One row a model, each measured in its own process: a high-water mark never falls."""
    from gmg_model import list_models

    rows = []
    for name in options.models or list_models():
        print(f"   {name}", file=sys.stderr, flush=True)
        command = [sys.executable, "-W", "ignore", __file__, "--one", name]
        for option in ("batch", "repeats", "threads"):
            command += [f"--{option}", str(getattr(options, option))]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        rows.append(json.loads(done.stdout))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    print(
        f"\nEvery model with default options, {INPUT_FRAMES} -> {HORIZON} frames of "
        f"{' x '.join(map(str, SHAPE))}, batches of {options.batch}, fp32, {rows[0]['where']}. "
        "GFLOP: for a forecast of one window; a multiply-add counts as 2. Peak GB: the largest "
        "memory of the process in a training step, with torch and the weights (on a GPU: of the "
        "allocations).\n"
    )
    print("| model | patch | M parameters | GFLOP | forecasts/s | trained windows/s | peak GB |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        print(
            f"| `{row['model']}` | {row['patch']} | {row['parameters'] / 1e6:.3f} | "
            f"{row['gflop']:.1f} | "
            f"{row['forecasts_per_second']:.2f} | {row['trained_per_second']:.2f} | "
            f"{row['peak_gb']:.2f} |"
        )


def measure_one(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Parameters, arithmetic, speed and memory of one model."""
    import torch

    from gmg_model import create_model

    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    overrides = {"in_shape": SHAPE, **CONFIGURATIONS.get(name, {})}
    model: Any = create_model(name, **overrides)
    model.to(device)
    frames_btchw = torch.rand(options.batch, INPUT_FRAMES + HORIZON, *SHAPE, device=device)

    def forecast() -> None:
        with torch.no_grad():
            model(frames_btchw[:, :INPUT_FRAMES], HORIZON)

    def train() -> None:
        train_step(model, frames_btchw, INPUT_FRAMES)

    forecast_seconds = statistics.median(seconds(forecast, options.repeats))
    train_seconds = statistics.median(seconds(train, options.repeats))
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated()
        where = torch.cuda.get_device_name()
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        where = f"{options.threads} threads"
    return {
        "model": name,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "patch": getattr(model, "patch_size", 1),
        "gflop": flop(name, overrides, INPUT_FRAMES, HORIZON) / 1e9,
        "forecasts_per_second": options.batch / forecast_seconds,
        "trained_per_second": options.batch / train_seconds,
        "peak_gb": peak / 1e9,
        "where": where,
    }


def flop(name: str, overrides: dict[str, Any], input_frames: int, horizon: int) -> int:
    """Floating-point operations of a forecast of one window, counted without computing it."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    from gmg_model import create_model

    with FakeTensorMode(), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model = create_model(name, **overrides).eval()
        model(torch.zeros(1, input_frames, *overrides["in_shape"]), horizon)
    return counter.get_total_flops()


def train_step(model: Any, frames_btchw: Any, input_frames: int, dtype: Any = None) -> None:
    """Forward and backward of the loss, in `dtype` under autocast."""
    import torch

    from gmg_model.training.losses import create_loss

    kind = frames_btchw.device.type
    model.zero_grad(set_to_none=True)
    with torch.autocast(kind, dtype, enabled=dtype is not None):
        outputs = model(frames_btchw, input_frames=input_frames)
    true = frames_btchw[:, -outputs.shape[1] :]
    create_loss("l1+l2")(outputs.float(), true).mean().backward()


def seconds(run: Callable[[], object], repeats: int) -> list[float]:
    """Wall-clock seconds of each run, after one that is not counted."""
    import torch

    taken = []
    for _ in range(1 + repeats):
        began = time.perf_counter()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
    return taken[1:]


# --- the arrangements of one training step, on a CPU -------------------------------------------


def print_step(options: argparse.Namespace) -> None:
    """GMG-L at TaxiBJ's shape: straightforward fp32, fused fp32, bf16."""
    import torch

    from gmg_model import create_model
    from gmg_model.layers import convolution

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    fused = create_model("gmg-l", **TAXIBJ)
    plain = create_model("gmg-l", **TAXIBJ, fused=False)
    plain.load_state_dict(fused.state_dict())
    frames_btchw = torch.rand(4, 8, *TAXIBJ["in_shape"])
    block = convolution.CPU_BLOCK
    # The straightforward arrangement has neither merged kernels nor blocks.
    arrangements = {
        "fp32, each convolution as the equations write it": (plain, sys.maxsize, None),
        "fp32, `fused=False`": (plain, block, None),
        "fp32": (fused, block, None),
        "bf16 autocast": (fused, block, torch.bfloat16),
    }
    taken: dict[str, list[float]] = {title: [] for title in arrangements}
    for round_ in range(1 + options.rounds):
        for title, (model, convolution.CPU_BLOCK, dtype) in arrangements.items():
            began = time.perf_counter()
            train_step(model, frames_btchw, 4, dtype)
            if round_:
                taken[title].append(time.perf_counter() - began)
    convolution.CPU_BLOCK = block
    print(
        f"\nTraining step (forward and backward) of GMG-L with the shape of TaxiBJ, 4 -> 4 frames "
        f"of {' x '.join(map(str, TAXIBJ['in_shape']))}, batches of 4, {options.threads} threads, "
        f"load {os.getloadavg()[0]:.1f}; {native_bf16()}.\n"
    )
    work = 3 * 4 * flop("gmg-l", TAXIBJ, 4, 4)
    print_arrangements(taken, work)
    straight, _, fp32, bf16 = taken.values()
    print(f"\n- fp32 against straightforward fp32: {ratio(straight, fp32)} (goal 1.03)")
    print(
        f"- bf16 against straightforward fp32: {ratio(straight, bf16)} (goal 1.7 where bf16 is "
        "native)"
    )
    print(f"- bf16 against fp32: {ratio(fp32, bf16)}")


def print_arrangements(taken: dict[str, list[float]], work: int) -> None:
    """A row for each, and its rate of arithmetic."""
    print("| arrangement | seconds per step, median | lowest | highest | GFLOP/s at the lowest |")
    print("|---|---:|---:|---:|---:|")
    for title, values in taken.items():
        print(
            f"| {title} | {statistics.median(values):.3f} | {min(values):.3f} | "
            f"{max(values):.3f} | {work / min(values) / 1e9:.0f} |"
        )
    single, half = (convolution_rate(kind) for kind in ("float32", "bfloat16"))
    print(f"| limit: the work at the rate of one convolution, fp32 | {work / single:.3f} | | | |")
    print(f"| limit: the same, bf16 | {work / half:.3f} | | | |")


def ratio(slow: Sequence[float], fast: Sequence[float]) -> str:
    """The median of the paired ratios, with the middle half of them."""
    pairs = [a / b for a, b in zip(slow, fast, strict=True)]
    low, middle, high = statistics.quantiles(pairs, n=4)
    return f"{middle:.3f} x (middle half {low:.3f} to {high:.3f}, {len(pairs)} pairs)"


def convolution_rate(kind: str) -> float:
    """Floating-point operations a second of a forward 5x5 convolution of 128 channels."""
    import torch

    fields = torch.randn(4, 128, 16, 16, dtype=getattr(torch, kind))
    kernels = torch.randn(256, 128, 5, 5, dtype=getattr(torch, kind))
    work = 2 * fields.numel() * kernels.numel() // 128
    return work / min(seconds(lambda: torch.conv2d(fields, kernels, padding=2), 20))


def native_bf16() -> str:
    """Whether this processor multiplies bfloat16 itself."""
    cpuinfo = Path("/proc/cpuinfo")
    words = set(cpuinfo.read_text().split()) if cpuinfo.exists() else set()
    found = [flag for flag in BF16_FLAGS if flag in words]
    return f"native bf16: {', '.join(found) if found else 'none'}"


# --- the same on a GPU -------------------------------------------------------------------------


def print_gpu() -> None:
    """GMG-L at Moving MNIST's shape: plain fp32 against compiled bf16, with floors."""
    import torch

    from gmg_model import create_model

    if not torch.cuda.is_available():
        print("\nGPU: this machine has none, so nothing was measured on a GPU.")
        return
    device = torch.device("cuda")
    rate, bandwidth = matmul_rate(), copy_rate()
    print(
        f"\nTraining step of GMG-L on {torch.cuda.get_device_name()}, {INPUT_FRAMES} -> {HORIZON} "
        f"frames of {' x '.join(map(str, SHAPE))}. Plain: fp32, `fused=False`, step by step; "
        "compiled: bf16 autocast, channels last, `compile_steps(mode='reduce-overhead')`. "
        f"bf16 matrix product {rate / 1e12:.0f} TFLOP/s, copy {bandwidth / 1e12:.2f} TB/s. "
        "Floor by bytes: the time to write and read once what the step keeps for its backward "
        "pass. Goals: 4 x, 40 % of the rate of the product, below 10 GB with batches of 16.\n"
    )
    print(
        "| batch | plain, s | compiled, s | ratio | share of the rate of the product | "
        "peak GB, compiled | floor by arithmetic, s | floor by bytes, s |"
    )
    print("|---:|---:|---:|---:|---:|---:|---:|---:|")
    work = 3 * flop("gmg-l", {"in_shape": SHAPE, "fused": False}, INPUT_FRAMES, HORIZON)
    for batch in (16, 64):
        frames_btchw = torch.rand(batch, INPUT_FRAMES + HORIZON, *SHAPE, device=device)
        model: Any = create_model("gmg-l", in_shape=SHAPE, fused=False)
        slow, _ = gpu_step(model.to(device), frames_btchw, None)
        model = gmg_l_as_fast_as_it_gets(device)
        fast, peak = gpu_step(model, frames_btchw, torch.bfloat16)
        least = statistics.median(fast)
        print(
            f"| {batch} | {statistics.median(slow):.3f} | {least:.3f} | "
            f"{statistics.median(slow) / least:.2f} | {batch * work / least / rate:.0%} | "
            f"{peak / 1e9:.2f} | {batch * work / rate:.4f} | {2 * peak / bandwidth:.4f} |"
        )


def gmg_l_as_fast_as_it_gets(device: Any) -> Any:
    """Channels last, its steps compiled and replayed as CUDA graphs."""
    import torch

    from gmg_model import create_model

    model: Any = create_model("gmg-l", in_shape=SHAPE)
    model.to(device).to(memory_format=torch.channels_last)
    model.compile_steps(mode="reduce-overhead")
    return model


def gpu_step(model: Any, frames_btchw: Any, dtype: Any) -> tuple[list[float], int]:
    """Seconds of training steps, and the most memory that was allocated in them."""
    import torch

    seconds(lambda: train_step(model, frames_btchw, INPUT_FRAMES, dtype), 3)  # compiles, captures
    torch.cuda.reset_peak_memory_stats()
    taken = seconds(lambda: train_step(model, frames_btchw, INPUT_FRAMES, dtype), 10)
    return taken, torch.cuda.max_memory_allocated()


def matmul_rate() -> float:
    """Floating-point operations a second of a large bf16 matrix product."""
    import torch

    n = 8192
    a, b = (torch.randn(n, n, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return 2 * n**3 / min(seconds(lambda: torch.mm(a, b), 20))


def copy_rate() -> float:
    """Bytes read and written a second by a large copy."""
    import torch

    source = torch.empty(2**30, device="cuda", dtype=torch.uint8)
    target = torch.empty_like(source)
    return 2 * source.numel() / min(seconds(lambda: target.copy_(source), 20))


if __name__ == "__main__":
    main()
