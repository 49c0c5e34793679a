"""Compiled time steps give the same numbers, and the horizon does not change their graphs."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch._dynamo.testing import CompileCounter
from torch.nn.parallel import DistributedDataParallel

Make = Callable[..., Any]


@pytest.fixture(autouse=True)
def _nothing_compiled_before() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def window(frames: int = 7) -> Tensor:
    return torch.randn(2, frames, 1, 8, 12, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("options", [{}, {"decay": "elapsed", "noise": 1}])
def test_forecasts_of_every_length_run_on_two_graphs(small: Make, options: dict[str, Any]) -> None:
    model = small(hidden=(8, 8), **options)
    frames = window()[:, :3]
    with torch.no_grad():
        expected = model(frames, 9)
        graphs = CompileCounter()
        model.compile_steps(backend=graphs)
        torch.testing.assert_close(model(frames, 9), expected, rtol=0, atol=1e-5)
        assert graphs.frame_count == 2  # a frame known beforehand, a frame of its own
        model(frames, 20)
        model(window()[:, :5], 2)
    assert graphs.frame_count == 2


def test_training_adds_one_graph_for_the_first_step(small: Make) -> None:
    plain = small(hidden=(8, 8))
    model = copy.deepcopy(plain)
    graphs = CompileCounter()
    model.compile_steps(backend=graphs)
    frames, forced = window(), torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    for _ in range(2):
        for each in (plain, model):
            each.zero_grad()
            each(frames, input_frames=3, forced=forced).square().mean().backward()
    assert graphs.frame_count == 3
    for (name, weight), expected in zip(model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(weight.grad, expected.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_static_fields_are_read_by_compiled_steps_and_cost_no_graph(small: Make) -> None:
    plain = small(hidden=(8, 8), static_channels=2)
    fields = torch.randn(3, 2, 8, 12, generator=torch.Generator().manual_seed(6))
    plain.bind_static(fields[0])
    model = copy.deepcopy(plain)
    graphs = CompileCounter()
    model.compile_steps(backend=graphs)
    frames = window()
    with torch.no_grad():
        for given in ({}, {"static": fields[1]}, {"static": fields[1:]}):
            expected = plain(frames[:, :3], 4, **given)
            torch.testing.assert_close(
                model(frames[:, :3], 4, **given), expected, rtol=0, atol=1e-5
            )
    assert graphs.frame_count == 2


def test_more_shapes_and_precisions_than_torchs_own_limit_still_compile(small: Make) -> None:
    model = small("convlstm", hidden=(4,))
    graphs = CompileCounter()
    model.compile_steps(backend=graphs)
    weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
    for batch in (1, 2):
        frames = window(4)[:batch]
        for half in (False, True):
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                model(frames, input_frames=2).square().mean().backward()
                with torch.no_grad():
                    torch.func.functional_call(model, weights, (frames, 2))
    assert graphs.frame_count > 8  # torch's own limit


def test_a_copy_of_a_compiled_model_steps_with_its_own_weights(small: Make) -> None:
    model, frames = small(hidden=(8, 8)), window()[:, :2]
    model.compile_steps(backend=CompileCounter())
    with torch.no_grad():
        expected = model(frames, 2)
        other = copy.deepcopy(model)
        for weight in other.parameters():
            weight.zero_()
        assert (other(frames, 2) == 0).all()
        assert torch.equal(model(frames, 2), expected)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="inductor wants a C++ compiler: g++")
def test_generated_code_computes_the_same(small: Make) -> None:
    plain = small("gmg-s", hidden=(4, 4))
    model = copy.deepcopy(plain)
    model.compile_steps(options={"compile_threads": 1})  # one graph is not worth a pool
    frame = window()[:, :1]
    with torch.no_grad():
        torch.testing.assert_close(model(frame, 1), plain(frame, 1), rtol=0, atol=1e-5)


def test_compiled_steps_train_in_a_distributed_wrapper(small: Make) -> None:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        plain = small(hidden=(8, 8))
        model = copy.deepcopy(plain)
        graphs = CompileCounter()
        model.compile_steps(backend=graphs)
        wrapped = DistributedDataParallel(model)
        frames = window()
        for _ in range(2):
            outputs = wrapped(frames, input_frames=3)
            outputs.square().mean().backward()
        expected = plain(frames, input_frames=3)
        (2 * expected.square().mean()).backward()
        torch.testing.assert_close(outputs, expected, rtol=0, atol=1e-5)
        for (name, weight), same in zip(model.named_parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(weight.grad, same.grad, rtol=1e-4, atol=1e-6, msg=name)
        assert graphs.frame_count == 3
    finally:
        dist.destroy_process_group()
