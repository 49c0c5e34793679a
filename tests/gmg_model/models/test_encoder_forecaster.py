"""What every user of an encoder-forecaster (SRVP and its baselines) can rely on."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import gmg_model
from gmg_model.errors import ConfigurationError
from gmg_model.layers.causal_lstm import CausalLSTM, GradientHighway
from gmg_model.layers.conv_gru import ConvGRU
from gmg_model.training.losses import create_loss
from gmg_model.training.optimisation import Optimisation
from gmg_model.training.options import OptimisationOptions

NAMES = (
    "srvp",
    "srvp-convgru",
    "srvp-convlstm",
    "srvp-stlstm",
    "srvp-causallstm",
    "srvp-mim",
)
OBSERVED = 3


def make(name: str, **overrides: Any) -> Any:
    """Make a small, reproducible model for three observed frames of 8 x 12."""
    torch.manual_seed(7)
    options: dict[str, Any] = {"hidden": (8, 8), "in_shape": (1, 8, 12), "input_frames": OBSERVED}
    if name == "srvp":
        options["embedding"] = 4
    return gmg_model.create_model(name, **(options | overrides)).eval()


def clips(batch: int = 2, frames: int = OBSERVED, size: tuple[int, int] = (8, 12)) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(batch, frames, 1, *size, generator=generator)


@torch.no_grad()
def forecast(model: Any, frames: Tensor, horizon: int = 4, **options: Any) -> Tensor:
    return model(frames, horizon, **options)


@pytest.mark.parametrize("name", NAMES)
def test_a_forecast_does_not_depend_on_the_position_in_the_batch(name: str) -> None:
    model, frames = make(name), clips(batch=16)
    together = forecast(model, frames)
    order = torch.randperm(16)
    torch.testing.assert_close(forecast(model, frames[order]), together[order], rtol=0, atol=1e-5)
    alone = torch.cat([forecast(model, frames[i : i + 1]) for i in range(16)])
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_repeated_calls_are_bit_equal_even_after_a_batch_of_another_size(name: str) -> None:
    model, frames = make(name), clips()
    first = forecast(model, frames)
    forecast(model, clips(batch=5))
    assert torch.equal(forecast(model, frames), first)


@pytest.mark.parametrize("name", NAMES)
def test_a_short_forecast_is_the_start_of_a_long_one(name: str) -> None:
    model, frames = make(name, horizon=7), clips()
    long = forecast(model, frames, 12)
    assert long.shape == (2, 12, 1, 8, 12)
    assert torch.equal(forecast(model, frames, 5), long[:, :5])
    with torch.no_grad():
        assert torch.equal(model(frames), long[:, :7])


@pytest.mark.parametrize("name", NAMES)
def test_training_scores_the_horizon_and_future_frames_do_not_influence_it(
    name: str,
) -> None:
    model, window = make(name), clips(frames=7)
    changed = window.clone()
    changed[:, OBSERVED:] = 100.0
    with torch.no_grad():
        outputs = model(window, input_frames=OBSERVED)
        assert torch.equal(model(changed, input_frames=OBSERVED), outputs)
        whole = model.one_step_outputs(window, OBSERVED)
    assert torch.equal(outputs, forecast(model, window[:, :OBSERVED], 4))
    assert torch.equal(whole[:, OBSERVED - 1 :], outputs)
    assert torch.equal(whole[:, : OBSERVED - 1], window[:, : OBSERVED - 1])


def test_a_forced_frame_reaches_only_later_outputs_of_its_own_sample() -> None:
    model, window = make("srvp"), clips(frames=7)
    forced = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    with torch.no_grad():
        free = model(window, input_frames=OBSERVED)
        outputs = model(window, input_frames=OBSERVED, forced=forced)
    assert torch.equal(outputs[1], free[1])
    assert torch.equal(outputs[0, :2], free[0, :2])
    assert (outputs[0, 2] - free[0, 2]).abs().max() > 1e-4


def test_the_optimisation_scores_only_the_forecast_frames() -> None:
    model, window = make("srvp-convlstm"), clips(frames=7)
    optimisation = Optimisation(model, OptimisationOptions(loss="mse"), total_steps=1)
    losses = optimisation.backward(model, window, OBSERVED, None, weight=0.5)
    expected = create_loss("mse")(forecast(model, window[:, :OBSERVED]), window[:, OBSERVED:])
    torch.testing.assert_close(losses, expected.double())


def test_the_forecaster_starts_from_all_states_and_the_memory_of_the_encoder() -> None:
    model, frames = make("srvp-stlstm"), clips()
    state, first = model.begin(frames)
    by_hand = model.initial_state(frames[:, 0])
    for frame in frames.unbind(1):
        by_hand = model.encoder.advance(model.encoder.read(frame, by_hand), by_hand)
    assert first == OBSERVED - 1
    for of_forecaster, of_encoder in zip(state.layers.cells, by_hand.cells, strict=True):
        assert torch.equal(of_forecaster.hidden, of_encoder.hidden)
        assert torch.equal(of_forecaster.cell, of_encoder.cell)
    assert torch.equal(state.layers.memory, by_hand.memory)
    assert state.layers.memory.abs().max() > 1e-3


@pytest.mark.parametrize("name", NAMES[1:])
def test_the_last_observed_frame_is_fed_to_the_forecaster_as_well(name: str) -> None:
    model, frames = make(name), clips()
    with torch.no_grad():
        for weight in model.encoder.parameters():
            weight.zero_()  # the encoder then ends with states of zero, whatever it reads
    expected = forecast(model, frames)
    assert torch.equal(forecast(model, frames[:, -1:]), expected)
    assert (forecast(model, frames.flip(1)) - expected).abs().max() > 1e-3


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name", NAMES)
def test_two_hundred_steps_stay_finite(name: str, half: bool) -> None:
    model = make(name)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        outputs = forecast(model, clips(batch=1), 200)
    assert outputs.dtype == torch.float32
    assert outputs.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_stays_near_the_full_forecast(name: str) -> None:
    model, frames = make(name), clips()
    full = forecast(model, frames)
    with torch.autocast("cpu", torch.bfloat16):
        half = forecast(model, frames)
    assert 0 < (half - full).abs().max() / full.abs().max() < 0.03


@pytest.mark.parametrize("name", NAMES)
def test_double_precision_is_used_throughout(name: str) -> None:
    double = forecast(make(name).double(), clips().double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), forecast(make(name), clips()), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_odd_grids_are_padded_by_repeating_the_edge_and_cropped_back(name: str) -> None:
    model, frames = make(name, patch_size=4), clips(size=(7, 10))
    outputs = forecast(model, frames)
    assert outputs.shape == (2, 4, 1, 7, 10)
    by_hand = torch.nn.functional.pad(frames, (0, 2, 0, 1, 0, 0), mode="replicate")
    assert torch.equal(outputs, forecast(model, by_hand)[..., :7, :10])
    with pytest.raises(ConfigurationError, match=r"7 x 10.*multiples of 4.*8 x 12"):
        forecast(make(name, patch_size=4, compat="official"), frames)


@pytest.mark.parametrize("name", NAMES)
def test_a_circular_model_is_equivariant_to_rolling_the_longitudes(name: str) -> None:
    frames = clips()
    rolled = frames.roll(4, dims=-1)
    model = make(name, circular=True)
    expected = forecast(model, frames).roll(4, dims=-1)
    torch.testing.assert_close(forecast(model, rolled), expected, rtol=0, atol=1e-5)
    bounded_by_edges = make(name)
    elsewhere = forecast(bounded_by_edges, frames).roll(4, dims=-1)
    assert (forecast(bounded_by_edges, rolled) - elsewhere).abs().max() > 1e-4


def test_a_residual_model_starts_at_persistence_and_learns_away_from_it() -> None:
    model, window = make("srvp", residual=True), clips(frames=6)
    persistence = window[:, OBSERVED - 1 : OBSERVED].expand(-1, 3, -1, -1, -1)
    assert torch.equal(forecast(model, window[:, :OBSERVED], 3), persistence)
    assert gradients(model, window)["output_layer.0.weight"].abs().max() > 0


def test_a_linear_head_reaches_any_value_and_a_sigmoid_stays_in_its_range() -> None:
    linear, bounded = make("srvp-convgru"), make("srvp-convgru", output="sigmoid")
    for model in (linear, bounded):
        torch.nn.init.constant_(model.output_layer[0].bias, -3.0)
    assert forecast(linear, clips()).min() < -2
    assert 0 < forecast(bounded, clips()).min() < 0.1


def test_xavier_states_are_drawn_from_the_given_generator() -> None:
    model, frames = make("srvp", initial_states="xavier"), clips()

    def with_seed(seed: int) -> Tensor:
        return forecast(model, frames, generator=torch.Generator().manual_seed(seed))

    assert torch.equal(with_seed(1), with_seed(1))
    assert not torch.equal(with_seed(1), with_seed(2))
    assert not torch.equal(forecast(model, frames), forecast(make("srvp"), frames))


def test_members_of_an_ensemble_differ_by_the_noise_of_the_forecaster() -> None:
    model, frames = make("srvp", noise=2), clips()
    members = model.predict(frames, 4, members=3, seed=1)
    assert members.shape == (2, 3, 4, 1, 8, 12)
    assert (members[:, 0] - members[:, 1]).abs().max() > 1e-3
    assert torch.equal(members, model.predict(frames, 4, members=3, seed=1))
    assert model.encoder.cell0.in_channels == 1


def gradients(model: Any, window: Tensor) -> dict[str, Tensor]:
    torch.manual_seed(0)
    outputs = model.train()(window, input_frames=OBSERVED)
    (outputs - window[:, OBSERVED:]).square().mean().backward()
    return {name: weight.grad for name, weight in model.named_parameters()}


@pytest.mark.parametrize("name", NAMES)
def test_training_reaches_every_weight(name: str) -> None:
    for weight, gradient in gradients(make(name), clips(frames=6)).items():
        if weight in ("enc_sc.lpconv.layers.0.0.bias", "enc_sc.lpconv.layers.0.3.bias"):
            continue  # in front of a batch norm, which takes away every mean in training
        assert gradient is not None, weight
        assert gradient.abs().max() > 0, weight


@pytest.mark.parametrize("name", ["srvp", "srvp-causallstm"])
def test_recomputing_each_step_gives_the_same_gradients(name: str) -> None:
    kept = gradients(make(name), clips(frames=6))
    for weight, gradient in gradients(make(name, checkpoint_steps=True), clips(frames=6)).items():
        torch.testing.assert_close(gradient, kept[weight], rtol=1e-4, atol=1e-6, msg=weight)


def test_models_with_weights_per_grid_cell_raise_for_another_grid() -> None:
    frames = clips(size=(8, 16))
    for name in NAMES[:-1]:
        assert forecast(make(name), frames).shape == (2, 4, 1, 8, 16)
    with pytest.raises(ConfigurationError, match=r"8 x 16.*a grid of 8 x 12"):
        forecast(make("srvp-mim"), frames)


class EveryResult(TorchDispatchMode):
    """Keep weak references to the results of all operations."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[weakref.ref[Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        self.seen += [weakref.ref(result) for result in tree_leaves(results)]
        return results


