"""Which protocols of `gmg_model.metrics` score a quantity, with which options, and on what.

Legend: B windows of a batch, M members, T lead times, C channels, H W grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gmg_model.metrics import PROTOCOLS, StreamingMetrics, create_metrics
from gmg_model.metrics.radar import CONVENTIONS
from jobs.command_line import numbers
from jobs.forecasts.scoring.options import EvaluationOptions
from jobs.forecasts.scoring.scores import CLIMATOLOGY, MODEL, ChannelGroup
from jobs.forecasts.scoring.text import shown_units
from pipelines.cf import GREY_LEVELS
from pipelines.errors import UsageError, nearest
from pipelines.inputs.normalisation import POOLED_DIMS, Normalisation

if TYPE_CHECKING:
    from pipelines.stores.store import Store

REFLECTIVITY = "dbz"
RAIN_RATE = ("mm/h", "mm h-1", "mm hr-1")
DBZ_THRESHOLDS: tuple[float, ...] = (30, 40, 50)
"""dBZ, those of the papers' tables"""
RAIN_THRESHOLDS: tuple[float, ...] = (0.5, 2, 5, 10, 30)
"""mm/h, those of Shi et al. (2017)"""
FSS_SIDES = (5, 17)
"""pixels: sides of the squares of the fractions skill score; larger ones than the grid are left
out"""
OPENSTL_SCALES = {
    "minmax": "scaled to [0, 1] with the extremes of the train period",
    "standardise": "physical units; no PSNR, SSIM or CSI, which this protocol defines on [0, 1]",
}
"""kind of normalisation -> the scale of protocol openstl, which is that of its own code"""
FAMILIES = tuple(name for name in PROTOCOLS if name != "perceptual")
"""protocols that need nothing but forecasts and truth"""


@dataclass(frozen=True)
class GroupBatch:
    """A batch of one group of channels, in physical units, (B, T, C, H, W)."""

    truth: np.ndarray
    """NaN where missing"""
    members: np.ndarray
    """(B, M, T, C, H, W) of the model"""
    fields: dict[str, np.ndarray]
    """forecasts by system; the model's is the mean of its members"""


