"""The grid of a composite: its projection, its pixel centres and their CF attributes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from pipelines.errors import UsageError
from pipelines.optional_libraries import load_pyproj

_TOLERANCE = 0.01
"""Fraction of a pixel by which two equal grids may differ."""


@dataclass(frozen=True)
class RadarGrid:
    """A grid of rows and columns in the order of the source; y may rise or fall."""

    projection: str
    """PROJ string; its unit is metres, or degrees for longitude and latitude"""
    shape: tuple[int, int]
    """rows, columns"""
    y: tuple[float, float]
    """centre of the first row and step to the next"""
    x: tuple[float, float]
    """centre of the first column and step to the next"""
    degrees: bool = False
    """whether the axes are latitude and longitude"""

    @classmethod
    def between(
        cls,
        projection: str,
        shape: tuple[int, int],
        x: tuple[float, float],
        y: tuple[float, float],
        *,
        degrees: bool = False,
    ) -> RadarGrid:
        """Return the grid between outer edges: `x` of first and last column, `y` of the rows.

        >>> RadarGrid.between("+proj=stere", (2, 4), (0.0, 4.0), (10.0, 6.0)).y
        (9.0, -2.0)
        """
        dy, dx = (y[1] - y[0]) / shape[0], (x[1] - x[0]) / shape[1]
        return cls(projection, shape, (y[0] + dy / 2, dy), (x[0] + dx / 2, dx), degrees)

    @property
    def dims(self) -> tuple[str, str]:
        """Names of the axes in a store, rows first."""
        return ("latitude", "longitude") if self.degrees else ("y", "x")

    def coordinates(self) -> dict[str, np.ndarray]:
        """Return the pixel centres of each axis, float64."""
        values = [
            first + step * np.arange(size)
            for (first, step), size in zip((self.y, self.x), self.shape, strict=True)
        ]
        return dict(zip(self.dims, values, strict=True))

    def difference(self, other: RadarGrid) -> str | None:
        """Return how `other` differs from this grid, in words; None if it does not."""
        if self.shape != other.shape:
            return f"its shape is {self.shape} and {other.shape}"
        if self.projection != other.projection:
            return f"its projection is '{self.projection}' and '{other.projection}'"
        for axis in ("y", "x"):
            (first, step), (others, other_step) = getattr(self, axis), getattr(other, axis)
            length = self.shape[0] if axis == "y" else self.shape[1]
            shift = max(abs(first - others), abs(first - others + length * (step - other_step)))
            if shift > _TOLERANCE * abs(step):
                return (
                    f"its first {axis} is {first:.10g} and {others:.10g}, "
                    f"its step {step:.10g} and {other_step:.10g}"
                )
        return None

    def cropped(self, crop: tuple[int, int, int, int] | None) -> RadarGrid:
        """Return the grid of (top, bottom, left, right); raise UsageError if that lies outside."""
        if crop is None:
            return self
        top, bottom, left, right = crop
        if bottom > self.shape[0] or right > self.shape[1]:
            raise UsageError(
                f"crop {top}:{bottom},{left}:{right} lies outside the grid of {self.shape[0]} rows "
                f"and {self.shape[1]} columns",
                where="--crop",
                remedy="give TOP:BOTTOM,LEFT:RIGHT inside the grid",
            )
        (y, dy), (x, dx) = self.y, self.x
        shape = (bottom - top, right - left)
        return replace(self, shape=shape, y=(y + top * dy, dy), x=(x + left * dx, dx))

    def resized(self, shape: tuple[int, int] | None) -> RadarGrid:
        """Return the same area on fewer pixels; raise UsageError if there would be more."""
        if shape is None:
            return self
        if shape[0] > self.shape[0] or shape[1] > self.shape[1]:
            raise UsageError(
                f"resize to {shape[0]} x {shape[1]} is larger than the grid of "
                f"{self.shape[0]} x {self.shape[1]}",
                where="--resize",
                remedy="an average can only make a grid smaller: give H and W up to the grid's",
            )
        axes = []
        for (first, step), old, new in zip((self.y, self.x), self.shape, shape, strict=True):
            longer = step * old / new
            axes.append((first - step / 2 + longer / 2, longer))
        return replace(self, shape=shape, y=axes[0], x=axes[1])

    def grid_mapping(self) -> dict[str, Any]:
        """Return the projection's CF attributes, with its WKT and the source's PROJ string."""
        crs = load_pyproj().CRS.from_user_input(self.projection)
        attributes = dict(crs.to_cf())
        return attributes | {"spatial_ref": attributes["crs_wkt"], "proj4": self.projection}

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as a plain dictionary."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RadarGrid:
        """Return the grid that `as_dict` described, also if it went through JSON."""
        pairs = {name: tuple(data[name]) for name in ("shape", "y", "x")}
        return cls(data["projection"], **pairs, degrees=data["degrees"])
