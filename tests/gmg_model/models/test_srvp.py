"""SRVP gives the published numbers; what its two branches do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

import gmg_model
from gmg_model.errors import ConfigurationError
from gmg_model.layers.recollection import attend_to_frames, summarise_layers
from gmg_model.layers.self_correlation import self_correlation


@pytest.fixture
def published(golden: Callable[[str], Any]) -> Any:
    return golden("srvp")


def model_of(file: Any, **overrides: Any) -> Any:
    options = file.options
    return gmg_model.create_model(
        "srvp",
        in_shape=tuple(file.frames.shape[2:]),
        hidden=(options["hidden"],) * options["layers"],
        filter_size=options["kernel"],
        **{name: options[name] for name in ("embedding", "input_frames", "horizon")},
        **overrides,
    ).eval()


def relative(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()


@torch.no_grad()
@pytest.mark.parametrize("fused", [True, False])
def test_forecasts_equal_the_published_ones_in_every_batch_slot(
    published: Any, fused: bool
) -> None:
    model = model_of(published, compat="official", fused=fused)
    gmg_model.load_official(model, published.weights)
    outputs, expected = model(published.frames), published.tensors["outputs"]
    assert outputs.shape == expected.shape
    for slot in range(len(expected)):
        assert relative(outputs[slot], expected[slot]) < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("option", [{"normalise": "unit"}, {"output": "linear"}])
def test_every_option_changes_the_published_forecast(
    published: Any, option: dict[str, str]
) -> None:
    model = model_of(published, **({"output": "sigmoid"} | option))
    gmg_model.load_official(model, published.weights)
    assert relative(model(published.frames), published.tensors["outputs"]) > 1e-4


@pytest.mark.parametrize("prefix", ["", "model.", "module.model."])
def test_a_checkpoint_that_repeats_the_shared_projection_loads(published: Any, prefix: str) -> None:
    model = model_of(published)
    gmg_model.load_official(model, {prefix + k: v for k, v in published.weights.items()})
    loaded = model.state_dict()
    assert all(torch.equal(published.weights[name], value) for name, value in loaded.items())
    repeats = set(published.weights) - set(loaded)
    assert len(repeats) == 3 * 14  # frames 1, 2 and 3 of 4, with 14 tensors each
    assert all(name.startswith("enc_sc.lpconv.layers.") for name in repeats)

    other = model_of(published)
    gmg_model.load_official(other, {prefix + name: value for name, value in loaded.items()})
    with torch.no_grad():
        assert torch.equal(other(published.frames), model(published.frames))


def test_a_checkpoint_whose_repeated_projections_differ_raises(published: Any) -> None:
    name = "enc_sc.lpconv.layers.2.3.weight"
    tensors = {**published.weights, name: published.weights[name] + 1}
    with pytest.raises(ConfigurationError, match=r"unknown: enc_sc\.lpconv\.layers\.2\.3\.weight"):
        gmg_model.load_official(model_of(published), tensors)


@pytest.mark.parametrize(
    ("name", "millions", "gigaflop"),
    [
        ("srvp", 18.310, 1533.5),  # published: 18.31 and 1,533
        ("srvp-convgru", 17.233, 1411.2),
        ("srvp-convlstm", 22.968, 1881.5),
        ("srvp-stlstm", 47.006, 3850.7),
        ("srvp-causallstm", 69.945, 5729.9),
        ("srvp-mim", 92.914, 6065.3),
    ],
)
def test_count_and_operations_are_those_that_the_documentation_states(
    name: str, millions: float, gigaflop: float
) -> None:
    with FakeTensorMode(), FlopCounterMode(display=False) as counter, torch.no_grad():
        model = gmg_model.create_model(name, in_shape=(1, 64, 64), compat="official").eval()
        model(torch.empty(1, 10, 1, 64, 64), 10)
    assert round(sum(weight.numel() for weight in model.parameters()) / 1e6, 3) == millions
    assert round(counter.get_total_flops() / 1e9, 1) == gigaflop


def test_the_output_reads_the_states_and_both_branches() -> None:
    with torch.device("meta"):
        model = gmg_model.create_model("srvp")
    assert model.output_layer[0].in_channels == 4 * 128 + 2 * 128 + 2 * 32


def test_a_number_of_frames_that_the_weights_do_not_fit_raises(published: Any) -> None:
    model = model_of(published)
    with pytest.raises(ConfigurationError, match=r"3 observed frames.*weights for 4.*_frames=3"):
        model(published.frames[:, :3], 2)
    with pytest.raises(ConfigurationError, match=r"3 observed frames.*weights for 4"):
        model(published.frames, input_frames=3)


def test_samples_depend_on_each_other_only_in_training(published: Any) -> None:
    model = model_of(published, dropout=0.0, feature_dropout=0.0)
    frames = published.frames
    with torch.no_grad():
        for training, differs in ((True, True), (False, False)):
            model.train(training)
            together, alone = model(frames, 1)[:1], model(frames[:1], 1)
            assert ((together - alone).abs().max() > 1e-5) == differs


@pytest.mark.parametrize("normalise", ["reduce", "unit"])
def test_frames_without_any_signal_have_finite_gradients(normalise: str) -> None:
    model = gmg_model.create_model(
        "srvp", hidden=(8, 8), in_shape=(1, 8, 8), embedding=4, input_frames=3, normalise=normalise
    )
    torch.nn.init.zeros_(model.enc_sc.lpconv.layers[0][3].weight)
    model(torch.zeros(1, 5, 1, 8, 8), input_frames=3).square().sum().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name


def test_a_correlation_map_is_an_outer_product_of_lengths_or_cosines_between_columns() -> None:
    x = torch.randn(1, 5, 40, dtype=torch.float64)
    product = (x[0] @ x[0].softmax(0).T) / 40
    lengths = torch.outer(product.norm(dim=0), x[0].norm(dim=0))
    torch.testing.assert_close(self_correlation(x, "reduce")[0], lengths)
    cosines = torch.nn.functional.cosine_similarity(product[:, :, None], x[0][:, None, :], dim=0)
    torch.testing.assert_close(self_correlation(x, "unit")[0], cosines, rtol=0, atol=1e-4)


def test_temporal_attention_finds_similar_frames_unless_its_logits_have_unit_length() -> None:
    frames = torch.randn(1, 6, 8, 16, 16)
    query = frames[:, 2:3].expand(-1, 4, -1, -1, -1)
    found = attend_to_frames(query, frames, "reduce")
    assert relative(found, frames[:, 2]) < 1e-4
    mean = attend_to_frames(query, frames, "unit")
    assert relative(mean, frames.mean(1)) < 0.05


def test_the_summary_of_the_layers_is_a_length_or_a_mean_direction() -> None:
    hidden = torch.zeros(1, 2, 1, 1, 1)
    hidden[0, :, 0, 0, 0] = torch.tensor([-3.0, 4.0])
    assert summarise_layers(hidden, "reduce").item() == pytest.approx(5.0)
    assert summarise_layers(hidden, "unit").item() == pytest.approx((-0.6 + 0.8) / 2, abs=1e-5)
