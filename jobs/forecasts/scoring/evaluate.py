"""Score a model, persistence and climatology on the windows of one split, in one pass.

The way through: which windows and which scores (here and ``protocols``), the pass over the windows
(``blocks``, here or on a pool of ``actors``), the sums by day, month and hour (``grouping``), the
intervals (``intervals``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from jobs.drawing.axes import grid_axes
from jobs.forecasts.forecasters.baselines import Forecast
from jobs.forecasts.forecasters.compatibility import check_no_leak
from jobs.forecasts.forecasters.extrapolation import DEFINITION, MIN_FRAMES, unavailable
from jobs.forecasts.scoring.blocks import BlockScores, Scorer, blocks_of
from jobs.forecasts.scoring.bootstrap import (
    check_resamples,
    draw,
    plan_bootstrap,
    with_intervals,
)
from jobs.forecasts.scoring.daily_sums import DailySums
from jobs.forecasts.scoring.error_sums import MOST_BYTES, ErrorSums
from jobs.forecasts.scoring.protocols import OPENSTL_SCALES, Selection, channel_groups, is_radar
from jobs.forecasts.scoring.ray_pool import Pool
from jobs.forecasts.scoring.scores import Bootstrap, Evaluation, Example, Grid, GroupScores
from jobs.forecasts.scoring.sums import WindowGroups
from pipelines.errors import UsageError
from pipelines.inputs.climatology import Climatology
from pipelines.inputs.kept_climatology import kept_climatology
from pipelines.inputs.normalisation import Normalisation
from pipelines.progress import ignore
from pipelines.stream.windows import WindowSpec, lead_seconds, split_starts

if TYPE_CHECKING:
    from pipelines.stores.store import Store

LOCAL_TIME = (
    "the times of this archive are those of the clocks there: read local time where it says UTC"
)


def evaluate(
    store: Store,
    forecast: Forecast,
    *,
    variables: tuple[str, ...],
    window: WindowSpec,
    normalisation: Normalisation,
    split: str = "test",
    selection: Selection | None = None,
    max_windows: int | None = None,
    batch_size: int = 16,
    pool: Pool | None = None,
    resamples: int = 1000,
    seed: int = 0,
    notes: Iterable[str] = (),
    report: Callable[[int, int], None] = ignore,
) -> Evaluation:
    """Score ``forecast`` and its baselines on a split.

    Parameters
    ----------
    forecast:
        (frames_btchw, horizon) -> (B, horizon, C, H, W), both normalised; see ``baselines``.
    selection:
        Protocols, thresholds and members; None: all that the archive allows, one member.
    max_windows:
        Score so many, evenly spaced over the split; None: all.
    pool:
        Where the windows are scored; None: in this process.
    resamples, seed:
        Of the bootstrap; 0: no intervals.
    notes:
        What the caller knows to make the scores worth less.
    report:
        Called with (windows done, windows in all).

    Raises
    ------
    StoreError
        The statistics have seen the split, or frames of the store are lost.
    UsageError
        There is no such split, no window fits in it, a protocol does not suit the data, or the
        resamples are too few.
    """
    if batch_size < 1 or (max_windows is not None and max_windows < 1):
        raise UsageError("batch_size and max_windows must be at least 1")
    check_resamples(resamples)
    check_no_leak(store, split)
    selection = selection or Selection()
    available = split_starts(store, split, window)
    starts = evenly_spaced(available, max_windows)
    known, definition = _climatology(store, variables)
    groups = channel_groups(store, variables)
    echoes = window.input_frames >= MIN_FRAMES and all(is_radar(group) for group in groups)
    lacking = unavailable() if echoes else None
    scorer = Scorer(
        store=store,
        forecast=forecast,
        variables=variables,
        window=window,
        normalisation=normalisation,
        groups=tuple(groups),
        options=tuple(selection.options(store, g, normalisation.kind, groups) for g in groups),
        climatology=known,
        moves=echoes and lacking is None,
        batch_size=batch_size,
        maps=True,
    )
    size = ErrorSums.nbytes(len(scorer.systems), scorer.shape_tchw)
    scorer = replace(scorer, maps=size <= MOST_BYTES)
    by_window = WindowGroups.of(store, window, starts)
    found = _score(scorer, starts, by_window, pool, report)
    errors = np.concatenate(found.errors)
    bootstrap = plan_bootstrap(by_window.unit, len(np.unique(by_window.units)), resamples, seed)
    return Evaluation(
        split=split,
        period=store.period(split),
        windows_scored=len(starts),
        windows_available=len(available),
        lead_seconds=lead_seconds(store, window),
        climatology=definition,
        extrapolation=DEFINITION if scorer.moves else lacking,
        openstl_scale=OPENSTL_SCALES[normalisation.kind],
        scores=tuple(
            _group_scores(scorer, found, place, None if bootstrap.none else draw(bootstrap))
            for place in range(len(groups))
        ),
        examples=_examples(scorer, starts, errors),
        timed=store.clips is None or store.clips.timed,
        members=selection.members,
        seed=seed,
        bootstrap=bootstrap,
        notes=(
            *notes,
            *([LOCAL_TIME] if store.local_time else []),
            *_notes(found, normalisation, size, bootstrap),
        ),
        fields=None if found.fields is None else found.fields.result(),
        sums=DailySums.of(
            by_window, [g.label for g in groups], scorer.options, found.sums, bootstrap.unit
        ),
        grid=Grid(
            store.spatial_shape,
            len(normalisation.labels),
            grid_axes(store, variables[0]).cell_km,
        ),
    )


def evenly_spaced(starts: np.ndarray, most: int | None) -> np.ndarray:
    """At most ``most`` of the windows, the first and the last among them, in order.

    >>> evenly_spaced(np.arange(10), 4)
    array([0, 3, 6, 9])
    """
    if most is None or most >= len(starts):
        return starts
    return starts[np.round(np.linspace(0, len(starts) - 1, most)).astype(np.int64)]


def _climatology(store: Store, variables: tuple[str, ...]) -> tuple[Climatology | None, str]:
    """The climatology of the train period and its definition, or None and why there is none."""
    try:
        known = kept_climatology(store, variables)
    except UsageError as error:
        return None, f"none: {error.what}"
    return known, known.definition


def _score(
    scorer: Scorer,
    starts: np.ndarray,
    groups: WindowGroups,
    pool: Pool | None,
    report: Callable[[int, int], None],
) -> BlockScores:
    """The sums of all windows, block after block."""
    blocks, done = blocks_of(len(starts)), 0

    def advance(windows: int) -> None:
        nonlocal done
        done += windows
        report(done, len(starts))

    found: BlockScores | None = None
    report(0, len(starts))
    for scores in (
        scorer.score(starts, groups, blocks, advance)
        if pool is None
        else pool.score(scorer, starts, groups, blocks, advance)
    ):
        if found is None:
            found = scores
        else:
            found.merge(scores)
    if found is None:
        raise UsageError("there is no window to score", where=scorer.store.uri)
    return found


def _group_scores(
    scorer: Scorer, found: BlockScores, place: int, counts_rd: np.ndarray | None
) -> GroupScores:
    sums, channels = found.sums[place], found.channels[place]
    scores = GroupScores(
        scorer.groups[place],
        {p: {s: x.metrics.result() for s, x in by.items()} for p, by in sums.items()},
        channels={
            label: {system: metrics.result() for system, metrics in by.items()}
            for label, by in channels.items()
        },
    )
    calendar: dict[str, dict[str, dict[str, dict[str, dict[str, float]]]]] = {
        "months": {},
        "hours": {},
    }
    for kind, first in (("months", 1), ("hours", 0)):
        for protocol, systems in sums.items():
            for system, grouped in systems.items():
                for key, values in grouped.by_group(getattr(grouped, kind)).items():
                    own = calendar[kind].setdefault(f"{key + first:02d}", {})
                    own.setdefault(protocol, {})[system] = values
        calendar[kind] = dict(sorted(calendar[kind].items()))
    scores = replace(scores, **calendar)
    if counts_rd is None:
        return scores
    return replace(scores, **with_intervals(scores, sums, counts_rd))


def _notes(
    found: BlockScores, normalisation: Normalisation, map_bytes: int, bootstrap: Bootstrap
) -> list[str]:
    """What the windows themselves take from the scores."""
    notes = []
    filled = "mean" if normalisation.kind == "standardise" else "minimum"
    usual = "" if normalisation.normals is None else ", the model what is usual at the time"
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
        notes.append(f"no maps of errors: their sums would take {map_bytes / 2**30:.1f} GiB")
    return notes


def _examples(scorer: Scorer, starts: np.ndarray, errors: np.ndarray) -> tuple[Example, ...]:
    """The best, the median and the worst window, forecast once more."""
    order = np.argsort(errors, kind="stable")
    ranks = {"best": order[0], "median": order[(len(order) - 1) // 2], "worst": order[-1]}
    examples = []
    for rank, index in ranks.items():
        one = starts[index : index + 1]
        made = scorer.forecasts(int(starts[index]))
        model, *baselines = scorer.systems
        frames = scorer.window.frames_of(one)[0]
        times, labels = scorer.store.times[frames], tuple(map(scorer.store.label, frames.tolist()))
        n = scorer.window.input_frames
        # As in a forecast that is written: nothing is drawn where no input frame has a value.
        unseen = np.isnan(made.seen[0]).all(axis=0)
        shown = {name: np.where(unseen, np.nan, made.fields[name][0]) for name in scorer.systems}
        examples.append(
            Example(
                rank=rank,
                valid_times=times[n:],
                truth_tchw=made.truth[0],
                forecast_tchw=shown[model],
                rmse=float(errors[index]),
                labels=labels[n:],
                seen_tchw=made.seen[0],
                seen_times=times[:n],
                seen_labels=labels[:n],
                start=int(one[0]),
                baselines={name: shown[name] for name in baselines},
                spread_tchw=np.where(unseen, np.nan, made.members[0].std(axis=0, ddof=1))
                if made.members.shape[1] > 1
                else None,
            )
        )
    return tuple(examples)
