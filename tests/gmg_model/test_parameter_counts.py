"""Parameter counts, to the digits that the papers and their code print (in millions)."""

from __future__ import annotations

import pytest
import torch

import gmg_model

MOVING_MNIST = {"channels": 1, "patch_size": 4, "attention_hidden": 32}  # also Shanghai, CIKM
TAXIBJ = {"channels": 2, "patch_size": 2, "attention_hidden": 64}
TAXIBJ_32 = {"channels": 2, "patch_size": 2, "attention_hidden": 32}
WEATHERBENCH = {"channels": 1, "patch_size": 2, "attention_hidden": 64}


def parameters(name: str, **overrides: object) -> int:
    with torch.device("meta"):
        model = gmg_model.create_model(name, **overrides)
    return sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize(
    ("name", "data", "millions"),
    [
        ("gmg-l", MOVING_MNIST, 31.449),
        ("gmg-l", TAXIBJ, 31.272),
        ("gmg-l", TAXIBJ_32, 31.223),
        ("gmg-l", WEATHERBENCH, 31.159),
        ("gmg-m", MOVING_MNIST, 30.413),
        ("gmg-s", MOVING_MNIST, 29.228),
    ],
)
def test_count_matches_the_published_one(name: str, data: dict[str, int], millions: float) -> None:
    official = parameters(name, **data, compat="official")
    assert round(official / 1e6, 3) == millions
    # The default's Eq. 16 needs no growth output: three motion modules of 32 weights.
    assert official - parameters(name, **data) == 96


def test_gmg_m_ignores_the_width_of_an_attention_it_has_not() -> None:
    assert parameters("gmg-m", attention_hidden=32) == parameters("gmg-m", attention_hidden=64)
