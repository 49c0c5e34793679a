"""The motion that a trained model finds in a window (see `gmg_model.models.motion_trend`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gmg_model.models.motion_trend import has_motion, motion_trend

if TYPE_CHECKING:
    from torch import nn

    from jobs.forecasts.scoring.scores import Evaluation
    from jobs.training.run.checkpoints import Checkpoint

MOST_ARROWS = 14
"""Most arrows along one side of a map."""


@dataclass(frozen=True)
class Motion:
    """The trending momentum D of the first layer in one window."""

    rank: str
    """The rank of the example to which the motion belongs."""
    down_thw: np.ndarray
    """(T, h, w) motion towards the last row, in pixels per frame, for every lead time."""
    right_thw: np.ndarray
    """(T, h, w) motion towards the last column, in the same unit."""
    rows: np.ndarray
    """(h,) rows of the grid to which the motion belongs, counted from 0."""
    columns: np.ndarray
    """(w,) columns of the grid, counted from 0."""


def example_motion(trained: Checkpoint, evaluation: Evaluation, rank: str) -> Motion | None:
    """Return the motion that a checkpoint's model finds in an example.

    Returns None if the example is missing or the model has no motion modules.
    """
    model = trained.model()
    found = [example for example in evaluation.examples if example.rank == rank]
    if not found or not has_motion(model):
        return None
    example = found[0]
    seen = trained.normalisation.inputs(example.seen_tchw, example.seen_times)
    return motion_of(model, seen, len(evaluation.lead_seconds), rank)


def motion_of(model: nn.Module, seen_tchw: np.ndarray, horizon: int, rank: str) -> Motion | None:
    """Return the motion that `model` finds in a window, or None without motion modules.

    Parameters
    ----------
    seen_tchw:
        (T, C, H, W) normalised input frames.
    horizon:
        The number of lead times.
    rank:
        The rank of the example.
    """
    import torch

    if not has_motion(model):
        return None
    frames = torch.from_numpy(np.ascontiguousarray(seen_tchw, np.float32))[None]
    trend = motion_trend(model, frames, horizon)
    down, right = (part[0].cpu().numpy() for part in (trend.down_bthw, trend.right_bthw))
    rows, columns = (place.cpu().numpy() for place in (trend.rows, trend.columns))
    return Motion(rank, *_thinned(down, right, rows, columns))


def _thinned(
    down: np.ndarray, right: np.ndarray, rows: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Average the motion over blocks, so that the arrows do not overlap."""
    step = -(-max(len(rows), len(columns)) // MOST_ARROWS)
    if step == 1:
        return down, right, rows, columns
    height, width = (max(1, len(places) // step) for places in (rows, columns))
    sides = [min(step, len(places)) for places in (rows, columns)]

    def blocks(values: np.ndarray) -> np.ndarray:
        cut = values[..., : height * sides[0], : width * sides[1]]
        return cut.reshape(-1, height, sides[0], width, sides[1]).mean(axis=(2, 4))

    places = [
        places[: count * side].reshape(count, side).mean(axis=1)
        for places, count, side in zip((rows, columns), (height, width), sides, strict=True)
    ]
    return blocks(down), blocks(right), places[0], places[1]
