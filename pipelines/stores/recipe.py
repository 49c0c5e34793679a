"""How the frames of a store were made, and checksums that tell whether frames are the same.

A checkpoint keeps the recipe of its frames, so that frames from elsewhere can be compared with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.stores.ledger import Ledger

if TYPE_CHECKING:
    from pipelines.stores.store import Store

Grid = tuple[str, Sequence[str], Sequence[int], Mapping[str, np.ndarray]]
"""a variable's name, its dimensions and shape after time, and the coordinates of the dimensions"""


@dataclass(frozen=True)
class Recipe:
    """How frames were made from an archive, and what frames from elsewhere must share with them."""

    archive: str
    """name of the archive, as in `reprocess.py --archive`"""
    regrid: str | None
    """coarser grid by area average, as in `--regrid`; None: the grid of the source"""
    archive_options: Mapping[str, Any]
    """options of the archive itself, by name"""
    units: Mapping[str, str]
    """units by variable, in the order of the model's channels"""
    cadence_seconds: int | None
    """time between frames; None for clips without a time"""
    grid_sha256: str
    """`grid_digest` of the variables"""
    projection: str | None = None
    """PROJ string of the grid; None if the archive has none"""

    @classmethod
    def of(cls, store: Store, variables: Sequence[str]) -> Recipe:
        """Return the recipe of some variables of a store."""
        configuration = store.attributes["configuration"]
        return cls(
            archive=store.attributes["archive"],
            regrid=configuration.get("regrid"),
            archive_options=configuration.get("archive_options", {}),
            units={name: store.variables[name].units for name in variables},
            cadence_seconds=store.attributes["cadence_seconds"],
            grid_sha256=_store_grid_digest(store, variables),
            projection=store.projection,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as a plain dictionary."""
        return asdict(self)

    def differences(self, other: Recipe) -> list[str]:
        """Return the reasons why frames of `other` cannot stand in for frames of this recipe.

        The reasons are texts for people; an empty list means that the frames fit.
        """
        found = []
        for name, units in self.units.items():
            if other.units[name] != units:
                found.append(f"{name} is in '{other.units[name]}' and not in '{units}'")
        if other.cadence_seconds != self.cadence_seconds:
            found.append(
                f"frames are {other.cadence_seconds} s apart and not {self.cadence_seconds} s"
            )
        if other.grid_sha256 != self.grid_sha256:
            found.append("the grid differs in its size or in the coordinates of its points")
        if other.projection != self.projection:
            found.append(f"the projection is '{other.projection}' and not '{self.projection}'")
        return found


def grid_digest(variables: Iterable[Grid]) -> str:
    """Return a sha256 of dimensions and coordinates, which tells whether grids are the same.

    Numbers are rounded to five decimals.

    Examples
    --------
    >>> north = np.array([60.0, 50.0])
    >>> one = grid_digest([("t2m", ("latitude",), (2,), {"latitude": north})])
    >>> one == grid_digest([("t2m", ("latitude",), (2,), {"latitude": north[::-1]})])
    False
    """
    digest = hashlib.sha256()
    for name, dims, shape, coordinates in variables:
        digest.update(repr((name, tuple(dims), tuple(shape))).encode())
        for dim, values in sorted(coordinates.items()):
            numeric = np.issubdtype(values.dtype, np.number)
            digest.update(dim.encode())
            # Adding zero turns -0.0 into 0.0, which has another text.
            shown = np.round(values.astype(float), 5) + 0.0 if numeric else values
            digest.update(repr(shown.tolist()).encode())
    return digest.hexdigest()


def frames_checksum(store: Store, variables: Sequence[str], frames: np.ndarray) -> str | None:
    """Return a checksum of the ledger's moments of some frames.

    It tells that frames changed without decoding them. An append changes nothing here: a shard that
    is written again with more frames keeps the moments of its old frames.

    Parameters
    ----------
    frames
        int64 (n,): indices of frames of the store, ascending.

    Returns
    -------
    str or None
        A sha256; None if the ledger does not have all of the frames, for example because the store
        was copied without its ledger.
    """
    digest, ledger = hashlib.sha256(), Ledger(store.uri)
    for name in variables:
        shard_of_frame = frames // store.variables[name].shard_frames
        shards = np.unique(shard_of_frame).tolist()
        found = 0
        for record in ledger.read(name, shards):
            rows = frames[shard_of_frame == record.shard] - record.start
            if rows[-1] >= len(record.moments):
                return None
            digest.update(np.ascontiguousarray(record.moments[rows]).tobytes())
            found += 1
        if found < len(shards):
            return None
    return digest.hexdigest()


def _store_grid_digest(store: Store, variables: Sequence[str]) -> str:
    described = []
    for name in variables:
        info = store.variables[name]
        dims = (*info.extra_dims, *info.dims[-2:])
        known = {dim: store.coordinates[dim] for dim in dims if dim in store.coordinates}
        described.append((name, dims, (*info.extra_shape, *info.shape[-2:]), known))
    return grid_digest(described)
