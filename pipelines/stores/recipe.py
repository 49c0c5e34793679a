"""How the frames of a store were made, as a checkpoint keeps it: what other frames must have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pipelines.stores.grid_digest import grid_digest

if TYPE_CHECKING:
    from pipelines.stores.store import Store


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
    """of dimensions and coordinates, see :mod:`pipelines.stores.grid_digest`"""
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

    def as_dict(self) -> dict[str, Any]:
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


def _grid(store: Store, variables: Sequence[str]) -> str:
    described = []
    for name in variables:
        info = store.variables[name]
        dims = (*info.extra_dims, *info.dims[-2:])
        known = {dim: store.coordinates[dim] for dim in dims if dim in store.coordinates}
        described.append((name, dims, (*info.extra_shape, *info.shape[-2:]), known))
    return grid_digest(described)
