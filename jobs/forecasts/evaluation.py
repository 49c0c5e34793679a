"""Score a model, persistence and climatology on the windows of one split, in one pass.

Legend: B windows of a batch, T lead times, C channels, H W grid. Scores are kept apart for every
group of channels that shares a quantity and a unit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gmg_model.metrics import StreamingMetrics, create_metrics
from gmg_model.metrics.radar import CONVENTIONS
from jobs.forecasts.baselines import Forecast, climatological, persistence
from jobs.forecasts.extrapolation import DEFINITION, MIN_FRAMES, extrapolation, unavailable
from jobs.forecasts.matching import refuse_leak
from jobs.forecasts.scores import (
    CLIMATOLOGY,
    EXTRAPOLATION,
    MODEL,
    PERSISTENCE,
    ChannelGroup,
    Evaluation,
    Example,
    GroupScores,
)
from pipelines.cf import GREY_LEVELS
from pipelines.climatology import Climatology, climatology
from pipelines.errors import UsageError
from pipelines.normalisation import POOLED_DIMS, Normalisation
from pipelines.stream import read_batches
from pipelines.windows import WindowSpec, lead_seconds, split_starts

if TYPE_CHECKING:
    from pipelines.store import Store

RADAR_DBZ = (30, 40, 50)
"""Thresholds of protocol radar, where the units are dBZ."""
REFLECTIVITY = "dbz"
RAIN_RATE = ("mm/h", "mm h-1", "mm hr-1")
OPENSTL_SCALES = {
    "minmax": "scaled to [0, 1] with the extremes of the train period",
    "standardise": "physical units; no PSNR, SSIM or CSI, which this protocol defines on [0, 1]",
}
"""Protocol openstl scores what its own de-normalisation gives, by kind of normalisation."""


def evaluate(
    store: Store,
    forecast: Forecast,
    *,
    variables: tuple[str, ...],
    window: WindowSpec,
    normalisation: Normalisation,
    split: str = "test",
    max_windows: int | None = None,
    batch_size: int = 16,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Score ``forecast`` and both baselines on a split.

    Parameters
    ----------
    forecast:
        (frames_btchw, horizon) -> (B, horizon, C, H, W), both normalised; see ``baselines``.
    max_windows:
        Score so many, evenly spaced over the split; None: all.
    report:
        Called with (windows done, windows in all) after every batch.

    Raises
    ------
    StoreError
        The statistics have seen the split.
    UsageError
        There is no such split, or no window fits in it.
    """
    if batch_size < 1 or (max_windows is not None and max_windows < 1):
        raise UsageError("batch_size and max_windows must be at least 1")
    refuse_leak(store, split)
    available = split_starts(store, split, window)
    starts = evenly_spaced(available, max_windows)
    known, definition = _climatology(store, variables)
    groups = channel_groups(store, variables)
    echoes = window.input_frames >= MIN_FRAMES and all(is_radar(group) for group in groups)
    lacking = unavailable() if echoes else None
    moves = echoes and lacking is None
    forecasts = (
        MODEL,
        PERSISTENCE,
        *((EXTRAPOLATION,) if moves else ()),
        *((CLIMATOLOGY,) if known is not None else ()),
    )
    metrics = [_accumulators(store, group, normalisation.kind, forecasts) for group in groups]
    reader = _Reader(store, forecast, variables, window, normalisation)
    errors = np.zeros(len(starts))
    done = 0
    for batch, (seen, truth, model) in reader.batches(starts, batch_size):
        fields = {
            MODEL: model,
            PERSISTENCE: normalisation.invert(persistence(seen, window.horizon)),
        }
        if moves:
            fields[EXTRAPOLATION] = extrapolation(normalisation.invert(seen), window.horizon)
        if known is not None:
            fields[CLIMATOLOGY] = climatological(known, normalisation, reader.valid_times(batch))
        for group, protocols in zip(groups, metrics, strict=True):
            own = {name: values[:, :, group.channels] for name, values in fields.items()}
            _update(protocols, group, own, truth[:, :, group.channels])
        errors[done : done + len(batch)] = _window_errors(model, truth, normalisation)
        done += len(batch)
        report(done, len(starts))
    return Evaluation(
        split=split,
        period=store.period(split),
        windows_scored=len(starts),
        windows_available=len(available),
        lead_seconds=lead_seconds(store, window),
        climatology=definition,
        extrapolation=DEFINITION if moves else lacking,
        openstl_scale=OPENSTL_SCALES[normalisation.kind],
        scores=tuple(
            GroupScores(group, {p: {f: m.result() for f, m in by.items()} for p, by in own.items()})
            for group, own in zip(groups, metrics, strict=True)
        ),
        examples=_examples(reader, starts, errors),
        timed=store.clips is None or store.clips.timed,
    )


def evenly_spaced(starts: np.ndarray, most: int | None) -> np.ndarray:
    """At most ``most`` of the windows, the first and the last among them, in order.

    >>> evenly_spaced(np.arange(10), 4)
    array([0, 3, 6, 9])
    """
    if most is None or most >= len(starts):
        return starts
    return starts[np.round(np.linspace(0, len(starts) - 1, most)).astype(np.int64)]


