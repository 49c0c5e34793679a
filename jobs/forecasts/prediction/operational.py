"""Frames for a forecast from a folder that files keep coming into, in place of a store."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from jobs.forecasts.prediction.init_times import input_offsets
from jobs.forecasts.prediction.options import PredictionOptions
from pipelines.conversion.newest import newest_frames
from pipelines.errors import SourceError, StoreError
from pipelines.stores.recipe import Recipe
from pipelines.stores.store import Store, open_store

if TYPE_CHECKING:
    from jobs.training.run.checkpoints import Checkpoint


def open_frames(
    trained: Checkpoint, options: PredictionOptions, folder: str, say: Callable[[str], None]
) -> Store:
    """Open the store of the options, or convert the newest frames of their source into `folder`."""
    if options.source:
        return operational_store(trained, options.source, folder, say)
    return open_store(options.store or "")


def operational_store(
    trained: Checkpoint, source: str, folder: str, say: Callable[[str], None]
) -> Store:
    """The newest frames of ``source``, made as those that the model was trained on.

    So many that one which cannot be used anywhere in the newest input leaves the input before it:
    what is older than that is no newest forecast any more, and is not looked for.

    Parameters
    ----------
    folder:
        Local and empty: the frames are written there.

    Raises
    ------
    StoreError
        The checkpoint does not say how its frames were made, or these are on another grid, in other
        units or at another cadence.
    SourceError
        The source cannot be read, or has too few frames.
    """
    recipe = trained.recipe
    if recipe is None:
        raise StoreError(
            "the checkpoint does not say how its frames were made out of an archive",
            where=trained.uri,
            remedy="convert the folder with the splits of its store and give that --store, or "
            "train again with this version",
        )
    seen = 1 - int(input_offsets(trained.window)[0])
    store = newest_frames(recipe, source, 2 * seen, folder, say)
    different = recipe.differences(Recipe.of(store, trained.variables))
    if different:
        raise StoreError(
            f"the frames are not such as the model was trained on: {'; '.join(different)}",
            where=f"{source} and {trained.uri}",
            remedy="give a folder of the same product, as the model's store was converted from",
        )
    if len(store.times) < seen:
        last = store.times[-1].astype("datetime64[s]")
        raise SourceError(
            f"{len(store.times)} frames up to {last}, and a forecast begins with {seen} "
            f"({np.timedelta64(recipe.cadence_seconds or 0, 's')} apart)",
            where=source,
            remedy="give a folder with more of the newest files",
        )
    return store
