"""Batch inference: forecasts of a period of a store, or of its newest frames, as a CF store.

One process works in batches, on a GPU if there is one, without Ray. A batch always consists of the
same init times and is computed as a whole. A run that was killed and is repeated therefore writes
the same bytes as one that was not.

Legend: B init times of a batch, M members, T frames, C channels, H W grid.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from jobs.command_line import check_seed
from jobs.command_line import say as say_aside
from jobs.forecasts.forecasters.model_forecast import TrainedForecast
from jobs.forecasts.prediction.forecast_store import ForecastStore
from jobs.forecasts.prediction.init_times import input_offsets
from jobs.forecasts.prediction.netcdf import check_file
from jobs.forecasts.prediction.options import PredictionOptions
from jobs.forecasts.prediction.plan import ForecastPlan
from jobs.forecasts.prediction.products import Products
from jobs.forecasts.prefetch import prefetch
from pipelines.progress import Progress, ignore
from pipelines.storage import lease, writable
from pipelines.stores.reader import FrameReader
from pipelines.stream.windows import lead_seconds

if TYPE_CHECKING:
    from jobs.training.run.checkpoints import Checkpoint
    from pipelines.inputs.normalisation import Normalisation
    from pipelines.stores.store import Store

_FIRST_TIME = np.datetime64("0001-01-01", "s")
"""init times are numbered by seconds since then, so that no number is negative"""
SHOWN = 10
"""how many init times without a forecast the summary names"""


@dataclass(frozen=True)
class Prediction:
    """The forecasts that one run made and left out."""

    forecasts: str
    """URI of the store"""
    made: int
    """forecasts computed by this run"""
    kept: int
    """forecasts that an earlier run had made"""
    inits: tuple[str, ...]
    """init times in the store"""
    left_out: tuple[tuple[str, str], ...]
    """(init time, why it has no forecast)"""


def check(options: PredictionOptions) -> None:
    """Check what the options alone can tell, before anything is read.

    Raises
    ------
    UsageError
        The seed, a list of numbers or the members cannot be used, or the NetCDF file cannot be
        written.
    """
    check_seed(options.seed)
    Products.of(options)
    if options.netcdf:
        check_file(options.netcdf)


def predict(
    trained: Checkpoint,
    store: Store,
    forecasts: str,
    options: PredictionOptions,
    say: Callable[[str], None] = say_aside,
    progress: Progress = ignore,
) -> Prediction:
    """Forecast from every init time of a period, or from the newest frames, and write the store.

    Parameters
    ----------
    trained:
        The model, see `jobs.forecasts.forecasters.trained.load_trained`.
    store:
        The frames. With `options.source` they are those of `operational.operational_store`, which
        have no statistics of a train period.
    forecasts:
        URI of the store to write, in place of `options.forecasts`.
    options:
        Forecasts do not depend on `batch_size` but for rounding.
    say, progress:
        Called with lines for people, and with (forecasts done, forecasts in all).

    Raises
    ------
    StoreError
        The checkpoint was not trained on this store.
    UsageError
        Nothing can be forecast, the model cannot do what is asked, or `forecasts` holds other
        forecasts.
    """
    plan = ForecastPlan.of(trained, store, options)
    for line in plan.warnings():
        say(line)
    writable.check_writable(forecasts, "forecasts")
    target = ForecastStore(forecasts, plan.identity(), plan.fields(), plan.attributes())
    maker = _Maker(plan)
    frames = plan.inits.frames
    with lease.hold(forecasts, say, "forecasts"):
        target.begin()
        there = target.sound()
        made = len(frames) - len(there)
        _make(maker, target, frames, there, options.batch_size, progress)
        if made or not target.complete:
            target.finish()
    return Prediction(
        forecasts=forecasts,
        made=made,
        kept=len(frames) - made,
        inits=tuple(store.label(frame) for frame in frames),
        left_out=plan.inits.left_out,
    )


def summary(made: Prediction) -> list[str]:
    """Return lines for people on what was made and what was left out."""
    lines = [f"left out {init}: {reason}" for init, reason in made.left_out[:SHOWN]]
    if len(made.left_out) > SHOWN:
        lines.append(f"left out {len(made.left_out)} in all; --json lists them")
    first, last, count = made.inits[0], made.inits[-1], len(made.inits)
    several = f"init times {first} to {last}, {count} forecasts"
    lines.append(several if count > 1 else f"init time {first}, 1 forecast")
    lines.append(f"{made.made} made, {made.kept} were there")
    return lines


def _make(
    maker: _Maker,
    target: ForecastStore,
    frames: Sequence[int],
    there: Collection[int],
    batch_size: int,
    progress: Progress,
) -> None:
    """Write the forecasts that are missing.

    While the model forecasts a batch, one thread reads the next batch and another one writes the
    previous batch.

    Parameters
    ----------
    frames:
        The init frames of all forecasts.
    there:
        Numbers of the forecasts that an earlier run has written.
    """
    total = len(frames)
    batches = [range(head, min(head + batch_size, total)) for head in range(0, total, batch_size)]
    wanted = [batch for batch in batches if any(index not in there for index in batch)]

    def read() -> Iterator[tuple[range, list[int], Inputs]]:
        for batch in wanted:
            own = [frames[index] for index in batch]
            yield batch, own, maker.inputs(own)

    def write(batch: range, own: list[int], outputs: np.ndarray) -> None:
        for index, arrays in zip(batch, maker.arrays(outputs, own), strict=True):
            if index not in there:
                target.write(index, arrays)
        progress(batch.stop, total)

    with ThreadPoolExecutor(1, "writes") as thread:
        writing = None
        for batch, own, inputs in prefetch(read()):
            outputs = maker.forecasts(inputs, own)
            if writing:
                writing.result()
            writing = thread.submit(write, batch, own, outputs)
        if writing:
            writing.result()


@dataclass(frozen=True)
class Inputs:
    """The input of a batch of forecasts."""

    given_btchw: np.ndarray
    """what the model is given: normalised, missing pixels filled as in training"""
    unseen_bchw: np.ndarray
    """true for pixels without a value in any input frame, such as those beyond the range of all
    radars; they are missing in the forecast"""

    @classmethod
    def of(
        cls, seen_btchw: np.ndarray, times_bt: np.ndarray, normalisation: Normalisation
    ) -> Inputs:
        """Return the input made of frames in physical units, NaN where missing, and their times."""
        unseen = np.asarray(np.isnan(seen_btchw).all(axis=1))
        return cls(normalisation.inputs(seen_btchw, times_bt), unseen)


class _Maker:
    """Makes forecasts in physical units from frames of a store."""

    def __init__(self, plan: ForecastPlan):
        trained, self._store, self._window = plan.trained, plan.store, plan.window
        self._reader = FrameReader(plan.store, trained.variables)
        self._products = plan.products
        self._normalisation, self._variables = trained.normalisation, trained.variables
        self._forecast = TrainedForecast(trained, plan.products.members, plan.seed)
        self._forecast.load()
        self._leads = np.array(lead_seconds(plan.store, plan.window), "timedelta64[s]")

    def inputs(self, frames: Sequence[int]) -> Inputs:
        """Return the input of the forecasts with these init frames."""
        times = self._store.times[np.asarray(frames)[:, None] + input_offsets(self._window)]
        return Inputs.of(self._seen(frames), times, self._normalisation)

    def _seen(self, frames: Sequence[int]) -> np.ndarray:
        """Return (B, T, C, H, W) in physical units; frames of overlapping windows are read once."""
        offsets = input_offsets(self._window)
        span = int(offsets[-1] - offsets[0]) + 1
        first, last = frames[0] + int(offsets[0]), frames[-1] + 1
        if last - first <= len(frames) * span:
            run = self._read(first, last)
            return np.stack([run[frame - first + offsets] for frame in frames])
        runs = (self._read(frame + 1 - span, frame + 1) for frame in frames)
        return np.stack([run[:: self._window.stride] for run in runs])

    def forecasts(self, inputs: Inputs, frames: Sequence[int]) -> np.ndarray:
        """Return (B, M, T, C, H, W), normalised, NaN where no input frame has a value.

        The noise of a member depends on its init time, not on its place in a batch.
        """
        times = self._store.times[list(frames)].astype("datetime64[s]")
        numbers = (times - _FIRST_TIME).astype(np.int64).tolist()
        made = self._forecast.members(inputs.given_btchw, self._window.horizon, numbers)
        made[np.broadcast_to(inputs.unseen_bchw[:, None, None], made.shape)] = np.nan
        return made

    def arrays(
        self, outputs_bmtchw: np.ndarray, frames: Sequence[int]
    ) -> list[dict[str, np.ndarray]]:
        """Return the arrays of each forecast by name, in physical units."""
        valid_times = self._store.times[list(frames)][:, None, None] + self._leads
        physical = self._normalisation.outputs(outputs_bmtchw, valid_times)
        return [self._arrays(one) for one in physical]

    def _read(self, first: int, last: int) -> np.ndarray:
        run_tchw = np.empty((last - first, *self._reader.frame_shape), np.float32)
        self._reader.read(first, last, run_tchw)
        return run_tchw

    def _arrays(self, forecast_mtchw: np.ndarray) -> dict[str, np.ndarray]:
        arrays: dict[str, np.ndarray] = {}
        begin = 0
        for name in self._variables:
            info = self._store.variables[name]
            end = begin + len(info.channel_labels)
            own = forecast_mtchw[:, :, begin:end]
            shaped = own.reshape(*own.shape[:2], *info.extra_shape, *own.shape[-2:])
            arrays |= self._products.arrays(name, shaped)
            begin = end
        return arrays
