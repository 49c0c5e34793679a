"""Forecast from a trained model over any period of a store, or from the newest frames.

    python jobs/predict.py --checkpoint RUN --store STORE --forecasts FORECASTS \\
        --first 2018-03-01 --last 2018-03-31 --every 6
    python jobs/predict.py --checkpoint RUN --store STORE --latest --netcdf forecast.nc
    python jobs/predict.py --checkpoint RUN --source FOLDER --netcdf forecast.nc

Writes a CF store in Zarr format 3, (init_time, lead_time, [member], ..., y, x) in physical units,
forecast by forecast: the same command again goes on where one was killed. An init time whose input
touches a missing frame has no forecast, and is listed. One process, on a GPU where there is one; it
needs no Ray. The way through the code, in jobs/forecasts/prediction: frames of a folder
(operational.py), the init times (init_times.py), the batches (predict.py), the store (products.py
and forecast_store.py).
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import asdict

from jobs.command_line import main_guard, parser_class, print_json, progress, say
from pipelines.errors import UsageError


def predict(
    checkpoint: str,
    store: str | None = None,
    source: str | None = None,
    forecasts: str | None = None,
    first: str | None = None,
    last: str | None = None,
    latest: bool = False,
    every: int = 1,
    horizon: int | None = None,
    members: int | None = None,
    seed: int = 0,
    quantiles: str = "",
    exceed: str = "",
    batch_size: int = 16,
    netcdf: str | None = None,
    json: bool = False,
) -> None:
    """Forecast, write and print what was made and what was left out.

    Args:
        checkpoint: URI of a run (its best checkpoint), of a checkpoint, or of an exported folder.
        store: URI of the Zarr store that it was trained on, or of one converted with its splits.
        source: URI of a folder, a glob or a file of the archive that the model's store was made
            from: the newest frames there are forecast from, without a store.
        forecasts: URI of the store of forecasts to write; may be left out with --netcdf.
        first: first init time, such as 2018-03-01 or 2018-03-01T06:00.
        last: last init time, inclusive; 2018-03 is the whole month.
        every: frames of the store from one init time to the next.
        horizon: frames to forecast; by default as many as the model was trained for.
        members: forecasts of each init time, of a model with noise.
        seed: of the members' noise, from 0 to 2147483647.
        quantiles: over the members, such as 0.1,0.5,0.9; the mean is written with them.
        exceed: thresholds, such as 30,40: the fraction of the members at or above each.
        batch_size: init times in one forward pass.
        netcdf: local file to write one forecast to (--latest, or one init time).
    """
    if bool(store) == bool(source):
        raise UsageError("no frames to forecast from", remedy="give --store or --source, not both")
    latest = latest or bool(source and not (first or last))
    if latest == bool(first or last) or bool(first) != bool(last):
        raise UsageError("no init times", remedy="give --first and --last, or --latest")
    if source and not latest:
        raise UsageError(
            "a source is forecast from its newest frames only",
            where=source,
            remedy="leave --first and --last out, or convert it and give the --store",
        )
    if not (forecasts or netcdf):
        raise UsageError("nowhere to write", remedy="give --forecasts, --netcdf, or both")
    from jobs.forecasts.forecasters.trained import load_trained
    from jobs.forecasts.prediction.netcdf import check_file, write_netcdf
    from jobs.forecasts.prediction.operational import operational_store
    from jobs.forecasts.prediction.predict import predict as make_forecasts
    from jobs.forecasts.prediction.predict import summary
    from jobs.forecasts.prediction.products import Products, numbers
    from jobs.forecasts.seeds import check_seed
    from pipelines.storage.places import absolute
    from pipelines.stores.store import open_store

    check_seed(seed)
    products = Products(members, numbers(quantiles), numbers(exceed))
    if netcdf:
        check_file(netcdf)
    trained = load_trained(checkpoint)
    period = (first, last) if first and last else None
    with ExitStack() as ending:
        scratch = ending.enter_context(tempfile.TemporaryDirectory(prefix="forecast_"))
        if store:
            opened = open_store(store)
        else:
            opened = operational_store(trained, str(source), f"{scratch}/frames", say)
        show = ending.enter_context(progress("forecasting", "forecasts"))
        place = forecasts or f"{scratch}/forecasts"
        options = {"horizon": horizon, "seed": seed, "batch_size": batch_size, "report": show}
        options |= {"period": period, "every": every, "products": products, "single": bool(netcdf)}
        options["origin"] = absolute(source) if source else None
        result = make_forecasts(trained, opened, place, **options)
        if netcdf:
            write_netcdf(place, netcdf)
    if json:
        print_json({**asdict(result), "forecasts": forecasts, "netcdf": netcdf})
        return
    places = ", ".join(place for place in (forecasts, netcdf) if place)
    print("\n".join([*summary(result), f"forecasts: {places}"]))


def main() -> None:
    """Parse and forecast."""
    parser = parser_class()(description=__doc__)
    parser.add_function_arguments(predict, skip={"latest", "json"})
    latest = "forecast from the newest frames that have no gap before them"
    parser.add_argument("--latest", action="store_true", help=latest)
    lines = "print one JSON object instead of the summary"
    parser.add_argument("--json", action="store_true", help=lines)
    predict(**vars(parser.parse_args()))


if __name__ == "__main__":
    main_guard(main)
