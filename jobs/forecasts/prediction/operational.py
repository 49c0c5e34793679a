"""Frames of an operational forecast: the newest files of a folder, in place of a store."""

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
    """Convert the newest frames of a source as the frames that the model was trained on.

    Twice as many frames as one forecast needs are converted. If one frame of the newest input
    cannot be used, the input before it is complete; older inputs are too old for a forecast.

    Parameters
    ----------
    folder:
        Local and empty; the frames are written there.
    say:
        Called with lines for people.

    Raises
    ------
    StoreError
        The checkpoint does not say how its frames were made, or the source has another grid, other
        units or another cadence.
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
