"""Patches and padding."""

from __future__ import annotations

import pytest
import torch

from gmg_model.errors import ConfigurationError
from gmg_model.layers.patches import GridPadding, patchify, unpatchify


def test_patch_channels_are_ordered_by_row_then_column_then_channel() -> None:
    frames = torch.arange(2 * 4 * 6.0).view(1, 2, 4, 6)
    patches = patchify(frames, 2)
    assert patches.shape == (1, 8, 2, 3)
    row, column, channel = 1, 0, 1
    position = (row * 2 + column) * 2 + channel
    assert patches[0, position, 1, 2] == frames[0, channel, 2 * 1 + row, 2 * 2 + column]


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_unpatchify_undoes_patchify(patch: int) -> None:
    frames = torch.randn(2, 3, 5, 8, 12)
    assert torch.equal(unpatchify(patchify(frames, patch), patch), frames)


def test_edges_repeat_and_longitudes_wrap() -> None:
    frames = torch.arange(6.0).view(1, 2, 3)
    assert GridPadding(4).pad(frames)[0].tolist() == [
        [0, 1, 2, 2],
        [3, 4, 5, 5],
        [3, 4, 5, 5],
        [3, 4, 5, 5],
    ]
    assert GridPadding(4, circular=True).pad(frames)[0, 0].tolist() == [0, 1, 2, 0]


def test_a_grid_of_whole_patches_is_not_padded() -> None:
    frames = torch.randn(1, 8, 4)
    assert GridPadding(4, refuse=True).pad(frames) is frames


def test_the_error_for_an_odd_grid_names_the_sizes() -> None:
    with pytest.raises(ConfigurationError, match=r"101 x 64.*multiples of 8.*104 x 64"):
        GridPadding(8, refuse=True).pad(torch.zeros(1, 101, 64))
