"""Score a checkpoint on a split it has not seen, always beside its baselines.

    python jobs/evaluate.py --checkpoint RUN --store STORE --report REPORT
    python jobs/evaluate.py --checkpoint RUN --store STORE --report REPORT --workers 8

Writes five files into the folder REPORT: a page that loads nothing (report.html), all scores as
JSON (scores.json) and as a table (scores.csv), maps of errors by lead time (fields.zarr), and the
sums by day that a comparison resamples (sums.npz). If REPORT ends in .html, the page goes there and
the other files beside it. The windows are scored in this process, or on a pool of Ray actors.

The way through the code: the checks (jobs/forecasts/forecasters/compatibility.py); in
jobs/forecasts/scoring the windows and scores (evaluate.py, protocols.py), the pass over the windows
(blocks.py, ray_pool.py), the sums by day, month and hour (sums.py), the intervals (bootstrap.py);
the scores themselves (gmg_model/metrics); the files (jobs/forecasts/reports/outputs.py).
"""

from __future__ import annotations

from jobs.command_line import main_guard, parse_options, print_json, progress
from jobs.forecasts.scoring.options import EvaluationOptions


def evaluate(options: EvaluationOptions, json: bool = False) -> None:
    """Score a model, write the report, and print a summary or one JSON object."""
    from jobs.forecasts.reports.outputs import check_writable, write_outputs
    from jobs.forecasts.scoring.evaluate import check, load, system_of
    from jobs.forecasts.scoring.evaluate import evaluate as score
    from jobs.forecasts.scoring.protocols import Selection
    from jobs.forecasts.scoring.text import summary

    store, trained = load(options)
    check(trained, store, options.split)
    check_writable(options.report)
    system = system_of(trained, options)
    with progress("scoring", "windows") as show:
        evaluation = score(store, system, options, show)
    written = write_outputs(options, evaluation, trained, store)
    files = {
        "report": written.page,
        "scores": written.scores,
        "table": written.table,
        "fields": None if evaluation.fields is None else written.fields,
    }
    if json:
        print_json({**files, **evaluation.as_dict()})
        return
    lines = [f"note: {note}" for note in evaluation.notes]
    lines += [f"{name}: {place}" for name, place in files.items() if place]
    print("\n".join([*summary(evaluation, Selection.of(options).headline), *lines]))


def main() -> None:
    """Parse and evaluate."""
    lines = "print one JSON object instead of the summary"
    evaluate(*parse_options(EvaluationOptions, __doc__, lines))


if __name__ == "__main__":
    main_guard(main)
