"""Make a scored forecaster from a folder of radar composites, in one command.

    python jobs/train_radar.py --source FOLDER --run RUN

It takes three steps, each a job of its own. The composites become a Zarr store (RUN.zarr). A model
is trained on the store (RUN). The model is scored on the last part of the record, beside
persistence and extrapolation along the optical flow (RUN.report/report.html). The same command
resumes after a stop, adds files that have arrived since, and ends at once if nothing is left to do.
docs/radar.md lists the formats, and what becomes of missing pixels.

The defaults are jobs/configs/radar.yaml. The way through the code is described in
jobs/train_weatherbench.py.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from jobs.command_line import main_guard, progress
from jobs.training.entry import parse_with
from jobs.training.options import TrainOptions


@dataclass(frozen=True)
class RadarOptions:
    """Conversion and evaluation."""

    source: str
    """URI of the folder with the composites, one file per frame"""
    store: str = ""
    """URI of the Zarr store that is made from them; empty: RUN.zarr"""
    resize: str = "128x128"
    """average to this grid, ROWSxCOLUMNS; source: keep the composites' own"""
    threshold: str = "none"
    """smaller values become no echo, in the store's unit"""
    radar_format: str = ""
    """format of the files; empty: recognised by their content"""
    report: str = ""
    """URI of the folder of the page; empty: RUN.report"""
    max_windows: int = 400
    """windows to score at most, evenly spaced over the test split"""


def main() -> None:
    """Convert, train, score."""
    options, radar, json = parse_with(RadarOptions, "radar.yaml", description=__doc__)
    place = options.run.rstrip("/")
    options = dataclasses.replace(options, store=options.store or f"{place}.zarr")
    convert(options, radar)

    from jobs.training.driver.job import train

    print(train(options).summary())

    from jobs.evaluate import evaluate
    from jobs.forecasts.scoring.options import EvaluationOptions

    report = radar.report or f"{place}.report"
    scored = EvaluationOptions(options.run, options.store, report, max_windows=radar.max_windows)
    evaluate(scored, json)


def convert(options: TrainOptions, radar: RadarOptions) -> None:
    """Add the composites of the folder to the store."""
    from jobs.reprocessing.presentation import show_report
    from pipelines.conversion.convert import convert as run_conversion
    from pipelines.conversion.options import ConversionOptions, ConversionRequest

    own = {"resize": radar.resize, "threshold": radar.threshold}
    if radar.radar_format:
        own["radar_format"] = radar.radar_format
    request = ConversionRequest(
        archive="radar",
        source=radar.source,
        store=options.store,
        options=ConversionOptions(archive_options=own),
        shared_paths=options.shared_paths,
    )
    with progress("converting", "shards") as report:
        done = run_conversion(request, report, print)
    print(show_report(done))


if __name__ == "__main__":
    main_guard(main)
