"""Memory In Memory: its equations, its weights per grid cell, its published checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import gmg_model
from gmg_model.errors import ConfigurationError
from gmg_model.layers.lstm import LSTMState
from gmg_model.layers.mim import MIMBlock, MIMMemory, MIMState

Make = Callable[..., Any]


def counts(name: str, **options: Any) -> dict[str, int]:
    with torch.device("meta"):
        model = gmg_model.create_model(name, **options)
    return {key: weight.numel() for key, weight in model.named_parameters()}


def patches(batch: int = 2) -> Tensor:
    return torch.randn(batch, 4, 4, 6, generator=torch.Generator().manual_seed(2))


def test_mim_has_the_published_weights_except_the_dead_ones() -> None:
    total, dead = sum(counts("mim").values()), 3 * 256 * 128
    assert round(total / 1e6, 3) == 37.945
    assert round((total + dead) / 1e6, 2) == 38.04


def test_convolutions_alone_count_what_the_motionrnn_paper_prints() -> None:
    # Its Table 2 (human motion, 64 channels) leaves out the peepholes.
    sizes = {"in_shape": (3, 128, 128), "patch_size": 4, "hidden": (64, 64, 64, 64)}
    found = counts("mim", **sizes)
    peepholes = sum(n for key, n in found.items() if key.endswith(("ct_weight", "oc_weight")))
    assert peepholes == 3 * 2 * 3 * 64 * 32 * 32
    assert round((sum(found.values()) - peepholes) / 1e6, 2) == 9.79


def test_motionrnn_adds_as_many_weights_to_mim_as_to_predrnn() -> None:
    # Computed, not published: no paper counts this combination at these sizes.
    added = sum(counts("motionrnn-mim").values()) - sum(counts("mim").values())
    assert (
        added == sum(counts("motionrnn-predrnn").values()) - sum(counts("predrnn").values()) > 3e6
    )
    assert round(sum(counts("motionrnn-mim").values()) / 1e6, 3) == 41.018


@torch.no_grad()
def test_a_block_follows_the_equations_of_the_paper() -> None:
    n, grid = 4, (5, 6)
    block = MIMBlock(n, 3, grid).double()
    for weight in block.parameters():
        weight.normal_(std=0.3)
    x, h, c, s, h_n, c_n, m, d = torch.randn(8, 2, n, *grid, dtype=torch.float64)

    def convolution(tensor: Tensor, layer: Any) -> tuple[Tensor, ...]:
        return F.conv2d(tensor, layer.weight, padding=1).split(n, dim=1)

    def memory_cell(part: Any, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i_x, g_x, f_x, o_x = convolution(x, part.conv_x_concat)
        i_h, g_h, f_h, o_h = convolution(h, part.conv_h_concat)
        i = torch.sigmoid(i_x + i_h + part.ct_weight[:n] * c)
        f = torch.sigmoid(f_x + f_h + part.ct_weight[n:] * c + 1)
        c = f * c + i * torch.tanh(g_x + g_h)
        return torch.sigmoid(o_x + o_h + part.oc_weight * c) * torch.tanh(c), c

    difference, memory_n = memory_cell(block.non_stationary, d, h_n, c_n)
    transition, memory_s = memory_cell(block.stationary, difference, c, s)
    i_x, g_x, f_x, o_x = convolution(x, block.conv_x_cc)
    i_t, g_t, o_t = convolution(h, block.conv_t_cc)
    i_m, g_m, f_m, o_m = convolution(m, block.conv_s_cc)
    cell = transition + torch.sigmoid(i_x + i_t) * torch.tanh(g_x + g_t)
    spatial = torch.sigmoid(f_x + f_m + 1) * m + torch.sigmoid(i_x + i_m) * torch.tanh(g_x + g_m)
    output = torch.sigmoid(o_x + o_t + o_m)
    hidden = output * torch.tanh(F.conv2d(torch.cat([cell, spatial], 1), block.conv_last.weight))

    kernels = block.kernels()
    before = MIMState(h, c, s, LSTMState(h_n, c_n), None)
    found = block.advance(block.read(x, kernels), before, MIMMemory(m, d), kernels)
    state = found.state
    for name, ours, theirs in (
        ("H", found.hidden, hidden),
        ("o", found.output_gate, output),
        ("C", state.cell, cell),
        ("S", state.stationary, memory_s),
        ("D", state.non_stationary.hidden, difference),
        ("N", state.non_stationary.cell, memory_n),
        ("M", found.memory.spatial, spatial),
    ):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-12), name
    assert found.memory.difference is state.non_stationary.hidden


@torch.no_grad()
def test_differences_begin_at_the_second_frame_and_reach_all_blocks_at_once(small: Make) -> None:
    model = small("mim")
    state = model.initial_state(patches())
    for step in range(2):
        _, state = model.step(model.read(patches() * (1 + step), state), state)
        outputs = [cell.non_stationary.hidden.abs().max() for cell in state.cells[1:]]
        assert all((output > 0) == (step > 0) for output in outputs)
    assert state.cells[1].below is not None
    assert state.cells[2].below is None


@torch.no_grad()
@pytest.mark.parametrize("recurrent", ["post", "pre"])
def test_differences_are_those_of_the_moved_states(small: Make, recurrent: str) -> None:
    model = small("motionrnn-mim", recurrent=recurrent)
    state = model.initial_state(patches())
    _, state = model.step(model.read(patches(), state), state)
    entry, first = state.cells[:2]
    # "post" keeps the moved state as cell 1's H; "pre" keeps the one before the motion module.
    assert torch.equal(first.below, entry.hidden) == (recurrent == "post")


def test_recomputing_steps_from_random_first_states_gives_the_same_gradients(small: Make) -> None:
    found = []
    for recompute in (False, True):
        model = small("motionrnn-mim", checkpoint_steps=recompute, initial_states="xavier")
        frames = torch.randn(2, 6, 1, 8, 12, generator=torch.Generator().manual_seed(5))
        model(frames, input_frames=3).square().mean().backward()
        found.append([weight.grad for weight in model.parameters()])
    for plain, lean in zip(*found, strict=True):
        torch.testing.assert_close(lean, plain, rtol=1e-4, atol=1e-7)


@torch.no_grad()
def test_memories_keep_full_precision_under_autocast(small: Make) -> None:
    model = small("mim")
    with torch.autocast("cpu", torch.bfloat16):
        state = model.initial_state(patches())
        for _ in range(3):
            _, state = model.step(model.read(patches(), state), state)
    kept = [(cell.cell, cell.stationary, cell.non_stationary.cell) for cell in state.cells[1:]]
    kept = [*(memory for memories in kept for memory in memories), state.memory.spatial]
    assert {memory.dtype for memory in kept} == {torch.float32}


def test_frames_of_another_grid_raise_an_error_that_names_both_grids(small: Make) -> None:
    model = small("mim")
    assert model(torch.zeros(1, 2, 1, 7, 11), 1).shape == (1, 1, 1, 7, 11)  # padded to 8 x 12
    message = r"16 x 8 make a grid of 8 x 4 .*in_shape=\(1, 8, 12\).*4 x 6.*give frames of 8 x 12"
    with pytest.raises(ConfigurationError, match=message):
        model(torch.zeros(1, 2, 1, 16, 8), 1)


def published(n: int = 8, grid: tuple[int, int] = (4, 6)) -> dict[str, Tensor]:
    """Return tensors with the names and shapes of the published code."""
    first = {"conv_x": (7 * n, 4), "conv_h": (4 * n, n), "conv_m": (3 * n, n), "conv_o": (n, 2 * n)}
    block = {"conv_t_cc": 3 * n, "conv_s_cc": 4 * n, "conv_x_cc": 4 * n}
    memory = {"conv_h_concat": 4 * n, "conv_x_concat": 4 * n}
    peepholes = {"ct_weight": (2 * n, *grid), "oc_weight": (n, *grid)}
    shapes: dict[str, tuple[int, ...]] = {"conv_last.weight": (4, n, 1, 1)}
    shapes |= {f"stlstm_layer.0.{k}.0.weight": (*s, 5, 5) for k, s in first.items()}
    shapes |= {f"stlstm_layer.{i}.conv_last.weight": (n, 2 * n, 1, 1) for i in range(4)}
    for i in range(3):
        above, between = f"stlstm_layer.{i + 1}", f"stlstm_layer_diff.{i}"
        shapes |= {f"{above}.{k}.0.weight": (o, n, 5, 5) for k, o in (block | memory).items()}
        shapes |= {f"{between}.{k}.0.weight": (o, n, 5, 5) for k, o in memory.items()}
        shapes |= {f"{place}.{k}": s for place in (above, between) for k, s in peepholes.items()}
        shapes[f"{between}.conv_last.weight"] = (n, 2 * n, 1, 1)  # no output depends on it
    generator = torch.Generator().manual_seed(4)
    return {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}


@pytest.mark.parametrize("prefix", ["", "model."])
def test_published_checkpoints_load_by_their_own_names(small: Make, prefix: str) -> None:
    model, tensors = small("mim", compat="official"), published()
    gmg_model.load_official(model, {prefix + key: value for key, value in tensors.items()})
    above = model.cell_list[2]
    for ours, theirs in (
        (above.non_stationary.ct_weight, "stlstm_layer_diff.1.ct_weight"),
        (above.stationary.oc_weight, "stlstm_layer.2.oc_weight"),
        (above.stationary.conv_h_concat[0].weight, "stlstm_layer.2.conv_h_concat.0.weight"),
        (above.conv_t_cc[0].weight, "stlstm_layer.2.conv_t_cc.0.weight"),
        (above.conv_last.weight, "stlstm_layer.2.conv_last.weight"),
    ):
        assert torch.equal(ours, tensors[theirs])
    again = small("mim")
    gmg_model.load_official(again, {prefix + k: v for k, v in model.state_dict().items()})
    assert torch.equal(again.cell_list[3].conv_last.weight, model.cell_list[3].conv_last.weight)
