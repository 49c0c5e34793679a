"""What every user of a recurrent model in its default form can rely on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gmg_model.errors import ConfigurationError

# With weights for each cell of the patch grid.
GRID_BOUND = ("mim", "motionrnn-mim", "e3dlstm", "motionrnn-e3dlstm")
NAMES = (
    "gmg-l",
    "gmg-m",
    "gmg-s",
    "motionrnn-predrnn",
    "motionrnn-convlstm",
    *GRID_BOUND,
    "predrnn",
)
Make = Callable[..., Any]


def clips(batch: int = 2, frames: int = 3, size: tuple[int, int] = (8, 12), channels: int = 1):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(batch, frames, channels, *size, generator=generator)


@torch.no_grad()
def forecast(model: Any, frames: Tensor, horizon: int = 4, **options: Any) -> Tensor:
    return model(frames, horizon, **options)


@pytest.mark.parametrize("name", NAMES)
def test_a_forecast_does_not_depend_on_the_position_in_the_batch(small: Make, name: str) -> None:
    model, frames = small(name), clips(batch=16)
    together = forecast(model, frames)
    order = torch.randperm(16)
    torch.testing.assert_close(forecast(model, frames[order]), together[order], rtol=0, atol=1e-5)
    alone = torch.cat([forecast(model, frames[i : i + 1]) for i in range(16)])
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 1e-3


def test_the_published_decay_depends_on_the_position_in_the_batch(small: Make) -> None:
    model = small("gmg-l", compat="official", initial_states="zeros")
    same = clips(batch=1).repeat(3, 1, 1, 1, 1)
    outputs = forecast(model, same, 6)
    assert (outputs[0] - outputs[2]).abs().max() > 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_repeated_calls_are_bit_equal_even_after_a_batch_of_another_size(
    small: Make, name: str
) -> None:
    model, frames = small(name).eval(), clips()
    first = forecast(model, frames)
    forecast(model, clips(batch=5, size=(8, 12) if name in GRID_BOUND else (16, 8)))
    assert torch.equal(forecast(model, frames), first)


@pytest.mark.parametrize("name", NAMES)
def test_a_short_forecast_is_the_start_of_a_long_one(small: Make, name: str) -> None:
    model, frames = small(name), clips()
    long = forecast(model, frames, 20)
    assert long.shape == (2, 20, 1, 8, 12)
    assert torch.equal(forecast(model, frames, 5), long[:, :5])


@pytest.mark.parametrize("name", NAMES)
def test_frames_after_the_observed_ones_never_reach_a_free_running_output(
    small: Make, name: str
) -> None:
    model, frames = small(name), clips(frames=7)
    changed = frames.clone()
    changed[:, 3:] = 100.0
    with torch.no_grad():
        outputs = model.one_step_outputs(frames, 3)
        assert torch.equal(model.one_step_outputs(changed, 3), outputs)
    assert torch.equal(outputs[:, 2:], forecast(model, frames[:, :3], 4))


def test_a_forced_frame_reaches_only_later_outputs_of_its_own_sample(small: Make) -> None:
    model, frames = small(), clips(frames=7)
    forced = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    with torch.no_grad():
        free = model.one_step_outputs(frames, 3)
        outputs = model.one_step_outputs(frames, 3, forced)
    assert torch.equal(outputs[1], free[1])
    assert torch.equal(outputs[0, :4], free[0, :4])
    assert (outputs[0, 4] - free[0, 4]).abs().max() > 1e-4


def test_forcing_every_frame_feeds_the_window_itself(small: Make) -> None:
    model, frames = small(), clips(frames=6)
    with torch.no_grad():
        forced = model.one_step_outputs(frames, 2, torch.ones(2, 3))
        observed = model.one_step_outputs(frames, 5)
    torch.testing.assert_close(forced, observed, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES[:-1])
@pytest.mark.parametrize("half", [False, True], ids=["fp32", "bf16"])
def test_two_hundred_steps_stay_finite(small: Make, name: str, half: bool) -> None:
    model = small(name, hidden=(8,) * (2 if "e3dlstm" in name else 4))
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        outputs = forecast(model, clips(batch=1), 200)
    assert outputs.dtype == torch.float32
    assert outputs.isfinite().all()


def test_half_precision_stays_near_the_full_forecast(small: Make) -> None:
    model, frames = small(), clips()
    full = forecast(model, frames, 8)
    with torch.autocast("cpu", torch.bfloat16):
        half = forecast(model, frames, 8)
    error = (half - full).abs().max() / full.abs().max()
    assert 0 < error < 0.03


def test_double_precision_is_used_throughout(small: Make) -> None:
    frames = clips()
    single = forecast(small(), frames, 6)
    double = forecast(small().double(), frames.double(), 6)
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single, rtol=0, atol=1e-5)
    with torch.no_grad():
        forced = small().double().one_step_outputs(frames.double(), 1, torch.ones(2, 1))
    assert forced.dtype == torch.float64


@pytest.mark.parametrize("name", ["gmg-l", "motionrnn-mim"])
def test_odd_grids_are_padded_by_repeating_the_edge_and_cropped_back(
    small: Make, name: str
) -> None:
    model, frames = small(name), clips(size=(7, 10))
    outputs = forecast(model, frames)
    assert outputs.shape == (2, 4, 1, 7, 10)
    by_hand = torch.nn.functional.pad(frames, (0, 2, 0, 1, 0, 0), mode="replicate")
    assert torch.equal(outputs, forecast(model, by_hand)[..., :7, :10])


def test_the_published_form_raises_for_odd_grids_and_names_the_sizes(small: Make) -> None:
    model = small(compat="official", initial_states="zeros")
    with pytest.raises(ConfigurationError, match=r"7 x 10.*multiples of 4.*8 x 12"):
        forecast(model, clips(size=(7, 10)))


@pytest.mark.parametrize("name", NAMES)
def test_a_circular_model_is_equivariant_to_rolling_the_longitudes(small: Make, name: str) -> None:
    frames = clips(size=(8, 16))
    rolled = frames.roll(4, dims=-1)
    reach: dict[str, Any] = {"in_shape": (1, 8, 16)}
    if name.startswith(("gmg", "motionrnn")):
        reach["offset_scale"] = 3.0
    model = small(name, circular=True, **reach)
    expected = forecast(model, frames, 6).roll(4, dims=-1)
    torch.testing.assert_close(forecast(model, rolled, 6), expected, rtol=0, atol=1e-5)
    bounded_by_edges = small(name, **reach)
    elsewhere = forecast(bounded_by_edges, frames, 6).roll(4, dims=-1)
    assert (forecast(bounded_by_edges, rolled, 6) - elsewhere).abs().max() > 1e-4


@pytest.mark.parametrize("name", ["gmg-l", "gmg-m", "mim", "e3dlstm"])
def test_an_untrained_residual_model_is_persistence_at_all_lead_times(
    small: Make, name: str
) -> None:
    model, frames = small(name, residual=True), clips()
    last = frames[:, -1:].expand(-1, 50, -1, -1, -1)
    assert torch.equal(forecast(model, frames, 50), last)


def test_a_residual_model_adds_its_output_to_the_frame_it_was_fed(small: Make) -> None:
    plain, residual = small(), small(residual=True)
    residual.load_state_dict(plain.state_dict())
    frames = clips()
    change = forecast(plain, frames, 1)
    assert torch.equal(forecast(residual, frames, 1), frames[:, -1:] + change)


def test_xavier_states_are_drawn_from_the_given_generator(small: Make) -> None:
    model, frames = small(initial_states="xavier"), clips()

    def with_seed(seed: int) -> Tensor:
        return forecast(model, frames, generator=torch.Generator().manual_seed(seed))

    assert torch.equal(with_seed(1), with_seed(1))
    assert not torch.equal(with_seed(1), with_seed(2))
    assert torch.equal(forecast(model, frames), forecast(model, frames))
    assert not torch.equal(forecast(model, frames), forecast(small(), frames))


@pytest.mark.parametrize(
    "option", [{"focus": "pooled"}, {"decay": "elapsed"}, {"decay": "none"}, {"offset_scale": 3.0}]
)
def test_every_option_changes_the_forecast(small: Make, option: dict[str, Any]) -> None:
    frames = clips()
    model, plain = small(**option), small()
    model.load_state_dict(plain.state_dict(), strict=False)
    assert (forecast(model, frames, 6) - forecast(plain, frames, 6)).abs().max() > 1e-6


@pytest.mark.parametrize(
    ("motion", "same_as"), [("motiongru", "motionrnn-predrnn"), ("none", "predrnn")]
)
@pytest.mark.parametrize("compat", ["default", "official"])
def test_gmg_without_its_modules_is_the_model_that_it_extends(
    small: Make, motion: str, same_as: str, compat: str
) -> None:
    options = {"compat": compat, "initial_states": "zeros"}
    bare = small("gmg-l", global_focus="none", attention=False, motion=motion, **options)
    known = small(same_as, **options)
    bare.load_state_dict(known.state_dict())
    assert torch.equal(forecast(bare, clips(), 6), forecast(known, clips(), 6))


@torch.no_grad()
def largest_offset(model: Any, frames: Tensor, steps: int) -> float:
    patches = torch.randn(1, 4, *(size // 2 for size in frames.shape[-2:]))
    state, largest = model.initial_state(patches), 0.0
    for _ in range(steps):
        patches, state = model.step(model.read(patches, state), state)
        largest = max(largest, *(offsets.abs().max().item() for offsets in state.filters))
    return largest


def test_bounded_offsets_stay_within_one_cell_and_additive_ones_do_not(small: Make) -> None:
    bounded, additive = small(), small(compat="official", initial_states="zeros")
    for model in (bounded, additive):
        for motion in model.motion_list:
            torch.nn.init.constant_(motion.output.bias, 5.0)
            torch.nn.init.constant_(motion.global_growth_module.alpha_default, 3.0)
    assert 0.5 < largest_offset(bounded, clips(), 40) <= 1
    assert largest_offset(additive, clips(), 40) > 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"horizon": 0}, "horizon=0"),
        ({}, "horizon=None and input_frames=None"),
        ({"horizon": 2, "input_frames": 2}, "horizon=2 and input_frames=2"),
        ({"input_frames": 3}, "1 to 2"),
        ({"input_frames": 1, "forced": torch.ones(2, 5)}, r"\(2, 5\).*\(2, 1\)"),
        ({"horizon": 2, "forced": torch.ones(2, 1)}, "frames belong to training"),
    ],
)
def test_impossible_calls_raise_an_error_that_says_what_to_give(
    small: Make, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        small()(clips(), **arguments)


@pytest.mark.parametrize(
    ("frames", "message"),
    [(torch.zeros(3, 1, 8, 8), "batch, frames, channels"), (clips(channels=2), "made with 1")],
)
def test_frames_of_the_wrong_shape_raise(small: Make, frames: Tensor, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        small()(frames, 2)
