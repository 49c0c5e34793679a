"""A trained model as a function from arrays to arrays, on a GPU if there is one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from gmg_model.errors import ConfigurationError
from gmg_model.models.ensembles import EnsembleForecaster
from jobs.command_line import check_seed
from jobs.forecasts.forecasters.baselines import Forecast, MemberForecast
from pipelines.errors import UsageError

if TYPE_CHECKING:
    from jobs.training.run.checkpoints import Checkpoint

Ensemble = Callable[[np.ndarray, int, Sequence[int]], np.ndarray]
"""(frames_btchw, horizon, one number per sample) -> (B, M, horizon, C, H, W), normalised"""


def forecast_with(model: nn.Module) -> Forecast:
    """Return a function that makes free-running forecasts in float32, without gradients.

    Parameters
    ----------
    model:
        `model(frames_btchw, horizon) -> (B, horizon, C, H, W)`.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.to(device).float().eval()

    def forecast(frames_btchw: np.ndarray, horizon: int) -> np.ndarray:
        with torch.inference_mode():
            frames = torch.from_numpy(frames_btchw).to(device)
            return model(frames, horizon).float().cpu().numpy()

    return forecast


def ensemble_with(model: nn.Module, members: int, seed: int) -> Ensemble:
    """Return a function that makes several members per sample in float32, without gradients.

    Parameters
    ----------
    model:
        For more than one member, a model with `noise`, see `gmg_model.models.ensembles`.
    members, seed:
        Forecasts of each sample, and the seed of their noise, see `check_seed`.

    Raises
    ------
    UsageError
        `members` is less than 1, or the model has no noise and all members would be the same.
    """
    ensemble = model if isinstance(model, EnsembleForecaster) else None
    if members < 1:
        raise UsageError(f"members must be at least 1, not {members}", remedy="give --members 1")
    if ensemble is None or (members > 1 and not ensemble.noise):
        raise UsageError(
            f"no {members} members from this model: it was not trained with noise, and all of "
            "them would be the same",
            remedy="leave --members out, or give a model that was trained with noise",
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ensemble = ensemble.to(device).float().eval()

    def forecast(frames_btchw: np.ndarray, horizon: int, numbers: Sequence[int]) -> np.ndarray:
        with torch.inference_mode():
            frames = torch.from_numpy(frames_btchw).to(device)
            return ensemble.predict(frames, horizon, members, seed, numbers).float().cpu().numpy()

    return forecast


class TrainedForecast(MemberForecast):
    """Forecasts of a checkpoint, in this process or in a worker.

    The first forecast reads the weights. They are not pickled: each worker reads them itself.

    Parameters
    ----------
    members:
        Forecasts of each sample; None: one, without noise.
    seed:
        Of the members' noise, and of random initial states if the model has them.

    Raises
    ------
    UsageError
        The seed is out of range, see `check_seed`.
    """

    def __init__(self, trained: Checkpoint, members: int | None = None, seed: int = 0):
        check_seed(seed)
        self._trained, self._count, self._seed = trained, members, seed
        self._forecast: Ensemble | None = None

    def load(self) -> Ensemble:
        """Read the weights, once; raise UsageError if the model cannot make these members."""
        if self._forecast is None:
            model = self._trained.model()
            if self._count is None:
                single = forecast_with(model)
                self._forecast = lambda seen, horizon, numbers: single(seen, horizon)[:, None]
            else:
                self._forecast = ensemble_with(model, self._count, self._seed)
        return self._forecast

    def members(self, frames_btchw: np.ndarray, horizon: int, numbers: Sequence[int]) -> np.ndarray:
        forecast = self.load()
        try:
            with torch.random.fork_rng():
                torch.manual_seed(self._seed + int(numbers[0]))
                return forecast(frames_btchw, horizon, numbers)
        except ConfigurationError as error:
            raise UsageError(str(error), remedy="leave --horizon out") from None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_forecast": None}
