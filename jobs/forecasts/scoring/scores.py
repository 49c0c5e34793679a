"""What an evaluation finds: scores of every group of channels, and windows to look at.

Legend: S systems (the model and its baselines), T lead times, C channels, H W grid.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from jobs.forecasts.scoring.sums import DailySums, ErrorFields

MODEL, PERSISTENCE, CLIMATOLOGY = "model", "persistence", "climatology"
EXTRAPOLATION = "extrapolation"
BASELINES = (PERSISTENCE, EXTRAPOLATION, CLIMATOLOGY)

SCHEMA = 2
"""Version of the JSON of scores."""
EXAMPLE_SCORE = "rmse_normalised"
"""What the best, the median and the worst window are chosen by."""


@dataclass(frozen=True)
class ChannelGroup:
    """Channels of one quantity in one unit, scored together."""

    variable: str
    """of the store"""
    label: str
    """a variable, or one level of it"""
    long_name: str
    """for people"""
    units: str
    """physical units, as in the store"""
    channels: slice
    """of the model's channels"""
    data_min: float
    """smallest value of the train period"""
    data_max: float
    """largest value of the train period"""


@dataclass(frozen=True)
class GroupScores:
    """Scores of one group: ``protocols[protocol][forecast]`` as ``metrics.result()`` gives them.

    Intervals are (low, high) of the bootstrap, NaN where there is none.
    """

    group: ChannelGroup
    protocols: dict[str, dict[str, dict[str, Any]]]
    intervals: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    """[protocol][forecast] -> ``overall`` {score: interval}, ``per_lead`` {score: T intervals}"""
    differences: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    """[protocol][baseline] -> ``overall`` {score: entry}, ``per_lead`` {score: T entries}; an entry
    has ``difference`` (model less baseline), ``low``, ``high`` and ``significant``"""
    skill_intervals: dict[str, dict[str, Any]] = field(default_factory=dict)
    """[baseline] -> ``overall`` interval, ``per_lead`` T intervals, of ``skill``"""
    months: dict[str, dict[str, dict[str, dict[str, float]]]] = field(default_factory=dict)
    """["01" to "12"][protocol][forecast] -> {score: value}, by calendar month of the valid time"""
    hours: dict[str, dict[str, dict[str, dict[str, float]]]] = field(default_factory=dict)
    """["00" to "23"][protocol][forecast] -> {score: value}, by hour UTC of the valid time"""
    channels: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    """[channel][forecast] under protocol strict, where the group has several channels"""

    @property
    def forecasts(self) -> tuple[str, ...]:
        """What was scored: the model first, then its baselines."""
        return tuple(self.protocols["strict"])

    @property
    def baselines(self) -> tuple[str, ...]:
        """What the model is compared with."""
        return self.forecasts[1:]

    def strict(self, forecast: str, name: str) -> float:
        """One score over all lead times under protocol ``strict``."""
        return self.protocols["strict"][forecast]["overall"][name]

    def strict_per_lead(self, forecast: str, name: str) -> list[float]:
        """One score for each lead time under protocol ``strict``."""
        return self.protocols["strict"][forecast]["per_lead"][name]

    def skill(self, reference: str, forecast: str = MODEL) -> dict[str, Any]:
        """Murphy's skill score, ``1 - MSE / MSE(reference)``: 1 exact, 0 no better."""
        mse, beside = (np.array(self.strict_per_lead(f, "mse")) for f in (forecast, reference))
        total, total_beside = (self.strict(f, "mse") for f in (forecast, reference))
        with np.errstate(divide="ignore", invalid="ignore"):
            overall = 1 - np.float64(total) / np.float64(total_beside)
            return {"overall": float(overall), "per_lead": (1 - mse / beside).tolist()}


