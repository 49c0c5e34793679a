"""What an evaluation finds: the scores of every variable, and windows to look at.

Legend: S systems (the model and its baselines), T lead times, C channels, H W grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.forecasts.scoring.score_nesting import nan_for_null, nested, read_curves, read_nested
from jobs.forecasts.scoring.score_rows import MODEL, SKILL, STRICT, Curves, Part, Score, Scores

if TYPE_CHECKING:
    from jobs.forecasts.scoring.sums import DailySums, ErrorFields

PERSISTENCE, EXTRAPOLATION, CLIMATOLOGY = "persistence", "extrapolation", "climatology"
BASELINES = (PERSISTENCE, EXTRAPOLATION, CLIMATOLOGY)

SCHEMA = 2
"""Version of the format of `scores.json`."""
EXAMPLE_SCORE = "rmse_normalised"
"""The score by which the best, the median and the worst window are chosen."""


@dataclass(frozen=True)
class ChannelGroup:
    """Channels of one quantity in one unit, which are scored together."""

    variable: str
    """name of the variable in the store"""
    label: str
    """name of the variable, or of one level of it"""
    long_name: str
    """name for people"""
    units: str
    """physical units, as in the store"""
    channels: slice
    """which of the model's channels"""
    data_min: float
    """smallest value of the train period"""
    data_max: float
    """largest value of the train period"""


