"""The same stream as a plain PyTorch dataset, for training loops without Ray.

The one module of this package that imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from pipelines.errors import UsageError
from pipelines.stream.window_stream import WindowStream


class WindowDataset(IterableDataset[Any]):
    """Batches (b, T, C, H, W) float32 of one epoch, then of the next one.

    Of a stream with static fields they are pairs ``(frames, static)``: (S, H, W) that all windows
    and batches share, or (b, S, H, W) where an augmentation moves them with the windows.

    The batches are ready made and threads of the stream read ahead, so the loader neither batches
    nor starts workers::

        dataset = WindowDataset(WindowStream(...))
        for frames_btchw in DataLoader(dataset, batch_size=None):
            ...

    In a training on several processes each has a stream of its own lanes
    (:func:`pipelines.stream.order.rank_lanes`).

    Parameters
    ----------
    stream:
        What is iterated over.
    copy:
        Whether batches are the caller's to keep. Without it a batch is the stream's memory, valid
        until the next but one is drawn: enough for a loop that moves it to a GPU or trains on it.
    """

    def __init__(self, stream: WindowStream, *, copy: bool = True):
        self.stream, self.copy = stream, copy
        self.epoch, self.step = 0, 0

    def __len__(self) -> int:
        """Batches in a whole epoch; the last may hold fewer windows, or none for some lanes."""
        return self.stream.steps_per_epoch

    def __iter__(self) -> Iterator[Tensor | tuple[Tensor, Tensor]]:
        """The rest of the epoch that the dataset stands in.

        Raises
        ------
        UsageError
            It runs in a worker process of a loader, where every worker would read everything.
        """
        if get_worker_info() is not None:
            raise UsageError(
                "the stream reads ahead in threads of its own and cannot be shared by the "
                "processes of a loader",
                remedy="use DataLoader(dataset, batch_size=None, num_workers=0)",
            )
        for batch in self.stream.epoch(self.epoch, self.step):
            self.step = batch.step + 1
            frames = torch.from_numpy(batch.frames_btchw)
            frames = frames.clone() if self.copy else frames
            yield frames if batch.static is None else (frames, torch.from_numpy(batch.static))
        self.epoch, self.step = self.epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """Where the dataset stands; counts the batch drawn last as done."""
        return {"epoch": self.epoch, "step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there at the next iteration, on any number of processes."""
        self.epoch, self.step = int(state["epoch"]), int(state["step"])
