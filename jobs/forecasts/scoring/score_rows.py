"""Scores as rows: one row per score, lead time and part of the windows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

MODEL = "model"
STRICT, SKILL = "strict", "skill"
Kind = Literal["all", "month", "hour", "channel", "difference", "skill"]


class Part(NamedTuple):
    """What a score is about."""

    kind: Kind
    """all: all windows and channels; month, hour: of the valid time; channel: one channel;
    difference: the system less another; skill: the skill of the system over another"""
    name: str = ""
    """the month, the hour (UTC), the channel, or the other system"""


ALL = Part("all")


@dataclass(frozen=True, slots=True)
class Score:
    """One score of one system."""

    variable: str
    """a variable, or one level of it"""
    part: Part
    protocol: str
    """the conventions of the score, see `gmg_model.metrics.PROTOCOLS`"""
    system: str
    """the model or a baseline"""
    lead: int | None
    """seconds after the last input frame, or frames if the archive has no times; None: all lead
    times together"""
    name: str
    value: float
    """NaN if the score does not exist"""
    low: float | None = None
    """lower end of the interval; None if no interval was computed, NaN if the score exists in too
    few resamples"""
    high: float | None = None
    """upper end of the interval"""

    @property
    def interval(self) -> tuple[float, float]:
        """Both ends of the interval, NaN if it is not known."""
        low, high = (math.nan if end is None else end for end in (self.low, self.high))
        return low, high

    @property
    def has_interval(self) -> bool:
        """Whether the interval is known."""
        return all(map(math.isfinite, self.interval))

    @property
    def is_significant(self) -> bool:
        """Whether the interval leaves 0 out."""
        low, high = self.interval
        return low > 0 or high < 0


class Scores(tuple[Score, ...]):
    """Rows of scores, in the order of the CSV."""

    def select(
        self,
        *kinds: Kind,
        part: Part | None = None,
        protocol: str | None = None,
        system: str | None = None,
        name: str | None = None,
    ) -> Scores:
        """Return the rows of some kinds of parts (none given: all) that have the given values."""
        return Scores(
            row
            for row in self
            if (not kinds or row.part.kind in kinds)
            and (part is None or row.part == part)
            and (protocol is None or row.protocol == protocol)
            and (system is None or row.system == system)
            and (name is None or row.name == name)
        )

    def series(self, protocol: str, system: str, name: str, part: Part = ALL) -> Scores:
        """Return all rows of one score: of all lead times together, then of each lead time."""
        return self._series.get((part, protocol, system, name), Scores())

    def overall(self, protocol: str, system: str, name: str, part: Part = ALL) -> Score:
        """Return the row of a score over all lead times.

        Raises
        ------
        KeyError
            The system has no such score.
        """
        rows = self._series[part, protocol, system, name]
        if rows[0].lead is not None:
            raise KeyError(name)
        return rows[0]

    def per_lead(self, protocol: str, system: str, name: str, part: Part = ALL) -> Scores:
        """Return the rows of a score by lead time; none if the system has no such score."""
        rows = self.series(protocol, system, name, part)
        return Scores(row for row in rows if row.lead is not None)

    def means(self, protocol: str, system: str, part: Part = ALL) -> dict[str, float]:
        """Return {score: value} over all lead times of one system."""
        return {
            name: rows[0].value
            for (*key, name), rows in self._series.items()
            if key == [part, protocol, system] and rows[0].lead is None
        }

    @property
    def values(self) -> list[float]:
        """The values of the rows."""
        return [row.value for row in self]

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts of the rows, each once, in order; the same for the next two."""
        return tuple(dict.fromkeys(row.part for row in self))

    @property
    def protocols(self) -> tuple[str, ...]:
        """The protocols of the rows."""
        return tuple(dict.fromkeys(row.protocol for row in self))

    @property
    def systems(self) -> tuple[str, ...]:
        """The systems of the rows."""
        return tuple(dict.fromkeys(row.system for row in self))

    @cached_property
    def _series(self) -> dict[tuple[Part, str, str, str], Scores]:
        found: dict[tuple[Part, str, str, str], list[Score]] = {}
        for row in self:
            found.setdefault((row.part, row.protocol, row.system, row.name), []).append(row)
        # Over all lead times first, however the rows are ordered.
        ordered = {key: sorted(rows, key=lambda row: row.lead or 0) for key, rows in found.items()}
        return {key: Scores(rows) for key, rows in ordered.items()}


@dataclass(frozen=True)
class Curve:
    """Scores along an axis of their own, such as the power of each wavelength."""

    label: str
    """name of the axis"""
    units: str
    """units of the axis"""
    positions: Sequence[float]
    """(K,) places on the axis"""
    overall: Sequence[float]
    """(K,) values over all lead times"""
    per_lead: Sequence[Sequence[float]]
    """(T, K) values of each lead time"""


Curves = Mapping[str, Mapping[str, Mapping[str, Curve]]]
"""[protocol][system][name]"""


def skill_rows(scores: Scores, reference: str, system: str = MODEL) -> Iterator[Score]:
    """Yield the skill of a system over a reference: 1 - MSE / MSE(reference), protocol strict.

    A perfect forecast has skill 1, one as good as the reference 0 (Murphy 1988).
    """
    own, other = (scores.series(STRICT, name, "mse") for name in (system, reference))
    for row, beside in zip(own, other, strict=True):
        with np.errstate(divide="ignore", invalid="ignore"):
            value = float(1 - np.float64(row.value) / np.float64(beside.value))
        part = Part(SKILL, reference)
        yield Score(row.variable, part, STRICT, system, row.lead, SKILL, value)
