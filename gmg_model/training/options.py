"""The options of an optimisation and of scheduled sampling, each with its unit.

`gmg_model.training.optimisation` and `gmg_model.training.sampling` use them and check them. A job
inherits them for its command line, so nothing here imports PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Optimiser = Literal["adam", "adamw", "rmsprop"]
Schedule = Literal["onecycle", "cosine", "constant"]
Precision = Literal["fp32", "bf16", "fp64"]
SamplingKind = Literal[
    "none",
    "linear",
    "exponential",
    "sigmoid",
    "reverse-linear",
    "reverse-exponential",
    "reverse-sigmoid",
]
SamplingUnit = Literal["fraction", "steps"]

REVERSE_KINDS = tuple(kind for kind in get_args(SamplingKind) if kind.startswith("reverse-"))
"""schedules that hide frames of the input part as well"""
FORWARD_KINDS = tuple(kind for kind in get_args(SamplingKind) if kind not in REVERSE_KINDS)
"""schedules that choose between true and forecast frames of the horizon alone"""


@dataclass(frozen=True)
class OptimisationOptions:
    """How the weights are fitted; see `gmg_model.training.optimisation.Optimisation`."""

    optimiser: Optimiser = "adam"
    """update rule; rmsprop has a momentum of 0.9, as SRVP was trained"""
    learning_rate: float = 3e-4
    """peak learning rate"""
    weight_decay: float = 0.0
    """decay of the weights: decoupled from the gradient (adamw), or part of it (rmsprop)"""
    schedule: Schedule = "onecycle"
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
    """forecasts of each window in a step, each from its own noise, for the loss crps"""
    crps_fairness: float = 0.95
    """loss crps: 1 is the fair score, 0.95 the almost fair one that lets no member drift unseen"""
    precision: Precision = "fp32"
    """bf16: autocast; fp64: for checks of exactness"""
    ema: float = 0.0
    """decay of the exponential moving average of the weights that is validated; 0: off"""


@dataclass(frozen=True)
class SamplingOptions:
    """When training feeds the true frame; see `gmg_model.training.sampling.ScheduledSampling`."""

    sampling: SamplingKind = "linear"
    """scheduled sampling: how the probability of feeding the true frame falls; reverse-* hides
    input frames as well (PredRNN-V2), not for gmg-* and encoder-forecasters"""
    sampling_start: float = 0.0
    """when the probability begins to fall: fraction of training, or step"""
    sampling_end: float = 0.8
    """from when the model runs free: fraction of training, or step"""
    sampling_unit: SamplingUnit = "fraction"
    """the unit of sampling_start and sampling_end"""
