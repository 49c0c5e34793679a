"""Options of a training job, each with its unit.

`jobs/training/entry.py` reads them from the command line. The options of the optimisation, of
scheduled sampling and of the augmentation are declared where they are used, and inherited or
nested here. Nothing here imports PyTorch or Ray, so that `--help` answers at once.
"""

from __future__ import annotations

import dataclasses
import operator
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from gmg_model.training.options import OptimisationOptions, SamplingOptions
from jobs.training.run_options import (
    CheckpointOptions,
    ElasticOptions,
    TrackingOptions,
    ValidationOptions,
    WorkerRange,
)
from pipelines.errors import UsageError
from pipelines.inputs.augmentation import Augmentation

SET_BY_DATA = {
    "in_shape": "the store gives the shape",
    "input_frames": "--data.input_frames",
    "horizon": "--data.horizon",
    "static_channels": "--data.static_fields",
}
"""options of models that follow from the data -> what sets them"""


@dataclass(frozen=True)
class ModelOptions:
    """The model and its sizes; see `gmg_model.create_model`."""

    name: str = "gmg-s"
    """registered name: gmg-s, gmg-m, gmg-l, predrnn, srvp, ... (docs/models.md)"""
    patch_size: int = 4
    """pixels: side of the patches that become channels"""
    hidden: tuple[int, ...] = (128, 128, 128, 128)
    """channels of each stacked cell"""
    filter_size: int = 5
    """side of the recurrent convolutions' filters"""
    attention_hidden: int = 32
    """channels of the self-attention memory's queries and keys; ignored by models other than
    gmg-*"""
    compat: Literal["default", "official"] = "default"
    """default: stable and repeatable; official: the published arithmetic"""
    initial_states: Literal["zeros", "xavier"] = "zeros"
    """recurrent states before the first frame"""
    residual: bool = False
    """predict the change from the last frame instead of the frame"""
    circular: bool = False
    """wrap the padding around in longitude (global grids)"""
    checkpoint_steps: bool = False
    """recompute each time step in the backward pass: less memory, about a third more time"""
    options: dict[str, Any] = field(default_factory=dict)
    """further options of the model, such as --model.options.offset_scale 2 (docs/models.md)"""

    def overrides(self) -> dict[str, Any]:
        """Return keyword arguments of `gmg_model.create_model`, without name and frame shape.

        Raises
        ------
        UsageError
            `options` names an option that is set elsewhere.
        """
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for name in ("name", "options"):
            del own[name]
        for name in self.options:
            if name in own or name in SET_BY_DATA:
                raise UsageError(
                    f"--model.options.{name} is set by another option",
                    remedy=SET_BY_DATA.get(name, f"--model.{name}"),
                )
        if not self.name.startswith("gmg"):
            del own["attention_hidden"]
        # A model that does not know a switch can be made while the switch is off.
        own = {name: value for name, value in own.items() if value is not False}
        return own | _tuples(self.options)


@dataclass(frozen=True)
class DataOptions:
    """The windows of the store."""

    variables: tuple[str, ...] = ()
    """variables of the store that become channels; empty: all"""
    static_fields: tuple[str, ...] = ()
    """static fields that the model reads beside every frame: those of the store, or sin_latitude,
    cos_latitude, sin_longitude, cos_longitude"""
    input_frames: int = 12
    """frames that the model is given"""
    horizon: int = 12
    """frames that the model predicts"""
    stride: int = 1
    """steps of the store's cadence from one frame of a window to the next"""
    every: int = 1
    """train on every n-th window only: less overlap, shorter epochs"""
    normalise: Literal["standardise", "minmax"] = "standardise"
    """how frames are scaled, with the store's statistics of the train period"""
    anomalies: bool = False
    """the model is given and forecasts departures from the climatology of the train period, which
    every checkpoint then holds"""
    pool_mib: int = 64
    """MiB of decoded frames held for shuffling, over all lanes of the global batch"""
    transport: Literal["direct", "ray"] = "direct"
    """who reads and decodes frames: direct: each worker; ray: Ray Data tasks on any node with free
    CPUs, for GPU workers that would wait for their batches. Both give the same batches"""


@dataclass(frozen=True)
class TrainingOptions(SamplingOptions, OptimisationOptions):
    """The optimisation, see `gmg_model.training`."""

    epochs: int = 100
    """passes over the train windows"""
    global_batch: int = 16
    """windows in a step, over all workers; does not depend on the number of workers"""
    micro_batch: int = 0
    """windows in a forward pass on one worker; 0: all of the worker's windows at once"""
    gradient_compression: Literal["none", "bf16"] = "none"
    """bf16: gradients travel between workers in half the bytes, with three digits each"""
    seed: int = 0
    """seed of the weights, the order of the windows and the scheduled sampling"""
    compile: bool = False
    """compile each model's time step with torch.compile: minutes at the start, then faster steps;
    results are equal to rounding"""
    patience: int = 0
    """validations without a better score after which training ends; 0: never ends early"""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """a step whose loss or gradient is not finite ends the run (stop) or is left out (skip); both
    name the windows"""


