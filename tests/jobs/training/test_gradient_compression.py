"""Gradients in bfloat16: between two gloo processes, and in a whole training."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.multiprocessing.spawn import spawn

from jobs.training.driver.job import train
from jobs.training.options import TrainingOptions, TrainOptions
from jobs.training.worker.gradients import Compression, distributed
from pipelines.errors import UsageError
from tests.support.processes.training_runs import losses, small_options


def average(rank: int, compression: Compression, place: str) -> None:
    """Average the gradients of half a batch with the other process; rank 0 saves them."""
    import torch.distributed as dist

    torch.set_num_threads(1)
    meeting = f"file://{place}/meeting"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    model = linear()
    wrapped = distributed(model, compression)
    wrapped(inputs()[rank::2]).square().mean().backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    torch.save(gradients, f"{place}/{compression}-{rank}.pt")
    dist.destroy_process_group()


def linear() -> torch.nn.Module:
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Linear(40, 300), torch.nn.Linear(300, 20))


def inputs() -> torch.Tensor:
    return torch.randn(16, 40, generator=torch.Generator().manual_seed(2))


def averaged(compression: Compression, folder: Path) -> list[list[Any]]:
    """Return the gradients that each of the two processes ends with."""
    spawn(average, args=(compression, str(folder)), nprocs=2)
    return [torch.load(folder / f"{compression}-{rank}.pt") for rank in range(2)]


def test_gradients_averaged_in_bf16_agree_to_three_digits(tmp_path: Path) -> None:
    model = linear()
    model(inputs()).square().mean().backward()
    whole = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])  # pyright: ignore
    here, there = averaged("bf16", tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(here, there, strict=True))
    got = torch.cat([gradient.flatten() for gradient in here])
    assert got.dtype == torch.float32
    error = (got - whole).norm() / whole.norm()
    assert 1e-4 < error < 1e-2, "bfloat16 has eight bits: rounded, and no more than that"
    assert torch.equal(got, got.to(torch.bfloat16).float())


@pytest.mark.usefixtures("ray_cluster")
def test_compressed_gradients_give_nearly_the_same_losses(
    finished_run: TrainOptions, tmp_path: Path
) -> None:
    training = dataclasses.replace(
        finished_run.training, precision="fp32", gradient_compression="bf16"
    )
    options = dataclasses.replace(finished_run, run=str(tmp_path / "run"), training=training)
    train(options)
    compressed, exact = np.array(losses(options.run)), np.array(losses(finished_run.run))
    apart = np.abs(compressed / exact - 1)
    assert apart[0] < 1e-5, "the first step has seen no gradient yet"
    assert 1e-5 < apart.max() < 0.05
    assert compressed[-10:].mean() < 0.7 * compressed[:10].mean()


def test_compressed_gradients_are_refused_in_double_precision() -> None:
    training = TrainingOptions(precision="fp64", gradient_compression="bf16")
    with pytest.raises(UsageError, match="leave one of them out"):
        small_options("store", "run", training=training)
