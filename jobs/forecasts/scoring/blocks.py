"""Scores of a block of windows: read, forecast, compare, add up.

The windows of an evaluation are cut into blocks by their number alone, and the blocks' sums are
added in the order of the blocks: scores depend neither on the size of the batches nor on who scored
which block. Legend: B windows of a batch, M members, T lead times, C channels, H W grid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from gmg_model.metrics import StreamingMetrics, create_metrics
from jobs.forecasts.forecasters.baselines import Forecast, MemberForecast, mean_of, persistence
from jobs.forecasts.forecasters.extrapolation import extrapolation
from jobs.forecasts.prefetch import ahead
from jobs.forecasts.scoring.error_sums import ErrorSums
from jobs.forecasts.scoring.scores import (
    CLIMATOLOGY,
    EXTRAPOLATION,
    MODEL,
    PERSISTENCE,
    ChannelGroup,
)
from jobs.forecasts.scoring.sums import GroupedSums, WindowGroups
from pipelines.inputs.climatology import Climatology
from pipelines.inputs.normalisation import Normalisation
from pipelines.stream.window_stream import read_batches
from pipelines.stream.windows import WindowSpec

if TYPE_CHECKING:
    from pipelines.stores.store import Store

ENSEMBLE = "ensemble"
FEWEST, MOST, BLOCKS = 64, 1024, 64
"""Windows of a block at least and at most, and blocks of an evaluation of moderate size."""


def blocks_of(windows: int) -> list[slice]:
    """The windows in blocks, in order.

    >>> blocks_of(150)
    [slice(0, 64, None), slice(64, 128, None), slice(128, 150, None)]
    >>> len(blocks_of(17495)), len(blocks_of(10**6))
    (64, 977)
    """
    size = min(max(-(-windows // BLOCKS), FEWEST), MOST)
    return [slice(head, min(head + size, windows)) for head in range(0, windows, size)]


@dataclass
class Pixels:
    """How many there were, and how many of them were missing."""

    seen: int = 0
    missing: int = 0

    def add(self, values: np.ndarray) -> None:
        """Count those of an array."""
        self.seen += values.size
        self.missing += int(np.isnan(values).sum())

    @property
    def share_missing(self) -> float:
        """Share of the pixels that were missing."""
        return self.missing / self.seen if self.seen else 0.0


@dataclass
class BlockScores:
    """Sums of some windows; the same object for one block and for all of them."""

    sums: list[dict[str, dict[str, GroupedSums]]]
    """one a group of channels: [protocol][system]"""
    channels: list[dict[str, dict[str, StreamingMetrics]]]
    """one a group of channels: [channel][system] under protocol strict"""
    fields: ErrorSums | None
    errors: list[np.ndarray] = field(default_factory=list)
    """(n,) RMSE of each window of the model, normalised"""
    inputs: Pixels = field(default_factory=Pixels)
    truth: Pixels = field(default_factory=Pixels)

    def merge(self, other: BlockScores) -> None:
        """Add the block that follows."""
        for own, new in zip(self.sums, other.sums, strict=True):
            for protocol, systems in own.items():
                for system, sums in systems.items():
                    sums.merge(new[protocol][system])
        for own, new in zip(self.channels, other.channels, strict=True):
            for channel, systems in own.items():
                for system, metrics in systems.items():
                    metrics.merge(new[channel][system])
        if self.fields is not None and other.fields is not None:
            self.fields.merge(other.fields)
        self.errors += other.errors
        for own, new in ((self.inputs, other.inputs), (self.truth, other.truth)):
            own.seen, own.missing = own.seen + new.seen, own.missing + new.missing


@dataclass(frozen=True)
class Seen:
    """One batch as it was read."""

    starts: np.ndarray
    frames: np.ndarray
    """(B, input frames + T, C, H, W), physical, NaN where missing"""
    inputs: np.ndarray
    """(B, input frames, C, H, W), what the model is given"""


@dataclass(frozen=True)
class ScoredBatch:
    """One batch: what was seen, what came, and what was forecast; all (B, T, C, H, W), physical."""

    starts: np.ndarray
    seen: np.ndarray
    """NaN where missing"""
    truth: np.ndarray
    members: np.ndarray
    """(B, M, T, C, H, W)"""
    fields: dict[str, np.ndarray]
    """by system; the model's is the mean of its members"""


