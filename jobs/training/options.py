"""Options of a training job, each with its unit, and the command line that sets them.

A data set's YAML in ``jobs/configs`` gives the defaults, ``--config FILE.yaml`` and dotted options
override them. Nothing here imports torch or Ray, so that ``--help`` answers at once.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from jobs.training.run_options import (
    CheckpointOptions,
    ElasticOptions,
    TrackingOptions,
    ValidationOptions,
    WorkerRange,
)
from pipelines.errors import UsageError

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


PLACES = {
    "in_shape": "the store gives the shape",
    "input_frames": "--data.input_frames",
    "horizon": "--data.horizon",
    "static_channels": "--data.static_fields",
}
"""Options of models that the data give, and where from."""


@dataclass(frozen=True)
class ModelOptions:
    """Which model, and its sizes; see ``gmg_model.create_model``."""

    name: str = "gmg-s"
    """registered name: gmg-s, gmg-m, gmg-l, predrnn, srvp, ... (docs/models.md)"""
    patch_size: int = 2
    """pixels: side of the patches that become channels"""
    hidden: tuple[int, ...] = (128, 128, 128, 128)
    """channels of each stacked cell"""
    filter_size: int = 5
    """side of the recurrent convolutions' filters"""
    attention_hidden: int = 64
    """channels of the self-attention memory's queries and keys; other models than gmg-* have none
    and ignore it"""
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
    """further options of the model: --model.options.offset_scale 2 (docs/models.md)"""

    def overrides(self) -> dict[str, Any]:
        """Keyword arguments of ``gmg_model.create_model``, less the name and the frame's shape.

        Raises
        ------
        UsageError
            A further option is one that has its own place.
        """
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for name in ("name", "options"):
            del own[name]
        for name in self.options:
            if name in own or name in PLACES:
                raise UsageError(
                    f"--model.options.{name} has a place of its own",
                    remedy=PLACES.get(name, f"--model.{name}"),
                )
        if not self.name.startswith("gmg"):
            del own["attention_hidden"]
        # A switch that is off is no option that a model without it must know.
        own = {name: value for name, value in own.items() if value is not False}
        return own | _tuples(self.options)


@dataclass(frozen=True)
class DataOptions:
    """Which windows of the store."""

    variables: tuple[str, ...] = ()
    """variables of the store that become channels; empty: all"""
    static_fields: tuple[str, ...] = ()
    """static fields of the store that the model reads beside every frame; besides those that it
    holds: sin_latitude, cos_latitude, sin_longitude, cos_longitude"""
    input_frames: int = 12
    """frames that the model is given"""
    horizon: int = 12
    """frames that it predicts"""
    stride: int = 1
    """steps of the store's cadence from one frame of a window to the next"""
    every: int = 1
    """train on every n-th window only: less overlap, shorter epochs"""
    normalise: Literal["standardise", "minmax"] = "standardise"
    """with the store's statistics of the train period"""
    anomalies: bool = False
    """the model is given and forecasts what departs from the climatology of the train period, which
    every checkpoint then holds"""
    pool_mib: int = 64
    """MiB of decoded frames held for shuffling, over all lanes of the global batch"""
    transport: Literal["direct", "ray"] = "direct"
    """who reads and decodes frames: direct: each worker; ray: Ray Data tasks on any node with free
    CPUs, for GPU workers that would wait for their batches. Both give the same batches"""


