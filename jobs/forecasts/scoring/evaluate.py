"""Score a model, persistence and climatology on the windows of one split, in one pass.

The steps: choose windows and scores (`evaluate` here, `protocols`), pass over the windows
(`blocks`, in this process or on the Ray actors of `ray_pool`), keep the sums by day, month and hour
(`sums`), compute the intervals (`bootstrap`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from jobs.drawing.axes import grid_axes
from jobs.forecasts.forecasters.baselines import Forecast
from jobs.forecasts.forecasters.compatibility import check_match, check_no_leak, check_selection
from jobs.forecasts.forecasters.extrapolation import DEFINITION, MIN_FRAMES, unavailable
from jobs.forecasts.forecasters.model_forecast import TrainedForecast
from jobs.forecasts.forecasters.trained import load_trained, selection_notes
from jobs.forecasts.scoring.blocks import BlockScores, Scorer, blocks_of
from jobs.forecasts.scoring.bootstrap import (
    check_resamples,
    draw,
    plan_bootstrap,
    with_intervals,
)
from jobs.forecasts.scoring.options import EvaluationOptions
from jobs.forecasts.scoring.protocols import OPENSTL_SCALES, Selection, channel_groups, is_radar
from jobs.forecasts.scoring.ray_pool import Pool
from jobs.forecasts.scoring.scores import Bootstrap, Evaluation, Example, Grid, GroupScores
from jobs.forecasts.scoring.sums import (
    MOST_BYTES,
    DailySums,
    ErrorSums,
    GroupedSums,
    WindowGroups,
)
from pipelines.errors import UsageError
from pipelines.inputs.climatology import Climatology, kept_climatology
from pipelines.inputs.normalisation import Normalisation
from pipelines.progress import Progress, ignore
from pipelines.stores.store import Store, open_store
from pipelines.stream.windows import WindowSpec, lead_seconds, split_starts

if TYPE_CHECKING:
    from jobs.training.run.checkpoints import Checkpoint

LOCAL_TIME = (
    "the times of this archive are those of the clocks there: read local time where it says UTC"
)


@dataclass(frozen=True, eq=False)
class ForecastSystem:
    """A forecast, and what it is made from."""

    forecast: Forecast
    """(frames_btchw, horizon) -> (B, horizon, C, H, W), both normalised; see `baselines`"""
    variables: tuple[str, ...]
    """of the store, in the order of the channels"""
    window: WindowSpec
    """input frames and horizon"""
    normalisation: Normalisation
    notes: tuple[str, ...] = ()
    """sentences on what makes its scores less trustworthy"""


def load(options: EvaluationOptions) -> tuple[Store, Checkpoint]:
    """Open the store and the trained model; check first what the options alone can tell.

    Raises
    ------
    UsageError
        Protocols, thresholds or resamples cannot be used.
    StoreError
        The store or the model is missing or damaged.
    """
    Selection.of(options)
    check_resamples(options.resamples)
    return open_store(options.store), load_trained(options.checkpoint)


def check(trained: Checkpoint, store: Store, split: str) -> None:
    """Raise StoreError unless scores of this model on this split are honest."""
    check_match(trained, store)
    check_no_leak(store, split)
    check_selection(trained, store, split)


def system_of(trained: Checkpoint, options: EvaluationOptions) -> ForecastSystem:
    """Return a trained model as the system to score; its weights are read.

    Raises
    ------
    UsageError
        The model cannot forecast so many members, or the seed or the horizon is out of range.
    """
    learnt = trained.window.horizon
    horizon = learnt if options.horizon is None else options.horizon
    window = replace(trained.window, horizon=horizon)
    notes = selection_notes(trained, options.split)
    if horizon > learnt:
        notes.append(
            f"{horizon} frames are forecast with a model that was trained for {learnt}: nothing "
            "was learnt of the later ones"
        )
    forecast = TrainedForecast(trained, options.members, options.seed)
    forecast.load()
    return ForecastSystem(forecast, trained.variables, window, trained.normalisation, tuple(notes))


def evaluate(
    store: Store, system: ForecastSystem, options: EvaluationOptions, progress: Progress = ignore
) -> Evaluation:
    """Score a system and its baselines on a split.

    Parameters
    ----------
    progress:
        Called with (windows done, windows in all).

    Raises
    ------
    StoreError
        The statistics have seen the split, or frames of the store are lost.
    UsageError
        The split is unknown, no window fits in it, a protocol does not suit the data, or the
        resamples are too few.
    """
    check_resamples(options.resamples)
    check_no_leak(store, options.split)
    available = split_starts(store, options.split, system.window)
    starts = evenly_spaced(available, options.max_windows)
    baselines = _baselines(store, system)
    scorer = _scorer(store, system, baselines, options)
    windows = WindowGroups.of(store, system.window, starts)
    found = _score(scorer, starts, windows, _pool(options), progress)
    bootstrap = plan_bootstrap(
        windows.unit, len(np.unique(windows.units)), options.resamples, options.seed
    )
    sums = _daily_sums(scorer, windows, found)
    return Evaluation(
        split=options.split,
        period=store.period(options.split),
        windows_scored=len(starts),
        windows_available=len(available),
        lead_seconds=lead_seconds(store, system.window),
        climatology=baselines.climatology_text,
        extrapolation=baselines.extrapolation_text,
        openstl_scale=OPENSTL_SCALES[system.normalisation.kind],
        scores=_all_scores(scorer, found, bootstrap),
        groups=scorer.groups,
        examples=_examples(scorer, starts, np.concatenate(found.errors)),
        timed=store.clips is None or store.clips.timed,
        members=options.members,
        seed=options.seed,
        bootstrap=bootstrap,
        notes=(*system.notes, *_notes(scorer, found, bootstrap)),
        fields=None if found.fields is None else found.fields.result(),
        sums=sums,
        sums_sha256=sums.sha256,
        grid=Grid(
            store.spatial_shape,
            len(system.normalisation.labels),
            grid_axes(store, system.variables[0]).cell_km,
        ),
    )


def evenly_spaced(starts: np.ndarray, most: int | None) -> np.ndarray:
    """Return at most `most` of the windows, in order, the first and the last among them.

    >>> evenly_spaced(np.arange(10), 4)
    array([0, 3, 6, 9])
    """
    if most is None or most >= len(starts):
        return starts
    return starts[np.round(np.linspace(0, len(starts) - 1, most)).astype(np.int64)]


class _Baselines(NamedTuple):
    """What stands beside the model, and how the page describes it."""

    climatology: Climatology | None
    climatology_text: str
    """its definition, or why it is missing"""
    moves: bool
    """whether the extrapolation of radar echoes is scored"""
    extrapolation_text: str | None
    """its definition, or why it is missing; None for data other than radar"""


def _baselines(store: Store, system: ForecastSystem) -> _Baselines:
    """Return the climatology of the train period, and whether echoes can be extrapolated."""
    try:
        climatology = kept_climatology(store, system.variables)
        definition = climatology.definition
    except UsageError as error:
        climatology, definition = None, f"none: {error.what}"
    groups = channel_groups(store, system.variables)
    if system.window.input_frames < MIN_FRAMES or not all(is_radar(group) for group in groups):
        return _Baselines(climatology, definition, moves=False, extrapolation_text=None)
    reason = unavailable()
    return _Baselines(climatology, definition, reason is None, reason or DEFINITION)


def _scorer(
    store: Store, system: ForecastSystem, baselines: _Baselines, options: EvaluationOptions
) -> Scorer:
    """Return what scores a block of windows; it keeps maps of errors where they are small."""
    groups = channel_groups(store, system.variables)
    selection, kind = Selection.of(options), system.normalisation.kind
    scorer = Scorer(
        store=store,
        forecast=system.forecast,
        variables=system.variables,
        window=system.window,
        normalisation=system.normalisation,
        groups=tuple(groups),
        protocols=tuple(selection.protocols_of(store, group, kind, groups) for group in groups),
        climatology=baselines.climatology,
        moves=baselines.moves,
        batch_size=options.batch_size,
        maps=True,
    )
    return replace(scorer, maps=_map_bytes(scorer) <= MOST_BYTES)


def _map_bytes(scorer: Scorer) -> int:
    return ErrorSums.nbytes(len(scorer.systems), scorer.shape_tchw)


def _pool(options: EvaluationOptions) -> Pool | None:
    """Return the Ray actors that score; None if this process scores alone."""
    if options.workers <= 1:
        return None
    used = {"--store": options.store, "--checkpoint": options.checkpoint}
    return Pool(options.workers, used, options.shared_paths)


def _score(
    scorer: Scorer,
    starts: np.ndarray,
    groups: WindowGroups,
    pool: Pool | None,
    progress: Progress,
) -> BlockScores:
    """Return the sums over all windows, added block after block."""
    done = 0

    def advance(windows: int) -> None:
        nonlocal done
        done += windows
        progress(done, len(starts))

    progress(0, len(starts))
    blocks = blocks_of(len(starts))
    if pool is None:
        scores = scorer.score(starts, groups, blocks, advance)
    else:
        scores = pool.score(scorer, starts, groups, blocks, advance)
    found = next(scores, None)
    if found is None:
        raise UsageError("there is no window to score", where=scorer.store.uri)
    for block in scores:
        found.merge(block)
    return found


def _all_scores(
    scorer: Scorer, found: BlockScores, bootstrap: Bootstrap
) -> tuple[GroupScores, ...]:
    """Return the scores of every group of channels, with intervals where the bootstrap has some."""
    counts_rd = None if bootstrap.none else draw(bootstrap)
    leads = lead_seconds(scorer.store, scorer.window)
    return tuple(
        GroupScores.of(group, leads, _results(found, place, counts_rd))
        for place, group in enumerate(scorer.groups)
    )


def _results(found: BlockScores, place: int, counts_rd: np.ndarray | None) -> dict[str, Any]:
    """Return the results of one group of channels, in the nesting of `score_nesting`."""
    sums, channels = found.sums[place], found.channels[place]
    results: dict[str, Any] = {
        "protocols": {p: {s: x.metrics.result() for s, x in by.items()} for p, by in sums.items()},
        "channels": {
            label: {system: metrics.result() for system, metrics in by.items()}
            for label, by in channels.items()
        },
        "months": _calendar(sums, "months", first=1),
        "hours": _calendar(sums, "hours", first=0),
    }
    if counts_rd is None:
        return results
    return results | with_intervals(results["protocols"], sums, counts_rd)


def _daily_sums(scorer: Scorer, windows: WindowGroups, found: BlockScores) -> DailySums:
    labels = [group.label for group in scorer.groups]
    options = [{one.name: one.options for one in protocols} for protocols in scorer.protocols]
    return DailySums.of(
        windows,
        sums=dict(zip(labels, found.sums, strict=True)),
        options=dict(zip(labels, options, strict=True)),
    )


def _calendar(
    sums: Mapping[str, Mapping[str, GroupedSums]], kind: Literal["months", "hours"], first: int
) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """Return [month or hour, two digits][protocol][system] -> {score: value}, in order.

    Parameters
    ----------
    first:
        The number of the first of them: months count from 1, hours from 0.
    """
    found: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for protocol, systems in sums.items():
        for system, grouped in systems.items():
            for key, values in grouped.by_group(getattr(grouped, kind)).items():
                own = found.setdefault(f"{key + first:02d}", {})
                own.setdefault(protocol, {})[system] = values
    return dict(sorted(found.items()))


def _notes(scorer: Scorer, found: BlockScores, bootstrap: Bootstrap) -> list[str]:
    """Return sentences on what the data and the windows take from the scores."""
    notes = [LOCAL_TIME] if scorer.store.local_time else []
    filled = "mean" if scorer.normalisation.kind == "standardise" else "minimum"
    anomalies = scorer.normalisation.normals is not None
    usual = ", the model what is usual at the time" if anomalies else ""
    if found.inputs.missing:
        notes.append(
            f"{found.inputs.share_missing:.2%} of the input pixels are missing: every forecast "
            f"that starts from them was given the {filled} of the train period there{usual}"
        )
    if found.truth.missing:
        notes.append(
            f"{found.truth.share_missing:.2%} of the pixels to forecast are missing; protocols "
            "that know no missing pixels have no score where one is"
        )
    if bootstrap.resamples and bootstrap.none:
        notes.append(f"no intervals ({bootstrap.none}): what is better may be so by chance")
    if found.fields is None:
        size = _map_bytes(scorer) / 2**30
        notes.append(f"no maps of errors: their sums would take {size:.1f} GiB")
    return notes


def _examples(scorer: Scorer, starts: np.ndarray, errors: np.ndarray) -> tuple[Example, ...]:
    """Return the best, the median and the worst window, forecast once more."""
    order = np.argsort(errors, kind="stable")
    ranks = {"best": order[0], "median": order[(len(order) - 1) // 2], "worst": order[-1]}
    return tuple(
        _example(scorer, rank, int(starts[index]), float(errors[index]))
        for rank, index in ranks.items()
    )


def _example(scorer: Scorer, rank: str, start: int, error: float) -> Example:
    made = scorer.forecasts(start)
    model, *baselines = scorer.systems
    frames = scorer.window.frames_of(np.asarray([start]))[0]
    times, labels = scorer.store.times[frames], tuple(map(scorer.store.label, frames.tolist()))
    n = scorer.window.input_frames
    # As in a forecast store: a pixel without a value in any input frame is not forecast.
    unseen = np.isnan(made.seen[0]).all(axis=0)
    shown = {name: np.where(unseen, np.nan, made.fields[name][0]) for name in scorer.systems}
    several = made.members.shape[1] > 1
    spread = np.where(unseen, np.nan, made.members[0].std(axis=0, ddof=1)) if several else None
    return Example(
        rank=rank,
        valid_times=times[n:],
        truth_tchw=made.truth[0],
        forecast_tchw=shown[model],
        rmse=error,
        labels=labels[n:],
        seen_tchw=made.seen[0],
        seen_times=times[:n],
        seen_labels=labels[:n],
        start=start,
        baselines={name: shown[name] for name in baselines},
        spread_tchw=spread,
    )
