"""Small models whose motion modules have weights, and golden tensors of the published code."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gmg_model


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    # Such small tensors gain nothing from a second thread. On a busy machine, threads that wait for
    # each other can turn a test of two seconds into one of a minute.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def awaken_motion(model: nn.Module) -> None:
    """Set the weights of the offset recurrence, which start at zero: tests would not see it."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            parts = name.split(".")
            if "motion_list" in parts and parts[-2] in ("update", "reset", "output", "warp_gate"):
                weight.add_(torch.randn(weight.shape, generator=generator) * 0.3)


@pytest.fixture
def small() -> Callable[..., Any]:
    """Return `small(name, **overrides)`, which makes a small model with moving offsets."""

    def make(name: str = "gmg-l", **overrides: Any) -> Any:
        torch.manual_seed(7)
        options: dict[str, Any] = {
            "in_shape": (1, 8, 12),
            "hidden": (8, 8, 8, 8),
            "patch_size": 2,
        }
        if name.startswith("gmg"):
            options["attention_hidden"] = 4
        model = gmg_model.create_model(name, **(options | overrides))
        awaken_motion(model)
        return model

    return make


@dataclass(frozen=True)
class Golden:
    """One file of golden tensors."""

    options: dict[str, Any]
    weights: dict[str, Tensor]
    tensors: dict[str, Tensor]

    @property
    def frames(self) -> Tensor:
        return self.tensors["frames"]


@pytest.fixture(scope="session")
def golden(shared: Path) -> Callable[[str], Golden]:
    """Return `golden(name)`, which loads weights, frames and outputs of the published code."""
    from safetensors import safe_open

    def load(name: str) -> Golden:
        with safe_open(shared / "fixtures" / f"{name}.safetensors", "pt") as file:
            options = {k: _literal(v) for k, v in file.metadata().items()}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        weights = {
            key.removeprefix("weights."): value
            for key, value in tensors.items()
            if key.startswith("weights.")
        }
        return Golden(options, weights, tensors)

    return load


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
