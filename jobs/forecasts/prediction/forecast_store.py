"""Forecasts as a CF store in Zarr format 3: one chunk a variable and init time, metadata last.

Every forecast is written with a record of its checksums in ``.ledger/forecasts``; a forecast whose
objects have them is not made again. ``zarr.json`` at the root, with the consolidated metadata, is
written when all are there: its presence marks the store complete. Legend: I init times, T lead
times, M members, H W grid.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.errors import UsageError
from pipelines.storage import places
from pipelines.storage.lease import LEDGER_FOLDER
from pipelines.storage.writable import sweep_partial
from pipelines.stores.shards import COMPRESSION

if TYPE_CHECKING:
    import zarr

ROOT = "zarr.json"
_PLAN = (LEDGER_FOLDER, "plan.json")
_RECORDS = (LEDGER_FOLDER, "forecasts")
_OWN = {"weights", "init_times"}
"""what plans of forecasts have, and those of conversions have not"""
_MOST_CHUNK_BYTES = 2**31 - 2**16
"""what the compressor can hold in one chunk"""


@dataclass(frozen=True)
class Field:
    """An array of the store: a forecast quantity or a coordinate."""

    dims: tuple[str, ...]
    attributes: Mapping[str, Any]
    values: np.ndarray | None = None
    """of a coordinate; None: float32, written forecast by forecast"""
    shape: tuple[int, ...] = ()
    """of a forecast quantity, (I, T, ..., H, W)"""


class ForecastStore:
    """Writes one store; its lease must be held.

    Parameters
    ----------
    identity:
        Everything that the values depend on, as JSON. A store that was begun with another one is
        refused.
    fields:
        Forecast quantities and coordinates by name.
    attributes:
        Of the root.
    """

    def __init__(
        self,
        uri: str,
        identity: Mapping[str, Any],
        fields: Mapping[str, Field],
        attributes: Mapping[str, Any],
    ):
        import zarr
        from zarr.storage import MemoryStore

        self.uri, self._fields, self._attributes = uri, dict(fields), dict(attributes)
        self._identity: dict[str, Any] = json.loads(json.dumps(identity))
        self._memory = MemoryStore()
        self._root = zarr.create_group(self._memory, zarr_format=3)
        for name, field in self._fields.items():
            if field.values is None:
                self._declare(name, field)

    def begin(self) -> None:
        """Say in the store what is going to be written; sweep what a killed run left.

        Raises
        ------
        UsageError
            Other forecasts are there, naming what differs, or something else.
        """
        try:
            begun = json.loads(places.read_bytes(places.join(self.uri, *_PLAN)))
        except (FileNotFoundError, ValueError):
            begun = None
        if begun is not None and not (isinstance(begun, dict) and begun.keys() >= _OWN):
            raise UsageError(
                "a store of data stands here, or one is being converted, and not forecasts",
                where=self.uri,
                remedy="give an empty or new folder as --forecasts",
            )
        # A run that failed before its first forecast leaves a plan that binds nobody.
        held = [name for name in places.names(self.uri) if name != LEDGER_FOLDER]
        if begun is None and held:
            raise UsageError(
                f"the folder holds something else than forecasts: {', '.join(held[:3])}",
                where=self.uri,
                remedy="give an empty or new folder as --forecasts",
            )
        other = self._differences(begun) if begun and held else []
        if begun and other:
            was, now = (_short(plan.get(other[0])) for plan in (begun, self._identity))
            raise UsageError(
                f"other forecasts are there: {', '.join(other)} differ "
                f"({other[0]} was {was} and is {now})",
                where=self.uri,
                remedy="give a new folder as --forecasts",
            )
        if begun != self._identity:
            text = json.dumps(self._identity, indent=1).encode()
            places.write_bytes(places.join(self.uri, *_PLAN), text)
        sweep_partial(self.uri)

    def _differences(self, begun: Mapping[str, Any]) -> list[str]:
        keys = sorted({*begun, *self._identity})
        return [key for key in keys if begun.get(key) != self._identity.get(key)]

    @property
    def complete(self) -> bool:
        """Whether the metadata is there."""
        return places.exists(places.join(self.uri, ROOT))

    def sound(self) -> set[int]:
        """The forecasts whose objects have the checksums that were recorded with them."""
        found = places.names(places.join(self.uri, *_RECORDS))
        numbers = (int(name.removesuffix(".json")) for name in found if name.endswith(".json"))
        return {number for number in numbers if self._is_sound(number)}

    def write(self, index: int, values: Mapping[str, np.ndarray]) -> None:
        """Write the forecast of one init time, its record last; each array (T, ..., H, W)."""
        for name, array in values.items():
            self._array(name)[index] = array
        objects = self._take_objects()
        for name, data in objects.items():
            places.write_bytes(places.join(self.uri, name), data, durable=False)
        sums = {name: _checksum(data) for name, data in sorted(objects.items())}
        places.write_bytes(self._record(index), json.dumps(sums, indent=1).encode(), durable=False)

    def finish(self) -> None:
        """Write coordinates and metadata, the root last."""
        import zarr

        for name, field in self._fields.items():
            if field.values is not None:
                self._coordinate(name, field.dims, field.values, field.attributes)
        self._root.attrs.update(self._attributes)
        with warnings.catch_warnings():
            # Zarr says that consolidated metadata is no standard of version 3 yet; readers have it.
            warnings.simplefilter("ignore")
            zarr.consolidate_metadata(self._memory)
        objects = self._take_objects(everything=True)
        root = objects.pop(ROOT)
        for name, data in objects.items():
            places.write_bytes(places.join(self.uri, name), data)
        places.write_bytes(places.join(self.uri, ROOT), root)

    def _declare(self, name: str, field: Field) -> None:
        from zarr.codecs import BloscCodec

        chunk = (1, *field.shape[1:])
        nbytes = 4 * math.prod(chunk)
        if nbytes > _MOST_CHUNK_BYTES:
            raise UsageError(
                f"one forecast of '{name}' has {nbytes / 2**30:.1f} GiB: too much for a chunk",
                remedy="ask for fewer members or a shorter horizon",
            )
        self._root.create_array(
            name,
            shape=field.shape,
            chunks=chunk,
            dtype="float32",
            fill_value=np.nan,
            dimension_names=field.dims,
            compressors=[BloscCodec(typesize=4, **COMPRESSION)],  # pyright: ignore[reportArgumentType]
            attributes=dict(field.attributes),
            config={"write_empty_chunks": True},
        )

    def _coordinate(
        self, name: str, dims: tuple[str, ...], values: np.ndarray, attributes: Mapping[str, Any]
    ) -> None:
        if values.dtype.kind in "OSU":
            values = values.astype(np.dtypes.StringDType())
        with warnings.catch_warnings():
            # Zarr calls variable-length strings unspecified; every reader of version 3 has them.
            warnings.simplefilter("ignore")
            array = self._root.create_array(
                name,
                shape=values.shape,
                chunks=tuple(max(size, 1) for size in values.shape),
                dtype=values.dtype,
                fill_value=np.nan if values.dtype.kind == "f" else None,
                dimension_names=dims,
                compressors=None,
                attributes=dict(attributes),
                config={"write_empty_chunks": True},
            )
            array[...] = values

    def _array(self, name: str) -> zarr.Array:
        return self._root[name]  # pyright: ignore[reportReturnType]

    def _take_objects(self, everything: bool = False) -> dict[str, bytes]:
        """The chunks written so far, or all objects; chunks do not stay in memory."""
        from zarr.core.buffer import default_buffer_prototype
        from zarr.core.sync import sync

        async def collect() -> dict[str, bytes]:
            names = sorted([name async for name in self._memory.list()])
            objects: dict[str, bytes] = {}
            for name in names:
                is_chunk = name.split("/")[1:2] == ["c"]
                if not (everything or is_chunk):
                    continue
                buffer = await self._memory.get(name, default_buffer_prototype())
                if buffer is not None:
                    objects[name] = buffer.to_bytes()
                if is_chunk:
                    await self._memory.delete(name)
            return objects

        return sync(collect())

    def _record(self, index: int) -> str:
        return places.join(self.uri, *_RECORDS, f"{index:06d}.json")

    def _is_sound(self, index: int) -> bool:
        try:
            sums = json.loads(places.read_bytes(self._record(index)))
            return all(
                _checksum(places.read_bytes(places.join(self.uri, name))) == recorded
                for name, recorded in sums.items()
            )
        except (FileNotFoundError, ValueError, AttributeError):
            return False


def _checksum(data: bytes) -> str:
    import xxhash

    return xxhash.xxh3_128_hexdigest(data)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 80 else f"{text[:60]}... ({len(text)} characters)"
