"""A CF store of forecasts in Zarr format 3, with one chunk per variable and init time.

Every forecast is written with a record of its checksums in `.ledger/forecasts`. A forecast whose
objects have these checksums is not made again. `zarr.json` at the root, which holds the
consolidated metadata, is written after all forecasts: it marks the store as complete.

Legend: I init times, T lead times, M members, H W grid.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.forecasts.fields import Field
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
"""keys of the plans of forecasts; the plans of conversions do not have them"""
_MOST_CHUNK_BYTES = 2**31 - 2**16
"""limit of the compressor for one chunk"""


class ForecastStore:
    """A store of forecasts that is being written; the caller must hold its lease.

    Parameters
    ----------
    identity:
        Everything that the values depend on, as JSON. A store can be continued only with the
        identity that it was begun with.
    fields:
        Forecast quantities and coordinates by name.
    attributes:
        Attributes of the root.
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
        """Write the identity into the store, and remove partial files of killed runs.

        Raises
        ------
        UsageError
            The folder holds other forecasts (the error names what differs), or something else.
        """
        begun, held = self._begun(), self._held()
        if begun and held:
            self._check_same(begun)
        if begun != self._identity:
            text = json.dumps(self._identity, indent=1).encode()
            places.write_bytes(places.join(self.uri, *_PLAN), text)
        sweep_partial(self.uri)

    def _begun(self) -> dict[str, Any] | None:
        """Return the identity that the store was begun with; None for a new folder."""
        try:
            begun = json.loads(places.read_bytes(places.join(self.uri, *_PLAN)))
        except (FileNotFoundError, ValueError):
            begun = None
        if begun is not None and not (isinstance(begun, dict) and begun.keys() >= _OWN):
            raise UsageError(
                "this is a store of data, or one is being converted here",
                where=self.uri,
                remedy="give an empty or new folder as --forecasts",
            )
        if begun is None and (held := self._held()):
            raise UsageError(
                f"the folder holds files that are not forecasts: {', '.join(held[:3])}",
                where=self.uri,
                remedy="give an empty or new folder as --forecasts",
            )
        return begun

    def _held(self) -> list[str]:
        """Return what the folder holds beside the plan and the records.

        A run that failed before its first forecast leaves only a plan, which may be replaced.
        """
        return [name for name in places.names(self.uri) if name != LEDGER_FOLDER]

    def _check_same(self, begun: Mapping[str, Any]) -> None:
        """Raise UsageError if the forecasts in the store depend on other things than ours."""
        keys = sorted({*begun, *self._identity})
        other = [key for key in keys if begun.get(key) != self._identity.get(key)]
        if other:
            was, now = (_short(plan.get(other[0])) for plan in (begun, self._identity))
            raise UsageError(
                f"the folder holds other forecasts: {', '.join(other)} differ "
                f"({other[0]} was {was} and is {now})",
                where=self.uri,
                remedy="give a new folder as --forecasts",
            )

    @property
    def complete(self) -> bool:
        """Whether the metadata is written."""
        return places.exists(places.join(self.uri, ROOT))

    def sound(self) -> set[int]:
        """Return the numbers of the forecasts whose objects have their recorded checksums."""
        found = places.names(places.join(self.uri, *_RECORDS))
        numbers = (int(name.removesuffix(".json")) for name in found if name.endswith(".json"))
        return {number for number in numbers if self._is_sound(number)}

    def write(self, index: int, values: Mapping[str, np.ndarray]) -> None:
        """Write the forecast of one init time, its record last.

        Parameters
        ----------
        index:
            Number of the init time.
        values:
            Arrays (T, ..., H, W) by name, NaN where missing.
        """
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
            # Zarr warns that consolidated metadata is not yet part of the standard of version 3.
            # All readers support it.
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
                f"one forecast of '{name}' has {nbytes / 2**30:.1f} GiB: too large for a chunk",
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
            # Zarr warns that variable-length strings are not specified. All readers of version 3
            # support them.
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
        """Return the chunks written since the last call, or all objects; drop the chunks."""
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
