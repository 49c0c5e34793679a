"""Charts of the scores of one quantity: errors, events, fine structure, ensembles, hours."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jobs.drawing import curves
from jobs.forecasts.reports.tables import units_of
from jobs.forecasts.scoring import text
from jobs.forecasts.scoring.score_rows import MODEL, STRICT, Scores
from jobs.forecasts.scoring.scores import BASELINES, PERSISTENCE, Evaluation, GroupScores

MOST_THRESHOLDS = 4
"""Most thresholds that have charts of their own."""
FEWEST_HOURS = 6
"""Fewest hours of the day with scores for which a chart by hour is drawn."""
RELIABLE = (
    "On the diagonal: what is forecast with 30 % happens in 30 % of the cases. "
    "Below: how often each probability was forecast."
)


@dataclass(frozen=True)
class Chart:
    """A chart with its title and a note."""

    title: str
    svg: str
    note: str = ""


@dataclass(frozen=True)
class Charts:
    """A group of charts under one title, with a note."""

    title: str
    charts: tuple[Chart, ...]
    note: str = ""


def all_charts(evaluation: Evaluation, item: GroupScores) -> list[Charts]:
    """Return every group of charts for which this quantity has scores."""
    drawn = ScoreCharts(evaluation, item)
    made = (drawn.errors(), drawn.events(), drawn.spectra(), drawn.ensemble(), drawn.hours())
    return [group for group in made if group.charts or group.note]


class ScoreCharts:
    """Charts of the scores of one quantity, for a model and its baselines or for several models."""

    def __init__(self, evaluation: Evaluation, item: GroupScores):
        self._evaluation, self._item = evaluation, item
        self._cell_km = evaluation.grid.cell_km if evaluation.grid else None
        unit, seconds = text.lead_unit(evaluation.lead_seconds, evaluation.timed)
        self._x = [lead / seconds for lead in evaluation.lead_seconds]
        self._lead = f"lead time ({unit})"
        units = units_of(item)
        self._units = f" ({units})" if units else ""

    def errors(self) -> Charts:
        """Return charts of error, skill, bias, similarity and correlation by lead time."""
        charts = [
            self.by_lead("Error (RMSE)", "strict", "rmse", f"RMSE{self._units}", "floor"),
            self.skill(),
            self.by_lead("Absolute error (MAE)", "strict", "mae", f"MAE{self._units}", "floor"),
            self.by_lead("Bias (forecast - truth)", "strict", "bias", f"bias{self._units}", "line"),
            self.by_lead("Structural similarity (SSIM)", "strict", "ssim", "SSIM", "none"),
            self.by_lead("Anomaly correlation", "weather", "acc", "ACC", "none"),
        ]
        bootstrap = self._evaluation.bootstrap
        note = ""
        if bootstrap is not None and bootstrap.none is None:
            note = f"Bands: {text.resampling(bootstrap)}."
        return Charts("By lead time", _kept(charts), note)

    def skill(self) -> Chart:
        """Return a chart of the skill over each baseline, or of several models over persistence."""
        item = self._item
        if MODEL in item.forecasts:
            title = "Skill: above zero beats the baseline"
            rows = {f"vs {name}": item.skill_per_lead(name) for name in item.baselines}
        else:
            title = f"Skill over {PERSISTENCE}: above zero beats it"
            rows = {
                name: item.skill_per_lead(PERSISTENCE, name)
                for name in item.forecasts
                if name not in BASELINES
            }
        svg = curves.curves(
            "Skill by lead time",
            self._x,
            {name: found.values for name, found in rows.items()},
            self._lead,
            "skill",
            "line",
            _bands(rows),
            item.forecasts,
        )
        return Chart(title, svg)

    def events(self) -> Charts:
        """Return charts of CSI and FSS by threshold and lead time."""
        systems = self._item.systems("radar")
        if not systems:
            return Charts("", ())
        scores = {system: self._item.scores.means("radar", system) for system in systems}
        names = list(scores[systems[0]])
        labels = _thresholds(names)
        unit = units_of(self._item)
        charts: list[Chart | None] = []
        known = [
            (label, value)
            for label, value in labels
            if _drawn([[found[f"csi_{label}"] for found in scores.values()]])
        ]
        series = {
            system: [found[f"csi_{label}"] for label, _ in known]
            for system, found in scores.items()
        }
        if len(known) > 1:
            svg = curves.curves(
                "CSI by threshold",
                [value for _, value in known],
                series,
                f"threshold{self._units}",
                "CSI",
                "share",
                order=self._item.forecasts,
            )
            charts.append(Chart("CSI by threshold, all lead times", svg))
        chosen = [labels[i] for i in text.several(len(labels), MOST_THRESHOLDS)]
        without = []
        for label, value in chosen:
            chart = self.by_lead(
                f"CSI, ≥ {value:g} {unit}", "radar", f"csi_{label}", "CSI", "share"
            )
            charts.append(chart)
            if chart is None:
                without.append(f"{value:g} {unit}")
        for label, value in chosen:
            sides = [
                (name, int(match[1]))
                for name in names
                if (match := re.fullmatch(rf"fss_{re.escape(label)}_(\d+)px", name))
            ]
            for name, side in sides:
                squares = f"{side} by {side} pixels"
                if self._cell_km:
                    squares = f"{side * self._cell_km:.3g} km squares"
                title = f"FSS, ≥ {value:g} {unit}, {squares}"
                charts.append(self.by_lead(title, "radar", name, "FSS", "share"))
        note = "CSI: hits / (hits + misses + false alarms). FSS: agreement of the share of events "
        note += "in squares; 1 is perfect for both."
        if without:
            note += f" No event of {' or '.join(without)} was seen or forecast."
        return Charts("Events above thresholds", _kept(charts), note)

    def spectra(self) -> Charts:
        """Return power spectra of truth and forecasts at the first and the last lead time."""
        curves_of = self._item.curves.get("detail", {})
        first = next(iter(curves_of), "")
        if "power_truth" not in curves_of.get(first, {}):
            return Charts("", ())
        truth = curves_of[first]["power_truth"]
        waves, unit = np.asarray(truth.positions, float), "pixels"
        if self._cell_km:
            waves, unit = waves * self._cell_km, "km"
        leads = text.lead_labels(self._evaluation.lead_seconds, self._evaluation.timed)
        squared = f"power (squared {units_of(self._item)})" if units_of(self._item) else "power"
        charts = []
        for lead in dict.fromkeys((0, len(leads) - 1)):
            series = {"truth": truth.per_lead[lead]} | {
                name: found["power_forecast"].per_lead[lead] for name, found in curves_of.items()
            }
            series = {name: values for name, values in series.items() if _drawn([values])}
            if "truth" not in series:
                continue
            title = f"Power spectrum, {leads[lead]}"
            label, order = f"wavelength ({unit})", self._item.forecasts
            svg = curves.spectra(title, waves.tolist(), series, label, squared, order)
            charts.append(Chart(title, svg))
        if not charts:
            note = "No power spectra: they need frames without missing pixels, and there is none."
            return Charts("Fine structure", (), note)
        note = "Below the truth at short wavelengths: blurred; above it: noisy."
        overall = self._item.scores.means("detail", first)
        area, share = overall.get("area_with_spectrum", 1.0), overall["frames_with_spectrum"]
        if area < 1:
            note += (
                f" Of the largest rectangle that is observed whole, {area:.0%} of the grid: what "
                "is missing in every frame, as beyond the reach of radars, has no spectrum."
            )
        if share < 1:
            note += (
                f" From the {share:.2%} of the frames that miss no pixel there: a frame that "
                "misses one has no spectrum."
            )
        return Charts("Fine structure", tuple(charts), note)

    def ensemble(self) -> Charts:
        """Return charts of CRPS, spread, rank histogram and reliability of an ensemble."""
        if MODEL not in self._item.systems("ensemble"):
            return Charts("", ())
        found = self._item.curves["ensemble"][MODEL]
        error, spread = (
            self._item.scores.per_lead("ensemble", MODEL, name).values
            for name in ("rmse_ensemble_mean", "spread")
        )
        title = "Spread beside the error of the mean"
        svg = curves.curves(
            title,
            self._x,
            {"error of the mean": error, "spread": spread},
            self._lead,
            f"RMSE, spread{self._units}",
            "floor",
        )
        charts = [
            self.probabilistic_error(),
            Chart(title, svg, "A reliable ensemble spreads about as much as its mean errs."),
            Chart(
                "Rank histogram",
                curves.rank_histogram("Rank histogram", found["rank_histogram"].overall),
                "Flat: reliable. High ends: members too alike. Sloping: too high or too low.",
            ),
        ]
        for name, curve in found.items():
            if not name.startswith("reliability_"):
                continue
            label = name.removeprefix("reliability_")
            shares = found[f"forecast_share_{label}"].overall
            observed = np.asarray(curve.overall, float)
            given = np.asarray(shares, float)
            base = float(np.nansum(observed * given))
            title = f"Reliability, ≥ {label} {units_of(self._item)}".rstrip()
            if not base:
                continue
            svg = curves.reliability(
                title, curve.positions, observed.tolist(), given.tolist(), base
            )
            charts.append(Chart(title, svg, RELIABLE))
        members = self._evaluation.members
        return Charts("Ensemble", tuple(charts), f"{members} members, all lead times together.")

    def probabilistic_error(self) -> Chart:
        """Return a chart of the CRPS by lead time.

        The CRPS of a single forecast equals its MAE, so the chart shows the MAE for those.
        """
        ensembles = self._item.systems("ensemble")
        rows = {
            name: self._item.scores.per_lead("ensemble", name, "crps_fair")
            if name in ensembles
            else self._item.scores.per_lead(STRICT, name, "mae")
            for name in self._item.forecasts
        }
        svg = curves.curves(
            "CRPS by lead time",
            self._x,
            {name: found.values for name, found in rows.items()},
            self._lead,
            f"CRPS{self._units}",
            "floor",
            _bands(rows),
            self._item.forecasts,
        )
        note = "Of a single forecast the CRPS is its absolute error."
        return Chart("Error of the probabilities (CRPS)", svg, note)

    def hours(self) -> Charts:
        """Return a chart of the RMSE by hour of the day, if enough hours have scores."""
        parts = self._item.scores.select("hour", protocol=STRICT).parts
        if len(parts) < FEWEST_HOURS:
            return Charts("", ())
        series = {
            name: [self._item.scores.overall(STRICT, name, "rmse", part).value for part in parts]
            for name in self._item.forecasts
        }
        title = "Error (RMSE) by hour of the time that is forecast"
        hours = [float(part.name) for part in parts]
        label, order = f"RMSE{self._units}", self._item.forecasts
        svg = curves.curves(title, hours, series, "hour (UTC)", label, "floor", order=order)
        return Charts("Through the day", (Chart(title, svg),), "All lead times together.")

    def by_lead(self, title: str, protocol: str, score: str, label: str, zero: Any) -> Chart | None:
        """Return a chart of one score by lead time, or None if no forecast has the score."""
        rows = {
            system: found
            for system in self._item.systems(protocol)
            if (found := self._item.scores.per_lead(protocol, system, score))
        }
        series = {system: found.values for system, found in rows.items()}
        if not series or not _drawn(series.values()):
            return None
        bands, order = _bands(rows), self._item.forecasts
        svg = curves.curves(title, self._x, series, self._lead, label, zero, bands, order)
        return Chart(title, svg)

    def differences(self, title: str, rows: Mapping[str, Scores], label: str) -> Chart:
        """Return a chart of differences in one score between systems, by lead time."""
        series, order = {name: found.values for name, found in rows.items()}, self._item.forecasts
        svg = curves.curves(title, self._x, series, self._lead, label, "line", _bands(rows), order)
        return Chart(title, svg)


def _bands(rows: Mapping[str, Scores]) -> dict[str, curves.Band]:
    """Return lower and upper ends of intervals by lead time, for systems that have intervals."""
    bands = {}
    for name, found in rows.items():
        if found and found[0].low is not None:
            low, high = np.asarray([row.interval for row in found], float).T
            bands[name] = low.tolist(), high.tolist()
    return bands


def _drawn(series: Iterable[Any]) -> bool:
    return any(np.isfinite(np.asarray(values, float)).any() for values in series)


def _kept(charts: Iterable[Chart | None]) -> tuple[Chart, ...]:
    return tuple(chart for chart in charts if chart is not None)


def _thresholds(names: Iterable[str]) -> list[tuple[str, float]]:
    """Return labels and values of thresholds, in rising order, without those in pixel values.

    >>> _thresholds(["csi_40", "csi_0.5", "pod_40", "csi_107_pixel", "csi_30_dbz"])
    [('0.5', 0.5), ('30_dbz', 30.0), ('40', 40.0)]
    """
    found = []
    for name in names:
        match = re.fullmatch(r"csi_((\d+(?:\.\d+)?)(?:_dbz)?)", name)
        if match:
            found.append((match[1], float(match[2])))
    return sorted(found, key=lambda pair: pair[1])
