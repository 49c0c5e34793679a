"""Slabs over Ray Data: decoding on any node of the cluster, the same batches as the direct reader.

Each worker has an ordered dataset of its own: one block a few pools, read, decoded and normalised
by tasks that may run on nodes without accelerators, in the order in which the worker opens them.
Frames travel once; windows are cut at the consumer.

Train's own way of handing data to workers carries it::

    slabs = SlabPlan(store, variables, spec, starts, order, normalisation)
    TorchTrainer(
        loop,
        datasets={"train": slabs.description},
        dataset_config=SlabDataConfig({"train": slabs}),
        ...
    )
    # in the loop
    stream = ray.train.get_dataset_shard("train").stream()
    for batch in stream.epoch(epoch, first_step): ...
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import ray.data
from ray.train import DataConfig

from pipelines.errors import StoreError
from pipelines.stores.reader import FrameReader
from pipelines.stream.batches import Load, schedule
from pipelines.stream.order import EpochOrder, OrderConfig, Pool, rank_lanes
from pipelines.stream.window_stream import WindowStream, frame_layout, load_pool

if TYPE_CHECKING:
    from ray.data import ExecutionOptions

    from pipelines.inputs.augmentation import Augmentation
    from pipelines.inputs.normalisation import Normalisation
    from pipelines.stores.store import Store
    from pipelines.stream.windows import WindowSpec


@dataclass(frozen=True, eq=False)
class SlabPlan:
    """What every worker's dataset is made from; the arguments of a :class:`WindowStream`."""

    store: Store
    variables: tuple[str, ...]
    spec: WindowSpec
    starts: np.ndarray
    """(n,) int64 windows of the split."""
    order: OrderConfig
    normalisation: Normalisation
    task_bytes: int = 16 * 2**20
    """Decoded bytes that one task hands over, about."""
    cpus_per_task: float = 1.0
    """CPUs that Ray reserves for a reading task; the cluster must have them free beside the
    workers."""
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Names the plan in the processes that read for it."""

    def description(self) -> ray.data.Dataset:
        """The dataset that Train asks for by name; :class:`SlabDataConfig` replaces it."""
        return ray.data.from_items([{"store": self.store.uri, "windows": len(self.starts)}])


class SlabDataConfig(DataConfig):
    """Gives each worker the :class:`SlabShard` of its own lanes, whatever the number of workers."""

    def __init__(self, plans: Mapping[str, SlabPlan]):
        super().__init__()
        self._plans = dict(plans)

    def configure(
        self, datasets: Mapping[str, Any], world_size: int, *_: Any, **__: Any
    ) -> list[dict[str, Any]]:
        """One dictionary a worker: dataset name -> shard.

        Raises
        ------
        UsageError
            There are more workers than windows in a global batch.
        """
        options = copy.deepcopy(ray.data.DataContext.get_current().execution_options)
        options.preserve_order = True
        return [
            {
                name: SlabShard(
                    self._plans[name],
                    rank_lanes(self._plans[name].order.global_batch, world_size, rank),
                    options,
                )
                for name in datasets
            }
            for rank in range(world_size)
        ]


@dataclass(frozen=True, eq=False)
class SlabShard:
    """One worker's part: what ``ray.train.get_dataset_shard`` returns."""

    plan: SlabPlan
    lanes: range
    """Lanes of the global batch that the worker serves."""
    options: ExecutionOptions
    """How Ray Data runs the reading tasks; keeps their order."""

    def stream(
        self, prefetch_batches: int = 2, augmentation: Augmentation | None = None
    ) -> WindowStream:
        """The worker's batches, drawn from reading tasks of Ray Data."""
        plan = self.plan
        return WindowStream(
            plan.store,
            plan.variables,
            plan.spec,
            plan.starts,
            plan.order,
            plan.normalisation,
            self.lanes,
            prefetch_batches,
            transport=RayTransport(self),
            augmentation=augmentation,
        )

    def dataset(self, epoch: int, first_step: int = 0) -> ray.data.Dataset:
        """Rows of frames: the worker's pools in the order in which they are opened.

        Each row is ``frame``, (C, H, W) float32, normalised.
        """
        plan = self.plan
        layout = frame_layout(FrameReader(plan.store, plan.variables), plan.spec)
        order = EpochOrder(plan.starts, plan.order, epoch, layout)
        pools = list(schedule(order, self.lanes, first_step))
        decoded = sum(pool.frames for pool in pools) * layout.frame_bytes
        tasks = min(max(-(-decoded // plan.task_bytes), 1), max(len(pools), 1))
        dataset = ray.data.range(len(pools), override_num_blocks=tasks)
        dataset.context.execution_options = self.options
        dataset.context.enable_progress_bars = False
        dataset.context.print_on_execution_start = False
        source = _Source(plan.token, plan.store, plan.variables, plan.normalisation)
        pieces = [pool.pieces for pool in pools]
        return dataset.map_batches(
            lambda batch: source.rows([pieces[i] for i in batch["id"].tolist()]),
            batch_size=None,
            num_cpus=plan.cpus_per_task,
        )


class RayTransport:
    """Fills pools from the frames of a shard's dataset, in order."""

    readers = 1

    def __init__(self, shard: SlabShard):
        self._shard = shard
        self._frames: _Frames | None = None

    def loader(self, epoch: int, first_step: int) -> Load:
        """What fills the pools of an epoch, from the one that ``first_step`` draws from."""
        self.close()
        frames = self._frames = _Frames(self._shard.dataset(epoch, first_step))

        def load(pool: Pool, out_tchw: np.ndarray) -> None:
            frames.take(out_tchw)

        return load

    def close(self) -> None:
        """End the reading tasks of the epoch."""
        if self._frames is not None:
            self._frames.close()
            self._frames = None


class _Frames:
    """The rows of a dataset as one run of frames; reading begins at the first frame taken."""

    def __init__(self, dataset: ray.data.Dataset):
        self._blocks = _blocks(dataset)
        self._block = np.empty(0, np.float32)

    def take(self, out_tchw: np.ndarray) -> None:
        taken = 0
        while taken < len(out_tchw):
            if not len(self._block):
                self._block = next(self._blocks)
            part = self._block[: len(out_tchw) - taken]
            out_tchw[taken : taken + len(part)] = part
            taken += len(part)
            # Drop a block as soon as it is used up: it is held in the object store until then.
            self._block = self._block[len(part) :]

    def close(self) -> None:
        self._blocks.close()
        self._block = np.empty(0, np.float32)


def _blocks(dataset: ray.data.Dataset) -> Generator[np.ndarray, None, None]:
    for batch in dataset.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=2):
        if "what" in batch:
            raise StoreError(
                str(batch["what"][0]),
                where=str(batch["where"][0]),
                remedy=str(batch["remedy"][0]),
            )
        yield np.asarray(batch["frame"])


_readers: dict[str, FrameReader] = {}


@dataclass(frozen=True, eq=False)
class _Source:
    """What a reading task is given; a process opens the store once, not for each task."""

    token: str
    store: Store
    variables: tuple[str, ...]
    normalisation: Normalisation

    def rows(self, pools: Sequence[Sequence[tuple[int, int]]]) -> dict[str, np.ndarray]:
        """``frame``: (frames, C, H, W) float32 of some pools, laid end to end.

        A store that cannot be read is one row of ``what``, ``where`` and ``remedy`` instead: Ray
        Data keeps only the text of an exception, and prints it many times.
        """
        if self.token not in _readers:
            _readers.clear()
            _readers[self.token] = FrameReader(self.store, self.variables, self.normalisation)
        reader = _readers[self.token]
        pieces = [piece for pool in pools for piece in pool]
        shape = (sum(last - first for first, last in pieces), *reader.frame_shape)
        frames_tchw = np.empty(shape, np.float32)
        try:
            load_pool(reader, pieces, frames_tchw)
        except StoreError as error:
            told = {"what": error.what, "where": error.where, "remedy": error.remedy}
            return {name: np.array([text or ""]) for name, text in told.items()}
        return {"frame": frames_tchw}
