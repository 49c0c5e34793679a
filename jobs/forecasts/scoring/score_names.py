"""How scores are called in tables, their units, and which values are better."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from jobs.forecasts.scoring.text import shown_units

Better = Literal["lower", "higher", "zero", "one", ""]
BETTER: dict[Better, str] = {
    "lower": "lower is better",
    "higher": "higher is better",
    "zero": "best at 0",
    "one": "best at 1",
    "": "",
}


class ScoreName(NamedTuple):
    """What tables say of one score."""

    heading: str
    """heading on the pages; empty for scores that only the files hold"""
    units: str
    """units; `units` stands for those of the variable"""
    better: Better
    """lower, higher, or the best value; empty if no value is better than another"""
    short: str = ""
    """heading in the table of the terminal; empty if that table does not show the score"""

    def units_for(self, units: str) -> str:
        """Return the units of the score of a variable that has `units`."""
        return shown_units(units) if self.units == "units" else self.units


NAMES: dict[str, ScoreName] = {
    "rmse": ScoreName("RMSE", "units", "lower", "RMSE"),
    "mae": ScoreName("MAE", "units", "lower", "MAE"),
    "bias": ScoreName("Bias", "units", "zero", "bias"),
    "ssim": ScoreName("SSIM", "", "higher", "SSIM"),
    "psnr": ScoreName("PSNR", "dB", "higher", "PSNR"),
    "rmse_latitude": ScoreName("RMSE, latitude-weighted", "units", "lower"),
    "acc": ScoreName("Anomaly correlation", "", "higher"),
    "rmse_spatial_norm": ScoreName("RMSE, pixel mean", "", "lower", "RMSE"),
    "mae_spatial_norm": ScoreName("MAE, pixel mean", "", "lower", "MAE"),
    "mse_pixel_sum": ScoreName("MSE, pixel sum", "", "lower", "MSE sum"),
    "mae_pixel_sum": ScoreName("MAE, pixel sum", "", "lower", "MAE sum"),
    "mse_spatial_norm": ScoreName("MSE, pixel mean", "", "lower"),
    "ssim_uniform7_range2_clipped": ScoreName("SSIM, range 2", "", "higher", "SSIM"),
    "psnr_frame_mean_clipped": ScoreName("PSNR", "dB", "higher", "PSNR"),
    "mse_uint8_rounded": ScoreName("MSE", "squared grey levels", "lower"),
    "psnr_uint8_rounded_pooled_range_forecast": ScoreName(
        "PSNR, span of the forecasts", "dB", "higher"
    ),
    "ssim_uint8_rounded_uniform7_range255": ScoreName("SSIM", "", "higher"),
    "mse_pixel_sum_clipped": ScoreName("MSE, pixel sum", "", "lower"),
    "mae_pixel_sum_clipped": ScoreName("MAE, pixel sum", "", "lower"),
    "psnr_uint8_truncated_frame_mean": ScoreName("PSNR", "dB", "higher"),
    "ssim_uint8_truncated_uniform7_range255": ScoreName("SSIM", "", "higher"),
    "gdl1_pixel_sum_clipped": ScoreName("GDL, exponent 1", "", "lower"),
    "gdl2_pixel_sum_clipped": ScoreName("GDL, exponent 2", "", "lower"),
    "gdl": ScoreName("Gradient difference", "units", "lower"),
    "power_ratio_finer_8px": ScoreName("Power finer than 8 pixels", "of the truth's", "one"),
    "crps_fair": ScoreName("CRPS, fair", "units", "lower"),
    "rmse_ensemble_mean": ScoreName("RMSE of the mean", "units", "lower"),
    "spread": ScoreName("Spread", "units", ""),
    "spread_skill": ScoreName("Spread / error", "", "one"),
}
"""Scores that tables show, apart from those of events, in the order of the terminal's table."""
EVENTS: dict[str, Better] = {
    "csi": "higher",
    "pod": "higher",
    "far": "lower",
    "hss": "higher",
    "fss": "higher",
    "brier": "lower",
}
"""Scores of events above a threshold. The threshold follows in the name, as in `csi_ge_0.5`."""
MOST_EVENTS = 6
"""Columns of the terminal's table, if it has no score but those of events."""


def score_name(score: str) -> ScoreName:
    """Return what tables say of a score.

    >>> score_name("csi_ge_0.5").heading, score_name("fss_40_11px").better
    ('CSI ≥ 0.5', 'higher')
    >>> score_name("hits_40").heading
    ''
    """
    if score in NAMES:
        return NAMES[score]
    kind, _, rest = score.partition("_")
    if kind not in EVENTS or rest.startswith(("reliability", "resolution", "uncertainty")):
        return ScoreName("", "", "")
    label = kind.capitalize() if kind == "brier" else kind.upper()
    threshold = rest.replace("ge_", "≥ ").replace("_", ", ")
    return ScoreName(f"{label} {threshold}", "", EVENTS[kind])


def short_name(score: str) -> str:
    """Return the heading of a score in the terminal's table."""
    return score_name(score).short or score


def chosen(overall: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return the scores that the terminal's table shows, of those that every system has.

    Parameters
    ----------
    overall:
        system -> {score: value}
    """
    first = next(iter(overall.values()))
    common = [name for name in first if all(name in scores for scores in overall.values())]
    events = [name for name in common if name.startswith(("csi_", "fss_"))]
    named = [name for name, known in NAMES.items() if known.short and name in common]
    return named or events[:MOST_EVENTS] or common[:MOST_EVENTS]
