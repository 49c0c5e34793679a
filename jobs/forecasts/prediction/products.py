"""Describe the arrays of a store of forecasts, and compute products of members.

Legend: I init times, T lead times, M members, C channels, H W grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.command_line import numbers
from jobs.forecasts.fields import Field, grid_fields
from jobs.forecasts.prediction.options import PredictionOptions
from pipelines.cf import TIME, coordinate_attributes
from pipelines.errors import UsageError
from pipelines.stream.windows import WindowSpec, lead_seconds

if TYPE_CHECKING:
    from pipelines.stores.store import Store, VariableInfo

INIT, LEAD, VALID = "init_time", "lead_time", "valid_time"
_LIMITS = ("valid_range", "valid_min", "valid_max", "missing_value", "_FillValue")
"""attributes that limit what was observed; readers would mask forecasts beyond them"""


@dataclass(frozen=True)
class Products:
    """Which arrays are written of every forecast."""

    members: int | None = None
    """None: one forecast without a member dimension"""
    quantiles: tuple[float, ...] = ()
    """over the members, in [0, 1]; if there are some, the mean is written as well"""
    exceed: tuple[float, ...] = ()
    """thresholds in the units of the variables: the fraction of members at or above each"""

    def __post_init__(self) -> None:
        if (self.quantiles or self.exceed) and (self.members or 1) < 2:
            raise UsageError(
                "quantiles and exceedance are those of members",
                remedy="give --members 2 or more, of a model with noise",
            )
        if any(not 0 <= q <= 1 for q in self.quantiles):
            raise UsageError(f"quantiles must lie in 0 to 1, not {self.quantiles}")

    @classmethod
    def of(cls, options: PredictionOptions) -> Products:
        """Return what the options of a job ask for; UsageError if a list is not of numbers."""
        return cls(options.members, numbers(options.quantiles), numbers(options.exceed))

    def arrays(self, name: str, values_mt: np.ndarray) -> dict[str, np.ndarray]:
        """Return all arrays of one variable's forecast (M, T, ..., H, W), lead times first."""
        if self.members is None:
            return {name: values_mt[0]}
        arrays = {name: np.moveaxis(values_mt, 0, 1)}
        if self.quantiles:
            arrays[f"{name}_mean"] = values_mt.mean(axis=0, dtype=np.float64)
            levels = np.quantile(values_mt, self.quantiles, axis=0)
            arrays[f"{name}_quantile"] = np.moveaxis(levels, 0, 1)
        if self.exceed:
            # At or above, as in the scores of events.
            above = np.stack([(values_mt >= limit).mean(axis=0) for limit in self.exceed], axis=1)
            missing = np.isnan(values_mt[0])[:, None]
            arrays[f"{name}_exceedance"] = np.where(missing, np.nan, above)
        return arrays


def forecast_fields(
    store: Store,
    variables: Sequence[str],
    window: WindowSpec,
    init_frames: Sequence[int],
    products: Products,
) -> dict[str, Field]:
    """Return the arrays of a store of forecasts, and its coordinates, by name.

    Parameters
    ----------
    init_frames:
        Frames of the store that are the last input of a forecast.

    Raises
    ------
    UsageError
        There are thresholds, and the variables have several units.
    """
    infos = [store.variables[name] for name in variables]
    units = sorted({info.units for info in infos})
    if products.exceed and len(units) > 1:
        raise UsageError(
            f"thresholds have no one unit: the variables are in {', '.join(units)}",
            remedy="leave --exceed out, and take it from the members",
        )
    fields = _times(store, window, init_frames)
    heads = {
        "": _member_head(products, infos),
        "_mean": (),
        "_quantile": (("quantile", len(products.quantiles)),),
        "_exceedance": (("threshold", len(products.exceed)),),
    }
    leading = ((INIT, len(init_frames)), (LEAD, window.horizon))
    for info in infos:
        rest = (*info.dims[info.dims.index("time") + 1 :],)
        for suffix in _suffixes(products):
            dims = (*leading, *heads[suffix], *zip(rest, info.shape[-len(rest) :], strict=True))
            fields[info.name + suffix] = Field(
                dims=tuple(dim for dim, _ in dims),
                shape=tuple(size for _, size in dims),
                attributes=_attributes(store, info, suffix),
            )
    for dim, size in heads[""]:
        attributes = coordinate_attributes("member")
        fields[dim] = Field((dim,), attributes, np.arange(size, dtype=np.int64))
    if products.quantiles:
        attributes = {"long_name": "quantile over the members", "units": "1"}
        fields["quantile"] = Field(("quantile",), attributes, np.array(products.quantiles))
    if products.exceed:
        attributes = {"long_name": "threshold", "units": units[0] or "1"}
        fields["threshold"] = Field(("threshold",), attributes, np.array(products.exceed))
    return {**grid_fields(store), **fields}


def _suffixes(products: Products) -> list[str]:
    with_quantiles = ["_mean", "_quantile"] if products.quantiles else []
    return ["", *with_quantiles, *(["_exceedance"] if products.exceed else [])]


def _member_head(products: Products, infos: Sequence[VariableInfo]) -> tuple[tuple[str, int], ...]:
    """Return the dimension of the members; another name if the source has members of its own."""
    if products.members is None:
        return ()
    taken = any("member" in info.extra_dims for info in infos)
    return (("forecast_member" if taken else "member", products.members),)


def _times(store: Store, window: WindowSpec, init_frames: Sequence[int]) -> dict[str, Field]:
    inits = store.times[np.asarray(init_frames)].astype("datetime64[s]").astype(np.int64)
    leads = np.array(lead_seconds(store, window), np.int64)
    epoch = {key: TIME[key] for key in ("units", "calendar")}
    return {
        INIT: Field(
            (INIT,),
            {
                "standard_name": "forecast_reference_time",
                "long_name": "time of the last frame that the forecast was given",
                **epoch,
            },
            inits,
        ),
        LEAD: Field(
            (LEAD,),
            # xarray decodes a duration only with this attribute.
            {
                "standard_name": "forecast_period",
                "long_name": "time since the last frame that the forecast was given",
                "units": "seconds",
                "dtype": "timedelta64[s]",
            },
            leads,
        ),
        VALID: Field(
            (INIT, LEAD),
            {"standard_name": "time", "long_name": "time that is forecast", **epoch},
            inits[:, None] + leads,
        ),
    }


def _attributes(store: Store, info: VariableInfo, suffix: str) -> dict[str, Any]:
    source: Mapping[str, Any] = dict(store.array(info.name).attrs)
    kept = {key: value for key, value in source.items() if key not in _LIMITS}
    kept["coordinates"] = VALID
    if suffix == "_mean":
        kept["long_name"] = f"{info.long_name}, mean of the members"
    elif suffix == "_quantile":
        kept["long_name"] = f"{info.long_name}, quantiles over the members"
    elif suffix == "_exceedance":
        kept.pop("standard_name", None)
        kept["units"] = "1"
        event = f"{info.long_name} at or above the threshold"
        kept["long_name"] = f"fraction of the members with {event}"
    return kept
