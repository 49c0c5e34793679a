"""Colours: what is claimed of their lightness, their order and their contrast is so."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from jobs.drawing import palettes
from jobs.drawing.palettes import palette_of
from jobs.drawing.style import THEME, line


def linear(rgb: np.ndarray) -> np.ndarray:
    """sRGB to linear light (IEC 61966-2-1)."""
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lightness(rgb: np.ndarray) -> np.ndarray:
    """CIE 1976 L* of sRGB colours (..., 3), 0 to 100."""
    luminance = linear(np.asarray(rgb, float)) @ [0.2126, 0.7152, 0.0722]
    return np.where(luminance > 0.008856, 116 * np.cbrt(luminance) - 16, 903.3 * luminance)


def contrast(one: str, other: str) -> float:
    """Contrast of two colours (WCAG 2)."""
    both = sorted(
        float(linear(np.array(to_rgb(c))) @ [0.2126, 0.7152, 0.0722]) for c in (one, other)
    )
    return (both[1] + 0.05) / (both[0] + 0.05)


def deuteranope(rgb: np.ndarray) -> np.ndarray:
    """What an eye without green cones sees of linear colours (Machado et al. 2009, severity 1)."""
    seen = np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    )
    return np.clip(linear(rgb) @ seen.T, 0, 1)


@pytest.mark.parametrize(
    ("units", "standard_name", "long_name"),
    [
        ("K", "air_temperature", ""),
        ("1", "", "people entering the cell"),
        ("1", "", "grey value, 0 to 255"),
        ("m s-1", "eastward_wind", ""),
    ],
)
def test_fields_other_than_radar_rise_in_lightness(units, standard_name, long_name):
    palette = palette_of(units, standard_name, long_name)
    colours, norm = palette.scale(270.0, 290.0)
    steps = np.diff(lightness(colours(norm(np.linspace(270, 290, 64)))[:, :3]))
    assert (steps > 0).all()
    # Evenly: no step is more than a few times the mean.
    assert steps.max() < 3 * steps.mean()


def test_temperature_has_a_palette_of_its_own():
    assert palette_of("K", "air_temperature") != palette_of("1", "", "traffic")
    assert palette_of("degC") == palette_of("K")


@pytest.mark.parametrize("units", ["dBZ", "mm/h", "mm h-1"])
def test_radar_steps_by_lightness_darken_one_by_one(units):
    palette = palette_of(units, colours="lightness")
    drop = -np.diff(lightness(np.array([to_rgb(c) for c in palette.colours])))
    assert (drop >= 4).all()
    seen = deuteranope(np.array([to_rgb(c) for c in palette.colours])) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(seen) < 0).all()


def test_usual_radar_colours_run_from_blue_over_green_and_yellow_to_red_and_magenta():
    palette = palette_of("dBZ")
    colours, norm = palette.scale(-32, 70)

    def hue(dbz: float) -> str:
        red, green, blue, _ = colours(norm(dbz))
        if max(red, blue) < green:
            return "green"
        if blue > red:
            return "blue"
        if blue > 0.5:
            return "magenta"
        return "yellow" if green > 0.7 else "orange" if green > 0.4 else "red"

    found = [hue(dbz) for dbz in (7, 12, 17, 22, 27, 32, 37, 47, 52, 57, 70)]
    assert found == ["blue"] * 3 + ["green"] * 3 + ["yellow", "orange", "red", "red", "magenta"]
    assert matplotlib.colors.to_hex(colours(norm(-32))) == palettes.NO_ECHO


def test_a_step_begins_at_its_level():
    palette = palette_of("dBZ")
    colours, norm = palette.scale(0, 60)
    for low, colour in zip(palette.levels, palette.colours, strict=True):
        assert matplotlib.colors.to_hex(colours(norm(low))) == colour
        assert matplotlib.colors.to_hex(colours(norm(low - 0.01))) != colour


def test_radar_has_lines_that_tell_strong_rain_without_colour():
    assert palette_of("dBZ").lines == (20, 30, 40)
    assert palette_of("mm/h").lines == palette_of("mm", "thickness_of_rainfall_amount").lines
    assert palette_of("mm", "lwe_thickness_of_snow").lines == ()
    assert palette_of("K").lines == ()


def test_errors_are_palest_at_zero_and_alike_on_both_sides():
    colours, norm = palettes.ERROR.scale(-3.0, 3.0)
    shades = lightness(colours(norm(np.linspace(-3, 3, 41)))[:, :3])
    assert shades.argmax() == 20
    assert (np.diff(shades[:21]) > 0).all()
    assert (np.diff(shades[20:]) < 0).all()


@pytest.mark.parametrize("forecast", ["truth", "model", "persistence", "climatology", "another"])
def test_lines_stand_out_from_paper(forecast):
    assert contrast(line(forecast)["color"], "#ffffff") >= 3
    assert line(forecast)["color"] in THEME


def test_no_two_forecasts_look_alike_in_black_and_white():
    names = ["truth", "model", "persistence", "climatology", "extrapolation"]
    looks = [line(name) for name in names] + [line("other", place) for place in range(3)]
    dashes = [(str(look["linestyle"]), look["marker"]) for look in looks]
    assert len(set(dashes)) == len(dashes)
    assert len({look["color"] for look in looks}) == len(looks)
    assert line("vs persistence") == line("persistence")
