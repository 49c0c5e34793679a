"""Compute from the header of a classic NetCDF file how long the file must be.

The NetCDF library opens a truncated classic file without an error and reads zeros in place of the
missing end, which unpack to plausible values. Layout of the header: NetCDF Users Guide, appendix
"File Format Specification".
"""

from __future__ import annotations

import math
from typing import BinaryIO

_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8, 7: 1, 8: 2, 9: 4, 10: 8, 11: 8}
"""number of a type in the header -> bytes per value"""


def needed_bytes(path: str) -> int | None:
    """Return the smallest size of a complete file; None if it is not a classic NetCDF file.

    Raises
    ------
    ValueError
        The header itself is truncated or invalid.
    """
    with open(path, "rb") as file:
        magic = file.read(4)
        if magic[:3] != b"CDF":
            return None
        if magic[3:] not in (b"\x01", b"\x02", b"\x05"):
            raise ValueError(f"unknown version of the classic format: {magic!r}")
        return _Header(file, magic[3]).needed_bytes()


class _Header:
    """The header of a classic file. Methods read its fields in the order of the file."""

    def __init__(self, file: BinaryIO, version: int):
        self._file = file
        self._count_bytes = 8 if version == 5 else 4
        self._offset_bytes = 4 if version == 1 else 8

    def needed_bytes(self) -> int:
        records = self._count()
        if records == 256**self._count_bytes - 1:
            # A file that was written as a stream does not state its number of records.
            records = 0
        lengths = [self._skip_name() or self._count() for _ in range(self._list_length())]
        self._skip_attributes()
        fixed_end, record_ends, record_bytes = 0, [], []
        for _ in range(self._list_length()):
            self._skip_name()
            dims = [self._count() for _ in range(self._count())]
            self._skip_attributes()
            item = self._type_bytes()
            self._count()
            begin = self._integer(self._offset_bytes)
            is_record = bool(dims) and lengths[dims[0]] == 0
            sizes = [lengths[dim] for dim in (dims[1:] if is_record else dims)]
            size = math.prod(sizes) * item
            if is_record:
                record_ends.append(begin + size)
                record_bytes.append(size)
            else:
                fixed_end = max(fixed_end, begin + size)
        if not record_ends or not records:
            return max(fixed_end, self._file.tell())
        # Each variable's part of a record is padded to four bytes, except a single one.
        one = len(record_bytes) == 1
        stride = sum(size if one else -(-size // 4) * 4 for size in record_bytes)
        return max(fixed_end, max(record_ends) + (records - 1) * stride)

    def _integer(self, length: int) -> int:
        content = self._file.read(length)
        if len(content) < length:
            raise ValueError("its header is truncated")
        return int.from_bytes(content, "big")

    def _count(self) -> int:
        return self._integer(self._count_bytes)

    def _list_length(self) -> int:
        self._integer(4)
        return self._count()

    def _type_bytes(self) -> int:
        kind = self._integer(4)
        if kind not in _TYPE_BYTES:
            raise ValueError(f"its header has an unknown type {kind}")
        return _TYPE_BYTES[kind]

    def _skip(self, length: int) -> None:
        padded = -(-length // 4) * 4
        if len(self._file.read(padded)) < padded:
            raise ValueError("its header is truncated")

    def _skip_name(self) -> None:
        self._skip(self._count())

    def _skip_attributes(self) -> None:
        for _ in range(self._list_length()):
            self._skip_name()
            item = self._type_bytes()
            self._skip(self._count() * item)
