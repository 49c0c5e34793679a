"""Static fields beside the frames: every model reads them, and no model forecasts them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import gmg_model
from gmg_model.errors import ConfigurationError
from gmg_model.training.optimisation import Optimisation
from gmg_model.training.options import OptimisationOptions

Make = Callable[..., Any]
WINDOW = {"input_frames": 3, "horizon": 2}


def model_of(small: Make, name: str, **overrides: Any) -> Any:
    sizes = WINDOW if gmg_model.is_sized_by_window(name) else {}
    return small(name, **{"hidden": (8, 8), **sizes, **overrides})


def clips(batch: int = 2, frames: int = 3, channels: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(batch, frames, channels, 8, 12, generator=generator)


def fields(seed: int = 5, count: int = 2) -> Tensor:
    return torch.randn(count, 8, 12, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", gmg_model.list_models())
def test_every_model_reads_static_fields_and_does_not_forecast_them(small: Make, name: str) -> None:
    model = model_of(small, name, static_channels=2).eval()
    frames = clips()
    with torch.no_grad():
        one = model(frames, 2, static=fields(5))
        other = model(frames, 2, static=fields(6))
        for_each = model(frames, 2, static=torch.stack([fields(5), fields(6)]))
    assert one.shape == (2, 2, 1, 8, 12)
    assert (one - other).abs().amax(dim=(1, 2, 3, 4)).min() > 1e-7
    torch.testing.assert_close(for_each, torch.stack([one[0], other[1]]))


@pytest.mark.parametrize("name", gmg_model.list_models())
def test_bound_fields_serve_every_call_and_are_not_weights(small: Make, name: str) -> None:
    model = model_of(small, name, static_channels=2).eval()
    names = set(model.state_dict())
    frames = clips(frames=5)
    with torch.inference_mode():
        given = model(frames[:, :3], 2, static=fields())
    model.bind_static(fields())
    with torch.inference_mode():
        torch.testing.assert_close(model(frames[:, :3], 2), given)
        torch.testing.assert_close(copy.deepcopy(model)(frames[:, :3], 2), given)
    assert set(model.state_dict()) == names
    # Fields that were moved in inference mode can be used in training.
    model.train()
    model.one_step_outputs(frames, 3).square().mean().backward()


@pytest.mark.parametrize("name", gmg_model.list_models())
def test_without_static_fields_nothing_changes(small: Make, name: str) -> None:
    plain = model_of(small, name)
    zero = model_of(small, name, static_channels=0)
    assert plain.state_dict().keys() == zero.state_dict().keys()
    assert all(
        torch.equal(a, b) for a, b in zip(plain.parameters(), zero.parameters(), strict=True)
    )
    more = model_of(small, name, static_channels=1)
    assert sum(p.numel() for p in more.parameters()) > sum(p.numel() for p in plain.parameters())


def test_static_fields_work_together_with_noise_and_padding(small: Make) -> None:
    model = small("gmg-s", static_channels=3, noise=2, in_shape=(2, 9, 11), residual=True).eval()
    frames = torch.randn(2, 3, 2, 9, 11, generator=torch.Generator().manual_seed(0))
    static = torch.randn(3, 9, 11, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        model.bind_static(static)
        members = model.predict(frames, 2, members=3, seed=1)
    assert members.shape == (2, 3, 2, 2, 9, 11)
    assert model.cell_list[0].conv_x.weight.shape[1] == 4 * (2 + 3) + 2


def test_static_fields_have_gradients_that_recomputing_does_not_change(
    small: Make,
) -> None:
    gradients = []
    for checkpoint_steps in (False, True):
        model = small("predrnn", static_channels=1, checkpoint_steps=checkpoint_steps)
        model.bind_static(fields(count=1))
        model.one_step_outputs(clips(frames=5), 3).square().mean().backward()
        gradients.append(model.cell_list[0].conv_x.weight.grad)
    of_static = gradients[0][:, 4:]
    assert of_static.shape[1] == 4
    assert of_static.abs().max() > 0
    torch.testing.assert_close(*gradients)


def test_each_window_of_a_training_step_may_have_its_own_fields(small: Make) -> None:
    frames, own = clips(frames=5), torch.stack([fields(1), fields(2)])
    losses = []
    for static in (own, own.flip(0)):
        model = small("gmg-s", static_channels=2)
        optimisation = Optimisation(model, OptimisationOptions(), total_steps=1)
        losses.append(optimisation.backward(model, frames, 3, None, 0.5, static=static))
    assert (losses[0] - losses[1]).abs().min() > 1e-7


def test_static_fields_that_do_not_fit_raise(small: Make) -> None:
    model = small("gmg-s", static_channels=2)
    for static, said in (
        (None, "reads static_channels=2"),
        (fields(count=1), "1 static fields"),
        (fields()[:, :4], "4 x 12"),
        (fields().expand(3, 2, 8, 12), "do not fit 2 samples"),
        (fields()[0], "give (fields, height, width)"),
    ):
        with pytest.raises(ConfigurationError) as error:
            model(clips(), 2, static=static)
        assert said in str(error.value)
    with pytest.raises(ConfigurationError, match="static_channels=0"):
        small("gmg-s")(clips(), 2, static=fields())
    with pytest.raises(ConfigurationError, match="give \\(fields, height, width\\)"):
        model.bind_static(fields().expand(2, 2, 8, 12))
    with pytest.raises(ConfigurationError, match="static_channels=-1"):
        small("gmg-s", static_channels=-1)
    with pytest.raises(ConfigurationError, match="compat='official'"):
        small("gmg-s", static_channels=1, compat="official")


def growth(batch: int, seed: int) -> tuple[Tensor, Tensor]:
    """Frames (B, 2, 1, 12, 12) that grow by half over land, and the land (B, 1, 12, 12)."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.rand(batch, 1, 1, 12, 12, generator=generator) + 0.5
    land = (torch.rand(batch, 1, 12, 12, generator=generator) < 0.5).float()
    return torch.cat([first, first * (1 + 0.5 * land[:, None])], dim=1), land


def test_a_model_that_sees_the_land_mask_is_better_where_land_matters() -> None:
    errors = {}
    for channels in (0, 1):
        torch.manual_seed(0)
        model = gmg_model.create_model(
            "convlstm",
            in_shape=(1, 12, 12),
            hidden=(8, 8),
            patch_size=1,
            filter_size=3,
            residual=True,
            static_channels=channels,
        )
        optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
        for step in range(80):
            frames, land = growth(4, seed=step)
            options = {"static": land} if channels else {}
            loss = (model(frames[:, :1], 1, **options) - frames[:, 1:]).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        frames, land = growth(64, seed=1_000_000)
        options = {"static": land} if channels else {}
        with torch.no_grad():
            error = (model.eval()(frames[:, :1], 1, **options) - frames[:, 1:]).square().mean()
        errors[channels] = float(error)
    # Without the land mask the best forecast is the mean growth; its error is the variance.
    assert errors[0] > 0.06
    assert errors[1] < 0.2 * errors[0]
