"""Score a block of windows: read, forecast, compare, add up.

The number of windows alone decides how an evaluation is cut into blocks, and the sums of the blocks
are added in the order of the blocks. Scores therefore depend neither on the size of the batches nor
on which worker scored which block.

Legend: B windows of a batch, M members, T lead times, C channels, H W grid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from gmg_model.metrics import StreamingMetrics
from jobs.forecasts.forecasters.baselines import Forecast, MemberForecast, mean_of, persistence
from jobs.forecasts.forecasters.extrapolation import extrapolation
from jobs.forecasts.prefetch import prefetch
from jobs.forecasts.scoring.protocols import GroupBatch, Protocol
from jobs.forecasts.scoring.scores import (
    CLIMATOLOGY,
    EXTRAPOLATION,
    MODEL,
    PERSISTENCE,
    ChannelGroup,
)
from jobs.forecasts.scoring.sums import ErrorSums, GroupedSums, WindowGroups
from pipelines.inputs.climatology import Climatology
from pipelines.inputs.normalisation import Normalisation
from pipelines.stream.window_stream import read_batches
from pipelines.stream.windows import WindowSpec

if TYPE_CHECKING:
    from pipelines.stores.store import Store

FEWEST, MOST, BLOCKS = 64, 1024, 64
"""least and greatest number of windows of a block, and the number of blocks in between"""


def blocks_of(windows: int) -> list[slice]:
    """Return the blocks that so many windows are cut into, in order.

    >>> blocks_of(150)
    [slice(0, 64, None), slice(64, 128, None), slice(128, 150, None)]
    >>> len(blocks_of(17495)), len(blocks_of(10**6))
    (64, 977)
    """
    size = min(max(-(-windows // BLOCKS), FEWEST), MOST)
    return [slice(head, min(head + size, windows)) for head in range(0, windows, size)]


@dataclass
class Pixels:
    """Counts pixels, and how many of them are missing."""

    seen: int = 0
    missing: int = 0

    def add(self, values: np.ndarray) -> None:
        """Count the pixels of an array; NaN is missing."""
        self.seen += values.size
        self.missing += int(np.isnan(values).sum())

    @property
    def share_missing(self) -> float:
        """The share of missing pixels, 0 to 1."""
        return self.missing / self.seen if self.seen else 0.0


@dataclass
class BlockScores:
    """Sums over the windows of one block, or of several merged blocks."""

    sums: list[dict[str, dict[str, GroupedSums]]]
    """one per group of channels: [protocol][system]"""
    channels: list[dict[str, dict[str, StreamingMetrics]]]
    """one per group of channels: [channel][system] under protocol strict"""
    fields: ErrorSums | None
    """sums of the maps of errors; None: they are not kept"""
    errors: list[np.ndarray] = field(default_factory=list)
    """arrays (n,), one per batch: RMSE of the model in each window, in normalised units"""
    inputs: Pixels = field(default_factory=Pixels)
    """of the input frames"""
    truth: Pixels = field(default_factory=Pixels)
    """of the frames to forecast"""

    def merge(self, other: BlockScores) -> None:
        """Add the block that follows this one."""
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
class Inputs:
    """One batch as it was read."""

    starts: np.ndarray
    """(B,) first frames of the windows"""
    frames: np.ndarray
    """(B, input frames + T, C, H, W), physical, NaN where missing"""
    given: np.ndarray
    """(B, input frames, C, H, W), normalised, what the model is given"""


@dataclass(frozen=True)
class ScoredBatch:
    """Input frames, truth and forecasts of one batch, in physical units, (B, T, C, H, W)."""

    seen: np.ndarray
    """input frames, NaN where missing"""
    truth: np.ndarray
    """NaN where missing"""
    members: np.ndarray
    """(B, M, T, C, H, W)"""
    fields: dict[str, np.ndarray]
    """forecasts by system; the model's is the mean of its members"""

    def of(self, group: ChannelGroup) -> GroupBatch:
        """Return truth and forecasts of one group of channels."""
        return GroupBatch(
            truth=self.truth[:, :, group.channels],
            members=self.members[:, :, :, group.channels],
            fields={name: values[:, :, group.channels] for name, values in self.fields.items()},
        )


