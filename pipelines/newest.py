"""The newest frames of an archive, made as a store's were: what operational forecasts begin with.

A store is a function of its whole archive, and refuses one that has lost its first files. A folder
that composites come into, and leave again after a day, holds the newest only: they are converted
here into a store of their own, in this process, and are used if they are what a :class:`Recipe`
says that frames have to be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines import uri as places
from pipelines.archives import load_archive
from pipelines.archives.contents import ArchiveIndex
from pipelines.archives.source_cache import kept_copies
from pipelines.conversion_options import ConversionOptions
from pipelines.documents import compose
from pipelines.errors import SourceError
from pipelines.grid_digest import grid_digest
from pipelines.moments_table import moments_tables
from pipelines.patience import STORAGE_WAIT_SECONDS
from pipelines.plan import Plan, make_plan, time_axis
from pipelines.shard_task import Destination, convert_shards
from pipelines.store import Store, open_store

if TYPE_CHECKING:
    from pipelines.ledger import ShardRecord


@dataclass(frozen=True)
class Recipe:
    """How frames were made out of an archive, and what those from elsewhere must have of it."""

    archive: str
    """as ``reprocess.py --archive``"""
    regrid: str | None
    archive_options: Mapping[str, Any]
    units: Mapping[str, str]
    """variable -> its units, in the order of the model's channels"""
    cadence_seconds: int | None
    """time between frames; None for clips without a time"""
    grid_sha256: str
    """of dimensions and coordinates, see :mod:`pipelines.grid_digest`"""
    projection: str | None = None
    """PROJ string of the grid, where the archive has one"""

    @classmethod
    def of(cls, store: Store, variables: Sequence[str]) -> Recipe:
        """How some variables of a store were made."""
        configuration = store.attributes["configuration"]
        return cls(
            archive=store.attributes["archive"],
            regrid=configuration.get("regrid"),
            archive_options=configuration.get("archive_options", {}),
            units={name: store.variables[name].units for name in variables},
            cadence_seconds=store.attributes["cadence_seconds"],
            grid_sha256=_grid(store, variables),
            projection=store.projection,
        )

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return asdict(self)

    def differences(self, other: Recipe) -> list[str]:
        """What keeps ``other`` frames from being used as those of this recipe, in words."""
        found = []
        for name, units in self.units.items():
            if other.units[name] != units:
                found.append(f"{name} is in '{other.units[name]}' and not in '{units}'")
        if other.cadence_seconds != self.cadence_seconds:
            found.append(
                f"frames are {other.cadence_seconds} s apart and not {self.cadence_seconds} s"
            )
        if other.grid_sha256 != self.grid_sha256:
            found.append("the grid is another: its size, or the coordinates of its points")
        if other.projection != self.projection:
            found.append(f"the projection is '{other.projection}' and not '{self.projection}'")
        return found


def newest_frames(
    recipe: Recipe,
    source: str,
    frames: int,
    folder: str,
    say: Callable[[str], None] = lambda line: None,
) -> Store:
    """A store of the newest frames of ``source`` in the local ``folder``, without splits.

    Parameters
    ----------
    source:
        URI of a folder, a glob or one file.
    frames:
        So many steps of time back from the newest that the source has; fewer where it has fewer.
    say:
        Called with a line for each frame that cannot be read.

    Raises
    ------
    SourceError
        There is nothing, it cannot be read, or it is of clips.
    UsageError
        It lacks a variable.
    """
    archive = load_archive(recipe.archive)
    with kept_copies() as cache:
        index = archive.index(
            source,
            variables=tuple(recipe.units),
            options=recipe.archive_options,
            progress=lambda done, total: None,
        )
        if index.clips is not None:
            raise SourceError(
                f"archive '{recipe.archive}' is one of clips, which have no newest frames",
                where=source,
                remedy="export the model and give it the frames: python jobs/export.py --help",
            )
        part = newest_part(index, frames)
        times = time_axis(part)
        plan = make_plan(
            part,
            ConversionOptions(
                variables=tuple(recipe.units),
                regrid=recipe.regrid,
                archive_options=recipe.archive_options,
            ),
            {"train": (int(times[0]), int(times[-1]))},
        )
        destination = Destination(
            store=folder,
            archive=recipe.archive,
            owner="",
            options=plan.index.options,
            cache=cache,
            storage_wait=STORAGE_WAIT_SECONDS,
        )
        records = []
        for outcome in convert_shards(plan.tasks, destination):
            if isinstance(outcome, Exception):
                raise outcome
            records.append(outcome)
            for run in outcome.unreadable:
                say(f"cannot be read: {run['file']}: {run['reason']}")
    _finish(plan, records, folder)
    return open_store(folder)


def newest_part(index: ArchiveIndex, frames: int) -> ArchiveIndex:
    """The last so many steps of an archive's time axis, whether it has their frames or not."""
    first = int(time_axis(index)[-frames:][0])
    variables = []
    for variable in index.variables:
        kept = slice(int(np.searchsorted(variable.times, first)), None)
        variables.append(
            replace(
                variable,
                times=variable.times[kept],
                files=variable.files[kept],
                positions=variable.positions[kept],
            )
        )
    periods = tuple((max(begin, first), end) for begin, end in index.periods if end >= first)
    return replace(index, variables=tuple(variables), periods=periods, static=())


def _finish(plan: Plan, records: Sequence[ShardRecord], folder: str) -> None:
    """What is not shards; the root is the last."""
    with moments_tables({layout.name: layout.channels for layout in plan.layouts}) as moments:
        unreadable: dict[str, np.ndarray] = {}
        for record in records:
            moments[record.variable].write(record.start, record.moments)
            before = unreadable.get(record.variable, np.empty(0, np.int64))
            unreadable[record.variable] = np.concatenate([before, record.unreadable_frames()])
        for name, content in compose(plan, moments, unreadable).items():
            places.write_bytes(places.join(folder, *name.split("/")), content, durable=False)


def _grid(store: Store, variables: Sequence[str]) -> str:
    described = []
    for name in variables:
        info = store.variables[name]
        dims = (*info.extra_dims, *info.dims[-2:])
        known = {dim: store.coordinates[dim] for dim in dims if dim in store.coordinates}
        described.append((name, dims, (*info.extra_shape, *info.shape[-2:]), known))
    return grid_digest(described)