@dataclass(frozen=True, eq=False)
class Scorer:
    """Everything that scoring needs; can be sent to another process."""

    store: Store
    forecast: Forecast
    """see ``baselines.MemberForecast`` for forecasts of several members"""
    variables: tuple[str, ...]
    window: WindowSpec
    normalisation: Normalisation
    groups: tuple[ChannelGroup, ...]
    options: tuple[dict[str, dict[str, Any]], ...]
    """one a group: protocol -> options"""
    climatology: Climatology | None
    moves: bool
    """whether the extrapolation of radar stands beside"""
    batch_size: int
    maps: bool
    """whether maps of errors are kept"""

    @property
    def systems(self) -> tuple[str, ...]:
        """The model and its baselines."""
        moving = (EXTRAPOLATION,) if self.moves else ()
        typical = () if self.climatology is None else (CLIMATOLOGY,)
        return (MODEL, PERSISTENCE, *moving, *typical)

    @property
    def shape_tchw(self) -> tuple[int, int, int, int]:
        """Of one forecast."""
        return self.window.horizon, len(self.normalisation.labels), *self.store.spatial_shape

    def score(
        self,
        starts: np.ndarray,
        groups: WindowGroups,
        blocks: Sequence[slice],
        report: Callable[[int], None] = lambda windows: None,
    ) -> Iterator[BlockScores]:
        """The sums of each block, in order; ``report`` is called with the windows of each batch.

        While the model forecasts a batch, on a GPU perhaps, the next one is read and the one before
        is scored, each in a thread of its own; the model stays in the caller's.
        """
        with ThreadPoolExecutor(1, "scores") as beside:
            found, scoring = self._empty(), None
            for part, rows, seen in ahead(self._read(starts, blocks)):
                members = self._members(seen)
                if scoring and (scored := scoring.result()):
                    yield scored
                if rows.start == part.start:
                    found = self._empty()
                scoring = beside.submit(
                    self._score, found, seen, members, groups.rows(rows), rows.stop == part.stop
                )
                report(len(seen.starts))
            if scoring and (scored := scoring.result()):
                yield scored

    def forecasts(self, start: int) -> ScoredBatch:
        """Forecasts of all systems for one window."""
        ((_, _, seen),) = self._read(np.asarray([start]), [slice(0, 1)])
        return self._beside(seen, self._members(seen))

    def _read(
        self, starts: np.ndarray, blocks: Sequence[slice]
    ) -> Iterator[tuple[slice, slice, Seen]]:
        """(block, windows, batch) of every batch of every block."""
        n = self.window.input_frames
        for part in blocks:
            head = part.start
            for batch, frames in read_batches(
                self.store, self.variables, self.window, starts[part], self.batch_size
            ):
                times = self.store.times[self.window.frames_of(batch)[:, :n]]
                inputs = self.normalisation.inputs(frames[:, :n], times)
                yield part, slice(head, head + len(batch)), Seen(batch, frames, inputs)
                head += len(batch)

    def _score(
        self, found: BlockScores, seen: Seen, members: np.ndarray, rows: WindowGroups, last: bool
    ) -> BlockScores | None:
        """Add a batch; the sums where it is the last of its block."""
        self._add(found, self._beside(seen, members), rows)
        return found if last else None

    def _beside(self, batch: Seen, outputs_bmtchw: np.ndarray) -> ScoredBatch:
        """The model's forecasts and those of the baselines, in physical units."""
        n, horizon = self.window.input_frames, self.window.horizon
        valid_times = self.valid_times(batch.starts)
        members = self.normalisation.outputs(outputs_bmtchw, valid_times[:, None])
        # Baselines are the same whatever the model is given.
        seen = self.normalisation.filled(batch.frames[:, :n])
        fields = {MODEL: mean_of(members), PERSISTENCE: persistence(seen, horizon)}
        if self.moves:
            fields[EXTRAPOLATION] = extrapolation(seen, horizon)
        if self.climatology is not None:
            fields[CLIMATOLOGY] = self.normalisation.filled(self.climatology.at(valid_times))
        return ScoredBatch(batch.starts, batch.frames[:, :n], batch.frames[:, n:], members, fields)

    def valid_times(self, starts: np.ndarray) -> np.ndarray:
        """(B, T) datetime64 of the frames that are forecast."""
        return self.store.times[self.window.frames_of(starts)[:, self.window.input_frames :]]

    def _members(self, batch: Seen) -> np.ndarray:
        """(B, M, T, C, H, W) forecasts of the model, as it makes them."""
        horizon = self.window.horizon
        if not isinstance(self.forecast, MemberForecast):
            return self.forecast(batch.inputs, horizon)[:, None]
        init = batch.starts + (self.window.input_frames - 1) * self.window.stride
        return self.forecast.members(batch.inputs, horizon, init.tolist())

    def _empty(self) -> BlockScores:
        sums, channels = [], []
        for group, protocols in zip(self.groups, self.options, strict=True):
            sums.append(
                {
                    protocol: {
                        system: GroupedSums(create_metrics(protocol, **chosen))
                        for system in ((MODEL,) if protocol == ENSEMBLE else self.systems)
                    }
                    for protocol, chosen in protocols.items()
                }
            )
            labels = self.labels(group)
            channels.append(
                {
                    label: {
                        system: create_metrics("strict", **protocols["strict"])
                        for system in self.systems
                    }
                    for label in (labels if len(labels) > 1 else ())
                }
            )
        maps = ErrorSums(self.systems, self.shape_tchw) if self.maps else None
        return BlockScores(sums, channels, maps)

    def labels(self, group: ChannelGroup) -> Sequence[str]:
        """The names of a group's channels."""
        info = self.store.variables[group.variable]
        size = group.channels.stop - group.channels.start
        return info.channel_labels if size > 1 else (group.label,)

    def _add(self, found: BlockScores, batch: ScoredBatch, rows: WindowGroups) -> None:
        found.inputs.add(batch.seen)
        found.truth.add(batch.truth)
        for group, protocols, channels in zip(self.groups, found.sums, found.channels, strict=True):
            truth = batch.truth[:, :, group.channels]
            own = {name: values[:, :, group.channels] for name, values in batch.fields.items()}
            typical = own.get(CLIMATOLOGY)
            for protocol, systems in protocols.items():
                for system, sums in systems.items():
                    if protocol == ENSEMBLE:
                        sums.update(batch.members[:, :, :, group.channels], truth, None, rows)
                    elif protocol == "openstl" and sums.metrics.options()["image"]:
                        scaled = _on_range(own[system], group), _on_range(truth, group)
                        sums.update(*scaled, None, rows)
                    else:
                        anomalies = typical if protocol == "weather" else None
                        sums.update(own[system], truth, anomalies, rows)
            for place, systems in enumerate(channels.values()):
                one = slice(place, place + 1)
                for system, metrics in systems.items():
                    metrics.update(own[system][:, :, one], truth[:, :, one])
        if found.fields is not None:
            found.fields.update(batch.fields, batch.truth)
        found.errors.append(window_errors(batch.fields[MODEL], batch.truth, self.normalisation))


def window_errors(model: np.ndarray, truth: np.ndarray, constants: Normalisation) -> np.ndarray:
    """Root mean squared error of each window over all that exists, in normalised units."""
    scale = np.asarray(constants.scale).reshape(-1, 1, 1)
    valid = ~np.isnan(truth)
    squared = np.where(valid, (model - truth) / scale, 0.0) ** 2
    axes = tuple(range(1, truth.ndim))
    return np.sqrt(squared.sum(axis=axes) / np.maximum(valid.sum(axis=axes), 1))


def _on_range(values: np.ndarray, group: ChannelGroup) -> np.ndarray:
    """Physical values on [0, 1] of the train period, in double precision."""
    return (values.astype(np.float64) - group.data_min) / (group.data_max - group.data_min)
