"""Example windows on the page: maps of truth, forecast and error, an animation, the motion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from jobs.drawing import maps
from jobs.drawing.animation import film
from jobs.drawing.axes import GridAxes, grid_axes
from jobs.drawing.palettes import Colours, Palette, palette_of
from jobs.drawing.style import data_uri
from jobs.forecasts.reports.motion import Motion
from jobs.forecasts.scoring import text
from jobs.forecasts.scoring.score_rows import MODEL
from jobs.forecasts.scoring.scores import PERSISTENCE, ChannelGroup, Evaluation, Example

if TYPE_CHECKING:
    from pipelines.stores.store import Store

MAP_LEADS = 3
MAP_CHANNELS = 2
FILM_INPUTS = 6
LONGEST_NAME = 34
"""Most letters of a name above a map. The variable's name replaces a longer one."""


@dataclass(frozen=True)
class Picture:
    """A picture on the page."""

    title: str
    address: str
    alt: str
    still: str = ""
    """The address of a still picture, for print and for readers who turned animations off."""


@dataclass(frozen=True)
class Row:
    """A row of pictures, side by side."""

    caption: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Case:
    """One example window with its maps."""

    rank: str
    given: str
    """The time of the last frame that the model was given."""
    first: str
    last: str
    rmse: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Quantity:
    """One channel to draw, with its names, axes and colours."""

    channel: int
    name: str
    label: str
    """The label of colour bars: the name and the units."""
    units: str
    axes: GridAxes
    palette: Palette

    def style(self, values: np.ndarray) -> maps.MapStyle:
        """Return the style of maps whose colours cover the range of `values`."""
        return maps.MapStyle(self.axes, self.palette, *maps.limits(values), self.label)


def quantities(evaluation: Evaluation, store: Store, colours: Colours) -> list[Quantity]:
    """Return every channel of the model, with the units and the grid of the store."""
    found = []
    for group in evaluation.groups:
        attributes = store.array(group.variable).attrs
        palette = palette_of(
            group.units, str(attributes.get("standard_name", "")), group.long_name, colours
        )
        axes = grid_axes(store, group.variable)
        for number, index in enumerate(range(group.channels.start, group.channels.stop)):
            name = _name(group) + (
                f", {_labels(store, group.variable)[number]}" if _several(group) else ""
            )
            units = text.shown_units(group.units)
            label = f"{name} ({units})" if units else name
            found.append(Quantity(index, name, label, units, axes, palette))
    return found


def case(evaluation: Evaluation, example: Example, drawn: list[Quantity]) -> Case:
    """Return maps of one window at some lead times.

    Truth, forecast and persistence share one scale.
    """
    chosen = text.several(len(evaluation.lead_seconds), MAP_LEADS)
    leads = text.lead_labels(evaluation.lead_seconds, evaluation.timed)
    rows = []
    for quantity in drawn[:MAP_CHANNELS]:
        truth, forecast = (
            fields[:, quantity.channel] for fields in (example.truth_tchw, example.forecast_tchw)
        )
        # The scale covers the truth only. With a forecast of extreme values on the scale, the truth
        # would show no contrast.
        style = quantity.style(truth[chosen])
        error = forecast - truth
        largest = float(np.nanmax(np.abs(error[chosen]), initial=0.0)) or 1.0
        for lead in chosen:
            caption = f"{quantity.name}, {leads[lead]}, valid {moment(example.labels[lead])}"
            pictures = [
                _field("Truth", truth[lead], style, caption, quantity),
                _field("Forecast", forecast[lead], style, caption, quantity),
                _error(error[lead], quantity, largest, caption),
            ]
            beside = example.baselines.get(PERSISTENCE)
            if beside is not None:
                field = beside[lead, quantity.channel]
                pictures.append(_field("Persistence", field, style, caption, quantity))
            if example.spread_tchw is not None:
                pictures.append(_spread(example, quantity, chosen, lead, caption))
            rows.append(Row(caption, tuple(pictures)))
    return Case(
        example.rank,
        moment(example.seen_labels[-1]),
        moment(example.labels[0]),
        moment(example.labels[-1]),
        text.number(example.rmse),
        tuple(rows),
    )


def animation(evaluation: Evaluation, example: Example, quantity: Quantity) -> Picture:
    """Return an animation of the last input frames, followed by truth and forecast side by side."""
    leads = text.lead_labels(evaluation.lead_seconds, evaluation.timed)
    seen = example.seen_tchw[-FILM_INPUTS:, quantity.channel]
    truth, forecast = (
        fields[:, quantity.channel] for fields in (example.truth_tchw, example.forecast_tchw)
    )
    known = example.seen_labels[-len(seen) :]
    captions = [(f"Input\n{moment(label)}", "Input (both)\n") for label in known]
    captions += [
        (f"Truth\n{moment(label)}", f"Forecast\n{lead}")
        for label, lead in zip(example.labels, leads, strict=True)
    ]
    made = film(
        np.concatenate([seen, truth]),
        np.concatenate([seen, forecast]),
        captions,
        quantity.style(truth),
        still=len(seen) + (len(leads) - 1) // 2,
    )
    alt = (
        f"{quantity.name}: {made.frames} frames, first what the model was given, then the truth on "
        f"the left and the forecast on the right, {leads[0]} to {leads[-1]}."
    )
    return Picture(
        f"{quantity.name}, the {example.rank} forecast of those scored",
        data_uri(made.gif, "image/gif"),
        alt,
        data_uri(made.still),
    )


