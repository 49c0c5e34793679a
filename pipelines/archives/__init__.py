"""The archives that ``reprocess`` reads: one module an archive, imported when it is asked for.

Adding one: write a module that defines ``ARCHIVE`` (an :class:`pipelines.archives.archive.Archive`:
which files belong to it, how they are described and decoded, and which splits its papers use) and
name it here.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from pipelines.errors import UsageError, nearest

if TYPE_CHECKING:
    from pipelines.archives.archive import Archive

NAMES: tuple[str, ...] = ("weatherbench", "era5", "taxibj")
"""Every archive, each the name of a module of this package."""


def load_archive(name: str) -> Archive:
    """The archive called ``name``; UsageError with the nearest name where there is none."""
    if name not in NAMES:
        raise UsageError(
            f"unknown archive '{name}'",
            where="--archive",
            remedy=nearest(name, NAMES),
        )
    return importlib.import_module(f"pipelines.archives.{name}").ARCHIVE
