"""Make a store of the newest frames of an archive: the input of operational forecasts.

A store is a function of its whole archive, and cannot go on once the archive has lost its first
files. A folder that composites come into, and leave again after a day, holds only the newest ones.
They are converted here into a store of their own, in this process, by the recipe of the store that
a model was trained on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from pipelines.archives import load_archive, suggesting_other_archives
from pipelines.archives.contents import ArchiveIndex
from pipelines.archives.sources.cache import SourceCache, kept_copies
from pipelines.conversion.finish import unreadable_frames
from pipelines.conversion.metadata import compose
from pipelines.conversion.options import ConversionOptions
from pipelines.conversion.plan import Plan, make_plan, time_axis
from pipelines.conversion.shard_task import Destination, convert_shards
from pipelines.errors import SourceError
from pipelines.progress import ignore
from pipelines.storage.retry import STORAGE_WAIT_SECONDS
from pipelines.stores.recipe import Recipe
from pipelines.stores.store import Store, open_store
from pipelines.stores.writer import StoreWriter

Say = Callable[[str], None]


@suggesting_other_archives()
def newest_frames(
    recipe: Recipe,
    source: str,
    frames: int,
    folder: str,
    say: Say = lambda line: None,
) -> Store:
    """Convert the newest frames of `source` into a store without splits, and open it.

    Parameters
    ----------
    recipe
        How the frames are made.
    source
        URI of a folder, a glob or one file.
    frames
        Number of steps of the time axis, counted back from the newest frame. The store has fewer if
        the source has fewer.
    folder
        Local folder of the new store.
    say
        Called with a line for each run of frames that cannot be read.

    Raises
    ------
    SourceError
        The source is empty, cannot be read, or is an archive of clips.
    UsageError
        A variable is missing in the source.
    """
    with kept_copies() as cache:
        index = newest_part(_index(recipe, source), frames)
        plan = _plan(recipe, index)
        with StoreWriter.open(folder, say) as writer:
            writer.open_tables({layout.name: layout.channels for layout in plan.layouts})
            _write_shards(plan, writer, cache, say)
            objects = compose(plan, writer.moments, unreadable_frames(plan, writer))
            # A forecast is made from the folder at once, and then the folder is removed.
            writer.write(objects, new=True, durable=False)
    return open_store(folder)


def newest_part(index: ArchiveIndex, frames: int) -> ArchiveIndex:
    """Return the last `frames` steps of the time axis, including steps whose frames are missing."""
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


def _index(recipe: Recipe, source: str) -> ArchiveIndex:
    index = load_archive(recipe.archive).index(
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
    return index


def _plan(recipe: Recipe, index: ArchiveIndex) -> Plan:
    times = time_axis(index)
    options = ConversionOptions(
        variables=tuple(recipe.units),
        regrid=recipe.regrid,
        archive_options=recipe.archive_options,
    )
    # Splits and statistics mean nothing here; a store has to have some.
    return make_plan(index, options, {"train": (int(times[0]), int(times[-1]))})


def _write_shards(plan: Plan, writer: StoreWriter, cache: SourceCache, say: Say) -> None:
    destination = Destination(
        store=writer.store,
        archive=plan.index.archive,
        owner=writer.owner,
        options=plan.index.options,
        cache=cache,
        storage_wait=STORAGE_WAIT_SECONDS,
    )
    for outcome in convert_shards(plan.tasks, destination):
        if isinstance(outcome, Exception):
            raise outcome
        writer.add_existing(outcome)
        for run in outcome.unreadable:
            say(f"cannot be read: {run['file']}: {run['reason']}")