# Checked by name, so that an error can name the option.
AT_LEAST_ONE = (
    "elastic.resize_every",
    "cpus_per_worker",
    "data.input_frames",
    "data.horizon",
    "data.stride",
    "data.every",
    "data.pool_mib",
    "training.epochs",
    "training.global_batch",
    "checkpoints.keep",
    "validation.every_epochs",
)
AT_LEAST_ZERO = (
    "training.micro_batch",
    "training.seed",
    "training.patience",
    "checkpoints.every_steps",
    "checkpoints.max_failures",
    "checkpoints.storage_wait",
    "elastic.preemption_grace",
    "elastic.start_wait",
    "elastic.stop_grace",
    "validation.every_steps",
    "validation.windows",
)


@dataclass(frozen=True)
class TrainOptions:
    """One training run."""

    store: str
    """URI of the Zarr store that reprocess.py wrote"""
    run: str
    """URI of the run: configuration, history and checkpoints; the same URI resumes"""
    workers: str | int = 1
    """Ray Train workers, each one process (and one GPU with --use_gpu); MIN:MAX: as many as the
    cluster has room for, also when nodes go and come"""
    use_gpu: Literal["auto", "true", "false"] = "auto"
    """auto: if the cluster has a GPU for every worker, or can start one"""
    cpus_per_worker: int = 1
    """CPU cores and torch threads of one worker"""
    shared_paths: bool = False
    """declare that local paths are the same file system on every node"""
    model: ModelOptions = field(default_factory=ModelOptions)
    data: DataOptions = field(default_factory=DataOptions)
    training: TrainingOptions = field(default_factory=TrainingOptions)
    augmentation: Augmentation = field(default_factory=Augmentation)
    checkpoints: CheckpointOptions = field(default_factory=CheckpointOptions)
    elastic: ElasticOptions = field(default_factory=ElasticOptions)
    validation: ValidationOptions = field(default_factory=ValidationOptions)
    tracking: TrackingOptions = field(default_factory=TrackingOptions)

    def __post_init__(self) -> None:
        workers = WorkerRange.parse(self.workers)
        if not workers.is_elastic:
            object.__setattr__(self, "workers", workers.least)  # the command line gives text
        for name in AT_LEAST_ONE:
            if (value := self._value(name)) < 1:
                raise UsageError(f"--{name} must be at least 1, not {value}")
        for name in AT_LEAST_ZERO:
            if (value := self._value(name)) < 0:
                raise UsageError(f"--{name} must be 0 or more, not {value}")
        if workers.most > self.training.global_batch:
            raise UsageError(
                f"{workers.most} workers for a global batch of {self.training.global_batch}: "
                "some would have no window in any step",
                remedy=f"--workers {self.training.global_batch} or fewer, "
                "or a larger --training.global_batch",
            )
        if self.training.gradient_compression != "none" and self.training.precision == "fp64":
            raise UsageError(
                "--training.gradient_compression bf16 with --training.precision fp64: gradients of "
                "sixteen digits would be rounded to three",
                remedy="leave one of them out",
            )
        if self.data.transport == "ray" and workers.is_elastic:
            raise UsageError(
                f"--data.transport ray with --workers {self.workers}: an elastic run takes every "
                "CPU that it finds, and leaves none for the tasks that read",
                remedy=f"--workers {workers.least}, or --data.transport direct",
            )
        if self.elastic.max_preemptions < -1:
            raise UsageError("--elastic.max_preemptions must be -1 (any number), 0 or more")

    def _value(self, name: str) -> int:
        """Return an option by its dotted name."""
        return operator.attrgetter(name)(self)

    @property
    def worker_range(self) -> WorkerRange:
        """The least and the most workers."""
        return WorkerRange.parse(self.workers)

    @property
    def reading_cpus(self) -> int:
        """CPUs that reading tasks need beside the workers, at least."""
        return 1 if self.data.transport == "ray" else 0

    def as_dict(self) -> dict[str, Any]:
        """Return plain nested dictionaries and lists, for JSON and YAML."""
        return _plain(dataclasses.asdict(self))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainOptions:
        """Restore what `as_dict` returned; options that are missing have their defaults."""
        nested = {f.name: f.default_factory for f in dataclasses.fields(cls)}
        return cls(
            **{
                key: cast(Any, nested[key])(**_tuples(value)) if isinstance(value, dict) else value
                for key, value in values.items()
            }
        )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
