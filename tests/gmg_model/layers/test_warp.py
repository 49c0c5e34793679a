"""The deformable warp reads where its offsets say, by interpolation and by gathering."""

from __future__ import annotations

import pytest
import torch

from gmg_model.layers.warp import TAPS, Warp, gather_taps, sample_taps


def field(height: int = 5, width: int = 6) -> torch.Tensor:
    return torch.randn(2, 3, height, width, dtype=torch.float64)


@pytest.mark.parametrize("circular", [False, True])
@pytest.mark.parametrize("reach", [0.4, 3.0, 1e4])
@pytest.mark.parametrize("size", [(5, 6), (1, 1), (2, 3)])
def test_interpolating_and_gathering_agree_with_their_gradients(
    reach: float, circular: bool, size: tuple[int, int]
) -> None:
    results = []
    for taps in (sample_taps, gather_taps):
        torch.manual_seed(4)
        x = field(*size).requires_grad_()
        offsets = (torch.randn(2, 2 * TAPS, *size, dtype=torch.float64) * reach).requires_grad_()
        samples = taps(x, offsets, circular=circular)
        (samples * torch.arange(samples.numel()).view(samples.shape).cos()).sum().backward()
        results.append((samples.detach(), x.grad, offsets.grad))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_whole_offsets_shift_the_field_and_show_zero_outside() -> None:
    x = field()
    offsets = torch.zeros(2, 2 * TAPS, 5, 6, dtype=torch.float64)
    offsets[:, :TAPS] = 1  # rows
    offsets[:, TAPS:] = -2  # columns
    centre = sample_taps(x, offsets)[:, :, 4]
    torch.testing.assert_close(centre[..., :4, 2:], x[..., 1:, :-2])
    assert centre[..., 4, :].abs().max() < 1e-9
    assert centre[..., :2].abs().max() < 1e-9


def test_far_offsets_read_zero_or_wrap_around_the_globe() -> None:
    x = field()
    far = torch.full((2, 2 * TAPS, 5, 6), 1e6, dtype=torch.float64)
    assert (sample_taps(x, far) == 0).all()
    turns = torch.zeros(2, 2 * TAPS, 5, 6, dtype=torch.float64)
    turns[:, TAPS:] = 6 * 1000 + 2
    centre = sample_taps(x, turns, circular=True)[:, :, 4]
    torch.testing.assert_close(centre, x.roll(-2, dims=-1))


def test_without_offsets_the_warp_is_a_masked_three_by_three_convolution() -> None:
    warp = Warp(3).double()
    torch.nn.init.constant_(warp.warp_gate.bias, 0.7)
    x = field()
    found = warp(x, torch.zeros(2, 2 * TAPS, 5, 6, dtype=torch.float64))
    mask = torch.sigmoid(torch.tensor(0.7, dtype=torch.float64))
    expected = mask * torch.nn.functional.conv2d(x, warp.conv.weight, padding=1)
    torch.testing.assert_close(found, expected)


def test_each_tap_has_its_own_place_in_the_mosaic() -> None:
    warp = Warp(1).double()
    torch.nn.init.zeros_(warp.conv.weight)
    with torch.no_grad():
        warp.conv.weight[0, 0, 0, 2] = 2.0  # the tap of the upper right neighbour
    torch.nn.init.constant_(warp.warp_gate.bias, 100.0)
    x = field()[:, :1]
    found = warp(x, torch.zeros(2, 2 * TAPS, 5, 6, dtype=torch.float64))
    torch.testing.assert_close(found[..., 1:, :-1], 2 * x[..., :-1, 1:])
