"""Charts of one quantity's scores on the page: errors, events, fine structure, ensembles, hours."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jobs.drawing import curves
from jobs.forecasts.reports.tables import units_of
from jobs.forecasts.scoring import text
from jobs.forecasts.scoring.scores import BASELINES, MODEL, PERSISTENCE, Evaluation, GroupScores

MOST_THRESHOLDS = 4
RELIABLE = (
    "On the diagonal: what is forecast with 30 % happens in 30 % of the cases. "
    "Below: how often each probability was forecast."
)


@dataclass(frozen=True)
class Chart:
    """A chart and what stands around it."""

    title: str
    svg: str
    note: str = ""


@dataclass(frozen=True)
class Charts:
    """Charts that belong together."""

    title: str
    charts: tuple[Chart, ...]
    note: str = ""


def all_charts(evaluation: Evaluation, item: GroupScores) -> list[Charts]:
    """Every group of charts that this quantity's scores have."""
    drawn = ScoreCharts(evaluation, item)
    made = (drawn.errors(), drawn.events(), drawn.spectra(), drawn.ensemble(), drawn.hours())
    return [group for group in made if group.charts or group.note]


class ScoreCharts:
    """Charts of the scores of one quantity: of a model and its baselines, or of several models."""

    def __init__(self, evaluation: Evaluation, item: GroupScores):
        self._evaluation, self._item = evaluation, item
        self._cell_km = evaluation.grid.cell_km if evaluation.grid else None
        unit, seconds = text.lead_unit(evaluation.lead_seconds, evaluation.timed)
        self._x = [lead / seconds for lead in evaluation.lead_seconds]
        self._lead = f"lead time ({unit})"
        units = units_of(item)
        self._units = f" ({units})" if units else ""

    def errors(self) -> Charts:
        """Error, skill, bias and structure by lead time."""
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
        """Skill of the model over each baseline, or of several models over persistence."""
        item = self._item
        if MODEL in item.forecasts:
            title = "Skill: above zero beats the baseline"
            series = {f"vs {name}": item.skill(name)["per_lead"] for name in item.baselines}
        else:
            title = f"Skill over {PERSISTENCE}: above zero beats it"
            series = {
                name: item.skill(PERSISTENCE, name)["per_lead"]
                for name in item.forecasts
                if name not in BASELINES
            }
        bands = {
            f"vs {name}": np.asarray(found["per_lead"], float).T
            for name, found in item.skill_intervals.items()
        }
        svg = curves.curves(
            "Skill by lead time",
            self._x,
            series,
            self._lead,
            "skill",
            "line",
            _ends(bands),
            item.forecasts,
        )
        return Chart(title, svg)

    def events(self) -> Charts:
        """CSI and FSS by threshold and lead time."""
        if "radar" not in self._item.protocols:
            return Charts("", ())
        names = list(_first(self._item.protocols["radar"])["overall"])
        labels = _thresholds(names)
        unit = units_of(self._item)
        charts: list[Chart | None] = []
        known = [
            (label, value)
            for label, value in labels
            if _drawn(
                [[r["overall"][f"csi_{label}"] for r in self._item.protocols["radar"].values()]]
            )
        ]
        series = {
            forecast: [result["overall"][f"csi_{label}"] for label, _ in known]
            for forecast, result in self._item.protocols["radar"].items()
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
        """Power of truth and forecasts by wavelength, at the first and the last lead time."""
        by_forecast = self._item.protocols.get("detail", {})
        found = _first(by_forecast).get("curves", {}) if by_forecast else {}
        if "power_truth" not in found:
            return Charts("", ())
        truth = found["power_truth"]
        waves, unit = np.asarray(truth["positions"], float), "pixels"
        if self._cell_km:
            waves, unit = waves * self._cell_km, "km"
        leads = text.lead_labels(self._evaluation.lead_seconds, self._evaluation.timed)
        squared = f"power (squared {units_of(self._item)})" if units_of(self._item) else "power"
        charts = []
        for lead in dict.fromkeys((0, len(leads) - 1)):
            series = {"truth": truth["per_lead"][lead]} | {
                name: result["curves"]["power_forecast"]["per_lead"][lead]
                for name, result in by_forecast.items()
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
        overall = _first(by_forecast)["overall"]
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
        """Spread beside error, rank histogram and reliability of the members."""
        result = self._item.protocols.get("ensemble", {}).get(MODEL)
        if result is None:
            return Charts("", ())
        per_lead, found = result["per_lead"], result["curves"]
        error, spread = per_lead["rmse_ensemble_mean"], per_lead["spread"]
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
                curves.rank_histogram("Rank histogram", found["rank_histogram"]["overall"]),
                "Flat: reliable. High ends: members too alike. Sloping: too high or too low.",
            ),
        ]
        for name, curve in found.items():
            if not name.startswith("reliability_"):
                continue
            label = name.removeprefix("reliability_")
            shares = found[f"forecast_share_{label}"]["overall"]
            observed = np.asarray(curve["overall"], float)
            given = np.asarray(shares, float)
            base = float(np.nansum(observed * given))
            title = f"Reliability, ≥ {label} {units_of(self._item)}".rstrip()
            if not base:
                continue
            svg = curves.reliability(
                title, curve["positions"], observed.tolist(), given.tolist(), base
            )
            charts.append(Chart(title, svg, RELIABLE))
        members = self._evaluation.members
        return Charts("Ensemble", tuple(charts), f"{members} members, all lead times together.")

    def probabilistic_error(self) -> Chart:
        """CRPS of ensembles beside the MAE of single forecasts, which is what it is for them."""
        item, ensembles = self._item, self._item.protocols.get("ensemble", {})
        series = {
            name: ensembles[name]["per_lead"]["crps_fair"]
            if name in ensembles
            else item.strict_per_lead(name, "mae")
            for name in item.forecasts
        }
        ends = {
            name: ("ensemble", "crps_fair") if name in ensembles else ("strict", "mae")
            for name in series
        }
        bands = {
            name: np.asarray(found, float).T
            for name, (protocol, score) in ends.items()
            if (found := self._intervals(protocol, name).get(score))
        }
        svg = curves.curves(
            "CRPS by lead time",
            self._x,
            series,
            self._lead,
            f"CRPS{self._units}",
            "floor",
            _ends(bands),
            item.forecasts,
        )
        note = "Of a single forecast the CRPS is its absolute error."
        return Chart("Error of the probabilities (CRPS)", svg, note)

    def _intervals(self, protocol: str, forecast: str) -> dict[str, Any]:
        found = self._item.intervals.get(protocol, {}).get(forecast, {})
        return found.get("per_lead", {})

    def hours(self) -> Charts:
        """Error by hour of the day."""
        parts = self._item.hours
        if len(parts) < 6:
            return Charts("", ())
        series = {
            name: [part["strict"][name]["rmse"] for part in parts.values()]
            for name in self._item.forecasts
        }
        title = "Error (RMSE) by hour of the time that is forecast"
        hours = [float(hour) for hour in parts]
        label, order = f"RMSE{self._units}", self._item.forecasts
        svg = curves.curves(title, hours, series, "hour (UTC)", label, "floor", order=order)
        return Charts("Through the day", (Chart(title, svg),), "All lead times together.")

    def by_lead(self, title: str, protocol: str, score: str, label: str, zero: Any) -> Chart | None:
        """One score of all forecasts by lead time; None where no forecast has it."""
        by_forecast = self._item.protocols.get(protocol, {})
        series = {
            name: result["per_lead"][score]
            for name, result in by_forecast.items()
            if score in result["per_lead"]
        }
        if not series or not _drawn(series.values()):
            return None
        bands = {
            name: np.asarray(found, float).T
            for name in series
            if (found := self._intervals(protocol, name).get(score))
        }
        ends, order = _ends(bands), self._item.forecasts
        svg = curves.curves(title, self._x, series, self._lead, label, zero, ends, order)
        return Chart(title, svg)

    def differences(
        self, title: str, series: Mapping[str, Any], bands: Mapping[str, np.ndarray], label: str
    ) -> Chart:
        """One score of several forecasts less that of one of them, by lead time."""
        ends, order = _ends(bands), self._item.forecasts
        svg = curves.curves(title, self._x, series, self._lead, label, "line", ends, order)
        return Chart(title, svg)


def _first(by_forecast: Mapping[str, Any]) -> Any:
    return next(iter(by_forecast.values()))


def _ends(bands: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return {name: (low, high) for name, (low, high) in bands.items()}


def _drawn(series: Iterable[Any]) -> bool:
    return any(np.isfinite(np.asarray(values, float)).any() for values in series)


def _kept(charts: Iterable[Chart | None]) -> tuple[Chart, ...]:
    return tuple(chart for chart in charts if chart is not None)


def _thresholds(names: Iterable[str]) -> list[tuple[str, float]]:
    """Labels and values of the thresholds in the data's units, in order.

    >>> _thresholds(["csi_40", "csi_0.5", "pod_40", "csi_107_pixel", "csi_30_dbz"])
    [('0.5', 0.5), ('30_dbz', 30.0), ('40', 40.0)]
    """
    found = []
    for name in names:
        match = re.fullmatch(r"csi_((\d+(?:\.\d+)?)(?:_dbz)?)", name)
        if match:
            found.append((match[1], float(match[2])))
    return sorted(found, key=lambda pair: pair[1])
