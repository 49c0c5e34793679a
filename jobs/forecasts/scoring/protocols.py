"""Which scores a quantity has: protocols of the suite, chosen by the archive or by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gmg_model.metrics import PROTOCOLS
from gmg_model.metrics.radar import CONVENTIONS
from jobs.command_line import numbers
from jobs.forecasts.scoring.coverage import observed_region
from jobs.forecasts.scoring.options import EvaluationOptions
from jobs.forecasts.scoring.scores import ChannelGroup
from jobs.forecasts.scoring.text import shown_units
from pipelines.cf import GREY_LEVELS
from pipelines.errors import UsageError, nearest
from pipelines.inputs.normalisation import POOLED_DIMS, Normalisation

if TYPE_CHECKING:
    from pipelines.stores.store import Store

REFLECTIVITY = "dbz"
RAIN_RATE = ("mm/h", "mm h-1", "mm hr-1")
DBZ_THRESHOLDS: tuple[float, ...] = (30, 40, 50)
"""dBZ, those of the papers' tables"""
RAIN_THRESHOLDS: tuple[float, ...] = (0.5, 2, 5, 10, 30)
"""mm/h, those of Shi et al. (2017)"""
FSS_SIDES = (5, 17)
"""pixels; a square that does not fit the grid is left out"""
OPENSTL_SCALES = {
    "minmax": "scaled to [0, 1] with the extremes of the train period",
    "standardise": "physical units; no PSNR, SSIM or CSI, which this protocol defines on [0, 1]",
}
"""Protocol openstl scores what its own de-normalisation gives, by kind of normalisation."""
FAMILIES = tuple(name for name in PROTOCOLS if name != "perceptual")
"""Protocols that need nothing but forecasts and truth."""


