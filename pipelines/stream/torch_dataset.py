"""A window stream as a PyTorch dataset, for training loops without Ray.

No other module of this package imports torch.
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
    """The batches of a stream, (b, T, C, H, W) float32: one epoch per iteration.

    With static fields an item is a pair `(frames, static)`. `static` is (S, H, W), the same for all
    batches, or (b, S, H, W) if an augmentation moves the fields with the windows.

    The stream makes whole batches and reads ahead in threads, so that the loader must neither
    collect batches nor start workers::

        dataset = WindowDataset(WindowStream(...))
        for frames_btchw in DataLoader(dataset, batch_size=None):
            ...

    If several processes train together, each makes a stream of its own lanes
    (`pipelines.stream.order.rank_lanes`).

    Parameters
    ----------
    stream:
        The stream to iterate over.
    copy:
        Whether to copy each batch, so that the caller can keep it. Without a copy a batch is the
        stream's memory, which is valid until the batch after the next one is drawn: enough for a
        loop that trains on it or moves it to a GPU.
    """

    def __init__(self, stream: WindowStream, *, copy: bool = True):
        self.stream, self.copy = stream, copy
        self.epoch, self.step = 0, 0

    def __len__(self) -> int:
        """Batches in a whole epoch; the last may have fewer windows than the stream has lanes."""
        return self.stream.steps_per_epoch

    def __iter__(self) -> Iterator[Tensor | tuple[Tensor, Tensor]]:
        """Yield the rest of the current epoch.

        Raises
        ------
        UsageError
            The caller is a worker process of a loader: every worker would read everything.
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
        """Return epoch and step to go on with; the batch drawn last counts as done."""
        return {"epoch": self.epoch, "step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set where the next iteration begins; the number of processes may be another."""
        self.epoch, self.step = int(state["epoch"]), int(state["step"])