@dataclass(frozen=True)
class TrainingOptions:
    """One optimisation: see ``gmg_model.training.optimisation``."""

    epochs: int = 100
    """passes over the train windows"""
    global_batch: int = 16
    """windows a step, over all workers; does not depend on their number"""
    micro_batch: int = 0
    """windows a forward pass on one worker; 0: all that the worker owns at once"""
    optimiser: Literal["adam", "adamw", "rmsprop"] = "adam"
    """update rule"""
    learning_rate: float = 3e-4
    """peak learning rate"""
    weight_decay: float = 0.0
    """decay of the weights (adamw, rmsprop)"""
    schedule: Literal["onecycle", "cosine", "constant"] = "onecycle"
    """learning rate against the fraction of training done"""
    warmup: float = 0.05
    """fraction of training until the peak learning rate (cosine; onecycle takes 0.3)"""
    gradient_clip: float = 1.0
    """largest norm of the whole gradient; 0: off"""
    loss: str = "l1+l2"
    """l1+l2, mse, l1, balanced-l1+l2, ...; over all one-step outputs"""
    loss_thresholds: tuple[float, ...] = ()
    """balanced losses: values from which an error weighs more, rising, in the units of the data"""
    loss_weights: tuple[float, ...] = ()
    """balanced losses: weights below, between and above the thresholds; empty: 1,2,5,10,30 for 4"""
    members: int = 1
    """forecasts of each window a step, of a model made with noise, for the loss crps"""
    crps_fairness: float = 0.95
    """loss crps: 1 is the fair score, 0.95 the almost fair one that lets no member drift unseen"""
    precision: Literal["fp32", "bf16", "fp64"] = "fp32"
    """bf16: autocast; fp64: for checks of exactness"""
    gradient_compression: Literal["none", "bf16"] = "none"
    """bf16: gradients travel between workers in half the bytes, with three digits each"""
    ema: float = 0.0
    """decay of the exponential moving average of the weights that is validated; 0: off"""
    sampling: Literal[
        "none",
        "linear",
        "exponential",
        "sigmoid",
        "reverse-linear",
        "reverse-exponential",
        "reverse-sigmoid",
    ] = "linear"
    """scheduled sampling: how the probability of feeding the true frame falls; reverse-* hides
    input frames as well (PredRNN-V2), not for gmg-* and encoder-forecasters"""
    sampling_start: float = 0.0
    """when it begins to fall: fraction of training, or step"""
    sampling_end: float = 0.8
    """from when the model runs free: fraction of training, or step"""
    sampling_unit: Literal["fraction", "steps"] = "fraction"
    """what sampling_start and sampling_end are"""
    seed: int = 0
    """of the weights, the order of the windows and the scheduled sampling"""
    compile: bool = False
    """compile each model's time step with torch.compile: minutes at the start, then faster steps;
    results are equal to rounding"""
    patience: int = 0
    """validations without a better score after which training ends; 0: it goes through"""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """a step whose loss or gradient is not finite ends the run, or is left out; either names the
    windows"""


