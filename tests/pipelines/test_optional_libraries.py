"""Optional libraries: they load in any order, and a missing one raises an error."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pipelines.errors import UsageError
from pipelines.optional_libraries import load_pysteps

_USE = {
    "eccodes": "import eccodes; eccodes.codes_release("
    "eccodes.codes_grib_new_from_samples('regular_ll_sfc_grib2'))",
    "pyproj": "from pipelines.optional_libraries import load_pyproj; "
    "print(load_pyproj().CRS.from_user_input('+proj=laea +lat_0=55').to_cf()['grid_mapping_name'])",
}


@pytest.mark.parametrize("order", [("eccodes", "pyproj"), ("pyproj", "eccodes")])
def test_eccodes_and_pyproj_work_in_one_process(order: tuple[str, str]):
    code = "; ".join(_USE[name] for name in order)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "lambert_azimuthal_equal_area\n"
    assert done.stderr == ""


def test_loading_pysteps_prints_nothing():
    code = "from pipelines.optional_libraries import load_pysteps; load_pysteps('pysteps.io')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("missing", ["pysteps", "pyproj"])
def test_a_missing_library_raises_an_error(missing: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UsageError, match=f"need {missing}") as raised:
        load_pysteps()
    assert raised.value.remedy == "pip install 'gmg-platform[radar]'"
