"""Forecast from a trained model over any period of a store, or from the newest frames.

    python jobs/predict.py --checkpoint RUN --store STORE --forecasts FORECASTS \\
        --first 2018-03-01 --last 2018-03-31 --every 6
    python jobs/predict.py --checkpoint RUN --store STORE --latest --netcdf forecast.nc
    python jobs/predict.py --checkpoint RUN --source FOLDER --netcdf forecast.nc

Writes a CF store in Zarr format 3, (init_time, lead_time, [member], ..., y, x) in physical units,
forecast by forecast. If the command is killed, the same command resumes it. An init time whose
input has a missing frame gets no forecast; such init times are listed. The job is one process
without Ray, on a GPU if there is one.

The way through the code, in jobs/forecasts/prediction: the frames of a folder (operational.py), the
init times (init_times.py), what is forecast (plan.py), the batches (predict.py), the store
(products.py and forecast_store.py).
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict

from jobs.command_line import main_guard, parse_options, print_json, progress, say
from jobs.forecasts.prediction.options import PredictionOptions


def predict(options: PredictionOptions, json: bool = False) -> None:
    """Forecast, write the forecasts, and print what was made and what was left out."""
    from jobs.forecasts.forecasters.trained import load_trained
    from jobs.forecasts.prediction.netcdf import write_netcdf
    from jobs.forecasts.prediction.operational import open_frames
    from jobs.forecasts.prediction.predict import check, summary
    from jobs.forecasts.prediction.predict import predict as make_forecasts

    check(options)
    trained = load_trained(options.checkpoint)
    with tempfile.TemporaryDirectory(prefix="forecast_") as scratch:
        store = open_frames(trained, options, f"{scratch}/frames", say)
        forecasts = options.forecasts or f"{scratch}/forecasts"
        with progress("forecasting", "forecasts") as show:
            made = make_forecasts(trained, store, forecasts, options, say, show)
        if options.netcdf:
            write_netcdf(forecasts, options.netcdf)
    if json:
        print_json({**asdict(made), "forecasts": options.forecasts, "netcdf": options.netcdf})
        return
    places = ", ".join(place for place in (options.forecasts, options.netcdf) if place)
    print("\n".join([*summary(made), f"forecasts: {places}"]))


def main() -> None:
    """Parse and forecast."""
    lines = "print one JSON object instead of the summary"
    predict(*parse_options(PredictionOptions, __doc__, lines))


if __name__ == "__main__":
    main_guard(main)