@dataclass(frozen=True, eq=False)
class Scorer:
    """Everything that scores windows; it can be pickled for another process."""

    store: Store
    forecast: Forecast
    """one with several members is a `baselines.MemberForecast`"""
    variables: tuple[str, ...]
    window: WindowSpec
    normalisation: Normalisation
    groups: tuple[ChannelGroup, ...]
    protocols: tuple[tuple[Protocol, ...], ...]
    """one tuple per group; the first protocol is `strict`"""
    climatology: Climatology | None
    """None: it is not scored"""
    moves: bool
    """whether the extrapolation of radar echoes is scored"""
    batch_size: int
    maps: bool
    """whether maps of errors are kept"""

    @property
    def systems(self) -> tuple[str, ...]:
        """Names of what is scored: the model, then its baselines."""
        moving = (EXTRAPOLATION,) if self.moves else ()
        typical = () if self.climatology is None else (CLIMATOLOGY,)
        return (MODEL, PERSISTENCE, *moving, *typical)

    @property
    def shape_tchw(self) -> tuple[int, int, int, int]:
        """Shape of one forecast."""
        return self.window.horizon, len(self.normalisation.labels), *self.store.spatial_shape

    def score(
        self,
        starts: np.ndarray,
        groups: WindowGroups,
        blocks: Sequence[slice],
        report: Callable[[int], None] = lambda windows: None,
    ) -> Iterator[BlockScores]:
        """Yield the sums of each block, in order.

        While the model forecasts a batch, perhaps on a GPU, one thread reads the next batch and
        another one scores the previous batch. The model runs in the thread of the caller.

        Parameters
        ----------
        starts, groups:
            First frame and groups of every window of the evaluation.
        blocks:
            Which of the windows are scored.
        report:
            Called with the number of windows of each batch.
        """
        with ThreadPoolExecutor(1, "scores") as beside:
            found, scoring = self._empty(), None
            for part, rows, batch in prefetch(self._read(starts, blocks)):
                members = self._members(batch)
                if scoring and (scored := scoring.result()):
                    yield scored
                if rows.start == part.start:
                    found = self._empty()
                scoring = beside.submit(
                    self._score, found, batch, members, groups.rows(rows), rows.stop == part.stop
                )
                report(len(batch.starts))
            if scoring and (scored := scoring.result()):
                yield scored

    def forecasts(self, start: int) -> ScoredBatch:
        """Return the forecasts of all systems for the window that begins at frame `start`."""
        ((_, _, batch),) = self._read(np.asarray([start]), [slice(0, 1)])
        return self._with_baselines(batch, self._members(batch))

    def _read(
        self, starts: np.ndarray, blocks: Sequence[slice]
    ) -> Iterator[tuple[slice, slice, Inputs]]:
        """Yield (block, windows, batch) for every batch of every block."""
        n = self.window.input_frames
        for part in blocks:
            head = part.start
            for batch, frames in read_batches(
                self.store, self.variables, self.window, starts[part], self.batch_size
            ):
                times = self.store.times[self.window.frames_of(batch)[:, :n]]
                given = self.normalisation.inputs(frames[:, :n], times)
                yield part, slice(head, head + len(batch)), Inputs(batch, frames, given)
                head += len(batch)

    def _score(
        self, found: BlockScores, batch: Inputs, members: np.ndarray, rows: WindowGroups, last: bool
    ) -> BlockScores | None:
        """Add a batch to `found`; return `found` if the batch is the last of its block."""
        self._add(found, self._with_baselines(batch, members), rows)
        return found if last else None

    def _with_baselines(self, batch: Inputs, outputs_bmtchw: np.ndarray) -> ScoredBatch:
        """Return the model's forecasts and those of the baselines, in physical units."""
        n, horizon = self.window.input_frames, self.window.horizon
        valid_times = self.valid_times(batch.starts)
        members = self.normalisation.outputs(outputs_bmtchw, valid_times[:, None])
        # Baselines are given missing pixels as the mean or minimum, also beside a model of
        # anomalies, so that their scores are the same for every model.
        seen = self.normalisation.filled(batch.frames[:, :n])
        fields = {MODEL: mean_of(members), PERSISTENCE: persistence(seen, horizon)}
        if self.moves:
            fields[EXTRAPOLATION] = extrapolation(seen, horizon)
        if self.climatology is not None:
            fields[CLIMATOLOGY] = self.normalisation.filled(self.climatology.at(valid_times))
        return ScoredBatch(batch.frames[:, :n], batch.frames[:, n:], members, fields)

    def valid_times(self, starts: np.ndarray) -> np.ndarray:
        """Return (B, T) datetime64 of the frames to forecast."""
        return self.store.times[self.window.frames_of(starts)[:, self.window.input_frames :]]

    def _members(self, batch: Inputs) -> np.ndarray:
        """Return (B, M, T, C, H, W) forecasts of the model, normalised."""
        horizon = self.window.horizon
        if not isinstance(self.forecast, MemberForecast):
            return self.forecast(batch.given, horizon)[:, None]
        init = batch.starts + (self.window.input_frames - 1) * self.window.stride
        return self.forecast.members(batch.given, horizon, init.tolist())

    def _empty(self) -> BlockScores:
        """Return sums over no window."""
        sums, channels = [], []
        for group, protocols in zip(self.groups, self.protocols, strict=True):
            sums.append(
                {
                    protocol.name: {
                        system: GroupedSums(protocol.metrics())
                        for system in protocol.systems(self.systems)
                    }
                    for protocol in protocols
                }
            )
            strict, labels = protocols[0], self.labels(group)
            channels.append(
                {
                    label: {system: strict.metrics() for system in self.systems}
                    for label in (labels if len(labels) > 1 else ())
                }
            )
        maps = ErrorSums(self.systems, self.shape_tchw) if self.maps else None
        return BlockScores(sums, channels, maps)

    def labels(self, group: ChannelGroup) -> Sequence[str]:
        """Return the names of a group's channels."""
        info = self.store.variables[group.variable]
        size = group.channels.stop - group.channels.start
        return info.channel_labels if size > 1 else (group.label,)

    def _add(self, found: BlockScores, batch: ScoredBatch, rows: WindowGroups) -> None:
        """Add a batch to the sums of its block."""
        found.inputs.add(batch.seen)
        found.truth.add(batch.truth)
        for place, group in enumerate(self.groups):
            own = batch.of(group)
            for protocol in self.protocols[place]:
                for system, sums in found.sums[place][protocol.name].items():
                    sums.update(*protocol.compared(own, system), rows)
            for number, systems in enumerate(found.channels[place].values()):
                one = slice(number, number + 1)
                for system, metrics in systems.items():
                    metrics.update(own.fields[system][:, :, one], own.truth[:, :, one])
        if found.fields is not None:
            found.fields.update(batch.fields, batch.truth)
        found.errors.append(window_errors(batch.fields[MODEL], batch.truth, self.normalisation))


def window_errors(model: np.ndarray, truth: np.ndarray, constants: Normalisation) -> np.ndarray:
    """Return (B,) root mean squared errors over the pixels that exist, in normalised units."""
    scale = np.asarray(constants.scale).reshape(-1, 1, 1)
    valid = ~np.isnan(truth)
    squared = np.where(valid, (model - truth) / scale, 0.0) ** 2
    axes = tuple(range(1, truth.ndim))
    return np.sqrt(squared.sum(axis=axes) / np.maximum(valid.sum(axis=axes), 1))