@dataclass(frozen=True)
class Protocol:
    """One protocol with its options for a group of channels."""

    name: str
    options: dict[str, Any]

    def metrics(self) -> StreamingMetrics:
        """Return an empty accumulator."""
        return create_metrics(self.name, **self.options)

    def systems(self, known: tuple[str, ...]) -> tuple[str, ...]:
        """Return those of the systems that this protocol scores."""
        return known

    def compared(
        self, batch: GroupBatch, system: str
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Return forecast, truth and climatology, as the accumulator's `update` takes them."""
        return batch.fields[system], batch.truth, None


class WeatherProtocol(Protocol):
    """Protocol weather, which needs the climatology for the anomaly correlation."""

    def compared(
        self, batch: GroupBatch, system: str
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        return batch.fields[system], batch.truth, batch.fields.get(CLIMATOLOGY)


class EnsembleProtocol(Protocol):
    """Protocol ensemble, which scores all members of the model and no baseline."""

    def systems(self, known: tuple[str, ...]) -> tuple[str, ...]:
        return (MODEL,)

    def compared(
        self, batch: GroupBatch, system: str
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        return batch.members, batch.truth, None


@dataclass(frozen=True)
class UnitRangeProtocol(Protocol):
    """Protocol openstl for min-max normalisation, which is defined on values in [0, 1]."""

    data_min: float
    data_max: float

    def compared(
        self, batch: GroupBatch, system: str
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        return self._scaled(batch.fields[system]), self._scaled(batch.truth), None

    def _scaled(self, values: np.ndarray) -> np.ndarray:
        """Scale physical values to [0, 1] of the train period, in double precision."""
        return (values.astype(np.float64) - self.data_min) / (self.data_max - self.data_min)


@dataclass(frozen=True)
class Selection:
    """What is to be scored."""

    protocols: tuple[str, ...] = ()
    """by name, the headline first; empty: all that the archive allows, `strict` the headline"""
    thresholds: tuple[float, ...] = ()
    """of events, in the units of the data; empty: the usual ones for these units"""
    members: int | None = None
    """forecasts of each window; None: one"""

    def __post_init__(self) -> None:
        for name in self.protocols:
            if name not in FAMILIES:
                raise UsageError(
                    f"evaluate has no protocol '{name}'", remedy=nearest(name, FAMILIES)
                )
        if "ensemble" in self.protocols and (self.members or 1) < 2:
            raise UsageError(
                "protocol 'ensemble' scores several members",
                remedy="give --members 2 or more, of a model with noise",
            )

    @classmethod
    def of(cls, options: EvaluationOptions) -> Selection:
        """Return what the options of a job select.

        Raises
        ------
        UsageError
            A protocol is unknown, or the thresholds are not numbers.
        """
        names = tuple(name.strip() for name in options.protocols.split(",") if name.strip())
        return cls(names, parse_thresholds(options.thresholds), options.members)

    @property
    def headline(self) -> str:
        """The protocol that summaries and pages begin with."""
        return self.protocols[0] if self.protocols else "strict"

    def protocols_of(
        self, store: Store, group: ChannelGroup, kind: str, groups: Sequence[ChannelGroup]
    ) -> tuple[Protocol, ...]:
        """Return the protocols of one group of channels: always `strict`, and first.

        Parameters
        ----------
        kind:
            Of the normalisation, "minmax" or "standardise".
        groups:
            All groups of the evaluation.

        Raises
        ------
        UsageError
            A protocol was asked for that suits none of the groups; the error says why.
        """
        known = self._known(store, group, kind, groups)
        for name in self.protocols:
            if name not in known and all(
                name not in self._known(store, other, kind, groups) for other in groups
            ):
                units = shown_units(group.units)
                quantity = f"'{group.label}' in {units}" if units else f"'{group.label}'"
                raise UsageError(
                    f"{quantity} has no protocol '{name}': {_NEEDS[name]}",
                    where=store.uri,
                    remedy=f"give --protocols of {', '.join(known)}, or leave it out",
                )
        chosen = dict.fromkeys(("strict", *(self.protocols or known)))
        return tuple(known[name] for name in chosen if name in known)

    def _known(
        self, store: Store, group: ChannelGroup, kind: str, groups: Sequence[ChannelGroup]
    ) -> dict[str, Protocol]:
        """Return every protocol that suits a group, by name."""
        low, high = group.data_min, group.data_max
        image = kind == "minmax"
        openstl = {"image": image}
        protocols = [
            Protocol("strict", {"data_min": low, "data_max": high}),
            UnitRangeProtocol("openstl", openstl, low, high)
            if image
            else Protocol("openstl", openstl),
            Protocol("detail", {"region": observed_region(store, group.variable)}),
        ]
        if "latitude" in store.coordinates:
            latitude = store.coordinates["latitude"]
            protocols.append(WeatherProtocol("weather", {"latitude": latitude}))
        thresholds = self._thresholds(group, groups)
        protocols += _event_protocols(store, group, thresholds)
        if (self.members or 1) > 1:
            protocols.append(EnsembleProtocol("ensemble", {"thresholds": thresholds}))
        return {protocol.name: protocol for protocol in protocols}

    def _thresholds(self, group: ChannelGroup, groups: Sequence[ChannelGroup]) -> tuple[float, ...]:
        if not self.thresholds:
            units = group.units.lower()
            return {REFLECTIVITY: DBZ_THRESHOLDS}.get(
                units, RAIN_THRESHOLDS if units in RAIN_RATE else ()
            )
        radar = [one for one in groups if is_radar(one)]
        units = sorted({one.units for one in radar or groups})
        if len(units) > 1:
            raise UsageError(
                f"thresholds have no one unit: the variables are in {', '.join(units)}",
                remedy="leave --thresholds out",
            )
        return self.thresholds if group in (radar or groups) else ()


_NEEDS = {
    "weather": "it needs latitudes, to weigh rows with",
    "radar": "there are no thresholds for these units; give --thresholds",
    "srvp": "it counts the grey levels of 8-bit images, which these data were not",
    "motionrnn": "it counts the grey levels of 8-bit images, which these data were not",
}


def _event_protocols(
    store: Store, group: ChannelGroup, thresholds: tuple[float, ...]
) -> list[Protocol]:
    """Return the protocols of events, and of grey levels if the data were 8-bit images."""
    radar: dict[str, Any] = {}
    if thresholds:
        sides = tuple(side for side in FSS_SIDES if side <= min(store.spatial_shape))
        radar = {"thresholds": thresholds, "scales": sides}
    images: list[Protocol] = []
    grey = store.array(group.variable).attrs.get(GREY_LEVELS)
    if isinstance(grey, (list, tuple)):
        low, high = (float(value) for value in grey)  # pyright: ignore[reportArgumentType]
        events = thresholds if group.units.lower() == REFLECTIVITY else ()
        levels = {"data_min": low, "data_max": high}
        images = [
            Protocol("srvp", levels),
            Protocol("motionrnn", {**levels, "thresholds": events}),
        ]
        if events:
            radar |= {"conventions": CONVENTIONS, "dbz_range": (low, high)}
    return [*([Protocol("radar", radar)] if radar else []), *images]


def parse_thresholds(text: str) -> tuple[float, ...]:
    """Return thresholds of the command line, ascending; whole numbers as integers.

    >>> parse_thresholds("30.5, 20")
    (20, 30.5)
    """
    values = numbers(text, example="20,30,40")
    return tuple(int(value) if value.is_integer() else value for value in values)


def channel_groups(store: Store, variables: tuple[str, ...]) -> list[ChannelGroup]:
    """Return the groups of channels that are scored together: a variable, or each level of it."""
    groups: list[ChannelGroup] = []
    begin = 0
    for name in variables:
        info = store.variables[name]
        span = Normalisation.from_store(store, (name,), "minmax")
        whole = all(dim in POOLED_DIMS for dim in info.dims[1:-2])
        size = len(span.labels) if whole else 1
        for index in range(0, len(span.labels), size):
            low, width = span.offset[index], span.scale[index]
            groups.append(
                ChannelGroup(
                    variable=name,
                    label=name if whole else span.labels[index],
                    long_name=info.long_name or name,
                    units=info.units or "1",
                    channels=slice(begin, begin + size),
                    data_min=low,
                    data_max=low + width,
                )
            )
            begin += size
    return groups


def is_radar(group: ChannelGroup) -> bool:
    """Return whether a quantity is what radars measure: echoes that move with the wind."""
    return group.units.lower() in (REFLECTIVITY, *RAIN_RATE)


Region = tuple[int, int, int, int]
"""first row, row after the last, first column, column after the last"""

_MOST_CELLS = 512
"""rows and columns that are searched for a rectangle; larger grids are searched in blocks"""


def observed_region(store: Store, variable: str) -> Region | None:
    """Return the largest rectangle without a missing pixel, for scores that need whole frames.

    The frame with the fewest missing pixels decides: the corners of a radar composite lie outside
    the range of every radar and are missing in all frames. None if that frame has no missing
    pixel, or only missing ones.
    """
    missing = np.asarray(store.dataset()["missing_fraction"], float).reshape(len(store.times), -1)
    share = np.where(np.isnan(missing), 1.0, missing).max(axis=1)
    frame = int(np.argmin(share))
    if share[frame] == 0:
        return None
    values = np.asarray(store.array(variable)[frame])
    lost_chw = np.isnan(values).reshape(-1, *store.spatial_shape)
    seen = np.asarray(~lost_chw.any(axis=0))
    if seen.all() or not seen.any():
        return None
    region = largest_rectangle(seen)
    return region if region[1] > region[0] else None


def largest_rectangle(seen_hw: np.ndarray) -> Region:
    """Return the largest rectangle in which every pixel is true; empty if no pixel is.

    Grids of more than 512 rows or columns are searched in square blocks that are true throughout.

    >>> corners = np.array([[0, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1], [0, 1, 1, 1]], bool)
    >>> largest_rectangle(corners)
    (1, 4, 1, 4)
    """
    side = -(-max(seen_hw.shape) // _MOST_CELLS)
    rows, columns = (length // side for length in seen_hw.shape)
    blocks = seen_hw[: rows * side, : columns * side].reshape(rows, side, columns, side)
    whole = np.asarray(blocks.all(axis=(1, 3)))
    best, most = (0, 0, 0, 0), 0
    heights = np.zeros(columns + 1, np.int64)
    for row in range(rows):
        # Rows, up to this one, in which each column is true. The last column, always 0, ends every
        # rectangle that is still open.
        heights[:columns] = np.where(whole[row], heights[:columns] + 1, 0)
        rising: list[tuple[int, int]] = []
        for column, height in enumerate(heights.tolist()):
            left = column
            while rising and rising[-1][1] >= height:
                left, lower = rising.pop()
                if lower * (column - left) > most:
                    most = lower * (column - left)
                    best = (row + 1 - lower, row + 1, left, column)
            rising.append((left, height))
    top, bottom, left, right = (place * side for place in best)
    return top, bottom, left, right
