"""Small archives in the exact published layouts, made from a seed."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import h5py
import numpy as np


def write_traffic(
    folder: Path, slots: int = 480, shape: tuple[int, int] = (16, 8), seed: int = 0
) -> Path:
    """Write an HDF5 file in the layout of BikeNYC, and return its path.

    It has hourly inflow and outflow, with a daily cycle that drifts over the grid.
    """
    rng = np.random.default_rng(seed)
    hours = np.arange(slots)[:, None, None, None]
    y, x = np.meshgrid(*(np.linspace(0, 1, n) for n in shape), indexing="ij")
    channel = np.arange(2)[None, :, None, None]
    daily = np.sin(2 * np.pi * (hours / 24 + 0.3 * x + 0.2 * y) + 0.5 * channel)
    drifting = np.sin(2 * np.pi * (hours / 11 - x))
    level = 40 + 25 * daily + 10 * drifting + 3 * rng.standard_normal((slots, 2, *shape))
    first = datetime(2014, 4, 1)
    dates = [first + timedelta(hours=int(hour)) for hour in range(slots)]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"NYC14_M{shape[0]}x{shape[1]}_T60_NewEnd.h5"
    with h5py.File(path, "w") as file:
        file["data"] = np.clip(np.round(level), 0, None)
        file["date"] = np.array([f"{d:%Y%m%d}{d.hour + 1:02d}".encode() for d in dates])
    return path
