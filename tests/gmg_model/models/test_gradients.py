"""What training relies on: gradients of every weight, fused as unfused, distributed calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from gmg_model.training.losses import create_loss

NAMES = (
    "gmg-l",
    "gmg-m",
    "gmg-s",
    "motionrnn-predrnn",
    "motionrnn-convlstm",
    "predrnn",
    "convlstm",
    "mim",
    "motionrnn-mim",
    "e3dlstm",
    "motionrnn-e3dlstm",
)
Make = Callable[..., Any]


def window(size: tuple[int, int] = (8, 12)) -> Tensor:
    return torch.randn(2, 6, 1, *size, generator=torch.Generator().manual_seed(5))


def gradients(model: Any, frames: Tensor, forced: Tensor | None = None) -> dict[str, Tensor]:
    model.zero_grad()
    outputs = model(frames, input_frames=3, forced=forced)
    create_loss("l1+l2")(outputs, frames[:, 1:]).mean().backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters()}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        scale = value.abs().max().item() + 1e-6
        assert (found[name] - value).abs().max().item() <= tolerance * scale, name


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_has_a_gradient_in_a_free_running_window(small: Make, name: str) -> None:
    found = gradients(small(name), window())
    for key, gradient in found.items():
        if not key.endswith(("layer_k.bias", "layer_k2.bias")):  # shifts that softmax ignores
            assert gradient.abs().max() > 0, key


@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_two_batches_add_up(small: Make, name: str) -> None:
    model, frames = small(name), window()
    once = gradients(model, frames)
    create_loss("l1+l2")(model(frames, input_frames=3), frames[:, 1:]).mean().backward()
    twice = {name: weight.grad for name, weight in model.named_parameters()}
    assert_same(twice, {name: 2 * gradient for name, gradient in once.items()}, 1e-4)


@pytest.fixture
def group_of_one() -> Iterator[None]:
    # The group must outlive the wrapper that the test makes. A Gloo group that is destroyed with
    # its last wrapper waits for its thread, and the thread waits for the interpreter: a deadlock.
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("group_of_one")
@pytest.mark.parametrize("name", NAMES)
def test_distributed_wrapper_trains_through_the_same_call(small: Make, name: str) -> None:
    frames, forced = window(), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    model = small(name)
    with torch.no_grad():
        expected = model.one_step_outputs(frames, 3, forced)
    wrapped = DistributedDataParallel(model)
    for half in (False, True):  # the second step fails where the first left a weight unused
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            outputs = wrapped(frames, input_frames=3, forced=forced)
        outputs.square().mean().backward()
        if not half:
            assert torch.equal(outputs, expected)
    assert all(weight.grad is not None for weight in model.parameters())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gmg-l", {}),
        ("gmg-m", {}),
        ("gmg-s", {}),
        ("gmg-l", {"circular": True, "focus": "pooled"}),
        ("gmg-l", {"filter_size": 3}),
        ("gmg-l", {"motion": "none"}),
        ("gmg-l", {"global_focus": "none", "motion": "motiongru"}),
        ("gmg-s", {"filter_size": 7, "circular": True}),
        ("e3dlstm", {}),
        ("motionrnn-e3dlstm", {"circular": True, "memory_length": 2}),
    ],
)
def test_fused_convolutions_equal_the_separate_ones(
    small: Make, name: str, options: dict[str, Any]
) -> None:
    fused, plain = small(name, **options), small(name, fused=False, **options)
    assert fused.state_dict().keys() == plain.state_dict().keys()
    plain.load_state_dict(fused.state_dict())
    frames = window()
    with torch.no_grad():
        expected = plain(frames, 5)
        torch.testing.assert_close(fused(frames, 5), expected, rtol=0, atol=1e-5)
    assert_same(gradients(fused, frames), gradients(plain, frames), 1e-3)


def test_recomputing_steps_gives_the_same_gradients_and_stores_less(small: Make) -> None:
    plain, lean = small(), small(checkpoint_steps=True)
    frames, forced = window(), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert_same(gradients(lean, frames, forced), gradients(plain, frames, forced), 1e-5)

    def kept(model: Any) -> int:
        sizes: list[int] = []

        def record(tensor: Tensor) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
            model(frames, input_frames=3)
        return sum(sizes)

    assert kept(lean) < kept(plain) / 3


@pytest.mark.parametrize("decay", ["unit", "elapsed", "none"])
def test_every_decay_trains_all_its_weights(small: Make, decay: str) -> None:
    assert all(g.isfinite().all() for g in gradients(small(decay=decay), window()).values())


def test_a_few_steps_learn_a_moving_square(small: Make) -> None:
    frames = torch.zeros(1, 6, 1, 8, 8)
    for t in range(6):
        frames[0, t, 0, 2:5, t : t + 3] = 1.0
    model = small("gmg-s")
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(25):
        optimiser.zero_grad()
        loss = create_loss("mse")(model(frames, input_frames=3), frames[:, 1:]).mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