def motion_row(evaluation: Evaluation, example: Example, quantity: Quantity, motion: Motion) -> Row:
    """Return maps of a forecast with arrows of the model's motion, at some lead times."""
    chosen = text.several(len(evaluation.lead_seconds), MAP_LEADS)
    leads = text.lead_labels(evaluation.lead_seconds, evaluation.timed)
    forecast = example.forecast_tchw[:, quantity.channel]
    style = quantity.style(example.truth_tchw[chosen][:, quantity.channel])
    pictures = []
    for lead in chosen:
        arrows = maps.Arrows(
            motion.rows, motion.columns, motion.down_thw[lead], motion.right_thw[lead]
        )
        speed = np.hypot(motion.down_thw[lead], motion.right_thw[lead])
        alt = (
            f"Forecast of {quantity.name} with {speed.size} arrows of motion, {leads[lead]}: "
            f"{text.number(float(speed.mean()))} cells a frame in the mean, "
            f"{text.number(float(speed.max()))} at most."
        )
        made = maps.field_map(forecast[lead], style, arrows, "cells a frame")
        pictures.append(Picture(leads[lead], data_uri(made), alt))
    caption = f"{quantity.name}, the {example.rank} forecast of those scored"
    return Row(caption, tuple(pictures))


def error_fields(evaluation: Evaluation, drawn: list[Quantity]) -> list[Row]:
    """Return maps of errors at the last lead time, or an empty list if none were kept.

    They show the RMSE of the model and of persistence, and the bias of the model.
    """
    fields = evaluation.fields
    if fields is None:
        return []
    lead = len(evaluation.lead_seconds) - 1
    label = text.lead_labels(evaluation.lead_seconds, evaluation.timed)[lead]
    rows = []
    for quantity in drawn[:MAP_CHANNELS]:
        place = {name: index for index, name in enumerate(fields.systems)}
        names = [name for name in (MODEL, PERSISTENCE) if name in place]
        rmse = {name: fields.rmse_stchw[place[name], lead, quantity.channel] for name in names}
        bias = fields.bias_stchw[place[MODEL], lead, quantity.channel]
        high = float(np.nanmax(np.stack(list(rmse.values())), initial=0.0)) or 1.0
        caption = f"{quantity.name}, {label}"
        look = maps.error_size(quantity.axes, high, _bar("RMSE", quantity))
        pictures = [
            Picture(
                f"RMSE of {name}",
                data_uri(maps.field_map(values, look)),
                f"RMSE of {name}, {caption}: {_span(values, quantity)}.",
            )
            for name, values in rmse.items()
        ]
        largest = float(np.nanmax(np.abs(bias), initial=0.0)) or 1.0
        made = maps.error_map(bias, quantity.axes, largest, _bar("bias", quantity))
        alt = f"Bias of the model, {caption}: {_span(bias, quantity)}."
        rows.append(Row(caption, (*pictures, Picture("Bias of the model", data_uri(made), alt))))
    return rows


def moment(label: str) -> str:
    """Return a time in readable form, and a label that is not a time unchanged.

    >>> moment("2019-03-01T06:00:00"), moment("clip 3, frame 4")
    ('2019-03-01 06:00 UTC', 'clip 3, frame 4')
    """
    try:
        return str(np.datetime64(label, "m")).replace("T", " ") + " UTC"
    except ValueError:
        return label


def _field(
    title: str, values_hw: np.ndarray, style: maps.MapStyle, caption: str, quantity: Quantity
) -> Picture:
    alt = f"{title}, {caption}: {_span(values_hw, quantity)}."
    return Picture(title, data_uri(maps.field_map(values_hw, style)), alt)


def _error(values_hw: np.ndarray, quantity: Quantity, largest: float, caption: str) -> Picture:
    made = maps.error_map(values_hw, quantity.axes, largest, _bar("forecast - truth", quantity))
    alt = f"Error, {caption}: {_span(values_hw, quantity)}."
    return Picture("Error", data_uri(made), alt)


def _spread(
    example: Example, quantity: Quantity, chosen: list[int], lead: int, caption: str
) -> Picture:
    assert example.spread_tchw is not None
    spread = example.spread_tchw[:, quantity.channel]
    high = float(np.nanmax(spread[chosen], initial=0.0)) or 1.0
    look = maps.error_size(quantity.axes, high, _bar("spread", quantity))
    alt = f"Spread of the members, {caption}: {_span(spread[lead], quantity)}."
    return Picture("Spread of the members", data_uri(maps.field_map(spread[lead], look)), alt)


def _bar(what: str, quantity: Quantity) -> str:
    return f"{what} ({quantity.units})" if quantity.units else what


def _span(values_hw: np.ndarray, quantity: Quantity) -> str:
    """Return the range and the mean of a field, for readers who cannot see its picture."""
    held = values_hw[np.isfinite(values_hw)]
    if not held.size:
        return "all missing"
    low, mean, high = (text.number(float(f(held))) for f in (np.min, np.mean, np.max))
    return f"{low} to {high} {quantity.units}".rstrip() + f", mean {mean}"


def _several(group: ChannelGroup) -> bool:
    return group.channels.stop - group.channels.start > 1


def _labels(store: Store, variable: str) -> list[str]:
    """Return the names of a variable's channels: "inflow" for the label "flow[inflow]"."""
    labels = store.variables[variable].channel_labels
    return [label.removeprefix(variable).strip("[]") or label for label in labels]


def _name(group: ChannelGroup) -> str:
    """Return the readable name of a group, followed by its level if the label names one."""
    level = group.label.removeprefix(group.variable)
    # The text in brackets names the source of the data. It does not fit above a map.
    short = group.long_name.partition(" (")[0]
    return (short if len(short) <= LONGEST_NAME else group.variable) + (
        f" {level}" if level else ""
    )
