"""Plan a prediction: the model, the init times, and everything that the forecasts depend on.

Legend: I init times.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.forecasts.fields import Field
from jobs.forecasts.forecasters.compatibility import check_match, check_same_frames
from jobs.forecasts.forecasters.trained import weights_checksum
from jobs.forecasts.prediction.init_times import Inits, choose_inits, input_offsets
from jobs.forecasts.prediction.options import PredictionOptions
from jobs.forecasts.prediction.products import Products, forecast_fields
from jobs.training.run.run_folder import versions
from pipelines.cf import CONVENTIONS
from pipelines.errors import UsageError
from pipelines.storage import places
from pipelines.stores.recipe import frames_checksum
from pipelines.stream.windows import WindowSpec

if TYPE_CHECKING:
    from jobs.training.run.checkpoints import Checkpoint
    from pipelines.stores.store import Store


@dataclass(frozen=True, eq=False)
class ForecastPlan:
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
    def of(cls, trained: Checkpoint, store: Store, options: PredictionOptions) -> ForecastPlan:
        """Check that the model can forecast these frames, and choose the init times.

        Raises
        ------
        StoreError
            The checkpoint was not trained on this store.
        UsageError
            The store holds clips, nothing can be forecast, or a NetCDF file would need one init
            time.
        """
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
