"""Score a checkpoint on a split it has not seen, beside persistence and climatology.

    python jobs/evaluate.py --checkpoint RUN --store STORE --report REPORT

Writes one HTML page that loads nothing (report.html) and the same scores as JSON (evaluation.json)
into the folder REPORT, or to REPORT itself where it ends in .html, with the JSON beside it. The way
through the code: the refusals (jobs/forecasts/matching.py), one pass over the windows
(jobs/forecasts/evaluation.py), the scores (gmg_model/metrics), the page
(jobs/forecasts/report.py).
"""

from __future__ import annotations

from typing import Literal

from jobs.command_line import parser_class, print_json, progress, run


def evaluate(
    checkpoint: str,
    store: str,
    report: str,
    split: str = "test",
    protocol: Literal["strict", "openstl"] = "strict",
    max_windows: int | None = None,
    batch_size: int = 16,
    json: bool = False,
) -> None:
    """Score, write the report and print a summary.

    Args:
        checkpoint: URI of a checkpoint, or of a run: its best checkpoint by validation loss.
        store: URI of the Zarr store that the checkpoint was trained on.
        report: URI of a folder or of an .html file to write.
        split: split of the store that is scored; it must not touch the train period.
        protocol: conventions of the summary and of the page's first table; the JSON holds both.
        max_windows: score so many windows, evenly spaced over the split; by default all.
        batch_size: windows in one forward pass.
        json: print one JSON object on standard output instead of the summary.
    """
    from jobs.forecasts.destination import refuse_unwritable
    from jobs.forecasts.evaluation import evaluate as score_windows
    from jobs.forecasts.matching import refuse_leak, refuse_mismatch, refuse_selection
    from jobs.forecasts.model_forecast import forecast_with
    from jobs.forecasts.report import Provenance, write_report
    from jobs.forecasts.wording import summary
    from jobs.training.checkpoints import load_checkpoint
    from jobs.training.run import read_history, run_of
    from pipelines.store import open_store

    opened, trained = open_store(store), load_checkpoint(checkpoint)
    refuse_mismatch(trained, opened)
    refuse_leak(opened, split)
    refuse_selection(trained, opened, split)
    refuse_unwritable(report)
    with progress("scoring", "windows") as show:
        evaluation = score_windows(
            opened,
            forecast_with(trained.model()),
            variables=trained.variables,
            window=trained.window,
            normalisation=trained.normalisation,
            split=split,
            max_windows=max_windows,
            batch_size=batch_size,
            report=show,
        )
    provenance = Provenance.of(trained, opened, read_history(run_of(trained.uri)))
    page, record = write_report(report, evaluation, provenance, opened, protocol)
    if json:
        print_json({"report": page, "scores": record, **evaluation.to_json()})
        return
    print("\n".join([*summary(evaluation, protocol), f"report: {page}", f"scores: {record}"]))


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
    run(main)
