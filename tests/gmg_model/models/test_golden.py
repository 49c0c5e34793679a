"""compat='official' gives the numbers of the published code, sample by sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import gmg_model
from gmg_model.errors import ConfigurationError

FILES = ("gmg_l_radar", "gmg_l_traffic", "motionrnn_predrnn")


def official(file: Any, **overrides: Any) -> Any:
    name = {"gmg": "gmg-l", "motionrnn": "motionrnn-predrnn"}[file.options["model"]]
    sizes = {key: file.options[key] for key in ("patch_size", "filter_size")}
    sizes["hidden"] = (file.options["hidden"],) * file.options["layers"]
    if name == "gmg-l":
        sizes["attention_hidden"] = file.options["attention_hidden"]
    model = gmg_model.create_model(
        name,
        in_shape=tuple(file.frames.shape[2:]),
        compat="official",
        initial_states="zeros",
        **(sizes | overrides),
    )
    gmg_model.load_official(model, file.weights)
    return model


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", FILES)
def test_outputs_and_losses_equal_the_published_ones_in_every_batch_slot(
    golden: Callable[[str], Any], name: str, fused: bool
) -> None:
    file = golden(name)
    model, n = official(file, fused=fused), file.options["input_frames"]
    for kind, forced in (("free", None), ("forced", file.tensors["forced_steps"])):
        with torch.no_grad():
            outputs = model.one_step_outputs(file.frames, n, forced)
        for slot in range(len(file.frames)):
            assert relative(outputs[slot], file.tensors[f"outputs_{kind}"][slot]) < 1e-5
        loss = (outputs - file.frames[:, 1:]).square().mean()
        assert loss.item() == pytest.approx(file.tensors[f"mse_{kind}"].item(), rel=1e-5)


@pytest.mark.parametrize("name", FILES)
def test_gradient_norms_equal_the_published_ones(golden: Callable[[str], Any], name: str) -> None:
    file = golden(name)
    model = official(file)
    outputs = model(
        file.frames,
        input_frames=file.options["input_frames"],
        forced=file.tensors["forced_steps"],
    )
    (outputs - file.frames[:, 1:]).square().mean().backward()
    compared = 0
    for key, weight in model.named_parameters():
        if key.endswith(("layer_k.bias", "layer_k2.bias")):
            continue  # no gradient in exact arithmetic: a shift of all logits of a row
        expected = file.tensors[f"gradnorm.{key}"].item()
        assert weight.grad.norm().item() == pytest.approx(expected, rel=1e-4, abs=1e-10), key
        compared += 1
    without = 2 * file.options["layers"] if file.options["model"] == "gmg" else 0
    assert compared == len(file.weights) - without


def test_forecast_equals_the_free_running_tail_of_the_window(golden: Callable[[str], Any]) -> None:
    file = golden("gmg_l_radar")
    n, horizon = file.options["input_frames"], file.options["horizon"]
    with torch.no_grad():
        forecast = official(file)(file.frames[:, :n], horizon)
    assert relative(forecast, file.tensors["outputs_free"][:, n - 1 :]) < 1e-5


def test_the_default_arithmetic_differs_from_the_published_one(
    golden: Callable[[str], Any],
) -> None:
    file = golden("gmg_l_radar")
    model = gmg_model.create_model(
        "gmg-l", hidden=(16, 16, 16, 16), attention_hidden=8, patch_size=4
    )
    kept = {key: value for key, value in file.weights.items() if "fc_global" not in key}
    gmg_model.load_official(model, kept)
    with torch.no_grad():
        outputs = model.one_step_outputs(file.frames, file.options["input_frames"])
    assert relative(outputs, file.tensors["outputs_free"]) > 1e-4


@pytest.mark.parametrize("prefix", ["", "model.", "module.", "module.model."])
def test_checkpoints_load_with_and_without_a_wrapper_prefix(
    golden: Callable[[str], Any], prefix: str
) -> None:
    file = golden("gmg_l_traffic")
    model = official(file)
    for weight in model.parameters():
        torch.nn.init.zeros_(weight)
    gmg_model.load_official(model, {prefix + key: value for key, value in file.weights.items()})
    loaded = model.state_dict()
    assert loaded.keys() == file.weights.keys()
    assert all(torch.equal(loaded[key], value) for key, value in file.weights.items())


def test_official_tensors_in_a_default_model_raise_an_error_with_the_remedy(
    golden: Callable[[str], Any],
) -> None:
    file = golden("gmg_l_radar")
    model = gmg_model.create_model("gmg-l", hidden=(16, 16, 16, 16), attention_hidden=8)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ConfigurationError, match=r"fc_global.*compat='official'"):
        gmg_model.load_official(model, file.weights)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
