"""E3D-LSTM: its equations with 2-D in place of 3-D convolutions, the recall and its history."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gmg_model
from gmg_model.errors import ConfigurationError
from gmg_model.layers.e3d_lstm import EideticLSTM, EideticState

Make = Callable[..., Any]
HIDDEN, GRID = 4, (3, 5)


def count(name: str, **options: Any) -> int:
    with torch.device("meta"):
        model = gmg_model.create_model(name, **options)
    return sum(weight.numel() for weight in model.parameters())


def window() -> Tensor:
    return torch.randn(2, 6, 1, 8, 12, generator=torch.Generator().manual_seed(3))


def test_e3d_lstm_has_the_published_count() -> None:
    assert round(count("e3dlstm") / 1e6, 2) == 51.35


def test_motionrnn_adds_as_many_weights_to_e3d_lstm_as_its_paper_prints() -> None:
    # Table 2 of MotionRNN (human motion, 64 channels): from 20.4 M to 21.3 M, there on a backbone
    # of 3 x 5 x 5 kernels. Its patch projection for the highway is ours alone.
    sizes = {"in_shape": (3, 128, 128), "patch_size": 4, "hidden": (64, 64, 64, 64)}
    added = count("motionrnn-e3dlstm", **sizes) - count("e3dlstm", **sizes) - 48 * 64
    assert round(added / 1e6, 1) == 0.9
    # Computed, not published, at the sizes of Moving MNIST:
    assert round(count("motionrnn-e3dlstm") / 1e6, 3) == 54.924


def cell(**options: Any) -> EideticLSTM:
    torch.manual_seed(1)
    made = EideticLSTM(HIDDEN, HIDDEN, 3, GRID, **({"of_frames": False} | options)).double()
    for weight in made.parameters():
        nn.init.normal_(weight, std=0.3)
    return made


def states(batch: int = 2, depth: int = 2) -> Tensor:
    return torch.randn(batch, HIDDEN, depth, *GRID, dtype=torch.float64)


def over_depth(x: Tensor, layer: Any) -> Tensor:
    """Run a 3-D convolution without padding in depth; repeat the result over that depth."""
    return F.conv3d(x, layer.weight, padding=(0, 1, 1)).expand(-1, -1, x.shape[2], -1, -1)


@torch.no_grad()
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("published_recall", [True, False])
def test_a_cell_follows_the_equations_with_3d_convolutions(
    fused: bool, published_recall: bool
) -> None:
    ours = cell(fused=fused, published_recall=published_recall)
    x, h, c, *older = (states() for _ in range(5))
    m = states(depth=1)
    m2 = m.expand(-1, -1, 2, -1, -1)

    def rows(tensor: Tensor) -> Tensor:
        """What attends and is attended to: the channels of a position, or runs of memory."""
        if published_recall:
            return tensor.reshape(len(tensor), -1, HIDDEN)
        return torch.stack([tensor[:, :, d, i, j] for d, i, j in positions], dim=1)

    positions = [(d, i, j) for d in range(2) for i in range(GRID[0]) for j in range(GRID[1])]
    i_h, g_h, r_h, o_h = over_depth(h, ours.conv_h).split(HIDDEN, dim=1)
    i_x, g_x, r_x, o_x, i_y, g_y, f_y = over_depth(x, ours.conv_x).split(HIDDEN, dim=1)
    query = rows(torch.sigmoid(r_x + r_h).contiguous())
    keys = torch.cat([rows(each) for each in (*older, c)], dim=1)
    found = (query @ keys.transpose(1, 2)).softmax(-1) @ keys
    if published_recall:
        recalled = found.reshape(c.shape)
    else:
        recalled = found.transpose(1, 2).reshape(c.shape)
    normed = F.layer_norm(c + recalled, c.shape[1:], ours.norm.weight, ours.norm.bias)
    new_c = normed + torch.sigmoid(i_x + i_h) * torch.tanh(g_x + g_h)
    i_m, f_m, g_m, m_m = over_depth(m2, ours.conv_gm).split(HIDDEN, dim=1)
    forget = torch.sigmoid(f_y + f_m + 1)
    new_m = forget * torch.tanh(m_m) + torch.sigmoid(i_y + i_m) * torch.tanh(g_y + g_m)
    output = o_x + o_h + over_depth(new_c, ours.conv_new_cell) + over_depth(new_m, ours.conv_new_gm)
    output = torch.sigmoid(torch.tanh(output))
    new_h = output * torch.tanh(F.conv3d(torch.cat([new_c, new_m], 1), ours.conv_last.weight))

    kernels = ours.kernels()
    history = tuple(rows(each) for each in older)
    before = EideticState(h, c, history, None)
    after = ours.advance(ours.read(x, kernels), before, m[:, :, 0], kernels)
    for name, mine, theirs in (
        ("H", after.hidden, new_h),
        ("o", after.output_gate.expand_as(output), output),
        ("C", after.state.cell, new_c),
        ("M", after.memory, new_m[:, :, 0]),
    ):
        assert torch.allclose(mine, theirs, rtol=0, atol=1e-12), name
    assert len(after.state.history) == 3


@torch.no_grad()
def test_cell_one_sees_each_frame_with_the_one_before() -> None:
    first = cell(of_frames=True)
    frames = torch.randn(3, 2, HIDDEN, *GRID, dtype=torch.float64)
    kernels = first.kernels()
    state = EideticState(states(), states(), (), None)
    memory, previous = states()[:, :, 0], torch.zeros_like(frames[0])
    above = cell(of_frames=False)
    above.load_state_dict(first.state_dict())
    for frame in frames:
        pair = torch.stack([previous, frame], dim=2)
        expected = above.advance(
            above.read(pair, above.kernels()), state, memory, above.kernels()
        ).hidden
        out = first.advance(first.read(frame, kernels), state, memory, kernels)
        assert torch.allclose(out.hidden, expected, rtol=0, atol=1e-12)
        state, memory, previous = out.state, out.memory, frame


@torch.no_grad()
def test_recall_reaches_back_as_far_as_its_memory(small: Make) -> None:
    frames = window()
    everything = small("e3dlstm")(frames, 4)
    assert torch.equal(small("e3dlstm", memory_length=9)(frames, 4), everything)
    forgetful = small("e3dlstm", memory_length=2)
    assert (forgetful(frames, 4) - everything).abs().max() > 1e-4
    state = forgetful.initial_state(torch.zeros(1, 4, 4, 6))
    for _ in range(5):
        _, state = forgetful.step(forgetful.read(torch.ones(1, 4, 4, 6), state), state)
    assert [len(cell.history) for cell in state.cells] == [2, 2, 2, 2]


@torch.no_grad()
def test_a_cell_hands_on_its_new_global_memory_unlike_the_published_code(small: Make) -> None:
    model, patches = small("e3dlstm", compat="official"), torch.ones(1, 4, 4, 6)
    state = model.initial_state(patches)
    _, state = model.step(model.read(patches, state), state)
    lost = state._replace(memory=torch.zeros_like(state.memory))
    (kept, _), (without, _) = (model.step(model.read(patches, s), s) for s in (state, lost))
    assert (kept - without).abs().max() > 1e-6


@torch.no_grad()
def test_published_recall_mixes_channels_with_positions(small: Make) -> None:
    default, official = small("e3dlstm"), small("e3dlstm", compat="official")
    assert (default(window(), 2) - official(window(), 2)).abs().max() > 1e-5


@torch.no_grad()
def test_memories_keep_full_precision_under_autocast(small: Make) -> None:
    model = small("motionrnn-e3dlstm")
    with torch.autocast("cpu", torch.bfloat16):
        state = model.initial_state(torch.zeros(1, 4, 4, 6))
        for _ in range(2):
            _, state = model.step(model.read(torch.ones(1, 4, 4, 6), state), state)
    assert {cell.cell.dtype for cell in state.cells} == {state.memory.dtype} == {torch.float32}
    # The history of the recall is stored in half precision, in which it is multiplied anyway.
    assert state.cells[0].history[0].dtype == torch.bfloat16
    half = small("e3dlstm")
    with torch.autocast("cpu", torch.bfloat16):
        found = half(window(), 4)
    expected = small("e3dlstm")(window(), 4)
    assert 0 < (found - expected).abs().max() / expected.abs().max() < 0.05


@torch.no_grad()
def test_random_first_states_span_the_window(small: Make) -> None:
    model = small("motionrnn-e3dlstm", initial_states="xavier")
    state = model.initial_state(torch.zeros(1, 4, 4, 6))
    first = state.cells[0].hidden
    assert first.shape == (1, 8, 2, 4, 6)
    assert not torch.equal(first[:, :, 0], first[:, :, 1])
    assert model(window(), 3).isfinite().all()


def test_recomputed_steps_give_the_same_gradients(small: Make) -> None:
    found = []
    for recompute in (False, True):
        model = small("motionrnn-e3dlstm", checkpoint_steps=recompute)
        model(window(), input_frames=3).square().mean().backward()
        found.append([weight.grad for weight in model.parameters()])
    for plain, lean in zip(*found, strict=True):
        torch.testing.assert_close(lean, plain, rtol=1e-4, atol=1e-7)


@torch.no_grad()
def test_motion_modules_between_windows_equal_3d_convolutions(small: Make) -> None:
    model = small("motionrnn-e3dlstm").double()
    h = torch.randn(2, 8, 2, 4, 6, dtype=torch.float64)
    offsets, trend = torch.randn(2, 2, 18, 2, 3, dtype=torch.float64)
    encoded = model.enc_list[0](h).squeeze(2)
    warped, new_offsets, new_trend = model.motion_list[0](encoded, offsets, trend, torch.zeros(()))
    decoded = model.dec_list[0](warped.unsqueeze(2))
    frames = [
        torch.sigmoid(model.gate_list[0](torch.cat([decoded[:, :, d], h[:, :, d]], dim=1)))
        for d in range(2)
    ]
    share = torch.stack(frames, dim=2)
    found = model._move(0, h, offsets, trend, torch.zeros(()))
    for mine, theirs in zip(
        found, (share * decoded + (1 - share) * h, new_offsets, new_trend), strict=True
    ):
        assert torch.allclose(mine, theirs, rtol=0, atol=1e-12)


def test_impossible_options_of_e3d_lstm_raise(small: Make) -> None:
    with pytest.raises(ConfigurationError, match="memory_length=0 states: give 1 or more"):
        small("e3dlstm", memory_length=0)
    with pytest.raises(ConfigurationError, match="memory_length is fixed by the name predrnn"):
        small("predrnn", memory_length=3)
    with pytest.raises(ConfigurationError, match="cannot be compiled"):
        small("motionrnn-e3dlstm").compile_steps()
    with pytest.raises(ConfigurationError, match=r"grid of 4 x 6: give frames of 8 x 12"):
        small("e3dlstm")(torch.zeros(1, 2, 1, 8, 16), 1)


def test_published_checkpoints_load_by_their_own_names(small: Make) -> None:
    model, n = small("e3dlstm", compat="official"), 8
    kernels = {"conv_h": 4 * n, "conv_gm": 4 * n, "conv_new_cell": n, "conv_new_gm": n}
    shapes: dict[str, tuple[int, ...]] = {"conv_last.weight": (4, n, 2, 1, 1)}
    for i in range(4):
        place = f"cell_list.{i}"
        shapes |= {f"{place}._norm_c_t.{kind}": (n, 2, 4, 6) for kind in ("weight", "bias")}
        shapes |= {f"{place}.{k}.0.conv3d.weight": (o, n, 2, 5, 5) for k, o in kernels.items()}
        shapes[f"{place}.conv_x.0.conv3d.weight"] = (7 * n, n if i else 4, 2, 5, 5)
        shapes[f"{place}.conv_last.conv3d.weight"] = (n, 2 * n, 1, 1, 1)
    tensors = {key: torch.randn(shape) for key, shape in shapes.items()}
    gmg_model.load_official(model, {f"model.{key}": value for key, value in tensors.items()})
    loaded = model.cell_list[1]
    assert torch.equal(loaded.norm.bias, tensors["cell_list.1._norm_c_t.bias"])
    assert torch.equal(loaded.conv_gm.weight, tensors["cell_list.1.conv_gm.0.conv3d.weight"])
    assert torch.equal(model.conv_last.weight, tensors["conv_last.weight"])
    again = small("e3dlstm")
    gmg_model.load_official(again, model.state_dict())
    assert torch.equal(again.cell_list[3].norm.weight, model.cell_list[3].norm.weight)
