"""The plan of a training run, made before any compute is spent; the same on every worker."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from gmg_model.training.options import OptimisationOptions
from jobs.training.options import TrainOptions
from pipelines.errors import StoreError, UsageError, nearest
from pipelines.inputs.normalisation import Normalisation, with_normals
from pipelines.inputs.static_fields import StaticFields, differences, static_fields
from pipelines.stores.recipe import Recipe
from pipelines.stores.store import Store, open_store
from pipelines.stream.order import OrderConfig
from pipelines.stream.window_stream import DirectTransport, Transport, WindowStream
from pipelines.stream.windows import WindowSpec, split_starts

if TYPE_CHECKING:
    from jobs.training.run.checkpoints import Checkpoint
    from pipelines.inputs.normalisation import NormalisedReader


@dataclass(frozen=True)
class TrainingPlan:
    """A store, the windows drawn from it, and how the model and its optimisation are made."""

    options: TrainOptions
    store: Store
    variables: tuple[str, ...]
    window: WindowSpec
    train_starts: np.ndarray
    """int64 (n,) first frames of the train windows"""
    validation_starts: np.ndarray
    """int64 (m,) first frames of the windows to validate on; may be empty"""
    normalisation: Normalisation
    order: OrderConfig
    static: StaticFields | None = None
    """static fields that the model reads beside every frame; None: no fields"""

    @property
    def steps_per_epoch(self) -> int:
        """Optimisation steps of one pass over the train windows; the last may be short."""
        return -(-len(self.train_starts) // self.options.training.global_batch)

    @property
    def total_steps(self) -> int:
        """Optimisation steps of the whole training."""
        return self.steps_per_epoch * self.options.training.epochs

    @property
    def optimisation(self) -> OptimisationOptions:
        """How the weights are fitted, with the loss's thresholds in units of normalised frames.

        Raises
        ------
        UsageError
            A balanced loss has no thresholds, or the thresholds do not mean the same in every
            channel.
        """
        training = self.options.training
        if training.members > 1:  # a loss over members has no thresholds
            return training
        if not training.loss_thresholds:
            if training.loss.startswith("balanced"):
                raise UsageError(
                    f"--training.loss {training.loss} needs the values from which errors weigh "
                    "more",
                    remedy="--training.loss_thresholds [20,30,40,50], in the units of the data",
                )
            return training
        scales = set(zip(self.normalisation.offset, self.normalisation.scale, strict=True))
        if len(scales) > 1:
            raise UsageError(
                f"--training.loss_thresholds for {len(self.normalisation.labels)} channels of "
                "several units or scales: no threshold means the same in all of them",
                remedy="train on one variable (--data.variables), or with another --training.loss",
            )
        ((offset, scale),) = scales
        normalised = tuple((value - offset) / scale for value in training.loss_thresholds)
        return dataclasses.replace(training, loss_thresholds=normalised)

    @property
    def model_overrides(self) -> dict[str, Any]:
        """Arguments of `gmg_model.create_model`, with the sizes that follow from the data."""
        from gmg_model import is_sized_by_window

        sizes: dict[str, Any] = {
            "in_shape": (len(self.normalisation.labels), *self.store.spatial_shape)
        }
        if is_sized_by_window(self.options.model.name):
            window = self.window
            sizes |= {"input_frames": window.input_frames, "horizon": window.horizon}
        if self.static is not None:
            sizes["static_channels"] = len(self.static.names)
        return sizes | self.options.model.overrides()

    def stream(self, lanes: Sequence[int]) -> WindowStream:
        """Return the train windows of some lanes of the global batch, by `--data.transport`."""
        return WindowStream(
            store=self.store,
            variables=self.variables,
            spec=self.window,
            starts=self.train_starts,
            order=self.order,
            normalisation=self.normalisation,
            lanes=lanes,
            transport=self._transport(),
            augmentation=self.options.augmentation,
            static_fields=self.static or (),
        )

    def _transport(self) -> Callable[[NormalisedReader], Transport]:
        if self.options.data.transport == "direct":
            return DirectTransport
        from pipelines.stream.ray_transport import RayTransport

        return partial(RayTransport, wait_seconds=self.options.elastic.start_wait)

    def as_dict(self) -> dict[str, Any]:
        """Return what a checkpoint records of the options, the model and the store."""
        store = self.store
        return {
            "options": self.options.as_dict(),
            "model": {"name": self.options.model.name, "overrides": self.model_overrides},
            "variables": list(self.variables),
            "grid": list(store.spatial_shape),
            "window": dataclasses.asdict(self.window),
            "normalisation": self.normalisation.as_dict(),
            **({} if self.static is None else {"static": self.static.as_dict()}),
            "statistics_fingerprint": store.fingerprint,
            "validation_period": store.attributes["splits"].get("validation"),
            "store": {
                "uri": store.uri,
                "title": store.title,
                "train_period": store.attributes["splits"]["train"],
                "cadence_seconds": int(store.cadence / np.timedelta64(1, "s")),
                "recipe": Recipe.of(store, self.variables).as_dict(),
            },
        }


def make_plan(options: TrainOptions, climatology: bool = True) -> TrainingPlan:
    """Open the store and plan the training.

    Parameters
    ----------
    climatology
        False: leave out the climatology of a training on anomalies, to check the other options.

    Raises
    ------
    StoreError
        The store is incomplete.
    UsageError
        A variable is missing in the store, there are too few windows, or an option does not fit the
        store.
    """
    store = open_store(options.store)
    data, training = options.data, options.training
    _check_thresholds(options)
    _check_variables(data.variables, store)
    options.augmentation.check(*store.spatial_shape, longitudes=store.coordinates.get("longitude"))
    variables = data.variables or tuple(store.variables)
    window = WindowSpec(data.input_frames, data.horizon, data.stride)
    train_starts = split_starts(store, "train", window)[:: data.every]
    if len(train_starts) < training.global_batch:
        raise UsageError(
            f"{len(train_starts)} train windows for a global batch of {training.global_batch}",
            where=store.uri,
            remedy=f"--training.global_batch {len(train_starts)} or smaller, or shorter windows",
        )
    validation_starts = _validation_starts(store, window, options.validation.windows)
    if training.patience and not len(validation_starts):
        raise UsageError(
            "--training.patience counts validations, but the validation split has no window",
            where=store.uri,
            remedy="--training.patience 0, a validation split (reprocess.py convert --splits), or "
            "--validation.windows above 0",
        )
    normalisation = Normalisation.from_store(store, variables, data.normalise)
    return TrainingPlan(
        options=options,
        store=store,
        variables=variables,
        window=window,
        train_starts=train_starts,
        validation_starts=validation_starts,
        normalisation=with_normals(normalisation, store, variables)
        if data.anomalies and climatology
        else normalisation,
        order=OrderConfig(
            global_batch=training.global_batch,
            seed=training.seed,
            pool_bytes=data.pool_mib * 2**20 // training.global_batch,
        ),
        static=static_fields(store, data.static_fields, data.normalise)
        if data.static_fields
        else None,
    )


def _check_variables(names: Sequence[str], store: Store) -> None:
    """Raise UsageError if a variable is missing in the store; the remedy is the nearest name."""
    for name in names:
        if name not in store.variables:
            raise UsageError(
                f"the store has no variable '{name}'",
                where=store.uri,
                remedy=f"--data.variables: {nearest(name, store.variables)}",
            )


def _check_thresholds(options: TrainOptions) -> None:
    """Raise UsageError if thresholds in the units of the data are given for anomalies.

    It is checked before the climatology is computed, which is written beside the store.
    """
    training = options.training
    if options.data.anomalies and training.loss_thresholds and training.members == 1:
        raise UsageError(
            "--training.loss_thresholds are values, and with --data.anomalies true the model "
            "knows only departures from the climatology",
            remedy="train on values (--data.anomalies false), or with another --training.loss",
        )


def _validation_starts(store: Store, window: WindowSpec, most: int) -> np.ndarray:
    """Return at most `most` windows of the validation split, evenly spaced.

    There are none if the store has no validation split or no window fits into it.
    """
    if "validation" not in store.splits or most < 1:
        return np.empty(0, np.int64)
    try:
        starts = split_starts(store, "validation", window)
    except UsageError:
        return np.empty(0, np.int64)
    chosen = np.linspace(0, len(starts) - 1, min(most, len(starts))).round().astype(np.int64)
    return starts[np.unique(chosen)]


def check_fingerprint(plan: TrainingPlan, fingerprint: str) -> None:
    """Raise StoreError if the statistics of the store are not those that the run began with."""
    if plan.store.fingerprint != fingerprint:
        raise StoreError(
            "the statistics of the store are not those that the run began with",
            where=plan.store.uri,
            remedy="restore the former splits (reprocess.py convert --splits), or take a new --run",
        )


def check_frames(plan: TrainingPlan, checkpoint: Checkpoint) -> None:
    """Raise StoreError if the store does not have the data of a checkpoint.

    Grid, units, cadence, static fields and climatology must be equal.
    """
    other = []
    if checkpoint.recipe:
        other += checkpoint.recipe.differences(Recipe.of(plan.store, plan.variables))
    if "static" in checkpoint.record:
        other += differences(checkpoint.record["static"], plan.store)
    here = plan.normalisation.as_dict()
    if checkpoint.record["normalisation"].get("normals") != here.get("normals"):
        other.append("the climatology of the train period has other values")
    if other:
        raise StoreError(
            f"the run cannot go on, it began with other data: {'; '.join(other)}",
            where=plan.store.uri,
            remedy="convert the former store again, or take a new --run",
        )