@dataclass(frozen=True)
class Selection:
    """What is to be scored."""

    protocols: tuple[str, ...] = ()
    """by name, the headline first; none: all that the archive allows, ``strict`` the headline"""
    thresholds: tuple[float, ...] = ()
    """of events, in the units of the data; none: those of the archive's kind"""
    members: int | None = None
    """forecasts of each window; None: one"""

    def __post_init__(self) -> None:
        for name in self.protocols:
            if name not in FAMILIES:
                raise UsageError(
                    f"evaluate has no protocol '{name}'", remedy=nearest(name, FAMILIES)
                )
        if "ensemble" in self.protocols and (self.members or 1) < 2:
            raise UsageError(
                "protocol 'ensemble' scores several members",
                remedy="give --members 2 or more, of a model with noise",
            )

    @classmethod
    def of(cls, options: EvaluationOptions) -> Selection:
        """Return what the options of a job select.

        Raises
        ------
        UsageError
            A protocol is unknown, or the thresholds are not numbers.
        """
        names = tuple(name.strip() for name in options.protocols.split(",") if name.strip())
        return cls(names, parse_thresholds(options.thresholds), options.members)

    @property
    def headline(self) -> str:
        """The protocol that summaries and pages begin with."""
        return self.protocols[0] if self.protocols else "strict"

    def options(
        self, store: Store, group: ChannelGroup, kind: str, groups: Sequence[ChannelGroup]
    ) -> dict[str, dict[str, Any]]:
        """protocol -> options of its accumulators for one group; ``strict`` always, and first.

        Parameters
        ----------
        kind:
            Of the normalisation.
        groups:
            All groups of the evaluation.

        Raises
        ------
        UsageError
            A protocol was asked for that these data do not have, with the reason.
        """
        known = self._known(store, group, kind, groups)
        for name in self.protocols:
            if name not in known and all(
                name not in self._known(store, g, kind, groups) for g in groups
            ):
                units = shown_units(group.units)
                quantity = f"'{group.label}' in {units}" if units else f"'{group.label}'"
                raise UsageError(
                    f"{quantity} has no protocol '{name}': {_LACKS[name]}",
                    where=store.uri,
                    remedy=f"give --protocols of {', '.join(known)}, or leave it out",
                )
        chosen = self.protocols or tuple(known)
        return {name: known[name] for name in ("strict", *chosen) if name in known}

    def _known(
        self, store: Store, group: ChannelGroup, kind: str, groups: Sequence[ChannelGroup]
    ) -> dict[str, dict[str, Any]]:
        options: dict[str, dict[str, Any]] = {
            "strict": {"data_min": group.data_min, "data_max": group.data_max},
            "openstl": {"image": kind == "minmax"},
            "detail": {"region": observed_region(store, group.variable)},
        }
        if "latitude" in store.coordinates:
            options["weather"] = {"latitude": store.coordinates["latitude"]}
        thresholds = self._thresholds(group, groups)
        if thresholds:
            sides = tuple(side for side in FSS_SIDES if side <= min(store.spatial_shape))
            options["radar"] = {"thresholds": thresholds, "scales": sides}
        grey = store.array(group.variable).attrs.get(GREY_LEVELS)
        if isinstance(grey, (list, tuple)):
            low, high = (float(value) for value in grey)  # pyright: ignore[reportArgumentType]
            events = thresholds if group.units.lower() == REFLECTIVITY else ()
            options["srvp"] = {"data_min": low, "data_max": high}
            options["motionrnn"] = {**options["srvp"], "thresholds": events}
            if events:
                options["radar"] |= {"conventions": CONVENTIONS, "dbz_range": (low, high)}
        if (self.members or 1) > 1:
            options["ensemble"] = {"thresholds": thresholds}
        return options

    def _thresholds(self, group: ChannelGroup, groups: Sequence[ChannelGroup]) -> tuple[float, ...]:
        if not self.thresholds:
            units = group.units.lower()
            return {REFLECTIVITY: DBZ_THRESHOLDS}.get(
                units, RAIN_THRESHOLDS if units in RAIN_RATE else ()
            )
        radar = [one for one in groups if is_radar(one)]
        units = sorted({one.units for one in radar or groups})
        if len(units) > 1:
            raise UsageError(
                f"thresholds have no one unit: the variables are in {', '.join(units)}",
                remedy="leave --thresholds out",
            )
        return self.thresholds if group in (radar or groups) else ()


_LACKS = {
    "weather": "it needs latitudes, to weigh rows with",
    "radar": "there are no thresholds for these units; give --thresholds",
    "srvp": "it counts the grey levels of 8-bit images, which these data were not",
    "motionrnn": "it counts the grey levels of 8-bit images, which these data were not",
}


def parse_thresholds(text: str) -> tuple[float, ...]:
    """Thresholds as a command line has them, ascending; whole ones keep their short names.

    >>> parse_thresholds("30.5, 20")
    (20, 30.5)
    """
    values = numbers(text, example="20,30,40")
    return tuple(int(value) if value.is_integer() else value for value in values)


def channel_groups(store: Store, variables: tuple[str, ...]) -> list[ChannelGroup]:
    """The groups of channels that are scored together: a variable, or each level of it."""
    groups: list[ChannelGroup] = []
    begin = 0
    for name in variables:
        info = store.variables[name]
        span = Normalisation.from_store(store, (name,), "minmax")
        whole = all(dim in POOLED_DIMS for dim in info.dims[1:-2])
        size = len(span.labels) if whole else 1
        for index in range(0, len(span.labels), size):
            low, width = span.offset[index], span.scale[index]
            groups.append(
                ChannelGroup(
                    variable=name,
                    label=name if whole else span.labels[index],
                    long_name=info.long_name or name,
                    units=info.units or "1",
                    channels=slice(begin, begin + size),
                    data_min=low,
                    data_max=low + width,
                )
            )
            begin += size
    return groups


def is_radar(group: ChannelGroup) -> bool:
    """Whether a quantity is one that radars see and that moves with the wind."""
    return group.units.lower() in (REFLECTIVITY, *RAIN_RATE)
