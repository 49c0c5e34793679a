"""Convolutions in blocks, channels_last and reading ahead change no number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from gmg_model.layers import convolution
from gmg_model.layers.convolution import convolve

Make = Callable[..., Any]


@pytest.mark.parametrize("circular", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_blocks_of_a_wide_kernel_equal_the_whole(
    monkeypatch: pytest.MonkeyPatch, circular: bool, bias: bool
) -> None:
    x = torch.randn(2, 3, 6, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(11, 3, 5, 5, dtype=torch.float64, requires_grad=True)
    shift = torch.randn(11, dtype=torch.float64, requires_grad=True) if bias else None
    tensors = [x, weight] if shift is None else [x, weight, shift]

    def outcome() -> list[torch.Tensor]:
        outputs = convolve(x, weight, shift, circular=circular)
        return [outputs.detach(), *torch.autograd.grad(outputs.sin().sum(), tensors)]

    whole = outcome()
    monkeypatch.setattr(convolution, "CPU_BLOCK", 4)  # blocks of 4, 4 and 3
    for found, expected in zip(outcome(), whole, strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", ["gmg-l", "gmg-s", "motionrnn-predrnn"])
def test_channels_last_changes_no_number(small: Make, name: str) -> None:
    model = small(name)
    frames = torch.randn(2, 5, 1, 8, 12)
    expected = model(frames, input_frames=3)
    model.to(memory_format=torch.channels_last)
    assert model.cell_list[1].conv_x.weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(model(frames, input_frames=3), expected, rtol=0, atol=1e-5)


def test_all_frames_are_read_together_if_all_are_forced(
    small: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small()
    batches: list[int] = []
    read = model.read

    def counting(patches: torch.Tensor, state: Any) -> Any:
        batches.append(len(patches))
        return read(patches, state)

    monkeypatch.setattr(model, "read", counting)
    frames = torch.randn(2, 7, 1, 8, 12)
    with torch.no_grad():
        model(frames, input_frames=3, forced=torch.ones(2, 3))
        assert batches == [2 * 6]
        batches.clear()
        model(frames, input_frames=3, forced=torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 1.0]]))
    assert batches == [2 * 3, 2, 2, 2]
