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
    from pipelines.archives.clip_archive import ClipArchive

CLIP_ARCHIVES: tuple[str, ...] = ("moving_mnist",)
"""those made of clips, which declare options of their own"""
NAMES: tuple[str, ...] = ("weatherbench", "era5", "taxibj", *CLIP_ARCHIVES)
"""Every archive, each the name of a module of this package."""


def load_archive(name: str) -> Archive | ClipArchive:
    """The archive called ``name``; UsageError with the nearest name where there is none."""
    if name not in NAMES:
        raise UsageError(
            f"unknown archive '{name}'",
            where="--archive",
            remedy=nearest(name, NAMES),
        )
    return importlib.import_module(f"pipelines.archives.{name}").ARCHIVE