@dataclass(frozen=True)
class AugmentationOptions:
    """Changes of whole train windows, for scalar fields; all off by default."""

    flip_rows: bool = False
    """mirror north and south, every second window"""
    flip_columns: bool = False
    """mirror east and west, every second window"""
    rot90: bool = False
    """turn by 0, 90, 180 or 270 degrees; square grids only"""
    roll_columns: bool = False
    """shift around the globe by any number of columns; grids of all longitudes only"""


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
    """auto: where the cluster has a GPU for every worker, or can start one"""
    cpus_per_worker: int = 1
    """CPU cores and torch threads of one worker"""
    shared_paths: bool = False
    """declare that local paths are the same file system on every node"""
    model: ModelOptions = field(default_factory=ModelOptions)
    data: DataOptions = field(default_factory=DataOptions)
    training: TrainingOptions = field(default_factory=TrainingOptions)
    augmentation: AugmentationOptions = field(default_factory=AugmentationOptions)
    checkpoints: CheckpointOptions = field(default_factory=CheckpointOptions)
    elastic: ElasticOptions = field(default_factory=ElasticOptions)
    validation: ValidationOptions = field(default_factory=ValidationOptions)
    tracking: TrackingOptions = field(default_factory=TrackingOptions)

    def __post_init__(self) -> None:
        workers = WorkerRange.parse(self.workers)
        if not workers.is_elastic:
            object.__setattr__(self, "workers", workers.least)  # the command line gives text
        positive = {
            "elastic.resize_every": self.elastic.resize_every,
            "cpus_per_worker": self.cpus_per_worker,
            "data.input_frames": self.data.input_frames,
            "data.horizon": self.data.horizon,
            "data.stride": self.data.stride,
            "data.every": self.data.every,
            "data.pool_mib": self.data.pool_mib,
            "training.epochs": self.training.epochs,
            "training.global_batch": self.training.global_batch,
            "checkpoints.keep": self.checkpoints.keep,
            "validation.every_epochs": self.validation.every_epochs,
        }
        for key, value in positive.items():
            if value < 1:
                raise UsageError(f"--{key} must be at least 1, not {value}")
        not_negative = {
            "training.micro_batch": self.training.micro_batch,
            "training.seed": self.training.seed,
            "training.patience": self.training.patience,
            "checkpoints.every_steps": self.checkpoints.every_steps,
            "checkpoints.max_failures": self.checkpoints.max_failures,
            "checkpoints.storage_wait": self.checkpoints.storage_wait,
            "elastic.preemption_grace": self.elastic.preemption_grace,
            "elastic.start_wait": self.elastic.start_wait,
            "elastic.stop_grace": self.elastic.stop_grace,
            "validation.every_steps": self.validation.every_steps,
            "validation.windows": self.validation.windows,
        }
        for key, value in not_negative.items():
            if value < 0:
                raise UsageError(f"--{key} must be 0 or more, not {value}")
        if workers.most > self.training.global_batch:
            raise UsageError(
                f"{workers.most} workers for a global batch of {self.training.global_batch}: "
                "some would have no window in any step",
                remedy=f"--workers {self.training.global_batch} or fewer, "
                "or a larger --training.global_batch",
            )
        training = self.training
        if training.gradient_compression != "none" and training.precision == "fp64":
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

    @property
    def worker_range(self) -> WorkerRange:
        """The least and the most workers."""
        return WorkerRange.parse(self.workers)

    @property
    def reading_cpus(self) -> int:
        """CPUs that reading tasks need beside the workers, at least."""
        return 1 if self.data.transport == "ray" else 0

    def as_dict(self) -> dict[str, Any]:
        """Plain nested dictionaries and lists, for JSON and YAML."""
        return _plain(dataclasses.asdict(self))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainOptions:
        """The inverse of :meth:`as_dict`."""
        nested = {
            "model": ModelOptions,
            "data": DataOptions,
            "training": TrainingOptions,
            "augmentation": AugmentationOptions,
            "checkpoints": CheckpointOptions,
            "elastic": ElasticOptions,
            "validation": ValidationOptions,
            "tracking": TrackingOptions,
        }
        return cls(
            **{
                key: nested[key](**_tuples(value)) if key in nested else value
                for key, value in values.items()
            }
        )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}


def parse(
    default: str, description: str | None, arguments: list[str] | None = None
) -> TrainOptions:
    """The options from the command line.

    Parameters
    ----------
    default:
        Name of the YAML in ``jobs/configs`` that holds the data set's defaults.
    description:
        First lines of ``--help``.

    Raises
    ------
    SystemExit
        Code 2 with the nearest name where an option is unknown or a value does not fit.
    """
    return TrainOptions.from_dict(_parsed((TrainOptions,), default, description, arguments))


Beside = TypeVar("Beside")


def parse_beside(
    kind: type[Beside],
    default: str,
    description: str | None,
    arguments: list[str] | None = None,
) -> tuple[TrainOptions, Beside]:
    """The training's options, and a dataclass of others that a job has besides.

    Parameters and errors are those of :func:`parse`. The fields of ``kind`` come first in --help;
    one that the training has too is shared by both, with the default of ``kind``.
    """
    values = _parsed((kind, TrainOptions), default, description, arguments)
    names = [f.name for f in dataclasses.fields(cast(Any, kind))]
    known = {f.name for f in dataclasses.fields(TrainOptions)}
    training = {name: value for name, value in values.items() if name in known}
    return TrainOptions.from_dict(training), kind(**{name: values[name] for name in names})


def _parsed(
    kinds: tuple[type, ...],
    default: str,
    description: str | None,
    arguments: list[str] | None,
) -> dict[str, Any]:
    from jsonargparse import set_parsing_settings

    from jobs.command_line import parser_class

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = parser_class()(description=description, default_config_files=[str(CONFIGS / default)])
    parser.add_argument(
        "--config", action="config", help="YAML of options; later options override it"
    )
    seen: set[str] = set()
    for kind in kinds:
        parser.add_class_arguments(kind, skip=seen)
        seen |= {f.name for f in dataclasses.fields(kind)}
    namespace = parser.parse_args(arguments)
    values = json.loads(parser.dump(namespace, format="json", skip_validation=True))
    values.pop("config", None)
    return values
