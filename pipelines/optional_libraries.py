"""Libraries of the extra ``radar``, which have to be loaded with care.

pyproj and eccodes each bring a PROJ library of their own with the same symbols, and eccodes offers
its own to every library that is loaded later: a pyproj that comes after it mixes the two, and the
process ends with a crash. So pyproj is told to keep to its own, and it comes before eccodes where
it is installed at all. pysteps imports pyproj, and prints where its configuration lies: standard
output belongs to the jobs, whose last line may be JSON.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType

from pipelines.errors import UsageError


def load_pyproj() -> ModuleType:
    """The module pyproj; UsageError with the command that installs it where it is absent."""
    try:
        with _keeping_to_their_own():
            return importlib.import_module("pyproj")
    except ImportError as error:
        raise _missing("pyproj", error) from None


def load_pysteps(module: str = "pysteps") -> ModuleType:
    """A module of pysteps, without a word; UsageError with the command that installs it."""
    load_pyproj()
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(module)
    except ImportError as error:
        raise _missing("pysteps", error) from None


def load_pyproj_before_eccodes() -> None:
    """To be called before eccodes or cfgrib is imported; nothing happens without pyproj."""
    with contextlib.suppress(UsageError):
        load_pyproj()


@contextlib.contextmanager
def _keeping_to_their_own() -> Iterator[None]:
    """Libraries that are loaded in the block look for symbols among their own first, on Linux."""
    deep = getattr(os, "RTLD_DEEPBIND", None)
    if deep is None:
        yield
        return
    flags = sys.getdlopenflags()
    sys.setdlopenflags(flags | deep)
    try:
        yield
    finally:
        sys.setdlopenflags(flags)


def _missing(module: str, error: ImportError) -> UsageError:
    return UsageError(
        f"radar composites need {module}, which is not installed ({error})",
        where=module,
        remedy="pip install 'gmg-platform[radar]'",
    )
