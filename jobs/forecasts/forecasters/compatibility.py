"""Check that a checkpoint may be scored on a split of a store, before any work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.errors import StoreError, UsageError, nearest
from pipelines.inputs.static_fields import differences
from pipelines.stores.recipe import Recipe
from pipelines.timeline.splits import split_text

if TYPE_CHECKING:
    from jobs.training.run.checkpoints import Checkpoint
    from pipelines.stores.store import Store


def check_match(checkpoint: Checkpoint, store: Store) -> None:
    """Raise StoreError unless the store is one that the checkpoint was trained on.

    Raises
    ------
    StoreError
        Variables, channels, grid, static fields or statistics differ; the error names both sides.
    """
    check_same_frames(checkpoint, store)
    # Statistics do not depend on where values lie: those of an upside-down field are the same.
    recipe = checkpoint.recipe
    if recipe and (other := recipe.differences(Recipe.of(store, checkpoint.variables))):
        raise _mismatch(
            checkpoint, store, "the checkpoint was trained on other frames", "; ".join(other)
        )
    check_same_static(checkpoint, store)
    if checkpoint.fingerprint != store.fingerprint:
        raise _mismatch(
            checkpoint,
            store,
            f"the checkpoint was trained with statistics {checkpoint.fingerprint[:12]}",
            f"the store has {store.fingerprint[:12]}",
            "convert with the splits that it was trained with (--splits), ",
        )


def check_same_frames(checkpoint: Checkpoint, store: Store) -> None:
    """Raise StoreError unless the checkpoint can forecast from the frames of the store.

    Raises
    ------
    StoreError
        Variables, channels or grid differ; the error names both sides.
    """
    missing = [name for name in checkpoint.variables if name not in store.variables]
    if missing:
        raise _mismatch(
            checkpoint,
            store,
            f"the checkpoint forecasts {', '.join(checkpoint.variables)}",
            f"the store holds {', '.join(store.variables)}",
        )
    labels = tuple(
        label for name in checkpoint.variables for label in store.variables[name].channel_labels
    )
    if labels != checkpoint.normalisation.labels:
        raise _mismatch(
            checkpoint,
            store,
            f"the checkpoint's channels are {', '.join(checkpoint.normalisation.labels)}",
            f"the store's are {', '.join(labels)}",
        )
    trained_on = checkpoint.record.get("grid")
    grids = {tuple(store.variables[name].shape[-2:]) for name in checkpoint.variables}
    if trained_on is not None and grids != {tuple(trained_on)}:
        raise _mismatch(
            checkpoint,
            store,
            f"the checkpoint forecasts a grid of {_grid(trained_on)}",
            f"the store's is {', '.join(_grid(grid) for grid in sorted(grids))}",
        )


def check_same_static(checkpoint: Checkpoint, store: Store) -> None:
    """Raise StoreError unless the store has the static fields that the model reads.

    Raises
    ------
    StoreError
        A field is missing or different; the error gives the command that adds it.
    """
    names = checkpoint.static_names
    other = differences(checkpoint.record["static"], store) if names else []
    if other:
        command = store.convert_command(f"--static_fields {' '.join(names)}")
        raise StoreError(
            f"the checkpoint reads static fields {', '.join(names)}, and {'; '.join(other)}",
            where=f"{checkpoint.uri} and {store.uri}",
            remedy=f"add them as they were in training:  {command}  (with --static_source where "
            "they lie in another file)",
        )


def check_selection(checkpoint: Checkpoint, store: Store, split: str) -> None:
    """Raise StoreError if the windows of a split other than validation chose the checkpoint.

    Raises
    ------
    StoreError
        The split overlaps the period that the run validated on: the store has other splits than
        at the time of the training.
    """
    chosen = checkpoint.record.get("validation_period")
    scored = store.attributes["splits"][split]
    if split == "validation" or chosen is None or not _overlap(chosen, scored):
        return
    raise StoreError(
        f"scores of split '{split}' would not be honest: its period {_period(scored)} overlaps "
        f"{_period(chosen)}, the validation period that chose this checkpoint",
        where=f"{checkpoint.uri} and {store.uri}",
        remedy="convert with the splits that it was trained with (--splits), or train anew",
    )


def check_no_leak(store: Store, split: str) -> None:
    """Raise StoreError if the statistics, which normalise the model's input, have seen a split.

    Raises
    ------
    UsageError
        The split is unknown.
    StoreError
        The period of the statistics overlaps that of the split; the error names both.
    """
    if split not in store.splits:
        raise UsageError(
            f"unknown split '{split}'", where=store.uri, remedy=nearest(split, store.splits)
        )
    seen, scored = store.statistics["period"], store.attributes["splits"][split]
    if _overlap(seen, scored):
        raise StoreError(
            f"scores of split '{split}' would not be honest: its period {_period(scored)} "
            f"overlaps {_period(seen)}, which the statistics were taken from",
            where=store.uri,
            remedy="score a split outside the train period (--split test), or convert with splits "
            "that do not overlap (--splits)",
        )


def _period(ends: Sequence[Any]) -> str:
    return " to ".join(split_text(ends))


def _overlap(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Return whether two periods (first, last), both inclusive, have a time or sample in common."""
    if isinstance(one[0], int) and isinstance(other[0], int):
        return one[0] <= other[1] and other[0] <= one[1]
    first, last = (np.datetime64(time, "s") for time in one)
    other_first, other_last = (np.datetime64(time, "s") for time in other)
    return bool(first <= other_last and other_first <= last)


def _mismatch(
    checkpoint: Checkpoint, store: Store, ours: str, theirs: str, besides: str = ""
) -> StoreError:
    return StoreError(
        f"{ours}, and {theirs}",
        where=f"{checkpoint.uri} and {store.uri}",
        remedy=f"give the store that the checkpoint was trained on, {besides}or train on this one",
    )


def _grid(shape: Sequence[int]) -> str:
    return " x ".join(str(size) for size in shape)
