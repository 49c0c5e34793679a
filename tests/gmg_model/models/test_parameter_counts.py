"""Parameter counts, to the digits that the papers and their code print (in millions)."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import gmg_model

MOVING_MNIST = {
    "in_shape": (1, 64, 64),
    "patch_size": 4,
    "attention_hidden": 32,
}  # also Shanghai, CIKM
TAXIBJ = {"in_shape": (2, 32, 32), "patch_size": 2, "attention_hidden": 64}
TAXIBJ_32 = {"in_shape": (2, 32, 32), "patch_size": 2, "attention_hidden": 32}
WEATHERBENCH = {"in_shape": (1, 32, 64), "patch_size": 2, "attention_hidden": 64}


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
def test_count_matches_the_published_one(name: str, data: dict[str, Any], millions: float) -> None:
    official = parameters(name, **data, compat="official")
    assert round(official / 1e6, 3) == millions
    # The default's Eq. 16 needs no growth output: three motion modules of 32 weights.
    assert official - parameters(name, **data) == 96


@pytest.mark.parametrize(
    ("name", "data", "millions"),
    [
        ("predrnn", MOVING_MNIST, 23.839),
        ("motionrnn-predrnn", MOVING_MNIST, 26.912),
        ("motionrnn-predrnn", TAXIBJ, 26.730),
        ("motionrnn-predrnn", WEATHERBENCH, 26.640),
    ],
)
def test_comparison_model_has_the_published_count(
    name: str, data: dict[str, Any], millions: float
) -> None:
    sizes = {key: value for key, value in data.items() if key != "attention_hidden"}
    assert round(parameters(name, **sizes) / 1e6, 3) == millions


def test_convlstm_has_the_published_weights_except_the_dead_ones() -> None:
    dead_a_cell = 256 * 128 * 25 + 256 * 128
    assert round(4 * dead_a_cell / 1e6, 2) == 3.41
    assert round((parameters("convlstm") + 4 * dead_a_cell) / 1e6, 2) == 15.08


def test_gmg_m_ignores_attention_hidden_because_it_has_no_attention() -> None:
    assert parameters("gmg-m", attention_hidden=32) == parameters("gmg-m", attention_hidden=64)


PARTS = {  # Table VI: global focus, self-attention memory, motion, millions by arithmetic
    "PredRNN": ("none", False, "none", 23.839),
    "MotionRNN": ("none", False, "motiongru", 26.912),
    "(c)": ("none", False, "mgm", 26.912),
    "(d)": ("none", True, "none", 24.875),
    "(e)": ("full", False, "none", 27.340),
    "(f)": ("full", True, "none", 28.376),
    "GMG-s": ("simplified", True, "mgm", 29.228),
    "GMG-m": ("full", False, "mgm", 30.413),
    "GMG-L": ("full", True, "mgm", 31.449),
}


@pytest.mark.parametrize("row", PARTS)
def test_each_row_of_the_ablation_is_a_configuration_of_one_model(row: str) -> None:
    global_focus, attention, motion, millions = PARTS[row]
    count = parameters(
        "gmg-l",
        global_focus=global_focus,
        attention=attention,
        motion=motion,
        compat="official",
        **MOVING_MNIST,
    )
    assert round(count / 1e6, 3) == millions


def test_the_registered_sizes_are_rows_of_the_ablation() -> None:
    for name, global_focus, attention in (("gmg-m", "full", False), ("gmg-s", "simplified", True)):
        assert parameters(name) == parameters(
            "gmg-l", global_focus=global_focus, attention=attention
        )
