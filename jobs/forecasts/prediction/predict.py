"""Batch inference: forecasts of a period of a store, or of its newest frames, as a CF store.

A single process with batches, on a GPU where there is one; no Ray. A batch is always made of the
same init times and computed whole, so that a run that was killed and is run again gives the bytes
of one that was not. Legend: B init times of a batch, M members, T frames, C channels, H W grid.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.command_line import check_seed
from jobs.command_line import say as say_aside
from jobs.forecasts.forecasters.compatibility import check_match, check_same_frames
from jobs.forecasts.forecasters.model_forecast import TrainedForecast
from jobs.forecasts.forecasters.trained import weights_checksum
from jobs.forecasts.prediction.forecast_store import Field, ForecastStore
from jobs.forecasts.prediction.init_times import Inits, choose_inits, input_offsets
from jobs.forecasts.prediction.netcdf import check_file
from jobs.forecasts.prediction.options import PredictionOptions
from jobs.forecasts.prediction.products import Products, forecast_fields
from jobs.forecasts.prefetch import ahead
from jobs.training.run.run_folder import versions
from pipelines.cf import CONVENTIONS
from pipelines.errors import UsageError
from pipelines.progress import Progress, ignore
from pipelines.storage import lease, places, writable
from pipelines.stores.reader import FrameReader
from pipelines.stores.recipe import frames_checksum
from pipelines.stream.windows import WindowSpec, lead_seconds

if TYPE_CHECKING:
    from jobs.training.run.checkpoints import Checkpoint
    from pipelines.inputs.normalisation import Normalisation
    from pipelines.stores.store import Store


_FIRST_TIME = np.datetime64("0001-01-01", "s")
"""numbers of init times, which are none below 0, are counted from here"""
SHOWN = 10
"""init times without a forecast that a summary names"""


@dataclass(frozen=True)
class Prediction:
    """What a run made."""

    forecasts: str
    """URI of the store"""
    made: int
    """forecasts computed by this run"""
    kept: int
    """forecasts that were there already"""
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
    plan = _Plan.of(trained, store, options)
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
    """What was made and what was left out, in lines for people."""
    lines = [f"left out {init}: {reason}" for init, reason in made.left_out[:SHOWN]]
    if len(made.left_out) > SHOWN:
        lines.append(f"left out {len(made.left_out)} in all; --json lists them")
    first, last, count = made.inits[0], made.inits[-1], len(made.inits)
    several = f"init times {first} to {last}, {count} forecasts"
    lines.append(several if count > 1 else f"init time {first}, 1 forecast")
    lines.append(f"{made.made} made, {made.kept} were there")
    return lines


@dataclass(frozen=True, eq=False)
class _Plan:
    """Which forecasts are made, with which model, from which frames."""

    trained: Checkpoint
    store: Store
    origin: str
    """URI that the frames come from: the store's, or the folder's of operational forecasts"""
    window: WindowSpec
    inits: Inits
    products: Products
    seed: int

    @classmethod
    def of(cls, trained: Checkpoint, store: Store, options: PredictionOptions) -> _Plan:
        """Check that the model can forecast these frames, and choose the init times."""
        if options.source:
            check_same_frames(trained, store)
        else:
            check_match(trained, store)
        origin = places.absolute(options.source) if options.source else store.uri
        if store.clips is not None:
            raise UsageError(
                "clips have no init time to forecast from",
                where=origin,
                remedy="export the model and give it the frames: python jobs/export.py --help",
            )
        window = replace(trained.window, horizon=options.horizon or trained.window.horizon)
        inits = choose_inits(
            store.times,
            store.available,
            store.cadence,
            window,
            period=options.period,
            every=options.every,
        )
        if options.netcdf and len(inits.frames) > 1:
            raise UsageError(
                f"{len(inits.frames)} forecasts, and one file holds one",
                remedy="give --latest, or one init time as --first and --last",
            )
        return cls(trained, store, origin, window, inits, Products.of(options), options.seed)

    def warnings(self) -> Iterator[str]:
        """Yield sentences on what the forecasts lack."""
        if self.inits.beyond:
            yield self.inits.beyond
        learnt = self.trained.window.horizon
        if self.window.horizon > learnt:
            yield (
                f"forecasting {self.window.horizon} frames with a model that was trained for "
                f"{learnt}: nothing was learnt of the later ones"
            )
        missing = self._most_missing()
        if missing:
            yield (
                f"up to {missing:.1%} of the pixels of a forecast's input are missing: the model "
                "is given what it was given there in training, the mean or minimum of the train "
                "period (with --data.anomalies what is usual at the time); those that no frame of "
                "the input has are missing in the forecast"
            )

    def _most_missing(self) -> float:
        """Return the largest share of missing pixels in the input of one forecast."""
        by_frame = np.asarray(self.store.dataset()["missing_fraction"]).reshape(-1)
        return float(by_frame[self._seen()].mean(axis=1).max())

    def _seen(self) -> np.ndarray:
        """(I, input_frames) frames of the store that the forecasts are made from."""
        return np.asarray(self.inits.frames)[:, None] + input_offsets(self.window)

    def fields(self) -> dict[str, Field]:
        """Return the arrays of the store, by name."""
        return forecast_fields(
            self.store, self.trained.variables, self.window, self.inits.frames, self.products
        )

    def identity(self) -> dict[str, Any]:
        """Return everything that the values of the forecasts depend on."""
        trained, products = self.trained, self.products
        return {
            "weights": weights_checksum(trained),
            "statistics_fingerprint": trained.fingerprint,
            "store": self.origin,
            "frames": frames_checksum(self.store, trained.variables, np.unique(self._seen())),
            "horizon": self.window.horizon,
            "members": products.members,
            "seed": self.seed,
            "quantiles": products.quantiles,
            "at_or_above": products.exceed,
            "init_times": [self.store.label(frame) for frame in self.inits.frames],
            "left_out": self.inits.left_out,
        }

    def attributes(self) -> dict[str, Any]:
        """Return the attributes of the root."""
        trained = self.trained
        noise = {} if self.products.members is None else {"noise_seed": self.seed}
        return {
            "Conventions": CONVENTIONS,
            "title": f"Forecasts of {self.store.title}",
            "source": f"{trained.record['model']['name']}, trained for {trained.step} steps",
            "synthetic": self.store.synthetic,
            "checkpoint": trained.uri,
            "checkpoint_step": trained.step,
            "checkpoint_weights": weights_checksum(trained),
            "store": self.origin,
            "statistics_fingerprint": trained.fingerprint,
            "input_frames": trained.window.input_frames,
            "trained_horizon": trained.window.horizon,
            "frame_stride": trained.window.stride,
            **noise,
            "left_out": [f"{init}: {reason}" for init, reason in self.inits.left_out],
            "versions": versions(),
        }


def _make(
    maker: _Maker,
    target: ForecastStore,
    frames: Sequence[int],
    there: Collection[int],
    batch_size: int,
    progress: Progress,
) -> None:
    """Write the forecasts that are not there; during each pass of the model the next batch is read
    and the one before is written."""
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

    with ThreadPoolExecutor(1, "writes") as beside:
        writing = None
        for batch, own, inputs in ahead(read()):
            outputs = maker.forecasts(inputs, own)
            if writing:
                writing.result()
            writing = beside.submit(write, batch, own, outputs)
        if writing:
            writing.result()


@dataclass(frozen=True)
class Inputs:
    """What a batch of forecasts is made from."""

    given_btchw: np.ndarray
    """to the model, as in training"""
    unseen_bchw: np.ndarray
    """True where no input frame has a value, as beyond the reach of radars: none is forecast"""

    @classmethod
    def of(
        cls, seen_btchw: np.ndarray, times_bt: np.ndarray, normalisation: Normalisation
    ) -> Inputs:
        """From frames in physical units, NaN where missing, and their times."""
        unseen = np.asarray(np.isnan(seen_btchw).all(axis=1))
        return cls(normalisation.inputs(seen_btchw, times_bt), unseen)


class _Maker:
    """Frames of a store in, forecasts in physical units out."""

    def __init__(self, plan: _Plan):
        trained, self._store, self._window = plan.trained, plan.store, plan.window
        self._reader = FrameReader(plan.store, trained.variables)
        self._products = plan.products
        self._normalisation, self._variables = trained.normalisation, trained.variables
        self._forecast = TrainedForecast(trained, plan.products.members, plan.seed)
        self._forecast.load()
        self._leads = np.array(lead_seconds(plan.store, plan.window), "timedelta64[s]")

    def inputs(self, frames: Sequence[int]) -> Inputs:
        """What is forecast from; each frame is read once where the windows overlap."""
        times = self._store.times[np.asarray(frames)[:, None] + input_offsets(self._window)]
        return Inputs.of(self._seen(frames), times, self._normalisation)

    def _seen(self, frames: Sequence[int]) -> np.ndarray:
        """(B, T, C, H, W) in physical units, NaN where missing."""
        offsets = input_offsets(self._window)
        span = int(offsets[-1] - offsets[0]) + 1
        first, last = frames[0] + int(offsets[0]), frames[-1] + 1
        if last - first <= len(frames) * span:
            run = self._read(first, last)
            return np.stack([run[frame - first + offsets] for frame in frames])
        runs = (self._read(frame + 1 - span, frame + 1) for frame in frames)
        return np.stack([run[:: self._window.stride] for run in runs])

    def forecasts(self, inputs: Inputs, frames: Sequence[int]) -> np.ndarray:
        """(B, M, T, C, H, W) as the model makes them, NaN where nothing was seen.

        The noise of members is told by the init time.
        """
        times = self._store.times[list(frames)].astype("datetime64[s]")
        numbers = (times - _FIRST_TIME).astype(np.int64).tolist()
        made = self._forecast.members(inputs.given_btchw, self._window.horizon, numbers)
        made[np.broadcast_to(inputs.unseen_bchw[:, None, None], made.shape)] = np.nan
        return made

    def arrays(
        self, outputs_bmtchw: np.ndarray, frames: Sequence[int]
    ) -> list[dict[str, np.ndarray]]:
        """The arrays of each forecast, in physical units."""
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