def channel_groups(store: Store, variables: tuple[str, ...]) -> list[ChannelGroup]:
    """The groups of channels that are scored together: a variable, or each level of it."""
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
    """Whether a quantity is one that radars see and that moves with the wind."""
    return group.units.lower() in (REFLECTIVITY, *RAIN_RATE)


def _climatology(store: Store, variables: tuple[str, ...]) -> tuple[Climatology | None, str]:
    """The climatology of the train period and its definition, or None and why there is none."""
    try:
        known = climatology(store, variables)
    except UsageError as error:
        return None, f"none: {error.what}"
    return known, known.definition


def _accumulators(
    store: Store, group: ChannelGroup, kind: str, forecasts: tuple[str, ...]
) -> dict[str, dict[str, StreamingMetrics]]:
    options: dict[str, dict[str, Any]] = {
        "strict": {"data_min": group.data_min, "data_max": group.data_max},
        "openstl": {"image": kind == "minmax"},
        "detail": {},
    }
    if "latitude" in store.coordinates:
        options["weather"] = {"latitude": store.coordinates["latitude"]}
    radar = group.units.lower() == REFLECTIVITY
    if radar:
        options["radar"] = {"thresholds": RADAR_DBZ, "scales": (5,)}
    grey = store.array(group.variable).attrs.get(GREY_LEVELS)
    if isinstance(grey, (list, tuple)):
        low, high = (float(value) for value in grey)  # pyright: ignore[reportArgumentType]
        options["srvp"] = {"data_min": low, "data_max": high}
        options["motionrnn"] = {**options["srvp"], "thresholds": RADAR_DBZ if radar else ()}
        if radar:
            options["radar"] |= {"conventions": CONVENTIONS, "dbz_range": (low, high)}
    return {
        protocol: {name: create_metrics(protocol, **chosen) for name in forecasts}
        for protocol, chosen in options.items()
    }


def _update(
    protocols: dict[str, dict[str, StreamingMetrics]],
    group: ChannelGroup,
    fields: dict[str, np.ndarray],
    truth: np.ndarray,
) -> None:
    """Add one batch (B, T, C, H, W) of one group to every protocol and forecast."""
    typical = fields.get(CLIMATOLOGY)
    for protocol, by_forecast in protocols.items():
        for name, metrics in by_forecast.items():
            if protocol == "openstl" and metrics.options()["image"]:
                metrics.update(_on_range(fields[name], group), _on_range(truth, group))
            else:
                metrics.update(fields[name], truth, typical)


def _on_range(values: np.ndarray, group: ChannelGroup) -> np.ndarray:
    """Physical values on [0, 1] of the train period, in double precision."""
    return (values.astype(np.float64) - group.data_min) / (group.data_max - group.data_min)


@dataclass(frozen=True)
class _Reader:
    """Windows of a store with the model's forecasts, as normalised inputs and physical outputs."""

    store: Store
    forecast: Forecast
    variables: tuple[str, ...]
    window: WindowSpec
    normalisation: Normalisation

    def batches(self, starts: np.ndarray, size: int):
        """Yields (starts, (inputs normalised, truth physical, forecast physical))."""
        n = self.window.input_frames
        for batch, frames in read_batches(self.store, self.variables, self.window, starts, size):
            seen = np.nan_to_num(self.normalisation.apply(frames[:, :n]), copy=False)
            outputs = self.normalisation.invert(self.forecast(seen, self.window.horizon))
            yield batch, (seen, frames[:, n:], outputs)

    def valid_times(self, starts: np.ndarray) -> np.ndarray:
        """(B, T) datetime64 of the frames that are forecast."""
        return self.store.times[self.forecast_frames(starts)]

    def forecast_frames(self, starts: np.ndarray) -> np.ndarray:
        """(B, T) int64: the frames of the store that are forecast."""
        leads = np.arange(self.window.input_frames, self.window.frames) * self.window.stride
        return starts[:, None] + leads


def _window_errors(model: np.ndarray, truth: np.ndarray, constants: Normalisation) -> np.ndarray:
    """Root mean squared error of each window over all that exists, in normalised units."""
    scale = np.asarray(constants.scale).reshape(-1, 1, 1)
    valid = ~np.isnan(truth)
    squared = np.where(valid, (model - truth) / scale, 0.0) ** 2
    axes = tuple(range(1, truth.ndim))
    return np.sqrt(squared.sum(axis=axes) / np.maximum(valid.sum(axis=axes), 1))


def _examples(reader: _Reader, starts: np.ndarray, errors: np.ndarray) -> tuple[Example, ...]:
    """The best, the median and the worst window, forecast once more."""
    order = np.argsort(errors, kind="stable")
    ranks = {"best": order[0], "median": order[(len(order) - 1) // 2], "worst": order[-1]}
    examples = []
    for rank, index in ranks.items():
        one = starts[index : index + 1]
        _, (_, truth, outputs) = next(iter(reader.batches(one, 1)))
        labels = tuple(map(reader.store.label, reader.forecast_frames(one)[0].tolist()))
        valid = reader.valid_times(one)[0]
        examples.append(Example(rank, valid, truth[0], outputs[0], float(errors[index]), labels))
    return tuple(examples)
