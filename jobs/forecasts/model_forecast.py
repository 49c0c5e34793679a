"""A trained model as a forecast from arrays to arrays, on a GPU where there is one."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from jobs.forecasts.baselines import Forecast


def forecast_with(model: nn.Module) -> Forecast:
    """Free-running forecasts of ``model`` in float32, without gradients.

    Parameters
    ----------
    model:
        ``model(frames_btchw, horizon) -> (B, horizon, C, H, W)``.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.to(device).float().eval()

    def forecast(frames_btchw: np.ndarray, horizon: int) -> np.ndarray:
        with torch.inference_mode():
            frames = torch.from_numpy(frames_btchw).to(device)
            return model(frames, horizon).float().cpu().numpy()

    return forecast
