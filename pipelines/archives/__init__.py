"""The archives that ``reprocess`` reads: one module an archive, imported when it is asked for.

Adding one: write a module that defines ``ARCHIVE`` (an :class:`pipelines.archives.archive.Archive`:
which files belong to it, how they are described and decoded, and which splits its papers use) and
name it here.
"""

from __future__ import annotations

import dataclasses
import importlib
from typing import TYPE_CHECKING, Any

from pipelines.errors import UsageError, nearest

if TYPE_CHECKING:
    from pipelines.archives.interface import AnyArchive

CLIP_ARCHIVES: tuple[str, ...] = (
    "moving_mnist",
    "cikm2017",
    "shanghai2020",
    "openstl_npz",
    "kth",
)
"""those made of clips"""
NAMES: tuple[str, ...] = ("weatherbench", "era5", "taxibj", "radar", *CLIP_ARCHIVES)
"""Every archive, each the name of a module of this package."""


WITH_OPTIONS: tuple[str, ...] = ("taxibj", "radar", *CLIP_ARCHIVES)
"""those that declare options of their own"""


def option_fields(name: str) -> tuple[dataclasses.Field[Any], ...]:
    """The options that an archive declares."""
    module = importlib.import_module(f"pipelines.archives.{name}")
    return dataclasses.fields(module.ARCHIVE.options)


def load_archive(name: str) -> AnyArchive:
    """The archive called ``name``; UsageError with the nearest name where there is none."""
    if name not in NAMES:
        raise UsageError(
            f"unknown archive '{name}'",
            where="--archive",
            remedy=nearest(name, NAMES),
        )
    return importlib.import_module(f"pipelines.archives.{name}").ARCHIVE
