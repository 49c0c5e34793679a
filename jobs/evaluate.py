"""Score a checkpoint on a split it has not seen, always beside its baselines.

    python jobs/evaluate.py --checkpoint RUN --store STORE --report REPORT
    python jobs/evaluate.py --checkpoint RUN --store STORE --report REPORT --workers 8

Writes into the folder REPORT one HTML page that loads nothing (report.html), all scores as JSON
(scores.json) and as a table (scores.csv), maps of errors by lead time (fields.zarr), and the sums
by day that a comparison resamples (sums.npz); or, where REPORT ends in .html, the page there and
the others beside it. In this process, or on a pool of Ray actors. The way through the code: the
checks (jobs/forecasts/forecasters/compatibility.py), then in jobs/forecasts/scoring the windows and
scores (evaluate.py, protocols.py), the pass over the windows (blocks.py, ray_pool.py), the sums by
day, month and hour (sums.py), the intervals (bootstrap.py); the scores (gmg_model/metrics) and the
page (jobs/forecasts/reports/evaluation_page.py).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from jobs.command_line import main_guard, parser_class, print_json, progress
from pipelines.errors import UsageError


def evaluate(
    checkpoint: str,
    store: str,
    report: str,
    split: str = "test",
    protocols: str = "",
    thresholds: str = "",
    horizon: int | None = None,
    members: int | None = None,
    max_windows: int | None = None,
    batch_size: int = 16,
    workers: int = 1,
    shared_paths: bool = False,
    resamples: int = 1000,
    seed: int = 0,
    colours: Literal["usual", "lightness"] = "usual",
    json: bool = False,
) -> None:
    """Score, write the report and print a summary.

    Args:
        checkpoint: URI of a run (its best checkpoint by validation loss), of a checkpoint, or of an
            exported folder.
        store: URI of the Zarr store that the checkpoint was trained on.
        report: URI of a folder or of an .html file to write.
        split: split of the store that is scored; it must not touch the train period.
        protocols: conventions to score by, such as strict,openstl; the first is the summary's and
            the page's first table. By default all that the archive allows.
        thresholds: of events, in the units of the data, such as 20,30,40; by default 30, 40 and 50
            dBZ, or 0.5, 2, 5, 10 and 30 mm/h.
        horizon: frames to forecast; by default as many as the model was trained for.
        members: forecasts of each window, of a model with noise; their mean is the model's.
        max_windows: score so many windows, evenly spaced over the split; by default all.
        batch_size: windows in one forward pass.
        workers: processes that score; 1 is this one, without Ray, more are Ray actors, with the
            cluster's GPUs where there are any.
        shared_paths: local paths are the same on every node of the cluster.
        resamples: of the bootstrap over days that gives scores their intervals, at least 100; 0 for
            none.
        seed: of the members' noise and of the bootstrap, from 0 to 2147483647.
        colours: of radar on the page: the usual ones, or steps of the same hues that darken one by
            one, which colour-blind eyes and black-and-white prints tell apart.
        json: print one JSON object on standard output instead of the summary.
    """
    from jobs.forecasts.forecasters.compatibility import (
        check_match,
        check_no_leak,
        check_selection,
    )
    from jobs.forecasts.forecasters.model_forecast import TrainedForecast
    from jobs.forecasts.forecasters.trained import load_trained, selection_notes, training_history
    from jobs.forecasts.reports.error_maps import (
        error_dataset,
        remove_error_fields,
        write_error_fields,
    )
    from jobs.forecasts.reports.evaluation_page import FILM_RANK, Provenance, write_report
    from jobs.forecasts.reports.motion import example_motion
    from jobs.forecasts.reports.outputs import check_writable, destinations
    from jobs.forecasts.reports.score_table import as_csv
    from jobs.forecasts.scoring.evaluate import evaluate as score_windows
    from jobs.forecasts.scoring.protocols import Selection, parse_thresholds
    from jobs.forecasts.scoring.ray_pool import Pool
    from jobs.forecasts.scoring.text import summary
    from pipelines.storage import places
    from pipelines.stores.store import open_store

    names = tuple(name.strip() for name in protocols.split(",") if name.strip())
    selection = Selection(names, parse_thresholds(thresholds), members)
    if workers < 0:
        raise UsageError(f"workers must be 0 or more, not {workers}")
    opened, trained = open_store(store), load_trained(checkpoint)
    check_match(trained, opened)
    check_no_leak(opened, split)
    check_selection(trained, opened, split)
    check_writable(report)
    window = trained.window if horizon is None else replace(trained.window, horizon=horizon)
    notes = selection_notes(trained, split)
    if window.horizon > trained.window.horizon:
        notes.append(
            f"{window.horizon} frames are forecast with a model that was trained for "
            f"{trained.window.horizon}: nothing was learnt of the later ones"
        )
    forecast = TrainedForecast(trained, members, seed)
    forecast.load()
    used = {"--store": store, "--checkpoint": checkpoint}
    with progress("scoring", "windows") as show:
        evaluation = score_windows(
            opened,
            forecast,
            variables=trained.variables,
            window=window,
            normalisation=trained.normalisation,
            split=split,
            selection=selection,
            max_windows=max_windows,
            batch_size=batch_size,
            pool=Pool(workers, used, shared_paths) if workers > 1 else None,
            resamples=resamples,
            seed=seed,
            notes=notes,
            report=show,
        )
    provenance = Provenance.of(trained, opened, training_history(trained))
    written = destinations(report)
    places.write_bytes(written.table, as_csv(evaluation).encode())
    if evaluation.sums is not None:
        evaluation.sums.write(written.sums)
    maps = error_dataset(evaluation, opened, trained.variables)
    if maps is not None:
        write_error_fields(written.fields, maps)
    else:
        remove_error_fields(written.fields)
    motion = example_motion(trained, evaluation, FILM_RANK)
    write_report(report, evaluation, provenance, opened, selection.headline, motion, colours)
    found: dict[str, Any] = {"report": written.page, "scores": written.scores}
    found |= {"table": written.table, "fields": written.fields if maps is not None else None}
    if json:
        print_json({**found, **evaluation.as_dict()})
        return
    lines = [f"note: {note}" for note in evaluation.notes]
    lines += [f"{name}: {place}" for name, place in found.items() if place]
    print("\n".join([*summary(evaluation, selection.headline), *lines]))


def main() -> None:
    """Parse and evaluate."""
    parser = parser_class()(description=__doc__)
    parser.add_function_arguments(evaluate, skip={"json"})
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object instead of the summary"
    )
    options = parser.parse_args()
    evaluate(**vars(options))


if __name__ == "__main__":
    main_guard(main)
