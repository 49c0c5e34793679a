"""The public names of the package: all of them are found, and importing them is quick."""

from __future__ import annotations

import subprocess
import sys

import pytest

import pipelines


def test_every_public_name_is_defined_where_the_package_says():
    assert sorted(pipelines._MODULES) == pipelines.__all__
    for name in pipelines.__all__:
        assert getattr(pipelines, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="open_stores"):
        _ = pipelines.open_stores  # pyright: ignore[reportAttributeAccessIssue]


def test_importing_the_package_loads_no_large_library():
    heavy = "{'ray', 'torch', 'zarr', 'xarray', 'numpy'}"
    code = f"import sys, pipelines; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