@dataclass(frozen=True)
class Example:
    """One window in physical units, for the eye."""

    rank: str
    """best, median or worst of the windows scored"""
    valid_times: np.ndarray
    """(T,) datetime64; of clips places on a made-up axis"""
    truth_tchw: np.ndarray
    forecast_tchw: np.ndarray
    rmse: float
    """of the whole window, in standard deviations (or ranges, for min-max) of the train period"""
    labels: tuple[str, ...]
    """(T,) what each frame is for people: its time, or its clip and its place there"""
    seen_tchw: np.ndarray
    """the input frames; NaN where missing"""
    seen_times: np.ndarray
    """datetime64 of each input frame"""
    seen_labels: tuple[str, ...]
    """what each input frame is"""
    start: int
    """first frame of the window in the store"""
    baselines: dict[str, np.ndarray]
    """(T, C, H, W) forecasts of the baselines"""
    spread_tchw: np.ndarray | None = None
    """standard deviation of the members, where there are several"""


@dataclass(frozen=True)
class Bootstrap:
    """How the intervals were made: by drawing whole days anew, with replacement."""

    unit: str
    """what is drawn"""
    units: int
    """how many of them were scored"""
    resamples: int
    level: float
    """share of the resamples inside an interval"""
    seed: int
    none: str | None = None
    """why there are no intervals"""


@dataclass(frozen=True)
class Grid:
    """What the frames of the store are, for those who compare scores."""

    shape: tuple[int, int]
    """rows, columns"""
    channels: int
    cell_km: float | None
    """side of the cells, of a projection in metres with square ones"""


@dataclass(frozen=True)
class Evaluation:
    """What was scored, on what, and how well."""

    split: str
    period: tuple[str, str]
    windows_scored: int
    windows_available: int
    lead_seconds: tuple[int, ...]
    """lead times, seconds after the last input frame; frames where ``timed`` is False"""
    climatology: str
    """definition of the climatology, or why there is none"""
    extrapolation: str | None
    """definition of the extrapolation, or why there is none; None for other fields than radar's"""
    openstl_scale: str
    """the scale that protocol openstl was computed on"""
    scores: tuple[GroupScores, ...]
    examples: tuple[Example, ...]
    timed: bool = True
    """False: a video whose frames have an order but no time"""
    members: int | None = None
    """forecasts of each window, whose mean is the model's; None: one without noise"""
    seed: int = 0
    """of the members' noise and of the bootstrap"""
    bootstrap: Bootstrap | None = None
    notes: tuple[str, ...] = ()
    """what makes these scores worth less than they seem"""
    fields: ErrorFields | None = None
    """None: the grid is too large to keep them"""
    sums: DailySums | None = None
    """what scores are made of, apart by day"""
    grid: Grid | None = None
    """what the frames are"""

    def as_dict(self) -> dict[str, Any]:
        """Everything but the maps."""
        return {
            "schema": SCHEMA,
            "split": self.split,
            "period": list(self.period),
            "windows": {"scored": self.windows_scored, "available": self.windows_available},
            "lead_seconds": list(self.lead_seconds) if self.timed else None,
            "lead_frames": None if self.timed else list(self.lead_seconds),
            "climatology": self.climatology,
            "extrapolation": self.extrapolation,
            "skill": "1 - MSE / MSE(reference), protocol strict",
            "openstl_scale": self.openstl_scale,
            "members": self.members,
            "grid": None if self.grid is None else vars(self.grid),
            "seed": self.seed,
            "bootstrap": None if self.bootstrap is None else vars(self.bootstrap),
            "notes": list(self.notes),
            "sums_sha256": None if self.sums is None else self.sums.sha256,
            "variables": {
                item.group.label: {
                    "long_name": item.group.long_name,
                    "units": item.group.units,
                    "train_range": [item.group.data_min, item.group.data_max],
                    "protocols": item.protocols,
                    "skill": {beside: item.skill(beside) for beside in item.baselines},
                    "intervals": item.intervals,
                    "differences": item.differences,
                    "skill_intervals": item.skill_intervals,
                    "months": item.months,
                    "hours": item.hours,
                    "channels": item.channels,
                }
                for item in self.scores
            },
            "examples": [
                {
                    "rank": item.rank,
                    "first_valid": item.labels[0],
                    EXAMPLE_SCORE: item.rmse,
                }
                for item in self.examples
            ],
        }