@pytest.mark.parametrize("name", NAMES)
def test_a_forecast_leaves_no_tensor_behind(name: str) -> None:
    model = make(name)
    with EveryResult() as every:
        outputs = forecast(model, clips())
    assert any(reference() is outputs for reference in every.seen)
    del outputs
    gc.collect()
    assert not any(reference() is not None for reference in every.seen)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("srvp-convgr", {}, "did you mean 'srvp-convgru'"),
        ("srvp", {"embeding": 8}, "did you mean 'embedding'"),
        ("srvp", {"embedding": 3}, "embedding=3: give an even number"),
        ("srvp", {"normalise": "units"}, "did you mean 'unit'"),
        ("srvp", {"compat": "official", "normalise": "unit"}, "contradicts compat='official'"),
        ("srvp", {"compat": "official", "output": "linear"}, "contradicts compat='official'"),
        ("srvp", {"dropout": 1.0}, "dropout=1.0: give a probability"),
        ("srvp", {"feature_dropout": -0.1}, "feature_dropout=-0.1"),
        ("srvp-convlstm", {"dropout": 0.1}, "no option 'dropout'"),
        ("srvp-convlstm", {"output": "sigmoids"}, "did you mean 'sigmoid'"),
        ("srvp-convlstm", {"output": "sigmoid", "residual": True}, "cannot predict a decrease"),
        ("srvp-convlstm", {"horizon": 0}, "horizon=0 frames"),
        ("srvp", {"input_frames": 0}, "input_frames=0 frames"),
    ],
)
def test_impossible_options_raise_an_error_with_the_remedy(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        gmg_model.create_model(name, **options)


def test_dropout_of_a_gru_affects_the_gates_but_not_the_candidate() -> None:
    torch.manual_seed(0)
    cell, x = ConvGRU(3, 4, 3, dropout=0.5), torch.randn(2, 3, 6, 6)
    (dropped,) = cell.read(x, cell.kernels())
    (whole,) = cell.eval().read(x, cell.kernels())
    assert (dropped[:, :8] - whole[:, :8]).abs().max() > 1e-3
    torch.testing.assert_close(dropped[:, 8:], whole[:, 8:])
    fused, apart = make("srvp-convgru"), make("srvp-convgru", fused=False)
    torch.testing.assert_close(forecast(fused, clips()), forecast(apart, clips()))


@torch.no_grad()
def test_causal_lstm_follows_the_equations_of_its_paper() -> None:
    # A grid of one cell: a 1x1 convolution is a matrix product.
    torch.manual_seed(0)
    n, cell = 4, CausalLSTM(3, 4, 1)
    x, h, c, m = torch.randn(1, 3), *torch.randn(3, 1, 4)

    def part(layer: str, which: int, value: Tensor) -> Tensor:
        kernel: Any = getattr(cell, layer)
        return value @ kernel.weight[which * n : (which + 1) * n, :, 0, 0].T

    sigmoid, tanh = torch.sigmoid, torch.tanh
    i, f, g = (part("conv_x", k, x) + part("conv_h", k, h) + part("conv_c", k, c) for k in range(3))
    new_c = sigmoid(f + 1) * c + sigmoid(i) * tanh(g)
    i = part("conv_x", 3, x) + part("conv_c2m", 0, new_c) + part("conv_m", 0, m)
    f = part("conv_x", 4, x) + part("conv_c2m", 2, new_c) + part("conv_m", 1, m)
    g = part("conv_x", 5, x) + part("conv_c2m", 1, new_c)
    new_m = sigmoid(f + 1) * tanh(part("conv_m", 2, m)) + sigmoid(i) * tanh(g)
    o = part("conv_x", 6, x) + part("conv_h", 3, h) + part("conv_c2m", 3, new_c)
    o = tanh(o + part("conv_om", 0, new_m))
    new_h = o * tanh(part("conv_last", 0, torch.cat([new_c, new_m], dim=1)))

    kernels = cell.kernels()
    state = cell.initial_state(lambda channels: torch.zeros(1, channels, 1, 1))
    state = state._replace(hidden=h[..., None, None], cell=c[..., None, None])
    reading = cell.read(x[..., None, None], kernels)
    out = cell.advance(reading, state, m[..., None, None], kernels)
    torch.testing.assert_close(out.state.cell[..., 0, 0], new_c)
    torch.testing.assert_close(out.memory[..., 0, 0], new_m)
    torch.testing.assert_close(out.hidden[..., 0, 0], new_h)


def test_the_untrained_highway_halves_its_state_at_each_step() -> None:
    highway = GradientHighway(3, 4)
    assert 0 < max(weight.abs().max().item() for weight in highway.parameters()) <= 0.001
    kernels, x = highway.kernels(), torch.randn(2, 3, 5, 5)
    past = highway.initial_state(lambda channels: torch.ones(2, channels, 5, 5))
    with torch.no_grad():
        out = highway.advance(highway.read(x, kernels), past, None, kernels)  # type: ignore[arg-type]
    torch.testing.assert_close(out.hidden, torch.full((2, 4, 5, 5), 0.5), rtol=0, atol=0.05)


def test_a_highway_is_the_second_of_five_layers_and_all_of_them_reach_the_output() -> None:
    model = make("srvp-causallstm", hidden=(8, 8, 8, 8))
    for layers in (model.encoder, model.forecast):
        kinds = [type(cell) for cell in layers.cells()]
        assert kinds == [CausalLSTM, GradientHighway, CausalLSTM, CausalLSTM, CausalLSTM]
    assert model.output_layer[0].in_channels == 5 * 8


def test_causal_lstm_and_highway_have_the_published_weights_except_dead_ones() -> None:
    with torch.device("meta"):
        cells = [CausalLSTM(channels, 128) for channels in (16, 128, 128, 128)]
        layers = [*cells, GradientHighway(128, 128), torch.nn.Conv2d(128, 16, 1, bias=False)]
    count = sum(weight.numel() for layer in layers for weight in layer.parameters())
    dead_a_cell = 256 * 128 * 25
    assert round((count + 4 * dead_a_cell) / 1e6, 2) == 38.58  # PredRNN++ at patch 4
