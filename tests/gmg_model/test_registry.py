"""Models by name, and errors for names and options that do not exist."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

import gmg_model
from gmg_model.errors import ConfigurationError


def test_the_three_sizes_of_gmg_are_registered() -> None:
    assert {"gmg-l", "gmg-m", "gmg-s"} <= set(gmg_model.list_models())


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, gmg_model; dir(gmg_model); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gmg-x", {}, "did you mean 'gmg-"),
        ("gmg-s", {"hiden": 8}, "did you mean 'hidden'"),
        ("gmg-s", {"global_focus": True}, "choose the model by name"),
        ("gmg-l", {"reverse_scheduled_sampling": 1}, "reverse scheduled sampling"),
        ("gmg-l", {"decay": "units"}, "did you mean 'unit'"),
        ("gmg-l", {"focus": "pool"}, "did you mean 'pooled'"),
        ("gmg-l", {"offsets": "unbounded"}, "did you mean 'bounded'"),
        ("gmg-l", {"initial_states": "zero"}, "did you mean 'zeros'"),
        ("gmg-l", {"compat": "oficial"}, "did you mean 'official'"),
        ("gmg-l", {"compat": "official", "decay": "unit"}, "contradicts compat='official'"),
        ("gmg-l", {"hidden": (30, 30)}, "multiple of 4"),
        ("gmg-l", {"hidden": 128}, "one number of channels for each cell"),
        ("gmg-l", {"filter_size": 4}, "odd"),
        ("gmg-l", {"patch_size": 32, "in_shape": (1, 16, 64)}, "larger than a frame of 16 x 64"),
        ("gmg-l", {"hidden": ()}, "hidden=\\(\\)"),
        ("gmg-l", {"offset_scale": 0.0}, "offset_scale"),
        ("gmg-l", {"attention_hidden": 0}, "attention_hidden=0"),
    ],
)
def test_an_unknown_name_or_option_raises_and_names_the_nearest_known_one(
    name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        gmg_model.create_model(name, **options)


def test_tensors_of_another_model_raise_an_error_with_their_names_and_shapes() -> None:
    small = {"hidden": (8, 8, 8, 8), "attention_hidden": 4}
    model = gmg_model.create_model("gmg-s", **small)
    with pytest.raises(ConfigurationError, match=r"missing: cell_list.*unknown: "):
        gmg_model.load_official(model, gmg_model.create_model("gmg-m", **small).state_dict())
    wider = gmg_model.create_model("gmg-s", hidden=(8, 8, 8, 8), attention_hidden=8)
    with pytest.raises(ConfigurationError, match=r"shapes: .*layer_k"):
        gmg_model.load_official(model, wider.state_dict())


def test_importing_the_package_makes_its_metrics_available():
    program = (
        "import sys, gmg_model; assert 'torch' not in sys.modules\n"
        "from numpy import zeros\n"
        "frames = zeros((1, 2, 1, 8, 8))\n"
        "print(gmg_model.metrics.score(frames, frames + 2, 'strict')['rmse'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "2.0"), done.stderr
