"""The newest frames of an archive, made as a store's were: what operational forecasts begin with.

A store is a function of its whole archive, and refuses one that has lost its first files. A folder
that composites come into, and leave again after a day, holds the newest only: they are converted
here into a store of their own, in this process, by the recipe of the store that a model knows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pipelines.archives import load_archive, suggesting_other_archives
from pipelines.archives.contents import ArchiveIndex
from pipelines.archives.sources.cache import kept_copies
from pipelines.conversion.metadata import compose
from pipelines.conversion.options import ConversionOptions
from pipelines.conversion.plan import Plan, make_plan, time_axis
from pipelines.conversion.shard_task import Destination, convert_shards
from pipelines.errors import SourceError
from pipelines.progress import ignore
from pipelines.storage import places
from pipelines.storage.retry import STORAGE_WAIT_SECONDS
from pipelines.stores.moments import moments_tables
from pipelines.stores.recipe import Recipe
from pipelines.stores.store import Store, open_store

if TYPE_CHECKING:
    from pipelines.stores.ledger import ShardRecord


@suggesting_other_archives()
def newest_frames(
    recipe: Recipe,
    source: str,
    frames: int,
    folder: str,
    say: Callable[[str], None] = lambda line: None,
) -> Store:
    """A store of the newest frames of ``source`` in the local ``folder``, without splits.

    Parameters
    ----------
    source:
        URI of a folder, a glob or one file.
    frames:
        So many steps of time back from the newest that the source has; fewer where it has fewer.
    say:
        Called with a line for each frame that cannot be read.

    Raises
    ------
    SourceError
        There is nothing, it cannot be read, or it is of clips.
    UsageError
        It lacks a variable.
    """
    archive = load_archive(recipe.archive)
    with kept_copies() as cache:
        index = archive.index(
            source,
            variables=tuple(recipe.units),
            options=recipe.archive_options,
            progress=ignore,
        )
        if index.clips is not None:
            raise SourceError(
                f"archive '{recipe.archive}' is one of clips, which have no newest frames",
                where=source,
                remedy="export the model and give it the frames: python jobs/export.py --help",
            )
        part = newest_part(index, frames)
        times = time_axis(part)
        plan = make_plan(
            part,
            ConversionOptions(
                variables=tuple(recipe.units),
                regrid=recipe.regrid,
                archive_options=recipe.archive_options,
            ),
            {"train": (int(times[0]), int(times[-1]))},
        )
        destination = Destination(
            store=folder,
            archive=recipe.archive,
            owner="",
            options=plan.index.options,
            cache=cache,
            storage_wait=STORAGE_WAIT_SECONDS,
        )
        records = []
        for outcome in convert_shards(plan.tasks, destination):
            if isinstance(outcome, Exception):
                raise outcome
            records.append(outcome)
            for run in outcome.unreadable:
                say(f"cannot be read: {run['file']}: {run['reason']}")
    _finish(plan, records, folder)
    return open_store(folder)


def newest_part(index: ArchiveIndex, frames: int) -> ArchiveIndex:
    """The last so many steps of an archive's time axis, whether it has their frames or not."""
    first = int(time_axis(index)[-frames:][0])
    variables = []
    for variable in index.variables:
        kept = slice(int(np.searchsorted(variable.times, first)), None)
        variables.append(
            replace(
                variable,
                times=variable.times[kept],
                files=variable.files[kept],
                positions=variable.positions[kept],
            )
        )
    periods = tuple((max(begin, first), end) for begin, end in index.periods if end >= first)
    return replace(index, variables=tuple(variables), periods=periods, static=())


def _finish(plan: Plan, records: Sequence[ShardRecord], folder: str) -> None:
    """What is not shards; the root is the last."""
    unreadable = {
        layout.name: np.concatenate(
            [record.unreadable_frames() for record in records if record.variable == layout.name]
        )
        for layout in plan.layouts
    }
    with moments_tables({layout.name: layout.channels for layout in plan.layouts}) as moments:
        for record in records:
            moments[record.variable].write(record.start, record.moments)
        for name, content in compose(plan, moments, unreadable).items():
            places.write_bytes(places.join(folder, *name.split("/")), content, durable=False)