@dataclass(frozen=True)
class GroupScores:
    """The scores of one group of channels: of a variable, or of one level of it."""

    label: str
    """name of the variable, or of one level of it"""
    long_name: str
    """name for people"""
    units: str
    """physical units, as in the store"""
    train_range: tuple[float, float]
    """smallest and largest value of the train period"""
    scores: Scores
    """every score, and its interval if it has one"""
    curves: Curves = field(default_factory=dict)
    """[protocol][system][name]"""

    @classmethod
    def of(cls, group: ChannelGroup, leads: Sequence[int], found: Mapping[str, Any]) -> GroupScores:
        """Return the scores of a group from the nesting of `score_nesting`."""
        return cls(
            group.label,
            group.long_name,
            group.units,
            (group.data_min, group.data_max),
            read_nested(group.label, found, leads),
            read_curves(found["protocols"]),
        )

    @classmethod
    def from_dict(cls, label: str, found: Mapping[str, Any], leads: Sequence[int]) -> GroupScores:
        """Return the scores of one variable of `scores.json`."""
        low, high = nan_for_null(found["train_range"])
        return cls(
            label,
            found["long_name"],
            found["units"],
            (low, high),
            read_nested(label, found, leads),
            read_curves(found["protocols"]),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the entry of this variable in `scores.json`."""
        described = {"long_name": self.long_name, "units": self.units}
        return {
            **described,
            "train_range": list(self.train_range),
            **nested(self.scores, self.curves),
        }

    @property
    def protocols(self) -> tuple[str, ...]:
        """The protocols that were scored."""
        return self.scores.select("all").protocols

    def systems(self, protocol: str) -> tuple[str, ...]:
        """Return the systems that were scored under a protocol."""
        return self.scores.select("all", protocol=protocol).systems

    @property
    def forecasts(self) -> tuple[str, ...]:
        """The systems under protocol strict: the model first, then its baselines."""
        return self.systems(STRICT)

    @property
    def baselines(self) -> tuple[str, ...]:
        """The systems that the model is compared with."""
        return self.forecasts[1:]

    def strict(self, system: str, name: str) -> float:
        """Return one score over all lead times under protocol strict."""
        return self.scores.overall(STRICT, system, name).value

    def strict_per_lead(self, system: str, name: str) -> list[float]:
        """Return one score of each lead time under protocol strict."""
        return self.scores.per_lead(STRICT, system, name).values

    def skill(self, reference: str, system: str = MODEL) -> Score:
        """Return the skill of a system over a reference, over all lead times, see `skill_rows`."""
        return self.scores.overall(STRICT, system, SKILL, Part(SKILL, reference))

    def skill_per_lead(self, reference: str, system: str = MODEL) -> Scores:
        """Return the skill of each lead time."""
        return self.scores.per_lead(STRICT, system, SKILL, Part(SKILL, reference))


@dataclass(frozen=True)
class Example:
    """One window in physical units, to look at."""

    rank: str
    """best, median or worst of the scored windows"""
    valid_times: np.ndarray
    """(T,) datetime64; frames of clips have places on a made-up time axis"""
    truth_tchw: np.ndarray
    forecast_tchw: np.ndarray
    rmse: float
    """of the whole window, in standard deviations of the train period (min-max: in its ranges)"""
    labels: tuple[str, ...]
    """(T,) name of each frame for people: its time, or its clip and its place in the clip"""
    seen_tchw: np.ndarray
    """the input frames; NaN where missing"""
    seen_times: np.ndarray
    """datetime64 of each input frame"""
    seen_labels: tuple[str, ...]
    """name of each input frame"""
    start: int
    """first frame of the window in the store"""
    baselines: dict[str, np.ndarray]
    """(T, C, H, W) forecasts of the baselines"""
    spread_tchw: np.ndarray | None = None
    """standard deviation of the members; None if there are not several"""


@dataclass(frozen=True)
class Bootstrap:
    """How the intervals were made: whole days are drawn with replacement, many times."""

    unit: str
    """what is drawn, in words"""
    units: int
    """number of units that were scored"""
    resamples: int
    """number of draws, each of as many units as were scored"""
    level: float
    """share of the resamples inside an interval"""
    seed: int
    """seed of the draws"""
    none: str | None = None
    """reason why there are no intervals; None if there are"""


@dataclass(frozen=True)
class Grid:
    """Size of the frames of the store, for comparisons of scores."""

    shape: tuple[int, int]
    """rows, columns"""
    channels: int
    """channels of the model"""
    cell_km: float | None
    """side of a cell in km; None unless the cells are squares of a projection in metres"""


@dataclass(frozen=True)
class Evaluation:
    """What was scored, on what, and how well."""

    split: str
    """split of the store that was scored"""
    period: tuple[str, str]
    """first and last time of the split"""
    windows_scored: int
    windows_available: int
    """windows of the split, of which `windows_scored` were scored"""
    lead_seconds: tuple[int, ...]
    """lead times: seconds after the last input frame, or frames if `timed` is False"""
    climatology: str
    """definition of the climatology, or why there is none"""
    extrapolation: str | None
    """definition of the extrapolation, or why there is none; None if the fields are not radar's"""
    openstl_scale: str
    """the scale that protocol openstl was computed on"""
    scores: tuple[GroupScores, ...]
    """one for each variable, or for each level of a variable"""
    timed: bool = True
    """False for videos, whose frames have an order but no time"""
    members: int | None = None
    """forecasts of each window, whose mean is the model's forecast; None for a model without
    noise"""
    seed: int = 0
    """seed of the members' noise and of the bootstrap"""
    bootstrap: Bootstrap | None = None
    notes: tuple[str, ...] = ()
    """sentences on what makes these scores less trustworthy"""
    grid: Grid | None = None
    """None in files of versions that did not write it"""
    sums_sha256: str | None = None
    """checksum of the file of `sums`; None in files of versions that did not write it"""
    groups: tuple[ChannelGroup, ...] = ()
    """the channels of each of `scores`; empty if read from a file, as are the next three"""
    examples: tuple[Example, ...] = ()
    """the best, the median and the worst window"""
    fields: ErrorFields | None = None
    """maps of errors; None if the grid is too large to keep them"""
    sums: DailySums | None = None
    """the sums by day that the scores are made of"""

    def scores_of(self, label: str) -> GroupScores:
        """Return the scores of one variable; KeyError if it was not scored."""
        return {item.label: item for item in self.scores}[label]

    @property
    def labels(self) -> tuple[str, ...]:
        """The variables that were scored, or their levels."""
        return tuple(item.label for item in self.scores)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Evaluation:
        """Return the evaluation of a `scores.json`, without examples, maps and sums."""
        timed = record["lead_seconds"] is not None
        leads = tuple(record["lead_seconds"] if timed else record["lead_frames"])
        first, last = record["period"]
        grid, bootstrap = record.get("grid"), record.get("bootstrap")
        return cls(
            split=record["split"],
            period=(first, last),
            windows_scored=record["windows"]["scored"],
            windows_available=record["windows"]["available"],
            lead_seconds=leads,
            climatology=record["climatology"],
            extrapolation=record["extrapolation"],
            openstl_scale=record["openstl_scale"],
            scores=tuple(
                GroupScores.from_dict(label, found, leads)
                for label, found in record["variables"].items()
            ),
            timed=timed,
            members=record.get("members"),
            seed=record.get("seed", 0),
            bootstrap=Bootstrap(**nan_for_null(bootstrap)) if bootstrap else None,
            notes=tuple(record["notes"]),
            grid=Grid(tuple(grid["shape"]), grid["channels"], grid["cell_km"]) if grid else None,
            sums_sha256=record.get("sums_sha256"),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return what `scores.json` holds: everything but the pictures and the sums."""
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
            "grid": None if self.grid is None else asdict(self.grid),
            "seed": self.seed,
            "bootstrap": None if self.bootstrap is None else asdict(self.bootstrap),
            "notes": list(self.notes),
            "sums_sha256": self.sums_sha256,
            "variables": {item.label: item.as_dict() for item in self.scores},
            "examples": [
                {"rank": item.rank, "first_valid": item.labels[0], EXAMPLE_SCORE: item.rmse}
                for item in self.examples
            ],
        }
