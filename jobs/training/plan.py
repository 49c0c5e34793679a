"""What a training run can know before any compute is spent; the same on every worker."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.training.options import TrainOptions
from pipelines.errors import StoreError, UsageError, nearest
from pipelines.inputs.augmentation import Augmentation
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
    """A store, the windows drawn from it, and the model that they are for."""

    options: TrainOptions
    store: Store
    variables: tuple[str, ...]
    window: WindowSpec
    train_starts: np.ndarray
    """int64 (n,) first frames of the train windows"""
    validation_starts: np.ndarray
    """int64 (m,) first frames of the windows that are validated; may be empty"""
    normalisation: Normalisation
    order: OrderConfig
    augmentation: Augmentation
    static: StaticFields | None = None
    """what the model reads beside every frame; None: nothing"""

    @property
    def steps_per_epoch(self) -> int:
        """Optimisation steps of one pass over the train windows; the last may be short."""
        return -(-len(self.train_starts) // self.options.training.global_batch)

    @property
    def total_steps(self) -> int:
        """Optimisation steps of the whole training."""
        return self.steps_per_epoch * self.options.training.epochs

    @property
    def optimisation(self) -> dict[str, Any]:
        """Arguments of ``gmg_model.training.optimisation.OptimisationConfig``."""
        training = self.options.training
        return {
            "total_steps": self.total_steps,
            "learning_rate": training.learning_rate,
            "optimiser": training.optimiser,
            "weight_decay": training.weight_decay,
            "schedule": training.schedule,
            "warmup": training.warmup,
            "gradient_clip": training.gradient_clip,
            "loss": training.loss,
            "loss_options": self.loss_options,
            "members": training.members,
            "precision": training.precision,
            "ema": training.ema,
        }

    @property
    def sampling(self) -> dict[str, Any]:
        """Arguments of ``gmg_model.training.sampling.ScheduledSampling``."""
        training = self.options.training
        return {
            "kind": training.sampling,
            "start": training.sampling_start,
            "end": training.sampling_end,
            "unit": training.sampling_unit,
        }

    @property
    def loss_options(self) -> dict[str, Any]:
        """Options of the loss, thresholds in units of normalised frames.

        Raises
        ------
        UsageError
            A balanced loss has no thresholds, or channels of several scales, or anomalies.
        """
        training = self.options.training
        given: dict[str, Any] = {}
        if training.members > 1:
            return {"fairness": training.crps_fairness}
        if training.loss_weights:
            given["weights"] = training.loss_weights
        if training.loss_thresholds:
            if self.normalisation.normals is not None:
                raise UsageError(
                    "--training.loss_thresholds name values, and with --data.anomalies true the "
                    "model knows only what departs from the usual ones",
                    remedy="train on values (--data.anomalies false), or with another "
                    "--training.loss",
                )
            scales = set(zip(self.normalisation.offset, self.normalisation.scale, strict=True))
            if len(scales) > 1:
                raise UsageError(
                    f"--training.loss_thresholds for {len(self.normalisation.labels)} channels of "
                    "several units or scales: no threshold means the same in all of them",
                    remedy="train on one variable (--data.variables), or with another "
                    "--training.loss",
                )
            ((offset, scale),) = scales
            given["thresholds"] = tuple((t - offset) / scale for t in training.loss_thresholds)
        elif training.loss.startswith("balanced"):
            raise UsageError(
                f"--training.loss {training.loss} needs the values from which errors weigh more",
                remedy="--training.loss_thresholds [20,30,40,50], in the units of the data",
            )
        return given

    @property
    def model_overrides(self) -> dict[str, Any]:
        """Arguments of ``gmg_model.create_model``: the sizes that the data give are included."""
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
            augmentation=self.augmentation,
            static_fields=self.static or (),
        )

    def _transport(self) -> Callable[[NormalisedReader], Transport]:
        if self.options.data.transport == "direct":
            return DirectTransport
        from pipelines.stream.ray_transport import RayTransport

        return partial(RayTransport, wait_seconds=self.options.elastic.start_wait)

    def as_dict(self) -> dict[str, Any]:
        """What a checkpoint's record says of the options, the model and the store."""
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


def make_plan(options: TrainOptions) -> TrainingPlan:
    """Open the store and lay the training out.

    Raises
    ------
    StoreError
        The store is incomplete.
    UsageError
        It lacks a variable, or no window fits the train split.
    """
    store = open_store(options.store)
    data, training = options.data, options.training
    for name in data.variables:
        if name not in store.variables:
            raise UsageError(
                f"the store has no variable '{name}'",
                where=store.uri,
                remedy=f"--data.variables: {nearest(name, store.variables)}",
            )
    augmentation = Augmentation(**dataclasses.asdict(options.augmentation))
    augmentation.check(*store.spatial_shape, longitudes=store.coordinates.get("longitude"))
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
            "--training.patience counts validations, and there is no window to validate on",
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
        if data.anomalies
        else normalisation,
        order=OrderConfig(
            global_batch=training.global_batch,
            seed=training.seed,
            pool_bytes=data.pool_mib * 2**20 // training.global_batch,
        ),
        augmentation=augmentation,
        static=static_fields(store, data.static_fields, data.normalise)
        if data.static_fields
        else None,
    )


def _validation_starts(store: Store, window: WindowSpec, most: int) -> np.ndarray:
    """At most ``most`` windows of the validation split, evenly spaced; none where none fits."""
    if "validation" not in store.splits or most < 1:
        return np.empty(0, np.int64)
    try:
        starts = split_starts(store, "validation", window)
    except UsageError:
        return np.empty(0, np.int64)
    chosen = np.linspace(0, len(starts) - 1, min(most, len(starts))).round().astype(np.int64)
    return starts[np.unique(chosen)]


def check_fingerprint(plan: TrainingPlan, fingerprint: str) -> None:
    """Refuse a store whose statistics are not those that the run began with."""
    if plan.store.fingerprint != fingerprint:
        raise StoreError(
            "the statistics of the store are not those that the run began with",
            where=plan.store.uri,
            remedy="restore the former splits (reprocess.py convert --splits), or take a new --run",
        )


def check_frames(plan: TrainingPlan, checkpoint: Checkpoint) -> None:
    """Refuse a store whose grid, units, cadence, static fields or climatology are not those of a
    checkpoint.
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
