"""Load the libraries of the extra `radar` in an order and in a way that works.

pyproj and eccodes each contain a PROJ library with the same symbols, and eccodes exports its
symbols to every library that is loaded later. A pyproj that is loaded after eccodes mixes the two,
and the process crashes. So pyproj is loaded first, if it is installed, and such that it uses its
own symbols.

pysteps imports pyproj. It also prints the path of its configuration, which is suppressed here,
because the last line that a job prints may be JSON.
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
    """Return the module pyproj.

    Raises
    ------
    UsageError
        It is not installed; the remedy is the command that installs it.
    """
    try:
        with _own_symbols_first():
            return importlib.import_module("pyproj")
    except ImportError as error:
        raise _missing("pyproj", error) from None


def load_pysteps(module: str = "pysteps") -> ModuleType:
    """Return a module of pysteps, loaded without its output and its warnings.

    Raises
    ------
    UsageError
        It is not installed; the remedy is the command that installs it.
    """
    load_pyproj()
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(module)
    except ImportError as error:
        raise _missing("pysteps", error) from None


def load_pyproj_before_eccodes() -> None:
    """Load pyproj if it is installed. Call this before eccodes or cfgrib is imported."""
    with contextlib.suppress(UsageError):
        load_pyproj()


@contextlib.contextmanager
def _own_symbols_first() -> Iterator[None]:
    """On Linux, let libraries loaded in the block look up symbols among their own ones first."""
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
